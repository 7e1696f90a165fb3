//! The first request of IKE_AUTH: who we are, our proof where it is not left to EAP, and what we want (RFC 7296 section 1.2).

use super::AuthSent;
use crate::auth::psk::shared_key_auth;
use crate::crypto::Prf;
use crate::exchange::config::{InitiatorConfig, LocalAuth};
use crate::exchange::initiator::HandshakeError;
use crate::exchange::initiator::init::certificate_request;
use crate::exchange::mobike::additional_addresses;
use crate::exchange::rekey_ike::PendingIke;
use crate::wire::{AuthMethod, Authentication, Certificate, Notify, NotifyType, Payload};

impl AuthSent {
    pub(super) fn first_request(&self, config: &InitiatorConfig) -> Result<Vec<Payload>, HandshakeError> {
        let mut payloads = vec![Payload::IdI(config.local_id.clone())];
        if let LocalAuth::Certificate(own) = &config.auth {
            payloads.extend(own.chain().iter().map(|der| Payload::Cert(Certificate::x509(der.clone()))));
        }
        if config.shared_secret().is_none() {
            payloads.extend(certificate_request(config));
        }
        if config.gateway.announce {
            payloads.push(Payload::IdR(config.gateway.expected.clone()));
        }
        let octets = self.own_octets(config);
        match &config.auth {
            LocalAuth::Psk(secret) => payloads.push(shared_key_payload(self.negotiated.prf, secret, &octets)),
            LocalAuth::Certificate(own) => {
                let signed = own
                    .key()
                    .sign(&self.negotiated.peer_hashes, &octets)
                    .map_err(HandshakeError::OurSignature)?;
                let method = AuthMethod::from(signed.method);
                payloads.push(Payload::Auth(Authentication { method, data: signed.data }));
            }
            LocalAuth::EapMschapv2 { .. } => {}
        }
        if let Some(request) = config.request.configuration() {
            payloads.push(Payload::Cp(request));
        }
        if config.initial_contact {
            payloads.push(Payload::Notify(Notify::status(NotifyType::InitialContact)));
        }
        // A gateway that wants none takes no other request, and one that does not mind loses a round trip.
        if !self.negotiated.childless {
            payloads.extend(self.child.payloads());
        }
        if config.mobike {
            payloads.push(Payload::Notify(Notify::status(NotifyType::MobikeSupported)));
            let own = config.own_addresses.as_deref().unwrap_or_default();
            payloads.extend(additional_addresses(own, self.negotiated.path.local.ip()));
        }
        payloads.extend(self.further.iter().flat_map(PendingIke::request));
        Ok(payloads)
    }
}

pub(super) fn shared_key_payload(prf: Prf, secret: &[u8], octets: &[u8]) -> Payload {
    let data = shared_key_auth(prf, secret, octets).to_vec();
    Payload::Auth(Authentication { method: AuthMethod::SharedKey, data })
}
