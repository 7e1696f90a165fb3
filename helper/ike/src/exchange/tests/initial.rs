//! What a gateway, or somebody who answers in its place, can do wrong in the initial exchanges.
//!
//! Whatever comes in the clear proves nothing: the attempt goes on as if it had not come, and only the bounded time ends
//! it. The honest run is in the simulation of both ends.

use super::*;
use crate::auth::TrustAnchors;
use crate::crypto::{CryptoError, DhGroup, KeyPair};
use crate::exchange::child::ChildOffer;
use crate::exchange::config::{AddressRequest, GatewayIdentity, InitiatorConfig, LocalAuth};
use crate::exchange::initiator::eap_rounds::EapRounds;
use crate::exchange::initiator::{HandshakeError, Initiator};
use crate::exchange::nat::detection_hash;
use crate::proposal::{esp_offer, parse_ike_list};
use crate::time::UnixTime;
use crate::wire::{
    EapMessage, KeyExchange, Message, Nonce, Notify, NotifyType, Proposal, SecurityAssociation, emit_message,
};

/// How long an attempt waits for an acceptable answer to IKE_SA_INIT, whatever else comes.
const BOUNDED: Duration = Duration::from_secs(10);

pub(super) struct Attempt {
    pub(super) now: Instant,
    pub(super) rng: ChaCha20Rng,
    pub(super) initiator: Initiator,
}

pub(super) fn config() -> InitiatorConfig {
    InitiatorConfig {
        ike_proposals: parse_ike_list(&["aes256gcm16-prfsha256-x25519-ecp256"]).unwrap(),
        esp_proposals: policy(Role::Initiator, "aes256gcm16").proposals,
        local_id: Identification::fqdn("client.example"),
        auth: LocalAuth::Psk(Zeroizing::new(b"secret".to_vec())),
        gateway: GatewayIdentity {
            expected: Identification::fqdn("gateway.example"),
            announce: true,
            trust_anchors: TrustAnchors::default(),
        },
        request: AddressRequest { ipv4: Some(None), ipv6: None },
        mode: Mode::Tunnel,
        ts_i: TrafficSelectors::new(vec![TrafficSelector::any_v4()]),
        ts_r: TrafficSelectors::new(vec![TrafficSelector::any_v4()]),
        mobike: true,
        multi_point_sa: None,
        initial_contact: true,
        redirected_from: None,
        keep_old: Some(50213),
        keep_old_in_auth: false,
        own_addresses: None,
        dpd: None,
        lifetimes: Lifetimes::default(),
        wall_clock: UnixTime(1_800_000_000),
    }
}

pub(super) fn start_path() -> Path {
    path(Role::Initiator).with_remote_port(500)
}

impl Attempt {
    pub(super) fn new() -> Self {
        let now = Instant::from_start(Duration::from_secs(1000));
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let mut initiator = Initiator::start(config(), start_path(), now, &mut rng).unwrap();
        initiator.proceed(now, &mut rng);
        Self { now, rng, initiator }
    }

    /// The last request sent, and how many were.
    fn sent(&mut self) -> (Vec<u8>, usize) {
        let all: Vec<_> = std::iter::from_fn(|| self.initiator.poll_transmit()).collect();
        (all.last().unwrap().message.clone(), all.len())
    }

    pub(super) fn answer(&mut self, payloads: &[Payload]) -> Result<(), PeerMisbehaved> {
        let header = Header {
            spi_i: self.initiator.spi().unwrap(),
            spi_r: 0x77,
            next_payload: 0,
            exchange: ExchangeType::IkeSaInit,
            flags: Flags { initiator: false, response: true, version: false },
            message_id: 0,
        };
        self.deliver(&emit_message(&header, payloads))
    }

    pub(super) fn deliver(&mut self, datagram: &[u8]) -> Result<(), PeerMisbehaved> {
        self.initiator.handle_datagram(self.now, start_path(), datagram, &mut self.rng)
    }

    /// Lets the clock run until the attempt ends.
    fn outcome(&mut self) -> (HandshakeError, Duration) {
        let began = self.now;
        loop {
            if let Some(outcome) = self.initiator.poll_outcome() {
                return (outcome.err().unwrap(), self.now - began);
            }
            self.pass();
        }
    }

    /// Lets the clock run to the next moment that the attempt waits for.
    pub(super) fn pass(&mut self) {
        self.now = self.initiator.poll_timeout().unwrap();
        self.initiator.handle_timeout(self.now, &mut self.rng);
    }

    /// An honest answer to the request, with the KE payload of `group`.
    fn honest(&mut self, request: &[u8], group: DhGroup) -> Vec<Payload> {
        self.honest_with_key(request, group, 0x77).0
    }

