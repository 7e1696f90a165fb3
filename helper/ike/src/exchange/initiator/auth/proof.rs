//! What the gateway has to prove: who it is, over the answer that it gave (RFC 7296 section 2.15).

use super::{AuthSent, Negotiated, notifies};
use crate::auth::psk::verify_shared_key_auth;
use crate::auth::{IdRef, verify_gateway, verify_signature};
use crate::error::PeerMisbehaved;
use crate::exchange::config::InitiatorConfig;
use crate::exchange::initiator::HandshakeError;
use crate::wire::{AuthMethod, Authentication, CertEncoding, Identification, NotifyType, Payload, Redirect};

impl AuthSent {
    /// Checks who the gateway is and that it can prove it, over the answer that it gave.
    pub(super) fn verify_gateway(
        &mut self,
        config: &InitiatorConfig,
        gateway_id: &Identification,
        payloads: &[Payload],
    ) -> Result<(), HandshakeError> {
        let first = self.verify_answer(config, gateway_id, payloads);
        let mut result = first.clone();
        while result.is_err()
            && let Some(twin) = self.twins.pop()
        {
            let Negotiated { response, nat, features, peer_hashes, .. } = twin;
            let own = &mut self.negotiated;
            (own.response, own.nat, own.features, own.peer_hashes) = (response, nat, features, peer_hashes);
            result = self.verify_answer(config, gateway_id, payloads);
        }
        self.twins.clear();
        result.or(first)
    }

    fn verify_answer(
        &self,
        config: &InitiatorConfig,
        gateway_id: &Identification,
        payloads: &[Payload],
    ) -> Result<(), HandshakeError> {
        let auth = find_auth(payloads)?;
        let octets = self.gateway_octets(gateway_id);
        if let Some(secret) = config.shared_secret() {
            if auth.method != AuthMethod::SharedKey
                || !verify_shared_key_auth(self.negotiated.prf, secret, &octets, &auth.data)
            {
                return Err(HandshakeError::PskMismatch);
            }
            // With a shared key the name is all there is to compare, and only where the profile gives one.
            if config.gateway.announce && *gateway_id != config.gateway.expected {
                return Err(HandshakeError::WrongIdentity {
                    expected: config.gateway.expected.to_string(),
                    found: gateway_id.to_string(),
                });
            }
            return Ok(());
        }
        let chain: Vec<&[u8]> = payloads
            .iter()
            .filter_map(|payload| match payload {
                Payload::Cert(cert) if cert.encoding == CertEncoding::X509Signature => {
                    Some(cert.data.as_slice())
                }
                _ => None,
            })
            .collect();
        let Some((own, intermediates)) = chain.split_first() else {
            return Err(PeerMisbehaved::MissingPayload { what: "the gateway's certificate" }.into());
        };
        let expected = &config.gateway.expected;
        let expected = IdRef { id_type: expected.ty.into(), data: &expected.data };
        let anchors = &config.gateway.trust_anchors;
        verify_gateway(own, intermediates, anchors, config.wall_clock, expected)
            .map_err(HandshakeError::Certificate)?;
        verify_signature(auth.method.into(), &auth.data, own, &octets, false)
            .map_err(HandshakeError::Signature)
    }
}

pub(super) fn find_id(payloads: &[Payload]) -> Result<&Identification, PeerMisbehaved> {
    let found = payloads.iter().find_map(|payload| match payload {
        Payload::IdR(id) => Some(id),
        _ => None,
    });
    found.ok_or(PeerMisbehaved::MissingPayload { what: "the ID payload" })
}

pub(super) fn find_auth(payloads: &[Payload]) -> Result<&Authentication, PeerMisbehaved> {
    let found = payloads.iter().find_map(|payload| match payload {
        Payload::Auth(auth) => Some(auth),
        _ => None,
    });
    found.ok_or(PeerMisbehaved::MissingPayload { what: "the AUTH payload" })
}

/// Whether the gateway, which has proved itself, wants to keep us (RFC 5685 section 6).
pub(super) fn stay(payloads: &[Payload]) -> Result<(), HandshakeError> {
    match notifies(payloads, NotifyType::Redirect).next() {
        None => Ok(()),
        Some(notify) => {
            let redirect = Redirect::parse(&notify.data).map_err(PeerMisbehaved::from)?;
            Err(HandshakeError::Redirected(redirect.to))
        }
    }
}
