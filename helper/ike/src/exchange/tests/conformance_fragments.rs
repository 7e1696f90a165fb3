//! Rules for fragments of messages (RFC 7383) that the tables of `docs/conformance/` name.

use super::*;
use crate::crypto::{CryptoError, Integ};
use crate::wire::{EncryptedKind, Message, Notify, NotifyType};

const MESSAGE_ID: u32 = 0;

/// A request of the gateway that does not fit a datagram, in as many as it takes.
fn fragments(pair: &mut Pair, octets: usize) -> Vec<Vec<u8>> {
    seal(pair, octets, true)
}

fn seal(pair: &mut Pair, octets: usize, fragment: bool) -> Vec<Vec<u8>> {
    let header = Header {
        spi_i: SPIS.initiator,
        spi_r: SPIS.responder,
        next_payload: 0,
        exchange: ExchangeType::Informational,
        flags: Flags { initiator: false, response: false, version: false },
        message_id: MESSAGE_ID,
    };
    let cookie = Payload::Notify(Notify::new(NotifyType::Other(50_000), vec![9; octets]));
    pair.forger.seal(header, &[cookie], fragment, path(Role::Responder), &mut pair.rng).unwrap()
}

#[test]
fn fragments_are_numbered_from_one_and_only_the_first_says_what_is_inside() {
    let mut pair = Pair::new();
    let pieces = fragments(&mut pair, 5000);
    assert_eq!(pieces.len(), 5);
    for (number, piece) in (1..).zip(&pieces) {
        let parsed = Message::parse(piece).unwrap();
        let encrypted = parsed.encrypted.unwrap();
        assert_eq!(encrypted.kind, EncryptedKind::Skf { fragment_number: number, total: 5 });
        assert_eq!(encrypted.next_payload, if number == 1 { 41 } else { 0 });
        assert_eq!(parsed.header.message_id, MESSAGE_ID, "all of one message");
        assert!(parsed.payloads.is_empty());
        assert!(piece.len() + 20 + 8 + 4 <= 1280, "{} octets", piece.len());
    }
}

#[test]
fn a_message_is_cut_only_when_the_peer_knows_fragments_and_only_when_it_must_be() {
    let mut pair = Pair::new();
    assert_eq!(seal(&mut pair, 5000, false).len(), 1);
    let whole = fragments(&mut pair, 500);
    assert_eq!(whole.len(), 1);
    let kind = Message::parse(&whole[0]).unwrap().encrypted.unwrap().kind;
    assert_eq!(kind, EncryptedKind::Sk);
}

#[test]
fn a_fragmented_request_is_answered_once_and_again_only_for_its_first_fragment() {
    let mut pair = Pair::new();
    let pieces = fragments(&mut pair, 3000);
    assert_eq!(pieces.len(), 3);
    for at in [2, 0, 1] {
        assert!(pair.sent_by(Role::Initiator).is_empty(), "before the last piece");
        pair.deliver(Role::Initiator, &pieces[at]).unwrap();
    }
    let answer = pair.sent_by(Role::Initiator);
    assert_eq!(answer.len(), 1);
    for at in [1, 2] {
        pair.deliver(Role::Initiator, &pieces[at]).unwrap();
        assert!(pair.sent_by(Role::Initiator).is_empty(), "piece {at} again");
    }
    pair.deliver(Role::Initiator, &pieces[0]).unwrap();
    assert_eq!(pair.sent_by(Role::Initiator), answer);
}

#[test]
fn a_fragment_that_is_not_authentic_is_dropped_and_the_message_still_arrives() {
    let mut pair = Pair::new();
    let pieces = fragments(&mut pair, 3000);
    pair.deliver(Role::Initiator, &pieces[0]).unwrap();
    let mut forged = pieces[1].clone();
    *forged.last_mut().unwrap() ^= 1;
    let error = PeerMisbehaved::NotAuthentic { error: CryptoError::IntegrityCheckFailed };
    assert_eq!(pair.deliver(Role::Initiator, &forged), Err(error));
    // The total stands in the authenticated part: a larger one cannot be forged to throw away what is there.
    let mut larger = pieces[1].clone();
    larger[35] += 1;
    assert!(pair.deliver(Role::Initiator, &larger).is_err());
    for piece in &pieces[1..] {
        pair.deliver(Role::Initiator, piece).unwrap();
    }
    assert_eq!(pair.sent_by(Role::Initiator).len(), 1);
}

