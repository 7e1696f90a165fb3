//! IKE_SA_INIT, sent and waiting (RFC 7296 sections 1.2, 2.6 and 2.21.1).
//!
//! Everything that comes here is in the clear, and anybody on the way can write it. So COOKIE and INVALID_KE_PAYLOAD take
//! nothing back: each makes a further *form* of the request, and the forms sent before go on being repeated. An answer that
//! agrees is given to the caller, and so is each further one. Which form an answer belongs to is known by its group; where
//! a cookie is the only difference it cannot be known, and [`InitSent::narrow`] tries the forms one by one.

use rand_core::CryptoRng;

use super::auth::Negotiated;
use super::outcome::HandshakeError;
use crate::crypto::{DhGroup, IkeCipher, KeyPair, Prf};
use crate::error::PeerMisbehaved;
use crate::exchange::config::InitiatorConfig;
use crate::exchange::group;
use crate::exchange::nat::{NatSituation, detection_hash, forced_encapsulation_hash};
use crate::exchange::sa::Features;
use crate::exchange::{IkeSpis, Path};
use crate::proposal::{ChosenIke, ike_offer, validate_ike_answer};
use crate::wire::{
    CertificateRequest, ExchangeType, Flags, GatewayName, Header, KeyExchange, Nonce, Notify, NotifyType,
    ParsedMessage, Payload, Proposal, Redirect, SecurityAssociation, TransformType, VendorId, emit_message,
};

/// Forms beside the first that may follow at once: RFC 7296 section 2.6.1 needs one cookie and one group in any order and a
/// second cookie, and one of them may have been forged.
const FORMS_AT_ONCE: u8 = 4;
/// Forms altogether. Each repetition allows one more, so that a burst of forgeries does not use up what the true gateway
/// needs later.
const MAX_FORMS: usize = 9;
/// The UDP port after the float (RFC 7296 section 2.23).
const NAT_T_PORT: u16 = 4500;
/// The UDP port of IKE without NAT traversal.
const IKE_PORT: u16 = 500;
/// Octets of our nonce: at least half the largest PRF's key (RFC 7296 section 2.10).
const NONCE_LEN: usize = 32;
/// SHA2-256, SHA2-384, SHA2-512 (RFC 7427 section 7).
pub const SIGNATURE_HASHES: [u16; 3] = [2, 3, 4];

/// One form in which the request was sent.
struct Form {
    group: u16,
    cookie: Option<Vec<u8>>,
    octets: Vec<u8>,
}

/// Which form an answer was taken to belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Believed {
    /// Its number.
    pub form: usize,
    /// Its group, which is certain.
    pub group: u16,
}

/// The request is on its way.
pub struct InitSent {
    spi: u64,
    nonce: Vec<u8>,
    redirected_from: Option<GatewayName>,
    multi_point: bool,
    offer: Vec<Proposal>,
    /// One for each group that was asked for, the last one asked for at the end.
    keys: Vec<KeyPair>,
    /// In the order of their first sending; never empty.
    forms: Vec<Form>,
    allowance: u8,
    /// While forms are tried one by one: the one whose turn it is, and those to come.
    alone: Option<usize>,
    doubted: Option<Vec<usize>>,
}

