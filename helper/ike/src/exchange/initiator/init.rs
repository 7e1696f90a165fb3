//! IKE_SA_INIT, sent and waiting (RFC 7296 sections 1.2 and 2.6).

use rand_core::CryptoRng;

use super::auth::{AuthSent, Negotiated};
use super::outcome::HandshakeError;
use crate::crypto::{DhGroup, IkeCipher, KeyPair, Prf};
use crate::error::PeerMisbehaved;
use crate::exchange::config::InitiatorConfig;
use crate::exchange::nat::{NatSituation, detection_hash, forced_encapsulation_hash};
use crate::exchange::sa::Features;
use crate::exchange::{IkeSpis, Path};
use crate::proposal::{ChosenIke, ike_offer, validate_ike_answer};
use crate::wire::{
    CertificateRequest, ExchangeType, Flags, Header, KeyExchange, Nonce, Notify, NotifyType, ParsedMessage,
    Payload, Proposal, SecurityAssociation, TransformType, emit_message,
};

/// Cookies and groups a gateway may ask for before it is no use (RFC 7296 section 2.6.1 needs one of each).
const MAX_RETRIES: u8 = 4;
/// The UDP port after the float (RFC 7296 section 2.23).
const NAT_T_PORT: u16 = 4500;
/// The UDP port of IKE without NAT traversal.
const IKE_PORT: u16 = 500;
/// Octets of our nonce: at least half the largest PRF's key (RFC 7296 section 2.10).
const NONCE_LEN: usize = 32;
/// SHA2-256, SHA2-384, SHA2-512 (RFC 7427 section 7).
pub const SIGNATURE_HASHES: [u16; 3] = [2, 3, 4];

/// The request is on its way.
pub struct InitSent {
    spi: u64,
    nonce: Vec<u8>,
    key: KeyPair,
    offer: Vec<Proposal>,
    cookie: Option<Vec<u8>>,
    cookies_seen: u8,
    groups_tried: Vec<u16>,
    request: Vec<u8>,
}

/// What an answer did.
pub enum InitStep {
    /// Nothing: it is not acceptable, and may not come from the gateway at all.
    Ignore {
        /// As before.
        state: Box<InitSent>,
        /// What was wrong.
        misbehaved: PeerMisbehaved,
    },
    /// An error to report if nothing better comes.
    Note {
        /// As before.
        state: Box<InitSent>,
        /// The error.
        error: HandshakeError,
    },
    /// The request is sent again, with a cookie or another group.
    Again(Box<InitSent>),
    /// On to IKE_AUTH.
    Proceed {
        /// The next state.
        state: Box<AuthSent>,
        /// Its first request.
        datagrams: Vec<Vec<u8>>,
    },
    /// The attempt is over.
    Failed(HandshakeError),
}

/// The payloads of an acceptable answer.
struct Answer<'a> {
    sa: &'a SecurityAssociation,
    ke: &'a KeyExchange,
    nonce: &'a Nonce,
}

