//! KEEP_OLD_IKE_SA in octets: requests and answers written out by hand from the draft and RFC 7296 section 3, so that what
//! is sent and what is understood cannot be wrong together; and everything that a peer can get wrong in it.

use super::*;
use crate::crypto::SkCipher;
use crate::exchange::sa::CloseReason;
use crate::wire::encrypted::{EncryptedKind, emit_prefix};
use crate::wire::{Message, NotifyType, SwitchNotice, emit_payloads};

/// Figure 7 of the draft for 50213 (C425), with the next payload in the first octet: Q set, code 0.
const ASKS: &str = "0000000c 0000c425 80000000";
/// The same with Q clear.
const KEPT: &str = "0000000c 0000c425 00000000";
/// Q clear, code 1.
const NOT_KEPT: &str = "0000000c 0000c425 00010000";
/// Q set, code 1.
const ASKS_NOT_TO: &str = "0000000c 0000c425 80010000";

const NOTIFY: u8 = 41;
const SA: u8 = 33;
const KE: u8 = 34;
const NONCE: u8 = 40;

/// One payload without its first octet: the type, and the octets from the critical bit on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Raw(u8, Vec<u8>);

fn raw(ty: u8, text: &str) -> Raw {
    let octets = hex::decode(text.replace([' ', '\n'], "")).unwrap();
    assert_eq!(usize::from(u16::from_be_bytes([octets[2], octets[3]])), octets.len(), "the length of {text}");
    Raw(ty, octets[1..].to_vec())
}

/// SA: one proposal of an IKE_SA with an SPI of eight octets, AES-GCM-16 with 256 bits, PRF HMAC-SHA2-256, Curve25519.
fn sa(spi: &str) -> Raw {
    raw(
        SA,
        &format!(
            "00000030 0000002c 01010803 {spi} 0300000c 01000014 800e0100 03000008 02000005 00000008 0400001f"
        ),
    )
}

fn nonce(octet: &str) -> Raw {
    raw(NONCE, &format!("00000024 {}", octet.repeat(32)))
}

/// KE: group 31, and the base point, which is a public value.
fn ke() -> Raw {
    raw(KE, &format!("00000028 001f0000 09{}", "00".repeat(31)))
}

/// SA, Ni, KEi with these before.
fn rekey_with(before: &[Raw]) -> Vec<Raw> {
    [before, &[sa("00000000deadbeef"), nonce("5a"), ke()]].concat()
}

fn joined(payloads: &[Raw]) -> (u8, Vec<u8>) {
    let next = payloads.iter().skip(1).map(|raw| raw.0).chain([0]);
    let octets = payloads.iter().zip(next).flat_map(|(raw, next)| std::iter::once(next).chain(raw.1.clone()));
    (payloads.first().map_or(0, |raw| raw.0), octets.collect())
}

fn split(first: u8, mut octets: &[u8]) -> Vec<Raw> {
    let (mut ty, mut found) = (first, Vec::new());
    while !octets.is_empty() {
        let length = usize::from(u16::from_be_bytes([octets[2], octets[3]]));
        found.push(Raw(ty, octets[1..length].to_vec()));
        (ty, octets) = (octets[0], &octets[length..]);
    }
    assert_eq!(ty, 0);
    found
}

/// A message from this end with exactly these octets in its Encrypted payload.
fn sealed(
    pair: &mut Pair,
    from: Role,
    exchange: ExchangeType,
    message_id: u32,
    response: bool,
    (first, octets): (u8, Vec<u8>),
) -> Vec<u8> {
    let header = Header {
        spi_i: SPIS.initiator,
        spi_r: SPIS.responder,
        next_payload: 0,
        exchange,
        flags: Flags { initiator: from == Role::Initiator, response, version: false },
        message_id,
    };
    let (keys, suite) = (keys(), IkeCipher::Aes256Gcm16);
    let (encr, integ) = match from {
        Role::Initiator => (&keys.sk_ei, &keys.sk_ai),
        Role::Responder => (&keys.sk_er, &keys.sk_ar),
    };
    let mut cipher = SkCipher::new(suite, encr, integ).unwrap();
    let prefix = emit_prefix(&header, EncryptedKind::Sk, first, suite.sealed_len(octets.len()));
    cipher.seal_message(&mut pair.rng, prefix, &octets).unwrap()
}

