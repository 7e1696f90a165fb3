//! REDIRECT (RFC 5685), IKE_AUTH without a CHILD_SA (RFC 6023), quick crash detection (RFC 6290), INITIAL_CONTACT.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ropewalk_gateway::{Childless, Gateway, RedirectAt};
use ropewalk_ike::exchange::crash::TokenMaker;
use ropewalk_ike::exchange::lifetime::Lifetimes;
use ropewalk_ike::proposal::parse_esp_list;
use ropewalk_ike::wire::{
    ExchangeType, Flags, GatewayName, Header, Message, Notify, NotifyType, Payload, Redirect, emit_message,
    find_notify,
};
use ropewalk_session::{Cause, Phase, Session};
use ropewalk_sim::setup::{CLIENT, GATEWAY, WALL_CLOCK};
use ropewalk_sim::{Auth, Faults, Setup, World};

const SOON: Duration = Duration::from_secs(3);
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2));

fn second() -> GatewayName {
    GatewayName::Address(SECOND)
}

/// A world with a second gateway like the first, but for where it sends its clients.
fn two_gateways(setup: Setup, onward: Option<(RedirectAt, GatewayName)>, seed: u64) -> World {
    let mut settings = setup.gateway.clone();
    settings.redirect = onward;
    let mut world = World::new(setup, Faults::default(), seed);
    world.second = Some((SECOND, Gateway::new(settings, WALL_CLOCK)));
    world.network.record();
    world
}

/// Requests of the client to an address, by their exchange.
fn requests(world: &World, to: IpAddr, exchange: ExchangeType) -> Vec<Vec<u8>> {
    let sent = world.network.recorded().iter().filter(|datagram| datagram.destination.ip() == to);
    let of = |bytes: &Vec<u8>| Message::parse(bytes).is_ok_and(|parsed| parsed.header.exchange == exchange);
    sent.map(|datagram| datagram.bytes.clone()).filter(of).collect()
}

#[test]
fn a_redirect_in_ike_sa_init_is_followed_and_the_first_gateway_learns_nothing() {
    let mut setup = Setup::new(Auth::Psk);
    setup.gateway.redirect = Some((RedirectAt::Init, second()));
    let mut world = two_gateways(setup, None, 90);
    world.connect();
    assert!(world.run_to(Phase::Connected, Duration::from_secs(1)));
    assert_eq!(world.second_log, ["up client@sim.test"]);
    assert!(requests(&world, GATEWAY, ExchangeType::IkeAuth).is_empty());
    let first = Message::parse(&requests(&world, GATEWAY, ExchangeType::IkeSaInit)[0]).unwrap();
    assert!(find_notify(&first.payloads, NotifyType::RedirectSupported).is_some());
    let there = Message::parse(&requests(&world, SECOND, ExchangeType::IkeSaInit)[0]).unwrap();
    let from = find_notify(&there.payloads, NotifyType::RedirectedFrom).unwrap();
    assert_eq!(*from, GatewayName::Address(GATEWAY).redirected_from());
    assert_eq!(world.client.sockets(), 1);
}

#[test]
fn a_redirect_by_name_is_resolved() {
    let mut setup = Setup::new(Auth::Psk);
    setup.gateway.redirect = Some((RedirectAt::Init, GatewayName::Host("second.sim.test".to_owned())));
    let mut world = two_gateways(setup, None, 91);
    world.client.names = vec![("second.sim.test".to_owned(), vec![SECOND])];
    world.connect();
    assert!(world.run_to(Phase::Connected, Duration::from_secs(1)));
    assert_eq!(world.second_log, ["up client@sim.test"]);
}

#[test]
fn a_redirect_in_ike_auth_is_followed_once_the_gateway_has_proved_itself() {
    for auth in [Auth::Psk, Auth::Ecdsa, Auth::Eap] {
        let mut setup = Setup::new(auth);
        setup.gateway.redirect = Some((RedirectAt::Auth, second()));
        let mut world = two_gateways(setup, None, 92);
        world.connect();
        assert!(world.run_to(Phase::Connected, SOON), "{auth:?}: {:?}", world.client.session.snapshot());
        assert_eq!(world.second_log.len(), 1, "{auth:?}");
        assert!(world.gateway_log.is_empty(), "{auth:?}");
    }
}

