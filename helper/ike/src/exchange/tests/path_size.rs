//! Questions about the size that a path carries.

use super::*;
use crate::exchange::path_size::Sizing;
use crate::exchange::sa::CloseReason;

/// Headers of IPv4 and UDP, and the non-ESP marker.
const AROUND: usize = 20 + 8 + 4;

/// Both ends, with a round trip that is known.
fn acquainted() -> Pair {
    let mut pair = Pair::new();
    pair.client.check_liveness(pair.now, &mut pair.rng);
    pair.settle();
    pair
}

fn answers(pair: &mut Pair) -> Vec<(usize, bool)> {
    let events = pair.events(Role::Initiator).into_iter();
    let sized = events.filter_map(|event| {
        if let SaEvent::SizeTested { octets, carried, .. } = event { Some((octets, carried)) } else { None }
    });
    sized.collect()
}

/// Both ends, with what this IKE cipher adds.
fn pair_with(cipher: IkeCipher) -> Pair {
    let mut pair = Pair::new();
    let inputs = KeyInputs { nonce_i: &[1; 32], nonce_r: &[2; 32], spi_i: [1; 8], spi_r: [2; 8] };
    let keys = IkeKeys::initial(Prf::HmacSha2_256, cipher, &inputs, &[3; 32]).unwrap();
    pair.client.protection = Protection::new(cipher, &keys, Role::Initiator).unwrap();
    pair.gateway.protection = Protection::new(cipher, &keys, Role::Responder).unwrap();
    pair.client.check_liveness(pair.now, &mut pair.rng);
    pair.settle();
    pair
}

#[test]
fn a_question_has_the_size_that_it_asks_about_and_the_answer_is_small() {
    for cipher in [IkeCipher::Aes256Gcm16, IkeCipher::ChaCha20Poly1305] {
        let mut pair = pair_with(cipher);
        for octets in [576, 1280, 1344, 1463, 1464, 1500] {
            pair.client.test_size(pair.now, octets, &mut pair.rng);
            let sent = pair.sent_by(Role::Initiator);
            assert_eq!(sent.iter().map(|datagram| datagram.len() + AROUND).collect::<Vec<_>>(), [octets]);
            pair.deliver(Role::Responder, &sent[0]).unwrap();
            let answer = pair.sent_by(Role::Responder);
            assert!(answer.len() == 1 && answer[0].len() < 100, "an empty answer");
            pair.deliver(Role::Initiator, &answer[0]).unwrap();
            assert_eq!(answers(&mut pair), [(octets, true)]);
        }
    }
}

#[test]
fn with_a_block_cipher_a_question_is_at_most_a_block_larger() {
    let cipher = IkeCipher::from_iana(12, Some(256), Some(12)).unwrap();
    let mut pair = pair_with(cipher);
    for octets in 1300..1340 {
        pair.client.test_size(pair.now, octets, &mut pair.rng);
        let sent = pair.sent_by(Role::Initiator);
        let size = sent[0].len() + AROUND;
        assert!((octets..octets + 16).contains(&size), "{octets}: {size}");
        pair.deliver(Role::Responder, &sent[0]).unwrap();
        pair.settle();
        assert_eq!(answers(&mut pair), [(octets, true)]);
    }
}

#[test]
fn a_question_that_is_swallowed_is_repeated_without_its_filling_and_harms_nothing() {
    for fragmentation in [true, false] {
        let mut pair = acquainted();
        pair.client.features.fragmentation = fragmentation;
        pair.client.test_size(pair.now, 1464, &mut pair.rng);
        assert_eq!(pair.sent_by(Role::Initiator).len(), 1, "swallowed");
        pair.pass(Duration::from_secs(1));
        let small = pair.sent_by(Role::Initiator);
        assert!(small.len() == 1 && small[0].len() < 100);
        pair.deliver(Role::Responder, &small[0]).unwrap();
        let answer = pair.sent_by(Role::Responder);
        pair.deliver(Role::Initiator, &answer[0]).unwrap();
        assert_eq!(answers(&mut pair), [(1464, false)], "nobody knows which one was answered");
        assert!(!pair.client.is_closed());
        // The window is free again.
        pair.client.check_liveness(pair.now, &mut pair.rng);
        assert_eq!(pair.sent_by(Role::Initiator).len(), 1);
    }
}

