//! A client that moves, loses its network, sleeps, or whose gateway falls silent.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::time::Duration;

use ropewalk_ike::wire::{ExchangeType, Message};
use ropewalk_session::Phase;
use ropewalk_sim::setup::{CLIENT, GATEWAY, GATEWAY_V6};
use ropewalk_sim::{Auth, Faults, Setup, World};

const SOON: Duration = Duration::from_secs(2);
const MINUTE: Duration = Duration::from_secs(60);
const CAFE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 16, 5, 9));
const SIX: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 9));

fn connected(setup: Setup, seed: u64) -> World {
    let mut world = World::new(setup, Faults::default(), seed);
    world.connect();
    assert!(world.run_to(Phase::Connected, SOON), "{:?}", world.client.session.snapshot());
    world.carry().unwrap();
    world
}

fn without_mobike() -> Setup {
    let mut setup = Setup::new(Auth::Psk);
    setup.gateway.mobike = false;
    setup
}

/// How often the client got in.
fn entries(world: &World) -> usize {
    world.gateway_log.iter().filter(|line| line.starts_with("up")).count()
}

fn message(world: &World) -> String {
    world.client.session.snapshot().error.map(|error| error.message).unwrap_or_default()
}

/// Runs until the client sends from `own` and both ends' traffic flows there.
fn arrives(world: &mut World, own: IpAddr, limit: Duration) {
    let there = |world: &World| {
        world.client.egress.is_some_and(|(_, path)| path.local.ip() == own)
            && world.client.phase() == Phase::Connected
            && world.agree_on_path()
    };
    assert!(world.run_until(limit, there), "{:?} {}", world.client.phase(), message(world));
    world.carry().unwrap();
    assert_eq!(world.client.sockets(), 1, "one socket is left");
}

#[test]
fn another_address_moves_the_connection_within_a_round_trip_and_keeps_everything() {
    let mut world = connected(Setup::new(Auth::Psk), 40);
    let (addresses, children) = (world.inner_addresses(), world.client.children.len());
    world.move_client(&[CAFE]);
    assert_eq!(world.client.phase(), Phase::Connected, "not worth telling of");
    arrives(&mut world, CAFE, Duration::from_millis(100));
    assert_eq!(world.inner_addresses(), addresses);
    assert_eq!((world.client.children.len(), entries(&world)), (children, 1));
    world.move_client(&[CLIENT]);
    arrives(&mut world, CLIENT, Duration::from_millis(100));
    assert_eq!(entries(&world), 1);
}

#[test]
fn a_move_before_the_gateway_has_the_answer_to_its_rekey_ends_nothing() {
    let mut world = connected(Setup::new(Auth::Psk), 44);
    let spis = |world: &World| world.client.session.snapshot().ike.unwrap().spis;
    let first = spis(&world);
    let now = world.now;
    world.gateway.as_mut().unwrap().rekey_all(now, true, &mut world.rng);
    assert!(world.run_until(SOON, |world| spis(world) != first));
    // The answer does not arrive; what the gateway repeats goes to where the client is no longer.
    world.network.cut = true;
    world.move_client(&[]);
    world.run_for(Duration::from_millis(100));
    world.network.cut = false;
    world.move_client(&[CAFE]);
    arrives(&mut world, CAFE, 2 * SOON);
    world.run_for(2 * SOON);
    let gateway = world.gateway.as_ref().unwrap();
    assert_eq!((entries(&world), world.client.session.ike_sas(), gateway.ike_sas()), (1, 1, 1));
}

#[test]
fn five_hundred_moves_over_a_bad_network_leave_one_connection_and_one_socket() {
    let faults = Faults { loss: 20, duplicate: 20, reorder: 50 };
    let mut world = connected(Setup::new(Auth::Psk), 41);
    world.network.faults = faults;
    for round in 0..500 {
        let to = if round % 2 == 0 { CAFE } else { CLIENT };
        world.move_client(&[to]);
        arrives(&mut world, to, 10 * SOON);
    }
    assert_eq!(entries(&world), 1, "{:?}", world.gateway_log);
    assert_eq!(world.gateway_children.len(), 1);
}

#[test]
fn a_better_network_is_tested_before_it_is_used() {
    let mut world = connected(Setup::new(Auth::Psk), 42);
    world.network.cut = true;
    world.move_client(&[CAFE, CLIENT]);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.client.egress.unwrap().1.local.ip(), CLIENT, "not before the gateway answers by it");
    world.network.cut = false;
    arrives(&mut world, CAFE, MINUTE);
    assert_eq!(entries(&world), 1);
}

#[test]
fn when_the_old_network_goes_during_the_test_of_the_new_one_it_moves_at_once() {
    let mut world = connected(Setup::new(Auth::Psk), 43);
    world.move_client(&[CAFE, CLIENT]);
    world.move_client(&[CAFE]);
    arrives(&mut world, CAFE, SOON);
    assert_eq!(entries(&world), 1);
}

