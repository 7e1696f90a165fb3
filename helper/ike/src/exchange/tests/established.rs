//! What two honest ends do with each other.

use super::*;
use crate::exchange::create_child_sa::PendingChild;
use crate::exchange::sa::CloseReason;
use crate::wire::NotifyType;

fn closed(events: &[SaEvent]) -> Option<CloseReason> {
    events.iter().find_map(|event| match event {
        SaEvent::Closed(reason) => Some(*reason),
        _ => None,
    })
}

fn children_up(events: Vec<SaEvent>) -> Vec<(ChildSa, Option<u32>)> {
    events
        .into_iter()
        .filter_map(|event| match event {
            SaEvent::ChildUp { child, replaces } => Some((*child, replaces)),
            _ => None,
        })
        .collect()
}

#[test]
fn silence_is_answered_by_a_liveness_check_and_traffic_spares_it() {
    let mut pair = Pair::new();
    pair.pass(Duration::from_secs(29));
    assert!(pair.sent_by(Role::Initiator).is_empty());
    pair.client.note_inbound(pair.now);
    pair.pass(Duration::from_secs(29));
    assert!(pair.sent_by(Role::Initiator).is_empty(), "ESP came in a moment ago");
    pair.pass(Duration::from_secs(1));
    let check = pair.sent_by(Role::Initiator);
    assert_eq!(check.len(), 1);
    pair.deliver(Role::Responder, &check[0]).unwrap();
    pair.settle();
    assert_eq!(pair.client.poll_timeout(), Some(pair.now + DPD));
}

#[test]
fn a_peer_that_does_not_answer_is_dead_after_the_last_repetition() {
    let mut pair = Pair::new();
    pair.pass(DPD);
    let mut sent = pair.sent_by(Role::Initiator).len();
    while !pair.client.is_closed() {
        pair.now = pair.client.poll_timeout().unwrap();
        pair.client.handle_timeout(pair.now, &mut pair.rng);
        sent += pair.sent_by(Role::Initiator).len();
    }
    assert_eq!(sent, 6, "one request and five repetitions");
    assert_eq!(closed(&pair.events(Role::Initiator)), Some(CloseReason::PeerDead));
}

#[test]
fn deleting_the_ike_sa_takes_its_children_along_on_both_ends() {
    let mut pair = Pair::new();
    pair.client.close(pair.now, &mut pair.rng);
    pair.settle();
    for (role, reason) in
        [(Role::Initiator, CloseReason::Deleted), (Role::Responder, CloseReason::DeletedByPeer)]
    {
        let events = pair.events(role);
        assert!(matches!(events[0], SaEvent::ChildDown { .. }), "{events:?}");
        assert_eq!(closed(&events), Some(reason));
        assert!(pair.end(role).children().is_empty());
    }
}

#[test]
fn a_farewell_that_nobody_hears_ends_soon() {
    let mut pair = Pair::new();
    pair.client.close(pair.now, &mut pair.rng);
    let began = pair.now;
    while !pair.client.is_closed() {
        pair.now = pair.client.poll_timeout().unwrap();
        pair.client.handle_timeout(pair.now, &mut pair.rng);
    }
    assert_eq!(closed(&pair.events(Role::Initiator)), Some(CloseReason::Deleted));
    assert!(pair.now - began <= Duration::from_millis(1500));
}

#[test]
fn a_child_deleted_by_either_end_is_gone_on_both() {
    for role in [Role::Initiator, Role::Responder] {
        let mut pair = Pair::new();
        let (now, spi) = (pair.now, pair.end(role).children()[0].spi_in);
        match role {
            Role::Initiator => pair.client.delete_child(now, spi, &mut pair.rng),
            Role::Responder => pair.gateway.delete_child(now, spi, &mut pair.rng),
        }
        pair.settle();
        assert!(pair.client.children().is_empty() && pair.gateway.children().is_empty());
        assert!(!pair.client.is_closed() && !pair.gateway.is_closed());
    }
}

#[test]
fn both_ends_may_delete_the_same_child_at_once() {
    let mut pair = Pair::new();
    let (now, ours, theirs) = (pair.now, pair.client.children()[0].spi_in, pair.gateway.children()[0].spi_in);
    pair.client.delete_child(now, ours, &mut pair.rng);
    pair.gateway.delete_child(now, theirs, &mut pair.rng);
    pair.settle();
    assert!(pair.client.children().is_empty() && pair.gateway.children().is_empty());
    assert_eq!(pair.events(Role::Initiator).len(), 1, "told once");
    assert_eq!(pair.events(Role::Responder).len(), 1, "told once");
}

#[test]
fn a_further_child_has_the_same_keys_crosswise_with_and_without_a_key_exchange() {
    for esp in ["aes256gcm16", "aes256-sha256-x25519", "chacha20poly1305-ecp256"] {
        for role in [Role::Initiator, Role::Responder] {
            let mut pair = Pair::with_esp(esp);
            let pending = PendingChild::new(&policy(role, esp), &mut pair.rng);
            let now = pair.now;
            match role {
                Role::Initiator => pair.client.create_child(now, pending, &mut pair.rng),
                Role::Responder => pair.gateway.create_child(now, pending, &mut pair.rng),
            }
            pair.settle();
            let client = children_up(pair.events(Role::Initiator));
            let gateway = children_up(pair.events(Role::Responder));
            let ([(ours, None)], [(theirs, None)]) = (client.as_slice(), gateway.as_slice()) else {
                panic!("{esp}: {client:?} {gateway:?}");
            };
            assert_eq!((ours.spi_in, ours.spi_out), (theirs.spi_out, theirs.spi_in));
            assert_eq!(ours.keys_in.encr, theirs.keys_out.encr);
            assert_eq!(ours.keys_out.encr, theirs.keys_in.encr);
            assert_eq!(ours.keys_out.integ, theirs.keys_in.integ);
            assert_ne!(ours.keys_in.encr, ours.keys_out.encr);
            assert_eq!(ours.ts_local, theirs.ts_remote);
            assert_eq!(pair.client.children().len(), 2);
        }
    }
}

