//! A client that moves.

use super::*;
use crate::exchange::nat::detection_hash;
use crate::wire::{Message, Notify, NotifyType, find_notify};

#[test]
fn a_client_that_moves_is_followed_and_told_how_it_is_seen() {
    let mut pair = Pair::new();
    let mut client = Protection::new(IkeCipher::Aes256Gcm16, &keys(), Role::Initiator).unwrap();
    let header = Header {
        spi_i: SPIS.initiator,
        spi_r: SPIS.responder,
        next_payload: 0,
        exchange: ExchangeType::Informational,
        flags: Flags { initiator: true, response: false, version: false },
        message_id: 2,
    };
    let request = [
        Payload::Notify(Notify::status(NotifyType::UpdateSaAddresses)),
        Payload::Notify(Notify::new(NotifyType::NatDetectionSourceIp, vec![0; 20])),
        Payload::Notify(Notify::new(NotifyType::NatDetectionDestinationIp, vec![0; 20])),
        Payload::Notify(Notify::new(NotifyType::Cookie2, b"a cookie".to_vec())),
    ];
    let sealed = client.seal(header, &request, false, path(Role::Initiator), &mut pair.rng).unwrap();
    let new = Path { remote: ([203, 0, 113, 9], 1234).into(), ..path(Role::Responder) };
    pair.gateway.handle_datagram(pair.now, new, &sealed[0], &mut pair.rng).unwrap();

    assert!(matches!(pair.events(Role::Responder).as_slice(), [SaEvent::PathChanged(path)] if *path == new));
    let answer = pair.gateway.poll_transmit().unwrap();
    assert_eq!(answer.path, new);
    let parsed = Message::parse(&answer.message).unwrap();
    let opened = client.open(&answer.message, &parsed.header, &parsed.encrypted.unwrap()).unwrap().unwrap();
    let payloads = opened.payloads().unwrap();
    let data = |ty| find_notify(&payloads, ty).map(|notify| notify.data.clone());
    assert_eq!(data(NotifyType::Cookie2), Some(b"a cookie".to_vec()));
    let seen = detection_hash(SPIS, new.remote).to_vec();
    assert_eq!(data(NotifyType::NatDetectionDestinationIp), Some(seen));
    assert_eq!(data(NotifyType::NatDetectionSourceIp), Some(detection_hash(SPIS, new.local).to_vec()));
}
