//! Rekeying of the IKE_SA: by either end, by both at once, and against everything else (RFC 7296 sections 2.8.2 and
//! 2.25.2).

use super::rekey::{Ends, other};
use super::*;
use crate::exchange::sa::CloseReason;
use crate::wire::NotifyType;

const BOTH: [Role; 2] = [Role::Initiator, Role::Responder];
const SOON: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_rekey_by_either_end_makes_a_new_ike_sa_that_inherits_the_children() {
    for role in BOTH {
        let mut ends = Ends::plain(1);
        let (spis, sending) = (ends.client.sa.spis(), ends.client.sending);
        ends.rekey_ike(role);
        ends.settle();
        ends.check_at_rest();
        assert_ne!(ends.client.sa.spis(), spis);
        assert_eq!(ends.client.sending, sending, "the CHILD_SA is the same");
        assert_eq!((ends.client.rekeyed, ends.gateway.rekeyed), (1, 1));
    }
}

#[test]
fn whoever_began_it_both_ends_can_use_the_new_ike_sa_and_rekey_it_again() {
    for first in BOTH {
        for second in BOTH {
            let mut ends = Ends::plain(2);
            for role in [first, second, first] {
                ends.rekey_ike(role);
                ends.settle();
                ends.rekey_child(other(role));
                ends.settle();
                ends.live(SOON);
                ends.check_at_rest();
            }
            let now = ends.now;
            ends.client.sa.close(now, &mut ends.rng);
            ends.settle();
            assert_eq!(ends.client.closed, Some(CloseReason::Deleted));
            assert_eq!(ends.gateway.closed, Some(CloseReason::DeletedByPeer));
            assert!(ends.client.receiving.is_empty() && ends.gateway.receiving.is_empty());
        }
    }
}

#[test]
fn a_lost_request_or_answer_is_repeated_and_makes_one_ike_sa() {
    for role in BOTH {
        for lose_answer in [false, true] {
            let mut ends = Ends::plain(3);
            ends.rekey_ike(role);
            let request = ends.sent_by(role).remove(0);
            if lose_answer {
                ends.deliver(&request);
                assert_eq!(ends.sent_by(other(role)).len(), 1);
            }
            ends.live(SOON);
            ends.check_at_rest();
            assert_eq!((ends.client.rekeyed, ends.gateway.rekeyed), (1, 1));
        }
    }
}

#[test]
fn both_ends_rekey_at_once_and_the_ike_sa_of_the_lowest_nonce_goes() {
    for seed in 0..40 {
        for first in BOTH {
            let mut ends = Ends::plain(seed);
            ends.rekey_ike(Role::Initiator);
            ends.rekey_ike(Role::Responder);
            let from_client = ends.sent_by(Role::Initiator).remove(0);
            let from_gateway = ends.sent_by(Role::Responder).remove(0);
            let (early, late) = if first == Role::Initiator {
                (from_client, from_gateway)
            } else {
                (from_gateway, from_client)
            };
            ends.deliver(&early);
            ends.deliver(&late);
            assert_eq!((ends.client.rekeyed, ends.gateway.rekeyed), (0, 0), "not decided yet");
            ends.settle();
            ends.check_at_rest();
            assert_eq!((ends.client.rekeyed, ends.gateway.rekeyed), (1, 1));
            ends.rekey_child(first);
            ends.live(SOON);
            ends.check_at_rest();
        }
    }
}

#[test]
fn a_collision_of_which_one_answer_is_late_ends_the_same() {
    for seed in 0..20 {
        for role in BOTH {
            let mut ends = Ends::plain(seed);
            ends.rekey_ike(Role::Initiator);
            ends.rekey_ike(Role::Responder);
            let requests = [ends.sent_by(Role::Initiator).remove(0), ends.sent_by(Role::Responder).remove(0)];
            requests.iter().for_each(|request| ends.deliver(request));
            let late = ends.sent_by(other(role));
            let early = ends.sent_by(role);
            early.iter().for_each(|letter| ends.deliver(letter));
            let next = ends.sent_by(other(role));
            next.iter().for_each(|letter| ends.deliver(letter));
            late.iter().for_each(|letter| ends.deliver(letter));
            ends.live(Duration::from_secs(80));
            ends.check_at_rest();
        }
    }
}

#[test]
fn a_rekey_that_comes_when_the_other_end_has_finished_its_own_is_put_off_and_forgotten() {
    for role in BOTH {
        for refusal_first in [true, false] {
            let mut ends = Ends::plain(4);
            ends.rekey_ike(role);
            ends.rekey_ike(other(role));
            let delayed = ends.sent_by(role).remove(0);
            let request = ends.sent_by(other(role)).remove(0);
            ends.deliver(&request);
            let answer = ends.sent_by(role).remove(0);
            ends.deliver(&answer);
            let delete = ends.sent_by(other(role));
            ends.deliver(&delayed);
            let refusal = ends.sent_by(other(role));
            let (first, second) = if refusal_first { (refusal, delete) } else { (delete, refusal) };
            first.iter().chain(&second).for_each(|letter| ends.deliver(letter));
            ends.settle();
            ends.check_at_rest();
            assert_eq!((ends.client.rekeyed, ends.gateway.rekeyed), (1, 1));
            assert!(ends.client.refused.is_empty() && ends.gateway.refused.is_empty());
        }
    }
}

