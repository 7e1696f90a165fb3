//! What the gateway makes of cookies that clients bring (RFC 7296 section 2.6).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use ropewalk_gateway::{CookiePolicy, Gateway, Settings};
use ropewalk_ike::crypto::{DhGroup, KeyPair};
use ropewalk_ike::exchange::nat::forced_encapsulation_hash;
use ropewalk_ike::exchange::{IkeSpis, Path};
use ropewalk_ike::proposal::ike_offer;
use ropewalk_ike::time::{Instant, UnixTime};
use ropewalk_ike::wire::{
    ExchangeType, Flags, Header, Identification, KeyExchange, Message, Nonce, Notify, NotifyType, Payload,
    SecurityAssociation, emit_message, find_notify,
};

const SUITE: &str = "aes256gcm16-prfsha256-x25519";

#[test]
fn a_wrong_cookie_counts_as_none() {
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let mut settings = Settings::new(Identification::fqdn("gateway.test"));
    settings.cookies = CookiePolicy::Always;
    let mut gateway = Gateway::new(settings, UnixTime(1_800_000_000));
    let now = Instant::from_start(Duration::from_secs(1000));
    let key = KeyPair::generate(DhGroup::X25519, &mut rng);
    let hash = || forced_encapsulation_hash(IkeSpis { initiator: 7, responder: 0 }).to_vec();
    let request = [
        Payload::Sa(SecurityAssociation { proposals: ike_offer(&[SUITE.parse().unwrap()]) }),
        Payload::Ke(KeyExchange { group: 31, data: key.public().to_vec() }),
        Payload::Nonce(Nonce { data: vec![5; 32] }),
        Payload::Notify(Notify::new(NotifyType::NatDetectionSourceIp, hash())),
        Payload::Notify(Notify::new(NotifyType::NatDetectionDestinationIp, hash())),
    ];
    let flags = Flags { initiator: true, response: false, version: false };
    let exchange = ExchangeType::IkeSaInit;
    let header = Header { spi_i: 7, spi_r: 0, next_payload: 0, exchange, flags, message_id: 0 };
    let path =
        Path { link: 1, local: ([203, 0, 113, 1], 500).into(), remote: ([198, 51, 100, 7], 500).into() };
    let mut answer = |cookie: Option<Vec<u8>>| {
        let cookie = cookie.map(|cookie| Payload::Notify(Notify::new(NotifyType::Cookie, cookie)));
        let payloads: Vec<Payload> = cookie.into_iter().chain(request.iter().cloned()).collect();
        gateway.handle_datagram(now, path, &emit_message(&header, &payloads), &mut rng).unwrap();
        Message::parse(&gateway.poll_transmit().unwrap().message).unwrap().payloads
    };
    let asked = |payloads: &[Payload]| find_notify(payloads, NotifyType::Cookie).map(|it| it.data.clone());
    let right = asked(&answer(None)).unwrap();
    let mut wrong = right.clone();
    wrong[1] ^= 1;
    for cookie in [wrong, vec![0; 64], Vec::new()] {
        assert_eq!(asked(&answer(Some(cookie))), Some(right.clone()), "asked again");
    }
    let led_on = answer(Some(right));
    assert!(led_on.iter().any(|payload| matches!(payload, Payload::Sa(_))), "{led_on:?}");
}
