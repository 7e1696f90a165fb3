//! Rules for an established IKE_SA that the tables of `docs/conformance/` name.

use super::*;
use crate::exchange::create_child_sa::PendingChild;
use crate::exchange::sa::CloseReason;
use crate::wire::{
    Attribute, ConfigType, Configuration, Delete, Message, Nonce, Notify, NotifyType, SecurityAssociation,
    UnknownPayload, emit_message, find_notify,
};

/// What the client sent, opened with the gateway's keys.
fn read(pair: &mut Pair, datagram: &[u8]) -> (Header, Vec<Payload>) {
    let parsed = Message::parse(datagram).unwrap();
    let opened =
        pair.forger.open(pair.now, datagram, &parsed.header, &parsed.encrypted.unwrap()).unwrap().unwrap();
    (parsed.header, opened.payloads().unwrap().to_vec())
}

/// The one answer of the client to a request of its gateway.
fn answered(pair: &mut Pair, message_id: u32, request: &[Payload]) -> (Header, Vec<Payload>) {
    let datagram = pair.forged(ExchangeType::Informational, message_id, false, request);
    pair.deliver(Role::Initiator, &datagram).unwrap();
    let sent = pair.sent_by(Role::Initiator);
    assert_eq!(sent.len(), 1);
    read(pair, &sent[0])
}

fn wish(pair: &mut Pair, esp: &str) {
    let pending = PendingChild::new(&policy(Role::Initiator, esp), &mut pair.rng);
    pair.client.create_child(pair.now, pending, &mut pair.rng);
}

#[test]
fn one_request_is_under_way_at_a_time() {
    let mut pair = Pair::new();
    let spi = pair.client.children()[0].spi_in;
    pair.client.check_liveness(pair.now, &mut pair.rng);
    pair.client.delete_child(pair.now, spi, &mut pair.rng);
    let first = pair.sent_by(Role::Initiator);
    assert_eq!(first.len(), 1);
    pair.deliver(Role::Responder, &first[0]).unwrap();
    assert!(pair.sent_by(Role::Initiator).is_empty(), "the answer has not come yet");
    let answer = pair.sent_by(Role::Responder).remove(0);
    pair.deliver(Role::Initiator, &answer).unwrap();
    let second = pair.sent_by(Role::Initiator);
    assert_eq!(second.len(), 1);
    let ids = [&first[0], &second[0]].map(|datagram| Message::parse(datagram).unwrap().header.message_id);
    assert_eq!(ids, [2, 3]);
}

#[test]
fn a_repeated_request_of_ours_is_the_same_octets() {
    let mut pair = Pair::new();
    pair.client.check_liveness(pair.now, &mut pair.rng);
    let first = pair.sent_by(Role::Initiator);
    for _ in 0..3 {
        pair.now = pair.client.poll_timeout().unwrap();
        pair.client.handle_timeout(pair.now, &mut pair.rng);
        assert_eq!(pair.sent_by(Role::Initiator), first);
    }
}

#[test]
fn an_empty_request_gets_an_empty_answer_with_its_message_id() {
    let mut pair = Pair::new();
    let (header, payloads) = answered(&mut pair, 0, &[]);
    assert_eq!((header.exchange, header.message_id), (ExchangeType::Informational, 0));
    assert!(header.flags.initiator && header.flags.response && !header.flags.version);
    assert!(payloads.is_empty());
}

#[test]
fn the_flags_of_a_message_tell_its_sender() {
    let mut pair = Pair::new();
    pair.client.check_liveness(pair.now, &mut pair.rng);
    pair.gateway.check_liveness(pair.now, &mut pair.rng);
    let flags = |datagram: &[u8]| Message::parse(datagram).unwrap().header.flags;
    let (ours, theirs) = (pair.sent_by(Role::Initiator).remove(0), pair.sent_by(Role::Responder).remove(0));
    assert_eq!(flags(&ours), Flags { initiator: true, response: false, version: false });
    assert_eq!(flags(&theirs), Flags { initiator: false, response: false, version: false });
    pair.deliver(Role::Responder, &ours).unwrap();
    pair.deliver(Role::Initiator, &theirs).unwrap();
    let (ours, theirs) = (pair.sent_by(Role::Initiator).remove(0), pair.sent_by(Role::Responder).remove(0));
    assert_eq!(flags(&ours), Flags { initiator: true, response: true, version: false });
    assert_eq!(flags(&theirs), Flags { initiator: false, response: true, version: false });
}

#[test]
fn the_version_flag_of_a_peer_is_ignored() {
    let mut pair = Pair::new();
    let header = Header {
        spi_i: SPIS.initiator,
        spi_r: SPIS.responder,
        next_payload: 0,
        exchange: ExchangeType::Informational,
        flags: Flags { initiator: false, response: false, version: true },
        message_id: 0,
    };
    let sealed = pair.forger.seal(header, &[], false, path(Role::Responder), &mut pair.rng).unwrap();
    assert_eq!(pair.deliver(Role::Initiator, &sealed[0]), Ok(()));
    assert_eq!(pair.sent_by(Role::Initiator).len(), 1);
}

