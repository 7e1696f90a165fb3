//! Several paths at once: how they come to be, which one carries, and how they go.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use ropewalk_ike::exchange::lifetime::Lifetimes;
use ropewalk_ike::time::Instant;
use ropewalk_session::{Alone, Health, PathSnapshot, Phase, Policy};
use ropewalk_sim::network::{WayFaults, below};
use ropewalk_sim::setup::{CLIENT, GATEWAY};
use ropewalk_sim::{Auth, Faults, Setup, SimUplink, World};

mod coincidences;
mod ways;

const SECOND: Duration = Duration::from_secs(1);
const WIRE: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 5, 9));
const MOBILE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 64, 0, 7));
const DARK: WayFaults = WayFaults { dark: true, loss: 0, delay: 0 };

fn wifi() -> SimUplink {
    SimUplink::new(1, CLIENT)
}

fn wire() -> SimUplink {
    SimUplink::new(2, WIRE)
}

fn mobile() -> SimUplink {
    SimUplink { metered: true, ..SimUplink::new(3, MOBILE) }
}

fn several() -> Setup {
    let mut setup = Setup::new(Auth::Psk);
    setup.client.paths.multipath = true;
    setup.gateway.keep_old = setup.client.initiator.keep_old;
    setup
}

fn paths(world: &World) -> Vec<PathSnapshot> {
    world.client.session.snapshot().paths
}

fn working(world: &World) -> usize {
    paths(world).iter().filter(|path| path.health == Health::Good).count()
}

/// Connected, with so many paths that work.
fn connected(setup: Setup, uplinks: &[SimUplink], count: usize, seed: u64) -> World {
    let mut world = World::new(setup, Faults::default(), seed);
    world.set_uplinks(uplinks);
    world.connect();
    let there = |world: &World| working(world) == count && paths(world).len() == count;
    assert!(
        world.run_until(3 * SECOND, there),
        "{:?} {:?}",
        world.client.session.snapshot(),
        world.gateway_log
    );
    assert_eq!(world.client.phase(), Phase::Connected);
    world.carry().unwrap();
    world
}

fn ping(world: &mut World) -> Instant {
    world.pings.every = Some(Duration::from_millis(10));
    world.run_for(3 * SECOND);
    world.now
}

/// Our address on the path that carries.
fn carrying(world: &World) -> IpAddr {
    world.client.egress.unwrap().1.local.ip()
}

fn entries(world: &World) -> usize {
    world.gateway_log.iter().filter(|line| line.starts_with("up")).count()
}

fn ike_sas(world: &World) -> usize {
    world.gateway.as_ref().unwrap().ike_sas()
}

fn settled(world: &World, from: Instant) -> (usize, Duration) {
    // What is under way yet is not lost.
    world.pings.lost(from, Instant::from_start(world.now.since_start() - Duration::from_millis(400)))
}

#[test]
fn a_lost_carrier_costs_what_was_under_way() {
    let mut world = connected(several(), &[wifi(), wire()], 2, 4);
    let from = ping(&mut world);
    world.set_uplinks(&[wire()]);
    assert_eq!(carrying(&world), WIRE, "at once");
    assert_eq!(world.client.phase(), Phase::Connected);
    world.run_for(5 * SECOND);
    let (lost, _) = settled(&world, from);
    assert!(lost <= 3, "{lost} pings of a round trip of 20 ms were lost");
    assert_eq!((ike_sas(&world), entries(&world)), (1, 1));
    // And back, without flapping.
    let from = world.now;
    world.set_uplinks(&[wifi(), wire()]);
    world.run_for(60 * SECOND);
    assert_eq!((carrying(&world), working(&world)), (WIRE, 2));
    assert_eq!(settled(&world, from).0, 0);
}

