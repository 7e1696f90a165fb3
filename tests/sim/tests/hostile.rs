//! Somebody on the way, or anywhere else, writes into the conversation: by the classes of bugs that have broken other
//! implementations. What the two ends come to is what they would have come to without.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use ropewalk_gateway::CookiePolicy;
use ropewalk_ike::exchange::config::LocalAuth;
use ropewalk_ike::wire::{ExchangeType, Flags, Header, Notify, NotifyType, Payload, emit_message};
use ropewalk_session::{Cause, Phase};
use ropewalk_sim::setup::CLIENT;
use ropewalk_sim::{Auth, Faults, Setup, World};
use zeroize::Zeroizing;

const SOON: Duration = Duration::from_secs(3);

fn client_socket() -> SocketAddr {
    SocketAddr::new(CLIENT, 50_001)
}

/// An answer to IKE_SA_INIT in the clear, by somebody who has seen the request.
fn answer(world: &World, notify: Notify) -> Vec<u8> {
    let spi_i = world.network.last_sent().and_then(|sent| sent.bytes.first_chunk().copied());
    let header = Header {
        spi_i: spi_i.map_or(0, u64::from_be_bytes),
        spi_r: 0,
        next_payload: 0,
        exchange: ExchangeType::IkeSaInit,
        flags: Flags { initiator: false, response: true, version: false },
        message_id: 0,
    };
    emit_message(&header, &[Payload::Notify(notify)])
}

fn cookie(number: u16) -> Notify {
    Notify::new(NotifyType::Cookie, number.to_be_bytes().repeat(8))
}

#[test]
fn forged_cookies_and_groups_change_nothing_whether_the_gateway_asks_for_cookies_or_not() {
    for (seed, auth) in [Auth::Psk, Auth::Ecdsa, Auth::Eap].into_iter().enumerate() {
        for policy in [CookiePolicy::UnderLoad(64), CookiePolicy::Always] {
            for forged in
                [vec![cookie(1)], vec![Notify::invalid_ke(19)], vec![cookie(2), Notify::invalid_ke(19)]]
            {
                let mut setup = Setup::new(auth);
                setup.gateway.cookies = policy;
                let mut world = World::new(setup, Faults::default(), 60 + u64::try_from(seed).unwrap());
                world.connect();
                for notify in &forged {
                    let forged = answer(&world, notify.clone());
                    world.forge_to_client(500, client_socket(), forged);
                }
                let connected = world.run_to(Phase::Connected, SOON);
                assert!(connected, "{auth:?} {policy:?} {forged:?}: {:?}", world.client.session.snapshot());
                world.carry().unwrap();
                assert_eq!(world.gateway_log.len(), 1, "{:?}", world.gateway_log);
                world.run_for(Duration::from_secs(40));
                assert_eq!(world.gateway.as_ref().unwrap().half_open(), 0);
                assert_eq!(world.client.phase(), Phase::Connected);
            }
        }
    }
}

#[test]
fn a_burst_of_forged_cookies_keeps_nobody_out() {
    for policy in [CookiePolicy::UnderLoad(64), CookiePolicy::Always] {
        let mut setup = Setup::new(Auth::Psk);
        setup.gateway.cookies = policy;
        let mut world = World::new(setup, Faults::default(), 70);
        world.connect();
        let sent = world.network.datagrams();
        for number in 0..2000 {
            let forged = answer(&world, cookie(number));
            world.forge_to_client(500, client_socket(), forged);
        }
        assert!(world.network.datagrams() - sent < 8, "the client is no amplifier");
        assert!(world.run_to(Phase::Connected, Duration::from_secs(9)), "{policy:?}");
        world.carry().unwrap();
    }
}

#[test]
fn a_wrong_key_is_said_soon_also_by_a_gateway_that_asks_for_cookies() {
    let mut setup = Setup::new(Auth::Psk);
    setup.gateway.cookies = CookiePolicy::Always;
    setup.client.initiator.auth = LocalAuth::Psk(Zeroizing::new(b"another secret".to_vec()));
    let mut world = World::new(setup, Faults::default(), 71);
    world.connect();
    assert!(world.run_to(Phase::Failed, Duration::from_secs(5)));
    assert_eq!(world.client.session.snapshot().error.unwrap().cause, Cause::Authentication);
}

#[test]
fn an_error_in_the_clear_never_shortens_the_wait_for_the_true_answer() {
    for notify in [NotifyType::NoProposalChosen, NotifyType::InvalidMajorVersion, NotifyType::InvalidSyntax] {
        let mut world = World::new(Setup::new(Auth::Psk), Faults::default(), 72);
        world.connect();
        let forged = answer(&world, Notify::status(notify));
        // The gateway cannot be reached for most of the bounded time.
        world.network.cut = true;
        for _ in 0..90 {
            world.forge_to_client(500, client_socket(), forged.clone());
            world.run_for(Duration::from_millis(100));
        }
        world.network.cut = false;
        assert!(world.run_to(Phase::Connected, SOON), "{notify}");
    }
}
