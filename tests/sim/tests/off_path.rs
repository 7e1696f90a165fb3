//! A hundred thousand datagrams from people who cannot see the conversation, or can see it and have no keys: none changes an
//! outcome, while the connection is set up, while it lives, and while it ends.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_core::Rng;
use ropewalk_gateway::CookiePolicy;
use ropewalk_ike::exchange::IkeSpis;
use ropewalk_ike::wire::{
    Delete, ExchangeType, Flags, GatewayName, Header, Notify, NotifyType, Payload, Redirect, emit_message,
};
use ropewalk_session::Phase;
use ropewalk_sim::network::below;
use ropewalk_sim::setup::CLIENT;
use ropewalk_sim::{Auth, Faults, Setup, World};

/// Of each of the two kinds of people.
const FORGED: u32 = 50_000;

/// Everything that would do harm if it were believed.
fn harmful(number: u32, rng: &mut ChaCha20Rng) -> Vec<Payload> {
    let errors = [
        NotifyType::NoProposalChosen,
        NotifyType::InvalidSyntax,
        NotifyType::AuthenticationFailed,
        NotifyType::InvalidIkeSpi,
        NotifyType::InvalidMajorVersion,
        NotifyType::InvalidMessageId,
        NotifyType::UnsupportedCriticalPayload,
        NotifyType::TemporaryFailure,
        NotifyType::InvalidSpi,
        NotifyType::UnacceptableAddresses,
        NotifyType::UpdateSaAddresses,
        NotifyType::InitialContact,
    ];
    let mut junk = vec![0; 16];
    rng.fill_bytes(&mut junk);
    let kinds = u32::try_from(errors.len()).unwrap();
    let pick = number % (kinds + 6);
    if let Some(error) = errors.get(usize::try_from(pick).unwrap()) {
        return vec![Payload::Notify(Notify::status(*error))];
    }
    let notify = match pick - kinds {
        0 => Notify::new(NotifyType::Cookie, junk),
        1 => Notify::invalid_ke(u16::try_from(below(rng, 40)).unwrap()),
        2 => Redirect { to: GatewayName::Address([192, 0, 2, 66].into()), nonce: junk }.notify(),
        3 => return vec![Payload::Delete(Delete::ike())],
        4 => return vec![Payload::Delete(Delete::esp(vec![rng.next_u32(); 4]))],
        _ => Notify::new(NotifyType::QuickCrashDetection, junk.repeat(2)),
    };
    vec![Payload::Notify(Notify::status(NotifyType::InvalidIkeSpi)), Payload::Notify(notify)]
}

/// One forged datagram; `seen` are the SPIs, for who can see them.
fn forged(number: u32, seen: Option<IkeSpis>, rng: &mut ChaCha20Rng) -> Vec<u8> {
    let exchanges = [
        ExchangeType::IkeSaInit,
        ExchangeType::IkeAuth,
        ExchangeType::CreateChildSa,
        ExchangeType::Informational,
    ];
    let guessed = IkeSpis { initiator: rng.next_u64() | 1, responder: rng.next_u64() };
    let spis = seen.unwrap_or(guessed);
    let header = Header {
        spi_i: spis.initiator,
        spi_r: if number.is_multiple_of(5) { 0 } else { spis.responder },
        next_payload: 0,
        exchange: exchanges[usize::try_from(number % 4).unwrap()],
        flags: Flags {
            initiator: number & 0x10 != 0,
            response: number & 0x20 != 0,
            version: number & 0x40 != 0,
        },
        message_id: below(rng, 6),
    };
    match number % 7 {
        // An Encrypted payload of noise, and a fragment.
        0 | 1 => {
            let mut noise = vec![0; usize::try_from(40 + below(rng, 60)).unwrap()];
            rng.fill_bytes(&mut noise);
            let kind = if number.is_multiple_of(2) { 46 } else { 53 };
            let mut datagram = emit_message(&header, &[]);
            datagram[16] = kind;
            let length = u16::try_from(noise.len() + 4).unwrap();
            datagram.extend_from_slice(&[0, 0]);
            datagram.extend_from_slice(&length.to_be_bytes());
            datagram.extend_from_slice(&noise);
            let whole = u32::try_from(datagram.len()).unwrap();
            datagram[24..28].copy_from_slice(&whole.to_be_bytes());
            datagram
        }
        2 => {
            let mut noise = vec![0; usize::try_from(below(rng, 120)).unwrap()];
            rng.fill_bytes(&mut noise);
            noise
        }
        _ => emit_message(&header, &harmful(number, rng)),
    }
}