/// What an answer did.
pub enum InitStep {
    /// Nothing: it is not acceptable, and may not come from the gateway at all.
    Ignore(PeerMisbehaved),
    /// An error to report if nothing better comes.
    Note(HandshakeError),
    /// A further form of the request, with a cookie or another group, is to be sent.
    Again(Vec<u8>),
    /// The gateway, or whoever has seen our request, sends us to another one.
    Redirected(GatewayName),
    /// It agrees.
    Answered(Box<Negotiated>),
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
        let mut state = Self {
            spi,
            nonce,
            redirected_from: config.redirected_from.clone(),
            multi_point: config.multi_point_sa.is_some(),
            offer,
            keys: Vec::new(),
            forms: Vec::new(),
            allowance: FORMS_AT_ONCE,
            alone: None,
            doubted: None,
        };
        let octets = state.emit(path, &key, None);
        state.forms.push(Form { group: key.group().iana(), cookie: None, octets });
        state.keys.push(key);
        Ok(state)
    }

    /// Our SPI.
    #[must_use]
    pub fn spi(&self) -> u64 {
        self.spi
    }

    /// What is sent, and repeated while there is no answer: each form of the request, without the non-ESP marker.
    #[must_use]
    pub fn requests(&self) -> Vec<Vec<u8>> {
        let wanted = |(at, _): &(usize, &Form)| self.alone.is_none_or(|alone| alone == *at);
        self.forms.iter().enumerate().filter(wanted).map(|(_, form)| form.octets.clone()).collect()
    }

    /// The requests were repeated: time for one more form.
    pub fn repeated(&mut self) {
        self.allowance = self.allowance.saturating_add(1);
    }

    /// After a refusal that may only mean that another form was answered than the one believed in: from now on one form is
    /// sent alone, the newest first. Whether there is one left; one that was answered alone leaves no doubt.
    pub fn narrow(&mut self, believed: Believed) -> bool {
        let Believed { form, group } = believed;
        if self.alone == Some(form) {
            return false;
        }
        let forms = self.forms.iter().enumerate().filter(|(_, form)| form.group == group);
        let forms: Vec<usize> = forms.map(|(at, _)| at).collect();
        if forms.len() < 2 {
            return false;
        }
        let left = self.doubted.get_or_insert(forms);
        self.alone = left.pop();
        self.alone.is_some()
    }

    /// The form that is tried alone was not answered: on to the next. Whether there is one.
    pub fn narrow_further(&mut self) -> bool {
        self.alone = self.doubted.as_mut().and_then(Vec::pop);
        self.alone.is_some()
    }

    /// Takes an answer.
    #[must_use]
    pub fn handle(
        &mut self,
        path: Path,
        datagram: &[u8],
        parsed: &ParsedMessage,
        rng: &mut dyn CryptoRng,
    ) -> InitStep {
        let header = parsed.header;
        if header.spi_i != self.spi {
            return InitStep::Ignore(PeerMisbehaved::WrongSpi);
        }
        if header.exchange != ExchangeType::IkeSaInit {
            return InitStep::Ignore(PeerMisbehaved::WrongExchange { exchange: header.exchange });
        }
        if header.flags.initiator {
            return InitStep::Ignore(PeerMisbehaved::WrongDirection);
        }
        if parsed.encrypted.is_some() {
            return InitStep::Ignore(PeerMisbehaved::EncryptedTooEarly);
        }
        for payload in &parsed.payloads {
            let Payload::Notify(notify) = payload else { continue };
            match notify.ty {
                NotifyType::Cookie => return self.with_cookie(notify, path),
                NotifyType::InvalidKePayload => return self.with_group(notify, path, rng),
                NotifyType::Redirect => return self.with_redirect(notify),
                NotifyType::NoProposalChosen => return InitStep::Note(HandshakeError::NoProposalChosen),
                ty if ty.is_error() => return InitStep::Note(HandshakeError::Refused(ty)),
                _ => {}
            }
        }
        match self.negotiate(path, datagram, parsed) {
            Ok(negotiated) => InitStep::Answered(Box::new(negotiated)),
            Err(HandshakeError::Misbehaved(misbehaved)) => InitStep::Ignore(misbehaved),
            Err(error) => InitStep::Note(error),
        }
    }

    fn with_cookie(&mut self, notify: &Notify, path: Path) -> InitStep {
        // 1 to 64 octets (RFC 7296 section 2.6).
        let Some(key) = self.keys.last().filter(|_| (1..=64).contains(&notify.data.len())) else {
            return InitStep::Ignore(PeerMisbehaved::CookieLoop);
        };
        let (group, cookie) = (key.group().iana(), Some(notify.data.clone()));
        if !self.may_send(group, &cookie) {
            return InitStep::Ignore(PeerMisbehaved::CookieLoop);
        }
        let octets = self.emit(path, key, cookie.as_deref());
        self.add(Form { group, cookie, octets })
    }

    fn with_group(&mut self, notify: &Notify, path: Path, rng: &mut dyn CryptoRng) -> InitStep {
        let wanted = notify.data_u16().unwrap_or(0);
        let Some(group) = DhGroup::from_iana(wanted).filter(|_| self.offers_group(wanted)) else {
            let error = PeerMisbehaved::GroupNotOffered { group: wanted };
            return InitStep::Note(HandshakeError::Misbehaved(error));
        };
        let cookie = self.forms.last().and_then(|form| form.cookie.clone());
        if !self.may_send(wanted, &cookie) {
            return InitStep::Ignore(PeerMisbehaved::InvalidKeLoop);
        }
        let known = self.keys.iter().position(|key| key.group() == group);
        let key = match known {
            Some(at) => self.keys.remove(at),
            None => KeyPair::generate(group, rng),
        };
        let octets = self.emit(path, &key, cookie.as_deref());
        self.keys.push(key);
        self.add(Form { group: wanted, cookie, octets })
    }

    fn with_redirect(&self, notify: &Notify) -> InitStep {
        match Redirect::parse(&notify.data) {
            Ok(redirect) if redirect.nonce == self.nonce => InitStep::Redirected(redirect.to),
            Ok(_) => InitStep::Ignore(PeerMisbehaved::RedirectNonce),
            Err(wire) => InitStep::Ignore(wire.into()),
        }
    }

    fn may_send(&self, group: u16, cookie: &Option<Vec<u8>>) -> bool {
        let known = self.forms.iter().any(|form| form.group == group && form.cookie == *cookie);
        !known && self.alone.is_none() && self.allowance > 0 && self.forms.len() < MAX_FORMS
    }

    fn add(&mut self, form: Form) -> InitStep {
        self.allowance = self.allowance.saturating_sub(1);
        let octets = form.octets.clone();
        self.forms.push(form);
        InitStep::Again(octets)
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
        let wrong = |expected| PeerMisbehaved::WrongGroup { found: answer.ke.group, expected };
        if answer.ke.group != suite.group {
            return Err(wrong(suite.group).into());
        }
        let asked_for = self.keys.last().map_or(0, |key| key.group().iana());
        let key = self.keys.iter().find(|key| key.group().iana() == suite.group);
        let (key, (form, request)) = key.zip(self.believed(suite.group)).ok_or_else(|| wrong(asked_for))?;
        let shared_secret =
            key.agree(&answer.ke.data).map_err(|error| PeerMisbehaved::KeyExchange { error })?;
        let nat = NatSituation::of_message(spis, path, payloads).ok_or(HandshakeError::NoNatTraversal)?;
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
            believed: Believed { form, group: suite.group },
            request: request.octets.clone(),
            response: datagram.to_vec(),
            nat,
            seen_as: notifies(payloads, NotifyType::NatDetectionDestinationIp)
                .next()
                .map(|seen| seen.data.clone()),
            features: Features {
                fragmentation: notifies(payloads, NotifyType::IkeFragmentationSupported).next().is_some(),
                mobike: false,
                keep_old: None,
                multi_point: self.multi_point && group::announced(payloads),
            },
            peer_hashes: hashes.map(|notify| notify.data_u16_list().collect()).unwrap_or_default(),
            childless: notifies(payloads, NotifyType::ChildlessIkev2Supported).next().is_some(),
            certificate_requested: payloads.iter().any(|payload| matches!(payload, Payload::CertReq(_))),
        })
    }

    /// The form that an answer of this group is taken to belong to: the one sent alone, else the newest, since a gateway
    /// that asks for cookies answers no other.
    fn believed(&self, group: u16) -> Option<(usize, &Form)> {
        let fits = |(_, form): &(usize, &Form)| form.group == group;
        match self.alone {
            Some(at) => self.forms.get(at).map(|form| (at, form)).filter(fits),
            None => self.forms.iter().enumerate().rfind(fits),
        }
    }

    /// The request; everything but the cookie and the key is the same in each form (RFC 7296 section 2.6).
    fn emit(&self, path: Path, key: &KeyPair, cookie: Option<&[u8]>) -> Vec<u8> {
        let spis = IkeSpis { initiator: self.spi, responder: 0 };
        let mut payloads = Vec::new();
        if let Some(cookie) = cookie {
            payloads.push(Payload::Notify(Notify::new(NotifyType::Cookie, cookie.to_vec())));
        }
        payloads.extend([
            Payload::Sa(SecurityAssociation { proposals: self.offer.clone() }),
            Payload::Ke(KeyExchange { group: key.group().iana(), data: key.public().to_vec() }),
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
            Payload::Notify(match &self.redirected_from {
                Some(gateway) => gateway.redirected_from(),
                None => Notify::status(NotifyType::RedirectSupported),
            }),
        ]);
        if self.multi_point {
            payloads.push(Payload::VendorId(VendorId::multi_point_sa()));
        }
        let header = Header {
            spi_i: self.spi,
            spi_r: 0,
            next_payload: 0,
            exchange: ExchangeType::IkeSaInit,
            flags: Flags { initiator: true, response: false, version: false },
            message_id: 0,
        };
        emit_message(&header, &payloads)
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