#[test]
fn another_group_is_tried_when_the_peer_asks_for_it() {
    let mut pair = Pair::with_esp("aes256gcm16-ecp256");
    let pending = PendingChild::new(&policy(Role::Initiator, "aes256gcm16-x25519-ecp256"), &mut pair.rng);
    pair.client.create_child(pair.now, pending, &mut pair.rng);
    pair.settle();
    let up = children_up(pair.events(Role::Initiator));
    assert_eq!(up.len(), 1);
    assert_eq!(up[0].0.suite.group, Some(19));
}

#[test]
fn a_child_without_a_common_proposal_is_refused_and_harms_nothing() {
    let mut pair = Pair::with_esp("aes256gcm16");
    let pending = PendingChild::new(&policy(Role::Initiator, "chacha20poly1305"), &mut pair.rng);
    pair.client.create_child(pair.now, pending, &mut pair.rng);
    pair.settle();
    let events = pair.events(Role::Initiator);
    assert!(matches!(events.as_slice(), [SaEvent::ChildRefused(NotifyType::NoProposalChosen)]), "{events:?}");
    assert_eq!(pair.client.children().len(), 1);
    assert!(!pair.client.is_closed());
}

#[test]
fn a_repeated_request_is_answered_again_and_acted_on_once() {
    let mut pair = Pair::new();
    pair.client.close(pair.now, &mut pair.rng);
    let request = pair.sent_by(Role::Initiator).remove(0);
    // A fresh gateway end that stays open: a liveness check instead of a DELETE.
    let mut pair = Pair::new();
    pair.pass(DPD);
    let check = pair.sent_by(Role::Initiator).remove(0);
    pair.deliver(Role::Responder, &check).unwrap();
    let first = pair.sent_by(Role::Responder);
    pair.deliver(Role::Responder, &check).unwrap();
    assert_eq!(pair.sent_by(Role::Responder), first, "the same octets");
    assert_ne!(request, check);
}

#[test]
fn a_client_keeps_its_gateways_address_and_a_gateway_follows_its_client() {
    let mut pair = Pair::new();
    pair.client.features.mobike = false;
    pair.gateway.features.mobike = false;
    let moved = Path { remote: ([203, 0, 113, 9], 1234).into(), ..path(Role::Responder) };
    pair.pass(DPD);
    let check = pair.sent_by(Role::Initiator).remove(0);
    pair.gateway.handle_datagram(pair.now, moved, &check, &mut pair.rng).unwrap();
    assert_eq!(pair.gateway.path(), moved);
    let answer = pair.sent_by(Role::Responder).remove(0);
    let elsewhere = Path { remote: ([203, 0, 113, 77], 4500).into(), ..path(Role::Initiator) };
    pair.client.handle_datagram(pair.now, elsewhere, &answer, &mut pair.rng).unwrap();
    assert_eq!(pair.client.path(), path(Role::Initiator));
}

#[test]
fn traffic_that_is_not_answered_is_asked_about_at_once_and_one_way_traffic_half_as_often() {
    let mut pair = Pair::new();
    let mut asked = Vec::new();
    for second in 0..60 {
        pair.client.note_outbound(pair.now);
        pair.pass(Duration::from_secs(1));
        if !pair.client.transmits.is_empty() {
            asked.push(second + 1);
            pair.settle();
        }
    }
    // One second after the first packet that was not answered, then two.
    assert_eq!(asked.first(), Some(&2));
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] == 3), "{asked:?}");
    pair.client.note_outbound(pair.now);
    pair.client.note_inbound(pair.now + Duration::from_millis(10));
    pair.client.note_outbound(pair.now + Duration::from_millis(20));
    pair.pass(Duration::from_millis(1020));
    assert!(!pair.client.transmits.is_empty(), "an answer makes it attentive again");
}

#[test]
fn traffic_both_ways_is_never_asked_about() {
    let mut pair = Pair::new();
    for _ in 0..120 {
        pair.client.note_outbound(pair.now);
        pair.client.note_inbound(pair.now + Duration::from_millis(50));
        pair.pass(Duration::from_secs(1));
    }
    assert!(pair.client.transmits.is_empty());
}

#[test]
fn after_a_sleep_the_question_is_over_soon() {
    for under_way in [false, true] {
        let mut pair = Pair::new();
        if under_way {
            pair.pass(DPD);
        }
        pair.now = pair.now + Duration::from_secs(3600);
        let began = pair.now;
        pair.client.check_liveness_soon(began, &mut pair.rng);
        while !pair.client.is_closed() {
            pair.now = pair.client.poll_timeout().unwrap();
            pair.client.handle_timeout(pair.now, &mut pair.rng);
        }
        assert!(pair.now - began <= Duration::from_secs(4));
    }
}