#[test]
fn silence_is_left_within_a_second_and_not_returned_to() {
    // Up to a round trip of 0.4 s.
    for (seed, delay) in [(5, 0), (6, 30), (7, 80), (8, 140), (9, 190)] {
        let slow = WayFaults { delay, ..WayFaults::default() };
        let mut world = World::new(several(), Faults::default(), seed);
        world.network.ways.insert((CLIENT, GATEWAY), slow);
        world.network.ways.insert((WIRE, GATEWAY), slow);
        world.set_uplinks(&[wifi(), wire()]);
        world.connect();
        assert!(world.run_until(5 * SECOND, |world| working(world) == 2));
        let from = ping(&mut world);
        world.network.ways.insert((CLIENT, GATEWAY), DARK);
        world.run_for(5 * SECOND);
        assert_eq!((carrying(&world), world.client.phase()), (WIRE, Phase::Connected), "delay {delay}");
        let (_, longest) = settled(&world, from);
        assert!(longest <= SECOND, "delay {delay}: {longest:?}");
        world.network.ways.insert((CLIENT, GATEWAY), slow);
        let from = world.now;
        assert!(world.run_until(60 * SECOND, |world| working(world) == 2), "{:?}", paths(&world));
        world.run_for(60 * SECOND);
        assert_eq!(carrying(&world), WIRE, "no flapping, delay {delay} {:?}", paths(&world));
        assert_eq!(settled(&world, from).0, 0);
        assert_eq!((entries(&world), paths(&world).len()), (1, 2));
    }
}

#[test]
fn a_path_that_falls_silent_before_the_first_packet_is_left_within_a_second_of_it() {
    let mut world = connected(several(), &[wifi(), wire()], 2, 8);
    world.run_for(60 * SECOND);
    world.network.ways.insert((CLIENT, GATEWAY), DARK);
    world.run_for(Duration::from_millis(700));
    let from = world.now;
    world.pings.every = Some(Duration::from_millis(10));
    world.run_for(3 * SECOND);
    let (_, longest) = settled(&world, from);
    assert!(longest <= SECOND, "{longest:?}");
}

#[test]
fn what_has_failed_for_long_is_given_up_and_comes_back_when_it_works() {
    let mut world = connected(several(), &[wifi(), wire()], 2, 9);
    let from = ping(&mut world);
    world.network.ways.insert((CLIENT, GATEWAY), DARK);
    world.run_for(100 * SECOND);
    assert_eq!((paths(&world).len(), carrying(&world)), (1, WIRE));
    assert_eq!(world.client.session.snapshot().alone, Some(Alone::Unanswered));
    world.run_for(200 * SECOND);
    assert!(ike_sas(&world) <= 2, "{} IKE_SAs", ike_sas(&world));
    world.network.ways.clear();
    assert!(world.run_until(250 * SECOND, |world| working(world) == 2));
    assert_eq!((entries(&world), ike_sas(&world), carrying(&world)), (1, 2, WIRE));
    assert!(settled(&world, from).1 <= SECOND);
}

#[test]
fn a_gateway_that_does_not_keep_has_one_path_that_roams_and_the_reason_is_told() {
    let mut setup = several();
    setup.gateway.keep_old = None;
    let mut world = World::new(setup, Faults::default(), 10);
    world.set_uplinks(&[wifi(), wire()]);
    world.connect();
    assert!(world.run_to(Phase::Connected, SECOND));
    let first = world.client.session.snapshot().ike.unwrap().spis;
    world.run_for(5 * SECOND);
    assert_eq!(world.client.session.snapshot().alone, Some(Alone::NotKept));
    let second = world.client.session.snapshot().ike.unwrap().spis;
    assert_ne!(second, first, "an ordinary rekey");
    assert_eq!((ike_sas(&world), world.client.session.ike_sas(), world.client.sockets()), (1, 1, 1));
    world.carry().unwrap();
    ping(&mut world);
    world.set_uplinks(&[wire()]);
    assert!(world.run_until(SECOND, |world| carrying(world) == WIRE && world.agree_on_path()));
    world.run_for(600 * SECOND);
    assert_eq!(world.client.session.snapshot().ike.unwrap().spis, second, "it is not tried again");
    assert_eq!((world.client.phase(), entries(&world)), (Phase::Connected, 1));
    world.carry().unwrap();
}

