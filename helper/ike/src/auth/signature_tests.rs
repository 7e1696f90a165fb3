//! Keys, certificates and signatures under `testdata/auth` were made with OpenSSL.

use super::*;
use crate::auth::der::{Reader, encode};
use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd};
use p256::pkcs8::EncodePrivateKey;
use ring::digest;

const MESSAGE: &[u8] = include_bytes!("../../testdata/auth/message.bin");

macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!("../../testdata/auth/", $name)).as_slice()
    };
}

macro_rules! text {
    ($name:literal) => {
        include_str!(concat!("../../testdata/auth/", $name))
    };
}

fn cert(pem_text: &str) -> Vec<u8> {
    pem::parse(pem_text).unwrap().into_contents()
}

fn rsa_cert() -> Vec<u8> {
    cert(text!("rsa2048-cert.pem"))
}

/// The AUTH data of method 14: length, AlgorithmIdentifier, signature.
fn method_14(identifier: &[u8], signature: &[u8]) -> Vec<u8> {
    [&[u8::try_from(identifier.len()).unwrap()], identifier, signature].concat()
}

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text.replace([' ', '\n'], "")).unwrap()
}

fn verify_14(identifier: &[u8], signature: &[u8], certificate: &[u8]) -> Result<(), SignatureError> {
    verify_signature(METHOD_DIGITAL_SIGNATURE, &method_14(identifier, signature), certificate, MESSAGE, false)
}

/// RFC 7427 appendix A, by hand.
mod identifiers {
    pub const RSA_SHA256: &str = "300d06092a864886f70d01010b0500";
    pub const RSA_SHA384: &str = "300d06092a864886f70d01010c0500";
    pub const RSA_SHA512: &str = "300d06092a864886f70d01010d0500";
    pub const RSA_SHA1: &str = "300d06092a864886f70d0101050500";
    pub const ECDSA_SHA256: &str = "300a06082a8648ce3d040302";
    pub const ECDSA_SHA384: &str = "300a06082a8648ce3d040303";
    pub const ECDSA_SHA512: &str = "300a06082a8648ce3d040304";
    pub const PSS_SHA256: &str = "304106092a864886f70d01010a3034a00f300d06096086480165030402010500\
                                  a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120";
    pub const PSS_SHA256_TRAILER: &str = "304606092a864886f70d01010a3039a00f300d06096086480165030402010500\
                                  a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120a303020101";
    pub const PSS_SHA256_NO_NULL: &str = "303d06092a864886f70d01010a3030a00d300b0609608648016503040201\
                                  a11a301806092a864886f70d010108300b0609608648016503040201a203020120";
    pub const PSS_SHA384: &str = "304106092a864886f70d01010a3034a00f300d06096086480165030402020500\
                                  a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130";
    pub const PSS_SHA512: &str = "304106092a864886f70d01010a3034a00f300d06096086480165030402030500\
                                  a11c301a06092a864886f70d010108300d06096086480165030402030500a203020140";
}

#[test]
fn signatures_of_openssl_verify_by_method_14() {
    use identifiers::*;
    let (rsa, p256, p384) = (rsa_cert(), cert(text!("p256-cert.pem")), cert(text!("p384-cert.pem")));
    for (identifier, signature, certificate) in [
        (RSA_SHA256, data!("rsa-pkcs1-sha256.sig"), &rsa),
        (RSA_SHA384, data!("rsa-pkcs1-sha384.sig"), &rsa),
        (RSA_SHA512, data!("rsa-pkcs1-sha512.sig"), &rsa),
        (PSS_SHA256, data!("rsa-pss-sha256.sig"), &rsa),
        (PSS_SHA256_TRAILER, data!("rsa-pss-sha256.sig"), &rsa),
        (PSS_SHA256_NO_NULL, data!("rsa-pss-sha256.sig"), &rsa),
        (PSS_SHA384, data!("rsa-pss-sha384.sig"), &rsa),
        (PSS_SHA512, data!("rsa-pss-sha512.sig"), &rsa),
        (ECDSA_SHA256, data!("p256-sha256.sig"), &p256),
        (ECDSA_SHA384, data!("p256-sha384.sig"), &p256),
        (ECDSA_SHA512, data!("p256-sha512.sig"), &p256),
        (ECDSA_SHA256, data!("p384-sha256.sig"), &p384),
        (ECDSA_SHA384, data!("p384-sha384.sig"), &p384),
        (ECDSA_SHA512, data!("p384-sha512.sig"), &p384),
    ] {
        let identifier = unhex(identifier);
        assert_eq!(verify_14(&identifier, signature, certificate), Ok(()), "{}", hex::encode(&identifier));
        let auth = method_14(&identifier, signature);
        assert_eq!(
            verify_signature(METHOD_DIGITAL_SIGNATURE, &auth, certificate, b"other octets", false),
            Err(SignatureError::BadSignature)
        );
    }
}