#[test]
fn a_client_with_eap_is_sent_elsewhere_before_it_shows_its_password() {
    let mut setup = Setup::new(Auth::Eap);
    setup.gateway.redirect = Some((RedirectAt::Name, second()));
    let mut world = two_gateways(setup, None, 104);
    world.connect();
    assert!(world.run_to(Phase::Connected, SOON), "{:?}", world.client.session.snapshot());
    assert_eq!(world.second_log.len(), 1);
    assert!(world.gateway_log.is_empty());
    // The identity, and nothing of EAP.
    let mut rounds: Vec<_> = requests(&world, GATEWAY, ExchangeType::IkeAuth);
    rounds.dedup();
    assert_eq!(rounds.len(), 1, "one request, and no EAP round");
}

#[test]
fn a_connected_client_that_is_sent_elsewhere_goes_and_takes_its_leave() {
    let mut world = two_gateways(Setup::new(Auth::Psk), None, 93);
    world.connect();
    assert!(world.run_to(Phase::Connected, SOON));
    let moved = world.gateway.as_mut().unwrap().redirect_all(world.now, &second(), &mut world.rng);
    assert_eq!(moved, 1);
    assert!(world.run_until(SOON, |world| world.second_log.len() == 1));
    assert!(world.run_to(Phase::Connected, SOON));
    assert_eq!(world.gateway_log, ["up client@sim.test", "gone client@sim.test: DeletedByPeer"]);
    assert_eq!(world.client.session.snapshot().ike.unwrap().path.remote.ip(), SECOND);
    assert_eq!(world.client.sockets(), 1);
}

#[test]
fn gateways_that_send_us_to_each_other_are_left_after_five_times() {
    for at in [RedirectAt::Init, RedirectAt::Auth] {
        let mut setup = Setup::new(Auth::Psk);
        setup.gateway.redirect = Some((at, second()));
        let mut world = two_gateways(setup, Some((at, GatewayName::Address(GATEWAY))), 94);
        world.connect();
        assert!(world.run_to(Phase::Failed, Duration::from_secs(15)), "{at:?}");
        let error = world.client.session.snapshot().error.unwrap();
        assert!(error.message.contains("each other"), "{error:?}");
        let visits = |world: &World, to| {
            let mut spis: Vec<_> = requests(world, to, ExchangeType::IkeSaInit)
                .iter()
                .map(|request| request[..8].to_vec())
                .collect();
            spis.dedup();
            spis.sort();
            spis.dedup();
            spis.len()
        };
        assert_eq!(visits(&world, GATEWAY) + visits(&world, SECOND), 6, "{at:?}");
        assert_eq!(world.client.sockets(), 0);
    }
}

#[test]
fn a_redirect_that_does_not_show_our_nonce_or_competes_with_the_true_answer_leads_nowhere() {
    for knows_nonce in [false, true] {
        let mut world = two_gateways(Setup::new(Auth::Psk), None, 95);
        world.connect();
        let request = world.network.recorded()[0].bytes.clone();
        let parsed = Message::parse(&request).unwrap();
        let nonce = parsed.payloads.iter().find_map(|payload| match payload {
            Payload::Nonce(nonce) if knows_nonce => Some(nonce.data.clone()),
            _ => None,
        });
        let redirect =
            Redirect { to: GatewayName::Address([203, 0, 113, 66].into()), nonce: nonce.unwrap_or_default() };
        let header =
            Header { flags: Flags { initiator: false, response: true, version: false }, ..parsed.header };
        let forged = emit_message(&header, &[Payload::Notify(redirect.notify())]);
        world.forge_to_client(500, SocketAddr::new(CLIENT, 50_001), forged);
        assert!(world.run_to(Phase::Connected, Duration::from_secs(1)));
        world.carry().unwrap();
        let away = requests(&world, [203, 0, 113, 66].into(), ExchangeType::IkeSaInit);
        assert_eq!(away.is_empty(), !knows_nonce);
        assert!(requests(&world, [203, 0, 113, 66].into(), ExchangeType::IkeAuth).is_empty());
    }
}

#[test]
fn ike_auth_without_a_child_sa_is_completed_by_create_child_sa() {
    for auth in [Auth::Psk, Auth::Eap] {
        for childless in [Childless::Allow, Childless::Force] {
            let mut setup = Setup::new(auth);
            setup.gateway.childless = childless;
            let mut world = World::new(setup, Faults::default(), 96);
            world.connect();
            assert!(world.run_to(Phase::Connected, SOON), "{:?}", world.client.session.snapshot());
            world.run_for(Duration::from_millis(100));
            world.carry().unwrap();
            assert_eq!(world.inner_addresses().len(), 2);
            let tunnel = world.client.tunnel.clone().unwrap();
            assert_eq!(tunnel.reachable.selectors.len(), 2, "narrowed to what the gateway grants");
            world.disconnect();
            assert!(world.run_to(Phase::Disconnected, SOON));
            assert!(world.gateway_children.is_empty());
        }
    }
}