#[test]
fn a_wake_up_while_a_better_network_is_tried_does_not_end_the_trying() {
    for nap in [1, 90] {
        let mut world = connected(Setup::new(Auth::Psk), 47);
        // Until nothing else is asked of the gateway.
        world.run_for(SOON);
        world.move_client(&[CAFE, CLIENT]);
        // Its test is on its way.
        world.sleep(Duration::from_secs(nap));
        arrives(&mut world, CAFE, 5 * MINUTE);
        assert_eq!(entries(&world), 1);
    }
}

#[test]
fn without_a_network_it_says_so_at_once_tries_nothing_and_goes_on_when_there_is_one() {
    for (setup, entered) in [(Setup::new(Auth::Psk), 1), (without_mobike(), 2)] {
        let mut world = connected(setup, 44);
        let addresses = world.inner_addresses();
        world.move_client(&[]);
        assert_eq!(world.client.phase(), Phase::Reconnecting);
        assert!(message(&world).contains("no network"), "{}", message(&world));
        let opened = world.client.opened;
        world.run_for(2 * MINUTE);
        assert_eq!(world.client.opened, opened, "no retry storm");
        assert_eq!(world.client.phase(), Phase::Reconnecting);
        assert!(world.client.tunnel.is_some(), "the device stays");
        world.move_client(&[CAFE]);
        arrives(&mut world, CAFE, Duration::from_secs(1));
        assert_eq!(world.inner_addresses(), addresses);
        assert_eq!(entries(&world), entered);
    }
}

#[test]
fn a_gateway_without_mobike_is_entered_again_at_once_with_the_same_inner_address_and_no_leftover() {
    let mut world = connected(without_mobike(), 45);
    let addresses = world.inner_addresses();
    world.move_client(&[CAFE]);
    assert_eq!(world.client.phase(), Phase::Reconnecting);
    arrives(&mut world, CAFE, Duration::from_millis(500));
    assert_eq!(world.inner_addresses(), addresses);
    assert!(world.gateway_log.contains(&"gone client@sim.test: DeletedByPeer".to_owned()));
    assert_eq!((entries(&world), world.gateway_children.len()), (2, 1));
}

#[test]
fn a_gateway_that_has_forgotten_the_client_meanwhile_is_entered_again_soon() {
    let mut world = connected(Setup::new(Auth::Psk), 46);
    world.restart_gateway();
    world.move_client(&[CAFE]);
    assert!(world.run_until(SOON, |world| world.client.phase() == Phase::Reconnecting));
    arrives(&mut world, CAFE, Duration::from_secs(7));
}

#[test]
fn an_address_that_the_gateway_refuses_is_not_used() {
    let mut setup = Setup::new(Auth::Psk);
    setup.nat = false;
    setup.gateway.refused_moves = vec!["172.16.0.0/12".parse().unwrap()];
    let mut world = connected(setup, 47);
    world.move_client(&[CAFE, CLIENT]);
    world.run_for(Duration::from_secs(1));
    world.carry().unwrap();
    assert_eq!(world.client.egress.unwrap().1.local.ip(), CLIENT);
    assert_eq!((world.client.phase(), entries(&world)), (Phase::Connected, 1));
    // And when there is no other: all anew from there.
    world.move_client(&[CAFE]);
    arrives(&mut world, CAFE, MINUTE);
    assert_eq!(entries(&world), 2);
}

#[test]
fn into_a_nat_and_out_of_it_the_connection_goes_along() {
    let mut setup = Setup::new(Auth::Psk);
    setup.nat = false;
    let mut world = connected(setup, 48);
    let nat = |world: &World| world.client.session.snapshot().ike.unwrap().nat.ours;
    assert!(!nat(&world));
    world.network.set_nat(true);
    world.move_client(&[CAFE]);
    arrives(&mut world, CAFE, SOON);
    assert!(nat(&world));
    world.network.set_nat(false);
    world.move_client(&[CLIENT]);
    arrives(&mut world, CLIENT, SOON);
    assert!(!nat(&world));
    assert_eq!(entries(&world), 1);
}

#[test]
fn from_ipv4_to_ipv6_and_back_when_the_gateway_has_told_of_both() {
    let mut setup = Setup::new(Auth::Psk);
    setup.gateway.addresses = vec![GATEWAY, GATEWAY_V6];
    let mut world = connected(setup, 49);
    world.move_client(&[SIX]);
    arrives(&mut world, SIX, SOON);
    assert_eq!(world.client.egress.unwrap().1.remote.ip(), GATEWAY_V6);
    world.move_client(&[CLIENT]);
    arrives(&mut world, CLIENT, SOON);
    assert_eq!(entries(&world), 1);
}

#[test]
fn a_dead_gateway_is_noticed_soon_when_there_is_traffic_and_the_state_does_not_lie() {
    let mut world = connected(Setup::new(Auth::Psk), 50);
    world.stop_gateway();
    let died = world.now;
    let mut noticed = None;
    for _ in 0..100 {
        world.traffic(false);
        world.run_for(Duration::from_millis(100));
        if noticed.is_none() && world.client.phase() == Phase::Reconnecting {
            noticed = Some(world.now - died);
        }
    }
    let noticed = noticed.expect("nothing was said of a dead gateway");
    assert!(noticed <= Duration::from_millis(4500), "{noticed:?}");
    world.restart_gateway();
    assert!(world.run_to(Phase::Connected, 2 * MINUTE));
    world.carry().unwrap();
}