#[test]
fn a_flipped_bit_anywhere_in_the_auth_data_is_refused() {
    let certificate = cert(text!("p256-cert.pem"));
    let auth = method_14(&unhex(identifiers::ECDSA_SHA256), data!("p256-sha256.sig"));
    for index in 0..auth.len() {
        for bit in 0..8 {
            let mut bad = auth.clone();
            bad[index] ^= 1 << bit;
            let result = verify_signature(METHOD_DIGITAL_SIGNATURE, &bad, &certificate, MESSAGE, true);
            assert!(result.is_err(), "octet {index}, bit {bit}");
        }
    }
    for len in 0..auth.len() {
        assert!(
            verify_signature(METHOD_DIGITAL_SIGNATURE, &auth[..len], &certificate, MESSAGE, true).is_err()
        );
    }
}

#[test]
fn every_key_signs_by_method_14_what_it_verifies() {
    for (key, certificate, hashes, identifier) in [
        (text!("rsa2048.pem"), text!("rsa2048-cert.pem"), &[2, 3, 4][..], identifiers::RSA_SHA256),
        (text!("rsa2048-pkcs1.pem"), text!("rsa2048-cert.pem"), &[1, 3], identifiers::RSA_SHA384),
        (text!("rsa2048.pem"), text!("rsa2048-cert.pem"), &[4, 5], identifiers::RSA_SHA512),
        (text!("p256.pem"), text!("p256-cert.pem"), &[4, 3, 2], identifiers::ECDSA_SHA256),
        (text!("p256-sec1.pem"), text!("p256-cert.pem"), &[3], identifiers::ECDSA_SHA384),
        (text!("p256.pem"), text!("p256-cert.pem"), &[4], identifiers::ECDSA_SHA512),
        (text!("p384.pem"), text!("p384-cert.pem"), &[2, 3, 4], identifiers::ECDSA_SHA384),
        (text!("p384-sec1.pem"), text!("p384-cert.pem"), &[2], identifiers::ECDSA_SHA256),
    ] {
        let key = SigningKey::from_pem(key).unwrap();
        let auth = key.sign(hashes, MESSAGE).unwrap();
        assert_eq!(auth.method, METHOD_DIGITAL_SIGNATURE);
        let identifier = unhex(identifier);
        assert_eq!(usize::from(auth.data[0]), identifier.len());
        assert_eq!(auth.data[1..=identifier.len()], identifier);
        assert_eq!(verify_signature(auth.method, &auth.data, &cert(certificate), MESSAGE, false), Ok(()));
        assert_eq!(key.sign(hashes, MESSAGE), Ok(auth), "deterministic");
        assert_eq!(key.belongs_to(&cert(certificate)), Ok(true));
        assert_eq!(key.belongs_to(&cert(text!("rsa1024-cert.pem"))), Ok(false));
        assert_eq!(key.sign(&[1, 5, 6, 7], MESSAGE), Err(SignatureError::NoCommonHash));
    }
}

