//! Properties of sealing and opening, over all suites.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;
use ropewalk_esp::{
    AesKey, CbcIntegrity, EspSuite, InboundSa, NEXT_HEADER_DUMMY, OpenError, OutboundSa, REPLAY_WINDOW,
    SequenceCounter, classify,
};

fn any_suite() -> impl Strategy<Value = EspSuite> {
    let key = prop_oneof![Just(AesKey::Bits128), Just(AesKey::Bits256)];
    let integ = prop_oneof![
        Just(CbcIntegrity::Sha1),
        Just(CbcIntegrity::Sha256),
        Just(CbcIntegrity::Sha384),
        Just(CbcIntegrity::Sha512)
    ];
    prop_oneof![
        key.clone().prop_map(EspSuite::AesGcm16),
        Just(EspSuite::ChaCha20Poly1305),
        (key, integ).prop_map(|(k, i)| EspSuite::AesCbc(k, i)),
    ]
}

fn pair(suite: EspSuite, esn: bool) -> (OutboundSa, InboundSa) {
    let encr: Vec<u8> = (0..suite.encr_key_len()).map(|i| i as u8 ^ 0x5a).collect();
    let integ: Vec<u8> = (0..suite.integ_key_len()).map(|i| i as u8 ^ 0xa5).collect();
    let outbound = OutboundSa::new(0x1234_5678, suite, &encr, &integ, esn).unwrap();
    (outbound, InboundSa::new(0x1234_5678, suite, &encr, &integ, esn).unwrap())
}

fn sealed(sa: &OutboundSa, seq: u64, inner: &[u8]) -> Vec<u8> {
    let mut out = vec![0; sa.suite().sealed_len(inner.len())];
    assert_eq!(sa.seal(seq, &[inner], 4, &mut out), Ok(out.len()));
    out
}

proptest! {
    #[test]
    fn what_is_sealed_opens_to_itself(
        suite in any_suite(), esn: bool, seq in 1u64..=u64::from(u32::MAX), next_header: u8,
        inner in proptest::collection::vec(any::<u8>(), 0..1500),
    ) {
        let (outbound, mut inbound) = pair(suite, esn);
        let mut out = vec![0xcc; suite.sealed_len(inner.len()) + 9];
        let len = outbound.seal(seq, &[&inner], next_header, &mut out).unwrap();
        prop_assert_eq!(len, suite.sealed_len(inner.len()));
        prop_assert_eq!(classify(&out[..len]), ropewalk_esp::Encapsulated::Esp { spi: 0x1234_5678 });
        let opened = inbound.open(&mut out[..len]).unwrap();
        prop_assert_eq!((opened.next_header, opened.seq, opened.newest), (next_header, seq, true));
        prop_assert_eq!(&out[opened.range], &inner[..]);
    }

    #[test]
    fn one_flipped_bit_anywhere_is_noticed(
        suite in any_suite(), esn: bool, at: prop::sample::Index, bit in 0u32..8,
        inner in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let (outbound, mut inbound) = pair(suite, esn);
        let mut packet = sealed(&outbound, 100, &inner);
        let at = at.index(packet.len());
        packet[at] ^= 1 << bit;
        let error = inbound.open(&mut packet).unwrap_err();
        prop_assert!(matches!(error, OpenError::WrongSpi | OpenError::Authentication | OpenError::OutsideWindow));
        prop_assert_eq!(inbound.window().unwrap().newest(), 0, "a forged packet must not move the window");
        prop_assert!(inbound.open(&mut sealed(&outbound, 100, &inner)).is_ok());
    }

    #[test]
    fn arbitrary_octets_never_panic_and_never_open(
        suite in any_suite(), esn: bool, mut bytes in proptest::collection::vec(any::<u8>(), 0..300), ours: bool,
    ) {
        let (_, mut inbound) = pair(suite, esn);
        if ours && bytes.len() >= 4 {
            bytes[..4].copy_from_slice(&0x1234_5678u32.to_be_bytes());
        }
        prop_assert!(inbound.open(&mut bytes).is_err());
        let _ = classify(&bytes);
    }

    #[test]
    fn every_packet_is_delivered_once_however_it_is_reordered_and_repeated(
        suite in any_suite(), esn: bool, order in proptest::collection::vec(0u64..1000, 1..200),
        base in prop_oneof![Just(1u64), Just(u64::from(u32::MAX) - 500)],
    ) {
        prop_assume!(esn || base == 1);
        let (outbound, mut inbound) = pair(suite, esn);
        // A window learns the upper bits from what came before.
        inbound.open(&mut sealed(&outbound, base, b"first")).unwrap();
        let mut seen = std::collections::HashSet::from([0]);
        for step in order {
            let result = inbound.open(&mut sealed(&outbound, base + step, b"inner"));
            if seen.insert(step) {
                prop_assert_eq!(result.unwrap().seq, base + step);
            } else {
                prop_assert_eq!(result, Err(OpenError::Replayed));
            }
        }
    }
}