#[test]
fn what_a_request_says_besides_is_ignored_when_it_is_not_known() {
    let mut pair = Pair::new();
    let attributes = vec![Attribute::InternalIp4Address(Some([10, 9, 9, 9].into()))];
    let version = Attribute::ApplicationVersion(String::new());
    let unknown = UnknownPayload { payload_type: 99, critical: false, body: vec![1] };
    let request = [
        Payload::Notify(Notify::status(NotifyType::Other(8_000))),
        Payload::Notify(Notify::status(NotifyType::Other(50_000))),
        Payload::Notify(Notify::new(NotifyType::InvalidSpi, vec![0; 4])),
        Payload::Cp(Configuration { ty: ConfigType::Set, attributes }),
        Payload::Cp(Configuration { ty: ConfigType::Request, attributes: vec![version] }),
        Payload::Unknown(unknown),
    ];
    let (_, payloads) = answered(&mut pair, 0, &request);
    assert!(payloads.is_empty(), "{payloads:?}");
    assert!(!pair.client.is_closed());
    assert_eq!(pair.client.children().len(), 1);
    assert!(pair.events(Role::Initiator).is_empty());
}

#[test]
fn an_unknown_error_in_an_answer_is_a_refusal() {
    let mut pair = Pair::new();
    wish(&mut pair, "aes256gcm16");
    pair.sent_by(Role::Initiator);
    let notify = Payload::Notify(Notify::status(NotifyType::Other(8_000)));
    let datagram = pair.forged(ExchangeType::CreateChildSa, 2, true, &[notify]);
    pair.deliver(Role::Initiator, &datagram).unwrap();
    let events = pair.events(Role::Initiator);
    assert!(matches!(events.as_slice(), [SaEvent::ChildRefused(NotifyType::Other(8_000))]), "{events:?}");
    assert_eq!(pair.client.children().len(), 1);
}

#[test]
fn nothing_is_said_to_a_response_that_nobody_waits_for_or_to_a_request_outside_the_window() {
    let mut pair = Pair::new();
    let critical = UnknownPayload { payload_type: 200, critical: true, body: Vec::new() };
    for (message_id, response) in [(0, true), (2, true), (1, false), (9, false), (u32::MAX, false)] {
        for payloads in [vec![], vec![Payload::Unknown(critical.clone())]] {
            let datagram = pair.forged(ExchangeType::Informational, message_id, response, &payloads);
            assert!(pair.deliver(Role::Initiator, &datagram).is_err());
            assert!(pair.sent_by(Role::Initiator).is_empty(), "{message_id} {response}");
        }
    }
    assert!(!pair.client.is_closed());
}

#[test]
fn an_answer_that_cannot_be_read_is_not_answered() {
    let mut pair = Pair::new();
    pair.client.check_liveness(pair.now, &mut pair.rng);
    pair.sent_by(Role::Initiator);
    let critical = UnknownPayload { payload_type: 200, critical: true, body: Vec::new() };
    let datagram = pair.forged(ExchangeType::Informational, 2, true, &[Payload::Unknown(critical)]);
    assert!(pair.deliver(Role::Initiator, &datagram).is_err());
    assert!(pair.sent_by(Role::Initiator).is_empty());
    let closed = pair.events(Role::Initiator);
    assert!(matches!(closed.last(), Some(SaEvent::Closed(CloseReason::Fatal(_)))), "{closed:?}");
}

#[test]
fn a_notify_in_the_clear_gets_no_answer_and_changes_nothing() {
    for ty in [NotifyType::InvalidSpi, NotifyType::InvalidIkeSpi, NotifyType::InvalidMessageId] {
        for (spis, response) in [(SPIS, true), (SPIS, false), (IkeSpis { initiator: 0, responder: 0 }, false)]
        {
            let mut pair = Pair::new();
            let header = Header {
                spi_i: spis.initiator,
                spi_r: spis.responder,
                next_payload: 0,
                exchange: ExchangeType::Informational,
                flags: Flags { initiator: false, response, version: false },
                message_id: 0,
            };
            let datagram = emit_message(&header, &[Payload::Notify(Notify::new(ty, vec![0; 4]))]);
            assert!(pair.deliver(Role::Initiator, &datagram).is_err());
            assert!(pair.sent_by(Role::Initiator).is_empty());
            assert!(!pair.client.is_closed() && pair.client.children().len() == 1);
        }
    }
}

