//! Everything that a peer, or somebody who pretends to be it, can do wrong to an established IKE_SA.

use super::*;
use crate::crypto::CryptoError;
use crate::error::WireError;
use crate::exchange::create_child_sa::PendingChild;
use crate::exchange::sa::CloseReason;
use crate::wire::{Delete, Nonce, Notify, NotifyType, Protocol, emit_message};

/// The client after something that must not have changed it.
fn unharmed(pair: &mut Pair) {
    assert!(!pair.client.is_closed());
    assert_eq!(pair.client.children().len(), 1);
    assert!(pair.events(Role::Initiator).is_empty());
}

#[test]
fn a_message_for_another_ike_sa_is_dropped() {
    let mut pair = Pair::new();
    let mut datagram = pair.forged(ExchangeType::Informational, 0, false, &[]);
    datagram[0] ^= 1;
    assert_eq!(pair.deliver(Role::Initiator, &datagram), Err(PeerMisbehaved::WrongSpi));
    unharmed(&mut pair);
}

#[test]
fn our_own_message_reflected_is_dropped() {
    let mut pair = Pair::new();
    pair.pass(DPD);
    let check = pair.sent_by(Role::Initiator).remove(0);
    assert_eq!(pair.deliver(Role::Initiator, &check), Err(PeerMisbehaved::WrongDirection));
    unharmed(&mut pair);
}

#[test]
fn a_delete_in_the_clear_is_dropped() {
    let mut pair = Pair::new();
    let header = Header {
        spi_i: SPIS.initiator,
        spi_r: SPIS.responder,
        next_payload: 0,
        exchange: ExchangeType::Informational,
        flags: Flags { initiator: false, response: false, version: false },
        message_id: 0,
    };
    let datagram = emit_message(&header, &[Payload::Delete(Delete::ike())]);
    assert_eq!(pair.deliver(Role::Initiator, &datagram), Err(PeerMisbehaved::NotEncrypted));
    unharmed(&mut pair);
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let mut pair = Pair::new();
    let datagram = pair.forged(ExchangeType::Informational, 0, false, &[Payload::Delete(Delete::ike())]);
    for at in 0..datagram.len() {
        let mut flipped = datagram.clone();
        flipped[at] ^= 0x10;
        assert!(pair.deliver(Role::Initiator, &flipped).is_err(), "octet {at}");
    }
    unharmed(&mut pair);
    let error = PeerMisbehaved::NotAuthentic { error: CryptoError::IntegrityCheckFailed };
    let mut flipped = datagram;
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(pair.deliver(Role::Initiator, &flipped), Err(error));
}

#[test]
fn a_request_outside_the_window_is_dropped() {
    let mut pair = Pair::new();
    for message_id in [1, 7, u32::MAX] {
        let datagram =
            pair.forged(ExchangeType::Informational, message_id, false, &[Payload::Delete(Delete::ike())]);
        let error = PeerMisbehaved::OutsideWindow { message_id };
        assert_eq!(pair.deliver(Role::Initiator, &datagram), Err(error));
    }
    unharmed(&mut pair);
}

#[test]
fn a_response_to_nothing_is_dropped() {
    let mut pair = Pair::new();
    let datagram = pair.forged(ExchangeType::Informational, 2, true, &[]);
    let error = PeerMisbehaved::UnexpectedResponse { message_id: 2 };
    assert_eq!(pair.deliver(Role::Initiator, &datagram), Err(error));
    unharmed(&mut pair);
}

#[test]
fn initial_exchanges_inside_an_ike_sa_are_answered_with_an_error() {
    for exchange in [ExchangeType::IkeSaInit, ExchangeType::IkeAuth, ExchangeType::Other(99)] {
        let mut pair = Pair::new();
        let datagram = pair.forged(exchange, 0, false, &[]);
        assert_eq!(pair.deliver(Role::Initiator, &datagram), Err(PeerMisbehaved::WrongExchange { exchange }));
        assert_eq!(pair.sent_by(Role::Initiator).len(), 1, "INVALID_SYNTAX");
        unharmed(&mut pair);
    }
}

#[test]
fn a_delete_for_ah_or_for_an_unknown_spi_deletes_nothing() {
    let mut pair = Pair::new();
    let ah = Payload::Delete(Delete { protocol: Protocol::Ah, spis: vec![0xbeef00] });
    let datagram = pair.forged(ExchangeType::Informational, 0, false, &[ah]);
    let error = PeerMisbehaved::DeleteProtocol { protocol: 2 };
    assert_eq!(pair.deliver(Role::Initiator, &datagram), Err(error));
    let unknown = Payload::Delete(Delete::esp(vec![0x0bad_0bad]));
    let datagram = pair.forged(ExchangeType::Informational, 1, false, &[unknown]);
    assert_eq!(pair.deliver(Role::Initiator, &datagram), Ok(()));
    unharmed(&mut pair);
}

