//! The gateway's answers, message by message, to a client that is written by hand and so can do what an honest one does
//! not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use ropewalk_gateway::{Gateway, GatewayEvent, Psk, Settings};
use ropewalk_ike::auth::auth_octets;
use ropewalk_ike::auth::psk::shared_key_auth;
use ropewalk_ike::crypto::keys::KeyInputs;
use ropewalk_ike::crypto::{DhGroup, IkeCipher, IkeKeys, KeyPair, Prf};
use ropewalk_ike::error::PeerMisbehaved;
use ropewalk_ike::exchange::nat::forced_encapsulation_hash;
use ropewalk_ike::exchange::protect::Protection;
use ropewalk_ike::exchange::{IkeSpis, Path, Role};
use ropewalk_ike::proposal::{default_esp_proposals, esp_offer, ike_offer};
use ropewalk_ike::time::{Instant, UnixTime};
use ropewalk_ike::wire::{
    Attribute, AuthMethod, Authentication, ConfigType, Configuration, Delete, ExchangeType, Flags, Header,
    Identification, KeyExchange, Message, Nonce, Notify, NotifyType, Payload, SecurityAssociation,
    TrafficSelector, TrafficSelectors, UnknownPayload, emit_message, find_notify,
};
use zeroize::Zeroizing;

const SECRET: &[u8] = b"a shared secret";
const PRF: Prf = Prf::HmacSha2_256;
const CIPHER: IkeCipher = IkeCipher::Aes256Gcm16;
const SUITE: &str = "aes256gcm16-prfsha256-x25519";

struct World {
    gateway: Gateway,
    now: Instant,
    rng: ChaCha20Rng,
}

/// A client after IKE_SA_INIT.
struct Client {
    spis: IkeSpis,
    request: Vec<u8>,
    nonce_r: Vec<u8>,
    keys: IkeKeys,
    protection: Protection,
}

impl World {
    fn new() -> Self {
        let mut settings = Settings::new(Identification::fqdn("gateway.test"));
        settings.psks.push(Psk { identity: None, secret: Zeroizing::new(SECRET.to_vec()) });
        settings.pools = vec!["10.9.0.0/24".parse().unwrap()];
        settings.traffic = vec!["10.0.0.0/8".parse().unwrap()];
        Self {
            gateway: Gateway::new(settings, UnixTime(1_800_000_000)),
            now: Instant::from_start(Duration::from_secs(1000)),
            rng: ChaCha20Rng::seed_from_u64(9),
        }
    }

    /// Hands a message in; the answers and what was said about it.
    fn send(&mut self, message: &[u8]) -> (Vec<Vec<u8>>, Result<(), PeerMisbehaved>) {
        let (local, remote) = (([203, 0, 113, 1], 4500).into(), ([198, 51, 100, 7], 40_000).into());
        let path = Path { link: 1, local, remote };
        let outcome = self.gateway.handle_datagram(self.now, path, message, &mut self.rng);
        let answers = std::iter::from_fn(|| self.gateway.poll_transmit());
        (answers.map(|transmit| transmit.message).collect(), outcome)
    }

    /// The one answer to a message.
    fn answer(&mut self, message: &[u8]) -> Vec<u8> {
        let (mut answers, _) = self.send(message);
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }

    fn events(&mut self) -> Vec<GatewayEvent> {
        std::iter::from_fn(|| self.gateway.poll_event()).collect()
    }

    fn init_payloads(&mut self, key: &KeyPair) -> Vec<Payload> {
        let hash = || forced_encapsulation_hash(IkeSpis { initiator: 7, responder: 0 }).to_vec();
        vec![
            Payload::Sa(SecurityAssociation { proposals: ike_offer(&[SUITE.parse().unwrap()]) }),
            Payload::Ke(KeyExchange { group: 31, data: key.public().to_vec() }),
            Payload::Nonce(Nonce { data: vec![5; 32] }),
            Payload::Notify(Notify::new(NotifyType::NatDetectionSourceIp, hash())),
            Payload::Notify(Notify::new(NotifyType::NatDetectionDestinationIp, hash())),
        ]
    }

