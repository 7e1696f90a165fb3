//! Rules of the initial exchanges that the tables of `docs/conformance/` name: what the requests hold, and what an honest
//! gateway may do. The gateway is written by hand, up to the end of IKE_AUTH.

use super::initial::{config, start_path};
use super::*;
use crate::auth::auth_octets;
use crate::auth::psk::shared_key_auth;
use crate::crypto::{DhGroup, KeyPair};
use crate::exchange::initiator::{Established, HandshakeError, Initiator};
use crate::exchange::nat::{detection_hash, forced_encapsulation_hash};
use crate::proposal::{ChildExchange, esp_offer, parse_ike_list, select_esp, select_ike};
use crate::wire::{
    Attribute, AuthMethod, Authentication, ConfigType, Configuration, KeyExchange, Message, Nonce, Notify,
    NotifyType, ParsedMessage, SecurityAssociation, TransformType, UnknownPayload, VendorId, emit_message,
    find_notify,
};

const SECRET: &[u8] = b"secret";
const GATEWAY_SPI: u64 = 0x77;

/// A client that has sent its first request.
struct Start {
    now: Instant,
    rng: ChaCha20Rng,
    client: Initiator,
}

/// Both ends after IKE_SA_INIT: the client's first request of IKE_AUTH has been sent.
struct Agreed {
    start: Start,
    response: Vec<u8>,
    nonce_i: Vec<u8>,
    keys: IkeKeys,
    protection: Protection,
    /// The request's datagrams.
    sent: Vec<Vec<u8>>,
}

impl Start {
    fn new(seed: u64) -> Self {
        let now = Instant::from_start(Duration::from_secs(1000));
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut config = config();
        // A group that belongs to CREATE_CHILD_SA only.
        config.esp_proposals = policy(Role::Initiator, "aes256gcm16-x25519").proposals;
        let mut client = Initiator::start(config, start_path(), now, &mut rng).unwrap();
        client.proceed(now, &mut rng);
        Self { now, rng, client }
    }

    fn sent(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.client.poll_transmit()).map(|transmit| transmit.message).collect()
    }

    /// The one request that waits.
    fn request(&mut self) -> ParsedMessage {
        let sent = self.sent();
        assert_eq!(sent.len(), 1);
        Message::parse(&sent[0]).unwrap()
    }

    fn answer(&mut self, payloads: &[Payload]) -> (Vec<u8>, Result<(), PeerMisbehaved>) {
        let header = Header {
            spi_i: self.client.spi().unwrap(),
            spi_r: GATEWAY_SPI,
            next_payload: 0,
            exchange: ExchangeType::IkeSaInit,
            flags: Flags { initiator: false, response: true, version: false },
            message_id: 0,
        };
        let datagram = emit_message(&header, payloads);
        let result = self.client.handle_datagram(self.now, start_path(), &datagram, &mut self.rng);
        (datagram, result)
    }

    fn answer_notify(&mut self, notify: Notify) -> ParsedMessage {
        self.answer(&[Payload::Notify(notify)]).1.unwrap();
        self.request()
    }

    /// An honest answer to a request, and the key that was agreed on.
    fn honest(&mut self, request: &ParsedMessage) -> (Vec<Payload>, Zeroizing<Vec<u8>>) {
        let Payload::Sa(offer) = find(&request.payloads, |payload| matches!(payload, Payload::Sa(_))) else {
            panic!("no SA")
        };
        let Payload::Ke(ke) = find(&request.payloads, |payload| matches!(payload, Payload::Ke(_))) else {
            panic!("no KE")
        };
        let ours = parse_ike_list(&["aes256gcm16-prfsha256-x25519-ecp256"]).unwrap();
        let (suite, answer) = select_ike(&offer.proposals, &ours, Some(ke.group)).unwrap();
        let key = KeyPair::generate(DhGroup::from_iana(suite.group).unwrap(), &mut self.rng);
        let secret = key.agree(&ke.data).unwrap();
        let spis = IkeSpis { initiator: request.header.spi_i, responder: GATEWAY_SPI };
        let hash = |ty, address| Payload::Notify(Notify::new(ty, detection_hash(spis, address).to_vec()));
        let payloads = vec![
            Payload::Sa(SecurityAssociation { proposals: vec![answer] }),
            Payload::Ke(KeyExchange { group: suite.group, data: key.public().to_vec() }),
            Payload::Nonce(Nonce { data: vec![5; 32] }),
            hash(NotifyType::NatDetectionSourceIp, start_path().remote),
            hash(NotifyType::NatDetectionDestinationIp, start_path().local),
        ];
        (payloads, secret)
    }

    fn agreed(mut self) -> Agreed {
        let request = self.request();
        let (payloads, secret) = self.honest(&request);
        let (response, result) = self.answer(&payloads);
        result.unwrap();
        let Payload::Nonce(nonce) = find(&request.payloads, |payload| matches!(payload, Payload::Nonce(_)))
        else {
            panic!("no nonce")
        };
        let inputs = KeyInputs {
            nonce_i: &nonce.data,
            nonce_r: &[5; 32],
            spi_i: request.header.spi_i.to_be_bytes(),
            spi_r: GATEWAY_SPI.to_be_bytes(),
        };
        let keys = IkeKeys::initial(Prf::HmacSha2_256, IkeCipher::Aes256Gcm16, &inputs, &secret).unwrap();
        let protection = Protection::new(IkeCipher::Aes256Gcm16, &keys, Role::Responder).unwrap();
        let sent = self.sent();
        Agreed { response, nonce_i: nonce.data.clone(), keys, protection, sent, start: self }
    }
}

