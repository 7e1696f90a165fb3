//! Several addresses, several gateways: the first that answers is taken, and only it learns who we are.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ropewalk_gateway::Gateway;
use ropewalk_ike::exchange::Path;
use ropewalk_ike::wire::{ExchangeType, Message};
use ropewalk_session::{Cause, Endpoint, Phase, Unreached};
use ropewalk_sim::network::Datagram;
use ropewalk_sim::setup::{CLIENT, GATEWAY, WALL_CLOCK};
use ropewalk_sim::{Auth, Faults, Setup, World};

const NOBODY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x66));
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 66));

/// A world whose gateways have these names and addresses.
fn world(names: &[(&str, &[IpAddr])], seed: u64) -> World {
    let mut setup = Setup::new(Auth::Psk);
    setup.client.gateways =
        names.iter().map(|(host, _)| Endpoint { host: (*host).to_owned(), port: 500 }).collect();
    let mut world = World::new(setup, Faults::default(), seed);
    world.client.names =
        names.iter().map(|(host, addresses)| ((*host).to_owned(), addresses.to_vec())).collect();
    world.network.record();
    world
}

/// To whom messages of an exchange were sent.
fn sent_to(world: &World, exchange: ExchangeType) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for datagram in world.network.recorded() {
        let ours = datagram.destination.ip() != CLIENT && datagram.source.ip() != GATEWAY;
        let is = Message::parse(&datagram.bytes).is_ok_and(|parsed| parsed.header.exchange == exchange);
        if ours && is && !found.contains(&datagram.destination.ip()) {
            found.push(datagram.destination.ip());
        }
    }
    found
}

#[test]
fn a_dead_ipv6_address_costs_a_quarter_of_a_second() {
    let mut world = world(&[("gateway", &[NOBODY_V6, GATEWAY])], 80);
    world.connect();
    assert!(world.run_to(Phase::Connected, Duration::from_millis(500)));
    world.carry().unwrap();
    assert_eq!(sent_to(&world, ExchangeType::IkeSaInit), [NOBODY_V6, GATEWAY]);
    assert_eq!(sent_to(&world, ExchangeType::IkeAuth), [GATEWAY]);
    assert_eq!(world.client.sockets(), 1);
}

#[test]
fn a_dead_gateway_gives_way_to_the_next_also_when_the_connection_is_set_up_again() {
    let mut world = world(&[("first", &[NOBODY, NOBODY_V6]), ("second", &[GATEWAY])], 81);
    world.connect();
    assert!(world.run_to(Phase::Connected, Duration::from_secs(3)));
    world.gateway_disconnects();
    assert!(world.run_to(Phase::Reconnecting, Duration::from_secs(1)));
    assert!(world.run_to(Phase::Connected, Duration::from_secs(4)));
    world.carry().unwrap();
    assert_eq!(sent_to(&world, ExchangeType::IkeAuth), [GATEWAY]);
}

#[test]
fn a_gateway_that_answers_is_not_left_for_the_next() {
    let mut world = world(&[("first", &[GATEWAY]), ("second", &[NOBODY])], 82);
    world.connect();
    assert!(world.run_to(Phase::Connected, Duration::from_secs(1)));
    world.run_for(Duration::from_secs(60));
    assert_eq!(sent_to(&world, ExchangeType::IkeSaInit), [GATEWAY]);
}

#[test]
fn an_address_that_the_system_calls_unreachable_does_not_hold_up_the_next() {
    let mut world = world(&[("first", &[NOBODY]), ("second", &[GATEWAY])], 83);
    world.connect();
    world.client.session.path_refused(world.now, 1, Unreached::NoWay, &mut world.rng);
    assert!(world.run_to(Phase::Connected, Duration::from_millis(200)));
}

#[test]
fn gateways_that_are_all_silent_are_given_up_and_no_socket_stays() {
    let mut world = world(&[("first", &[NOBODY, NOBODY_V6]), ("second", &[NOBODY])], 84);
    world.connect();
    assert!(world.run_to(Phase::Failed, Duration::from_secs(15)));
    assert_eq!(world.client.session.snapshot().error.unwrap().cause, Cause::Unreachable);
    assert_eq!(world.client.sockets(), 0);
    assert!(sent_to(&world, ExchangeType::IkeAuth).is_empty());
}

#[test]
fn a_disconnect_in_the_middle_closes_every_socket() {
    let mut world = world(&[("first", &[NOBODY, NOBODY_V6, GATEWAY])], 85);
    world.network.cut = true;
    world.connect();
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.client.sockets(), 3);
    world.disconnect();
    assert_eq!((world.client.phase(), world.client.sockets()), (Phase::Disconnected, 0));
}

/// Answers the first request like a gateway that it is not: whoever sees it can.
fn forge_first_answer(world: &mut World) {
    let mut forger = Gateway::new(Setup::new(Auth::Psk).gateway, WALL_CLOCK);
    let request = world.network.recorded().first().unwrap().clone();
    let path = Path { link: 500, local: request.destination, remote: request.source };
    forger.handle_datagram(world.now, path, &request.bytes, &mut world.rng).unwrap();
    let bytes = forger.poll_transmit().unwrap().message;
    let destination = SocketAddr::new(CLIENT, 50_001);
    let forged = Datagram { source: request.destination, destination, bytes };
    world.client.receive(world.now, &forged, &mut world.rng);
}

#[test]
fn a_forged_first_answer_only_costs_two_seconds() {
    let mut world = world(&[("first", &[NOBODY, GATEWAY])], 86);
    world.connect();
    forge_first_answer(&mut world);
    // Nobody answers IKE_AUTH there.
    assert!(!world.run_to(Phase::Connected, Duration::from_millis(1900)));
    assert!(world.run_to(Phase::Connected, Duration::from_millis(400)));
    world.carry().unwrap();
    assert_eq!(sent_to(&world, ExchangeType::IkeAuth), [NOBODY, GATEWAY]);
    assert_eq!(world.client.sockets(), 1, "nothing stays of the other attempt");
}

#[test]
fn a_forged_first_answer_does_not_keep_the_next_gateway_from_being_tried() {
    let mut world = world(&[("first", &[NOBODY]), ("second", &[GATEWAY])], 87);
    world.connect();
    forge_first_answer(&mut world);
    assert!(world.run_to(Phase::Connected, Duration::from_millis(2300)));
    world.carry().unwrap();
}

#[test]
fn a_gateway_that_takes_its_time_for_ike_auth_is_still_taken() {
    let mut world = world(&[("first", &[GATEWAY, NOBODY])], 88);
    world.connect();
    assert!(
        world.run_until(Duration::from_secs(1), |world| {
            sent_to(world, ExchangeType::IkeAuth) == [GATEWAY]
        })
    );
    world.network.cut = true;
    world.run_for(Duration::from_secs(4));
    assert!(
        sent_to(&world, ExchangeType::IkeSaInit).contains(&NOBODY),
        "the other address is tried beside it"
    );
    world.network.cut = false;
    assert!(world.run_to(Phase::Connected, Duration::from_secs(7)));
    world.carry().unwrap();
    assert_eq!(world.client.sockets(), 1);
}
