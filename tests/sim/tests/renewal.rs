//! What is renewed while a connection stands: CHILD_SAs, the IKE_SA, the login.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use ropewalk_gateway::User;
use ropewalk_ike::exchange::lifetime::Lifetimes;
use ropewalk_ike::proposal::parse_esp_list;
use ropewalk_session::{Cause, Phase, Traffic};
use ropewalk_sim::setup::ike;
use ropewalk_sim::{Auth, Faults, Setup, World};

const SOON: Duration = Duration::from_secs(2);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn connected(setup: Setup, seed: u64) -> World {
    let mut world = World::new(setup, Faults::default(), seed);
    world.connect();
    assert!(world.run_to(Phase::Connected, SOON), "{:?}", world.client.session.snapshot());
    world.carry().unwrap();
    world
}

/// Lets time pass and sees that both ends can send to each other at every moment.
fn stays_usable(world: &mut World, time: Duration) {
    let lost = world.run_until(time, |world| !world.is_usable() || world.client.phase() != Phase::Connected);
    assert!(!lost, "at {:?}: {:?}", world.now, world.client.session.snapshot());
}

fn spi(world: &World) -> u64 {
    world.client.session.snapshot().ike.unwrap().spis.initiator
}

#[test]
fn children_and_the_ike_sa_are_renewed_by_whoever_has_the_shorter_times() {
    let short = Lifetimes { ike: Some(4 * HOUR), child: Some(HOUR), child_octets: None };
    for (ours, theirs) in [(short, Lifetimes::default()), (Lifetimes::default(), short), (short, short)] {
        let mut setup = Setup::new(Auth::Psk);
        setup.client.initiator.lifetimes = ours;
        setup.gateway.lifetimes = theirs;
        let mut world = connected(setup, 40);
        let (first, first_child) = (spi(&world), world.client.egress.unwrap().0);
        stays_usable(&mut world, HOUR + MINUTE);
        assert_ne!(world.client.egress.unwrap().0, first_child);
        assert_eq!(spi(&world), first);
        stays_usable(&mut world, 4 * HOUR);
        assert_ne!(spi(&world), first);
        world.run_for(2 * MINUTE);
        world.carry().unwrap();
        assert_eq!(world.gateway_log, ["up client@sim.test"], "one login");
        assert_eq!((world.client.children.len(), world.gateway_children.len()), (1, 1));
        world.disconnect();
        assert!(world.run_to(Phase::Disconnected, SOON));
        assert!(world.gateway_children.is_empty());
    }
}

#[test]
fn a_gateway_that_wants_another_group_for_renewals_is_logged_in_to_anew_before_the_child_ends() {
    let mut setup = Setup::new(Auth::Psk);
    setup.client.initiator.lifetimes = Lifetimes { child: Some(HOUR), ..Lifetimes::default() };
    setup.client.initiator.esp_proposals = parse_esp_list(&["aes256gcm16-x25519"]).unwrap();
    setup.gateway.esp_proposals = parse_esp_list(&["aes256gcm16-ecp256"]).unwrap();
    let mut world = connected(setup, 41);
    let addresses = world.inner_addresses();
    stays_usable(&mut world, 6 * HOUR);
    assert_eq!(world.inner_addresses(), addresses);
    let logins = world.gateway_log.iter().filter(|line| line.starts_with("up")).count();
    assert!((6..=8).contains(&logins), "{logins} logins");
    world.run_for(2 * MINUTE);
    assert_eq!((world.client.children.len(), world.gateway_children.len()), (1, 1));
}

#[test]
fn a_gateway_that_gives_no_further_sas_is_logged_in_to_anew_and_the_old_ike_sa_deleted() {
    let hour = Some(HOUR);
    let child = Lifetimes { child: hour, ..Lifetimes::default() };
    let ike = Lifetimes { ike: hour, ..Lifetimes::default() };
    for lifetimes in [child, ike] {
        let mut setup = Setup::new(Auth::Psk);
        setup.client.initiator.lifetimes = lifetimes;
        setup.gateway.minimal = true;
        let mut world = connected(setup, 45);
        let (first, addresses) = (spi(&world), world.inner_addresses());
        stays_usable(&mut world, HOUR + MINUTE);
        assert_ne!(spi(&world), first, "a new IKE_SA");
        stays_usable(&mut world, 3 * HOUR);
        world.carry().unwrap();
        assert_eq!(world.inner_addresses(), addresses);
        world.run_for(MINUTE);
        assert_eq!((world.client.children.len(), world.gateway_children.len()), (1, 1));
        assert_eq!((world.client.session.ike_sas(), world.gateway.as_ref().unwrap().clients().len()), (1, 1));
    }
}