impl Agreed {
    fn open(&mut self, datagram: &[u8]) -> (Header, Vec<Payload>) {
        let parsed = Message::parse(datagram).unwrap();
        let opened =
            self.protection.open(Instant::ZERO, datagram, &parsed.header, &parsed.encrypted.unwrap());
        (parsed.header, opened.unwrap().unwrap().payloads().unwrap().to_vec())
    }

    /// IDr and AUTH, CFG_REPLY, SA and selectors: everything that the client asked for.
    fn grant(&mut self, request: &[Payload], secret: &[u8]) -> Vec<Payload> {
        let id = Identification::fqdn("gateway.example");
        let octets =
            auth_octets(Prf::HmacSha2_256, &self.response, &self.nonce_i, &self.keys.sk_pr, &id.body());
        let data = shared_key_auth(Prf::HmacSha2_256, secret, &octets).to_vec();
        let Payload::Sa(offer) = find(request, |payload| matches!(payload, Payload::Sa(_))) else {
            panic!("no SA")
        };
        let ours = policy(Role::Responder, "aes256gcm16-noesn").proposals;
        let (_, mut chosen) = select_esp(&offer.proposals, &ours, ChildExchange::IkeAuth).unwrap();
        chosen.spi = vec![1, 2, 3, 4];
        let attributes = vec![
            Attribute::Other { ty: 4711, value: vec![1, 2, 3] },
            // INTERNAL_ADDRESS_EXPIRY of RFC 4306.
            Attribute::Other { ty: 5, value: vec![0, 0, 0, 1] },
            Attribute::InternalIp4Address(Some([10, 0, 0, 2].into())),
        ];
        vec![
            Payload::IdR(id),
            Payload::Auth(Authentication { method: AuthMethod::SharedKey, data }),
            Payload::Cp(Configuration { ty: ConfigType::Reply, attributes }),
            Payload::Sa(SecurityAssociation { proposals: vec![chosen] }),
            Payload::TsI(TrafficSelectors::new(vec![TrafficSelector::host([10, 0, 0, 2].into())])),
            Payload::TsR(TrafficSelectors::new(vec![TrafficSelector::any_v4()])),
        ]
    }

    /// Answers IKE_AUTH; how the attempt ends, if need be after its time.
    fn answer(&mut self, payloads: &[Payload]) -> Result<Box<Established>, HandshakeError> {
        self.answer_by(start_path().with_remote_port(4500), payloads)
    }