#[test]
fn another_way_of_the_system_does_not_move_what_carries() {
    let mut world = connected(several(), &[wifi(), wire()], 2, 11);
    world.set_uplinks(&[wire(), wifi()]);
    world.run_for(30 * SECOND);
    assert_eq!((carrying(&world), working(&world), world.client.sockets()), (CLIENT, 2, 2));
}

#[test]
fn a_metered_network_carries_only_while_nothing_else_does() {
    let mut world = connected(several(), &[mobile(), wifi()], 2, 12);
    world.run_for(10 * SECOND);
    assert_eq!(carrying(&world), CLIENT);
    let from = ping(&mut world);
    world.set_uplinks(&[mobile()]);
    world.run_for(5 * SECOND);
    assert_eq!(carrying(&world), MOBILE);
    assert!(settled(&world, from).0 <= 3);
    world.set_uplinks(&[mobile(), wifi()]);
    world.run_for(15 * SECOND);
    assert_eq!(carrying(&world), CLIENT);
    assert!(settled(&world, from).0 <= 3);
}

#[test]
fn quiet_paths_are_probed_seldom() {
    let mut world = connected(several(), &[wifi(), mobile()], 2, 13);
    world.run_for(60 * SECOND);
    let before = world.network.datagrams();
    world.run_for(600 * SECOND);
    // Ten minutes: two datagrams every five seconds on the one, every minute on the other; and the gateway's own checks.
    let sent = world.network.datagrams() - before;
    assert!(sent <= 2 * (120 + 10) + 100, "{sent}");
}

#[test]
fn renewals_of_all_lose_nothing() {
    let mut setup = several();
    setup.client.initiator.lifetimes = Lifetimes {
        ike: Some(Duration::from_secs(70)),
        child: Some(Duration::from_secs(40)),
        child_octets: None,
    };
    let mut world = connected(setup, &[wifi(), wire()], 2, 14);
    let from = ping(&mut world);
    let before = paths(&world);
    for round in 0..6 {
        world.run_for(50 * SECOND);
        assert_eq!(working(&world), 2, "{round}: {:?}", paths(&world));
        world.carry().unwrap();
    }
    let after = paths(&world);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((before.id, before.path), (after.id, after.path));
        assert_ne!(before.spis, after.spis);
        assert_ne!(before.spi_in, after.spi_in);
    }
    world.run_for(5 * SECOND);
    assert_eq!(settled(&world, from).0, 0);
    let tidy = |world: &World| (world.gateway_children.len(), world.client.children.len()) == (2, 2);
    assert!(world.run_until(20 * SECOND, |world| tidy(world) && ike_sas(world) == 2));
    assert_eq!(entries(&world), 1);
    // The one that stands by is as good as it was.
    world.set_uplinks(&[wire()]);
    world.run_for(SECOND);
    world.carry().unwrap();
}

#[test]
fn a_new_login_replaces_all_paths_and_makes_them_anew() {
    let mut setup = several();
    setup.client.reauth = Some(Duration::from_secs(30));
    let mut world = connected(setup, &[wifi(), wire()], 2, 15);
    let from = ping(&mut world);
    world.run_for(40 * SECOND);
    assert!(entries(&world) > 1, "{:?}", world.gateway_log);
    assert_eq!(working(&world), 2);
    assert_eq!((world.client.children.len(), world.gateway_children.len()), (2, 2));
    assert!(settled(&world, from).0 <= 2, "{:?}", settled(&world, from));
}

#[test]
fn with_every_path_gone_it_reconnects_and_all_paths_return() {
    let mut world = connected(several(), &[wifi(), wire()], 2, 16);
    ping(&mut world);
    world.network.cut = true;
    assert!(world.run_to(Phase::Reconnecting, 10 * SECOND), "the state is honest");
    world.run_for(60 * SECOND);
    assert!(world.client.tunnel.is_some(), "the device stays");
    world.network.cut = false;
    assert!(
        world.run_until(120 * SECOND, |world| working(world) == 2),
        "{:?}",
        world.client.session.snapshot()
    );
    world.run_for(60 * SECOND);
    assert_eq!((world.client.phase(), ike_sas(&world)), (Phase::Connected, 2));
    world.set_uplinks(&[]);
    assert_eq!(world.client.phase(), Phase::Reconnecting);
    world.set_uplinks(&[wire(), wifi()]);
    assert!(world.run_until(10 * SECOND, |world| working(world) == 2 && paths(world).len() == 2));
    world.carry().unwrap();
}