#[test]
fn a_repeated_request_of_ours_is_all_its_fragments_as_they_were() {
    let mut pair = Pair::new();
    let esp = "aes256gcm16";
    // As many selectors as make a request larger than a datagram.
    let mut wide = policy(Role::Initiator, esp);
    wide.ts_local.selectors = (0..100).map(|host| TrafficSelector::host([10, 0, 0, host].into())).collect();
    let pending = crate::exchange::create_child_sa::PendingChild::new(&wide, &mut pair.rng);
    pair.client.create_child(pair.now, pending, &mut pair.rng);
    let first = pair.sent_by(Role::Initiator);
    assert!(first.len() > 1);
    pair.now = pair.client.poll_timeout().unwrap();
    pair.client.handle_timeout(pair.now, &mut pair.rng);
    assert_eq!(pair.sent_by(Role::Initiator), first);
}

#[test]
fn every_message_and_every_fragment_has_an_iv_of_its_own() {
    let inputs = KeyInputs {
        nonce_i: &[1; 32],
        nonce_r: &[2; 32],
        spi_i: SPIS.initiator.to_be_bytes(),
        spi_r: SPIS.responder.to_be_bytes(),
    };
    for suite in [IkeCipher::Aes256Gcm16, IkeCipher::Aes256Cbc(Integ::HmacSha2_256_128)] {
        let mut pair = Pair::new();
        let keys = IkeKeys::initial(Prf::HmacSha2_256, suite, &inputs, &[3; 32]).unwrap();
        pair.forger = Protection::new(suite, &keys, Role::Responder).unwrap();
        let mut ivs = Vec::new();
        for _ in 0..3 {
            for piece in fragments(&mut pair, 3000) {
                let body = Message::parse(&piece).unwrap().encrypted.unwrap().body;
                ivs.push(piece[body.start..body.start + 8].to_vec());
            }
        }
        let all = ivs.len();
        ivs.sort();
        ivs.dedup();
        assert_eq!(ivs.len(), all, "{suite:?}");
    }
}

#[test]
fn pieces_of_a_request_that_never_becomes_whole_are_forgotten() {
    let mut pair = Pair::new();
    let pieces = fragments(&mut pair, 3000);
    pair.deliver(Role::Initiator, &pieces[0]).unwrap();
    pair.deliver(Role::Initiator, &pieces[1]).unwrap();
    pair.now = pair.client.poll_timeout().unwrap();
    pair.client.handle_timeout(pair.now, &mut pair.rng);
    assert!(pair.client.poll_timeout().is_none_or(|next| next > pair.now));
    pair.deliver(Role::Initiator, &pieces[2]).unwrap();
    assert!(
        pair.sent_by(Role::Initiator)
            .iter()
            .all(|sent| { !Message::parse(sent).unwrap().header.flags.response })
    );
    assert!(!pair.client.is_closed(), "it is no failure of the IKE_SA");
    pair.deliver(Role::Initiator, &pieces[0]).unwrap();
    pair.deliver(Role::Initiator, &pieces[1]).unwrap();
    let answered = pair.sent_by(Role::Initiator);
    assert!(answered.iter().any(|sent| Message::parse(sent).unwrap().header.flags.response));
}

#[test]
fn a_peer_that_sends_more_pieces_than_a_message_can_have_loses_the_ike_sa() {
    let mut pair = Pair::new();
    let pieces = fragments(&mut pair, 60_000);
    let total = pieces.len();
    assert!(total < 60, "what can be sent can be received: {total}");
    for piece in &pieces {
        pair.deliver(Role::Initiator, piece).unwrap();
    }
    assert_eq!(pair.sent_by(Role::Initiator).len(), 1);
    let header = Header {
        spi_i: SPIS.initiator,
        spi_r: SPIS.responder,
        next_payload: 0,
        exchange: ExchangeType::Informational,
        flags: Flags { initiator: false, response: false, version: false },
        message_id: MESSAGE_ID + 1,
    };
    let many = vec![Payload::Notify(Notify::new(NotifyType::Other(50_000), vec![9; 60_000])); 4];
    let pieces = pair.forger.seal(header, &many, true, path(Role::Responder), &mut pair.rng).unwrap();
    let error = PeerMisbehaved::FragmentsTooMany { total: u16::try_from(pieces.len()).unwrap() };
    assert_eq!(pair.deliver(Role::Initiator, &pieces[0]), Err(error));
    let sent = pair.sent_by(Role::Initiator);
    let parsed = Message::parse(&sent[0]).unwrap();
    let opened = pair.forger.open(pair.now, &sent[0], &parsed.header, &parsed.encrypted.unwrap());
    let payloads = opened.unwrap().unwrap().payloads().unwrap().to_vec();
    assert_eq!(payloads, [Payload::Delete(crate::wire::Delete::ike())]);
}