    /// The same, where the answer comes by this path.
    fn answer_by(&mut self, path: Path, payloads: &[Payload]) -> Result<Box<Established>, HandshakeError> {
        let Start { now, rng, client } = &mut self.start;
        let header = Header {
            spi_i: client.spi().unwrap(),
            spi_r: GATEWAY_SPI,
            next_payload: 0,
            exchange: ExchangeType::IkeAuth,
            flags: Flags { initiator: false, response: true, version: false },
            message_id: 1,
        };
        let sealed = self.protection.seal(header, payloads, false, path, rng).unwrap();
        client.handle_datagram(*now, path, &sealed[0], rng).unwrap();
        loop {
            if let Some(outcome) = client.poll_outcome() {
                return outcome;
            }
            *now = client.poll_timeout().unwrap();
            client.handle_timeout(*now, rng);
        }
    }
}

fn find(payloads: &[Payload], wanted: impl Fn(&Payload) -> bool) -> Payload {
    payloads.iter().find(|payload| wanted(payload)).unwrap().clone()
}

fn place(payloads: &[Payload], wanted: impl Fn(&Payload) -> bool) -> usize {
    payloads.iter().position(wanted).unwrap()
}

fn nonce(message: &ParsedMessage) -> Vec<u8> {
    match find(&message.payloads, |payload| matches!(payload, Payload::Nonce(_))) {
        Payload::Nonce(nonce) => nonce.data,
        _ => unreachable!(),
    }
}

fn sa(message: &ParsedMessage) -> Payload {
    find(&message.payloads, |payload| matches!(payload, Payload::Sa(_)))
}

#[test]
fn the_first_request_names_only_its_sender_and_a_cookie_changes_nothing_else() {
    let mut start = Start::new(1);
    let first = start.request();
    assert_ne!(first.header.spi_i, 0);
    assert_eq!((first.header.spi_r, first.header.message_id), (0, 0));
    let flags = first.header.flags;
    assert!(flags.initiator && !flags.response && !flags.version);
    let again = start.answer_notify(Notify::new(NotifyType::Cookie, vec![7; 40]));
    assert_eq!((again.header.spi_i, again.header.spi_r), (first.header.spi_i, 0));
    assert_eq!(again.header.message_id, 0);
    let (cookie, rest) = again.payloads.split_first().unwrap();
    assert_eq!(*cookie, Payload::Notify(Notify::new(NotifyType::Cookie, vec![7; 40])));
    assert_eq!(rest, first.payloads);
}

#[test]
fn the_first_request_has_its_payloads_in_the_order_of_the_standard() {
    let request = Start::new(1).request();
    assert!(matches!(
        request.payloads.as_slice(),
        [Payload::Sa(_), Payload::Ke(_), Payload::Nonce(_), Payload::Notify(_), ..]
    ));
    let Payload::Sa(offer) = &request.payloads[0] else { unreachable!() };
    let Payload::Ke(ke) = &request.payloads[1] else { unreachable!() };
    let first = offer.proposals[0].of_type(TransformType::Group).next().unwrap();
    assert_eq!(ke.group, first.id, "the group of the key is the first one offered");
}

#[test]
fn nonces_and_spis_are_fresh_and_long_enough() {
    let (first, second) = (Start::new(1).request(), Start::new(2).request());
    assert_ne!(nonce(&first), nonce(&second));
    assert_ne!(first.header.spi_i, second.header.spi_i);
    // 128 bits, and half the key of any function offered: that of HMAC-SHA2-512 has 64 octets.
    assert!(nonce(&first).len() >= 32);
}

#[test]
fn with_another_group_the_whole_offer_is_made_again() {
    let mut start = Start::new(1);
    let first = start.request();
    let again = start.answer_notify(Notify::invalid_ke(19));
    assert_eq!(sa(&again), sa(&first));
    assert_eq!(again.header.spi_r, 0);
}