    fn client(&mut self, spi: u64) -> Client {
        let key = KeyPair::generate(DhGroup::X25519, &mut self.rng);
        let request = emit_message(&header(spi, 0, ExchangeType::IkeSaInit, 0), &self.init_payloads(&key));
        let answer = Message::parse(&self.answer(&request)).unwrap();
        let (mut ke, mut nonce) = (None, None);
        for payload in answer.payloads {
            match payload {
                Payload::Ke(found) => ke = Some(found.data),
                Payload::Nonce(found) => nonce = Some(found.data),
                _ => {}
            }
        }
        let (ke, nonce_r) = (ke.unwrap(), nonce.unwrap());
        let spis = IkeSpis { initiator: spi, responder: answer.header.spi_r };
        let inputs = KeyInputs {
            nonce_i: &[5; 32],
            nonce_r: &nonce_r,
            spi_i: spis.initiator.to_be_bytes(),
            spi_r: spis.responder.to_be_bytes(),
        };
        let keys = IkeKeys::initial(PRF, CIPHER, &inputs, &key.agree(&ke).unwrap()).unwrap();
        let protection = Protection::new(CIPHER, &keys, Role::Initiator).unwrap();
        Client { spis, request, nonce_r, keys, protection }
    }

    /// A client that is in.
    fn connected(&mut self, spi: u64, more: &[Payload]) -> Client {
        let mut client = self.client(spi);
        let mut payloads = client.wishes();
        payloads.extend_from_slice(more);
        let request = client.seal(ExchangeType::IkeAuth, 1, &payloads, &mut self.rng);
        let answer = self.answer(&request);
        assert!(client.open(&answer).iter().any(|payload| matches!(payload, Payload::Sa(_))));
        client
    }
}

impl Client {
    fn seal(
        &mut self,
        exchange: ExchangeType,
        id: u32,
        payloads: &[Payload],
        rng: &mut ChaCha20Rng,
    ) -> Vec<u8> {
        let header = header(self.spis.initiator, self.spis.responder, exchange, id);
        let path = Path { link: 0, local: ([0; 4], 0).into(), remote: ([0; 4], 0).into() };
        self.protection.seal(header, payloads, false, path, rng).unwrap().remove(0)
    }

    fn open(&mut self, message: &[u8]) -> Vec<Payload> {
        let parsed = Message::parse(message).unwrap();
        let encrypted = parsed.encrypted.unwrap();
        self.protection
            .open(Instant::ZERO, message, &parsed.header, &encrypted)
            .unwrap()
            .unwrap()
            .payloads()
            .unwrap()
            .to_vec()
    }

    /// IDi and AUTH.
    fn proof(&self) -> Vec<Payload> {
        let id = Identification::rfc822("client@test");
        let octets = auth_octets(PRF, &self.request, &self.nonce_r, &self.keys.sk_pi, &id.body());
        let data = shared_key_auth(PRF, SECRET, &octets).to_vec();
        vec![Payload::IdI(id), Payload::Auth(Authentication { method: AuthMethod::SharedKey, data })]
    }

    /// The proof, and the wish for an address and a CHILD_SA.
    fn wishes(&self) -> Vec<Payload> {
        let everything = TrafficSelectors::new(vec![TrafficSelector::any_v4()]);
        let attributes = vec![Attribute::InternalIp4Address(None)];
        let mut payloads = self.proof();
        payloads.extend([
            Payload::Cp(Configuration { ty: ConfigType::Request, attributes }),
            Payload::Sa(SecurityAssociation {
                proposals: esp_offer(&default_esp_proposals(), 0xabcd, false),
            }),
            Payload::TsI(everything.clone()),
            Payload::TsR(everything),
        ]);
        payloads
    }
}

fn header(spi_i: u64, spi_r: u64, exchange: ExchangeType, message_id: u32) -> Header {
    let flags = Flags { initiator: true, response: false, version: false };
    Header { spi_i, spi_r, next_payload: 0, exchange, flags, message_id }
}

fn says(payloads: &[Payload], ty: NotifyType) -> bool {
    find_notify(payloads, ty).is_some()
}