#[test]
fn without_signature_hash_algorithms_the_older_methods_are_used() {
    for (key, certificate, method, len) in [
        (text!("rsa2048.pem"), text!("rsa2048-cert.pem"), METHOD_RSA, 256),
        (text!("p256.pem"), text!("p256-cert.pem"), METHOD_ECDSA_256, 64),
        (text!("p384.pem"), text!("p384-cert.pem"), METHOD_ECDSA_384, 96),
    ] {
        let auth = SigningKey::from_pem(key).unwrap().sign(&[], MESSAGE).unwrap();
        assert_eq!((auth.method, auth.data.len()), (method, len));
        let certificate = cert(certificate);
        assert_eq!(verify_signature(method, &auth.data, &certificate, MESSAGE, false), Ok(()));
        assert_eq!(
            verify_signature(method, &auth.data, &certificate, b"other", true),
            Err(SignatureError::BadSignature)
        );
    }
}

/// RFC 6979 appendix A.2.5 and A.2.6, in the form r | s of RFC 4754.
#[test]
fn ecdsa_agrees_with_rfc_6979() {
    let key = unhex("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721");
    let pkcs8 = p256::SecretKey::from_slice(&key).unwrap().to_pkcs8_der().unwrap();
    let auth = SigningKey::from_der(pkcs8.as_bytes()).unwrap().sign(&[], b"sample").unwrap();
    assert_eq!(
        hex::encode(auth.data),
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716\
         f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"
    );
    let key = unhex(
        "6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea60d2edf5",
    );
    let pkcs8 = p384::SecretKey::from_slice(&key).unwrap().to_pkcs8_der().unwrap();
    let auth = SigningKey::from_der(pkcs8.as_bytes()).unwrap().sign(&[], b"sample").unwrap();
    assert_eq!(
        hex::encode(auth.data),
        "94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe46\
         99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8"
    );
}

#[test]
fn sha_1_is_taken_by_method_1_only_and_only_when_allowed() {
    let (certificate, signature) = (rsa_cert(), data!("rsa-pkcs1-sha1.sig"));
    let refused = Err(SignatureError::RefusedAlgorithm("RSA with SHA-1"));
    assert_eq!(verify_signature(METHOD_RSA, signature, &certificate, MESSAGE, true), Ok(()));
    assert_eq!(verify_signature(METHOD_RSA, signature, &certificate, MESSAGE, false), refused);
    let auth = method_14(&unhex(identifiers::RSA_SHA1), signature);
    assert!(matches!(
        verify_signature(METHOD_DIGITAL_SIGNATURE, &auth, &certificate, MESSAGE, true),
        Err(SignatureError::RefusedAlgorithm(_))
    ));
}

#[test]
fn a_method_that_does_not_fit_the_key_is_refused() {
    let (rsa, p256, p384) = (rsa_cert(), cert(text!("p256-cert.pem")), cert(text!("p384-cert.pem")));
    for (method, certificate) in
        [(METHOD_RSA, &p256), (METHOD_ECDSA_256, &rsa), (METHOD_ECDSA_256, &p384), (METHOD_ECDSA_384, &p256)]
    {
        assert_eq!(
            verify_signature(method, &[0; 64], certificate, MESSAGE, true),
            Err(SignatureError::WrongKeyType)
        );
    }
    let ecdsa = method_14(&unhex(identifiers::ECDSA_SHA256), &[0; 70]);
    let result = verify_signature(METHOD_DIGITAL_SIGNATURE, &ecdsa, &rsa, MESSAGE, true);
    assert_eq!(result, Err(SignatureError::WrongKeyType));
}

#[test]
fn p_521_and_other_methods_are_named_as_unsupported() {
    let certificate = rsa_cert();
    for method in [0, 2, 3, METHOD_ECDSA_521, 12, 13, 201, 255] {
        assert_eq!(
            verify_signature(method, &[], &certificate, MESSAGE, true),
            Err(SignatureError::UnsupportedMethod(method))
        );
    }
    assert!(matches!(
        verify_signature(METHOD_DIGITAL_SIGNATURE, &[0], &cert(text!("p521-cert.pem")), MESSAGE, true),
        Err(SignatureError::UnsupportedPublicKey(_))
    ));
}