#[test]
fn a_child_sa_refused_after_a_childless_ike_auth_is_said_and_the_ike_sa_goes() {
    let mut setup = Setup::new(Auth::Psk);
    setup.gateway.childless = Childless::Force;
    setup.client.initiator.esp_proposals = parse_esp_list(&["aes256gcm16"]).unwrap();
    setup.gateway.esp_proposals = parse_esp_list(&["aes128-sha256"]).unwrap();
    let mut world = World::new(setup, Faults::default(), 97);
    world.connect();
    assert!(world.run_to(Phase::Failed, SOON));
    assert_eq!(world.client.session.snapshot().error.unwrap().cause, Cause::NoProposal);
    assert!(world.run_until(SOON, |world| world.gateway.as_ref().unwrap().clients().is_empty()));
}

/// How long after the gateway's restart the client notices it.
fn restart_noticed_after(tokens: bool, seed: u64) -> Duration {
    let mut setup = Setup::new(Auth::Psk);
    setup.gateway.crash_tokens = tokens.then(|| TokenMaker::new(b"kept over restarts"));
    restart_noticed(setup, seed, SOON)
}

/// The same, when it restarts so long after the connection came up.
fn restart_noticed(setup: Setup, seed: u64, age: Duration) -> Duration {
    let mut world = World::new(setup, Faults::default(), seed);
    world.connect();
    assert!(world.run_to(Phase::Connected, SOON));
    world.run_for(age);
    world.restart_gateway();
    let began = world.now;
    world.client.session.check_liveness(world.now, &mut world.rng);
    assert!(world.run_to(Phase::Reconnecting, Duration::from_secs(60)));
    let noticed = world.now - began;
    assert!(world.run_to(Phase::Connected, Duration::from_secs(40)));
    world.carry().unwrap();
    noticed
}

#[test]
fn a_crash_token_ends_the_ike_sa_of_a_restarted_gateway_at_once_and_nothing_less_does() {
    assert!(restart_noticed_after(true, 98) < Duration::from_millis(100));
    assert!(restart_noticed_after(false, 98) > Duration::from_secs(1));
}

#[test]
fn after_a_rekey_by_either_end_the_new_ike_sa_has_a_crash_token_of_its_own() {
    let short = Lifetimes { ike: Some(Duration::from_secs(600)), ..Lifetimes::default() };
    for (ours, theirs) in [(short, Lifetimes::default()), (Lifetimes::default(), short)] {
        let mut setup = Setup::new(Auth::Psk);
        setup.client.initiator.lifetimes = ours;
        setup.gateway.lifetimes = theirs;
        setup.gateway.crash_tokens = Some(TokenMaker::new(b"kept over restarts"));
        assert!(restart_noticed(setup, 101, Duration::from_secs(900)) < Duration::from_millis(100));
    }
}

#[test]
fn a_guessed_crash_token_ends_nothing() {
    let mut setup = Setup::new(Auth::Psk);
    setup.gateway.crash_tokens = Some(TokenMaker::new(b"kept over restarts"));
    let mut world = World::new(setup, Faults::default(), 99);
    world.connect();
    assert!(world.run_to(Phase::Connected, SOON));
    let spis = world.client.session.snapshot().ike.unwrap().spis;
    let header = Header {
        spi_i: spis.initiator,
        spi_r: spis.responder,
        next_payload: 0,
        exchange: ExchangeType::Informational,
        flags: Flags { initiator: false, response: true, version: false },
        message_id: 2,
    };
    for guess in [TokenMaker::new(b"another").notify(spis), Notify::status(NotifyType::QuickCrashDetection)] {
        let lost = Payload::Notify(Notify::status(NotifyType::InvalidIkeSpi));
        let forged = emit_message(&header, &[lost, Payload::Notify(guess)]);
        world.forge_to_client(4500, SocketAddr::new(CLIENT, 50_001), forged);
    }
    world.run_for(SOON);
    assert_eq!(world.client.session.snapshot().ike.unwrap().spis, spis);
    assert_eq!(world.client.phase(), Phase::Connected);
}