#[test]
fn many_hints_make_one_liveness_check() {
    let mut pair = Pair::new();
    for _ in 0..100 {
        pair.client.check_liveness(pair.now, &mut pair.rng);
    }
    let sent = pair.sent_by(Role::Initiator);
    assert_eq!(sent.len(), 1);
    pair.deliver(Role::Responder, &sent[0]).unwrap();
    let answer = pair.sent_by(Role::Responder).remove(0);
    pair.deliver(Role::Initiator, &answer).unwrap();
    assert!(pair.sent_by(Role::Initiator).is_empty(), "no further one waited for its turn");
}

#[test]
fn crossing_deletes_are_answered_without_a_delete() {
    let mut pair = Pair::new();
    let (ours, theirs) = (pair.client.children()[0].spi_in, pair.client.children()[0].spi_out);
    pair.client.delete_child(pair.now, ours, &mut pair.rng);
    pair.sent_by(Role::Initiator);
    let (_, payloads) = answered(&mut pair, 0, &[Payload::Delete(Delete::esp(vec![theirs]))]);
    assert!(payloads.is_empty(), "{payloads:?}");
}

#[test]
fn a_delete_is_answered_with_the_other_half_of_the_pair() {
    let mut pair = Pair::new();
    let (ours, theirs) = (pair.client.children()[0].spi_in, pair.client.children()[0].spi_out);
    let unknown = theirs ^ 1;
    let (_, payloads) = answered(&mut pair, 0, &[Payload::Delete(Delete::esp(vec![unknown, theirs]))]);
    assert_eq!(payloads, [Payload::Delete(Delete::esp(vec![ours]))]);
    assert!(pair.client.children().is_empty());
    let (_, payloads) = answered(&mut pair, 1, &[Payload::Delete(Delete::esp(vec![theirs]))]);
    assert!(payloads.is_empty(), "it is gone already");
}

#[test]
fn a_rekey_of_a_child_that_is_not_there_is_told_so() {
    let mut pair = Pair::new();
    let ours = policy(Role::Responder, "aes256gcm16");
    let proposals = crate::proposal::esp_offer(&ours.proposals, 0x0102_0304, false);
    let request = [
        Payload::Notify(Notify::rekey_esp(0x0bad_0bad)),
        Payload::Sa(SecurityAssociation { proposals }),
        Payload::Nonce(Nonce { data: vec![7; 32] }),
        Payload::TsI(ours.ts_local),
        Payload::TsR(ours.ts_remote),
    ];
    let datagram = pair.forged(ExchangeType::CreateChildSa, 0, false, &request);
    pair.deliver(Role::Initiator, &datagram).unwrap();
    let sent = pair.sent_by(Role::Initiator);
    let (_, payloads) = read(&mut pair, &sent[0]);
    assert!(find_notify(&payloads, NotifyType::ChildSaNotFound).is_some(), "{payloads:?}");
    assert_eq!(pair.client.children().len(), 1);
}

#[test]
fn a_request_for_a_child_has_a_key_exchange_exactly_when_its_offer_names_a_group() {
    for (esp, group) in [("aes256gcm16", None), ("aes256gcm16-x25519-ecp256", Some(31))] {
        let mut pair = Pair::new();
        wish(&mut pair, esp);
        let sent = pair.sent_by(Role::Initiator);
        let (_, payloads) = read(&mut pair, &sent[0]);
        let ke = payloads.iter().find_map(|payload| match payload {
            Payload::Ke(ke) => Some(ke.group),
            _ => None,
        });
        assert_eq!(ke, group, "{esp}");
        let ours = find_notify(&payloads, NotifyType::RekeySa);
        assert!(ours.is_none(), "a further one replaces nothing");
    }
}

#[test]
fn the_protocol_of_a_notify_without_spi_is_ignored() {
    let mut pair = Pair::new();
    let mut notify = Notify::new(NotifyType::Cookie2, vec![3; 16]);
    notify.protocol = 3;
    let (_, payloads) = answered(&mut pair, 0, &[Payload::Notify(notify)]);
    assert_eq!(payloads, [Payload::Notify(Notify::new(NotifyType::Cookie2, vec![3; 16]))]);
}

#[test]
fn messages_of_3000_octets_pass_whole() {
    let mut pair = Pair::new();
    let header = Header {
        spi_i: SPIS.initiator,
        spi_r: SPIS.responder,
        next_payload: 0,
        exchange: ExchangeType::Informational,
        flags: Flags { initiator: false, response: false, version: false },
        message_id: 0,
    };
    let cookie = Payload::Notify(Notify::new(NotifyType::Cookie2, vec![9; 2900]));
    let sealed = pair.forger.seal(header, &[cookie], false, path(Role::Responder), &mut pair.rng).unwrap();
    assert_eq!(sealed.len(), 1);
    assert!((2950..3000).contains(&sealed[0].len()), "{}", sealed[0].len());
    pair.deliver(Role::Initiator, &sealed[0]).unwrap();
    assert!(!pair.sent_by(Role::Initiator).is_empty());
}