/// CVE-2018-6459, CVE-2021-41990: PSS parameters absent, defaulted to SHA-1, negative, or contradicting each other.
#[test]
fn pss_parameters_absent_or_negative_are_refused() {
    let good = identifiers::PSS_SHA256;
    let (rsa, signature) = (rsa_cert(), data!("rsa-pss-sha256.sig"));
    let sequence = |params: &str| {
        let oid = unhex("06092a864886f70d01010a");
        encode(0x30, &[oid, unhex(params)].concat())
    };
    let hash = "a00f300d06096086480165030402010500";
    let mgf = "a11c301a06092a864886f70d010108300d06096086480165030402010500";
    let mgf_sha384 = "a11c301a06092a864886f70d010108300d06096086480165030402020500";
    let mgf_sha1 = "a116301406092a864886f70d010108300706052b0e03021a";
    let seq = |parts: &[&str]| hex::encode(encode(0x30, &unhex(&parts.concat())));
    for params in [
        String::new(),
        "0500".to_owned(),
        "3000".to_owned(),
        seq(&[hash]),
        seq(&[hash, mgf]),
        seq(&[mgf, "a203020120"]),
        seq(&[hash, "a203020120"]),
        seq(&[hash, mgf, "a2030201ff"]),
        seq(&[hash, mgf, "a203020100"]),
        seq(&[hash, mgf, "a203020121"]),
        seq(&[hash, mgf, "a2040202ffe0"]),
        seq(&[hash, mgf, "a2020200"]),
        seq(&[hash, mgf, "a20602047fffffff"]),
        seq(&[hash, mgf_sha384, "a203020120"]),
        seq(&[hash, mgf_sha1, "a203020120"]),
        seq(&[hash, mgf, "a203020120", "a303020102"]),
        seq(&[hash, mgf, "a203020120", "a4030201ff"]),
        seq(&[hash, mgf, "a203020120", "0500"]),
    ] {
        let result = verify_14(&sequence(&params), signature, &rsa);
        assert!(matches!(result, Err(SignatureError::RefusedAlgorithm(_))), "{params}: {result:?}");
    }
    assert_eq!(verify_14(&sequence(&seq(&[hash, mgf, "a203020120"])), signature, &rsa), Ok(()));
    assert_eq!(
        verify_14(&unhex(good), data!("rsa-pkcs1-sha256.sig"), &rsa),
        Err(SignatureError::BadSignature)
    );
}

#[test]
fn unknown_identifiers_and_odd_parameters_are_refused() {
    let (rsa, p256) = (rsa_cert(), cert(text!("p256-cert.pem")));
    for (identifier, certificate) in [
        ("300b06092a864886f70d01010b00", &rsa),
        ("300f06092a864886f70d01010b05000500", &rsa),
        ("300f06092a864886f70d01010b04020000", &rsa),
        ("300c06082a8648ce3d0403020500", &p256),
        ("300a06082a8648ce3d040301", &p256),
        ("300906072a8648ce3d0401", &p256),
        ("300506032b6570", &p256),
        ("3000", &rsa),
        ("", &rsa),
    ] {
        let result = verify_14(&unhex(identifier), &[0; 64], certificate);
        assert!(matches!(result, Err(SignatureError::RefusedAlgorithm(_))), "{identifier}: {result:?}");
    }
}

/// A certificate that holds nothing sensible but an RSA key.
fn certificate_with_rsa_key(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let sequence = |parts: &[&[u8]]| encode(0x30, &parts.concat());
    let algorithm = unhex("300d06092a864886f70d01010b0500");
    let name = unhex("300f310d300b06035504030c0474657374");
    let date = encode(0x17, b"250101000000Z");
    let validity = sequence(&[&date, &encode(0x17, b"450101000000Z")]);
    let key = sequence(&[&encode(0x02, modulus), &encode(0x02, exponent)]);
    let spki = sequence(&[
        &unhex("300d06092a864886f70d0101010500"),
        &encode(0x03, &[&[0], key.as_slice()].concat()),
    ]);
    let version = unhex("a003020102");
    let tbs = sequence(&[&version, &encode(0x02, &[1]), &algorithm, &name, &validity, &name, &spki]);
    sequence(&[&tbs, &algorithm, &encode(0x03, &[0; 257])])
}

