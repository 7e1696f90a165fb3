//! Probes of a path, and the end of an IKE_SA whose path does not work.

use super::*;
use crate::exchange::sa::CloseReason;

fn probed(pair: &mut Pair) -> Vec<Option<Duration>> {
    let events = pair.events(Role::Initiator).into_iter();
    events
        .filter_map(|event| if let SaEvent::Probed { rtt, .. } = event { Some(rtt) } else { None })
        .collect()
}

#[test]
fn a_probe_is_measured_when_it_was_sent_once_and_sent_again_while_it_waits() {
    let mut pair = Pair::new();
    pair.client.probe(pair.now, false, &mut pair.rng);
    pair.now = pair.now + Duration::from_millis(30);
    pair.settle();
    assert_eq!(probed(&mut pair), [Some(Duration::from_millis(30))]);
    pair.client.probe(pair.now, false, &mut pair.rng);
    let lost = pair.sent_by(Role::Initiator);
    pair.now = pair.now + Duration::from_millis(100);
    pair.client.probe(pair.now, false, &mut pair.rng);
    let again = pair.sent_by(Role::Initiator);
    assert_eq!(lost, again, "the same request: the window takes one");
    for datagram in again {
        pair.deliver(Role::Responder, &datagram).unwrap();
    }
    pair.settle();
    assert_eq!(probed(&mut pair), [None], "nobody knows which one was answered");
    // What nobody asked for tells nothing.
    pair.client.check_liveness(pair.now, &mut pair.rng);
    pair.settle();
    assert!(probed(&mut pair).is_empty());
}

#[test]
fn a_silent_path_that_is_probed_patiently_does_not_end_its_ike_sa() {
    for (patient, closed) in [(true, false), (false, true)] {
        let mut pair = Pair::new();
        for _ in 0..100 {
            pair.client.probe(pair.now, patient, &mut pair.rng);
            pair.sent_by(Role::Initiator);
            pair.now = pair.now + Duration::from_secs(2);
            pair.client.handle_timeout(pair.now, &mut pair.rng);
        }
        assert_eq!(pair.client.is_closed(), closed, "patient: {patient}");
    }
}

#[test]
fn an_ike_sa_that_leaves_by_another_path_is_answered_first_and_deleted_then() {
    let mut pair = Pair::new();
    pair.client.probe(pair.now, true, &mut pair.rng);
    assert_eq!(pair.sent_by(Role::Initiator).len(), 1, "lost");
    let other = Path { link: 7, ..path(Role::Initiator) };
    pair.client.leave_by(pair.now, other, &mut pair.rng);
    while let Some(transmit) = pair.client.poll_transmit() {
        assert_eq!(transmit.path, other);
        pair.deliver(Role::Responder, &transmit.message).unwrap();
        for answer in pair.sent_by(Role::Responder) {
            pair.client.handle_datagram(pair.now, other, &answer, &mut pair.rng).unwrap();
        }
    }
    assert!(pair.client.is_closed() && pair.gateway.is_closed());
    let ends = |events: Vec<SaEvent>| {
        events.into_iter().find_map(|event| if let SaEvent::Closed(why) = event { Some(why) } else { None })
    };
    let events = pair.events(Role::Responder);
    assert_eq!(ends(events), Some(CloseReason::DeletedByPeer));
}
