//! What leads to no connection, and what the user is told.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use ropewalk_gateway::User;
use ropewalk_ike::exchange::config::LocalAuth;
use ropewalk_ike::proposal::parse_esp_list;
use ropewalk_ike::wire::Identification;
use ropewalk_session::{Cause, CredentialReason, Explanation, Phase};
use ropewalk_sim::setup::{ike, other_root};
use ropewalk_sim::{Auth, Faults, Setup, World};
use zeroize::Zeroizing;

/// Lets an attempt fail, and checks that it leaves nothing behind.
fn refused(setup: Setup, within: Duration) -> Explanation {
    let mut world = World::new(setup, Faults::default(), 5);
    world.connect();
    assert!(world.run_to(Phase::Failed, within), "{:?}", world.client.session.snapshot());
    let error = world.client.session.snapshot().error.expect("an error");
    assert!(world.client.tunnel.is_none() && world.client.children.is_empty());
    world.run_for(Duration::from_secs(120));
    if let Some(gateway) = &world.gateway {
        assert!(gateway.clients().is_empty(), "the gateway keeps a client");
        assert_eq!(gateway.half_open(), 0);
        assert_eq!(gateway.poll_timeout(), None, "the gateway remembers something");
    }
    assert!(world.gateway_children.is_empty());
    assert_eq!(world.client.phase(), Phase::Failed);
    error
}

const SOON: Duration = Duration::from_secs(2);

#[test]
fn a_wrong_pre_shared_key_is_an_authentication_error() {
    let mut setup = Setup::new(Auth::Psk);
    setup.client.initiator.auth = LocalAuth::Psk(Zeroizing::new(b"another secret".to_vec()));
    assert_eq!(refused(setup, SOON).cause, Cause::Authentication);
}

#[test]
fn an_identity_without_a_key_is_an_authentication_error() {
    let mut setup = Setup::new(Auth::Psk);
    setup.client.initiator.local_id = Identification::rfc822("stranger@sim.test");
    assert_eq!(refused(setup, SOON).cause, Cause::Authentication);
}

#[test]
fn a_wrong_password_is_an_authentication_error_with_the_gateways_words() {
    let mut setup = Setup::new(Auth::Eap);
    setup.gateway.users = vec![User::new("alice", "another password")];
    let error = refused(setup, SOON);
    assert_eq!(error.cause, Cause::Authentication);
    assert!(error.message.contains("Wrong user name or password"), "{error:?}");
}

#[test]
fn after_a_wrong_password_the_user_is_asked_and_the_right_one_leads_in() {
    let mut setup = Setup::new(Auth::Eap);
    setup.client.can_ask = true;
    setup.gateway.users = vec![User::new("alice", "the new one")];
    let mut world = World::new(setup, Faults::default(), 6);
    world.client.answers = vec![
        Some(("alice".to_owned(), "a typing error".to_owned())),
        Some(("alice".to_owned(), "the new one".to_owned())),
    ];
    world.connect();
    assert!(world.run_to(Phase::Connected, SOON), "{:?}", world.client.session.snapshot());
    assert_eq!(world.client.asked.len(), 2);
    assert!(world.client.asked.iter().all(|reason| matches!(reason, CredentialReason::Refused(Some(_)))));
    world.carry().unwrap();
}

#[test]
fn no_common_proposal_is_said_after_a_while_and_named() {
    let mut setup = Setup::new(Auth::Psk);
    setup.client.initiator.ike_proposals = vec![ike("aes256gcm16-prfsha384-x25519")];
    setup.gateway.ike_proposals = vec![ike("aes128-sha256-ecp256")];
    let error = refused(setup, Duration::from_secs(10));
    assert_eq!(error.cause, Cause::NoProposal);
    assert!(error.message.contains("aes256gcm16"), "{error:?}");
}

#[test]
fn no_common_proposal_for_the_tunnel_is_said_and_the_ike_sa_goes() {
    let mut setup = Setup::new(Auth::Psk);
    setup.client.initiator.esp_proposals = parse_esp_list(&["aes256gcm16"]).unwrap();
    setup.gateway.esp_proposals = parse_esp_list(&["aes128-sha256"]).unwrap();
    assert_eq!(refused(setup, SOON).cause, Cause::NoProposal);
}

#[test]
fn networks_that_the_gateway_does_not_grant_are_refused() {
    let mut setup = Setup::new(Auth::Psk);
    setup.gateway.traffic = vec!["10.50.0.0/16".parse().unwrap()];
    let other = ropewalk_ike::wire::TrafficSelector::from_prefix([172, 16, 0, 0].into(), 12);
    setup.client.initiator.ts_r = ropewalk_ike::wire::TrafficSelectors::new(vec![other]);
    let error = refused(setup, SOON);
    assert!(error.message.contains("none of the networks"), "{error:?}");
}

#[test]
fn an_exhausted_pool_is_said() {
    let mut setup = Setup::new(Auth::Psk);
    // Its two addresses are the network's and the gateway's.
    setup.gateway.pools = vec!["10.98.0.0/31".parse().unwrap()];
    let error = refused(setup, SOON);
    assert!(error.message.contains("no inner address"), "{error:?}");
}

#[test]
fn a_gateway_of_an_unknown_authority_is_refused() {
    for auth in [Auth::Ecdsa, Auth::Rsa, Auth::Eap] {
        let mut setup = Setup::new(auth);
        setup.client.initiator.gateway.trust_anchors = other_root();
        assert_eq!(refused(setup, SOON).cause, Cause::Authentication, "{auth:?}");
    }
}

#[test]
fn a_client_of_an_unknown_authority_is_refused() {
    let mut setup = Setup::new(Auth::Ecdsa);
    setup.gateway.client_authorities = other_root();
    assert_eq!(refused(setup, SOON).cause, Cause::Authentication);
}

#[test]
fn a_gateway_of_another_name_is_refused() {
    for auth in [Auth::Psk, Auth::Ecdsa, Auth::Eap] {
        let mut setup = Setup::new(auth);
        setup.client.initiator.gateway.expected = Identification::fqdn("another.sim.test");
        let error = refused(setup, SOON);
        assert_eq!(error.cause, Cause::Authentication, "{auth:?}");
        assert!(error.message.contains("another.sim.test"), "{error:?}");
    }
}

#[test]
fn a_client_that_claims_an_identity_its_certificate_does_not_prove_is_refused() {
    let mut setup = Setup::new(Auth::Ecdsa);
    setup.client.initiator.local_id = Identification::rfc822("boss@sim.test");
    assert_eq!(refused(setup, SOON).cause, Cause::Authentication);
}

#[test]
fn a_silent_gateway_is_unreachable_within_its_time() {
    let mut world = World::new(Setup::new(Auth::Psk), Faults::default(), 8);
    world.stop_gateway();
    world.connect();
    assert!(world.run_to(Phase::Failed, Duration::from_secs(20)));
    assert_eq!(world.client.session.snapshot().error.unwrap().cause, Cause::Unreachable);
}

#[test]
fn a_gateway_that_falls_silent_after_its_first_answer_is_unreachable() {
    let mut world = World::new(Setup::new(Auth::Psk), Faults::default(), 9);
    world.connect();
    world.run_until(SOON, |world| world.gateway.as_ref().is_some_and(|gateway| gateway.half_open() == 1));
    world.run_for(Duration::from_millis(1));
    world.network.cut = true;
    assert!(world.run_to(Phase::Failed, Duration::from_secs(40)));
    let error = world.client.session.snapshot().error.unwrap();
    assert_eq!(error.cause, Cause::Unreachable);
}