#[test]
fn a_cookie_goes_along_with_another_group_and_a_new_cookie_after_that_is_taken_too() {
    let mut start = Start::new(1);
    start.request();
    start.answer_notify(Notify::new(NotifyType::Cookie, vec![1; 8]));
    let again = start.answer_notify(Notify::invalid_ke(19));
    let cookie = |message: &ParsedMessage| find_notify(&message.payloads, NotifyType::Cookie).cloned();
    assert_eq!(cookie(&again).unwrap().data, [1; 8], "the shorter exchange");
    let third = start.answer_notify(Notify::new(NotifyType::Cookie, vec![2; 8]));
    assert_eq!(cookie(&third).unwrap().data, [2; 8], "a gateway that does not know the shorter one");
    let Payload::Ke(ke) = find(&third.payloads, |payload| matches!(payload, Payload::Ke(_))) else {
        unreachable!()
    };
    assert_eq!(ke.group, 19);
    let (answer, _) = start.honest(&third);
    assert_eq!(start.answer(&answer).1, Ok(()));
    assert!(start.client.gateway_answered());
}

#[test]
fn both_kinds_of_nat_detection_are_sent_and_the_source_matches_nothing() {
    let request = Start::new(1).request();
    let spis = IkeSpis { initiator: request.header.spi_i, responder: 0 };
    let data = |ty| find_notify(&request.payloads, ty).unwrap().data.clone();
    assert_eq!(data(NotifyType::NatDetectionSourceIp), forced_encapsulation_hash(spis));
    let gateway = detection_hash(spis, start_path().remote);
    assert_eq!(data(NotifyType::NatDetectionDestinationIp), gateway);
}

#[test]
fn a_repetition_is_the_same_octets_in_both_exchanges() {
    let mut start = Start::new(1);
    let first = start.sent();
    start.now = start.client.poll_timeout().unwrap();
    start.client.handle_timeout(start.now, &mut start.rng);
    assert_eq!(start.sent(), first);
    let mut agreed = Start::new(1).agreed();
    agreed.start.now = agreed.start.client.poll_timeout().unwrap();
    let Start { client, now, rng } = &mut agreed.start;
    client.handle_timeout(*now, rng);
    assert_eq!(agreed.start.sent(), agreed.sent);
}

#[test]
fn what_is_not_known_and_another_order_do_not_spoil_an_answer() {
    let mut start = Start::new(1);
    let request = start.request();
    let (mut answer, _) = start.honest(&request);
    let unknown = UnknownPayload { payload_type: 201, critical: false, body: vec![1, 2, 3] };
    answer.extend([
        Payload::VendorId(VendorId { data: b"an extension nobody knows".to_vec() }),
        Payload::Notify(Notify::status(NotifyType::Other(40_123))),
        Payload::Unknown(unknown),
    ]);
    answer.reverse();
    assert_eq!(start.answer(&answer).1, Ok(()));
    assert!(start.client.gateway_answered());
}

#[test]
fn ike_auth_goes_on_with_message_1_and_asks_for_an_address_in_front_of_the_sa() {
    let mut agreed = Start::new(1).agreed();
    let sent = agreed.sent.clone();
    let (header, payloads) = agreed.open(&sent[0]);
    assert_eq!((header.exchange, header.message_id), (ExchangeType::IkeAuth, 1));
    assert!(header.flags.initiator && !header.flags.response);
    let cp = place(&payloads, |payload| matches!(payload, Payload::Cp(_)));
    let sa = place(&payloads, |payload| matches!(payload, Payload::Sa(_)));
    assert!(cp < sa);
    assert!(matches!(payloads[0], Payload::IdI(_)));
    assert!(place(&payloads, |payload| matches!(payload, Payload::Auth(_))) < cp);
    assert!(matches!(payloads[sa + 1], Payload::TsI(_)) && matches!(payloads[sa + 2], Payload::TsR(_)));
    let Payload::Cp(request) = &payloads[cp] else { unreachable!() };
    assert_eq!(request.ty, ConfigType::Request);
    assert!(request.attributes.contains(&Attribute::InternalIp4Address(None)));
    let Payload::Sa(offer) = &payloads[sa] else { unreachable!() };
    for proposal in &offer.proposals {
        assert_eq!(proposal.of_type(TransformType::Group).count(), 0, "no key exchange in IKE_AUTH");
    }
    assert!(!payloads.iter().any(|payload| matches!(payload, Payload::Ke(_) | Payload::Nonce(_))));
    let mobike = find_notify(&payloads, NotifyType::MobikeSupported).unwrap();
    assert_eq!((mobike.protocol, mobike.spi.len(), mobike.data.len()), (0, 0, 0));
    assert!(find_notify(&payloads, NotifyType::InitialContact).is_some(), "in the first request");
}

