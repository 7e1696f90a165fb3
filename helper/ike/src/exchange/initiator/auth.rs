//! IKE_AUTH, sent and waiting (RFC 7296 sections 1.2, 2.15 and 2.16).
//!
//! With a pre-shared key or a certificate of our own it is one exchange. With EAP the gateway proves itself first, by
//! certificate; nothing of the user's goes out before that is verified. Then the EAP rounds follow, and a last exchange
//! in which both sides prove with the method's MSK that they are still the same.

mod proof;
mod request;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use self::proof::{find_auth, find_id, stay};
use self::request::shared_key_payload;
use super::eap_rounds::{EapRounds, RoundStep};
use super::init::{Believed, notifies};
use super::outcome::{Established, HandshakeError, InnerConfig};
use crate::auth::auth_octets;
use crate::auth::psk::verify_shared_key_auth;
use crate::crypto::{IkeCipher, IkeKeys, Prf, keys::KeyInputs};
use crate::error::PeerMisbehaved;
use crate::exchange::child::{ChildOffer, Mode};
use crate::exchange::config::{InitiatorConfig, LocalAuth};
use crate::exchange::create_child_sa::ChildPolicy;
use crate::exchange::keep_old::{shortened_request, split_shortened};
use crate::exchange::lifetime::auth_lifetime;
use crate::exchange::mobike::Mobility;
use crate::exchange::nat::NatSituation;
use crate::exchange::protect::{Protection, Sealed};
use crate::exchange::rekey_ike::PendingIke;
use crate::exchange::retransmit::ResponseWindow;
use crate::exchange::sa::{Features, IkeSa, SaParams};
use crate::exchange::{IkeSpis, Path, Role};
use crate::proposal::ChosenIke;
use crate::time::Instant;
use crate::wire::{
    AuthMethod, ConfigType, Delete, ExchangeType, Flags, Header, Identification, NotifyType, ParsedMessage,
    Payload,
};

/// Answers with the same keys that are kept beside the first.
const MAX_TWINS: usize = 7;

/// What IKE_SA_INIT agreed on.
pub struct Negotiated {
    /// The path after the float.
    pub path: Path,
    /// Both SPIs.
    pub spis: IkeSpis,
    /// The suite.
    pub suite: ChosenIke,
    /// Its cipher.
    pub cipher: IkeCipher,
    /// Its PRF.
    pub prf: Prf,
    /// g^ir.
    pub shared_secret: Zeroizing<Vec<u8>>,
    /// Our nonce.
    pub nonce_i: Vec<u8>,
    /// The gateway's nonce.
    pub nonce_r: Vec<u8>,
    /// Which form of our request this answers, as far as can be known.
    pub believed: Believed,
    /// That form, as sent.
    pub request: Vec<u8>,
    /// The gateway's answer, as received.
    pub response: Vec<u8>,
    /// Where NATs are.
    pub nat: NatSituation,
    /// How the gateway sees us: its NAT_DETECTION_DESTINATION_IP.
    pub seen_as: Option<Vec<u8>>,
    /// What the gateway can do.
    pub features: Features,
    /// The hash algorithms it takes in signatures (RFC 7427).
    pub peer_hashes: Vec<u16>,
    /// It takes IKE_AUTH without a CHILD_SA (RFC 6023).
    pub childless: bool,
    /// It sent a certificate request.
    pub certificate_requested: bool,
}

/// What the next answer must bring.
enum Awaiting {
    /// The gateway's proof and the CHILD_SA.
    Proof,
    /// The gateway's proof and the first EAP request.
    EapStart,
    /// The next EAP packet.
    Eap(Box<EapRounds>),
    /// The gateway's proof with the MSK, and the CHILD_SA.
    EapProof(Zeroizing<[u8; 64]>),
}

