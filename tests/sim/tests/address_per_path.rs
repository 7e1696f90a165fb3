//! An inner address of its own for each path (`paths.address_per_path`): who gets which, what goes by which, and what becomes of
//! them when a path goes.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ropewalk_ike::exchange::lifetime::Lifetimes;
use ropewalk_ike::time::Instant;
use ropewalk_session::{Alone, Carriage, Health};
use ropewalk_sim::network::WayFaults;
use ropewalk_sim::setup::{CLIENT, GATEWAY};
use ropewalk_sim::{Auth, Faults, Setup, SimUplink, World};

const SECOND: Duration = Duration::from_secs(1);
const WIRE: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 5, 9));
const MOBILE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 64, 0, 7));

fn wifi() -> SimUplink {
    SimUplink::new(1, CLIENT)
}

fn wire() -> SimUplink {
    SimUplink::new(2, WIRE)
}

fn mobile() -> SimUplink {
    SimUplink::new(3, MOBILE)
}

fn own_addresses() -> Setup {
    let mut setup = Setup::new(Auth::Psk);
    setup.client.paths.multipath = true;
    setup.client.paths.address_per_path = true;
    setup.gateway.keep_old = setup.client.initiator.keep_old;
    setup
}

fn working(world: &World) -> usize {
    let paths = world.client.session.snapshot().paths;
    paths.iter().filter(|path| path.health == Health::Good).count()
}

fn connected(setup: Setup, uplinks: &[SimUplink], seed: u64) -> World {
    let mut world = World::new(setup, Faults::default(), seed);
    world.set_uplinks(uplinks);
    world.connect();
    let count = uplinks.len();
    assert!(
        world.run_until(5 * SECOND, |world| working(world) == count),
        "{:?} {:?}",
        world.client.session.snapshot(),
        world.gateway_log
    );
    world
}

fn v4(world: &World) -> Vec<String> {
    let all = world.inner_addresses();
    all.iter().filter(|address| address.is_ipv4()).map(ToString::to_string).collect()
}

fn carriage(world: &World) -> &Carriage {
    world.client.carriage.as_ref().unwrap()
}

/// Our outer address of the path that packets from this inner address leave by.
fn leaves_by(world: &World, inner: &str) -> IpAddr {
    let inner: IpAddr = inner.parse().unwrap();
    carriage(world).by_source.iter().find(|(source, _)| *source == inner).unwrap().1.path.local.ip()
}

/// The gateway sends to each inner address by the path that it comes from, with a CHILD_SA for it and no other.
fn check_gateway(world: &World) {
    for (inner, lane) in &carriage(world).by_source {
        let spi = world.gateway_egress[inner];
        let (_, child, _) = &world.gateway_children[&spi];
        assert_eq!(child.spi_out, lane.spi_in, "{inner}");
        let theirs: Vec<IpAddr> = child.ts_remote.selectors.iter().map(|selector| selector.start()).collect();
        assert!(theirs.contains(inner), "{inner}: {theirs:?}");
        let ours = world.client.children.iter().find(|child| child.spi_in == lane.spi_in).unwrap();
        assert_eq!(ours.ts_local, child.ts_remote);
        for (other, other_lane) in &carriage(world).by_source {
            assert!(other_lane.spi_in == lane.spi_in || !theirs.contains(other), "{other} by {inner}'s");
        }
    }
}

#[test]
fn each_path_gets_an_address_and_what_has_it_goes_by_that_path() {
    let world = connected(own_addresses(), &[wifi(), wire(), mobile()], 1);
    assert_eq!(v4(&world), ["10.99.0.2", "10.99.0.3", "10.99.0.4"]);
    assert_eq!(world.inner_addresses().len(), 6, "of both families");
    for (inner, outer) in [("10.99.0.2", CLIENT), ("10.99.0.3", WIRE), ("10.99.0.4", MOBILE)] {
        assert_eq!(leaves_by(&world, inner), outer);
    }
    assert_eq!(carriage(&world).by_source.len(), 6);
    assert!(carriage(&world).shares.is_empty() && carriage(&world).copies.is_none());
    check_gateway(&world);
    let clients = world.gateway.as_ref().unwrap().clients();
    assert_eq!((clients.len(), clients[0].addresses.len()), (1, 6), "{clients:?}");
}

