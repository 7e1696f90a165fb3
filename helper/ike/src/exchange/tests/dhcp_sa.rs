//! The CHILD_SA for DHCP on an established IKE_SA (RFC 3456 section 4.1).

use super::*;
use crate::exchange::dhcp_sa;
use crate::wire::NotifyType;

fn both_allow_it() -> Pair {
    let mut pair = Pair::new();
    pair.client.allow_dhcp();
    pair.gateway.allow_dhcp();
    pair
}

fn open(pair: &mut Pair) {
    let (now, mut rng) = (pair.now, ChaCha20Rng::seed_from_u64(5));
    pair.client.open_dhcp_sa(now, &mut rng);
    assert!(pair.client.is_asking_for(true) && !pair.client.is_asking_for(false));
    pair.settle();
}

#[test]
fn it_comes_with_its_own_selectors_and_what_is_sent_goes_on_by_the_other() {
    let mut pair = both_allow_it();
    let carrying = pair.client.carrying();
    open(&mut pair);
    let child = pair.client.dhcp_child().unwrap().clone();
    assert_eq!((child.ts_local, child.ts_remote), (dhcp_sa::client_side(), dhcp_sa::server_side()));
    let other = pair.gateway.dhcp_child().unwrap().clone();
    assert_eq!((other.ts_local, other.ts_remote), (dhcp_sa::server_side(), dhcp_sa::client_side()));
    for role in [Role::Initiator, Role::Responder] {
        let events = pair.events(role);
        assert!(matches!(events.as_slice(), [SaEvent::ChildUp { replaces: None, .. }]), "{events:?}");
    }
    // What comes in by it is no reason to send with it.
    let now = pair.now;
    pair.gateway.note_traffic(now, other.spi_in, 300, 0);
    assert!(pair.gateway.events.is_empty());
    assert_eq!(pair.client.carrying(), carrying);
}

#[test]
fn a_gateway_that_does_not_allow_it_gives_nothing_wider_than_its_policy() {
    let mut pair = both_allow_it();
    pair.gateway.policy.dhcp = false;
    pair.gateway.policy.ts_remote = TrafficSelectors::default();
    open(&mut pair);
    let events = pair.events(Role::Initiator);
    assert!(matches!(events.as_slice(), [SaEvent::ChildRefused(NotifyType::TsUnacceptable)]), "{events:?}");
}

#[test]
fn it_ends_after_minutes_and_nothing_else_with_it() {
    let mut pair = both_allow_it();
    open(&mut pair);
    pair.events(Role::Initiator);
    pair.pass(dhcp_sa::LIFETIME - Duration::from_secs(1));
    pair.settle();
    assert!(pair.client.dhcp_child().is_some());
    pair.pass(Duration::from_secs(1));
    pair.settle();
    assert!(pair.client.dhcp_child().is_none() && pair.gateway.dhcp_child().is_none());
    assert!(pair.client.has_data_child() && pair.gateway.has_data_child());
    let events = pair.events(Role::Initiator);
    assert!(matches!(events.as_slice(), [SaEvent::ChildDown { .. }]), "{events:?}");
}

#[test]
fn a_gateway_may_renew_it() {
    let mut pair = both_allow_it();
    open(&mut pair);
    let old = pair.gateway.dhcp_child().unwrap().spi_in;
    let (now, mut rng) = (pair.now, ChaCha20Rng::seed_from_u64(6));
    pair.gateway.rekey_child(now, old, &mut rng);
    pair.settle();
    let new = pair.gateway.dhcp_child().unwrap();
    assert_ne!(new.spi_in, old);
    assert_eq!(new.ts_remote, dhcp_sa::client_side());
}

#[test]
fn it_moves_to_the_next_ike_sa_and_another_data_child_does_not_take_its_selectors() {
    let mut pair = both_allow_it();
    open(&mut pair);
    let (now, mut rng) = (pair.now, ChaCha20Rng::seed_from_u64(7));
    let address = TrafficSelectors::new(vec![TrafficSelector::host([10, 0, 0, 9].into())]);
    let all = TrafficSelectors::new(vec![TrafficSelector::any_v4()]);
    pair.gateway.allow(all.clone(), address.clone());
    pair.client.allow(address.clone(), all);
    pair.client.create_child_alike(now, &mut rng);
    assert!(pair.client.is_asking_for(false));
    pair.settle();
    let newest = pair.client.children().last().unwrap();
    assert!(!newest.is_for_dhcp() && newest.ts_local == address);
    assert_eq!(pair.client.carrying(), Some(newest.spi_in));
    pair.client.rekey_ike(now, &mut rng);
    for _ in 0..4 {
        for datagram in pair.sent_by(Role::Initiator) {
            let _ = pair.deliver(Role::Responder, &datagram);
        }
        for datagram in pair.sent_by(Role::Responder) {
            let _ = pair.deliver(Role::Initiator, &datagram);
        }
    }
    let heir = pair.events(Role::Initiator).into_iter().find_map(|event| match event {
        SaEvent::Rekeyed(successor) => Some(successor.sa),
        _ => None,
    });
    let mut heir = heir.unwrap();
    assert!(heir.dhcp_child().is_some() && heir.has_data_child());
    heir.open_dhcp_sa(now, &mut rng);
    assert!(heir.is_asking_for(true));
}
