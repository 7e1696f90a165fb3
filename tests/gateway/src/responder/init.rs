//! IKE_SA_INIT from the responder's side (RFC 7296 sections 1.2 and 2.6).
//!
//! Nothing is remembered of a request that is answered with COOKIE, INVALID_KE_PAYLOAD or NO_PROPOSAL_CHOSEN. Only one
//! that leads on makes a state, [`Agreed`], with the keys in it.

use rand_core::CryptoRng;
use ropewalk_ike::crypto::keys::KeyInputs;
use ropewalk_ike::crypto::{DhGroup, IkeCipher, IkeKeys, KeyPair, Prf};
use ropewalk_ike::error::PeerMisbehaved;
use ropewalk_ike::exchange::group;
use ropewalk_ike::exchange::nat::{NatSituation, detection_hash, forced_encapsulation_hash};
use ropewalk_ike::exchange::protect::Protection;
use ropewalk_ike::exchange::sa::Features;
use ropewalk_ike::exchange::{IkeSpis, Path, Role};
use ropewalk_ike::proposal::{ChosenIke, select_ike};
use ropewalk_ike::time::Instant;
use ropewalk_ike::wire::{
    CertEncoding, CertificateRequest, Flags, Header, KeyExchange, Nonce, Notify, NotifyType, ParsedMessage,
    Payload, Proposal, Redirect, SecurityAssociation, VendorId, emit_message, find_notify,
};

use super::cookie::{CookieJar, Subject};
use crate::settings::{Childless, RedirectAt, Settings};

/// Octets of our nonce: at least half the largest PRF's key (RFC 7296 section 2.10).
const NONCE_LEN: usize = 32;
/// SHA2-256, SHA2-384, SHA2-512 (RFC 7427 section 7).
const SIGNATURE_HASHES: [u16; 3] = [2, 3, 4];

/// What IKE_SA_INIT agreed on.
pub struct Agreed {
    /// Both SPIs.
    pub spis: IkeSpis,
    /// The suite.
    pub suite: ChosenIke,
    /// Its PRF.
    pub prf: Prf,
    /// The client's nonce.
    pub nonce_i: Vec<u8>,
    /// Our nonce.
    pub nonce_r: Vec<u8>,
    /// The client's request, as received.
    pub request: Vec<u8>,
    /// Our answer, as sent.
    pub response: Vec<u8>,
    /// Where NATs are.
    pub nat: NatSituation,
    /// What the client can do.
    pub features: Features,
    /// It can be sent to another gateway (RFC 5685).
    pub redirectable: bool,
    /// The hash algorithms it takes in signatures (RFC 7427).
    pub peer_hashes: Vec<u16>,
    /// The keys of the IKE_SA.
    pub keys: IkeKeys,
    /// What encrypts its messages.
    pub protection: Protection,
}

/// How a request is answered.
pub enum InitAnswer {
    /// With this, and nothing is remembered.
    Stateless(Vec<u8>),
    /// With [`Agreed::response`]; IKE_AUTH is awaited.
    Agreed(Box<Agreed>),
}

/// What the gateway as a whole lends to a request.
pub struct InitDesk<'a> {
    /// The configuration.
    pub settings: &'a Settings,
    /// Makes and checks cookies.
    pub cookies: &'a mut CookieJar,
    /// Whether a cookie is needed now.
    pub demand_cookie: bool,
    /// The time.
    pub now: Instant,
    /// Our SPI, if it comes to an IKE_SA.
    pub spi: u64,
}

/// The payloads of a request.
struct Request<'a> {
    proposals: &'a [Proposal],
    ke: &'a KeyExchange,
    nonce: &'a Nonce,
}