/// A request of IKE_AUTH is on its way.
pub struct AuthSent {
    negotiated: Negotiated,
    keys: IkeKeys,
    protection: Protection,
    child: ChildOffer,
    /// A further IKE_SA that is asked for with the first.
    further: Option<PendingIke>,
    awaiting: Awaiting,
    /// Answers that lead to the same keys and differ elsewhere: only one of them is what the gateway sent and proves.
    twins: Vec<Negotiated>,
    /// The gateway's ID payload body, once it proved itself in an EAP exchange.
    gateway_id: Option<Identification>,
}

/// What an answer did.
pub enum AuthStep {
    /// Nothing: it is not authentic.
    Ignore {
        /// As before.
        state: Box<AuthSent>,
        /// What was wrong.
        misbehaved: PeerMisbehaved,
    },
    /// Fragments are missing.
    Wait(Box<AuthSent>),
    /// Another round.
    Next {
        /// The next state.
        state: Box<AuthSent>,
        /// Its request.
        request: Sealed,
    },
    /// Done.
    Established(Box<Established>),
    /// The attempt is over; with a state the gateway may hold an IKE_SA that it should be told to drop.
    Failed {
        /// For the farewell.
        state: Option<Box<AuthSent>>,
        /// Why.
        error: HandshakeError,
    },
}

enum Verdict {
    Next(Awaiting, Vec<Payload>),
    Done(Box<Proven>),
}

/// The gateway proved itself for the last time; what it granted.
struct Proven {
    gateway_id: Identification,
    payloads: Zeroizing<Vec<Payload>>,
}

impl AuthSent {
    /// Derives the keys and makes the first request.
    ///
    /// # Errors
    /// Keys that cannot be derived, a signature that cannot be made.
    pub fn begin(
        negotiated: Negotiated,
        config: &InitiatorConfig,
        rng: &mut dyn CryptoRng,
    ) -> Result<(Self, Sealed), HandshakeError> {
        let inputs = KeyInputs {
            nonce_i: &negotiated.nonce_i,
            nonce_r: &negotiated.nonce_r,
            spi_i: negotiated.spis.initiator.to_be_bytes(),
            spi_r: negotiated.spis.responder.to_be_bytes(),
        };
        let keys = IkeKeys::initial(negotiated.prf, negotiated.cipher, &inputs, &negotiated.shared_secret)?;
        let protection = Protection::new(negotiated.cipher, &keys, Role::Initiator)?;
        let mut child = ChildOffer::new(&config.esp_proposals, config.ts_i.clone(), config.ts_r.clone(), rng);
        if config.mode == Mode::Transport {
            child.put_between(negotiated.path);
        }
        let awaiting = match &config.auth {
            LocalAuth::Psk(_) | LocalAuth::Certificate(_) => Awaiting::Proof,
            LocalAuth::EapMschapv2 { .. } => Awaiting::EapStart,
        };
        let twins = Vec::new();
        let further = shortened_request(config, negotiated.suite.group, rng);
        let mut state =
            Self { negotiated, keys, protection, child, further, awaiting, twins, gateway_id: None };
        let payloads = state.first_request(config)?;
        let request = state.seal(ExchangeType::IkeAuth, 1, &payloads, rng)?;
        Ok((state, request))
    }

    /// The SPIs.
    #[must_use]
    pub fn spis(&self) -> IkeSpis {
        self.negotiated.spis
    }

    /// The path after the float.
    #[must_use]
    pub fn path(&self) -> Path {
        self.negotiated.path
    }

    /// Which form of the IKE_SA_INIT request was signed.
    #[must_use]
    pub fn believed(&self) -> Believed {
        self.negotiated.believed
    }

    /// Offers another answer to the same request; it comes back when it has keys of its own.
    #[must_use]
    pub fn offer_twin(&mut self, other: Box<Negotiated>) -> Option<Box<Negotiated>> {
        let own = &self.negotiated;
        let same = (own.spis, own.suite, &own.nonce_r) == (other.spis, other.suite, &other.nonce_r)
            && own.shared_secret == other.shared_secret;
        if !same || self.gateway_id.is_some() {
            return Some(other);
        }
        if self.twins.len() < MAX_TWINS {
            self.twins.push(*other);
        }
        None
    }