    /// The same of a gateway with this SPI, and the key in it.
    pub(super) fn honest_with_key(
        &mut self,
        request: &[u8],
        group: DhGroup,
        responder: u64,
    ) -> (Vec<Payload>, KeyPair) {
        let offered = Message::parse(request).unwrap().payloads;
        let offer = offered.iter().find_map(|payload| match payload {
            Payload::Sa(sa) => Some(sa.proposals.clone()),
            _ => None,
        });
        let ours = parse_ike_list(&["aes256gcm16-prfsha256-x25519-ecp256"]).unwrap();
        let (_, answer) = crate::proposal::select_ike(&offer.unwrap(), &ours, Some(31)).unwrap();
        let key = KeyPair::generate(group, &mut self.rng);
        let spis = IkeSpis { initiator: self.initiator.spi().unwrap(), responder };
        let payloads = vec![
            Payload::Sa(SecurityAssociation { proposals: vec![answer] }),
            Payload::Ke(KeyExchange { group: group.iana(), data: key.public().to_vec() }),
            Payload::Nonce(Nonce { data: vec![5; 32] }),
            Payload::Notify(Notify::new(
                NotifyType::NatDetectionSourceIp,
                detection_hash(spis, start_path().remote).to_vec(),
            )),
            Payload::Notify(Notify::new(
                NotifyType::NatDetectionDestinationIp,
                detection_hash(spis, start_path().local).to_vec(),
            )),
        ];
        (payloads, key)
    }
}

fn proposals(payloads: &mut [Payload]) -> &mut Vec<Proposal> {
    let Payload::Sa(sa) = &mut payloads[0] else { panic!("no SA first") };
    &mut sa.proposals
}

#[test]
fn an_honest_answer_moves_on_to_port_4500() {
    let mut attempt = Attempt::new();
    let (request, _) = attempt.sent();
    let answer = attempt.honest(&request, DhGroup::X25519);
    assert_eq!(attempt.answer(&answer), Ok(()));
    assert!(attempt.initiator.gateway_answered());
    assert_eq!(attempt.initiator.path().remote.port(), 4500);
    assert_eq!(attempt.sent().1, 1);
}

#[test]
fn an_error_in_the_clear_is_reported_only_after_the_bounded_time() {
    for (ty, error) in [
        (NotifyType::NoProposalChosen, HandshakeError::NoProposalChosen),
        (NotifyType::InvalidSyntax, HandshakeError::Refused(NotifyType::InvalidSyntax)),
    ] {
        let mut attempt = Attempt::new();
        assert_eq!(attempt.answer(&[Payload::Notify(Notify::status(ty))]), Ok(()));
        assert!(attempt.initiator.poll_outcome().is_none());
        assert_eq!(attempt.outcome(), (error, BOUNDED));
    }
}

#[test]
fn a_forged_error_does_not_keep_the_true_answer_out() {
    let mut attempt = Attempt::new();
    let (request, _) = attempt.sent();
    for _ in 0..1000 {
        attempt.answer(&[Payload::Notify(Notify::status(NotifyType::NoProposalChosen))]).unwrap();
    }
    let answer = attempt.honest(&request, DhGroup::X25519);
    assert_eq!(attempt.answer(&answer), Ok(()));
    assert!(attempt.initiator.gateway_answered());
}

#[test]
fn silence_ends_the_attempt_in_time() {
    let mut attempt = Attempt::new();
    let outcome = attempt.outcome();
    assert_eq!(outcome, (HandshakeError::NoAnswer { after_init: false }, BOUNDED));
}

#[test]
fn a_cookie_is_returned_and_a_loop_of_cookies_is_left() {
    let mut attempt = Attempt::new();
    attempt.sent();
    for round in 0..4_u8 {
        let cookie = Payload::Notify(Notify::new(NotifyType::Cookie, vec![round; 8]));
        assert_eq!(attempt.answer(&[cookie]), Ok(()));
        let (request, _) = attempt.sent();
        let first = Message::parse(&request).unwrap().payloads.remove(0);
        assert_eq!(first, Payload::Notify(Notify::new(NotifyType::Cookie, vec![round; 8])));
    }
    let cookie = Payload::Notify(Notify::new(NotifyType::Cookie, vec![9; 8]));
    assert_eq!(attempt.answer(&[cookie]), Err(PeerMisbehaved::CookieLoop));
    for length in [0, 65] {
        let cookie = Payload::Notify(Notify::new(NotifyType::Cookie, vec![1; length]));
        let mut attempt = Attempt::new();
        assert_eq!(attempt.answer(&[cookie]), Err(PeerMisbehaved::CookieLoop), "{length} octets");
    }
}

#[test]
fn another_group_is_sent_once_and_only_when_it_was_offered() {
    let mut attempt = Attempt::new();
    attempt.sent();
    assert_eq!(attempt.answer(&[Payload::Notify(Notify::invalid_ke(19))]), Ok(()));
    let (request, _) = attempt.sent();
    let ke = Message::parse(&request).unwrap().payloads.into_iter().find_map(|payload| match payload {
        Payload::Ke(ke) => Some(ke.group),
        _ => None,
    });
    assert_eq!(ke, Some(19));
    for group in [19, 31] {
        let again = attempt.answer(&[Payload::Notify(Notify::invalid_ke(group))]);
        assert_eq!(again, Err(PeerMisbehaved::InvalidKeLoop));
    }
    for group in [14, 0, 40_000] {
        let mut attempt = Attempt::new();
        assert_eq!(attempt.answer(&[Payload::Notify(Notify::invalid_ke(group))]), Ok(()));
        let error = HandshakeError::Misbehaved(PeerMisbehaved::GroupNotOffered { group });
        assert_eq!(attempt.outcome().0, error);
    }
}