#[test]
fn a_client_that_lost_its_memory_replaces_its_old_ike_sa() {
    let mut setup = Setup::new(Auth::Psk);
    setup.gateway.unique = false;
    setup.gateway.dpd = None;
    let config = setup.client.clone();
    let mut world = World::new(setup, Faults::default(), 100);
    world.connect();
    assert!(world.run_to(Phase::Connected, SOON));
    world.client.session = Session::new(config);
    world.connect();
    assert!(world.run_to(Phase::Connected, SOON));
    world.run_for(SOON);
    assert_eq!(world.gateway.as_ref().unwrap().clients().len(), 1, "INITIAL_CONTACT");
}

#[test]
fn a_client_with_others_of_its_identity_does_not_claim_to_be_the_only_one() {
    for late in [false, true] {
        let mut setup = Setup::new(Auth::Psk);
        setup.gateway.unique = false;
        setup.gateway.dpd = None;
        let config = setup.client.clone();
        let mut world = World::new(setup, Faults::default(), 101);
        world.connect();
        assert!(world.run_to(Phase::Connected, SOON));
        let mut other = Session::new(config);
        other.set_others(!late);
        world.client.session = other;
        world.connect();
        if late {
            // The other one comes while IKE_SA_INIT is under way.
            world.client.session.set_others(true);
        }
        assert!(world.run_to(Phase::Connected, SOON));
        world.run_for(SOON);
        assert_eq!(world.gateway.as_ref().unwrap().clients().len(), 2, "late: {late}");
    }
}

/// What the client sends in the next second, and how many of it are in the clear.
fn sent_in_a_second(world: &mut World) -> (usize, usize) {
    let before = world.network.recorded().len();
    world.run_for(Duration::from_secs(1));
    let later = world.network.recorded().iter().skip(before);
    let ours = later.filter(|datagram| datagram.destination.ip() == GATEWAY);
    let parsed: Vec<_> = ours.map(|datagram| Message::parse(&datagram.bytes).unwrap()).collect();
    let clear = parsed.iter().filter(|message| message.encrypted.is_none());
    (parsed.len(), clear.count())
}

#[test]
fn a_request_of_another_version_from_the_gateway_is_refused_in_ours_and_only_so_often() {
    let mut world = World::new(Setup::new(Auth::Psk), Faults::default(), 102);
    world.network.record();
    world.connect();
    assert!(world.run_to(Phase::Connected, SOON));
    world.run_for(SOON);
    let spis = world.client.session.snapshot().ike.unwrap().spis;
    let header = Header {
        spi_i: spis.initiator,
        spi_r: spis.responder,
        next_payload: 0,
        exchange: ExchangeType::Informational,
        flags: Flags { initiator: false, response: false, version: false },
        message_id: 0,
    };
    let mut request = emit_message(&header, &[]);
    request[17] = 0x30;
    world.forge_to_client(4501, SocketAddr::new(CLIENT, 50_001), request.clone());
    assert_eq!(sent_in_a_second(&mut world), (0, 0), "from elsewhere it gets nothing");
    let before = world.network.recorded().len();
    for _ in 0..100 {
        world.forge_to_client(4500, SocketAddr::new(CLIENT, 50_001), request.clone());
    }
    let sent: Vec<_> = world.network.recorded()[before..].to_vec();
    assert_eq!(sent.len(), 1);
    let answer = Message::parse(&sent[0].bytes).unwrap();
    assert!(find_notify(&answer.payloads, NotifyType::InvalidMajorVersion).is_some());
    assert!(answer.header.flags.initiator && answer.header.flags.response);
    assert_eq!(world.client.phase(), Phase::Connected);
}

#[test]
fn a_gateway_that_sends_esp_for_an_unknown_spi_is_told_so_in_the_ike_sa() {
    let mut world = World::new(Setup::new(Auth::Psk), Faults::default(), 103);
    world.network.record();
    world.connect();
    assert!(world.run_to(Phase::Connected, SOON));
    world.run_for(SOON);
    let gateway = SocketAddr::new(GATEWAY, 4500);
    let stranger = SocketAddr::new(GATEWAY, 4501);
    world.client.session.unknown_spi(world.now, 0x0bad_0bad, stranger, &mut world.rng);
    assert_eq!(sent_in_a_second(&mut world), (0, 0), "nobody else is told");
    for _ in 0..100 {
        world.client.session.unknown_spi(world.now, 0x0bad_0bad, gateway, &mut world.rng);
    }
    assert_eq!(sent_in_a_second(&mut world), (1, 0), "one protected request");
    world.run_for(Duration::from_secs(10));
    world.carry().unwrap();
    assert_eq!((world.client.children.len(), world.gateway_children.len()), (1, 1), "nothing changes");
}