#[test]
fn whichever_form_of_a_question_comes_first_is_answered_and_the_other_gets_the_same_answer() {
    for large_first in [true, false] {
        let mut pair = acquainted();
        pair.client.test_size(pair.now, 1464, &mut pair.rng);
        let mut forms = pair.sent_by(Role::Initiator);
        pair.pass(Duration::from_secs(1));
        forms.extend(pair.sent_by(Role::Initiator));
        pair.pass(Duration::from_secs(2));
        let third = pair.sent_by(Role::Initiator);
        assert_eq!(third[0], forms[0], "byte for byte the first again: who wants that gets it");
        if !large_first {
            forms.reverse();
        }
        for datagram in &forms {
            pair.deliver(Role::Responder, datagram).unwrap();
        }
        let twice = pair.sent_by(Role::Responder);
        assert!(twice.len() == 2 && twice[0] == twice[1]);
        pair.deliver(Role::Initiator, &twice[0]).unwrap();
        assert_eq!(answers(&mut pair), [(1464, false)]);
    }
}

#[test]
fn a_slow_path_is_waited_for_longer_the_next_time() {
    let (mut pair, rtt) = (acquainted(), Duration::from_millis(700));
    let mut carried = Vec::new();
    for _ in 0..2 {
        pair.client.test_size(pair.now, 1464, &mut pair.rng);
        let sent = pair.sent_by(Role::Initiator);
        let end = pair.now + rtt;
        while pair.now < end {
            pair.pass(Duration::from_millis(50));
        }
        pair.deliver(Role::Responder, &sent[0]).unwrap();
        let answer = pair.sent_by(Role::Responder);
        pair.deliver(Role::Initiator, &answer[0]).unwrap();
        // What was repeated meanwhile is late.
        pair.sent_by(Role::Initiator);
        carried.extend(answers(&mut pair).into_iter().map(|(_, carried)| carried));
    }
    assert_eq!(carried, [false, true], "200 ms at first, then twice what it took");
}

#[test]
fn a_gateway_that_is_gone_is_noticed_by_a_question_as_by_any_other() {
    let mut pair = acquainted();
    pair.client.test_size(pair.now, 1464, &mut pair.rng);
    for _ in 0..160 {
        pair.sent_by(Role::Initiator);
        pair.pass(Duration::from_millis(100));
    }
    let ended = pair.events(Role::Initiator);
    assert!(ended.iter().any(|event| matches!(event, SaEvent::Closed(CloseReason::PeerDead))), "{ended:?}");
}

#[test]
fn a_probe_of_the_path_meanwhile_does_not_spoil_a_question() {
    let mut pair = acquainted();
    pair.client.test_size(pair.now, 1464, &mut pair.rng);
    let whole = pair.sent_by(Role::Initiator);
    pair.client.probe(pair.now, false, &mut pair.rng);
    assert!(pair.sent_by(Role::Initiator).is_empty(), "the answer tells of the path, too");
    pair.deliver(Role::Responder, &whole[0]).unwrap();
    pair.settle();
    let events = pair.events(Role::Initiator);
    assert!(events.iter().any(|event| matches!(event, SaEvent::Probed { rtt: Some(_), .. })), "{events:?}");
    assert!(events.iter().any(|event| matches!(event, SaEvent::SizeTested { carried: true, .. })));
}

#[test]
fn the_round_trip_decides_how_long_an_answer_is_waited_for() {
    let mut pair = Pair::new();
    assert_eq!(pair.client.size_policy().first, Duration::from_secs(1), "nothing is known");
    pair.client.test_size(pair.now, 1464, &mut pair.rng);
    let sent = pair.sent_by(Role::Initiator);
    assert!(sent.len() == 1 && sent[0].len() < 200, "so that is asked first");
    pair.settle();
    pair.deliver(Role::Responder, &sent[0]).unwrap();
    pair.settle();
    assert_eq!(answers(&mut pair), [(1464, true)]);
    for (rtt, wait) in [(10, 200), (100, 300), (600, 1500)] {
        pair.client.sizing = Sizing::default();
        pair.client.check_liveness(pair.now, &mut pair.rng);
        let sent = pair.sent_by(Role::Initiator);
        pair.now = pair.now + Duration::from_millis(rtt);
        pair.deliver(Role::Responder, &sent[0]).unwrap();
        pair.settle();
        assert_eq!(pair.client.size_policy().first, Duration::from_millis(wait), "{rtt}");
    }
}
