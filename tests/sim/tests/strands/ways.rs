//! Which ways to the gateway become paths, when there are several networks and addresses.

use std::net::{IpAddr, Ipv6Addr};

use ropewalk_session::Alone;
use ropewalk_sim::SimUplink;
use ropewalk_sim::network::WayFaults;
use ropewalk_sim::setup::{CLIENT, GATEWAY, GATEWAY_V6};

use super::*;

fn six(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, last, 0, 0, 0, 0, 9))
}

#[test]
fn two_networks_make_two_paths_of_one_login() {
    let world = connected(several(), &[wifi(), wire()], 2, 1);
    let paths = paths(&world);
    assert_eq!(paths.iter().map(|path| path.interface).collect::<Vec<_>>(), [Some(1), Some(2)]);
    assert_eq!(paths.iter().map(|path| path.path.local.ip()).collect::<Vec<_>>(), [CLIENT, WIRE]);
    assert!(paths[0].carrying && !paths[1].carrying);
    assert_ne!(paths[0].spis, paths[1].spis);
    assert_eq!((entries(&world), ike_sas(&world), world.gateway_children.len()), (1, 2, 2));
    assert_eq!(world.client.session.snapshot().alone, None);
    assert_eq!(world.client.sockets(), 2);
}

#[test]
fn a_network_that_appears_gets_a_path_and_one_that_goes_takes_only_its_own() {
    let mut world = connected(several(), &[wifi()], 1, 2);
    assert_eq!(world.client.session.snapshot().alone, Some(Alone::OneWay));
    let first = paths(&world)[0].clone();
    world.set_uplinks(&[wire(), wifi()]);
    assert!(world.run_until(SECOND, |world| working(world) == 2), "{:?}", world.client.session.snapshot());
    assert_eq!((paths(&world)[0].spis, paths(&world)[0].path), (first.spis, first.path), "untouched");
    assert_eq!(ike_sas(&world), 2);
    world.set_uplinks(&[wifi()]);
    world.run_for(SECOND);
    assert_eq!((paths(&world).len(), ike_sas(&world), world.gateway_children.len()), (1, 1, 1));
    assert_eq!((paths(&world)[0].spis, entries(&world), world.client.sockets()), (first.spis, 1, 1));
    assert_eq!(world.client.children.len(), 1);
}

#[test]
fn two_networks_and_two_addresses_make_four_paths_and_each_can_go() {
    let mut setup = several();
    setup.gateway.addresses = vec![GATEWAY, GATEWAY_V6];
    let uplinks = [
        SimUplink { addresses: vec![CLIENT, six(5)], ..wifi() },
        SimUplink { addresses: vec![WIRE, six(6)], ..wire() },
    ];
    let mut world = connected(setup, &uplinks, 4, 3);
    assert_eq!(ike_sas(&world), 4);
    for _ in 0..4 {
        let from = ping(&mut world);
        let (_, path) = world.client.egress.unwrap();
        let way = (path.local.ip(), path.remote.ip());
        world.network.ways.insert(way, DARK);
        world.run_for(5 * SECOND);
        assert_ne!(world.client.egress.unwrap().1, path, "{way:?}");
        let (_, longest) = settled(&world, from);
        assert!(longest <= SECOND, "{way:?}: {longest:?}");
        world.network.ways.clear();
        assert!(world.run_until(60 * SECOND, |world| working(world) == 4), "{:?}", paths(&world));
    }
    assert_eq!(entries(&world), 1);
}

#[test]
fn only_the_interfaces_of_the_profile_are_used() {
    let mut setup = several();
    setup.client.paths.interfaces = vec!["net2".to_owned(), "net3".to_owned()];
    let mut world = connected(setup.clone(), &[wifi(), wire()], 1, 24);
    assert_eq!(carrying(&world), WIRE);
    assert_eq!(world.client.session.snapshot().alone, Some(Alone::OneWay));
    world.set_uplinks(&[wifi(), wire(), mobile()]);
    assert!(world.run_until(5 * SECOND, |world| working(world) == 2));
    world.set_uplinks(&[wifi()]);
    world.run_for(20 * SECOND);
    assert_eq!((world.client.phase(), world.client.sockets()), (Phase::Reconnecting, 0));
    world.set_uplinks(&[wifi(), wire()]);
    assert!(world.run_until(20 * SECOND, |world| world.client.phase() == Phase::Connected));
    assert_eq!(carrying(&world), WIRE);
    // And with none of them there is no way.
    let mut world = World::new(setup, Faults::default(), 25);
    world.set_uplinks(&[wifi()]);
    world.connect();
    assert!(world.run_to(Phase::Failed, 5 * SECOND));
}

#[test]
fn a_further_network_takes_the_place_of_the_worst_of_those_that_share_one() {
    let mut setup = several();
    setup.gateway.addresses = vec![GATEWAY, GATEWAY_V6];
    let wifi = SimUplink { addresses: vec![CLIENT, six(5)], ..wifi() };
    let wire = SimUplink { addresses: vec![WIRE, six(6)], ..wire() };
    for slow in [(1, six(5)), (2, six(6))] {
        let mut world = connected(setup.clone(), &[wifi.clone(), wire.clone()], 4, 44);
        world.network.ways.insert((slow.1, GATEWAY_V6), WayFaults { dark: false, loss: 0, delay: 80 });
        world.run_for(120 * SECOND);
        let phone = SimUplink { metered: false, ..mobile() };
        world.set_uplinks(&[wifi.clone(), wire.clone(), phone]);
        world.run_for(5 * SECOND);
        let left: Vec<_> =
            paths(&world).iter().map(|path| (path.interface.unwrap(), path.path.local.ip())).collect();
        assert_eq!(left.len(), 4, "{left:?}");
        assert!(left.contains(&(3, MOBILE)) && !left.contains(&slow), "{slow:?}: {left:?}");
        assert_eq!(entries(&world), 1);
    }
}
