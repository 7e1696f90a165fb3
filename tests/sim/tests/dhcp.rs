//! The inner address by DHCP (RFC 3456), in virtual time: what goes by which CHILD_SA, and that the lease outlives everything
//! that is not its end.

#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use dhcproto::v4::{DhcpOption, MessageType};
use ropewalk_ike::exchange::child::ChildSa;
use ropewalk_ike::time::UnixTime;
use ropewalk_session::{Cause, Phase};
use ropewalk_sim::network::Faults;
use ropewalk_sim::setup::CLIENT;
use ropewalk_sim::{Auth, Setup, SimUplink, World};

const MINUTE: Duration = Duration::from_secs(60);
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);

fn setup() -> Setup {
    Setup::new(Auth::Psk).with_dhcp()
}

fn world(setup: Setup) -> World {
    World::new(setup, Faults::default(), 1)
}

fn connected() -> World {
    let mut world = world(setup());
    world.connect();
    assert!(world.run_to(Phase::Connected, MINUTE), "{:?}", world.client.session.snapshot().error);
    world.run_for(Duration::from_secs(2));
    world
}

fn has(world: &World, address: Ipv4Addr) -> bool {
    world.inner_addresses() == [IpAddr::from(address)]
}

/// The client's side of a CHILD_SA of the gateway's.
fn selector(child: &ChildSa) -> String {
    let [only] = child.ts_remote.selectors.as_slice() else { panic!("one selector: {child:?}") };
    only.to_string()
}

#[test]
fn an_address_comes_by_the_dhcp_sa_and_then_the_tunnel_stands_without_it() {
    let mut world = connected();
    assert_eq!(world.dhcp.kinds(), [MessageType::Discover, MessageType::Request]);
    assert!(has(&world, FIRST));
    assert_eq!(world.client.checked, [FIRST]);
    assert!(world.client.children.iter().all(|child| !child.is_for_dhcp()), "{:?}", world.client.children);
    assert_eq!(world.client.children.len(), 1);
    assert_eq!(world.gateway_children.len(), 1);
    world.carry().unwrap();
    // Only the leased address is the client's.
    let (_, theirs, _) = world.gateway_children.values().next().unwrap();
    assert_eq!(selector(theirs), "10.99.0.100/32");
    let lease = world.client.session.snapshot().lease.unwrap();
    assert_eq!((lease.lease.address, lease.ends.is_some()), (FIRST, true));
    assert_eq!(world.client.lease.as_ref().map(|lease| lease.address), Some(FIRST));
}

#[test]
fn nobody_is_told_connected_before_there_is_an_address() {
    let mut world = world(setup());
    world.dhcp.silent = true;
    world.connect();
    world.run_until(Duration::from_secs(5), |world| {
        assert!(world.client.phase() != Phase::Connected);
        false
    });
    assert_eq!(world.client.phase(), Phase::Connecting);
    assert!(world.client.tunnel.is_none());
    world.dhcp.silent = false;
    assert!(world.run_to(Phase::Connected, MINUTE));
}

#[test]
fn a_first_connection_ends_with_a_reason_when_no_server_answers() {
    let mut world = world(setup());
    world.dhcp.silent = true;
    world.connect();
    assert!(world.run_to(Phase::Failed, MINUTE));
    let error = world.client.session.snapshot().error.unwrap();
    assert!(error.message.contains("No DHCP server"), "{error:?}");
    assert_eq!(world.client.sockets(), 0);
    world.run_for(Duration::from_secs(5));
    assert!(world.gateway_children.is_empty(), "the gateway was told");
}

#[test]
fn renewals_go_by_the_tunnel_and_rebinding_by_a_dhcp_sa_of_its_own() {
    let mut world = connected();
    world.run_for(Duration::from_secs(1850));
    assert_eq!(world.dhcp.kinds().len(), 3, "{:?}", world.dhcp.asked);
    assert_eq!(world.dhcp.asked[2], (MessageType::Request, FIRST));
    assert_eq!(world.client.children.len(), 1, "no DHCP SA for that");
    world.dhcp.silent = true;
    world.run_for(Duration::from_secs(3160));
    let before = world.dhcp.kinds().len();
    assert!(before > 4, "{:?}", world.dhcp.asked);
    assert!(world.client.children.iter().any(|child| child.is_for_dhcp()), "rebinding");
    world.dhcp.silent = false;
    world.run_for(Duration::from_secs(300));
    assert_eq!(world.client.phase(), Phase::Connected);
    assert!(has(&world, FIRST));
    assert!(world.client.children.iter().all(|child| !child.is_for_dhcp()));
    world.carry().unwrap();
}