#[test]
fn with_a_path_its_address_goes_and_with_its_network_the_same_one_comes_back() {
    let mut world = connected(own_addresses(), &[wifi(), wire(), mobile()], 2);
    world.set_uplinks(&[wire(), mobile()]);
    world.run_for(SECOND);
    let carrying = carriage(&world).carrying.path.local.ip();
    assert!(carrying == WIRE || carrying == MOBILE);
    let (first, second) = if carrying == WIRE { (3, 4) } else { (4, 3) };
    // What carries comes first: new flows take it.
    assert_eq!(v4(&world), [format!("10.99.0.{first}"), format!("10.99.0.{second}")]);
    check_gateway(&world);
    assert_eq!(leaves_by(&world, "10.99.0.3"), WIRE, "the others are as they were");
    assert!(!world.gateway_egress.contains_key(&"10.99.0.2".parse().unwrap()));
    // Whichever comes back first, each gets its own.
    world.set_uplinks(&[mobile()]);
    world.run_for(2 * SECOND);
    assert_eq!(v4(&world), ["10.99.0.4"]);
    world.set_uplinks(&[mobile(), wire()]);
    assert!(world.run_until(10 * SECOND, |world| working(world) == 2));
    assert_eq!(leaves_by(&world, "10.99.0.3"), WIRE);
    world.set_uplinks(&[mobile(), wire(), wifi()]);
    assert!(world.run_until(10 * SECOND, |world| working(world) == 3));
    assert_eq!(leaves_by(&world, "10.99.0.2"), CLIENT);
    assert_eq!(v4(&world)[0], "10.99.0.4", "nothing moves back");
    check_gateway(&world);
    let log = world.gateway_log.iter().filter(|line| line.starts_with("up")).count();
    assert_eq!(log, 1, "{:?}", world.gateway_log);
}

#[test]
fn a_path_that_falls_silent_is_not_what_new_flows_take() {
    let mut world = connected(own_addresses(), &[wifi(), wire()], 3);
    world.pings.every = Some(Duration::from_millis(10));
    world.run_for(3 * SECOND);
    let from = world.now;
    world.network.ways.insert((CLIENT, GATEWAY), WayFaults { dark: true, ..WayFaults::default() });
    world.run_for(3 * SECOND);
    // The pings take the way of new flows.
    let (_, longest) = world.pings.lost(from, Instant::from_start(world.now.since_start() - SECOND / 2));
    assert!(longest <= SECOND, "{longest:?}");
    assert_eq!(v4(&world), ["10.99.0.3", "10.99.0.2"]);
    check_gateway(&world);
}

#[test]
fn renewals_and_a_new_login_keep_or_make_anew_what_each_has() {
    let mut setup = own_addresses();
    setup.client.initiator.lifetimes = Lifetimes {
        ike: Some(Duration::from_secs(70)),
        child: Some(Duration::from_secs(40)),
        child_octets: None,
    };
    let mut world = connected(setup.clone(), &[wifi(), wire()], 4);
    let before = v4(&world);
    let spis: Vec<u32> = carriage(&world).by_source.iter().map(|(_, lane)| lane.spi_in).collect();
    world.run_for(200 * SECOND);
    assert_eq!(v4(&world), before);
    check_gateway(&world);
    assert!(carriage(&world).by_source.iter().all(|(_, lane)| !spis.contains(&lane.spi_in)));
    setup.client.reauth = Some(Duration::from_secs(30));
    let mut world = connected(setup, &[wifi(), wire()], 5);
    world.run_for(100 * SECOND);
    assert!(world.run_until(10 * SECOND, |world| working(world) == 2));
    assert_eq!(v4(&world).len(), 2, "{:?}", v4(&world));
    check_gateway(&world);
}

#[test]
fn a_gateway_that_grants_no_more_has_one_address_for_all_paths() {
    let mut setup = own_addresses();
    setup.gateway.address_per_path = false;
    let mut world = connected(setup, &[wifi(), wire()], 6);
    assert_eq!(v4(&world), ["10.99.0.2"]);
    assert!(carriage(&world).by_source.is_empty());
    world.carry().unwrap();
    world.set_uplinks(&[wire()]);
    world.run_for(SECOND);
    assert_eq!(v4(&world), ["10.99.0.2"]);
    world.carry().unwrap();
}

#[test]
fn a_pool_that_is_used_up_leaves_the_path_out_and_the_rest_as_it_is() {
    let mut setup = own_addresses();
    setup.gateway.pools = vec!["10.99.0.0/30".parse().unwrap()];
    setup.client.initiator.request.ipv6 = None;
    let mut world = World::new(setup, Faults::default(), 7);
    world.set_uplinks(&[wifi(), wire()]);
    world.connect();
    world.run_for(30 * SECOND);
    assert_eq!(v4(&world), ["10.99.0.2"]);
    let snapshot = world.client.session.snapshot();
    assert_eq!((snapshot.paths.len(), snapshot.alone), (1, Some(Alone::Unanswered)));
    assert_eq!(world.gateway.as_ref().unwrap().ike_sas(), 1, "what came of it is gone");
    world.carry().unwrap();
}

#[test]
fn a_disconnect_gives_everything_back() {
    let mut world = connected(own_addresses(), &[wifi(), wire()], 8);
    world.disconnect();
    world.run_for(5 * SECOND);
    assert!(world.client.tunnel.is_none() && world.client.children.is_empty());
    assert!(world.gateway_children.is_empty() && world.gateway_egress.is_empty());
    world.connect();
    assert!(world.run_until(5 * SECOND, |world| working(world) == 2));
    let mut again = v4(&world);
    again.sort();
    assert_eq!(again, ["10.99.0.2", "10.99.0.3"], "the same as before, and no more");
}