#[test]
fn traffic_that_nobody_answers_is_no_reason_to_call_a_living_gateway_dead() {
    let mut world = connected(Setup::new(Auth::Psk), 55);
    for _ in 0..3000 {
        world.traffic(false);
        let connected = |world: &World| world.client.phase() != Phase::Connected;
        assert!(!world.run_until(Duration::from_millis(100), connected), "{}", message(&world));
    }
    assert_eq!(entries(&world), 1);
}

#[test]
fn a_hint_in_the_clear_speeds_up_the_check_and_ends_nothing() {
    use ropewalk_ike::wire::{ExchangeType, Flags, Header, Notify, NotifyType, Payload, emit_message};
    let mut world = connected(Setup::new(Auth::Psk), 51);
    let spis = world.client.session.snapshot().ike.unwrap().spis;
    let local = world.client.egress.unwrap().1.local;
    let hint = |notify| {
        let header = Header {
            spi_i: spis.initiator,
            spi_r: spis.responder,
            next_payload: 0,
            exchange: ExchangeType::Informational,
            flags: Flags { initiator: false, response: true, version: false },
            message_id: 9,
        };
        emit_message(&header, &[Payload::Notify(notify)])
    };
    let before = world.network.datagrams();
    for _ in 0..1000 {
        world.forge_to_client(4500, local, hint(Notify::status(NotifyType::InvalidIkeSpi)));
    }
    world.run_for(Duration::from_secs(1));
    let sent = world.network.datagrams() - before;
    assert!((2..=8).contains(&sent), "one check and its answer, not {sent} datagrams");
    assert_eq!((world.client.phase(), entries(&world)), (Phase::Connected, 1));
    // When it is true, the connection is back long before the next check would have been due.
    let spi_out = world.client.children[0].spi_out;
    world.restart_gateway();
    world.run_for(Duration::from_secs(6));
    // Such a message has no SPIs of an IKE_SA to name (RFC 7296 section 1.5).
    world.forge_to_client(4500, local, ropewalk_gateway::stray::invalid_spi(spi_out));
    assert!(world.run_until(Duration::from_secs(18), |world| entries(world) == 2));
}

#[test]
fn after_a_short_sleep_it_is_connected_only_once_the_gateway_has_answered() {
    let mut world = connected(Setup::new(Auth::Psk), 52);
    world.sleep(Duration::from_secs(90));
    assert_eq!(world.client.phase(), Phase::Reconnecting);
    assert!(message(&world).contains("slept"), "{}", message(&world));
    assert!(world.run_to(Phase::Connected, Duration::from_millis(100)));
    assert_eq!(entries(&world), 1);
    world.carry().unwrap();
}

#[test]
fn after_a_sleep_with_a_gateway_that_forgot_it_is_never_connected_while_dead() {
    let mut world = connected(Setup::new(Auth::Psk), 53);
    world.restart_gateway();
    world.sleep(Duration::from_secs(90));
    let honest = |world: &World| entries(world) == 1 && world.client.phase() == Phase::Connected;
    assert!(!world.run_until(Duration::from_secs(3), honest), "connected to nobody");
    assert!(world.run_until(Duration::from_secs(8), |world| entries(world) == 2));
}

#[test]
fn a_sleep_into_another_network_moves_and_a_long_one_sets_up_anew() {
    let mut world = connected(Setup::new(Auth::Psk), 54);
    world.sleep(Duration::from_secs(120));
    world.move_client(&[CAFE]);
    arrives(&mut world, CAFE, SOON);
    assert_eq!(entries(&world), 1);
    let addresses = world.inner_addresses();
    world.sleep(Duration::from_secs(3600));
    assert_eq!(world.client.phase(), Phase::Reconnecting);
    arrives(&mut world, CAFE, SOON);
    assert_eq!(world.inner_addresses(), addresses);
    assert!(entries(&world) >= 2);
}

#[test]
fn the_gateways_further_addresses_are_for_moves_and_for_nothing_else() {
    let mut setup = Setup::new(Auth::Psk);
    setup.gateway.addresses = vec![GATEWAY, GATEWAY_V6];
    let mut world = connected(setup, 61);
    world.network.record();
    world.stop_gateway();
    world.client.session.check_liveness(world.now, &mut world.rng);
    assert!(world.run_to(Phase::Reconnecting, MINUTE));
    world.run_for(5 * MINUTE);
    let begun = |bytes: &[u8]| {
        Message::parse(bytes).is_ok_and(|message| message.header.exchange == ExchangeType::IkeSaInit)
    };
    let first = world.network.recorded().iter().filter(|datagram| begun(&datagram.bytes));
    let asked: Vec<IpAddr> = first.map(|datagram| datagram.destination.ip()).collect();
    assert!(!asked.is_empty() && asked.iter().all(|to| *to == GATEWAY), "{asked:?}");
}
