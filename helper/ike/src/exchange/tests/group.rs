//! A group's SA on an established IKE_SA (draft-yamaya-ipsecme-mpsa, section 3.1).

use super::*;
use crate::exchange::group::GroupEvent;
use crate::multi_point::group_sa::tests::offer;
use crate::multi_point::group_sa::{GroupPolicy, Refusal};
use crate::multi_point::put::{MPSA_PUT, MpsaPut};
use crate::wire::{Delete, Message, Notify, NotifyType, emit_message};

fn members() -> Pair {
    let mut pair = Pair::new();
    pair.client.take_group_sas(GroupPolicy::default());
    pair
}

/// What the client says to a message of a gateway that has the right keys.
fn told(pair: &mut Pair, payloads: &[Payload]) -> (Result<(), PeerMisbehaved>, Vec<Payload>) {
    let datagram = pair.forged(ExchangeType::Informational, 0, false, payloads);
    let outcome = pair.deliver(Role::Initiator, &datagram);
    let answer = pair.sent_by(Role::Initiator).remove(0);
    let parsed = Message::parse(&answer).unwrap();
    let encrypted = parsed.encrypted.clone().unwrap();
    let opened = pair.forger.open(pair.now, &answer, &parsed.header, &encrypted).unwrap().unwrap();
    (outcome, opened.payloads().unwrap().to_vec())
}

#[test]
fn what_is_handed_out_arrives_and_is_answered_with_nothing() {
    let mut pair = members();
    let (outcome, answer) = told(&mut pair, &[Payload::Notify(offer(300).notify())]);
    outcome.unwrap();
    assert_eq!(answer, []);
    let events = pair.events(Role::Initiator);
    let [SaEvent::Group(GroupEvent::HandedOut(sa))] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((sa.spi, sa.rollover1), (300, Duration::from_secs(60)));
}

#[test]
fn a_gateway_hands_out_and_takes_back() {
    let mut pair = members();
    let (now, mut rng) = (pair.now, ChaCha20Rng::seed_from_u64(3));
    pair.gateway.hand_out(now, &offer(300), &mut rng);
    pair.settle();
    assert!(matches!(pair.events(Role::Initiator).as_slice(), [SaEvent::Group(GroupEvent::HandedOut(_))]));
    pair.gateway.take_back(now, 300, &mut rng);
    pair.settle();
    assert!(matches!(
        pair.events(Role::Initiator).as_slice(),
        [SaEvent::Group(GroupEvent::Deleted { spi: 300 })]
    ));
    assert_eq!(pair.client.children().len(), 1);
}

#[test]
fn nobody_listens_who_did_not_announce_it() {
    let mut pair = Pair::new();
    let (outcome, answer) = told(&mut pair, &[Payload::Notify(offer(300).notify())]);
    outcome.unwrap();
    assert_eq!(answer, []);
    assert!(pair.events(Role::Initiator).is_empty());
}

#[test]
fn a_client_cannot_hand_out() {
    let mut pair = members();
    pair.gateway.take_group_sas(GroupPolicy::default());
    let (now, mut rng) = (pair.now, ChaCha20Rng::seed_from_u64(3));
    pair.client.hand_out(now, &offer(300), &mut rng);
    pair.client.take_back(now, 300, &mut rng);
    pair.settle();
    assert!(pair.events(Role::Responder).is_empty());
}

#[test]
fn a_malformed_offer_is_answered_with_invalid_syntax_and_installs_nothing() {
    let good = offer(300).notify();
    let mut cases: Vec<(&str, Notify)> = (0..good.data.len())
        .map(|length| ("truncated", Notify { data: good.data[..length].to_vec(), ..good.clone() }))
        .collect();
    let mut lying = good.clone();
    lying.data[3] = lying.data[3].wrapping_add(1);
    cases.push(("a lying length", lying));
    cases.push(("an SPI of eight octets", Notify { spi: vec![0; 8], ..good.clone() }));
    cases.push(("no SPI", Notify { spi: Vec::new(), ..good.clone() }));
    cases.push(("AH", Notify { protocol: 2, ..good.clone() }));
    let mut other = good.clone();
    other.data[11] ^= 1;
    cases.push(("two SPIs", other));
    for (what, notify) in cases {
        let mut pair = members();
        let (outcome, answer) = told(&mut pair, &[Payload::Notify(notify)]);
        assert!(matches!(outcome, Err(PeerMisbehaved::GroupSa(_))), "{what}: {outcome:?}");
        assert_eq!(answer, [Payload::Notify(Notify::status(NotifyType::InvalidSyntax))], "{what}");
        assert!(pair.events(Role::Initiator).is_empty(), "{what}");
        assert!(!pair.client.is_closed(), "{what}");
    }
}

#[test]
fn what_is_not_used_is_answered_as_if_it_were_and_the_owner_hears_why() {
    let counter_mode = MpsaPut { encr: 20, integ: 0, ..offer(300) };
    let taken = MpsaPut { spi: 0xc0ffee, ..offer(300) };
    let cases = [
        (vec![counter_mode], Refusal::CounterMode { encr: 20 }),
        (vec![taken], Refusal::SpiInUse { spi: 0xc0ffee }),
        (vec![offer(300), offer(301)], Refusal::SeveralGroups),
    ];
    for (offers, expected) in cases {
        let mut pair = members();
        let payloads: Vec<_> = offers.iter().map(|put| Payload::Notify(put.notify())).collect();
        let (outcome, answer) = told(&mut pair, &payloads);
        outcome.unwrap();
        assert_eq!(answer, []);
        let events = pair.events(Role::Initiator);
        let [SaEvent::Group(GroupEvent::Refused(refusal))] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(*refusal, expected);
    }
}

#[test]
fn a_delete_of_a_child_sa_is_no_delete_of_a_groups() {
    let mut pair = members();
    let (outcome, _) = told(&mut pair, &[Payload::Delete(Delete::esp(vec![0xbeef00]))]);
    outcome.unwrap();
    let events = pair.events(Role::Initiator);
    assert!(events.iter().all(|event| !matches!(event, SaEvent::Group(_))), "{events:?}");
}

#[test]
fn an_offer_in_the_clear_is_nothing() {
    let mut pair = members();
    let header = Header {
        spi_i: SPIS.initiator,
        spi_r: SPIS.responder,
        next_payload: 0,
        exchange: ExchangeType::Informational,
        flags: Flags { initiator: false, response: false, version: false },
        message_id: 0,
    };
    assert_eq!(offer(300).notify().ty, NotifyType::from(MPSA_PUT));
    let datagram = emit_message(&header, &[Payload::Notify(offer(300).notify())]);
    assert_eq!(pair.deliver(Role::Initiator, &datagram), Err(PeerMisbehaved::NotEncrypted));
    assert!(pair.events(Role::Initiator).is_empty());
}
