//! Answers that wait while we move, for a gateway that would take them for something else.

use super::*;
use crate::wire::Message;

const ELSEWHERE: fn() -> Path =
    || Path { link: 2, local: ([203, 0, 113, 9], 40_000).into(), remote: path(Role::Initiator).remote };

/// A client whose UPDATE_SA_ADDRESSES is on its way, and a gateway whose next request has the same number.
fn moving() -> (Pair, Vec<u8>, u32) {
    let mut pair = Pair::new();
    let number = 2;
    for earlier in 0..number {
        let asked = pair.forged(ExchangeType::Informational, earlier, false, &[]);
        pair.deliver(Role::Initiator, &asked).unwrap();
        assert_eq!(pair.sent_by(Role::Initiator).len(), 1, "answered at once");
    }
    pair.client.move_to(pair.now, ELSEWHERE(), &mut pair.rng);
    let update = pair.sent_by(Role::Initiator).remove(0);
    assert_eq!(Message::parse(&update).unwrap().header.message_id, number);
    (pair, update, number)
}

fn is_answer(message: &[u8], number: u32) -> bool {
    let header = Message::parse(message).unwrap().header;
    header.flags.response && header.message_id == number
}

fn by_the_new_path(pair: &mut Pair, message: &[u8]) {
    pair.client.handle_datagram(pair.now, ELSEWHERE(), message, &mut pair.rng).unwrap();
}

#[test]
fn a_request_with_the_number_of_our_update_is_answered_after_the_update_was() {
    let (mut pair, update, number) = moving();
    let asked = pair.forged(ExchangeType::Informational, number, false, &[]);
    by_the_new_path(&mut pair, &asked);
    assert_eq!(pair.sent_by(Role::Initiator), Vec::<Vec<u8>>::new(), "the gateway works on our update");
    pair.deliver(Role::Responder, &update).unwrap();
    for answer in pair.sent_by(Role::Responder) {
        by_the_new_path(&mut pair, &answer);
    }
    assert_eq!(pair.sent_by(Role::Initiator), Vec::<Vec<u8>>::new(), "it answers before it is done");
    assert!(pair.client.poll_timeout().is_some_and(|at| at <= pair.now + Duration::from_millis(10)));
    pair.pass(Duration::from_millis(10));
    let sent = pair.sent_by(Role::Initiator);
    assert!(matches!(&sent[..], [answer] if is_answer(answer, number)), "{} messages", sent.len());
    assert_eq!(pair.client.path(), ELSEWHERE());
}

#[test]
fn it_does_not_wait_long_for_an_update_that_is_not_answered() {
    let (mut pair, _, number) = moving();
    let asked = pair.forged(ExchangeType::Informational, number, false, &[]);
    by_the_new_path(&mut pair, &asked);
    let wanted = pair.now + Duration::from_millis(100);
    assert_eq!(pair.client.poll_timeout(), Some(wanted));
    pair.pass(Duration::from_millis(100));
    let sent = pair.sent_by(Role::Initiator);
    assert!(matches!(&sent[..], [answer] if is_answer(answer, number)), "{} messages", sent.len());
    pair.pass(Duration::from_millis(1));
    assert!(pair.sent_by(Role::Initiator).is_empty(), "once");
}

#[test]
fn a_repeated_request_is_answered_at_once_and_once() {
    let (mut pair, _, number) = moving();
    let asked = pair.forged(ExchangeType::Informational, number, false, &[]);
    by_the_new_path(&mut pair, &asked);
    by_the_new_path(&mut pair, &asked);
    let sent = pair.sent_by(Role::Initiator);
    assert!(matches!(&sent[..], [answer] if is_answer(answer, number)), "{} messages", sent.len());
    pair.pass(Duration::from_millis(100));
    assert!(pair.sent_by(Role::Initiator).is_empty());
}
