//! Transport mode for IP in IP (RFC 3884): agreed to, renewed, and made anew where the client is after a move.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::time::Duration;

use ropewalk_gateway::{Childless, Link};
use ropewalk_ike::exchange::child::Mode;
use ropewalk_ike::exchange::transport::{self, only_address};
use ropewalk_session::{Alone, Cause, Phase};
use ropewalk_sim::network::below;
use ropewalk_sim::setup::{CLIENT, GATEWAY};
use ropewalk_sim::{Auth, Faults, Setup, World};

const SOON: Duration = Duration::from_secs(2);
const MINUTE: Duration = Duration::from_secs(60);
const CAFE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 16, 5, 9));
/// What the gateway sees of a client behind the NAT.
const OUTSIDE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

/// A client that wants transport mode and a gateway that has a link for it.
fn setup(nat: bool) -> Setup {
    let mut setup = Setup::new(Auth::Psk);
    setup.client.initiator.mode = Mode::Transport;
    setup.client.initiator.keep_old = None;
    setup.gateway.links = vec![Link {
        client: "client@sim.test".to_owned(),
        addresses: vec!["10.255.0.1/31".parse().unwrap(), "fd00:255::1/127".parse().unwrap()],
    }];
    setup.nat = nat;
    setup
}

fn connected(setup: Setup, seed: u64) -> World {
    let mut world = World::new(setup, Faults::default(), seed);
    world.connect();
    assert!(world.run_to(Phase::Connected, SOON), "{:?}", world.client.session.snapshot());
    world.carry().unwrap();
    world
}

/// How often the client got in.
fn entries(world: &World) -> usize {
    world.gateway_log.iter().filter(|line| line.starts_with("up")).count()
}

/// The outer addresses that each end's only CHILD_SA is bound to.
fn bound(world: &World) -> ((IpAddr, IpAddr), (IpAddr, IpAddr)) {
    let [ours] = world.client.children.as_slice() else { panic!("{:?}", world.client.children) };
    assert_eq!((ours.mode, world.gateway_children.len()), (Mode::Transport, 1));
    let (_, theirs, _) = world.gateway_children.values().next().unwrap();
    (ours.outer().unwrap(), theirs.outer().unwrap())
}

/// Runs until the client sends from `own`, with a CHILD_SA between the addresses in use, and nothing of before is left.
fn arrives(world: &mut World, own: IpAddr, limit: Duration) {
    let there = |world: &World| {
        world.client.egress.is_some_and(|(_, path)| path.local.ip() == own)
            && world.client.phase() == Phase::Connected
            && world.agree_on_path()
    };
    assert!(world.run_until(limit, there), "{:?}", world.client.session.snapshot());
    world.carry().unwrap();
    let alone = |world: &World| {
        (world.client.children.len(), world.gateway_children.len(), world.client.sockets()) == (1, 1, 1)
    };
    assert!(world.run_until(MINUTE, alone), "{:?}", world.client.children);
    assert_eq!(bound(world).0, (own, GATEWAY));
}

#[test]
fn each_end_is_bound_to_the_addresses_that_it_sees_with_a_nat_and_without() {
    for (nat, seen) in [(false, CLIENT), (true, OUTSIDE)] {
        let world = connected(setup(nat), 300);
        assert_eq!(bound(&world), ((CLIENT, GATEWAY), (GATEWAY, seen)), "nat: {nat}");
        let child = world.client.children.first().unwrap();
        assert_eq!(child.ts_local, transport::selectors(CLIENT), "IP in IP and nothing else");
        assert_eq!(only_address(&child.ts_remote), Some(GATEWAY));
        assert_eq!(world.client.session.snapshot().alone, Some(Alone::Transport));
    }
}

#[test]
fn a_gateway_that_claims_to_be_behind_a_nat_and_ipv6_outside_do_as_well() {
    let mut forced = setup(false);
    forced.gateway.force_encapsulation = true;
    assert_eq!(bound(&connected(forced, 301)), ((CLIENT, GATEWAY), (GATEWAY, CLIENT)));
}

#[test]
fn the_link_has_the_gateways_addresses_with_their_prefix_or_the_profiles_own() {
    let world = connected(setup(true), 302);
    let tunnel = world.client.tunnel.as_ref().unwrap();
    let expected = [("10.255.0.1".parse().unwrap(), 32), ("fd00:255::1".parse().unwrap(), 127)];
    assert_eq!((tunnel.addresses.as_slice(), tunnel.link_prefix), (expected.as_slice(), Some(31)));
    let mut fixed = setup(true);
    fixed.client.initiator.request = Default::default();
    let world = connected(fixed, 303);
    assert!(world.client.tunnel.as_ref().unwrap().addresses.is_empty(), "nothing was asked for");
}

