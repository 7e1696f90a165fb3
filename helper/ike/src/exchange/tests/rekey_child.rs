//! Rekeying of CHILD_SAs: by either end, by both at once, and against deletion (RFC 7296 sections 2.8.1 and 2.25.1).

use super::rekey::{Ends, other};
use super::*;
use crate::wire::NotifyType;

const BOTH: [Role; 2] = [Role::Initiator, Role::Responder];
const SOON: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);

fn sending(ends: &mut Ends) -> [Option<u32>; 2] {
    [ends.client.sending, ends.gateway.sending]
}

#[test]
fn a_rekey_by_either_end_replaces_the_child_on_both_with_and_without_a_key_exchange() {
    for esp in ["aes256gcm16", "aes256-sha256-x25519", "chacha20poly1305-ecp256"] {
        for role in BOTH {
            let mut ends = Ends::new(1, [esp; 2], Lifetimes::default());
            let before = sending(&mut ends);
            ends.rekey_child(role);
            ends.settle();
            ends.check_carries();
            let after = sending(&mut ends);
            assert!(before[0] != after[0] && before[1] != after[1], "{esp} {role:?}");
            let group = ends.client.sa.children()[0].suite.group;
            assert_eq!(group.is_some(), esp.contains('-'), "{esp}");
            assert_eq!(ends.client.receiving.len(), 2, "the old one receives what was overtaken");
            ends.live(SOON);
            ends.check_at_rest();
        }
    }
}

#[test]
fn who_answers_a_rekey_receives_at_once_and_sends_with_the_old_one_until_it_is_deleted() {
    for role in BOTH {
        let mut ends = Ends::plain(2);
        let before = sending(&mut ends);
        ends.rekey_child(role);
        let request = ends.sent_by(role).remove(0);
        ends.deliver(&request);
        let answer = ends.sent_by(other(role)).remove(0);
        assert_eq!(ends.end(other(role)).receiving.len(), 2);
        assert_eq!(sending(&mut ends), before);
        ends.deliver(&answer);
        ends.check_carries();
        let now_sends = [ends.end(role).sending, ends.end(other(role)).sending];
        let first = [ends.end(role).receiving.len(), ends.end(other(role)).receiving.len()];
        assert_eq!(first, [2, 2]);
        assert!(
            !before.contains(&now_sends[0]) && before.contains(&now_sends[1]),
            "only who began has switched"
        );
        let delete = ends.sent_by(role).remove(0);
        ends.deliver(&delete);
        ends.check_carries();
        let after = sending(&mut ends);
        assert!(before[0] != after[0] && before[1] != after[1]);
    }
}

#[test]
fn who_answers_a_rekey_sends_with_the_new_one_as_soon_as_something_came_in_by_it() {
    let mut ends = Ends::plain(3);
    ends.rekey_child(Role::Initiator);
    let request = ends.sent_by(Role::Initiator).remove(0);
    ends.deliver(&request);
    let (now, before) = (ends.now, ends.gateway.sending);
    let new = *ends.gateway.receiving.keys().find(|spi| Some(**spi) != before).unwrap();
    ends.gateway.sa.note_traffic(now, new, 0, 0);
    ends.sent_by(Role::Responder);
    assert_eq!(ends.gateway.sending, before);
    ends.gateway.sa.note_traffic(now, new, 60, 0);
    ends.sent_by(Role::Responder);
    assert_eq!(ends.gateway.sending, Some(new));
}

#[test]
fn a_lost_request_or_answer_is_repeated_and_makes_one_child() {
    for role in BOTH {
        for lose_answer in [false, true] {
            let mut ends = Ends::plain(4);
            ends.rekey_child(role);
            let request = ends.sent_by(role).remove(0);
            if lose_answer {
                ends.deliver(&request);
                assert_eq!(ends.sent_by(other(role)).len(), 1);
            }
            ends.check_carries();
            ends.live(SOON);
            ends.check_at_rest();
        }
    }
}

#[test]
fn both_ends_rekey_at_once_and_the_child_of_the_lowest_nonce_goes() {
    let mut survivors = [0, 0];
    for seed in 0..40 {
        for first in BOTH {
            let mut ends = Ends::plain(seed);
            ends.rekey_child(Role::Initiator);
            ends.rekey_child(Role::Responder);
            let from_client = ends.sent_by(Role::Initiator).remove(0);
            let from_gateway = ends.sent_by(Role::Responder).remove(0);
            let (early, late) = if first == Role::Initiator {
                (from_client, from_gateway)
            } else {
                (from_gateway, from_client)
            };
            ends.deliver(&early);
            ends.check_carries();
            ends.deliver(&late);
            ends.check_carries();
            assert_eq!((ends.client.receiving.len(), ends.gateway.receiving.len()), (2, 2));
            ends.settle();
            ends.check_carries();
            ends.live(SOON);
            ends.check_at_rest();
            // The first SPIs of each end's random numbers tell whose survived.
            let survivor = ends.client.sa.children()[0].clone();
            survivors[usize::from(survivor.spi_in > survivor.spi_out)] += 1;
        }
    }
    assert!(survivors.iter().all(|count| *count > 0), "{survivors:?}");
}

