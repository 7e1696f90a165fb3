//! What happens to connections that stand.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use ropewalk_session::Phase;
use ropewalk_sim::setup::{CLIENT, ike};
use ropewalk_sim::{Auth, Faults, Setup, World};

const SOON: Duration = Duration::from_secs(2);
const MINUTE: Duration = Duration::from_secs(60);

fn connected(setup: Setup, seed: u64) -> World {
    let mut world = World::new(setup, Faults::default(), seed);
    world.connect();
    assert!(world.run_to(Phase::Connected, SOON), "{:?}", world.client.session.snapshot());
    world.carry().unwrap();
    world
}

#[test]
fn a_gateway_that_always_asks_for_a_cookie_gets_one() {
    let mut setup = Setup::new(Auth::Psk);
    setup.gateway.cookies = ropewalk_gateway::CookiePolicy::Always;
    let world = connected(setup, 20);
    // IKE_SA_INIT twice, IKE_AUTH once, each with its answer, and the question how long a round trip takes.
    assert_eq!(world.network.datagrams(), 7);
}

#[test]
fn another_group_is_used_when_the_gateway_asks_for_it() {
    let mut setup = Setup::new(Auth::Psk);
    setup.gateway.ike_proposals = vec![ike("aes256gcm16-prfsha256-ecp384")];
    let world = connected(setup, 21);
    assert_eq!(world.network.datagrams(), 7);
    assert_eq!(world.client.session.snapshot().ike.unwrap().group, 20);
}

#[test]
fn a_cookie_and_another_group_go_together() {
    let mut setup = Setup::new(Auth::Psk);
    setup.gateway.cookies = ropewalk_gateway::CookiePolicy::Always;
    setup.gateway.ike_proposals = vec![ike("aes128-sha256-modp2048")];
    let world = connected(setup, 22);
    assert_eq!(world.client.session.snapshot().ike.unwrap().group, 14);
}

#[test]
fn every_suite_is_agreed_and_carries() {
    let suites = [
        ("aes256gcm16-prfsha384-x25519", "aes256gcm16"),
        ("aes128gcm16-prfsha256-ecp256", "aes128gcm16"),
        ("chacha20poly1305-prfsha256-x25519", "chacha20poly1305"),
        ("aes128-sha256-modp3072", "aes128-sha256"),
        ("aes256-sha384-ecp384", "aes256-sha384"),
        ("aes256-sha512-modp4096", "aes256-sha512"),
    ];
    for (ike_suite, esp_suite) in suites {
        let mut setup = Setup::new(Auth::Psk);
        setup.gateway.ike_proposals = vec![ike(ike_suite)];
        setup.gateway.esp_proposals = ropewalk_ike::proposal::parse_esp_list(&[esp_suite]).unwrap();
        connected(setup, 23);
    }
}

#[test]
fn certificates_larger_than_a_datagram_go_in_fragments_and_only_where_both_ends_want() {
    let with = connected(Setup::new(Auth::Rsa), 24).network.datagrams();
    let mut setup = Setup::new(Auth::Rsa);
    setup.gateway.fragmentation = false;
    let without = connected(setup, 24).network.datagrams();
    assert_eq!(without, 5, "the last is about the round trip");
    assert!(with > without, "{with} datagrams with fragmentation");
}

#[test]
fn the_clients_farewell_reaches_the_gateway_at_once() {
    let mut world = connected(Setup::new(Auth::Psk), 25);
    world.disconnect();
    assert!(world.run_to(Phase::Disconnected, Duration::from_millis(100)));
    assert_eq!(world.gateway_log, ["up client@sim.test", "gone client@sim.test: DeletedByPeer"]);
    assert!(world.client.tunnel.is_none());
}

#[test]
fn the_client_gives_up_on_a_gateway_that_does_not_hear_its_farewell() {
    let mut world = connected(Setup::new(Auth::Psk), 26);
    world.network.cut = true;
    world.disconnect();
    assert!(world.run_to(Phase::Disconnected, ropewalk_session::session::FAREWELL));
    assert!(world.client.tunnel.is_none() && world.client.children.is_empty());
}

#[test]
fn after_the_gateways_farewell_the_client_comes_back_with_its_addresses() {
    let mut world = connected(Setup::new(Auth::Eap), 27);
    let addresses = world.inner_addresses();
    world.gateway_disconnects();
    assert!(world.run_to(Phase::Reconnecting, SOON));
    assert!(world.client.tunnel.is_some(), "the device stays while the user wants to be connected");
    assert!(world.run_to(Phase::Connected, SOON));
    world.carry().unwrap();
    assert_eq!(world.inner_addresses(), addresses);
    assert!(world.client.asked.is_empty(), "nobody is asked for the password again");
}

