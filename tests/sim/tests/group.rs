//! Multi-point SA (draft-yamaya-ipsecme-mpsa): what a gateway hands out, rolls over and takes back.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use ropewalk_gateway::GroupSettings;
use ropewalk_ike::multi_point::group_sa::{GroupPolicy, Refusal};
use ropewalk_ike::proposal::parse_esp_list;
use ropewalk_ike::wire::{ExchangeType, Message, Payload};
use ropewalk_session::Phase;
use ropewalk_sim::setup::CLIENT;
use ropewalk_sim::{Auth, Faults, Setup, World};

const SOON: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);

fn setup() -> Setup {
    let mut setup = Setup::new(Auth::Psk);
    setup.client.initiator.multi_point_sa = Some(GroupPolicy::default());
    setup.gateway.group = Some(GroupSettings::default());
    setup
}

fn connected(setup: Setup, faults: Faults, seed: u64) -> World {
    let mut world = World::new(setup, faults, seed);
    world.network.record();
    world.connect();
    assert!(world.run_to(Phase::Connected, 10 * SOON), "{:?}", world.client.session.snapshot());
    world.run_for(SOON);
    world
}

fn announcements(world: &World) -> Vec<bool> {
    let init = |bytes: &Vec<u8>| {
        let parsed = Message::parse(bytes).ok()?;
        let announces =
            |payload: &Payload| matches!(payload, Payload::VendorId(id) if id.is_multi_point_sa());
        (parsed.header.exchange == ExchangeType::IkeSaInit).then(|| parsed.payloads.iter().any(announces))
    };
    world.network.recorded().iter().filter_map(|datagram| init(&datagram.bytes)).collect()
}

#[test]
fn both_announce_it_and_the_client_gets_the_groups_sa() {
    let world = connected(setup(), Faults::default(), 1);
    assert_eq!(announcements(&world), [true, true]);
    let [sa] = world.client.group.as_slice() else { panic!("{:?}", world.client.group) };
    assert_eq!(world.client.group_egress, Some(sa.spi));
    let info = world.client.session.snapshot().group.unwrap();
    assert_eq!((info.sending, info.receiving, info.refused), (Some(sa.spi), vec![sa.spi], None));
}

#[test]
fn without_the_gateways_announcement_there_is_no_group() {
    let mut no_gateway = setup();
    no_gateway.gateway.group = None;
    let world = connected(no_gateway, Faults::default(), 2);
    assert_eq!(announcements(&world), [true, false]);
    assert!(world.client.group.is_empty());
    assert!(!world.client.session.snapshot().ike.unwrap().features.multi_point);

    let mut no_client = setup();
    no_client.client.initiator.multi_point_sa = None;
    let world = connected(no_client, Faults::default(), 3);
    assert_eq!(announcements(&world), [false, false]);
    assert!(world.client.group.is_empty() && world.client.session.snapshot().group.is_none());
}

#[test]
fn a_new_sa_is_heard_at_once_spoken_after_roll1_and_alone_after_roll2() {
    let mut world = connected(setup(), Faults::default(), 4);
    let first = world.client.group_egress.unwrap();
    // The times of GroupSettings::default, from the client's entry on.
    assert!(!world.run_until(2990 * SECOND, |world| world.client.group.len() > 1));
    assert!(world.run_until(15 * SECOND, |world| world.client.group.len() == 2));
    let second = world.client.group[1].spi;
    assert_ne!(first, second);
    assert!(!world.run_until(59 * SECOND, |world| world.client.group_egress != Some(first)));
    assert!(world.run_until(2 * SECOND, |world| world.client.group_egress == Some(second)));
    assert!(!world.run_until(58 * SECOND, |world| world.client.group.len() != 2));
    assert!(world.run_until(2 * SECOND, |world| world.client.group.len() == 1));
    assert_eq!(world.client.group[0].spi, second);
}

#[test]
fn a_day_of_rollovers_over_a_bad_network_leaves_never_more_than_two_and_always_one() {
    for seed in 0..4 {
        let faults = Faults { loss: 20, duplicate: 20, ..Faults::default() };
        let mut world = connected(setup(), faults, 50 + seed);
        let wrong = |world: &World| {
            let client = &world.client;
            let sending = client.group_egress.and_then(|spi| client.group.iter().find(|sa| sa.spi == spi));
            sending.is_none() || client.group.len() > 2
        };
        let failed = world.run_until(Duration::from_secs(86_400), wrong);
        assert!(!failed, "seed {seed} at {:?}: {:?}", world.now, world.client.group);
    }
}

#[test]
fn it_survives_a_rekey_and_a_move_and_goes_with_the_connection() {
    let mut world = connected(setup(), Faults::default(), 5);
    let first = world.client.group_egress;
    world.gateway.as_mut().unwrap().rekey_all(world.now, true, &mut world.rng);
    world.run_for(SOON);
    assert_eq!(world.client.group_egress, first);
    world.gateway.as_mut().unwrap().renew_group(world.now, &mut world.rng);
    world.run_for(SOON);
    assert_eq!(world.client.group.len(), 2, "the new IKE_SA listens, too");
    world.move_client(&["198.51.100.77".parse().unwrap(), CLIENT]);
    world.run_for(5 * SECOND);
    assert_eq!(world.client.group.len(), 2);
    world.disconnect();
    assert!(world.run_to(Phase::Disconnected, SOON));
    assert!(world.client.group.is_empty() && world.client.group_egress.is_none());
}

#[test]
fn what_the_gateway_takes_back_goes() {
    let mut world = connected(setup(), Faults::default(), 6);
    world.gateway.as_mut().unwrap().end_group(world.now, &mut world.rng);
    world.run_for(SOON);
    assert!(world.client.group.is_empty() && world.client.group_egress.is_none());
    assert_eq!(world.client.phase(), Phase::Connected);
    world.carry().unwrap();
}

#[test]
fn a_suite_that_is_not_taken_is_told_and_the_connection_stays() {
    let mut weak = setup();
    weak.gateway.group = Some(GroupSettings { prf: 2, integ: 2, sk_d_len: 20, ..GroupSettings::default() });
    let mut counter = setup();
    counter.gateway.group = Some(GroupSettings { encr: 20, integ: 0, ..GroupSettings::default() });
    for (setup, expected) in [(weak.clone(), Refusal::Sha1), (counter, Refusal::CounterMode { encr: 20 })] {
        let mut world = connected(setup, Faults::default(), 7);
        assert!(world.client.group.is_empty());
        assert_eq!(world.client.session.snapshot().group.unwrap().refused, Some(expected));
        world.carry().unwrap();
    }
    weak.client.initiator.multi_point_sa = Some(GroupPolicy { allow_sha1: true });
    let world = connected(weak, Faults::default(), 8);
    assert_eq!(world.client.group.len(), 1);
}

#[test]
fn childless_clients_get_it_too() {
    let mut setup = setup();
    setup.gateway.childless = ropewalk_gateway::Childless::Force;
    setup.client.initiator.esp_proposals = parse_esp_list(&["aes256gcm16"]).unwrap();
    let world = connected(setup, Faults::default(), 9);
    assert_eq!(world.client.group.len(), 1);
}
