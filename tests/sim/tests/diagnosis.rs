//! What a user is told when it does not work: what was offered and what the gateway wants, both names, the dates, the size.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use ropewalk_ike::proposal::parse_esp_list;
use ropewalk_ike::time::UnixTime;
use ropewalk_ike::wire::{
    ExchangeType, Flags, Header, Identification, Message, Notify, Payload, emit_message,
};
use ropewalk_session::{Cause, Explanation, Phase, Unreached};
use ropewalk_sim::setup::{CLIENT, WALL_CLOCK, ike};
use ropewalk_sim::{Auth, Faults, Setup, World};

const ENOUGH: Duration = Duration::from_secs(50);

fn failure_at(setup: Setup, clock: UnixTime) -> Explanation {
    let mut world = World::new(setup, Faults::default(), 400);
    world.wall_clock = clock;
    world.connect();
    failure(&mut world)
}

fn failure(world: &mut World) -> Explanation {
    assert!(world.run_to(Phase::Failed, ENOUGH), "{:?}", world.client.session.snapshot());
    world.client.session.snapshot().error.expect("an error")
}

fn says(error: &Explanation, cause: Cause, message: &[&str], hint: &[&str]) {
    assert_eq!(error.cause, cause, "{error:?}");
    assert!(message.iter().all(|word| error.message.contains(word)), "{error:?}");
    assert!(hint.iter().all(|word| error.hint.contains(word)), "{error:?}");
}

#[test]
fn a_proposal_mismatch_says_what_was_offered_what_the_gateway_takes_and_which_line_to_change() {
    let mut setup = Setup::new(Auth::Psk);
    setup.client.initiator.ike_proposals = vec![ike("aes256gcm16-prfsha384-x25519")];
    setup.gateway.ike_proposals = vec![ike("aes128-sha256-modp2048")];
    let error = failure_at(setup, WALL_CLOCK);
    let wanted = "aes128-sha256-prfsha256-modp2048";
    says(
        &error,
        Cause::NoProposal,
        &["aes256gcm16-prfsha384-x25519", "aes128-sha256"],
        &["[crypto]", "ike = ["],
    );
    assert!(error.hint.contains(wanted) || error.hint.contains("aes128-sha256-modp2048"), "{error:?}");
    let suggested = error.hint.split('"').nth(1).expect("a suite");
    assert!(
        suggested.parse::<ropewalk_ike::proposal::IkeProposal>().is_ok(),
        "{suggested} can be put into a profile"
    );
}

#[test]
fn the_suite_that_is_suggested_leads_in() {
    let mut setup = Setup::new(Auth::Psk);
    setup.client.initiator.ike_proposals = vec![ike("aes256gcm16-prfsha384-x25519")];
    setup.gateway.ike_proposals = vec![ike("aes128gcm16-prfsha256-ecp384")];
    let error = failure_at(setup.clone(), WALL_CLOCK);
    let suggested = error.hint.split('"').nth(1).expect("a suite");
    setup.client.initiator.ike_proposals = vec![ike(suggested)];
    let mut world = World::new(setup, Faults::default(), 401);
    world.connect();
    assert!(world.run_to(Phase::Connected, Duration::from_secs(3)));
}

#[test]
fn a_wanted_group_that_was_not_offered_is_named() {
    let mut setup = Setup::new(Auth::Psk);
    setup.client.initiator.ike_proposals = vec![ike("aes256gcm16-prfsha384-x25519")];
    let mut world = World::new(setup, Faults::default(), 402);
    world.stop_gateway();
    world.connect();
    let request = Message::parse(&world.network.last_sent().unwrap().bytes).unwrap().header;
    let flags = Flags { initiator: false, response: true, version: false };
    let header = Header { flags, exchange: ExchangeType::IkeSaInit, ..request };
    let answer = emit_message(&header, &[Payload::Notify(Notify::invalid_ke(14))]);
    world.forge_to_client(500, (CLIENT, 50_001).into(), answer);
    let error = failure(&mut world);
    says(&error, Cause::NoProposal, &["x25519", "modp2048"], &["crypto.ike", "modp2048"]);
}