/// The private key's modulus and private exponent.
fn rsa_numbers() -> (Vec<u8>, Vec<u8>) {
    let der = cert(text!("rsa2048-pkcs1.pem"));
    let mut key = Reader::new(&der).nested(0x30).unwrap();
    let mut next = || key.expect(0x02).unwrap().to_vec();
    let (_version, n, _e, d) = (next(), next(), next(), next());
    (n, d)
}

/// CVE-2017-9022, CVE-2017-11185, CVE-2018-17540, CVE-2026-14957.
#[test]
fn rsa_exponents_and_moduli_that_are_zero_tiny_or_equal_are_refused() {
    let (n, _) = rsa_numbers();
    let even = [&n[..n.len() - 1], &[n[n.len() - 1] & 0xfe]].concat();
    let f4: &[u8] = &[1, 0, 1];
    assert!(
        verify_signature(
            METHOD_RSA,
            data!("rsa-pkcs1-sha256.sig"),
            &certificate_with_rsa_key(&n, f4),
            MESSAGE,
            true
        )
        .is_ok(),
        "the made-up certificate works with the right key"
    );
    let ones = [vec![0], vec![0xff; 256]].concat();
    for (modulus, exponent) in [
        (&[0][..], f4),
        (&[1], f4),
        (&[3], &[3][..]),
        (&[0x80], f4),
        (&ones[..129], f4),
        (&even, f4),
        (&n, &[0]),
        (&n, &[1]),
        (&n, &[2]),
        (&n, &[0xff]),
        (&n, &n),
        (&n, &[]),
        (&[], f4),
    ] {
        let certificate = certificate_with_rsa_key(modulus, exponent);
        for (signature, octets) in
            [(data!("rsa-pkcs1-sha256.sig"), MESSAGE), (&[0; 256], MESSAGE), (&[], b"")]
        {
            let result = verify_signature(METHOD_RSA, signature, &certificate, octets, true);
            assert!(result.is_err(), "modulus of {} octets, exponent {exponent:02x?}", modulus.len());
        }
    }
}

#[test]
fn rsa_keys_below_2048_bits_are_refused() {
    let certificate = cert(text!("rsa1024-cert.pem"));
    let signature = data!("rsa1024-pkcs1-sha256.sig");
    assert_eq!(
        verify_signature(METHOD_RSA, signature, &certificate, MESSAGE, true),
        Err(SignatureError::BadSignature)
    );
    assert_eq!(
        SigningKey::from_pem(text!("rsa1024.pem")).unwrap_err(),
        SignatureError::UnsupportedKey("the RSA key has less than 2048 bits")
    );
}

