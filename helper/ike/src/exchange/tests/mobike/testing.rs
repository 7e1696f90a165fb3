//! Paths that are tested before they are used, and what comes of a test.

use super::*;

#[test]
fn a_path_is_tested_without_moving_anything() {
    let mut road = Road::new();
    let now = road.pair.now;
    road.pair.client.test_path(now, new_path(), &mut road.pair.rng);
    road.settle(2);
    assert!(
        matches!(road.events(Role::Initiator).as_slice(), [SaEvent::PathWorks(found)] if *found == new_path())
    );
    assert!(road.events(Role::Responder).is_empty());
    assert_eq!(road.pair.client.path(), path(Role::Initiator));
    assert_eq!(road.pair.gateway.path(), path(Role::Responder));
}

#[test]
fn a_path_that_does_not_work_is_told_soon_and_costs_nothing_else() {
    let mut road = Road::new();
    road.broken = Some(2);
    let began = road.pair.now;
    road.pair.client.test_path(began, new_path(), &mut road.pair.rng);
    road.settle(1);
    let mut told = Vec::new();
    while told.is_empty() {
        road.wait();
        road.settle(1);
        told = road.events(Role::Initiator);
    }
    assert!(matches!(told.as_slice(), [SaEvent::PathFailed(found)] if *found == new_path()), "{told:?}");
    assert!(road.pair.now - began <= Duration::from_secs(2));
    // The test's Message ID was used up by the old path, so that the two ends still understand each other.
    road.pair.pass(DPD);
    road.settle(1);
    assert_eq!(road.pair.client.poll_timeout(), Some(road.pair.now + DPD));
    assert_eq!(road.pair.client.path(), path(Role::Initiator));
}

#[test]
fn a_path_that_fails_its_test_gives_the_path_in_use_its_own_time() {
    let mut road = Road::new();
    let began = road.pair.now;
    road.pair.client.test_path(began, new_path(), &mut road.pair.rng);
    // Nothing arrives by either of them for a while.
    while road.pair.now < began + Duration::from_secs(8) {
        while road.pair.client.poll_transmit().is_some() {}
        road.wait();
    }
    assert!(!road.pair.client.is_closed(), "only the tested path has failed so far");
    road.settle(1);
    let events = road.events(Role::Initiator);
    assert!(matches!(events.as_slice(), [SaEvent::PathFailed(_)]), "{events:?}");
    road.pair.pass(DPD);
    road.settle(1);
    assert!(!road.pair.client.is_closed() && !road.pair.gateway.is_closed());
}

#[test]
fn a_test_that_a_wake_up_takes_by_the_path_in_use_has_an_outcome() {
    let mut road = Road::new();
    let now = road.pair.now;
    road.pair.client.test_path(now, new_path(), &mut road.pair.rng);
    while road.pair.client.poll_transmit().is_some() {}
    road.pair.client.check_liveness_soon(now, &mut road.pair.rng);
    road.settle(1);
    let events = road.events(Role::Initiator);
    assert!(
        matches!(events.as_slice(), [SaEvent::PathFailed(tested)] if *tested == new_path()),
        "{events:?}"
    );
}