#[test]
fn a_gateway_that_refuses_or_gives_tunnel_mode_instead_is_left_and_the_user_told_why() {
    let mut without = setup(true);
    without.gateway.links.clear();
    // One that finds the outer addresses among the inner ones, and so gives what was not asked for.
    let mut instead = setup(false);
    instead.gateway.links.clear();
    let host = |address: IpAddr| ipnet::IpNet::new(address, 32).unwrap();
    instead.gateway.pools = vec![ipnet::IpNet::new(CLIENT, 24).unwrap().trunc()];
    instead.gateway.traffic = vec![host(GATEWAY)];
    let IpAddr::V4(own) = CLIENT else { panic!("{CLIENT}") };
    instead.client.initiator.request.ipv4 = Some(Some(own));
    for (setup, granted) in [(without, false), (instead, true)] {
        let mut world = World::new(setup, Faults::default(), 304);
        world.connect();
        let mut children = 0;
        let failed = |world: &World| {
            children = children.max(world.gateway_children.len());
            world.client.phase() == Phase::Failed
        };
        assert!(world.run_until(SOON, failed));
        assert_eq!(children > 0, granted);
        let error = world.client.session.snapshot().error.unwrap();
        assert_eq!(error.cause, Cause::NoProposal);
        assert!(error.message.contains("does not agree to transport mode"), "{}", error.message);
        assert!(error.hint.contains("tunnel.mode = \"tunnel\""), "{}", error.hint);
        world.run_for(SOON);
        assert!(world.gateway_children.is_empty(), "{:?}", world.gateway_log);
        assert!(world.client.children.is_empty());
    }
}

#[test]
fn a_gateway_that_wants_the_child_sa_in_an_exchange_of_its_own_does_not_agree_either() {
    let mut childless = setup(true);
    childless.gateway.childless = Childless::Force;
    let mut world = World::new(childless, Faults::default(), 305);
    world.connect();
    assert!(world.run_to(Phase::Failed, SOON), "{:?}", world.client.session.snapshot());
}

#[test]
fn a_client_that_does_not_ask_gets_tunnel_mode_though_it_has_a_link() {
    let mut plain = setup(true);
    plain.client.initiator.mode = Mode::Tunnel;
    let world = connected(plain, 306);
    assert_eq!(world.client.children.first().unwrap().mode, Mode::Tunnel);
    assert_eq!(world.inner_addresses().first(), Some(&"10.99.0.2".parse().unwrap()), "from the pool");
}

#[test]
fn a_move_makes_a_child_sa_between_the_new_addresses_and_then_deletes_the_old_one() {
    for nat in [false, true] {
        let mut world = connected(setup(nat), 307);
        let (addresses, old) = (world.inner_addresses(), world.client.children.first().unwrap().spi_in);
        world.move_client(&[CAFE]);
        assert_eq!(world.client.phase(), Phase::Connected, "not worth telling of");
        // One round trip for the IKE_SA, one for the CHILD_SA.
        arrives(&mut world, CAFE, Duration::from_millis(200));
        assert!(world.client.children.iter().all(|child| child.spi_in != old), "the old one is gone");
        assert_eq!(bound(&world), ((CAFE, GATEWAY), (GATEWAY, if nat { OUTSIDE } else { CAFE })));
        assert_eq!((world.inner_addresses(), entries(&world)), (addresses, 1));
        world.move_client(&[CLIENT]);
        arrives(&mut world, CLIENT, Duration::from_millis(200));
        assert_eq!(entries(&world), 1);
    }
}

#[test]
fn nothing_is_lost_on_the_way_to_a_better_network_while_the_old_one_is_there() {
    let mut world = connected(setup(false), 308);
    world.pings.every = Some(Duration::from_millis(10));
    world.run_for(Duration::from_secs(1));
    let from = world.now;
    world.move_client(&[CAFE, CLIENT]);
    arrives(&mut world, CAFE, MINUTE);
    world.run_for(Duration::from_secs(1));
    let until = world.now;
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.pings.lost(from, until).0, 0);
    assert_eq!(entries(&world), 1);
}

#[test]
fn two_hundred_moves_over_a_bad_network_leave_one_connection_and_one_child_sa() {
    let mut world = connected(setup(true), 309);
    world.network.faults = Faults { loss: 20, duplicate: 20, reorder: 50 };
    for round in 0..200 {
        let to = if round % 2 == 0 { CAFE } else { CLIENT };
        world.move_client(&[to]);
        arrives(&mut world, to, 10 * SOON);
    }
    assert_eq!(entries(&world), 1, "{:?}", world.gateway_log);
}

#[test]
fn moves_that_follow_each_other_before_the_answers_end_at_the_last_address() {
    let mut world = connected(setup(true), 310);
    for round in 0..50_u64 {
        world.move_client(&[CAFE]);
        world.run_for(Duration::from_millis(round * 3));
        world.move_client(&[CLIENT]);
        arrives(&mut world, CLIENT, 10 * SOON);
    }
    assert_eq!(entries(&world), 1, "{:?}", world.gateway_log);
}

#[test]
fn a_nat_that_forgets_the_client_makes_a_new_child_sa_through_the_new_mapping() {
    let mut world = connected(setup(true), 311);
    let old = world.client.children.first().unwrap().spi_in;
    world.network.rebind();
    let renewed = |world: &World| {
        world.agree_on_path() && world.client.children.iter().all(|child| child.spi_in != old)
    };
    assert!(world.run_until(MINUTE, renewed), "{:?}", world.client.session.snapshot());
    world.carry().unwrap();
    assert_eq!(entries(&world), 1);
}

