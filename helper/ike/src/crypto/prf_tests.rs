use super::*;

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

#[test]
fn hmac_agrees_with_rfc_4231_test_case_2() {
    let (key, data) = (b"Jefe", b"what do ya want ".as_slice());
    let compute = |prf: Prf| hex::encode(&*prf.compute(key, &[data, b"for nothing?"]));
    assert_eq!(
        compute(Prf::HmacSha2_256),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
    assert_eq!(
        compute(Prf::HmacSha2_384),
        "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"
    );
    assert_eq!(
        compute(Prf::HmacSha2_512),
        "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fd\
         caeab1a34d4a6b4b636e070a38bce737"
    );
}

#[test]
fn hmac_agrees_with_rfc_4231_test_case_6_whose_key_is_longer_than_a_block() {
    let key = [0xaa; 131];
    let data = b"Test Using Larger Than Block-Size Key - Hash Key First";
    assert_eq!(
        hex::encode(&*Prf::HmacSha2_256.compute(&key, &[data])),
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
    );
}

/// Vectors of NIST's validation program for the IKEv2 key derivation function.
#[test]
fn prf_plus_agrees_with_nist_for_sha_384() {
    let skeyseed = unhex(
        "69fe7a1ac94adaeb711295f5fe004b1a8d6a0b65d05692758ce8ad2f7a45f59d7d0b596f51f7dfcf3330061888f6a94f",
    );
    let seed = unhex("fd1b572a8e7355916013b0ef88dacd3d2116ad07ce61f74924880e55f11a65b7");
    let expected = "4f904c2025c90c817ea5ff9b662a6fdb445a73b57cdf09eacd379b95e1f03cacb04cd6deeda4f952191dd9bc1f7a9502\
                    471a648d74dc06d38112de48a42501f6b1a3ad55c2099cd9a648e5f17e5bf3e34bf9b5953decb768a34f875fe2b78dca\
                    0c2fcca81ec1a412006dfaed38fa06882e61f4c148105fb8e231fdb33c4d484c001721d4";
    let stream = Prf::HmacSha2_384.prf_plus(&skeyseed, &seed, 132).unwrap();
    assert_eq!(hex::encode(&*stream), expected);
    for len in [0, 1, 15, 48, 49, 96] {
        let shorter = Prf::HmacSha2_384.prf_plus(&skeyseed, &seed, len).unwrap();
        assert_eq!(*shorter, stream[..len], "the first {len} octets");
    }
}

#[test]
fn skeyseed_agrees_with_nist_for_sha_384() {
    let nonces = unhex("fd1b572a8e7355916013b0ef88dacd3d");
    let shared = unhex("d3288cd87565101e88fe3bad918f31939d8dd26ff1071f8b2d7f447524e58d7c");
    assert_eq!(
        hex::encode(&*Prf::HmacSha2_384.compute(&nonces, &[&shared])),
        "69fe7a1ac94adaeb711295f5fe004b1a8d6a0b65d05692758ce8ad2f7a45f59d7d0b596f51f7dfcf3330061888f6a94f"
    );
}

#[test]
fn prf_plus_ends_after_255_blocks() {
    let most = 255 * 32;
    assert_eq!(Prf::HmacSha2_256.prf_plus(b"k", b"s", most).unwrap().len(), most);
    assert_eq!(Prf::HmacSha2_256.prf_plus(b"k", b"s", most + 1), Err(CryptoError::TooMuchKeyMaterial));
}

#[test]
fn a_negotiated_prf_that_cannot_be_used_is_none() {
    // CVE-2018-10811: PRF numbers that exist but are not supported (MD5, SHA-1, AES-XCBC, AES-CMAC), and nonsense.
    for id in [0, 1, 2, 3, 4, 8, 9, 1024, u16::MAX] {
        assert_eq!(Prf::from_iana(id), None);
    }
    for prf in [Prf::HmacSha2_256, Prf::HmacSha2_384, Prf::HmacSha2_512] {
        assert_eq!(Prf::from_iana(prf.iana()), Some(prf));
    }
}