#[test]
fn answers_of_a_collision_may_come_in_any_order() {
    for seed in 0..20 {
        for role in BOTH {
            let mut ends = Ends::plain(seed);
            ends.rekey_child(Role::Initiator);
            ends.rekey_child(Role::Responder);
            let requests = [ends.sent_by(Role::Initiator).remove(0), ends.sent_by(Role::Responder).remove(0)];
            requests.iter().for_each(|request| ends.deliver(request));
            // This end's request is answered late: the other end has settled the matter and deleted something before.
            let late = ends.sent_by(other(role));
            let early = ends.sent_by(role);
            early.iter().for_each(|letter| ends.deliver(letter));
            let deletes = ends.sent_by(other(role));
            deletes.iter().for_each(|letter| ends.deliver(letter));
            ends.check_carries();
            late.iter().for_each(|letter| ends.deliver(letter));
            ends.check_carries();
            ends.live(SOON);
            ends.check_at_rest();
        }
    }
}

#[test]
fn a_rekey_that_comes_when_the_other_end_has_finished_its_own_is_put_off_and_forgotten() {
    for role in BOTH {
        let mut ends = Ends::plain(5);
        ends.rekey_child(role);
        ends.rekey_child(other(role));
        // The request of `role` is delayed; the other end's rekey runs up to its DELETE.
        let delayed = ends.sent_by(role).remove(0);
        let request = ends.sent_by(other(role)).remove(0);
        ends.deliver(&request);
        let answer = ends.sent_by(role).remove(0);
        ends.deliver(&answer);
        let delete = ends.sent_by(other(role));
        ends.deliver(&delayed);
        let refusal = ends.sent_by(other(role));
        delete.iter().chain(&refusal).for_each(|letter| ends.deliver(letter));
        ends.check_carries();
        ends.live(SOON);
        ends.check_at_rest();
        assert!(ends.client.refused.is_empty() && ends.gateway.refused.is_empty());
    }
}

#[test]
fn a_rekey_of_a_child_that_the_other_end_is_deleting_fails_for_now_and_the_child_goes() {
    for role in BOTH {
        for rekey_first in [true, false] {
            let mut ends = Ends::plain(6);
            ends.rekey_child(role);
            ends.delete_child(other(role));
            let rekey = ends.sent_by(role).remove(0);
            let delete = ends.sent_by(other(role)).remove(0);
            if rekey_first {
                ends.deliver(&rekey);
                ends.deliver(&delete);
            } else {
                ends.deliver(&delete);
                ends.deliver(&rekey);
            }
            ends.settle();
            ends.live(SOON);
            for role in BOTH {
                assert!(ends.end(role).sa.children().is_empty(), "{role:?}");
                assert!(ends.end(role).receiving.is_empty(), "{role:?}");
                assert_eq!(ends.end(role).closed, None);
            }
        }
    }
}

#[test]
fn a_child_that_the_peer_has_lost_is_made_anew() {
    for role in BOTH {
        let mut ends = Ends::plain(7);
        // The other end forgets without a word.
        let spi = ends.end(other(role)).sa.carrying().unwrap();
        let now = ends.now;
        ends.end(other(role)).sa.remove_child(now, spi);
        ends.rekey_child(role);
        ends.settle();
        ends.live(SOON);
        ends.check_at_rest();
    }
}

#[test]
fn a_refused_group_is_told_and_the_child_lives_on_to_its_hard_limit() {
    let lifetimes = Lifetimes { child: Some(HOUR), ..Lifetimes::default() };
    let mut ends = Ends::new(8, ["aes256gcm16-x25519", "aes256gcm16-ecp256"], lifetimes);
    ends.gateway.sa.renewal.lives.clear();
    ends.pass(HOUR);
    ends.settle();
    assert!(
        matches!(ends.client.refused.as_slice(), [SaEvent::RekeyRefused(NotifyType::NoProposalChosen)]),
        "{:?}",
        ends.client.refused
    );
    ends.check_at_rest();
    ends.live(HOUR / 20);
    ends.check_at_rest();
    ends.live(HOUR / 15);
    assert!(ends.client.receiving.is_empty() && ends.gateway.receiving.is_empty());
}

#[test]
fn children_are_rekeyed_before_their_time_is_over_and_after_their_octets() {
    let lifetimes = Lifetimes { child: Some(HOUR), child_octets: Some(1_000_000), ..Lifetimes::default() };
    let mut ends = Ends::new(9, ["aes256gcm16"; 2], lifetimes);
    for _ in 0..3 {
        let before = sending(&mut ends);
        ends.live(HOUR);
        assert_ne!(sending(&mut ends), before);
        ends.check_carries();
    }
    ends.live(SOON);
    let before = sending(&mut ends);
    let (now, spi_in) = (ends.now, ends.client.sending.unwrap());
    ends.client.sa.note_traffic(now, spi_in, 999_999, 10);
    ends.live(SOON);
    assert_eq!(sending(&mut ends), before);
    ends.client.sa.note_traffic(now, spi_in, 999_999, 1_000_000);
    ends.live(SOON);
    assert_ne!(sending(&mut ends), before);
    ends.check_at_rest();
}

#[test]
fn a_peer_that_never_deletes_what_it_replaced_and_always_asks_for_more_is_bounded() {
    let mut ends = Ends::plain(10);
    for _ in 0..40 {
        let now = ends.now;
        let pending = crate::exchange::create_child_sa::PendingChild::new(
            &policy(Role::Initiator, "aes256gcm16"),
            &mut ends.rng,
        );
        ends.client.sa.create_child(now, pending, &mut ends.rng);
        ends.settle();
    }
    assert_eq!(ends.gateway.sa.children().len(), 16);
    assert!(
        ends.client
            .refused
            .iter()
            .any(|event| matches!(event, SaEvent::ChildRefused(NotifyType::NoAdditionalSas)))
    );
}
