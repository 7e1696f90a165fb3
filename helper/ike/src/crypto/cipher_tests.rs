use super::*;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

const SUITES: [IkeCipher; 9] = [
    IkeCipher::Aes128Gcm16,
    IkeCipher::Aes256Gcm16,
    IkeCipher::ChaCha20Poly1305,
    IkeCipher::Aes128Cbc(Integ::HmacSha2_256_128),
    IkeCipher::Aes256Cbc(Integ::HmacSha2_256_128),
    IkeCipher::Aes128Cbc(Integ::HmacSha2_384_192),
    IkeCipher::Aes256Cbc(Integ::HmacSha2_384_192),
    IkeCipher::Aes128Cbc(Integ::HmacSha2_512_256),
    IkeCipher::Aes256Cbc(Integ::HmacSha2_512_256),
];

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

fn cipher(suite: IkeCipher) -> SkCipher {
    let encr: Vec<u8> = (0..suite.encr_key_len()).map(|i| i as u8).collect();
    let integ: Vec<u8> = (0..suite.integ_key_len()).map(|i| 0x80 | i as u8).collect();
    SkCipher::new(suite, &encr, &integ).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

/// RFC 7634 appendix B: an INFORMATIONAL message with a DELETE-sized payload.
#[test]
fn chacha20_poly1305_agrees_with_rfc_7634() {
    let key = unhex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3");
    let prefix = unhex("c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029");
    let plaintext = unhex("0000000c000040010000000a");
    let mut cipher = SkCipher::new(IkeCipher::ChaCha20Poly1305, &key, &[]).unwrap();
    let Keyed::Aead { next_iv, .. } = &mut cipher.keyed else { panic!("an AEAD cipher") };
    *next_iv = Some(0x1011_1213_1415_1617);
    let message = cipher.seal_message(&mut rng(), prefix.clone(), &plaintext).unwrap();
    assert_eq!(
        hex::encode(&message[32..]),
        "1011121314151617610394701f8d017f7c129248896b71bfe25236efd7cdc67066906315b2"
    );
    assert_eq!(message.len(), 0x45, "the length in the vector's IKE header");
    assert_eq!(*cipher.open_message(&message, 32..message.len()).unwrap(), plaintext);
}

#[test]
fn cbc_pads_to_whole_blocks_and_macs_everything_before_the_icv() {
    let suite = IkeCipher::Aes256Cbc(Integ::HmacSha2_256_128);
    let mut cipher = cipher(suite);
    let message = cipher.seal_message(&mut rng(), vec![9; 32], b"fifteen octets.").unwrap();
    // 16 IV, one block (15 octets and the pad length), 16 ICV
    assert_eq!(message.len(), 32 + 16 + 16 + 16);
    let (covered, icv) = message.split_at(message.len() - 16);
    let key: Vec<u8> = (0..32).map(|i| 0x80 | i as u8).collect();
    assert_eq!(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), covered).as_ref()[..16], *icv);
    let longer = cipher.seal_message(&mut rng(), vec![9; 32], b"sixteen octets..").unwrap();
    assert_eq!(longer.len(), message.len() + 16);
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    for suite in SUITES {
        let mut cipher = cipher(suite);
        let message = cipher.seal_message(&mut rng(), vec![1; 32], b"inner payloads").unwrap();
        for index in 0..message.len() {
            for bit in 0..8 {
                let mut bad = message.clone();
                bad[index] ^= 1 << bit;
                assert_eq!(
                    cipher.open_message(&bad, 32..bad.len()),
                    Err(CryptoError::IntegrityCheckFailed),
                    "{suite:?}, octet {index}"
                );
            }
        }
        for len in 0..message.len() {
            assert!(
                cipher.open_message(&message[..len], 32..len.max(32)).is_err(),
                "{suite:?}, {len} octets"
            );
        }
    }
}

#[test]
fn a_truncated_sk_payload_is_malformed_not_a_panic() {
    for suite in SUITES {
        let cipher = cipher(suite);
        let least = suite.iv_len() + suite.icv_len();
        for len in 0..=least {
            let result = cipher.open_message(&vec![0; 32 + len], 32..32 + len);
            assert_eq!(result, Err(CryptoError::MalformedCiphertext), "{suite:?}, body of {len}");
        }
        assert_eq!(cipher.open_message(&[0; 64], 70..90), Err(CryptoError::MalformedCiphertext));
        #[allow(clippy::reversed_empty_ranges)]
        let reversed = 60..40;
        assert_eq!(cipher.open_message(&[0; 64], reversed), Err(CryptoError::MalformedCiphertext));
        assert_eq!(
            cipher.open_message(&[0; 64], usize::MAX - 1..usize::MAX),
            Err(CryptoError::MalformedCiphertext)
        );
    }
}

#[test]
fn a_pad_length_longer_than_the_content_is_refused() {
    let mut cipher = cipher(IkeCipher::Aes128Gcm16);
    // Without our padding: seal a single octet 0xff where the pad length is.
    let Keyed::Aead { key, salt, .. } = &mut cipher.keyed else { panic!("an AEAD cipher") };
    let mut content = vec![1, 2, 0xff];
    let mut message = vec![5; 32];
    let tag =
        key.seal_in_place_separate_tag(nonce(salt, [0; 8]), aead::Aad::from(&message), &mut content).unwrap();
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&content);
    message.extend_from_slice(tag.as_ref());
    assert_eq!(cipher.open_message(&message, 32..message.len()), Err(CryptoError::BadPadding));
}