impl InitSent {
    /// A first request for `path`.
    ///
    /// # Errors
    /// [`HandshakeError::NothingToPropose`].
    pub fn new(
        config: &InitiatorConfig,
        path: Path,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, HandshakeError> {
        let offer = ike_offer(&config.ike_proposals);
        let group = offer.first().and_then(|first| first.of_type(TransformType::Group).next());
        let group = group.and_then(|transform| DhGroup::from_iana(transform.id));
        let group = group.ok_or(HandshakeError::NothingToPropose)?;
        let mut nonce = vec![0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        let spi = std::iter::repeat_with(|| rng.next_u64()).find(|spi| *spi != 0).unwrap_or(1);
        let key = KeyPair::generate(group, rng);
        let groups_tried = vec![group.iana()];
        let mut state =
            Self { spi, nonce, key, offer, cookie: None, cookies_seen: 0, groups_tried, request: Vec::new() };
        state.write_request(path);
        Ok(state)
    }

    /// Our SPI.
    #[must_use]
    pub fn spi(&self) -> u64 {
        self.spi
    }

    /// The request as it is sent, without the non-ESP marker.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Takes an answer.
    #[must_use]
    pub fn handle(
        mut self: Box<Self>,
        config: &InitiatorConfig,
        path: Path,
        datagram: &[u8],
        parsed: ParsedMessage,
        rng: &mut dyn CryptoRng,
    ) -> InitStep {
        let header = parsed.header;
        let wrong = if header.spi_i != self.spi {
            Some(PeerMisbehaved::WrongSpi)
        } else if header.exchange != ExchangeType::IkeSaInit {
            Some(PeerMisbehaved::WrongExchange { exchange: header.exchange })
        } else if header.flags.initiator {
            Some(PeerMisbehaved::WrongDirection)
        } else if parsed.encrypted.is_some() {
            Some(PeerMisbehaved::EncryptedTooEarly)
        } else {
            None
        };
        if let Some(misbehaved) = wrong {
            return InitStep::Ignore { state: self, misbehaved };
        }
        for payload in &parsed.payloads {
            let Payload::Notify(notify) = payload else { continue };
            match notify.ty {
                NotifyType::Cookie => return self.with_cookie(notify, path),
                NotifyType::InvalidKePayload => return self.with_group(notify, path, rng),
                NotifyType::NoProposalChosen => {
                    return InitStep::Note { state: self, error: HandshakeError::NoProposalChosen };
                }
                ty if ty.is_error() => {
                    return InitStep::Note { state: self, error: HandshakeError::Refused(ty) };
                }
                _ => {}
            }
        }
        match self.negotiate(path, datagram, &parsed) {
            Ok(negotiated) => match AuthSent::begin(negotiated, config, rng) {
                Ok((state, datagrams)) => InitStep::Proceed { state: Box::new(state), datagrams },
                Err(error) => InitStep::Failed(error),
            },
            Err(HandshakeError::Misbehaved(misbehaved)) => InitStep::Ignore { state: self, misbehaved },
            Err(error) => {
                self.cookie = None;
                InitStep::Note { state: self, error }
            }
        }
    }

    fn with_cookie(mut self: Box<Self>, notify: &Notify, path: Path) -> InitStep {
        // 1 to 64 octets (RFC 7296 section 2.6).
        if notify.data.is_empty() || notify.data.len() > 64 || self.cookies_seen >= MAX_RETRIES {
            return InitStep::Ignore { state: self, misbehaved: PeerMisbehaved::CookieLoop };
        }
        self.cookies_seen += 1;
        self.cookie = Some(notify.data.clone());
        self.write_request(path);
        InitStep::Again(self)
    }

    fn with_group(mut self: Box<Self>, notify: &Notify, path: Path, rng: &mut dyn CryptoRng) -> InitStep {
        let wanted = notify.data_u16().unwrap_or(0);
        let Some(group) = DhGroup::from_iana(wanted).filter(|_| self.offers_group(wanted)) else {
            let error = PeerMisbehaved::GroupNotOffered { group: wanted };
            return InitStep::Note { state: self, error: HandshakeError::Misbehaved(error) };
        };
        if self.groups_tried.contains(&wanted) {
            return InitStep::Ignore { state: self, misbehaved: PeerMisbehaved::InvalidKeLoop };
        }
        self.groups_tried.push(wanted);
        self.key = KeyPair::generate(group, rng);
        self.write_request(path);
        InitStep::Again(self)
    }

    fn offers_group(&self, wanted: u16) -> bool {
        let mut offered = self.offer.iter().flat_map(|proposal| proposal.of_type(TransformType::Group));
        offered.any(|transform| transform.id == wanted)
    }

    fn negotiate(
        &self,
        path: Path,
        datagram: &[u8],
        parsed: &ParsedMessage,
    ) -> Result<Negotiated, HandshakeError> {
        let payloads = &parsed.payloads;
        let answer = Answer::find(payloads)?;
        let [proposal] = answer.sa.proposals.as_slice() else {
            let count = answer.sa.proposals.len();
            return Err(PeerMisbehaved::AnswerProposalCount { count }.into());
        };
        let spis = IkeSpis { initiator: self.spi, responder: parsed.header.spi_r };
        if spis.responder == 0 {
            return Err(PeerMisbehaved::WrongSpi.into());
        }
        let suite = validate_ike_answer(proposal, &self.offer)?;
        let (cipher, prf) = algorithms(&suite)?;
        if answer.ke.group != suite.group || suite.group != self.key.group().iana() {
            let expected = self.key.group().iana();
            return Err(PeerMisbehaved::WrongGroup { found: answer.ke.group, expected }.into());
        }
        let shared_secret =
            self.key.agree(&answer.ke.data).map_err(|error| PeerMisbehaved::KeyExchange { error })?;
        let sources: Vec<&[u8]> = notifies(payloads, NotifyType::NatDetectionSourceIp)
            .map(|notify| notify.data.as_slice())
            .collect();
        let destination = notifies(payloads, NotifyType::NatDetectionDestinationIp).next();
        let nat = NatSituation::judge(spis, path, &sources, destination.map(|notify| notify.data.as_slice()))
            .ok_or(HandshakeError::NoNatTraversal)?;
        let hashes = notifies(payloads, NotifyType::SignatureHashAlgorithms).next();
        // Encapsulation is always needed, so the float to 4500 does not wait for a NAT.
        let port = if path.remote.port() == IKE_PORT { NAT_T_PORT } else { path.remote.port() };
        Ok(Negotiated {
            path: path.with_remote_port(port),
            spis,
            suite,
            cipher,
            prf,
            shared_secret,
            nonce_i: self.nonce.clone(),
            nonce_r: answer.nonce.data.clone(),
            request: self.request.clone(),
            response: datagram.to_vec(),
            nat,
            features: Features {
                fragmentation: notifies(payloads, NotifyType::IkeFragmentationSupported).next().is_some(),
                mobike: false,
            },
            peer_hashes: hashes.map(|notify| notify.data_u16_list().collect()).unwrap_or_default(),
            certificate_requested: payloads.iter().any(|payload| matches!(payload, Payload::CertReq(_))),
        })
    }

    fn write_request(&mut self, path: Path) {
        let spis = IkeSpis { initiator: self.spi, responder: 0 };
        let mut payloads = Vec::new();
        if let Some(cookie) = &self.cookie {
            payloads.push(Payload::Notify(Notify::new(NotifyType::Cookie, cookie.clone())));
        }
        payloads.extend([
            Payload::Sa(SecurityAssociation { proposals: self.offer.clone() }),
            Payload::Ke(KeyExchange { group: self.key.group().iana(), data: self.key.public().to_vec() }),
            Payload::Nonce(Nonce { data: self.nonce.clone() }),
            Payload::Notify(Notify::new(
                NotifyType::NatDetectionSourceIp,
                forced_encapsulation_hash(spis).to_vec(),
            )),
            Payload::Notify(Notify::new(
                NotifyType::NatDetectionDestinationIp,
                detection_hash(spis, path.remote).to_vec(),
            )),
            Payload::Notify(Notify::status(NotifyType::IkeFragmentationSupported)),
            Payload::Notify(Notify::signature_hash_algorithms(&SIGNATURE_HASHES)),
        ]);
        let header = Header {
            spi_i: self.spi,
            spi_r: 0,
            next_payload: 0,
            exchange: ExchangeType::IkeSaInit,
            flags: Flags { initiator: true, response: false, version: false },
            message_id: 0,
        };
        self.request = emit_message(&header, &payloads);
    }
}

impl<'a> Answer<'a> {
    fn find(payloads: &'a [Payload]) -> Result<Self, PeerMisbehaved> {
        let (mut sa, mut ke, mut nonce) = (None, None, None);
        for payload in payloads {
            match payload {
                Payload::Sa(found) => sa = Some(found),
                Payload::Ke(found) => ke = Some(found),
                Payload::Nonce(found) => nonce = Some(found),
                _ => {}
            }
        }
        Ok(Self {
            sa: sa.ok_or(PeerMisbehaved::MissingPayload { what: "the SA payload" })?,
            ke: ke.ok_or(PeerMisbehaved::MissingPayload { what: "the KE payload" })?,
            nonce: nonce.ok_or(PeerMisbehaved::MissingPayload { what: "the Nonce payload" })?,
        })
    }
}

/// The notifies of one type.
pub(super) fn notifies(payloads: &[Payload], ty: NotifyType) -> impl Iterator<Item = &Notify> {
    payloads.iter().filter_map(move |payload| match payload {
        Payload::Notify(notify) if notify.ty == ty => Some(notify),
        _ => None,
    })
}

/// The negotiated numbers as algorithms.
///
/// # Errors
/// A number that is not supported, which validation against the offer excludes.
pub fn algorithms(suite: &ChosenIke) -> Result<(IkeCipher, Prf), HandshakeError> {
    let cipher = IkeCipher::from_iana(suite.encr, suite.key_bits, suite.integ);
    let prf = Prf::from_iana(suite.prf);
    cipher.zip(prf).ok_or(HandshakeError::NothingToPropose)
}

/// What the request asks of certificates: the authorities that we trust.
pub(super) fn certificate_request(config: &InitiatorConfig) -> Option<Payload> {
    let authorities = config.gateway.trust_anchors.certreq();
    if authorities.is_empty() {
        return None;
    }
    let encoding = crate::wire::CertEncoding::X509Signature;
    Some(Payload::CertReq(CertificateRequest { encoding, authorities }))
}