/// What this end sent, as one would write it down.
fn opened(sent: &[u8], by: Role) -> (Header, Vec<Raw>) {
    let reader = if by == Role::Initiator { Role::Responder } else { Role::Initiator };
    let mut protection = Protection::new(IkeCipher::Aes256Gcm16, &keys(), reader).unwrap();
    let parsed = Message::parse(sent).unwrap();
    let content =
        protection.open(Instant::ZERO, sent, &parsed.header, &parsed.encrypted.unwrap()).unwrap().unwrap();
    let (first, octets) = content.octets();
    (parsed.header, split(first, octets))
}

/// A request of the gateway to the client, and what the client answers.
fn answer_to(pair: &mut Pair, exchange: ExchangeType, payloads: &[Raw]) -> Vec<Raw> {
    let request = sealed(pair, Role::Responder, exchange, 0, false, joined(payloads));
    pair.deliver(Role::Initiator, &request).unwrap();
    let (header, answer) = opened(&pair.sent_by(Role::Initiator).remove(0), Role::Initiator);
    assert!(header.flags.response && header.exchange == exchange);
    answer
}

fn types(payloads: &[Raw]) -> Vec<u8> {
    payloads.iter().map(|raw| raw.0).collect()
}

fn kept(pair: &mut Pair) -> usize {
    let events = pair.events(Role::Initiator);
    events.iter().filter(|event| matches!(event, SaEvent::Kept(_))).count()
}

/// Section 4 and B.2 of the draft: HDR, SK { N(KEEP_OLD_IKE_SA), SA, Ni, KEi }.
#[test]
fn the_request_stands_in_create_child_sa_with_the_notify_before_the_sa_payload() {
    let mut pair = Pair::new();
    let now = pair.now;
    assert!(pair.client.add_ike_sa(now, &mut pair.rng));
    let (header, payloads) = opened(&pair.sent_by(Role::Initiator).remove(0), Role::Initiator);
    assert_eq!(header.exchange, ExchangeType::CreateChildSa);
    assert_eq!((header.spi_i, header.spi_r), (SPIS.initiator, SPIS.responder));
    assert_eq!(types(&payloads), [NOTIFY, SA, NONCE, KE]);
    assert_eq!(payloads[0], raw(NOTIFY, ASKS));
    let spi = hex::encode(&payloads[1].1[11..19]);
    assert_eq!(payloads[1], sa(&spi), "the SA payload of an IKE_SA with a new SPI");
}