#[test]
fn an_authenticated_fatal_error_ends_the_ike_sa() {
    for ty in [NotifyType::InvalidSyntax, NotifyType::AuthenticationFailed] {
        let mut pair = Pair::new();
        pair.pass(DPD);
        let notify = Payload::Notify(Notify::status(ty));
        let datagram = pair.forged(ExchangeType::Informational, 2, true, &[notify]);
        let error = PeerMisbehaved::FatalNotify { notify: ty };
        assert_eq!(pair.deliver(Role::Initiator, &datagram), Err(error));
        let events = pair.events(Role::Initiator);
        let last = events.last();
        assert!(
            matches!(last, Some(SaEvent::Closed(CloseReason::Fatal(found))) if *found == ty),
            "{events:?}"
        );
    }
}

#[test]
fn an_unknown_critical_payload_is_refused_and_survived() {
    let mut pair = Pair::new();
    let unknown = crate::wire::UnknownPayload { payload_type: 200, critical: true, body: vec![1, 2, 3] };
    let datagram = pair.forged(ExchangeType::Informational, 0, false, &[Payload::Unknown(unknown)]);
    let error = PeerMisbehaved::Wire(WireError::UnsupportedCriticalPayload { payload_type: 200 });
    assert_eq!(pair.deliver(Role::Initiator, &datagram), Err(error));
    assert_eq!(pair.sent_by(Role::Initiator).len(), 1);
    unharmed(&mut pair);
}

#[test]
fn a_create_child_sa_without_its_payloads_is_refused() {
    let mut pair = Pair::new();
    let nonce = Payload::Nonce(Nonce { data: vec![7; 32] });
    let datagram = pair.forged(ExchangeType::CreateChildSa, 0, false, &[nonce]);
    let error = PeerMisbehaved::MissingPayload { what: "the SA payload" };
    assert_eq!(pair.deliver(Role::Initiator, &datagram), Err(error));
    unharmed(&mut pair);
}

#[test]
fn a_rekey_of_another_protocol_or_of_a_child_that_is_not_there_is_refused() {
    let mut pair = Pair::new();
    let mut wrong = Notify::rekey_esp(0xbeef00);
    wrong.protocol = 2;
    let offer = crate::exchange::child::ChildOffer::new(
        &policy(Role::Responder, "aes256gcm16").proposals,
        policy(Role::Responder, "aes256gcm16").ts_local,
        policy(Role::Responder, "aes256gcm16").ts_remote,
        &mut pair.rng,
    );
    let mut payloads = vec![Payload::Notify(wrong), Payload::Nonce(Nonce { data: vec![7; 32] })];
    payloads.extend(offer.payloads());
    let datagram = pair.forged(ExchangeType::CreateChildSa, 0, false, &payloads);
    let error = PeerMisbehaved::RekeyProtocol { protocol: 2 };
    assert_eq!(pair.deliver(Role::Initiator, &datagram), Err(error));
    payloads[0] = Payload::Notify(Notify::rekey_esp(0x0bad_0bad));
    let datagram = pair.forged(ExchangeType::CreateChildSa, 1, false, &payloads);
    assert_eq!(pair.deliver(Role::Initiator, &datagram), Ok(()), "answered with CHILD_SA_NOT_FOUND");
    unharmed(&mut pair);
}

#[test]
fn selectors_wider_than_asked_for_are_not_installed() {
    let mut pair = Pair::new();
    let pending = PendingChild::new(&policy(Role::Initiator, "aes256gcm16"), &mut pair.rng);
    pair.client.create_child(pair.now, pending, &mut pair.rng);
    let request = pair.sent_by(Role::Initiator).remove(0);
    pair.deliver(Role::Responder, &request).unwrap();
    // The honest answer's payloads with a wider TSi: all of IPv4 instead of the one address.
    let parsed = crate::wire::Message::parse(&pair.sent_by(Role::Responder)[0]).unwrap();
    assert!(parsed.encrypted.is_some());
    let mut proposal = crate::proposal::esp_offer(
        &policy(Role::Responder, "aes256gcm16-noesn").proposals,
        0x0102_0304,
        false,
    );
    proposal.truncate(1);
    let answer = vec![
        Payload::Sa(crate::wire::SecurityAssociation { proposals: proposal }),
        Payload::Nonce(Nonce { data: vec![9; 32] }),
        Payload::TsI(TrafficSelectors::new(vec![TrafficSelector::any_v4()])),
        Payload::TsR(TrafficSelectors::new(vec![TrafficSelector::any_v4()])),
    ];
    let datagram = pair.forged(ExchangeType::CreateChildSa, 2, true, &answer);
    assert_eq!(pair.deliver(Role::Initiator, &datagram), Err(PeerMisbehaved::SelectorsNotNarrowed));
    assert_eq!(pair.client.children().len(), 1);
}