#[test]
fn a_disconnect_and_a_gateway_that_disconnects_end_all_paths() {
    let mut world = connected(several(), &[wifi(), wire()], 2, 17);
    world.disconnect();
    assert!(world.run_to(Phase::Disconnected, 3 * SECOND));
    world.run_for(SECOND);
    assert_eq!((ike_sas(&world), world.client.children.len(), world.client.sockets()), (0, 0, 0));
    let mut world = connected(several(), &[wifi(), wire()], 2, 18);
    world.gateway_disconnects();
    assert!(world.run_until(30 * SECOND, |world| entries(world) == 2 && working(world) == 2));
    world.run_for(5 * SECOND);
    assert_eq!((ike_sas(&world), world.client.children.len()), (2, 2));
}

#[test]
fn a_gateway_that_restarted_is_entered_again_with_all_paths() {
    let mut world = connected(several(), &[wifi(), wire()], 2, 19);
    ping(&mut world);
    world.restart_gateway();
    assert!(world.run_until(60 * SECOND, |world| world.client.phase() == Phase::Connected
        && entries(world) == 2
        && working(world) == 2));
    world.carry().unwrap();
}

#[test]
fn after_a_sleep_both_paths_stand() {
    let mut world = connected(several(), &[wifi(), wire()], 2, 20);
    world.sleep(Duration::from_secs(90));
    assert!(
        world.run_until(10 * SECOND, |world| world.client.phase() == Phase::Connected && working(world) == 2)
    );
    assert_eq!((entries(&world), paths(&world).len()), (1, 2));
    world.carry().unwrap();
}

#[test]
fn a_path_that_loses_much_of_the_data_gets_no_flows_though_something_still_comes_through() {
    let mut setup = several();
    setup.client.paths.policy = Policy::Balance;
    let mut world = connected(setup, &[wifi(), wire()], 2, 14);
    ping(&mut world);
    let shares = |world: &World| world.client.carriage.as_ref().unwrap().shares.len();
    assert_eq!(shares(&world), 2);
    let first = carrying(&world);
    // A third each way: the pings go on by the path that carries, and half of them come back.
    world.network.ways.insert((first, GATEWAY), WayFaults { loss: 333, ..WayFaults::default() });
    assert!(world.run_until(8 * SECOND, |world| shares(world) == 0), "{:?}", paths(&world));
    assert_ne!(carrying(&world), first);
    let left = paths(&world).into_iter().find(|path| path.path.local.ip() == first).unwrap();
    assert_eq!(left.health, Health::Degraded);
    assert!(left.loss.unwrap() > 0.25, "{left:?}");
    // The gateway hears of it a moment later.
    world.run_for(SECOND);
    let from = world.now;
    world.run_for(30 * SECOND);
    assert_eq!(settled(&world, from).0, 0, "nothing is lost any more");
    // It works again, and shows that by its probes.
    world.network.ways.clear();
    assert!(world.run_until(60 * SECOND, |world| shares(world) == 2), "{:?}", paths(&world));
    assert_eq!((entries(&world), ike_sas(&world)), (1, 2));
}

#[test]
fn what_comes_late_from_the_old_path_never_turns_the_gateway_back() {
    let mut world = connected(several(), &[wifi(), wire()], 2, 21);
    ping(&mut world);
    // All that is sent on the old path arrives late, and overtaken, for a while; then nothing does.
    world.network.faults.reorder = 500;
    world.network.ways.insert((CLIENT, GATEWAY), WayFaults { delay: 700, ..WayFaults::default() });
    world.run_for(Duration::from_millis(200));
    world.network.ways.insert((CLIENT, GATEWAY), DARK);
    assert!(world.run_until(2 * SECOND, |world| carrying(world) == WIRE));
    world.network.ways.insert((CLIENT, GATEWAY), WayFaults { delay: 300, ..WayFaults::default() });
    world.run_for(SECOND);
    let from = world.now;
    for _ in 0..400 {
        world.run_for(Duration::from_millis(50));
        assert!(world.agree_on_path() && carrying(&world) == WIRE);
    }
    assert_eq!(settled(&world, from).0, 0);
}

