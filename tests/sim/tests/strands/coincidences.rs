//! What happens while something else is under way.

use ropewalk_gateway::Gateway;
use ropewalk_ike::wire::{ExchangeType, GatewayName, Message};
use ropewalk_session::{Uplink, UseMetered};
use ropewalk_sim::setup::WALL_CLOCK;

use super::*;

const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2));

/// With a second gateway like the first.
fn two_gateways(setup: Setup, uplinks: &[SimUplink], seed: u64) -> World {
    let settings = setup.gateway.clone();
    let mut world = connected(setup, uplinks, uplinks.len(), seed);
    world.second = Some((THERE, Gateway::new(settings, WALL_CLOCK)));
    world
}

fn redirect(world: &mut World) {
    let to = GatewayName::Address(THERE);
    world.gateway.as_mut().unwrap().redirect_all(world.now, &to, &mut world.rng);
}

/// Whether a request of this exchange has been sent from this address since the recording began.
fn asks(world: &World, own: IpAddr, exchange: ExchangeType) -> bool {
    let sent = world.network.recorded().iter();
    let mut ours = sent.filter(|datagram| world.network.own_address(datagram.source).ip() == own);
    ours.any(|datagram| {
        Message::parse(&datagram.bytes)
            .is_ok_and(|parsed| parsed.header.exchange == exchange && !parsed.header.flags.response)
    })
}

#[test]
fn a_redirect_takes_all_paths_along_and_leaves_nothing_at_the_old_gateway() {
    for policy in [Policy::Failover, Policy::Balance] {
        let mut setup = several();
        setup.client.paths.policy = policy;
        let mut world = two_gateways(setup, &[wifi(), wire()], 60);
        redirect(&mut world);
        let there = |world: &World| {
            working(world) == 2 && paths(world).iter().all(|path| path.path.remote.ip() == THERE)
        };
        assert!(world.run_until(5 * SECOND, there), "{policy:?}: {:?}", paths(&world));
        world.run_for(SECOND);
        let carriage = world.client.carriage.as_ref().unwrap();
        assert!(carriage.shares.iter().all(|(lane, _)| lane.path.remote.ip() == THERE), "{carriage:?}");
        assert_eq!(ike_sas(&world), 0, "{policy:?}");
        assert_eq!((world.client.children.len(), world.client.sockets()), (2, 2));
    }
}

#[test]
fn a_redirect_while_a_new_login_is_under_way_is_followed() {
    for seed in 0..20 {
        let mut setup = several();
        setup.client.reauth = Some(30 * SECOND);
        let mut world = two_gateways(setup, &[wifi()], 100 + seed);
        world.network.record();
        assert!(world.run_until(60 * SECOND, |world| asks(world, CLIENT, ExchangeType::IkeAuth)));
        redirect(&mut world);
        let there = |world: &World| {
            world.client.phase() == Phase::Connected
                && paths(world).iter().all(|path| path.path.remote.ip() == THERE)
        };
        assert!(world.run_until(3 * SECOND, there), "seed {seed}: {:?}", world.client.session.snapshot());
    }
}

#[test]
fn a_redirect_to_nobody_with_a_new_login_planned_waits_quietly() {
    let mut setup = several();
    setup.client.reauth = Some(60 * SECOND);
    let mut world = two_gateways(setup, &[wifi()], 130);
    world.second = None;
    world.run_for(30 * SECOND);
    redirect(&mut world);
    assert!(world.run_to(Phase::Reconnecting, SECOND));
    world.stop_gateway();
    world.run_for(120 * SECOND);
    assert_eq!(world.client.phase(), Phase::Reconnecting);
}

#[test]
fn a_path_that_takes_over_during_a_new_login_keeps_the_login_that_follows() {
    let mut setup = several();
    setup.client.reauth = Some(30 * SECOND);
    let mut world = connected(setup, &[wifi(), wire()], 2, 61);
    let from = ping(&mut world);
    world.network.record();
    assert!(world.run_until(60 * SECOND, |world| asks(world, CLIENT, ExchangeType::IkeSaInit)));
    world.network.ways.insert((CLIENT, GATEWAY), DARK);
    world.run_for(3 * SECOND);
    assert_eq!(carrying(&world), WIRE);
    world.network.ways.clear();
    assert!(world.run_until(60 * SECOND, |world| entries(world) == 2));
    world.run_for(3 * SECOND);
    let (_, path) = world.client.egress.unwrap();
    assert!(world.client.has_link(path.link), "what carries has its socket");
    assert_eq!(world.client.phase(), Phase::Connected);
    let (_, longest) = settled(&world, from);
    assert!(longest <= SECOND, "{longest:?}");
}

