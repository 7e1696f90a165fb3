//! How an IKE_SA ends: the DELETE in its turn, Message IDs that run out, renewals that do not come about.

use super::*;
use crate::exchange::sa::CloseReason;
use crate::wire::{Delete, Message, Notify, NotifyType};

/// What the client sent, opened with the gateway's keys.
fn read(pair: &mut Pair, datagram: &[u8]) -> (Header, Vec<Payload>) {
    let parsed = Message::parse(datagram).unwrap();
    let encrypted = parsed.encrypted.unwrap();
    let opened = pair.forger.open(pair.now, datagram, &parsed.header, &encrypted).unwrap().unwrap();
    (parsed.header, opened.payloads().unwrap().to_vec())
}

/// What the client sent, all of it.
fn requests(pair: &mut Pair) -> Vec<(Header, Vec<Payload>)> {
    let sent = pair.sent_by(Role::Initiator);
    sent.iter().map(|datagram| read(pair, datagram)).collect()
}

fn answer(pair: &mut Pair, exchange: ExchangeType, message_id: u32, payloads: &[Payload]) {
    let datagram = pair.forged(exchange, message_id, true, payloads);
    pair.deliver(Role::Initiator, &datagram).unwrap();
}

fn closed(pair: &mut Pair) -> Option<CloseReason> {
    pair.events(Role::Initiator).into_iter().find_map(|event| match event {
        SaEvent::Closed(reason) => Some(reason),
        _ => None,
    })
}

fn deletes_ike(payloads: &[Payload]) -> bool {
    payloads == [Payload::Delete(Delete::ike())]
}

const PUT_OFF: NotifyType = NotifyType::TemporaryFailure;

#[test]
fn a_delete_waits_for_the_answer_to_the_request_before_it() {
    let mut pair = Pair::new();
    pair.client.check_liveness(pair.now, &mut pair.rng);
    assert_eq!(requests(&mut pair)[0].0.message_id, 2);
    pair.client.close(pair.now, &mut pair.rng);
    assert!(requests(&mut pair).is_empty(), "the window is one");
    pair.pass(Duration::from_millis(300));
    assert_eq!(requests(&mut pair)[0].0.message_id, 2, "what is under way is hurried");
    answer(&mut pair, ExchangeType::Informational, 2, &[]);
    let sent = requests(&mut pair);
    assert_eq!((sent.len(), sent[0].0.message_id), (1, 3));
    assert!(deletes_ike(&sent[0].1));
    answer(&mut pair, ExchangeType::Informational, 3, &[]);
    assert_eq!(closed(&mut pair), Some(CloseReason::Deleted));
}

#[test]
fn a_farewell_is_over_soon_whether_or_not_anybody_answers() {
    for answered in [true, false] {
        let mut pair = Pair::new();
        pair.client.check_liveness(pair.now, &mut pair.rng);
        pair.sent_by(Role::Initiator);
        let begin = pair.now;
        pair.client.close(pair.now, &mut pair.rng);
        let mut deleted = false;
        while let Some(next) = pair.client.poll_timeout() {
            pair.now = next;
            pair.client.handle_timeout(next, &mut pair.rng);
            deleted |= requests(&mut pair).iter().any(|(_, payloads)| deletes_ike(payloads));
            if answered && !deleted && pair.now > begin + Duration::from_millis(800) {
                answer(&mut pair, ExchangeType::Informational, 2, &[]);
                deleted = deletes_ike(&requests(&mut pair)[0].1);
            }
        }
        assert_eq!(deleted, answered, "nothing goes beyond the window");
        assert_eq!(closed(&mut pair), Some(CloseReason::Deleted));
        assert!(pair.now - begin <= Duration::from_millis(1800), "{:?}", pair.now - begin);
    }
}

#[test]
fn a_new_ike_sa_that_was_asked_for_before_the_end_is_closed_with_the_old_one() {
    let mut pair = Pair::new();
    pair.client.rekey_ike(pair.now, &mut pair.rng);
    let request = pair.sent_by(Role::Initiator).remove(0);
    pair.client.close(pair.now, &mut pair.rng);
    assert!(pair.sent_by(Role::Initiator).is_empty());
    pair.deliver(Role::Responder, &request).unwrap();
    let agreed = pair.sent_by(Role::Responder).remove(0);
    pair.deliver(Role::Initiator, &agreed).unwrap();
    assert!(deletes_ike(&requests(&mut pair)[0].1));
    let heir = pair.events(Role::Initiator).into_iter().find_map(|event| match event {
        SaEvent::Rekeyed(successor) => Some(successor.sa),
        _ => None,
    });
    let mut heir = heir.unwrap();
    assert_eq!(heir.children().len(), 1);
    heir.handle_timeout(pair.now, &mut pair.rng);
    let farewell = heir.poll_transmit().unwrap().message;
    assert_eq!(Message::parse(&farewell).unwrap().header.exchange, ExchangeType::Informational);
    let end = heir.poll_timeout().unwrap() + Duration::from_secs(2);
    heir.handle_timeout(end, &mut pair.rng);
    assert!(heir.is_closed());
}

/// A client that has sent nearly all the requests that it can.
fn at_message_id(next: u32) -> Pair {
    let mut pair = Pair::new();
    let mut params = params(Role::Initiator, "aes256gcm16");
    params.next_request = next;
    pair.client = IkeSa::new(pair.now, params);
    pair
}