#[test]
fn without_mobike_the_gateway_follows_to_another_port_of_the_same_address() {
    let mut plain = setup(true);
    plain.gateway.mobike = false;
    let mut world = connected(plain, 316);
    let old = world.client.children.first().unwrap().spi_in;
    world.network.rebind();
    assert!(!world.agree_on_path());
    assert!(world.run_until(MINUTE, World::agree_on_path), "the next liveness check tells");
    world.carry().unwrap();
    assert_eq!((world.client.children.first().unwrap().spi_in, entries(&world)), (old, 1));
}

#[test]
fn renewals_by_either_side_keep_the_mode_and_the_addresses() {
    for by_client in [true, false] {
        let mut renewing = setup(true);
        let lifetimes = if by_client {
            &mut renewing.client.initiator.lifetimes
        } else {
            &mut renewing.gateway.lifetimes
        };
        lifetimes.child = Some(Duration::from_secs(100));
        lifetimes.ike = Some(Duration::from_secs(330));
        let mut world = connected(renewing, 312);
        let mut spis = vec![world.client.children.first().unwrap().spi_in];
        for _ in 0..10 {
            world.run_for(Duration::from_secs(100));
            world.carry().unwrap();
            spis.push(world.client.egress.unwrap().0);
            assert!(world.client.children.iter().all(|child| child.mode == Mode::Transport));
        }
        spis.dedup();
        assert!(spis.len() > 8, "{spis:?}");
        assert_eq!((bound(&world).0, entries(&world)), ((CLIENT, GATEWAY), 1), "by the client: {by_client}");
    }
}

#[test]
fn a_new_login_keeps_the_mode() {
    let mut again = setup(true);
    again.client.reauth = Some(Duration::from_secs(100));
    let mut world = connected(again, 313);
    for _ in 0..5 {
        world.run_for(Duration::from_secs(100));
        world.carry().unwrap();
    }
    assert!(entries(&world) >= 4, "{:?}", world.gateway_log);
    assert!(world.client.children.iter().all(|child| child.mode == Mode::Transport));
}

#[test]
fn without_mobike_a_move_is_a_new_login_in_the_same_mode() {
    let mut plain = setup(true);
    plain.gateway.mobike = false;
    let mut world = connected(plain, 314);
    world.move_client(&[CAFE]);
    arrives(&mut world, CAFE, SOON);
    assert_eq!(entries(&world), 2);
}

#[test]
fn a_gateway_that_refuses_further_child_sas_is_entered_again_after_a_move() {
    let mut minimal = setup(true);
    minimal.gateway.minimal = true;
    let mut world = connected(minimal, 315);
    world.move_client(&[CAFE]);
    arrives(&mut world, CAFE, 5 * SOON);
    assert_eq!(entries(&world), 2, "{:?}", world.gateway_log);
}

#[test]
fn moves_renewals_and_new_logins_in_any_order_over_a_bad_network_end_in_one_usable_child_sa() {
    for seed in 0..20 {
        let mut busy = setup(seed % 2 == 0);
        busy.client.initiator.lifetimes.child = Some(Duration::from_secs(20));
        busy.client.initiator.lifetimes.ike = Some(Duration::from_secs(70));
        busy.client.reauth = Some(Duration::from_secs(110));
        let mut world = connected(busy, 400 + seed);
        world.network.faults = Faults { loss: 50, duplicate: 20, reorder: 50 };
        for _ in 0..100 {
            match below(&mut world.rng, 8) {
                0 => world.move_client(&[CAFE]),
                1 => world.move_client(&[CLIENT]),
                2 => world.move_client(&[CAFE, CLIENT]),
                3 => world.network.rebind(),
                event @ (4 | 5) => {
                    let (now, gateway) = (world.now, world.gateway.as_mut().unwrap());
                    gateway.rekey_all(now, event == 4, &mut world.rng);
                }
                _ => {}
            }
            let pause = u64::from(below(&mut world.rng, 3000));
            world.run_for(Duration::from_millis(pause));
        }
        world.network.faults = Faults::default();
        world.move_client(&[CLIENT]);
        // A NAT with another mapping is noticed by the next question, which renewals put off.
        world.run_for(SOON);
        let now = world.now;
        world.client.session.check_liveness(now, &mut world.rng);
        let usable = |world: &World| world.client.phase() == Phase::Connected && world.agree_on_path();
        assert!(world.run_until(MINUTE, usable), "seed {seed}: {:?}", world.client.session.snapshot());
        world.carry().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        world.run_for(Duration::from_secs(15));
        world.carry().unwrap_or_else(|error| panic!("seed {seed}, later: {error}"));
        assert!(world.client.children.iter().all(|child| child.mode == Mode::Transport));
        assert!(world.client.children.len() <= 4, "seed {seed}: {}", world.client.children.len());
    }
}