#[test]
fn the_policy_can_be_changed_while_connected() {
    let mut world = connected(several(), &[wifi(), wire()], 2, 22);
    let set = |world: &mut World, policy| {
        let now = world.now;
        world.client.session.set_policy(now, policy, &mut world.rng);
        world.run_for(SECOND);
        world.client.carriage.clone().unwrap()
    };
    let shared = set(&mut world, Policy::Balance);
    assert_eq!((shared.shares.len(), shared.copies), (2, None));
    let copied = set(&mut world, Policy::Redundant);
    assert!(copied.shares.is_empty() && copied.copies.is_some_and(|copies| copies.id != copied.carrying.id));
    let alone = set(&mut world, Policy::Failover);
    assert!(alone.shares.is_empty() && alone.copies.is_none());
}

/// A hundred things happen to three networks, of which one always works and had the time to show it.
fn soak(seed: u64) {
    let all = [wifi(), wire(), SimUplink::new(3, MOBILE)];
    let mut world = connected(several(), &all, 3, 1000 + seed);
    let mut choices = ChaCha20Rng::seed_from_u64(seed);
    ping(&mut world);
    for round in 0..100 {
        let pick = |choices: &mut ChaCha20Rng| usize::try_from(below(choices, 3)).unwrap();
        let (safe, victim) = (pick(&mut choices), pick(&mut choices));
        world.network.ways.clear();
        world.set_uplinks(&all);
        let whole = world.run_until(40 * SECOND, |world| working(world) == 3);
        assert!(whole, "seed {seed}, round {round}: {:?}", world.client.session.snapshot());
        let from = world.now;
        if victim != safe {
            match below(&mut choices, 3) {
                0 => {
                    world.network.ways.insert((all[victim].addresses[0], GATEWAY), DARK);
                }
                1 => {
                    let left: Vec<SimUplink> =
                        all.iter().filter(|one| **one != all[victim]).cloned().collect();
                    world.set_uplinks(&left);
                }
                _ => {
                    let bad = WayFaults { loss: 200, ..WayFaults::default() };
                    world.network.ways.insert((all[victim].addresses[0], GATEWAY), bad);
                }
            }
        }
        world.run_for(Duration::from_millis(u64::from(500 + below(&mut choices, 6000))));
        assert_eq!(world.client.phase(), Phase::Connected, "seed {seed}, round {round}");
        let (_, longest) = settled(&world, from);
        assert!(longest <= SECOND, "seed {seed}, round {round}: {longest:?}, {:?}", paths(&world));
    }
    assert_eq!(entries(&world), 1, "seed {seed}");
    world.network.ways.clear();
    world.set_uplinks(&all);
    assert!(world.run_until(300 * SECOND, |world| working(world) == 3 && ike_sas(world) == 3), "seed {seed}");
    assert_eq!((world.client.children.len(), world.client.sockets()), (3, 3), "seed {seed}");
}

#[test]
fn a_hundred_things_that_happen_to_paths_stop_nothing_while_one_works() {
    for seed in 0..4 {
        soak(seed);
    }
}

#[test]
fn what_the_gateway_offers_becomes_a_path_where_one_is_lacking_and_is_declined_where_none_is() {
    let mut world = connected(several(), &[wifi()], 1, 26);
    let offer = |world: &mut World| {
        let now = world.now;
        assert_eq!(world.gateway.as_mut().unwrap().add_paths(now, &mut world.rng), 1);
    };
    offer(&mut world);
    world.run_for(3 * SECOND);
    assert_eq!((ike_sas(&world), world.client.session.ike_sas(), working(&world)), (1, 1, 1), "declined");
    // Both ask at the same moment.
    world.set_uplinks(&[wifi(), wire()]);
    offer(&mut world);
    assert!(world.run_until(5 * SECOND, |world| working(world) == 2));
    world.run_for(3 * SECOND);
    assert_eq!((ike_sas(&world), world.client.session.ike_sas(), paths(&world).len()), (2, 2, 2));
    world.carry().unwrap();
}