#[test]
fn a_pfs_mismatch_is_told_with_the_line_to_change_while_the_connection_stands() {
    let with = "aes256gcm16-x25519";
    let cases = [(with, "aes256gcm16-ecp256", "aes256gcm16"), ("aes256gcm16", with, with)];
    for (ours, theirs, wanted) in cases {
        let mut setup = Setup::new(Auth::Psk);
        setup.client.initiator.lifetimes = Lifetimes { child: Some(HOUR), ..Lifetimes::default() };
        setup.client.initiator.ike_proposals = vec![ike("aes256gcm16-prfsha384-x25519")];
        setup.client.initiator.esp_proposals = parse_esp_list(&[ours]).unwrap();
        setup.gateway.esp_proposals = parse_esp_list(&[theirs]).unwrap();
        let mut world = connected(setup, 44);
        assert_eq!(world.client.session.snapshot().error, None, "nobody can know yet");
        stays_usable(&mut world, HOUR);
        let told = world.client.session.snapshot().error.expect("it is told");
        assert_eq!(told.cause, Cause::NoProposal, "{told:?}");
        assert!(told.message.contains("refuses to renew") && told.message.contains(ours), "{told:?}");
        assert!(told.hint.contains(&format!("esp = [\"{wanted}\"]")), "{told:?}");
        assert_eq!(world.client.phase(), Phase::Connected);
        // Not for ever: whoever mends the gateway need not do more.
        world.gateway.as_mut().unwrap().settings_mut().esp_proposals = parse_esp_list(&[ours]).unwrap();
        stays_usable(&mut world, 3 * HOUR);
        assert_eq!(world.client.session.snapshot().error, None);
    }
}

#[test]
fn when_sequence_numbers_or_octets_run_out_the_child_is_renewed_at_once_without_a_gap() {
    for octets in [None, Some(1_000_000)] {
        let mut setup = Setup::new(Auth::Psk);
        setup.client.initiator.lifetimes = Lifetimes { child_octets: octets, ..Lifetimes::default() };
        let mut world = connected(setup, 46);
        stays_usable(&mut world, MINUTE);
        let (spi_in, _) = world.client.egress.unwrap();
        let child = world.client.children.iter().find(|child| child.spi_in == spi_in).unwrap();
        let (now, spi_out) = (world.now, child.spi_out);
        if octets.is_some() {
            for received in [999_999, 1_000_000] {
                assert_eq!(world.client.egress.unwrap().0, spi_in, "not before");
                let traffic = Traffic { spi_in, received, last_in: Some(now), ..Traffic::default() };
                world.client.session.note_traffic(now, &traffic, &mut world.rng);
                world.run_for(Duration::from_millis(500));
            }
        } else {
            world.client.session.sequence_low(now, spi_out ^ 1, &mut world.rng);
            world.run_for(Duration::from_millis(500));
            assert_eq!(world.client.egress.unwrap().0, spi_in, "another SPI's numbers");
            world.client.session.sequence_low(now, spi_out, &mut world.rng);
        }
        stays_usable(&mut world, SOON);
        assert_ne!(world.client.egress.unwrap().0, spi_in);
        world.run_for(MINUTE);
        assert_eq!((world.client.children.len(), world.gateway_children.len()), (1, 1));
        world.carry().unwrap();
    }
}