#[test]
fn attributes_that_are_not_known_are_passed_over_and_the_next_request_counts_on() {
    let mut agreed = Start::new(1).agreed();
    let sent = agreed.sent.clone();
    let (_, request) = agreed.open(&sent[0]);
    let mut grant = agreed.grant(&request, SECRET);
    let mut supported = Notify::status(NotifyType::MobikeSupported);
    supported.data = b"of a later version".to_vec();
    grant.push(Payload::Notify(supported));
    let established = agreed.answer(&grant).unwrap();
    assert_eq!(established.inner.addresses, [([10, 0, 0, 2].into(), 32)]);
    assert!(established.sa.features().mobike);
    let mut sa = established.sa;
    sa.check_liveness(agreed.start.now, &mut agreed.start.rng);
    let check = sa.poll_transmit().unwrap();
    assert_eq!(agreed.open(&check.message).0.message_id, 2);
}

#[test]
fn a_gateway_that_does_not_hold_the_shared_key_is_refused_and_told() {
    let mut agreed = Start::new(1).agreed();
    let sent = agreed.sent.clone();
    let (_, request) = agreed.open(&sent[0]);
    let grant = agreed.grant(&request, b"another");
    let outcome = agreed.answer(&grant);
    assert!(matches!(outcome, Err(HandshakeError::PskMismatch)), "{:?}", outcome.err());
    let goodbye = agreed.start.sent();
    let (header, payloads) = agreed.open(&goodbye[0]);
    assert_eq!((header.exchange, header.message_id), (ExchangeType::Informational, 2));
    assert_eq!(payloads, [Payload::Delete(crate::wire::Delete::ike())]);
}

#[test]
fn a_refused_child_is_told_apart_from_a_failed_authentication() {
    let mut agreed = Start::new(1).agreed();
    let sent = agreed.sent.clone();
    let (_, request) = agreed.open(&sent[0]);
    let mut grant = agreed.grant(&request, SECRET);
    grant.truncate(2);
    grant.push(Payload::Notify(Notify::status(NotifyType::TsUnacceptable)));
    let outcome = agreed.answer(&grant).err();
    assert_eq!(outcome, Some(HandshakeError::ChildRefused(NotifyType::TsUnacceptable)));
}

#[test]
fn each_key_length_is_offered_as_a_transform_of_its_own() {
    let offer = crate::proposal::ike_offer(
        &parse_ike_list(&["aes128gcm16-aes256gcm16-prfsha256-x25519,chacha20poly1305-prfsha256-x25519"])
            .unwrap(),
    );
    let ciphers = |at: usize| -> Vec<_> {
        offer[at].of_type(TransformType::Encr).map(|encr| (encr.id, encr.key_length)).collect()
    };
    assert_eq!(ciphers(0), [(20, Some(128)), (20, Some(256))]);
    assert_eq!(ciphers(1), [(28, None)], "a key of fixed length has no attribute");
    assert!(offer.iter().all(|proposal| proposal.of_type(TransformType::Integ).next().is_none()));
    let esp = esp_offer(&policy(Role::Initiator, "aes256gcm16").proposals, 7, false);
    assert!(esp.iter().all(|proposal| proposal.of_type(TransformType::Integ).next().is_none()));
}

#[test]
fn the_answer_to_ike_auth_that_somebody_sends_on_does_not_put_the_gateway_elsewhere() {
    let mut agreed = Start::new(19).agreed();
    let request = agreed.sent.remove(0);
    let (_, request) = agreed.open(&request);
    let payloads = agreed.grant(&request, SECRET);
    let elsewhere = Path { remote: ([203, 0, 113, 77], 4500).into(), ..start_path() };
    let established = agreed.answer_by(elsewhere, &payloads).unwrap();
    assert_eq!(established.sa.path(), start_path().with_remote_port(4500));
}