#[test]
fn a_refused_renewal_stops_the_tunnel_until_there_is_another_address() {
    let mut world = connected();
    world.dhcp.refuses = true;
    assert!(world.run_to(Phase::Reconnecting, Duration::from_secs(1900)));
    let error = world.client.session.snapshot().error.unwrap();
    assert!(error.message.contains("took the address"), "{error:?}");
    assert!(world.client.egress.is_none(), "nothing is sent from the old address");
    assert!(world.client.tunnel.is_some(), "and nothing goes past the tunnel");
    world.dhcp.refuses = false;
    world.dhcp.pool.remove(0);
    assert!(world.run_to(Phase::Connected, MINUTE));
    assert!(has(&world, Ipv4Addr::new(10, 99, 0, 101)));
    world.run_for(Duration::from_secs(5));
    world.carry().unwrap();
    assert_eq!(world.client.session.snapshot().error, None);
}

#[test]
fn a_lease_that_nobody_extends_ends_the_tunnel_and_not_the_wish() {
    let mut world = connected();
    world.dhcp.silent = true;
    world.run_for(Duration::from_secs(3700));
    assert_eq!(world.client.phase(), Phase::Reconnecting);
    assert!(world.client.egress.is_none());
    world.dhcp.silent = false;
    assert!(world.run_to(Phase::Connected, 2 * MINUTE));
    world.carry().unwrap();
}

#[test]
fn the_lease_survives_the_gateway_which_is_asked_for_it_first() {
    let mut world = connected();
    world.restart_gateway();
    assert!(world.run_until(5 * MINUTE, |world| world.client.phase() == Phase::Reconnecting));
    assert!(world.run_to(Phase::Connected, 5 * MINUTE));
    assert_eq!(world.dhcp.asked[2..], [(MessageType::Request, FIRST)]);
    assert!(has(&world, FIRST));
    world.carry().unwrap();
}

#[test]
fn a_lease_of_the_last_start_is_asked_for_first_unless_its_time_is_over() {
    let lease = connected().client.lease.unwrap();
    for (until, first) in [(1_800_000_100, MessageType::Request), (1_799_999_999, MessageType::Discover)] {
        let mut setup = setup();
        if let Some(dhcp) = &mut setup.client.dhcp {
            dhcp.remembered = Some((lease.clone(), UnixTime(until)));
        }
        let mut world = world(setup);
        world.connect();
        assert!(world.run_to(Phase::Connected, MINUTE));
        assert_eq!(world.dhcp.kinds()[0], first);
        assert!(has(&world, FIRST));
    }
}

#[test]
fn an_address_that_the_machine_has_already_is_declined() {
    let mut world = world(setup());
    world.client.own_inner = vec![FIRST];
    world.connect();
    assert!(world.run_to(Phase::Connected, MINUTE));
    assert!(has(&world, Ipv4Addr::new(10, 99, 0, 101)));
    assert!(world.dhcp.asked.contains(&(MessageType::Decline, FIRST)), "{:?}", world.dhcp.asked);
    world.carry().unwrap();
}

#[test]
fn an_address_that_the_gateway_does_not_let_us_have_is_declined() {
    let mut world = world(setup());
    // The relay's own.
    world.dhcp.pool.insert(0, Ipv4Addr::new(10, 99, 0, 1));
    world.connect();
    assert!(world.run_to(Phase::Connected, MINUTE), "{:?}", world.dhcp.asked);
    assert!(world.dhcp.asked.contains(&(MessageType::Decline, Ipv4Addr::new(10, 99, 0, 1))));
    assert!(has(&world, FIRST));
}