#[test]
fn a_repeated_request_gets_the_same_answer_and_makes_nothing_new() {
    let mut world = World::new();
    let mut client = world.client(7);
    let again = world.answer(&client.request.clone());
    assert_eq!(Message::parse(&again).unwrap().header.spi_r, client.spis.responder);
    assert_eq!(world.gateway.half_open(), 1);
    let wishes = client.wishes();
    let request = client.seal(ExchangeType::IkeAuth, 1, &wishes, &mut world.rng);
    let first = world.answer(&request);
    assert_eq!(world.events().len(), 3, "a client, its CHILD_SA, and that it carries");
    assert_eq!(world.answer(&request), first);
    assert!(world.events().is_empty());
    assert_eq!(
        world.send(&client.request.clone()).0,
        Vec::<Vec<u8>>::new(),
        "a late copy of the first request"
    );
}

#[test]
fn without_nat_traversal_there_is_nothing_to_agree_on() {
    let mut world = World::new();
    let key = KeyPair::generate(DhGroup::X25519, &mut world.rng);
    let payloads = world.init_payloads(&key);
    let request = emit_message(&header(7, 0, ExchangeType::IkeSaInit, 0), &payloads[..3]);
    let answer = Message::parse(&world.answer(&request)).unwrap();
    assert!(says(&answer.payloads, NotifyType::NoProposalChosen));
    assert_eq!(answer.header.spi_r, 0);
    assert_eq!(world.gateway.half_open(), 0);
}

#[test]
fn a_client_that_asks_for_no_address_is_told_to_and_may_stay() {
    let mut world = World::new();
    let mut client = world.client(7);
    let mut payloads = client.wishes();
    payloads.retain(|payload| !matches!(payload, Payload::Cp(_)));
    let request = client.seal(ExchangeType::IkeAuth, 1, &payloads, &mut world.rng);
    let answer = world.answer(&request);
    let answer = client.open(&answer);
    assert!(answer.iter().any(|payload| matches!(payload, Payload::Auth(_))), "the IKE_SA stands");
    assert!(says(&answer, NotifyType::FailedCpRequired));
    assert_eq!(world.gateway.clients().len(), 1);
    assert!(matches!(world.events().as_slice(), [GatewayEvent::ClientUp { .. }]));
}

#[test]
fn what_is_no_chain_of_payloads_is_answered_once_and_ends_the_attempt() {
    let mut world = World::new();
    let mut client = world.client(7);
    let critical = Payload::Unknown(UnknownPayload { payload_type: 200, critical: true, body: vec![1] });
    let request = client.seal(ExchangeType::IkeAuth, 1, &[critical], &mut world.rng);
    let answer = world.answer(&request);
    assert!(says(&client.open(&answer), NotifyType::UnsupportedCriticalPayload));
    let wishes = client.wishes();
    let request = client.seal(ExchangeType::IkeAuth, 2, &wishes, &mut world.rng);
    assert!(world.send(&request).0.is_empty());
    assert!(world.gateway.clients().is_empty());
}

#[test]
fn no_proof_a_wrong_one_and_eap_without_users_are_refused_alike() {
    let mut world = World::new();
    for (number, spoil) in [0_u8, 1, 2].into_iter().zip(10..) {
        let mut client = world.client(spoil);
        let mut payloads = client.wishes();
        match number {
            0 => payloads.retain(|payload| !matches!(payload, Payload::Auth(_))),
            1 => payloads.retain(|payload| !matches!(payload, Payload::IdI(_))),
            _ => {
                let other = Identification::rfc822("another@test");
                for payload in &mut payloads {
                    if let Payload::IdI(id) = payload {
                        *id = other.clone();
                    }
                }
            }
        }
        let request = client.seal(ExchangeType::IkeAuth, 1, &payloads, &mut world.rng);
        let answer = world.answer(&request);
        let opened = client.open(&answer);
        assert!(says(&opened, NotifyType::AuthenticationFailed), "case {number}");
        assert_eq!(opened.len(), 1, "and nothing else is said");
        assert_eq!(world.answer(&request), answer, "a lost refusal is repeated");
    }
    assert!(world.gateway.clients().is_empty() && world.events().is_empty());
}

#[test]
fn other_exchanges_and_message_ids_are_not_taken_before_authentication() {
    let mut world = World::new();
    let mut client = world.client(7);
    let wishes = client.wishes();
    for (exchange, id) in [
        (ExchangeType::IkeAuth, 0),
        (ExchangeType::IkeAuth, 2),
        (ExchangeType::CreateChildSa, 1),
        (ExchangeType::Informational, 1),
    ] {
        let request = client.seal(exchange, id, &wishes, &mut world.rng);
        let (answers, outcome) = world.send(&request);
        assert!(answers.is_empty() && outcome.is_err(), "{exchange} {id}");
    }
    let request = client.seal(ExchangeType::IkeAuth, 1, &wishes, &mut world.rng);
    world.answer(&request);
    assert_eq!(world.gateway.clients().len(), 1, "and none of it did harm");
}

