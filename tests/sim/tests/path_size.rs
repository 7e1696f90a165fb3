//! Paths that swallow large packets without a word: what they carry is found out, with loss and reordering, on every path, and
//! nothing of it looks like a dead gateway.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ropewalk_session::{PathSize, Phase};
use ropewalk_sim::client::SIZES;
use ropewalk_sim::network::WayFaults;
use ropewalk_sim::setup::{CLIENT, GATEWAY};
use ropewalk_sim::{Auth, Faults, Setup, World};

const SECOND: Duration = Duration::from_secs(1);
/// IPv4, UDP, non-ESP marker: what the simulated network does not see of a packet.
const AROUND: usize = 20 + 8 + 4;
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 5, 9));

fn connected(faults: Faults, carries: usize, seed: u64) -> World {
    let mut world = World::new(Setup::new(Auth::Psk), faults, seed);
    world.network.largest = Some(carries - AROUND);
    world.connect();
    assert!(world.run_to(Phase::Connected, 20 * SECOND), "seed {seed}");
    world
}

/// What is known of the path in use.
fn size(world: &World) -> PathSize {
    let (_, path) = world.client.egress.expect("a way out");
    world.client.sizes[&path.link]
}

fn known(octets: usize) -> PathSize {
    PathSize { surely: octets, perhaps: octets }
}

#[test]
fn a_path_that_carries_all_is_known_after_two_round_trips() {
    let mut world = connected(Faults::default(), 1500, 1);
    assert_eq!(size(&world), PathSize { surely: SIZES.usual, perhaps: SIZES.most });
    // One for the round trip itself.
    world.run_for(Duration::from_millis(100));
    assert_eq!(size(&world), known(SIZES.most));
    let before = world.network.datagrams();
    world.run_for(15 * SECOND);
    assert_eq!(world.network.datagrams(), before, "and nothing more is asked while nothing is carried");
}

#[test]
fn the_only_path_has_a_round_trip_to_show_and_another_one_after_a_move() {
    let mut world = connected(Faults::default(), 1500, 1);
    world.run_for(Duration::from_millis(100));
    let rtt = |world: &World| world.client.session.snapshot().paths[0].rtt;
    let here = rtt(&world).expect("the size was asked for");
    assert!((20..40).contains(&here.as_millis()), "{here:?}: twice what the network takes");
    world.network.ways.insert((OTHER, GATEWAY), WayFaults { delay: 100, ..WayFaults::default() });
    world.move_client(&[OTHER]);
    world.run_for(5 * SECOND);
    let there = rtt(&world).expect("the move was answered");
    assert!((220..240).contains(&there.as_millis()), "{there:?}");
}

#[test]
fn what_a_path_swallows_is_found_out_and_the_connection_stands() {
    for (seed, carries) in [576, 700, 1000, 1280, 1343, 1344, 1360, 1400, 1420, 1463].into_iter().enumerate()
    {
        let mut world = connected(Faults::default(), carries, seed as u64);
        // Until the first loss is noticed.
        world.run_for(Duration::from_millis(400));
        let cautious = size(&world);
        assert!(cautious.perhaps <= SIZES.usual, "{carries}: {cautious:?}");
        world.run_for(20 * SECOND);
        let found = size(&world);
        assert!(found.surely <= carries && carries < found.surely + 17, "{carries}: {found:?}");
        assert_eq!(found.surely, found.perhaps);
        assert_eq!((world.client.phase(), world.client.session.ike_sas()), (Phase::Connected, 1));
        assert!(world.gateway_log.iter().filter(|line| line.starts_with("up")).count() == 1, "one login");
    }
}

#[test]
fn loss_and_reordering_do_not_make_a_good_path_narrow() {
    for seed in 0..40 {
        let faults = Faults { loss: 20, duplicate: 20, reorder: 50 };
        let mut world = connected(faults, 1500, seed);
        world.run_for(10 * SECOND);
        assert_eq!(size(&world), known(SIZES.most), "seed {seed}");
    }
}

#[test]
fn a_hole_that_opens_under_traffic_is_noticed() {
    for busy in [false, true] {
        let mut world = connected(Faults::default(), 1500, 5);
        world.run_for(20 * SECOND);
        assert_eq!(size(&world), known(SIZES.most));
        world.network.largest = Some(1400 - AROUND);
        // Large packets vanish; with others that are carried beside them that takes a look at the clock to notice.
        let limit = if busy { 320 } else { 50 };
        let mut noticed = None;
        for tenth in 0..limit {
            world.traffic(busy);
            world.run_for(Duration::from_millis(100));
            if size(&world).perhaps <= 1400 {
                noticed = Some(tenth);
                break;
            }
        }
        let noticed = noticed.unwrap_or_else(|| panic!("busy {busy}: {:?}", size(&world)));
        assert!(busy || noticed < 30, "after {noticed} tenths of a second");
        world.run_for(15 * SECOND);
        assert!((1384..=1400).contains(&size(&world).surely), "{:?}", size(&world));
        assert_eq!(world.client.phase(), Phase::Connected);
    }
}

#[test]
fn each_path_is_measured_after_a_move() {
    let mut world = connected(Faults::default(), 1400, 6);
    world.run_for(20 * SECOND);
    assert!(size(&world).surely <= 1400);
    world.network.largest = None;
    world.move_client(&[OTHER]);
    assert!(world.run_until(10 * SECOND, |world| {
        world.client.egress.is_some_and(|(_, path)| path.local.ip() == OTHER)
    }));
    assert_eq!(size(&world).surely, SIZES.usual, "nothing is known of the new one");
    world.run_for(SECOND);
    assert_eq!(size(&world), known(SIZES.most));
    world.network.largest = Some(1360 - AROUND);
    world.move_client(&[CLIENT]);
    world.run_for(15 * SECOND);
    assert!((1344..=1360).contains(&size(&world).surely), "{:?}", size(&world));
    assert_eq!(world.client.phase(), Phase::Connected);
}

#[test]
fn a_path_that_carries_more_again_is_used_so_after_ten_minutes() {
    let mut world = connected(Faults::default(), 1400, 7);
    world.run_for(20 * SECOND);
    world.network.largest = None;
    world.run_for(580 * SECOND);
    assert!(size(&world).perhaps <= 1400);
    world.run_for(60 * SECOND);
    assert_eq!(size(&world), known(SIZES.most));
}

#[test]
fn a_gateway_without_fragmentation_is_asked_as_well() {
    let mut setup = Setup::new(Auth::Psk);
    setup.gateway.fragmentation = false;
    let mut world = World::new(setup, Faults::default(), 8);
    world.network.largest = Some(1400 - AROUND);
    world.connect();
    assert!(world.run_to(Phase::Connected, 20 * SECOND));
    world.run_for(15 * SECOND);
    assert!((1384..=1400).contains(&size(&world).surely), "{:?}", size(&world));
    assert_eq!(world.client.phase(), Phase::Connected);
}

#[test]
fn a_login_with_certificates_passes_a_path_that_swallows_what_is_above_1000_octets() {
    // The gateway's pieces are small, as its administrator can set; the client finds out by itself.
    let mut world = World::new(Setup::new(Auth::Rsa), Faults::default(), 9);
    world.network.largest_from_client = Some(1000 - AROUND);
    world.connect();
    assert!(world.run_to(Phase::Connected, 20 * SECOND));
}