#[test]
fn declining_without_end_is_not_done() {
    let mut world = world(setup());
    world.client.own_inner = world.dhcp.pool.clone();
    world.connect();
    assert!(world.run_to(Phase::Failed, 5 * MINUTE));
    let error = world.client.session.snapshot().error.unwrap();
    assert!(error.message.contains("in use"), "{error:?}");
    // The last one may be overtaken by the DELETE.
    let declines = world.dhcp.kinds().iter().filter(|kind| **kind == MessageType::Decline).count();
    assert!((1..=2).contains(&declines), "{:?}", world.dhcp.asked);
}

#[test]
fn disconnecting_gives_the_address_back() {
    let mut world = connected();
    world.disconnect();
    assert!(world.run_to(Phase::Disconnected, MINUTE));
    assert_eq!(world.dhcp.asked.last(), Some(&(MessageType::Release, FIRST)));
    assert!(world.dhcp.leases.is_empty());
    assert_eq!(world.client.lease, None);
    world.connect();
    assert!(world.run_to(Phase::Connected, MINUTE));
    assert_eq!(world.dhcp.kinds()[3], MessageType::Discover);
}

#[test]
fn a_gateway_without_dhcp_is_told_of() {
    let mut setup = setup();
    setup.gateway.dhcp = None;
    let mut world = world(setup);
    world.connect();
    assert!(world.run_to(Phase::Failed, MINUTE));
    let error = world.client.session.snapshot().error.unwrap();
    assert_eq!(error.cause, Cause::Failed);
    assert!(error.message.contains("DHCP"), "{error:?}");
}

#[test]
fn a_move_and_every_renewal_leave_the_lease_alone() {
    let mut setup = setup();
    setup.nat = false;
    setup.client.initiator.lifetimes.child = Some(10 * MINUTE);
    setup.client.initiator.lifetimes.ike = Some(15 * MINUTE);
    setup.client.reauth = Some(22 * MINUTE);
    let mut world = world(setup);
    world.connect();
    assert!(world.run_to(Phase::Connected, MINUTE));
    for minute in 0..50 {
        let address = if minute % 2 == 0 { [192, 168, 7, 7].into() } else { CLIENT };
        world.move_client(&[address]);
        world.run_for(Duration::from_secs(5));
        world.carry().unwrap_or_else(|error| panic!("minute {minute}: {error}"));
        world.run_for(Duration::from_secs(55));
    }
    assert_eq!(world.client.phase(), Phase::Connected);
    assert!(has(&world, FIRST));
    let kinds = world.dhcp.kinds();
    assert_eq!(kinds.iter().filter(|kind| **kind == MessageType::Discover).count(), 1, "{kinds:?}");
    // What was sent just when the path went is sent again.
    assert!((3..=4).contains(&kinds.len()), "one renewal: {kinds:?}");
    let logins = world.gateway_log.iter().filter(|line| line.starts_with("up")).count();
    assert!(logins >= 2, "{:?}", world.gateway_log);
}

#[test]
fn several_paths_share_the_one_lease() {
    let mut setup = setup();
    setup.nat = false;
    setup.client.paths.multipath = true;
    let mut world = world(setup);
    let uplink = |interface, last| SimUplink {
        interface,
        addresses: vec![[192, 168, u8::try_from(interface).unwrap(), last].into()],
        metered: false,
    };
    world.set_uplinks(&[uplink(1, 20), uplink(2, 20)]);
    world.connect();
    assert!(world.run_to(Phase::Connected, MINUTE));
    assert!(world.run_until(MINUTE, |world| world.client.session.snapshot().paths.len() == 2));
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.gateway_children.len(), 2);
    assert!(world.gateway_children.values().all(|(_, child, _)| selector(child) == "10.99.0.100/32"));
    // The first path goes, with the IKE_SA that had the DHCP SA.
    world.set_uplinks(&[uplink(2, 20)]);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.client.phase(), Phase::Connected);
    world.carry().unwrap();
    world.dhcp.silent = true;
    world.run_for(Duration::from_secs(3200));
    world.dhcp.silent = false;
    world.run_for(Duration::from_secs(390));
    assert!(
        world.client.session.snapshot().lease.unwrap().ends.unwrap() > world.now + 10 * MINUTE,
        "rebound"
    );
    world.run_for(Duration::from_secs(100));
    assert!(has(&world, FIRST));
    assert_eq!(world.client.phase(), Phase::Connected);
}