/// Sends forgeries to both ends.
fn attack(world: &mut World, numbers: std::ops::Range<u32>, sees: bool, rng: &mut ChaCha20Rng) {
    for number in numbers {
        let seen = sees.then(|| {
            let first = world.network.last_sent().map(|sent| sent.bytes.clone()).unwrap_or_default();
            let spi = |at: usize| {
                let octets = first.get(at..at + 8).and_then(|octets| octets.try_into().ok());
                octets.map_or(0, u64::from_be_bytes)
            };
            IkeSpis { initiator: spi(0), responder: spi(8) }
        });
        let datagram = forged(number, seen, rng);
        if number.is_multiple_of(2) {
            let socket = u16::try_from(50_001 + number % 2).unwrap();
            let port = if number.is_multiple_of(3) { 500 } else { 4500 };
            world.forge_to_client(port, SocketAddr::new(CLIENT, socket), datagram);
        } else {
            let source = SocketAddr::from(([198, 18, 0, u8::try_from(number % 250).unwrap()], 4500));
            world.forge_to_gateway(source, if number.is_multiple_of(3) { 500 } else { 4500 }, &datagram);
        }
    }
}

/// One connection from beginning to end under fire.
fn live(auth: Auth, sees: bool, seed: u64) {
    let mut setup = Setup::new(auth);
    setup.nat = false;
    setup.gateway.cookies = CookiePolicy::UnderLoad(16);
    let mut world = World::new(setup, Faults::default(), seed);
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let (during, life) = (FORGED / 4, FORGED / 2);
    world.connect();
    let mut number = 0;
    while world.client.phase() == Phase::Connecting && number < during {
        attack(&mut world, number..number + 500, sees, &mut rng);
        number += 500;
        world.run_for(Duration::from_millis(4));
    }
    assert!(world.run_to(Phase::Connected, Duration::from_secs(9)), "{:?}", world.client.session.snapshot());
    let spis = world.client.session.snapshot().ike.unwrap().spis;
    world.carry().unwrap();
    while number < during + life {
        attack(&mut world, number..number + 1000, sees, &mut rng);
        number += 1000;
        world.run_for(Duration::from_secs(7));
        assert_eq!(world.client.phase(), Phase::Connected);
    }
    world.carry().unwrap();
    assert_eq!(world.client.session.snapshot().ike.unwrap().spis, spis, "the same IKE_SA");
    assert_eq!(world.gateway_log.len(), 1, "{:?}", world.gateway_log);
    world.disconnect();
    attack(&mut world, number..FORGED, sees, &mut rng);
    assert!(world.run_to(Phase::Disconnected, Duration::from_secs(3)));
    world.run_for(Duration::from_secs(120));
    assert_eq!(world.gateway_log.len(), 2, "{:?}", world.gateway_log);
    assert_eq!(world.gateway.as_ref().unwrap().half_open(), 0);
    assert!(world.gateway_children.is_empty() && world.client.children.is_empty());
}

#[test]
fn a_hundred_thousand_forged_datagrams_change_no_outcome() {
    live(Auth::Psk, false, 300);
    live(Auth::Psk, true, 301);
}

#[test]
fn a_login_with_eap_bears_it_too() {
    live(Auth::Eap, true, 302);
}