#[test]
fn an_ike_sa_that_is_renewed_while_its_path_goes_leaves_nothing_behind() {
    let mut setup = several();
    setup.client.initiator.lifetimes =
        Lifetimes { ike: Some(70 * SECOND), child: None, ..setup.client.initiator.lifetimes };
    let mut world = connected(setup, &[wifi(), wire()], 2, 62);
    world.run_for(5 * SECOND);
    world.network.record();
    assert!(world.run_until(120 * SECOND, |world| asks(world, CLIENT, ExchangeType::CreateChildSa)));
    world.set_uplinks(&[wire()]);
    world.run_for(10 * SECOND);
    assert_eq!((world.client.children.len(), world.gateway_children.len(), ike_sas(&world)), (1, 1, 1));
}

#[test]
fn a_network_that_turns_out_to_be_metered_is_left_when_the_profile_forbids_such() {
    let metered = |uplink: SimUplink| SimUplink { metered: true, ..uplink };
    let mut setup = several();
    setup.client.paths.use_metered = UseMetered::No;
    // Alone there is no way left.
    let mut world = connected(setup.clone(), &[wifi()], 1, 63);
    world.set_uplinks(&[metered(wifi())]);
    world.run_for(SECOND);
    assert_eq!((world.client.phase(), world.client.sockets()), (Phase::Reconnecting, 0));
    // Another network is taken, and this one when it costs nothing any more.
    world.set_uplinks(&[metered(wifi()), wire()]);
    assert!(world.run_until(2 * SECOND, |world| world.client.phase() == Phase::Connected));
    assert_eq!(carrying(&world), WIRE);
    world.set_uplinks(&[metered(wifi())]);
    world.run_for(SECOND);
    assert_eq!(world.client.phase(), Phase::Reconnecting);
    world.set_uplinks(&[wifi()]);
    assert!(world.run_until(2 * SECOND, |world| world.client.phase() == Phase::Connected));
    assert_eq!((carrying(&world), entries(&world)), (CLIENT, 1));
    // Of two the other one carries.
    let mut world = connected(setup, &[wifi(), wire()], 2, 64);
    assert_eq!(carrying(&world), CLIENT);
    world.set_uplinks(&[metered(wifi()), wire()]);
    assert_eq!((carrying(&world), world.client.phase()), (WIRE, Phase::Connected));
    world.run_for(5 * SECOND);
    assert_eq!((paths(&world).len(), world.client.sockets()), (1, 1));
}

#[test]
fn a_default_route_that_flaps_under_the_only_path_that_works_does_not_put_it_out_of_use() {
    let mut world = connected(several(), &[wifi(), wire()], 2, 65);
    ping(&mut world);
    world.network.ways.insert((WIRE, GATEWAY), DARK);
    assert!(world.run_until(30 * SECOND, |world| working(world) == 1));
    let told = |of: &[SimUplink]| -> Vec<Uplink> {
        let one = |uplink: &SimUplink| Uplink {
            interface: uplink.interface,
            name: format!("net{}", uplink.interface),
            metered: false,
            ipv4: true,
            ipv6: false,
        };
        of.iter().map(one).collect()
    };
    // Interface and address stay.
    let now = world.now;
    world.client.session.uplinks_changed(now, told(&[wire()]), &mut world.rng);
    world.run_for(SECOND);
    let now = world.now;
    world.client.session.uplinks_changed(now, told(&[wifi(), wire()]), &mut world.rng);
    world.network.ways.clear();
    assert!(world.run_until(60 * SECOND, |world| working(world) == 2), "{:?}", paths(&world));
    let from = world.now;
    let first = carrying(&world);
    world.network.ways.insert((first, GATEWAY), DARK);
    world.run_for(5 * SECOND);
    assert_ne!(carrying(&world), first);
    let (_, longest) = settled(&world, from);
    assert!(longest <= SECOND, "{longest:?}");
}