#[test]
fn an_answer_that_chose_nothing_or_too_much_is_passed_over() {
    let mut attempt = Attempt::new();
    let (request, _) = attempt.sent();
    let honest = attempt.honest(&request, DhGroup::X25519);
    let mut doubled = honest.clone();
    let twice = proposals(&mut doubled)[0].clone();
    proposals(&mut doubled).push(twice);
    assert_eq!(attempt.answer(&doubled), Err(PeerMisbehaved::AnswerProposalCount { count: 2 }));
    for at in 0..3 {
        let mut without = honest.clone();
        without.remove(at);
        assert!(matches!(attempt.answer(&without), Err(PeerMisbehaved::MissingPayload { .. })), "{at}");
    }
    assert_eq!(attempt.answer(&honest), Ok(()), "and the true answer still counts");
}

#[test]
fn a_key_exchange_of_another_group_or_without_worth_is_passed_over() {
    let mut attempt = Attempt::new();
    let (request, _) = attempt.sent();
    let other = attempt.honest(&request, DhGroup::Ecp256);
    assert_eq!(attempt.answer(&other), Err(PeerMisbehaved::WrongGroup { found: 19, expected: 31 }));
    let mut zero = attempt.honest(&request, DhGroup::X25519);
    zero[1] = Payload::Ke(KeyExchange { group: 31, data: vec![0; 32] });
    let error = PeerMisbehaved::KeyExchange { error: CryptoError::BadPublicValue };
    assert_eq!(attempt.answer(&zero), Err(error));
    let honest = attempt.honest(&request, DhGroup::X25519);
    assert_eq!(attempt.answer(&honest), Ok(()));
}

#[test]
fn an_answer_from_elsewhere_reflected_or_encrypted_is_passed_over() {
    let mut attempt = Attempt::new();
    let (request, _) = attempt.sent();
    assert_eq!(attempt.deliver(&request), Err(PeerMisbehaved::WrongDirection));
    let honest = attempt.honest(&request, DhGroup::X25519);
    let header = Header {
        spi_i: attempt.initiator.spi().unwrap(),
        spi_r: 0x77,
        next_payload: 0,
        exchange: ExchangeType::IkeSaInit,
        flags: Flags { initiator: false, response: true, version: false },
        message_id: 0,
    };
    let datagram = emit_message(&header, &honest);
    let elsewhere = Path { remote: ([203, 0, 113, 5], 500).into(), ..start_path() };
    let (now, initiator) = (attempt.now, &mut attempt.initiator);
    let result = initiator.handle_datagram(now, elsewhere, &datagram, &mut attempt.rng);
    assert_eq!(result, Err(PeerMisbehaved::WrongDirection));
    let mut forger = Protection::new(IkeCipher::Aes256Gcm16, &keys(), Role::Responder).unwrap();
    let sealed = forger.seal(header, &honest, false, start_path(), &mut attempt.rng).unwrap();
    assert_eq!(attempt.deliver(&sealed[0]), Err(PeerMisbehaved::EncryptedTooEarly));
    assert_eq!(attempt.deliver(&datagram), Ok(()));
}

#[test]
fn a_gateway_without_nat_traversal_is_named_as_such() {
    let mut attempt = Attempt::new();
    let (request, _) = attempt.sent();
    let mut plain = attempt.honest(&request, DhGroup::X25519);
    plain.truncate(3);
    assert_eq!(attempt.answer(&plain), Ok(()));
    assert_eq!(attempt.outcome().0, HandshakeError::NoNatTraversal);
}

#[test]
fn eap_rounds_without_exactly_one_packet_are_out_of_place() {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let packet = Payload::Eap(EapMessage { data: vec![1, 1, 0, 5, 1] });
    for payloads in [vec![], vec![packet.clone(), packet]] {
        let error = EapRounds::new("alice", "alice", "password").handle(&payloads, &mut rng).err().unwrap();
        assert_eq!(error, HandshakeError::Misbehaved(PeerMisbehaved::EapOutOfPlace));
    }
}

#[test]
fn transport_mode_that_was_not_asked_for_is_refused() {
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let ours = policy(Role::Initiator, "aes256gcm16-noesn");
    let offer = ChildOffer::new(&ours.proposals, ours.ts_local.clone(), ours.ts_remote.clone(), &mut rng);
    let answer = [
        Payload::Notify(Notify::status(NotifyType::UseTransportMode)),
        Payload::Sa(SecurityAssociation { proposals: esp_offer(&ours.proposals, 0x0102_0304, false) }),
        Payload::TsI(ours.ts_local),
        Payload::TsR(ours.ts_remote),
    ];
    let result = offer.accept(
        &answer,
        NatSituation::default(),
        Prf::HmacSha2_256,
        &[1; 32],
        None,
        (&[1; 32], &[2; 32]),
    );
    assert_eq!(result.err(), Some(PeerMisbehaved::WrongMode));
}
