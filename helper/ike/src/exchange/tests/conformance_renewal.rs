//! Rules for rekeying that the tables of `docs/conformance/` name: what the requests hold, who wins, and what is put off.

use super::*;
use crate::wire::{
    Delete, KeyExchange, Message, Nonce, Notify, NotifyType, Proposal, Protocol, SecurityAssociation,
    TransformType, find_notify, transform_id,
};

/// What the client sent, opened with the gateway's keys.
fn read(pair: &mut Pair, datagram: &[u8]) -> Vec<Payload> {
    let parsed = Message::parse(datagram).unwrap();
    let opened =
        pair.forger.open(pair.now, datagram, &parsed.header, &parsed.encrypted.unwrap()).unwrap().unwrap();
    opened.payloads().unwrap().to_vec()
}

/// The client's answer to a CREATE_CHILD_SA request of a gateway that is written by hand.
fn answered(pair: &mut Pair, message_id: u32, request: &[Payload]) -> Vec<Payload> {
    let datagram = pair.forged(ExchangeType::CreateChildSa, message_id, false, request);
    let _ = pair.deliver(Role::Initiator, &datagram);
    let sent = pair.sent_by(Role::Initiator);
    read(pair, sent.last().unwrap())
}

fn offered(payloads: &[Payload]) -> Vec<Proposal> {
    let sa = payloads.iter().find_map(|payload| match payload {
        Payload::Sa(sa) => Some(sa.proposals.clone()),
        _ => None,
    });
    sa.unwrap()
}

/// SA, nonce and selectors as a gateway writes them.
fn esp_payloads(spi: u32, nonce: u8) -> Vec<Payload> {
    let ours = policy(Role::Responder, "aes256gcm16-noesn");
    vec![
        Payload::Sa(SecurityAssociation {
            proposals: crate::proposal::esp_offer(&ours.proposals, spi, false),
        }),
        Payload::Nonce(Nonce { data: vec![nonce; 32] }),
        Payload::TsI(ours.ts_remote),
        Payload::TsR(ours.ts_local),
    ]
}

/// The SPIs of our own that the client's next requests delete, and those it closes when told to.
fn deletes(pair: &mut Pair) -> Vec<u32> {
    let sent = pair.sent_by(Role::Initiator);
    let payloads: Vec<Payload> = sent.iter().flat_map(|datagram| read(pair, datagram)).collect();
    let spis = payloads.iter().filter_map(|payload| match payload {
        Payload::Delete(delete) if delete.protocol == Protocol::Esp => Some(delete.spis.clone()),
        _ => None,
    });
    spis.flatten().collect()
}

#[test]
fn the_request_that_rekeys_a_child_names_it_and_asks_for_the_same() {
    let mut pair = Pair::new();
    let old = pair.client.children()[0].clone();
    pair.client.rekey_child(pair.now, old.spi_in, &mut pair.rng);
    let sent = pair.sent_by(Role::Initiator);
    let payloads = read(&mut pair, &sent[0]);
    let rekey = find_notify(&payloads, NotifyType::RekeySa).unwrap();
    assert_eq!((rekey.protocol, rekey.esp_spi()), (3, Some(old.spi_in)));
    assert!(payloads.contains(&Payload::TsI(old.ts_local)));
    assert!(payloads.contains(&Payload::TsR(old.ts_remote)));
    assert!(offered(&payloads).iter().all(|proposal| proposal.esp_spi() != Some(old.spi_in)));
}

#[test]
fn the_request_that_rekeys_the_ike_sa_has_a_key_exchange_and_a_new_spi() {
    let mut pair = Pair::new();
    pair.client.rekey_ike(pair.now, &mut pair.rng);
    let sent = pair.sent_by(Role::Initiator);
    let payloads = read(&mut pair, &sent[0]);
    assert!(payloads.iter().any(|payload| matches!(payload, Payload::Ke(_))));
    assert!(find_notify(&payloads, NotifyType::RekeySa).is_none());
    for proposal in offered(&payloads) {
        assert_eq!(proposal.protocol, Protocol::Ike);
        assert!(proposal.ike_spi().is_some_and(|spi| spi != SPIS.initiator));
        let mut groups = proposal.of_type(TransformType::Group).peekable();
        assert!(groups.peek().is_some(), "a group is always proposed");
        assert!(groups.all(|group| group.id != transform_id::GROUP_NONE));
    }
}