#[test]
fn a_mismatch_of_the_tunnels_algorithms_says_what_was_offered_and_which_line_to_change() {
    let mut setup = Setup::new(Auth::Psk);
    setup.client.initiator.esp_proposals = parse_esp_list(&["aes256gcm16"]).unwrap();
    setup.gateway.esp_proposals = parse_esp_list(&["aes128-sha256"]).unwrap();
    says(&failure_at(setup, WALL_CLOCK), Cause::NoProposal, &["aes256gcm16"], &["crypto.esp"]);
}

#[test]
fn an_identity_mismatch_names_both_identities_and_the_line() {
    for auth in [Auth::Psk, Auth::Ecdsa, Auth::Eap] {
        let mut setup = Setup::new(auth);
        setup.client.initiator.gateway.expected = Identification::fqdn("another.sim.test");
        let error = failure_at(setup, WALL_CLOCK);
        says(&error, Cause::Authentication, &["another.sim.test", "gateway.sim.test"], &["gateway.identity"]);
    }
}

#[test]
fn a_certificate_out_of_its_time_gives_the_dates_and_a_wrong_clock_is_called_wrong() {
    // Past the end of the test certificates, a day in 2026 before their beginning, and a clock that forgot everything.
    let expired = failure_at(Setup::new(Auth::Ecdsa), UnixTime(9_000_000_000));
    says(
        &expired,
        Cause::Authentication,
        &["expired on", "the clock of this computer says 2255"],
        &["renew"],
    );
    let forgotten = failure_at(Setup::new(Auth::Ecdsa), UnixTime(86_400));
    says(
        &forgotten,
        Cause::Authentication,
        &["not valid before", "1970"],
        &["clock of this computer is wrong"],
    );
}

#[test]
fn a_large_message_that_the_network_swallows_is_told_and_fragmentation_mends_it() {
    for fragmentation in [false, true] {
        let mut setup = Setup::new(Auth::Rsa);
        setup.gateway.fragmentation = fragmentation;
        let mut world = World::new(setup, Faults::default(), 403);
        // 1280 less IPv4 and UDP headers.
        world.network.largest = Some(1252);
        world.connect();
        if fragmentation {
            assert!(world.run_to(Phase::Connected, Duration::from_secs(3)));
        } else {
            says(&failure(&mut world), Cause::Unreachable, &["octets"], &["fragmentation"]);
        }
    }
}

#[test]
fn a_machine_where_nothing_listens_is_told_from_silence() {
    let told = |why: Option<Unreached>| {
        let mut world = World::new(Setup::new(Auth::Psk), Faults::default(), 404);
        world.stop_gateway();
        world.connect();
        if let Some(why) = why {
            world.client.session.path_refused(world.now, 1, why, &mut world.rng);
        }
        failure(&mut world)
    };
    says(&told(None), Cause::Unreachable, &["does not answer"], &["firewall", "500 and 4500"]);
    says(
        &told(Some(Unreached::NothingListens)),
        Cause::Unreachable,
        &["no gateway answers on it"],
        &["gateway.port"],
    );
    says(
        &told(Some(Unreached::NoWay)),
        Cause::Unreachable,
        &["does not answer", "no way"],
        &["gateway.address"],
    );
}

#[test]
fn port_4500_blocked_is_told_from_a_gateway_that_is_not_there() {
    let mut world = World::new(Setup::new(Auth::Psk), Faults::default(), 405);
    world.connect();
    world.run_until(Duration::from_secs(1), |world| {
        world.gateway.as_ref().is_some_and(|gateway| gateway.half_open() == 1)
    });
    world.run_for(Duration::from_millis(1));
    // Its answer is on the way; what follows goes to port 4500.
    world.network.largest = Some(0);
    says(&failure(&mut world), Cause::Unreachable, &["answered at first"], &["4500"]);
}