#[test]
fn a_farewell_before_authentication_is_answered_and_ends_the_attempt() {
    let mut world = World::new();
    let mut client = world.client(7);
    let delete = [Payload::Delete(Delete::ike())];
    let request = client.seal(ExchangeType::Informational, 1, &delete, &mut world.rng);
    let answer = world.answer(&request);
    assert!(client.open(&answer).is_empty());
    assert_eq!(world.gateway.half_open(), 0);
}

#[test]
fn with_initial_contact_the_older_connection_goes_at_once_and_without_it_when_the_client_had_time_to_move() {
    for initial_contact in [true, false] {
        let mut world = World::new();
        let first = world.connected(7, &[]);
        world.events();
        let contact = Payload::Notify(Notify::status(NotifyType::InitialContact));
        let more = if initial_contact { vec![contact] } else { Vec::new() };
        let mut second = world.client(8);
        let mut payloads = second.wishes();
        payloads.extend(more);
        let request = second.seal(ExchangeType::IkeAuth, 1, &payloads, &mut world.rng);
        let (sent, _) = world.send(&request);
        let told = |sent: &[Vec<u8>]| {
            let to_first =
                |message: &&Vec<u8>| Message::parse(message).unwrap().header.spi_i == first.spis.initiator;
            sent.iter().filter(to_first).count()
        };
        assert_eq!(told(&sent), 0, "no DELETE for the older one yet");
        assert_eq!(world.gateway.clients().len(), 1);
        let events = world.events();
        if initial_contact {
            let [
                GatewayEvent::ChildDown { .. },
                GatewayEvent::ClientGone { .. },
                GatewayEvent::ClientUp { addresses, .. },
                GatewayEvent::ChildUp { .. },
                GatewayEvent::Carriage { .. },
            ] = events.as_slice()
            else {
                panic!("{events:?}")
            };
            assert_eq!(addresses[0].to_string(), "10.9.0.2", "the same address, and in this order");
            continue;
        }
        let [GatewayEvent::ClientUp { addresses, .. }, GatewayEvent::ChildUp { child, .. }] =
            events.as_slice()
        else {
            panic!("{events:?}")
        };
        assert_eq!(addresses[0].to_string(), "10.9.0.2", "the same address");
        let new = child.spi_in;
        world.gateway.note_traffic(world.now, new, 100, 0);
        assert!(
            matches!(world.events().as_slice(), [GatewayEvent::Carriage { carriage, .. }] if carriage.main == new)
        );
        world.now = world.now + Duration::from_secs(40);
        world.gateway.handle_timeout(world.now, &mut world.rng);
        let sent: Vec<_> =
            std::iter::from_fn(|| world.gateway.poll_transmit()).map(|transmit| transmit.message).collect();
        assert_eq!(told(&sent), 1, "DELETE for the older one");
    }
}

#[test]
fn stray_messages_are_answered_with_moderation() {
    let mut world = World::new();
    let stray = emit_message(&header(7, 99, ExchangeType::Informational, 3), &[]);
    let answers: usize = (0..100).map(|_| world.send(&stray).0.len()).sum();
    assert_eq!(answers, 10);
    world.now = world.now + Duration::from_secs(1);
    let answer = Message::parse(&world.answer(&stray)).unwrap();
    assert!(says(&answer.payloads, NotifyType::InvalidIkeSpi));
    let mut newer = stray.clone();
    newer[17] = 0x30;
    let answer = Message::parse(&world.answer(&newer)).unwrap();
    assert!(says(&answer.payloads, NotifyType::InvalidMajorVersion));
}

#[test]
fn a_login_that_is_not_finished_is_forgotten() {
    let mut world = World::new();
    world.client(7);
    let at = world.gateway.poll_timeout().unwrap();
    assert_eq!(at, world.now + Duration::from_secs(30));
    world.gateway.handle_timeout(at, &mut world.rng);
    assert_eq!((world.gateway.half_open(), world.gateway.poll_timeout()), (0, None));
}