#[test]
fn a_new_ike_sa_is_asked_for_long_before_message_ids_run_out() {
    let begin = u32::MAX - 0x1_0001;
    let mut pair = at_message_id(begin);
    let mut asked = None;
    for next in begin..begin + 4 {
        pair.client.check_liveness(pair.now, &mut pair.rng);
        pair.client.handle_timeout(pair.now, &mut pair.rng);
        let sent = requests(&mut pair);
        assert_eq!(sent[0].0.message_id, next);
        if sent[0].0.exchange == ExchangeType::CreateChildSa {
            asked = Some(next);
            break;
        }
        answer(&mut pair, ExchangeType::Informational, next, &[]);
    }
    let asked = asked.expect("a request for a new IKE_SA");
    assert!(asked < u32::MAX - 60_000, "{asked}");
    assert_eq!(closed(&mut pair), None);
}

#[test]
fn the_same_when_it_is_the_peer_that_has_sent_so_many() {
    let mut pair = Pair::new();
    let mut params = params(Role::Initiator, "aes256gcm16");
    params.window = ResponseWindow::starting_at(u32::MAX - 2);
    pair.client = IkeSa::new(pair.now, params);
    pair.client.handle_timeout(pair.now, &mut pair.rng);
    assert_eq!(requests(&mut pair)[0].0.exchange, ExchangeType::CreateChildSa);
    for message_id in [u32::MAX - 2, u32::MAX - 1, u32::MAX] {
        let datagram = pair.forged(ExchangeType::Informational, message_id, false, &[]);
        pair.deliver(Role::Initiator, &datagram).unwrap();
        let first = pair.sent_by(Role::Initiator);
        pair.deliver(Role::Initiator, &datagram).unwrap();
        assert_eq!(pair.sent_by(Role::Initiator), first, "the same answer again");
    }
    let datagram = pair.forged(ExchangeType::Informational, 0, false, &[]);
    assert_eq!(
        pair.deliver(Role::Initiator, &datagram),
        Err(PeerMisbehaved::OutsideWindow { message_id: 0 }),
        "they do not begin again"
    );
}

#[test]
fn an_ike_sa_without_message_ids_is_closed_with_the_last_one() {
    let mut pair = at_message_id(u32::MAX - 1);
    pair.client.handle_timeout(pair.now, &mut pair.rng);
    let sent = requests(&mut pair);
    assert_eq!((sent[0].0.exchange, sent[0].0.message_id), (ExchangeType::CreateChildSa, u32::MAX - 1));
    let refused = Payload::Notify(Notify::status(NotifyType::NoProposalChosen));
    answer(&mut pair, ExchangeType::CreateChildSa, u32::MAX - 1, &[refused]);
    pair.client.check_liveness(pair.now, &mut pair.rng);
    let sent = requests(&mut pair);
    assert_eq!((sent.len(), sent[0].0.message_id), (1, u32::MAX));
    assert!(deletes_ike(&sent[0].1), "{sent:?}");
    answer(&mut pair, ExchangeType::Informational, u32::MAX, &[]);
    assert_eq!(closed(&mut pair), Some(CloseReason::Expired));
}

/// Refuses every request to renew for so long; when the client has closed the IKE_SA.
fn refuse_renewals(pair: &mut Pair, notify: NotifyType, time: Duration) -> Option<Duration> {
    let begin = pair.now;
    while pair.now < begin + time {
        for (header, payloads) in requests(pair) {
            if deletes_ike(&payloads) {
                return Some(pair.now - begin);
            }
            let no = [Payload::Notify(Notify::status(notify))];
            let said: &[Payload] = if header.exchange == ExchangeType::CreateChildSa { &no } else { &[] };
            answer(pair, header.exchange, header.message_id, said);
        }
        pair.now = pair.client.poll_timeout().unwrap().max(pair.now);
        pair.client.handle_timeout(pair.now, &mut pair.rng);
    }
    None
}

#[test]
fn a_peer_that_puts_renewals_off_for_minutes_loses_the_ike_sa() {
    for ike in [true, false] {
        let mut pair = Pair::new();
        let ours = pair.client.children()[0].spi_in;
        pair.client.renewal.lifetimes = Lifetimes::default();
        if ike {
            pair.client.rekey_ike(pair.now, &mut pair.rng);
            pair.client.renewal.ike.hard = None;
        } else {
            pair.client.rekey_child(pair.now, ours, &mut pair.rng);
            pair.client.renewal.life(ours).unwrap().limits.hard = None;
        }
        let after = refuse_renewals(&mut pair, PUT_OFF, Duration::from_secs(600)).expect("an end");
        assert!((180..190).contains(&after.as_secs()), "{after:?}");
    }
}

#[test]
fn renewals_that_are_put_off_now_and_then_end_nothing() {
    let mut pair = Pair::new();
    let ours = pair.client.children()[0].spi_in;
    for _ in 0..10 {
        pair.client.rekey_child(pair.now, ours, &mut pair.rng);
        let (header, _) = requests(&mut pair).remove(0);
        let no = [Payload::Notify(Notify::status(PUT_OFF))];
        answer(&mut pair, header.exchange, header.message_id, &no);
        pair.client.renewal.life(ours).unwrap().limits = super::super::lifetime::Limits::default();
        pair.now = pair.now + Duration::from_secs(60);
        pair.client.note_inbound(pair.now);
    }
    assert!(!pair.client.is_closed());
    assert_eq!(closed(&mut pair), None);
}

#[test]
fn a_child_that_ran_out_unrenewed_takes_its_ike_sa_along() {
    let mut pair = Pair::new();
    let ours = pair.client.children()[0].spi_in;
    pair.client.rekey_child(pair.now, ours, &mut pair.rng);
    let after = refuse_renewals(&mut pair, NotifyType::NoProposalChosen, Duration::from_secs(600));
    assert_eq!(after.map(|after| after.as_secs()), Some(60), "the hard limit of a rekey in a hurry");
    pair.pass(Duration::from_secs(2));
    assert_eq!(closed(&mut pair), Some(CloseReason::Expired));
}