#[test]
fn what_the_server_says_configures_the_device_as_far_as_it_may() {
    let mut setup = setup();
    setup.gateway.traffic = ["10.50.0.0/16", "10.99.0.0/24"].map(|net| net.parse().unwrap()).to_vec();
    let mut world = world(setup);
    let route = |net: &str| (net.parse().unwrap(), Ipv4Addr::new(10, 99, 0, 1));
    world.dhcp.options.extend([
        DhcpOption::DomainNameServer(vec![Ipv4Addr::new(10, 50, 0, 53)]),
        DhcpOption::DomainName("corp.test".to_owned()),
        DhcpOption::InterfaceMtu(1300),
        DhcpOption::ClasslessStaticRoute(vec![
            route("10.50.7.0/24"),
            route("203.0.113.0/24"),
            route("192.0.2.0/24"),
        ]),
    ]);
    world.connect();
    assert!(world.run_to(Phase::Connected, MINUTE));
    let tunnel = world.client.tunnel.clone().unwrap();
    let routes: Vec<String> = tunnel.routes.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(routes, ["10.50.7.0/24", "10.99.0.0/24"], "the named one, and the subnet of the mask");
    assert_eq!(tunnel.dns_servers, [IpAddr::from([10, 50, 0, 53])]);
    assert!(tunnel.dns_domains.is_empty(), "a search domain does not restrict what the servers are asked");
    assert_eq!((tunnel.search, tunnel.mtu), (vec!["corp.test".to_owned()], Some(1300)));
    let refused = world.client.session.snapshot().lease.unwrap().refused;
    let refused: Vec<String> = refused.iter().map(|(route, why)| format!("{route}: {why}")).collect();
    assert_eq!(
        refused,
        [
            "203.0.113.0/24: it covers the gateway's own address 203.0.113.1",
            "192.0.2.0/24: it leaves what the profile and the gateway allow"
        ]
    );
}

#[test]
fn loss_doubling_and_reordering_delay_an_address_but_do_not_prevent_it() {
    for seed in 0..60 {
        let faults = Faults { loss: 200, duplicate: 100, reorder: 200 };
        let mut world = World::new(setup(), faults, seed);
        world.client.session.connect(world.wall_clock);
        // A first connection gives up after four questions without an answer: the user tries again.
        let mut tries = 0;
        while !world.run_to(Phase::Connected, 2 * MINUTE) && tries < 4 {
            tries += 1;
            world.connect();
        }
        assert_eq!(world.client.phase(), Phase::Connected, "seed {seed}");
        world.network.faults = Faults::default();
        world.run_for(Duration::from_secs(30));
        world.carry().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(world.client.children.iter().all(|child| !child.is_for_dhcp()), "seed {seed}");
        world.disconnect();
        assert!(world.run_to(Phase::Disconnected, MINUTE), "seed {seed}");
    }
}

#[test]
fn the_gateway_forgets_a_restart_and_a_move_under_loss_too() {
    for seed in 0..40 {
        let mut setup = setup();
        setup.nat = seed % 2 == 0;
        let mut world = World::new(setup, Faults::default(), seed);
        world.connect();
        assert!(world.run_to(Phase::Connected, MINUTE), "seed {seed}");
        world.network.faults = Faults { loss: 150, duplicate: 100, reorder: 150 };
        world.restart_gateway();
        world.run_for(MINUTE);
        world.move_client(&[[192, 168, 9, 9].into()]);
        world.run_for(2 * MINUTE);
        world.network.faults = Faults::default();
        assert!(world.run_to(Phase::Connected, 10 * MINUTE), "seed {seed}");
        world.run_for(Duration::from_secs(30));
        world.carry().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(has(&world, FIRST), "seed {seed}: {:?}", world.dhcp.asked);
    }
}