#[test]
fn a_request_is_answered_with_the_notify_before_the_sa_payload_and_q_clear() {
    let mut pair = Pair::new();
    let answer = answer_to(&mut pair, ExchangeType::CreateChildSa, &rekey_with(&[raw(NOTIFY, ASKS)]));
    assert_eq!(types(&answer), [NOTIFY, SA, NONCE, KE]);
    assert_eq!(answer[0], raw(NOTIFY, KEPT));
    assert_eq!(pair.client.children().len(), 1);
    let events = pair.events(Role::Initiator);
    let [SaEvent::Kept(new)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(new.sa.spis().initiator, 0xdead_beef, "the gateway began this one");
    assert_eq!(new.sa.own_spi(), new.sa.spis().responder);
}

#[test]
fn the_notify_is_known_wherever_it_stands() {
    let mut pair = Pair::new();
    let mut request = rekey_with(&[]);
    request.push(raw(NOTIFY, ASKS));
    let answer = answer_to(&mut pair, ExchangeType::CreateChildSa, &request);
    assert_eq!(answer[0], raw(NOTIFY, KEPT));
    assert_eq!(kept(&mut pair), 1);
}

#[test]
fn code_1_asks_for_an_ordinary_rekey_and_is_told_that_the_old_one_is_not_kept() {
    let mut pair = Pair::new();
    let answer = answer_to(&mut pair, ExchangeType::CreateChildSa, &rekey_with(&[raw(NOTIFY, ASKS_NOT_TO)]));
    assert_eq!(answer[0], raw(NOTIFY, NOT_KEPT));
    assert!(matches!(pair.events(Role::Initiator).as_slice(), [SaEvent::Rekeyed(_)]));
    assert!(pair.client.children().is_empty(), "the new one has the CHILD_SA");
}

/// Codes 2 to 255 are unassigned: nothing says that the old one is to be kept.
#[test]
fn an_unknown_code_is_an_ordinary_rekey() {
    for code in ["02", "7f", "ff"] {
        let mut pair = Pair::new();
        let asks = raw(NOTIFY, &format!("0000000c 0000c425 80{code}0000"));
        let answer = answer_to(&mut pair, ExchangeType::CreateChildSa, &rekey_with(&[asks]));
        assert_eq!(answer[0], raw(NOTIFY, NOT_KEPT));
        assert!(matches!(pair.events(Role::Initiator).as_slice(), [SaEvent::Rekeyed(_)]));
    }
}

#[test]
fn reserved_bits_of_the_notify_are_ignored() {
    let mut pair = Pair::new();
    let asks = raw(NOTIFY, "007f000c 0000c425 ff00ffff");
    let answer = answer_to(&mut pair, ExchangeType::CreateChildSa, &rekey_with(&[asks]));
    assert_eq!(answer[0], raw(NOTIFY, KEPT));
    assert_eq!(kept(&mut pair), 1);
}

#[test]
fn a_request_with_a_notify_that_is_not_in_order_is_an_ordinary_rekey() {
    let wrong = [
        ("Q clear", "0000000c 0000c425 00000000"),
        ("no data", "00000008 0000c425"),
        ("three octets", "0000000b 0000c425 800000"),
        ("five octets", "0000000d 0000c425 8000000000"),
        ("an SPI", "00000010 0304c425 00001234 80000000"),
        ("a protocol", "0000000c 0100c425 80000000"),
        ("another number", "0000000c 0000c427 80000000"),
    ];
    for (what, notify) in wrong {
        let mut pair = Pair::new();
        let answer = answer_to(&mut pair, ExchangeType::CreateChildSa, &rekey_with(&[raw(NOTIFY, notify)]));
        assert_eq!(types(&answer), [SA, NONCE, KE], "{what}");
        assert!(matches!(pair.events(Role::Initiator).as_slice(), [SaEvent::Rekeyed(_)]), "{what}");
    }
}

/// Section 4: it MUST be ignored if the CREATE_CHILD_SA request does not concern a rekey of the IKE_SA.
#[test]
fn in_an_exchange_about_a_child_the_notify_is_ignored() {
    let mut pair = Pair::new();
    let now = pair.now;
    pair.gateway.create_child_alike(now, &mut pair.rng);
    let (header, mut payloads) = opened(&pair.sent_by(Role::Responder).remove(0), Role::Responder);
    payloads.insert(0, raw(NOTIFY, ASKS));
    let request =
        sealed(&mut pair, Role::Responder, header.exchange, header.message_id, false, joined(&payloads));
    pair.deliver(Role::Initiator, &request).unwrap();
    let (_, answer) = opened(&pair.sent_by(Role::Initiator).remove(0), Role::Initiator);
    assert!(!types(&answer).contains(&NOTIFY));
    assert_eq!(pair.client.children().len(), 2);
    assert_eq!(kept(&mut pair), 0);
}

#[test]
fn in_an_informational_exchange_the_notify_is_ignored() {
    let mut pair = Pair::new();
    let answer = answer_to(&mut pair, ExchangeType::Informational, &[raw(NOTIFY, ASKS)]);
    assert_eq!(answer, []);
    assert!(pair.events(Role::Initiator).is_empty());
    assert_eq!(pair.client.features().keep_old, None);
    // With everything of a rekey, too.
    let mut pair = Pair::new();
    let answer = answer_to(&mut pair, ExchangeType::Informational, &rekey_with(&[raw(NOTIFY, ASKS)]));
    assert_eq!(answer, []);
    assert!(pair.events(Role::Initiator).is_empty());
}

/// The client asks, and the gateway's answer is written by hand.
fn answered_with(before: &[Raw]) -> (Pair, Vec<SaEvent>) {
    let mut pair = Pair::new();
    let now = pair.now;
    assert!(pair.client.add_ike_sa(now, &mut pair.rng));
    let (header, _) = opened(&pair.sent_by(Role::Initiator).remove(0), Role::Initiator);
    let answer = rekey_with(before);
    let answer =
        sealed(&mut pair, Role::Responder, header.exchange, header.message_id, true, joined(&answer));
    pair.deliver(Role::Initiator, &answer).unwrap();
    let events = pair.events(Role::Initiator);
    (pair, events)
}

#[test]
fn only_an_answer_with_the_notify_in_order_keeps_the_old_one() {
    let (pair, events) = answered_with(&[raw(NOTIFY, KEPT)]);
    assert!(matches!(events.as_slice(), [SaEvent::Kept(_)]), "{events:?}");
    assert_eq!(pair.client.children().len(), 1);
    assert_eq!(pair.client.features().keep_old, Some(true));
    let wrong = [
        ("no notify", None),
        ("code 1", Some(NOT_KEPT)),
        ("Q set", Some(ASKS)),
        ("an unknown code", Some("0000000c 0000c425 00020000")),
        ("no data", Some("00000008 0000c425")),
        ("five octets", Some("0000000d 0000c425 0000000000")),
        ("another number", Some("0000000c 0000c427 00000000")),
    ];
    for (what, notify) in wrong {
        let before: Vec<Raw> = notify.map(|notify| raw(NOTIFY, notify)).into_iter().collect();
        let (mut pair, events) = answered_with(&before);
        let [SaEvent::Rekeyed(new)] = events.as_slice() else { panic!("{what}: {events:?}") };
        assert_eq!(new.sa.children().len(), 1, "{what}");
        assert_eq!(new.sa.features().keep_old, Some(false), "{what}");
        // An ordinary rekey ends with the deletion of the old one by who began it (RFC 7296 section 2.8).
        let (header, delete) = opened(&pair.sent_by(Role::Initiator).remove(0), Role::Initiator);
        assert_eq!(header.exchange, ExchangeType::Informational, "{what}");
        assert_eq!(delete, [raw(42, "00000008 01000000")], "{what}");
    }
}

#[test]
fn every_refusal_leaves_the_old_one_as_it_was() {
    for (number, notify) in [
        ("0023", NotifyType::NoAdditionalSas),
        ("002b", NotifyType::TemporaryFailure),
        ("000e", NotifyType::NoProposalChosen),
    ] {
        let mut pair = Pair::new();
        let now = pair.now;
        assert!(pair.client.add_ike_sa(now, &mut pair.rng));
        let (header, _) = opened(&pair.sent_by(Role::Initiator).remove(0), Role::Initiator);
        let refusal = joined(&[raw(NOTIFY, &format!("00000008 0000{number}"))]);
        let answer = sealed(&mut pair, Role::Responder, header.exchange, header.message_id, true, refusal);
        pair.deliver(Role::Initiator, &answer).unwrap();
        let events = pair.events(Role::Initiator);
        assert!(matches!(events.as_slice(), [SaEvent::KeepRefused(found)] if *found == notify), "{events:?}");
        assert!(pair.sent_by(Role::Initiator).is_empty(), "nothing is deleted");
        assert_eq!((pair.client.children().len(), pair.client.is_closed()), (1, false));
        pair.settle();
        assert!(pair.client.add_ike_sa(now, &mut pair.rng), "it may be asked again");
    }
}

/// A gateway wants another group: the request is sent again with the notify in it.
#[test]
fn a_request_repeated_with_another_group_still_asks() {
    let mut pair = Pair::new();
    pair.client.renewal.ike_proposals = vec!["aes256gcm16-prfsha256-ecp256-x25519".parse().unwrap()];
    pair.client.suite.group = 19;
    let now = pair.now;
    assert!(pair.client.add_ike_sa(now, &mut pair.rng));
    pair.settle();
    let events = pair.events(Role::Initiator);
    let [SaEvent::Kept(new)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(new.sa.suite().group, 31);
}

/// An authenticated answer that cannot be used is not an IKE_SA; nothing is known of what the peer holds.
#[test]
fn an_answer_that_cannot_be_used_makes_no_ike_sa() {
    let mut pair = Pair::new();
    let now = pair.now;
    assert!(pair.client.add_ike_sa(now, &mut pair.rng));
    let (header, _) = opened(&pair.sent_by(Role::Initiator).remove(0), Role::Initiator);
    let answer = joined(&[raw(NOTIFY, KEPT), sa("00000000deadbeef"), nonce("5a")]);
    let answer = sealed(&mut pair, Role::Responder, header.exchange, header.message_id, true, answer);
    pair.deliver(Role::Initiator, &answer).unwrap_err();
    let events = pair.events(Role::Initiator);
    assert!(matches!(events.as_slice(), [SaEvent::KeepRefused(_)]), "{events:?}");
    assert_eq!(pair.client.children().len(), 1);
}

/// docs/switch-notify.md: counter, M and D, a reserved octet, weight; the number after that of KEEP_OLD_IKE_SA (C426).
#[test]
fn the_switch_notify_and_its_answer_are_as_documented() {
    let mut pair = Pair::new();
    for end in [&mut pair.client, &mut pair.gateway] {
        end.features.keep_old = Some(true);
    }
    let (now, notice) =
        (pair.now, SwitchNotice { counter: 0x0102_0304, main: true, copies: false, weight: 5 });
    pair.client.announce_switch(now, notice, &mut pair.rng);
    let request = pair.sent_by(Role::Initiator).remove(0);
    let expected = raw(NOTIFY, "00000010 0000c426 01020304 80000005");
    let (header, payloads) = opened(&request, Role::Initiator);
    assert_eq!((header.exchange, payloads), (ExchangeType::Informational, vec![expected.clone()]));
    pair.deliver(Role::Responder, &request).unwrap();
    let answer = pair.sent_by(Role::Responder).remove(0);
    assert_eq!(opened(&answer, Role::Responder).1, [expected]);
    let events = pair.events(Role::Responder);
    assert!(matches!(events.as_slice(), [SaEvent::SwitchAsked(asked)] if *asked == notice), "{events:?}");
}

#[test]
fn a_switch_notify_that_is_not_in_order_or_in_place_is_ignored() {
    let wrong = [
        (ExchangeType::Informational, "0000000c 0000c426 00000001"),
        (ExchangeType::Informational, "00000011 0000c426 00000001 8000000000"),
        (ExchangeType::Informational, "00000014 0304c426 00001234 00000001 80000000"),
        (ExchangeType::Informational, "00000010 0000c425 00000001 80000000"),
        (ExchangeType::CreateChildSa, "00000010 0000c426 00000001 80000000"),
    ];
    for (exchange, notify) in wrong {
        let mut pair = Pair::new();
        pair.gateway.features.keep_old = Some(true);
        let mut payloads = vec![raw(NOTIFY, notify)];
        if exchange == ExchangeType::CreateChildSa {
            payloads = rekey_with(&[raw(NOTIFY, ASKS), raw(NOTIFY, notify)]);
        }
        let request = sealed(&mut pair, Role::Initiator, exchange, 2, false, joined(&payloads));
        pair.deliver(Role::Responder, &request).unwrap();
        let events = pair.events(Role::Responder);
        assert!(!events.iter().any(|event| matches!(event, SaEvent::SwitchAsked(_))), "{notify}");
    }
}

#[test]
fn a_repeated_request_makes_no_second_ike_sa() {
    let mut pair = Pair::new();
    let request = rekey_with(&[raw(NOTIFY, ASKS)]);
    let request = sealed(&mut pair, Role::Responder, ExchangeType::CreateChildSa, 0, false, joined(&request));
    pair.deliver(Role::Initiator, &request).unwrap();
    let first = pair.sent_by(Role::Initiator);
    pair.deliver(Role::Initiator, &request).unwrap();
    assert_eq!(pair.sent_by(Role::Initiator), first);
    assert_eq!(kept(&mut pair), 1);
}

#[test]
fn a_closed_ike_sa_answers_no_request_to_be_kept() {
    let mut pair = Pair::new();
    let delete = sealed(
        &mut pair,
        Role::Responder,
        ExchangeType::Informational,
        0,
        false,
        joined(&[raw(42, "00000008 01000000")]),
    );
    pair.deliver(Role::Initiator, &delete).unwrap();
    pair.sent_by(Role::Initiator);
    let request = rekey_with(&[raw(NOTIFY, ASKS)]);
    let request = sealed(&mut pair, Role::Responder, ExchangeType::CreateChildSa, 1, false, joined(&request));
    pair.deliver(Role::Initiator, &request).unwrap();
    assert!(pair.sent_by(Role::Initiator).is_empty());
    let events = pair.events(Role::Initiator);
    assert!(!events.iter().any(|event| matches!(event, SaEvent::Kept(_))));
    assert!(matches!(events.last(), Some(SaEvent::Closed(CloseReason::DeletedByPeer))));
}

#[test]
fn the_hand_written_octets_are_a_rekey_as_we_read_it() {
    let (first, octets) = joined(&rekey_with(&[raw(NOTIFY, ASKS)]));
    let payloads = crate::wire::parse_payloads(first, &octets).unwrap();
    assert_eq!(emit_payloads(&payloads), (first, octets));
}