    /// Whether our own proof is with the gateway, so that it may have refused that.
    #[must_use]
    pub fn has_signed(&self) -> bool {
        match self.awaiting {
            Awaiting::Proof | Awaiting::EapProof(_) => true,
            Awaiting::EapStart | Awaiting::Eap(_) => false,
        }
    }

    /// Whether the gateway has proved itself already, so that what it says now is the truth.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.gateway_id.is_some()
    }

    /// Takes an answer.
    #[must_use]
    pub fn handle(
        mut self: Box<Self>,
        config: &InitiatorConfig,
        now: Instant,
        path: Path,
        datagram: &[u8],
        parsed: &ParsedMessage,
        rng: &mut dyn CryptoRng,
    ) -> AuthStep {
        let header = parsed.header;
        let spis = self.negotiated.spis;
        let misbehaved = if (header.spi_i, header.spi_r) != (spis.initiator, spis.responder) {
            Some(PeerMisbehaved::WrongSpi)
        } else if header.flags.initiator {
            Some(PeerMisbehaved::WrongDirection)
        } else if header.exchange != ExchangeType::IkeAuth {
            Some(PeerMisbehaved::WrongExchange { exchange: header.exchange })
        } else {
            None
        };
        if let Some(misbehaved) = misbehaved {
            return AuthStep::Ignore { state: self, misbehaved };
        }
        let Some(encrypted) = &parsed.encrypted else {
            return AuthStep::Ignore { state: self, misbehaved: PeerMisbehaved::NotEncrypted };
        };
        let opened = match self.protection.open(now, datagram, &header, encrypted) {
            Ok(Some(opened)) => opened,
            Ok(None) => return AuthStep::Wait(self),
            Err(misbehaved) => return AuthStep::Ignore { state: self, misbehaved },
        };
        let payloads = match opened.payloads() {
            Ok(payloads) => payloads,
            Err(wire) => {
                let error = HandshakeError::Misbehaved(wire.into());
                return AuthStep::Failed { state: Some(self), error };
            }
        };
        let verdict = match self.judge(config, payloads, rng) {
            Ok(verdict) => verdict,
            // The gateway said no itself, so it holds nothing that a farewell would end.
            Err(error @ (HandshakeError::AuthenticationFailed | HandshakeError::EapRefused(_))) => {
                return AuthStep::Failed { state: None, error };
            }
            Err(error) => return AuthStep::Failed { state: Some(self), error },
        };
        match verdict {
            Verdict::Next(awaiting, request) => {
                self.awaiting = awaiting;
                let message_id = header.message_id.saturating_add(1);
                match self.seal(ExchangeType::IkeAuth, message_id, &request, rng) {
                    Ok(request) => AuthStep::Next { state: self, request },
                    Err(error) => AuthStep::Failed { state: Some(self), error },
                }
            }
            Verdict::Done(proven) => {
                let next_request = header.message_id.saturating_add(1);
                self.establish(config, now, path, next_request, *proven)
            }
        }
    }

    /// A farewell to a gateway that may already hold an IKE_SA of this attempt.
    #[must_use]
    pub fn goodbye(mut self, message_id: u32, path: Path, rng: &mut dyn CryptoRng) -> Vec<Vec<u8>> {
        self.negotiated.path = path;
        let delete = [Payload::Delete(Delete::ike())];
        self.seal(ExchangeType::Informational, message_id, &delete, rng).unwrap_or_default().datagrams
    }

    fn seal(
        &mut self,
        exchange: ExchangeType,
        message_id: u32,
        payloads: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> Result<Sealed, HandshakeError> {
        let header = Header {
            spi_i: self.negotiated.spis.initiator,
            spi_r: self.negotiated.spis.responder,
            next_payload: 0,
            exchange,
            flags: Flags { initiator: true, response: false, version: false },
            message_id,
        };
        let fragment = self.negotiated.features.fragmentation;
        Ok(self.protection.seal_request(header, payloads, fragment, self.negotiated.path, rng)?)
    }

    /// What we sign.
    fn own_octets(&self, config: &InitiatorConfig) -> Zeroizing<Vec<u8>> {
        let Negotiated { prf, request, nonce_r, .. } = &self.negotiated;
        auth_octets(*prf, request, nonce_r, &self.keys.sk_pi, &config.local_id.body())
    }

    /// What the gateway signs.
    fn gateway_octets(&self, gateway_id: &Identification) -> Zeroizing<Vec<u8>> {
        let Negotiated { prf, response, nonce_i, .. } = &self.negotiated;
        auth_octets(*prf, response, nonce_i, &self.keys.sk_pr, &gateway_id.body())
    }

    fn judge(
        &mut self,
        config: &InitiatorConfig,
        payloads: Zeroizing<Vec<Payload>>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Verdict, HandshakeError> {
        let has_proof = payloads.iter().any(|payload| matches!(payload, Payload::Auth(_)));
        for payload in payloads.iter() {
            let Payload::Notify(notify) = payload else { continue };
            if notify.ty == NotifyType::AuthenticationFailed {
                return Err(HandshakeError::AuthenticationFailed);
            }
            if notify.ty.is_error() && !has_proof {
                return Err(HandshakeError::Refused(notify.ty));
            }
        }
        match std::mem::replace(&mut self.awaiting, Awaiting::Proof) {
            Awaiting::Proof => {
                if has_eap(&payloads) {
                    return Err(PeerMisbehaved::EapOutOfPlace.into());
                }
                let gateway_id = find_id(&payloads)?.clone();
                self.verify_gateway(config, &gateway_id, &payloads)?;
                stay(&payloads)?;
                Ok(Verdict::Done(Box::new(Proven { gateway_id, payloads })))
            }
            Awaiting::EapStart => {
                let gateway_id = find_id(&payloads)?.clone();
                self.verify_gateway(config, &gateway_id, &payloads)?;
                stay(&payloads)?;
                self.gateway_id = Some(gateway_id);
                let LocalAuth::EapMschapv2 { identity, user, password } = &config.auth else {
                    return Err(PeerMisbehaved::EapOutOfPlace.into());
                };
                self.eap_round(config, EapRounds::new(identity, user, password), &payloads, rng)
            }
            Awaiting::Eap(rounds) => self.eap_round(config, *rounds, &payloads, rng),
            Awaiting::EapProof(msk) => {
                let gateway_id = self
                    .gateway_id
                    .clone()
                    .ok_or(PeerMisbehaved::MissingPayload { what: "the ID payload" })?;
                let auth = find_auth(&payloads)?;
                let octets = self.gateway_octets(&gateway_id);
                if auth.method != AuthMethod::SharedKey
                    || !verify_shared_key_auth(self.negotiated.prf, msk.as_slice(), &octets, &auth.data)
                {
                    return Err(HandshakeError::EapProof);
                }
                stay(&payloads)?;
                Ok(Verdict::Done(Box::new(Proven { gateway_id, payloads })))
            }
        }
    }

    fn eap_round(
        &self,
        config: &InitiatorConfig,
        rounds: EapRounds,
        payloads: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> Result<Verdict, HandshakeError> {
        match rounds.handle(payloads, rng)? {
            RoundStep::Reply { rounds, answer } => {
                Ok(Verdict::Next(Awaiting::Eap(Box::new(rounds)), vec![Payload::Eap(answer)]))
            }
            RoundStep::Success { msk } => {
                let octets = self.own_octets(config);
                let proof = shared_key_payload(self.negotiated.prf, msk.as_slice(), &octets);
                Ok(Verdict::Next(Awaiting::EapProof(msk), vec![proof]))
            }
        }
    }

    fn establish(
        mut self: Box<Self>,
        config: &InitiatorConfig,
        now: Instant,
        path: Path,
        next_request: u32,
        proven: Proven,
    ) -> AuthStep {
        let (payloads, granted) = split_shortened(&proven.payloads, config.keep_old);
        let refused = payloads.iter().find_map(|payload| match payload {
            Payload::Notify(notify) if notify.ty.is_error() => Some(notify.ty),
            _ => None,
        });
        if let Some(notify) = refused {
            let error = HandshakeError::refusal_of(config.mode, notify);
            return AuthStep::Failed { state: Some(self), error };
        }
        let negotiated = &self.negotiated;
        let nonces = (negotiated.nonce_i.as_slice(), negotiated.nonce_r.as_slice());
        // Without one, whether so agreed or not, it is asked for in an exchange of its own.
        let answered = payloads.iter().any(|payload| matches!(payload, Payload::Sa(_)));
        let child = if answered && !negotiated.childless {
            let (nat, sk_d) = (negotiated.nat, &self.keys.sk_d);
            match self.child.accept(payloads, nat, negotiated.prf, sk_d, None, nonces) {
                Ok(child) => Some(child),
                // RFC 7296 section 1.3.1: tunnel mode instead, which is of no use to us.
                Err(PeerMisbehaved::WrongMode) if config.mode == Mode::Transport => {
                    let error = HandshakeError::ChildRefused(NotifyType::UseTransportMode);
                    return AuthStep::Failed { state: Some(self), error };
                }
                Err(misbehaved) => return AuthStep::Failed { state: Some(self), error: misbehaved.into() },
            }
        } else {
            None
        };
        let (ts_local, ts_remote) = match &child {
            Some(child) => (child.ts_local.clone(), child.ts_remote.clone()),
            None => (config.ts_i.clone(), config.ts_r.clone()),
        };
        let inner = payloads.iter().find_map(|payload| match payload {
            Payload::Cp(reply) if reply.ty == ConfigType::Reply => Some(InnerConfig::from_reply(reply)),
            _ => None,
        });
        self.negotiated.features.mobike =
            config.mobike && notifies(payloads, NotifyType::MobikeSupported).next().is_some();
        let auth_lifetime = auth_lifetime(payloads);
        let seen_as = self.negotiated.seen_as.take();
        let mobility = Mobility::of_initiator(config.own_addresses.clone(), payloads, seen_as);
        let Self { negotiated, keys, protection, further, .. } = *self;
        let features = negotiated.features;
        let mut sa = IkeSa::new(
            now,
            SaParams {
                role: Role::Initiator,
                spis: negotiated.spis,
                path,
                suite: negotiated.suite,
                prf: negotiated.prf,
                sk_d: keys.sk_d.clone(),
                protection,
                next_request,
                window: ResponseWindow::starting_at(0),
                features,
                peer_id: proven.gateway_id,
                nat: negotiated.nat,
                ike_proposals: config.ike_proposals.clone(),
                lifetimes: config.lifetimes,
                policy: ChildPolicy {
                    proposals: config.esp_proposals.clone(),
                    ts_local,
                    ts_remote,
                    mode: config.mode,
                    dhcp: false,
                },
                child,
                dpd: config.dpd,
                mobility,
                keep_old: config.keep_old,
            },
        );
        sa.take_token(payloads);
        if let Some(further) = &further {
            sa.finish_shortened(now, further, granted);
        }
        if let Some(policy) = config.multi_point_sa.filter(|_| features.multi_point) {
            sa.take_group_sas(policy);
        }
        let inner = inner.unwrap_or_default();
        AuthStep::Established(Box::new(Established { sa, inner, keys, auth_lifetime }))
    }
}

fn has_eap(payloads: &[Payload]) -> bool {
    payloads.iter().any(|payload| matches!(payload, Payload::Eap(_)))
}