#[test]
fn an_ike_rekey_waits_for_the_other_ends_child_exchange() {
    for role in BOTH {
        for delete in [true, false] {
            let mut ends = Ends::plain(5);
            if delete {
                ends.delete_child(other(role));
            } else {
                ends.rekey_child(other(role));
            }
            let child = ends.sent_by(other(role)).remove(0);
            ends.rekey_ike(role);
            let rekey = ends.sent_by(role).remove(0);
            ends.deliver(&rekey);
            ends.deliver(&child);
            ends.settle();
            assert_eq!(ends.client.rekeyed, 0, "put off");
            ends.live(SOON);
            assert_eq!((ends.client.rekeyed, ends.gateway.rekeyed), (1, 1));
            if delete {
                assert!(ends.client.receiving.is_empty() && ends.gateway.receiving.is_empty());
            } else {
                ends.check_at_rest();
            }
        }
    }
}

#[test]
fn a_child_asked_for_while_the_ike_sa_is_rekeyed_comes_later() {
    for role in BOTH {
        let mut ends = Ends::plain(6);
        ends.rekey_ike(other(role));
        let ike = ends.sent_by(other(role)).remove(0);
        ends.rekey_child(role);
        let child = ends.sent_by(role).remove(0);
        ends.deliver(&child);
        let refusal = ends.sent_by(other(role)).remove(0);
        ends.deliver(&ike);
        ends.deliver(&refusal);
        let before = ends.client.sending;
        ends.live(SOON);
        ends.check_at_rest();
        assert_ne!(ends.client.sending, before);
        assert_eq!((ends.client.rekeyed, ends.gateway.rekeyed), (1, 1));
    }
}

#[test]
fn deletion_of_the_ike_sa_ends_a_rekey_of_it() {
    for role in BOTH {
        for delete_first in [true, false] {
            let mut ends = Ends::plain(7);
            ends.rekey_ike(role);
            let rekey = ends.sent_by(role).remove(0);
            let now = ends.now;
            match other(role) {
                Role::Initiator => ends.client.sa.close(now, &mut ends.rng),
                Role::Responder => ends.gateway.sa.close(now, &mut ends.rng),
            }
            let delete = ends.sent_by(other(role)).remove(0);
            if delete_first {
                ends.deliver(&delete);
                ends.deliver(&rekey);
            } else {
                ends.deliver(&rekey);
                ends.deliver(&delete);
            }
            ends.settle();
            assert_eq!(ends.end(role).closed, Some(CloseReason::DeletedByPeer));
            assert_eq!(ends.end(other(role)).closed, Some(CloseReason::Deleted));
            assert!(ends.client.receiving.is_empty() && ends.gateway.receiving.is_empty());
        }
    }
}

#[test]
fn a_refused_rekey_is_told_and_the_ike_sa_ends_at_its_hard_limit() {
    let lifetimes = Lifetimes { ike: Some(HOUR), ..Lifetimes::default() };
    let mut ends = Ends::new(8, ["aes256gcm16"; 2], lifetimes);
    ends.gateway.sa.renewal.ike_proposals = vec!["aes128-sha256-ecp256".parse().unwrap()];
    ends.gateway.sa.renewal.ike = crate::exchange::lifetime::Limits::default();
    ends.pass(HOUR);
    ends.settle();
    assert!(
        matches!(ends.client.refused.as_slice(), [SaEvent::IkeRekeyRefused(NotifyType::NoProposalChosen)]),
        "{:?}",
        ends.client.refused
    );
    ends.check_at_rest();
    ends.live(HOUR / 9);
    assert_eq!(ends.client.closed, Some(CloseReason::Expired));
    assert_eq!(ends.gateway.closed, Some(CloseReason::DeletedByPeer));
}

#[test]
fn a_peer_that_rekeys_and_never_deletes_the_old_one_does_not_leave_it_here() {
    for role in BOTH {
        let mut ends = Ends::plain(9);
        ends.rekey_ike(role);
        let request = ends.sent_by(role).remove(0);
        ends.deliver(&request);
        // The answer and everything else from the one who began never comes.
        assert_eq!(ends.end(other(role)).fading.len(), 1);
        for _ in 0..800 {
            ends.pass(Duration::from_millis(250));
            ends.sent_by(role);
            ends.sent_by(other(role));
        }
        assert!(ends.end(other(role)).fading.is_empty());
    }
}

#[test]
fn a_line_of_ike_sas_renews_itself_with_everything_in_it() {
    let lifetimes = Lifetimes { ike: Some(HOUR * 4), child: Some(HOUR), child_octets: None };
    let mut ends = Ends::new(10, ["aes256gcm16-x25519"; 2], lifetimes);
    for _ in 0..26 {
        ends.live(HOUR);
        ends.check_carries();
        assert!(ends.client.receiving.len() <= 4 && ends.client.fading.len() <= 1);
    }
    assert!((6..=8).contains(&ends.client.rekeyed), "{} rekeys", ends.client.rekeyed);
}