/// Appendix B.5 of the draft: the second IKE_SA is there with the first, so that the second path is up a round trip sooner.
#[test]
fn what_ike_auth_brought_becomes_the_second_path() {
    let mut setup = several();
    setup.client.initiator.keep_old_in_auth = true;
    setup.gateway.keep_old_in_auth = true;
    let mut world = connected(setup.clone(), &[wifi(), wire()], 1, 27);
    assert!(world.run_until(5 * SECOND, |world| working(world) == 2));
    world.run_for(3 * SECOND);
    assert_eq!((ike_sas(&world), world.client.session.ike_sas(), paths(&world).len()), (2, 2, 2));
    world.carry().unwrap();
    // With one uplink there is nothing to use it for, and to a gateway that is not set to it the asking does no harm.
    let mut world = connected(setup.clone(), &[wifi()], 1, 28);
    world.run_for(3 * SECOND);
    assert_eq!((ike_sas(&world), world.client.session.ike_sas(), working(&world)), (1, 1, 1));
    setup.gateway.keep_old_in_auth = false;
    let mut world = connected(setup, &[wifi(), wire()], 1, 29);
    assert!(world.run_until(5 * SECOND, |world| working(world) == 2));
    world.carry().unwrap();
}

#[test]
fn replayed_packets_neither_switch_the_gateway_nor_keep_a_dead_path_alive() {
    let mut world = connected(several(), &[wifi(), wire()], 2, 23);
    world.network.record();
    let from = ping(&mut world);
    // There and back, so that switch notices of both paths are among what is played again.
    world.network.ways.insert((CLIENT, GATEWAY), DARK);
    world.run_for(20 * SECOND);
    world.network.ways.clear();
    assert!(world.run_until(30 * SECOND, |world| working(world) == 2));
    world.network.ways.insert((WIRE, GATEWAY), DARK);
    world.run_for(5 * SECOND);
    world.network.ways.clear();
    assert!(world.run_until(30 * SECOND, |world| working(world) == 2));
    assert_eq!(carrying(&world), CLIENT);
    let (egress, back) = (world.client.egress, world.gateway_egress.clone());
    let recorded = world.network.recorded().to_vec();
    assert!(recorded.len() > 20);
    for datagram in &recorded {
        let to_gateway = datagram.destination.ip() == GATEWAY;
        let local = world.client.egress.unwrap().1.local;
        if to_gateway {
            let port = datagram.destination.port();
            world.forge_to_gateway("198.51.100.9:4500".parse().unwrap(), port, &datagram.bytes);
            world.forge_to_gateway(datagram.source, port, &datagram.bytes);
        } else {
            world.forge_to_client(4500, local, datagram.bytes.clone());
        }
        world.run_for(Duration::from_millis(10));
    }
    assert_eq!((world.client.egress, world.gateway_egress.clone()), (egress, back));
    assert_eq!((working(&world), entries(&world)), (2, 1));
    assert!(settled(&world, from).1 <= SECOND);
    // The gateway's old answers on a path that is dead are no sign of life.
    let answers: Vec<_> =
        recorded.into_iter().filter(|datagram| datagram.destination.ip() != GATEWAY).collect();
    world.network.ways.insert((CLIENT, GATEWAY), DARK);
    let died = world.now;
    let local = world.client.egress.unwrap().1.local;
    for datagram in answers.iter().cycle().take(300) {
        world.forge_to_client(4500, local, datagram.bytes.clone());
        world.run_for(Duration::from_millis(5));
    }
    assert_eq!(carrying(&world), WIRE);
    assert!(settled(&world, died).1 <= SECOND);
}