#[test]
fn padding_of_any_length_is_accepted_from_a_peer() {
    let mut cipher = cipher(IkeCipher::Aes128Gcm16);
    let Keyed::Aead { key, salt, .. } = &mut cipher.keyed else { panic!("an AEAD cipher") };
    let mut content = [b"payloads".as_slice(), &[0x77; 40], &[40]].concat();
    let mut message = vec![5; 32];
    let tag =
        key.seal_in_place_separate_tag(nonce(salt, [3; 8]), aead::Aad::from(&message), &mut content).unwrap();
    message.extend_from_slice(&[3; 8]);
    message.extend_from_slice(&content);
    message.extend_from_slice(tag.as_ref());
    assert_eq!(*cipher.open_message(&message, 32..message.len()).unwrap(), b"payloads");
}

#[test]
fn an_aead_iv_never_repeats_and_starts_at_random() {
    let mut rng = rng();
    let mut first = cipher(IkeCipher::Aes256Gcm16);
    let mut second = cipher(IkeCipher::Aes256Gcm16);
    let mut iv = |cipher: &mut SkCipher| {
        let message = cipher.seal_message(&mut rng, vec![0; 32], b"").unwrap();
        u64::from_be_bytes(message[32..40].try_into().unwrap())
    };
    let start = iv(&mut first);
    assert_eq!(iv(&mut first), start.wrapping_add(1));
    assert_eq!(iv(&mut first), start.wrapping_add(2));
    assert_ne!(iv(&mut second), start);
}

#[test]
fn keys_of_the_wrong_length_are_refused() {
    for suite in SUITES {
        let (encr, integ) = (vec![0; suite.encr_key_len()], vec![0; suite.integ_key_len()]);
        assert!(SkCipher::new(suite, &encr, &integ).is_ok());
        assert!(matches!(SkCipher::new(suite, &encr[1..], &integ), Err(CryptoError::KeyLength { .. })));
        assert!(matches!(
            SkCipher::new(suite, &encr, &[&integ[..], &[0]].concat()),
            Err(CryptoError::KeyLength { .. })
        ));
    }
}

#[test]
fn the_numbers_of_a_suite_lead_back_to_it() {
    for suite in SUITES {
        let integ = suite.integ().map(Integ::iana);
        assert_eq!(IkeCipher::from_iana(suite.encr_iana(), suite.key_bits(), integ), Some(suite));
    }
    assert_eq!(IkeCipher::from_iana(20, Some(256), Some(0)), Some(IkeCipher::Aes256Gcm16));
    // No key length, one that is not ours, AEAD with an integrity algorithm, CBC without one, unknown transforms.
    for (encr, bits, integ) in [
        (20, None, None),
        (20, Some(192), None),
        (20, Some(256), Some(12)),
        (12, Some(256), None),
        (12, Some(256), Some(2)),
        (28, Some(256), None),
        (3, None, Some(12)),
        (11, None, None),
    ] {
        assert_eq!(IkeCipher::from_iana(encr, bits, integ), None);
    }
}

#[test]
fn debug_shows_no_key() {
    assert_eq!(format!("{:?}", cipher(IkeCipher::Aes128Gcm16)), "SkCipher { suite: Aes128Gcm16, .. }");
}

proptest! {
    #[test]
    fn what_is_sealed_is_opened(
        suite in proptest::sample::select(SUITES.to_vec()),
        prefix in proptest::collection::vec(any::<u8>(), 28..60),
        plaintext in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut cipher = cipher(suite);
        let message = cipher.seal_message(&mut rng(), prefix.clone(), &plaintext).unwrap();
        prop_assert_eq!(&message[..prefix.len()], &prefix[..]);
        prop_assert_eq!(message.len(), prefix.len() + suite.sealed_len(plaintext.len()));
        let opened = cipher.open_message(&message, prefix.len()..message.len()).unwrap();
        prop_assert_eq!(&*opened, &plaintext);
    }

    #[test]
    fn the_most_plaintext_fits_and_one_octet_more_does_not(
        suite in proptest::sample::select(SUITES.to_vec()),
        body_len in 0_usize..1500,
    ) {
        match suite.max_plaintext(body_len) {
            Some(most) => {
                prop_assert!(suite.sealed_len(most) <= body_len);
                prop_assert!(suite.sealed_len(most + 1) > body_len);
            }
            None => prop_assert!(suite.sealed_len(0) > body_len),
        }
    }

    #[test]
    fn any_octets_are_opened_without_panic(
        suite in proptest::sample::select(SUITES.to_vec()),
        message in proptest::collection::vec(any::<u8>(), 0..200),
        start in 0_usize..220,
        len in 0_usize..220,
    ) {
        prop_assert!(cipher(suite).open_message(&message, start..start + len).is_err());
    }
}