#[test]
fn a_rekey_of_the_ike_sa_without_a_group_is_refused() {
    let mut pair = Pair::new();
    pair.client.rekey_ike(pair.now, &mut pair.rng);
    let sent = pair.sent_by(Role::Initiator);
    let mut proposals = offered(&read(&mut pair, &sent[0]));
    for proposal in &mut proposals {
        for transform in &mut proposal.transforms {
            if transform.ty == TransformType::Group {
                transform.id = transform_id::GROUP_NONE;
            }
        }
    }
    let mut pair = Pair::new();
    let mut request = vec![
        Payload::Sa(SecurityAssociation { proposals: proposals.clone() }),
        Payload::Nonce(Nonce { data: vec![7; 32] }),
    ];
    let answer = answered(&mut pair, 0, &request);
    assert!(find_notify(&answer, NotifyType::NoProposalChosen).is_some(), "{answer:?}");
    proposals.iter_mut().for_each(|proposal| {
        proposal.transforms.retain(|transform| transform.ty != TransformType::Group);
    });
    request[0] = Payload::Sa(SecurityAssociation { proposals });
    let answer = answered(&mut pair, 1, &request);
    assert!(find_notify(&answer, NotifyType::NoProposalChosen).is_some(), "{answer:?}");
    assert!(pair.events(Role::Initiator).is_empty());
}

/// The client's IKE_SA after it rekeyed with its gateway, and what it sent on the old one after that.
fn succeeded(pair: &mut Pair) -> (IkeSa, Vec<Vec<u8>>) {
    let request = pair.sent_by(Role::Initiator).remove(0);
    pair.deliver(Role::Responder, &request).unwrap();
    let answer = pair.sent_by(Role::Responder).remove(0);
    pair.deliver(Role::Initiator, &answer).unwrap();
    let heir = pair.events(Role::Initiator).into_iter().find_map(|event| match event {
        SaEvent::Rekeyed(successor) => Some(successor.sa),
        _ => None,
    });
    (heir.unwrap(), pair.sent_by(Role::Initiator))
}

#[test]
fn a_new_ike_sa_counts_from_zero_and_the_last_request_on_the_old_one_deletes_it() {
    let mut pair = Pair::new();
    pair.client.rekey_ike(pair.now, &mut pair.rng);
    let (mut heir, last) = succeeded(&mut pair);
    assert_eq!(last.len(), 1);
    assert_eq!(read(&mut pair, &last[0]), [Payload::Delete(Delete::ike())]);
    pair.client.check_liveness(pair.now, &mut pair.rng);
    assert!(pair.sent_by(Role::Initiator).is_empty(), "nothing more on the old one");
    heir.check_liveness(pair.now, &mut pair.rng);
    let first = heir.poll_transmit().unwrap();
    assert_eq!(Message::parse(&first.message).unwrap().header.message_id, 0);
    assert_eq!(heir.children().len(), 1, "it has the CHILD_SA");
    assert!(pair.client.children().is_empty());
}

#[test]
fn a_child_is_not_asked_for_on_an_ike_sa_that_we_are_rekeying_but_on_the_next() {
    let mut pair = Pair::new();
    let old = pair.client.children()[0].spi_in;
    pair.client.rekey_ike(pair.now, &mut pair.rng);
    let request = pair.sent_by(Role::Initiator);
    pair.client.rekey_child(pair.now, old, &mut pair.rng);
    assert!(pair.sent_by(Role::Initiator).is_empty());
    pair.deliver(Role::Responder, &request[0]).unwrap();
    let answer = pair.sent_by(Role::Responder).remove(0);
    pair.deliver(Role::Initiator, &answer).unwrap();
    let last = pair.sent_by(Role::Initiator);
    assert_eq!(last.len(), 1);
    assert_eq!(read(&mut pair, &last[0]), [Payload::Delete(Delete::ike())]);
    let heir = pair.events(Role::Initiator).into_iter().find_map(|event| match event {
        SaEvent::Rekeyed(successor) => Some(successor.sa),
        _ => None,
    });
    let mut heir = heir.unwrap();
    heir.handle_timeout(pair.now, &mut pair.rng);
    let asked = heir.poll_transmit().unwrap();
    assert_eq!(Message::parse(&asked.message).unwrap().header.exchange, ExchangeType::CreateChildSa);
}