#[test]
fn after_the_gateways_restart_the_client_notices_and_comes_back_with_its_addresses() {
    for auth in [Auth::Psk, Auth::Eap] {
        let mut world = connected(Setup::new(auth), 28);
        let addresses = world.inner_addresses();
        world.restart_gateway();
        assert!(world.run_to(Phase::Reconnecting, MINUTE), "{auth:?}");
        assert!(world.run_to(Phase::Connected, MINUTE), "{auth:?}");
        world.carry().unwrap();
        assert_eq!(world.inner_addresses(), addresses);
    }
}

#[test]
fn a_client_that_is_gone_without_a_word_is_forgotten() {
    let mut world = connected(Setup::new(Auth::Psk), 29);
    world.network.cut = true;
    // With MOBIKE the client may only be on the move, so the gateway asks for five minutes (RFC 4555 section 3.11).
    assert!(world.run_until(6 * MINUTE, |world| {
        world.gateway.as_ref().is_some_and(|gateway| gateway.clients().is_empty())
    }));
    assert!(world.gateway_log.contains(&"gone client@sim.test: PeerDead".to_owned()));
    assert!(world.gateway_children.is_empty());
}

#[test]
fn a_quiet_connection_is_asked_for_signs_of_life_and_stays() {
    let mut world = connected(Setup::new(Auth::Psk), 30);
    let before = world.network.datagrams();
    world.run_for(10 * MINUTE);
    assert_eq!(world.client.phase(), Phase::Connected);
    assert_eq!(world.gateway_log, ["up client@sim.test"]);
    let asked = world.network.datagrams() - before;
    // The client asks after 20 seconds of silence, and each question counts as a sign of life for the gateway.
    assert!((50..=70).contains(&asked), "{asked} datagrams in ten minutes");
}

#[test]
fn traffic_is_sign_enough_of_life() {
    let mut world = connected(Setup::new(Auth::Psk), 31);
    world.run_for(Duration::from_secs(1));
    let before = world.network.datagrams();
    for _ in 0..60 {
        world.run_for(Duration::from_secs(5));
        world.carry().unwrap();
    }
    assert_eq!(world.network.datagrams(), before);
}

#[test]
fn after_the_nat_forgot_its_mapping_the_gateway_follows() {
    let mut world = connected(Setup::new(Auth::Psk), 32);
    let of = |world: &World| world.gateway_children.values().next().map(|(_, _, path)| path.remote);
    let before = of(&world);
    world.network.rebind();
    world.run_for(MINUTE);
    assert_eq!(world.client.phase(), Phase::Connected);
    assert_ne!(of(&world), before);
    assert_eq!(world.gateway_log, ["up client@sim.test"]);
    world.carry().unwrap();
}

#[test]
fn a_liveness_check_updates_the_addresses_when_the_mapping_is_another_than_at_the_login() {
    let mut world = connected(Setup::new(Auth::Psk), 35);
    world.run_for(5 * MINUTE);
    assert_eq!(world.updates, 0, "the gateway sees what it saw in IKE_SA_INIT");
    world.network.rebind();
    world.run_for(MINUTE);
    assert_eq!(world.updates, 1);
    world.run_for(5 * MINUTE);
    assert_eq!(world.updates, 1);
}

#[test]
fn nat_is_reported_where_there_is_one() {
    for nat in [true, false] {
        let world = connected(Setup { nat, ..Setup::new(Auth::Psk) }, 33);
        let judged = world.client.session.snapshot().ike.unwrap().nat;
        assert_eq!((judged.ours, judged.theirs), (nat, false));
    }
}

#[test]
fn a_second_connection_of_the_same_client_takes_the_place_of_the_first() {
    let mut world = connected(Setup::new(Auth::Psk), 34);
    let addresses = world.inner_addresses();
    // The client's machine lost its memory: a new session, and the gateway does not know yet.
    let setup = Setup::new(Auth::Psk);
    world.client = ropewalk_sim::SimClient::new(setup.client, CLIENT, vec![ropewalk_sim::setup::GATEWAY]);
    world.connect();
    assert!(world.run_to(Phase::Connected, SOON));
    assert_eq!(world.inner_addresses(), addresses);
    world.carry().unwrap();
    world.run_for(MINUTE);
    world.carry().unwrap();
    assert_eq!(world.gateway_children.len(), 1);
    assert_eq!(world.gateway.as_ref().unwrap().clients().len(), 1);
}