#[test]
fn a_packet_left_of_the_window_is_refused_before_the_cipher_works() {
    let (outbound, mut inbound) = pair(EspSuite::ChaCha20Poly1305, false);
    inbound.open(&mut sealed(&outbound, 10_000, b"new")).unwrap();
    let mut old = sealed(&outbound, 10_000 - REPLAY_WINDOW, b"old");
    let before = old.clone();
    assert_eq!(inbound.open(&mut old), Err(OpenError::OutsideWindow));
    assert_eq!(old, before, "still encrypted");
    assert!(inbound.open(&mut sealed(&outbound, 10_001 - REPLAY_WINDOW, b"late")).is_ok());
}

#[test]
fn extended_sequence_numbers_go_on_over_the_wrap() {
    for suite in
        [EspSuite::AesGcm16(AesKey::Bits128), EspSuite::AesCbc(AesKey::Bits256, CbcIntegrity::Sha256)]
    {
        let (outbound, mut inbound) = pair(suite, true);
        let counter = SequenceCounter::starting_after(u64::from(u32::MAX) - 5, true);
        for _ in 0..20 {
            let seq = counter.take(1).unwrap();
            assert_eq!(inbound.open(&mut sealed(&outbound, seq, b"inner")).unwrap().seq, seq);
        }
        assert!(inbound.window().unwrap().newest() > u64::from(u32::MAX));
    }
}

#[test]
fn an_sa_without_esn_does_not_open_what_was_sealed_with_it() {
    for suite in
        [EspSuite::AesGcm16(AesKey::Bits128), EspSuite::AesCbc(AesKey::Bits256, CbcIntegrity::Sha256)]
    {
        let (outbound, _) = pair(suite, true);
        let (_, mut inbound) = pair(suite, false);
        assert_eq!(inbound.open(&mut sealed(&outbound, 1, b"inner")), Err(OpenError::Authentication));
    }
}

#[test]
fn dummy_packets_say_that_they_are() {
    let (outbound, mut inbound) = pair(EspSuite::ChaCha20Poly1305, false);
    let mut out = [0; 100];
    let len = outbound.seal(1, &[b"nothing"], NEXT_HEADER_DUMMY, &mut out).unwrap();
    assert!(inbound.open(&mut out[..len]).unwrap().is_dummy());
}

#[test]
fn lengths_that_no_packet_of_the_suite_has_are_told_apart() {
    let suite = EspSuite::AesCbc(AesKey::Bits128, CbcIntegrity::Sha256);
    let (outbound, mut inbound) = pair(suite, false);
    let packet = sealed(&outbound, 1, &[0; 30]);
    for len in 0..suite.sealed_len(0) - 14 {
        assert_eq!(inbound.open(&mut packet[..len].to_vec()), Err(OpenError::TooShort), "{len}");
    }
    assert_eq!(inbound.open(&mut packet[..packet.len() - 1].to_vec()), Err(OpenError::Misaligned));
    let mut other = packet.clone();
    other[3] ^= 1;
    assert_eq!(inbound.open(&mut other), Err(OpenError::WrongSpi));
}

#[test]
fn many_senders_count_for_themselves_and_never_share_an_iv() {
    let suite = EspSuite::of_group(12, 256, 12).unwrap();
    let (encr, integ) = ([1; 32], [2; 32]);
    let sender = |salt| OutboundSa::new(300, suite, &encr, &integ, false).unwrap().with_iv_salt(salt);
    let (one, other) = (sender(7), sender(8));
    let mut receiver = InboundSa::of_many_senders(300, suite, &encr, &integ).unwrap();
    for (sa, seq) in [(&one, 5000), (&other, 1), (&one, 5000), (&other, 2), (&one, 1)] {
        let opened = receiver.open(&mut sealed(sa, seq, b"inner")).unwrap();
        assert_eq!((opened.seq, opened.newest), (seq, false));
    }
    let iv = |sa| sealed(sa, 9, b"inner")[8..24].to_vec();
    assert_ne!(iv(&one), iv(&other));
    let mut forged = sealed(&one, 3, b"inner");
    forged[30] ^= 1;
    assert_eq!(receiver.open(&mut forged), Err(OpenError::Authentication));
    assert!(receiver.window().is_none());
}