/// Both ends rekey the same CHILD_SA at once. The nonces of our exchange are random and `in_ours`, those of the gateway's
/// `in_theirs` and random. Gives what we delete of our own: the old one, or what we made.
fn collision(in_ours: u8, in_theirs: u8) -> (Vec<u32>, u32, u32) {
    let mut pair = Pair::new();
    let (old, old_out) = (pair.client.children()[0].spi_in, pair.client.children()[0].spi_out);
    pair.client.rekey_child(pair.now, old, &mut pair.rng);
    let request = pair.sent_by(Role::Initiator);
    let new = offered(&read(&mut pair, &request[0]))[0].esp_spi().unwrap();
    let mut theirs = vec![Payload::Notify(Notify::rekey_esp(old_out))];
    theirs.extend(esp_payloads(0x0101_0101, in_theirs));
    let answer = answered(&mut pair, 0, &theirs);
    assert!(answer.iter().any(|payload| matches!(payload, Payload::Sa(_))), "answered as usual: {answer:?}");
    let mut ours = esp_payloads(0x0202_0202, in_ours);
    let client = policy(Role::Initiator, "aes256gcm16");
    ours[2] = Payload::TsI(client.ts_local);
    ours[3] = Payload::TsR(client.ts_remote);
    let datagram = pair.forged(ExchangeType::CreateChildSa, 2, true, &ours);
    pair.deliver(Role::Initiator, &datagram).unwrap();
    (deletes(&mut pair), old, new)
}

#[test]
fn of_two_rekeys_that_cross_the_one_with_the_lowest_nonce_is_closed_by_who_made_it() {
    let (deleted, old, new) = collision(0xff, 0x00);
    assert_eq!(deleted, [old], "theirs has the lowest nonce: ours stays, and takes the place of the old one");
    assert_ne!(old, new);
    let (deleted, _, new) = collision(0x00, 0xff);
    assert_eq!(deleted, [new], "ours has the lowest nonce: it goes");
}

#[test]
fn a_rekey_of_an_ike_sa_that_is_being_closed_fails_for_now() {
    let mut pair = Pair::new();
    pair.client.rekey_ike(pair.now, &mut pair.rng);
    let sent = pair.sent_by(Role::Initiator);
    let proposals = offered(&read(&mut pair, &sent[0]));
    let mut pair = Pair::new();
    pair.client.close(pair.now, &mut pair.rng);
    pair.sent_by(Role::Initiator);
    let request = [
        Payload::Sa(SecurityAssociation { proposals }),
        Payload::Nonce(Nonce { data: vec![7; 32] }),
        Payload::Ke(KeyExchange { group: 31, data: vec![9; 32] }),
    ];
    let answer = answered(&mut pair, 0, &request);
    assert!(find_notify(&answer, NotifyType::TemporaryFailure).is_some(), "{answer:?}");
}