#[test]
fn the_client_logs_in_anew_before_the_gateways_limit_or_its_own_and_nobody_is_asked() {
    for auth in [Auth::Psk, Auth::Ecdsa, Auth::Eap] {
        for gateways in [true, false] {
            let mut setup = Setup::new(auth);
            if gateways {
                setup.gateway.auth_lifetime = Some(10 * MINUTE);
            } else {
                setup.client.reauth = Some(9 * MINUTE);
            }
            let mut world = connected(setup, 42);
            let (first, addresses) = (spi(&world), world.inner_addresses());
            stays_usable(&mut world, 8 * MINUTE);
            assert_eq!(spi(&world), first);
            stays_usable(&mut world, 24 * MINUTE);
            assert_ne!(spi(&world), first);
            world.carry().unwrap();
            assert_eq!(world.inner_addresses(), addresses);
            assert!(world.client.asked.is_empty());
            let logins = world.gateway_log.iter().filter(|line| line.starts_with("up")).count();
            assert_eq!(logins, 4, "{:?}", world.gateway_log);
            world.run_for(MINUTE);
            assert_eq!((world.client.children.len(), world.gateway_children.len()), (1, 1));
            assert_eq!(world.client.session.ike_sas(), 1);
        }
    }
}

#[test]
fn a_gateway_that_gives_another_address_at_the_new_login_is_asked_for_the_old_one_again() {
    let mut setup = Setup::new(Auth::Eap);
    setup.client.reauth = Some(9 * MINUTE);
    setup.gateway.unique = false;
    let mut world = connected(setup, 45);
    let addresses = world.inner_addresses();
    for login in [3, 5] {
        assert!(world.run_until(10 * MINUTE, |world| !world.is_usable()), "both IKE_SAs are deleted");
        assert_eq!(world.client.phase(), Phase::Reconnecting);
        assert!(world.run_until(SOON, World::is_usable));
        world.carry().unwrap();
        assert_eq!(world.inner_addresses(), addresses);
        let logins = world.gateway_log.iter().filter(|line| line.starts_with("up")).count();
        assert_eq!(logins, login, "{:?}", world.gateway_log);
        world.run_for(MINUTE);
        assert_eq!((world.client.session.ike_sas(), world.gateway_children.len()), (1, 1));
    }
    assert!(world.client.asked.is_empty());
}

#[test]
fn the_old_login_is_deleted_also_when_the_client_moves_meanwhile() {
    let mut setup = Setup::new(Auth::Psk);
    setup.client.reauth = Some(9 * MINUTE);
    let mut world = connected(setup, 46);
    let first = spi(&world);
    assert!(world.run_until(10 * MINUTE, |world| spi(world) != first));
    world.run_for(SOON / 2);
    assert_eq!(world.gateway.as_ref().unwrap().ike_sas(), 2);
    world.move_client(&[[172, 16, 5, 9].into()]);
    world.run_for(SOON);
    assert_eq!(world.gateway.as_ref().unwrap().ike_sas(), 1, "{:?}", world.gateway_log);
}

#[test]
fn a_login_over_a_bad_network_takes_over_without_a_gap() {
    for seed in 0..20 {
        let mut setup = Setup::new(Auth::Eap);
        setup.gateway.auth_lifetime = Some(5 * MINUTE);
        let mut world = connected(setup, 4300 + seed);
        world.network.faults = Faults { loss: 100, duplicate: 50, reorder: 200 };
        let broken = world.run_until(30 * MINUTE, |world| !world.is_usable());
        assert!(!broken, "seed {seed}, at {:?}", world.now);
        let logins = world.gateway_log.iter().filter(|line| line.starts_with("up")).count();
        assert!(logins >= 6, "{:?}", world.gateway_log);
    }
}

#[test]
fn when_logging_in_anew_fails_the_connection_goes_on_to_its_end_and_says_why() {
    let mut setup = Setup::new(Auth::Eap);
    setup.gateway.auth_lifetime = Some(10 * MINUTE);
    let mut world = connected(setup, 44);
    let gateway = world.gateway.as_mut().unwrap();
    gateway.settings_mut().users = vec![User::new("alice", "another one")];
    stays_usable(&mut world, 9 * MINUTE + MINUTE / 2);
    let told = world.client.session.snapshot().error.expect("why the login failed");
    assert_eq!(told.cause, Cause::Authentication);
    stays_usable(&mut world, MINUTE / 4);
    assert!(world.run_until(MINUTE, |world| world.client.phase() != Phase::Connected));
}