/// CVE-2018-16151: garbage after the hash or in the parameters of DigestInfo, or padding that is too short, lets
/// signatures be forged when the exponent is small. The blocks here are raised with the real private key.
#[test]
fn lenient_pkcs1_v1_5_is_not_what_we_do() {
    let (n, d) = rsa_numbers();
    let certificate = rsa_cert();
    let raw_sign = |block: &[u8]| {
        assert_eq!(block.len(), 256);
        let modulus = BoxedUint::from_be_slice(&n[1..], 2048).unwrap();
        let params = BoxedMontyParams::new(Odd::new(modulus).unwrap());
        let base = BoxedMontyForm::new(BoxedUint::from_be_slice(block, 2048).unwrap(), &params);
        base.pow(&BoxedUint::from_be_slice(d.strip_prefix(&[0]).unwrap_or(&d), 2048).unwrap())
            .retrieve()
            .to_be_bytes()
            .into_vec()
    };
    let hash = digest::digest(&digest::SHA256, MESSAGE).as_ref().to_vec();
    let info = [unhex("3031300d060960864801650304020105000420"), hash.clone()].concat();
    let block = |padding: usize, rest: &[u8]| {
        let mut block = [&[0, 1], vec![0xff; padding].as_slice(), &[0], rest].concat();
        block.resize(256, 0xab);
        block
    };
    let check = |signature: &[u8]| {
        let by_1 = verify_signature(METHOD_RSA, signature, &certificate, MESSAGE, true);
        assert_eq!(verify_14(&unhex(identifiers::RSA_SHA256), signature, &certificate), by_1);
        by_1
    };
    assert_eq!(check(&raw_sign(&block(256 - 3 - info.len(), &info))), Ok(()), "the correct block");

    let bad = Err(SignatureError::BadSignature);
    // Garbage after the hash.
    assert_eq!(check(&raw_sign(&block(8, &info))), bad);
    // Garbage inside the parameters of the hash's AlgorithmIdentifier.
    let garbage = encode(0x30, &[unhex("0609608648016503040201"), encode(0x04, &[0xab; 100])].concat());
    let info_garbage = encode(0x30, &[garbage, encode(0x04, &hash)].concat());
    assert_eq!(check(&raw_sign(&block(256 - 3 - info_garbage.len(), &info_garbage))), bad);
    // Parameters left out: a lenient verifier takes it, PKCS#1 says NULL.
    let no_null = [unhex("302f300b06096086480165030402010420"), hash.clone()].concat();
    assert_eq!(check(&raw_sign(&block(256 - 3 - no_null.len(), &no_null))), bad);
    // The bare hash, and a wrong block type.
    assert_eq!(check(&raw_sign(&block(256 - 3 - 32, &hash))), bad);
    let mut type_2 = block(256 - 3 - info.len(), &info);
    type_2[1] = 2;
    assert_eq!(check(&raw_sign(&type_2)), bad);
    assert_eq!(check(&[0; 256]), bad);
}

#[test]
fn ecdsa_values_of_zero_or_another_length_are_refused() {
    let certificate = cert(text!("p256-cert.pem"));
    for data in [&[0; 64][..], &[0xff; 64], &[1; 63], &[1; 65], &[]] {
        assert_eq!(
            verify_signature(METHOD_ECDSA_256, data, &certificate, MESSAGE, true),
            Err(SignatureError::BadSignature)
        );
    }
    for der in ["3006020100020100", "3000", "300602010102017f00"] {
        for identifier in [identifiers::ECDSA_SHA256, identifiers::ECDSA_SHA512] {
            let result = verify_14(&unhex(identifier), &unhex(der), &certificate);
            assert_eq!(result, Err(SignatureError::BadSignature));
        }
    }
}

#[test]
fn keys_that_cannot_be_used_are_named() {
    let error = |text: &str| SigningKey::from_pem(text).unwrap_err();
    assert_eq!(error("no key here"), SignatureError::NoPrivateKey);
    assert_eq!(error(text!("p256-cert.pem")), SignatureError::NoPrivateKey);
    assert_eq!(error(text!("encrypted.pem")), SignatureError::EncryptedKey);
    assert!(matches!(error(text!("p521.pem")), SignatureError::UnsupportedKey(_)));
    assert!(matches!(error(text!("ed25519.pem")), SignatureError::UnsupportedKey(_)));
    assert!(matches!(SigningKey::from_der(&[]).unwrap_err(), SignatureError::BadKey(_)));
    assert!(matches!(SigningKey::from_der(&[0x30, 0x80]).unwrap_err(), SignatureError::BadKey(_)));
    let good = cert(text!("rsa2048.pem"));
    for len in (0..good.len()).step_by(97) {
        assert!(SigningKey::from_der(&good[..len]).is_err());
    }
}

#[test]
fn debug_shows_only_the_kind_of_key() {
    let key = SigningKey::from_pem(text!("p384.pem")).unwrap();
    assert_eq!(format!("{key:?}"), "SigningKey(\"ECDSA P-384\")");
}