#[test]
fn a_child_asked_for_while_we_rekey_the_ike_sa_fails_for_now_and_a_delete_is_answered_as_usual() {
    let mut pair = Pair::new();
    let (ours, theirs) = (pair.client.children()[0].spi_in, pair.client.children()[0].spi_out);
    pair.client.rekey_ike(pair.now, &mut pair.rng);
    pair.sent_by(Role::Initiator);
    let mut request = esp_payloads(0x0101_0101, 7);
    let answer = answered(&mut pair, 0, &request);
    assert!(find_notify(&answer, NotifyType::TemporaryFailure).is_some(), "{answer:?}");
    request.insert(0, Payload::Notify(Notify::rekey_esp(theirs)));
    let answer = answered(&mut pair, 1, &request);
    assert!(find_notify(&answer, NotifyType::TemporaryFailure).is_some(), "{answer:?}");
    let delete = [Payload::Delete(Delete::esp(vec![theirs]))];
    let datagram = pair.forged(ExchangeType::Informational, 2, false, &delete);
    pair.deliver(Role::Initiator, &datagram).unwrap();
    let sent = pair.sent_by(Role::Initiator);
    assert_eq!(read(&mut pair, &sent[0]), [Payload::Delete(Delete::esp(vec![ours]))]);
}

#[test]
fn while_a_child_is_deleted_or_asked_for_a_rekey_of_it_or_of_the_ike_sa_fails_for_now() {
    let mut pair = Pair::new();
    pair.client.rekey_ike(pair.now, &mut pair.rng);
    let sent = pair.sent_by(Role::Initiator);
    let ike = [
        Payload::Sa(SecurityAssociation { proposals: offered(&read(&mut pair, &sent[0])) }),
        Payload::Nonce(Nonce { data: vec![7; 32] }),
        Payload::Ke(KeyExchange { group: 31, data: vec![9; 32] }),
    ];
    for delete in [true, false] {
        let mut pair = Pair::new();
        let (ours, theirs) = (pair.client.children()[0].spi_in, pair.client.children()[0].spi_out);
        if delete {
            pair.client.delete_child(pair.now, ours, &mut pair.rng);
        } else {
            pair.client.rekey_child(pair.now, ours, &mut pair.rng);
        }
        pair.sent_by(Role::Initiator);
        let answer = answered(&mut pair, 0, &ike);
        assert!(find_notify(&answer, NotifyType::TemporaryFailure).is_some(), "{delete}: {answer:?}");
        let mut child = vec![Payload::Notify(Notify::rekey_esp(theirs))];
        child.extend(esp_payloads(0x0101_0101, 7));
        let answer = answered(&mut pair, 1, &child);
        let put_off = find_notify(&answer, NotifyType::TemporaryFailure).is_some();
        assert_eq!(put_off, delete, "a rekey that crosses ours is answered as usual: {answer:?}");
    }
}

#[test]
fn a_delete_of_a_child_that_we_are_rekeying_is_answered_as_usual() {
    let mut pair = Pair::new();
    let (ours, theirs) = (pair.client.children()[0].spi_in, pair.client.children()[0].spi_out);
    pair.client.rekey_child(pair.now, ours, &mut pair.rng);
    pair.sent_by(Role::Initiator);
    let delete = [Payload::Delete(Delete::esp(vec![theirs]))];
    let datagram = pair.forged(ExchangeType::Informational, 0, false, &delete);
    pair.deliver(Role::Initiator, &datagram).unwrap();
    let sent = pair.sent_by(Role::Initiator);
    assert_eq!(read(&mut pair, &sent[0]), [Payload::Delete(Delete::esp(vec![ours]))]);
}

#[test]
fn after_temporary_failure_nothing_is_tried_again_at_once() {
    for ike in [true, false] {
        let mut pair = Pair::new();
        let ours = pair.client.children()[0].spi_in;
        if ike {
            pair.client.rekey_ike(pair.now, &mut pair.rng);
        } else {
            pair.client.rekey_child(pair.now, ours, &mut pair.rng);
        }
        pair.sent_by(Role::Initiator);
        let later = Payload::Notify(Notify::status(NotifyType::TemporaryFailure));
        let datagram = pair.forged(ExchangeType::CreateChildSa, 2, true, &[later]);
        pair.deliver(Role::Initiator, &datagram).unwrap();
        pair.pass(Duration::from_millis(1900));
        assert!(pair.sent_by(Role::Initiator).is_empty(), "not at once");
        pair.pass(Duration::from_millis(2200));
        assert_eq!(pair.sent_by(Role::Initiator).len(), 1, "but later");
        assert!(pair.events(Role::Initiator).is_empty(), "and nobody has to know");
    }
}