/// Answers a request.
///
/// # Errors
/// It breaks a rule and gets no answer.
pub fn answer(
    desk: InitDesk<'_>,
    path: Path,
    datagram: &[u8],
    parsed: &ParsedMessage,
    rng: &mut dyn CryptoRng,
) -> Result<InitAnswer, PeerMisbehaved> {
    let header = parsed.header;
    if parsed.encrypted.is_some() {
        return Err(PeerMisbehaved::EncryptedTooEarly);
    }
    if header.spi_r != 0 || !header.flags.initiator {
        return Err(PeerMisbehaved::WrongSpi);
    }
    if header.message_id != 0 {
        return Err(PeerMisbehaved::OutsideWindow { message_id: header.message_id });
    }
    let settings = desk.settings;
    let payloads = &parsed.payloads;
    let request = Request::find(payloads)?;
    if desk.demand_cookie {
        let subject = Subject { nonce: &request.nonce.data, address: path.remote.ip(), spi: header.spi_i };
        let brought = find_notify(payloads, NotifyType::Cookie).map(|notify| notify.data.as_slice());
        if !brought.is_some_and(|cookie| desk.cookies.check(subject, cookie)) {
            let cookie = desk.cookies.make(desk.now, subject, rng);
            return Ok(stateless(header, Notify::new(NotifyType::Cookie, cookie)));
        }
    }
    let redirectable = [NotifyType::RedirectSupported, NotifyType::RedirectedFrom]
        .into_iter()
        .any(|ty| find_notify(payloads, ty).is_some());
    if let Some((RedirectAt::Init, to)) = settings.redirect.as_ref().filter(|_| redirectable) {
        tracing::info!(%to, "a new client is sent elsewhere");
        let redirect = Redirect { to: to.clone(), nonce: request.nonce.data.clone() };
        return Ok(stateless(header, redirect.notify()));
    }
    let Some((suite, mut proposal)) =
        select_ike(request.proposals, &settings.ike_proposals, Some(request.ke.group))
    else {
        tracing::info!(remote = %path.remote, "no common proposal for the IKE_SA");
        return Ok(stateless(header, Notify::status(NotifyType::NoProposalChosen)));
    };
    let cipher = IkeCipher::from_iana(suite.encr, suite.key_bits, suite.integ);
    let algorithms = cipher.zip(Prf::from_iana(suite.prf)).zip(DhGroup::from_iana(suite.group));
    let Some(((cipher, prf), group)) = algorithms else {
        return Ok(stateless(header, Notify::status(NotifyType::NoProposalChosen)));
    };
    if request.ke.group != suite.group {
        return Ok(stateless(header, Notify::invalid_ke(suite.group)));
    }
    let spis = IkeSpis { initiator: header.spi_i, responder: desk.spi };
    let Some(nat) = NatSituation::of_message(IkeSpis { responder: 0, ..spis }, path, payloads) else {
        // There is no socket for ESP outside UDP.
        tracing::info!(remote = %path.remote, "a client without NAT traversal is refused");
        return Ok(stateless(header, Notify::status(NotifyType::NoProposalChosen)));
    };
    let key = KeyPair::generate(group, rng);
    let shared = key.agree(&request.ke.data).map_err(|error| PeerMisbehaved::KeyExchange { error })?;
    let mut nonce_r = vec![0; NONCE_LEN];
    rng.fill_bytes(&mut nonce_r);
    let inputs = KeyInputs {
        nonce_i: &request.nonce.data,
        nonce_r: &nonce_r,
        spi_i: spis.initiator.to_be_bytes(),
        spi_r: spis.responder.to_be_bytes(),
    };
    let derived = IkeKeys::initial(prf, cipher, &inputs, &shared);
    let keys = derived.map_err(|error| PeerMisbehaved::KeyExchange { error })?;
    let protection = Protection::new(cipher, &keys, Role::Responder)
        .map_err(|error| PeerMisbehaved::KeyExchange { error })?;
    let fragmentation =
        settings.fragmentation && find_notify(payloads, NotifyType::IkeFragmentationSupported).is_some();
    let hashes = find_notify(payloads, NotifyType::SignatureHashAlgorithms);
    let multi_point = settings.group.is_some() && group::announced(payloads);
    proposal.spi = Vec::new();
    let mut answer = vec![
        Payload::Sa(SecurityAssociation { proposals: vec![proposal] }),
        Payload::Ke(KeyExchange { group: suite.group, data: key.public().to_vec() }),
        Payload::Nonce(Nonce { data: nonce_r.clone() }),
    ];
    answer.extend(announcements(settings, spis, path, fragmentation));
    answer.extend(multi_point.then(|| Payload::VendorId(VendorId::multi_point_sa())));
    let response = emit_message(&Header { spi_r: spis.responder, ..answer_header(header) }, &answer);
    Ok(InitAnswer::Agreed(Box::new(Agreed {
        spis,
        suite,
        prf,
        nonce_i: request.nonce.data.clone(),
        nonce_r,
        request: datagram.to_vec(),
        response,
        nat,
        features: Features { fragmentation, mobike: false, keep_old: None, multi_point },
        redirectable,
        peer_hashes: hashes.map(|notify| notify.data_u16_list().collect()).unwrap_or_default(),
        keys,
        protection,
    })))
}

/// What stands behind the negotiation: NAT detection, extensions, the authorities of clients' certificates.
fn announcements(settings: &Settings, spis: IkeSpis, path: Path, fragmentation: bool) -> Vec<Payload> {
    let source = if settings.force_encapsulation {
        forced_encapsulation_hash(spis)
    } else {
        detection_hash(spis, path.local)
    };
    let mut payloads = vec![
        Payload::Notify(Notify::new(NotifyType::NatDetectionSourceIp, source.to_vec())),
        Payload::Notify(Notify::new(
            NotifyType::NatDetectionDestinationIp,
            detection_hash(spis, path.remote).to_vec(),
        )),
    ];
    if fragmentation {
        payloads.push(Payload::Notify(Notify::status(NotifyType::IkeFragmentationSupported)));
    }
    if settings.certificate.is_some() || !settings.client_authorities.is_empty() {
        payloads.push(Payload::Notify(Notify::signature_hash_algorithms(&SIGNATURE_HASHES)));
    }
    if settings.childless != Childless::Never {
        payloads.push(Payload::Notify(Notify::status(NotifyType::ChildlessIkev2Supported)));
    }
    let authorities = settings.client_authorities.certreq();
    if !authorities.is_empty() {
        let encoding = CertEncoding::X509Signature;
        payloads.push(Payload::CertReq(CertificateRequest { encoding, authorities }));
    }
    payloads
}

fn answer_header(request: Header) -> Header {
    Header { flags: Flags { initiator: false, response: true, version: false }, ..request }
}

fn stateless(request: Header, notify: Notify) -> InitAnswer {
    InitAnswer::Stateless(emit_message(&answer_header(request), &[Payload::Notify(notify)]))
}

impl<'a> Request<'a> {
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
            proposals: sa
                .map(|sa| sa.proposals.as_slice())
                .ok_or(PeerMisbehaved::MissingPayload { what: "the SA payload" })?,
            ke: ke.ok_or(PeerMisbehaved::MissingPayload { what: "the KE payload" })?,
            nonce: nonce.ok_or(PeerMisbehaved::MissingPayload { what: "the Nonce payload" })?,
        })
    }
}