#[test]
fn initial_exchanges_inside_an_ike_sa_are_answered_with_invalid_syntax() {
    for exchange in [ExchangeType::IkeSaInit, ExchangeType::IkeAuth, ExchangeType::Other(99)] {
        let mut pair = Pair::new();
        let datagram = pair.forged(exchange, 0, false, &[]);
        assert!(pair.deliver(Role::Initiator, &datagram).is_err());
        let sent = pair.sent_by(Role::Initiator);
        let (header, payloads) = read(&mut pair, &sent[0]);
        assert_eq!((header.exchange, header.message_id), (exchange, 0));
        assert_eq!(payloads, [Payload::Notify(Notify::status(NotifyType::InvalidSyntax))]);
    }
}

#[test]
fn both_ends_may_close_the_ike_sa_at_once() {
    let mut pair = Pair::new();
    pair.client.close(pair.now, &mut pair.rng);
    pair.gateway.close(pair.now, &mut pair.rng);
    let (ours, theirs) = (pair.sent_by(Role::Initiator).remove(0), pair.sent_by(Role::Responder).remove(0));
    pair.deliver(Role::Initiator, &theirs).unwrap();
    pair.deliver(Role::Responder, &ours).unwrap();
    for role in [Role::Initiator, Role::Responder] {
        let answers = pair.sent_by(role);
        assert_eq!(answers.len(), 1);
        assert!(Message::parse(&answers[0]).unwrap().header.flags.response);
        assert!(pair.end(role).is_closed());
    }
}

#[test]
fn no_two_cookies_of_return_routability_are_the_same() {
    let mut cookies = Vec::new();
    for seed in [1, 2] {
        let mut pair = Pair::new();
        pair.rng = ChaCha20Rng::seed_from_u64(seed);
        let elsewhere = Path { local: ([192, 0, 2, 77], 40_000).into(), ..path(Role::Initiator) };
        pair.client.move_to(pair.now, elsewhere, &mut pair.rng);
        let sent = pair.sent_by(Role::Initiator);
        let (header, payloads) = read(&mut pair, &sent[0]);
        let cookie = find_notify(&payloads, NotifyType::Cookie2).unwrap().data.clone();
        assert!((8..=64).contains(&cookie.len()));
        cookies.push(cookie);
        // The next one on the same IKE_SA.
        let answer = [
            Payload::Notify(Notify::new(NotifyType::Cookie2, cookies.last().unwrap().clone())),
            Payload::Notify(Notify::new(NotifyType::NatDetectionSourceIp, vec![0; 20])),
            Payload::Notify(Notify::new(NotifyType::NatDetectionDestinationIp, vec![0; 20])),
        ];
        let datagram = pair.forged(ExchangeType::Informational, header.message_id, true, &answer);
        pair.client.handle_datagram(pair.now, elsewhere, &datagram, &mut pair.rng).unwrap();
        pair.client.move_to(pair.now, path(Role::Initiator), &mut pair.rng);
        let sent = pair.sent_by(Role::Initiator);
        let (_, payloads) = read(&mut pair, sent.last().unwrap());
        cookies.push(find_notify(&payloads, NotifyType::Cookie2).unwrap().data.clone());
    }
    cookies.sort();
    cookies.dedup();
    assert_eq!(cookies.len(), 4);
}

#[test]
fn with_group_none_chosen_the_key_of_the_request_is_ignored_and_none_returned() {
    let mut pair = Pair::new();
    let ours = policy(Role::Responder, "aes256gcm16");
    let mut proposals = crate::proposal::esp_offer(&ours.proposals, 0x0102_0304, false);
    for proposal in &mut proposals {
        let none = crate::wire::transform_id::GROUP_NONE;
        proposal.transforms.push(crate::wire::Transform::new(crate::wire::TransformType::Group, none));
    }
    let request = [
        Payload::Sa(SecurityAssociation { proposals }),
        Payload::Nonce(Nonce { data: vec![7; 32] }),
        Payload::Ke(crate::wire::KeyExchange { group: 31, data: vec![0; 32] }),
        Payload::TsI(ours.ts_local),
        Payload::TsR(ours.ts_remote),
    ];
    let datagram = pair.forged(ExchangeType::CreateChildSa, 0, false, &request);
    pair.deliver(Role::Initiator, &datagram).unwrap();
    let sent = pair.sent_by(Role::Initiator);
    let (_, payloads) = read(&mut pair, &sent[0]);
    assert!(payloads.iter().any(|payload| matches!(payload, Payload::Sa(_))), "{payloads:?}");
    assert!(!payloads.iter().any(|payload| matches!(payload, Payload::Ke(_))));
    assert_eq!(pair.client.children().len(), 2);
}
