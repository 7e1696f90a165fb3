use super::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use ring::digest;

const GROUPS: [DhGroup; 6] = [
    DhGroup::Modp2048,
    DhGroup::Modp3072,
    DhGroup::Modp4096,
    DhGroup::Ecp256,
    DhGroup::Ecp384,
    DhGroup::X25519,
];
const MODP: [&Modp; 3] = [&MODP_2048, &MODP_3072, &MODP_4096];

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

fn sha256(octets: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, octets))
}

fn modp_pair(group: DhGroup, octet: u8) -> KeyPair {
    let secret = |group: &'static Modp| {
        let octets = vec![octet; group.exponent_bits as usize / 8];
        let exponent = BoxedUint::from_be_slice(&octets, group.exponent_bits).unwrap();
        let Secret::Modp(params, _) = modp_secret(group, &mut ChaCha8Rng::seed_from_u64(0)) else {
            panic!("a MODP secret")
        };
        Secret::Modp(params, Zeroizing::new(exponent))
    };
    let secret = match group {
        DhGroup::Modp2048 => secret(&MODP_2048),
        DhGroup::Modp3072 => secret(&MODP_3072),
        DhGroup::Modp4096 => secret(&MODP_4096),
        DhGroup::Ecp256 | DhGroup::Ecp384 | DhGroup::X25519 => panic!("a MODP group"),
    };
    KeyPair::from_secret(group, secret)
}

/// The primes as OpenSSL has them built in.
#[test]
fn the_primes_are_those_of_rfc_3526() {
    let expected = [
        "d66436f79bbd6b2e38c0ffbd079be904d2641415e2e67140e09448be9a60890e",
        "48cf8b092fbce4359d9871abf74f98e25b6163379eaa15cd9087e800c6d1c55c",
        "4ee95187682bcb230ad26a95205f6920e84708f6251b3894329b09ec23919e33",
    ];
    for (group, expected) in MODP.into_iter().zip(expected) {
        let prime = unhex(group.prime_hex);
        assert_eq!(prime.len() * 8, group.bits as usize);
        assert_eq!(sha256(&prime), expected);
    }
}

/// Values computed with Python's integers: exponents of 0x11 and 0x22 octets.
#[test]
fn modp_agrees_with_another_implementation() {
    let expected = [
        (
            DhGroup::Modp2048,
            "cf620d64260beddaf4bc62234b9b3237014f895ab1b5ace7d3d26d9cd1c34fe1",
            "9f9466f9d886a5c4d06f1bd219cea6a245af326b7a575026e0bd95c0e6159dcb",
            "20649a53a304c6980fcd47873b89ea9839c271c15844e85d80fffcb04fb18ddd",
        ),
        (
            DhGroup::Modp3072,
            "4de3b4418033699381740386f97d450a311c70d61b8c1c9e62e29d9e55c0420e",
            "eb5cba49b459c75408dab00a10d15ee29e41cdc35d1563c87ad5a23a05946c1c",
            "55e6f69fe33e8dd6ebdd173e4aa70e67a29f3bf6a62dff34cedfb0d48ea3549b",
        ),
        (
            DhGroup::Modp4096,
            "d1baa0936ea8d080d0ed91ccd41e2ef4047151cc0ce2055ce39dfbf1338882d8",
            "6ed6ed2a0cc6953ae117d7fd13aec81c4fc1810d60cbaf935f48937d371016fc",
            "54c05faf383f8508eccedfcda4bd075ee2f4346c1f092cc0b9bac35ee1370df3",
        ),
    ];
    for (group, public_i, public_r, shared) in expected {
        let (i, r) = (modp_pair(group, 0x11), modp_pair(group, 0x22));
        assert_eq!(sha256(i.public()), public_i);
        assert_eq!(sha256(r.public()), public_r);
        assert_eq!(sha256(&i.agree(r.public()).unwrap()), shared);
        assert_eq!(sha256(&r.agree(i.public()).unwrap()), shared);
    }
}

#[test]
fn ecp_256_agrees_with_rfc_5903() {
    let pair = |secret: &str| {
        KeyPair::from_secret(
            DhGroup::Ecp256,
            Secret::P256(p256::SecretKey::from_slice(&unhex(secret)).unwrap()),
        )
    };
    let i = pair("c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433");
    let r = pair("c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53");
    assert_eq!(
        hex::encode(i.public()),
        "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180\
         5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3"
    );
    let shared = "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de";
    assert_eq!(hex::encode(&*i.agree(r.public()).unwrap()), shared);
    assert_eq!(hex::encode(&*r.agree(i.public()).unwrap()), shared);
}

#[test]
fn ecp_384_agrees_with_rfc_5903() {
    let pair = |secret: &str| {
        KeyPair::from_secret(
            DhGroup::Ecp384,
            Secret::P384(p384::SecretKey::from_slice(&unhex(secret)).unwrap()),
        )
    };
    let i = pair(
        "099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655e35b538041e649ee3faef896783ab194",
    );
    let r = pair(
        "41cb0779b4bdb85d47846725fbec3c9430fab46cc8dc5060855cc9bda0aa2942e0308312916b8ed2960e4bd55a7448fc",
    );
    assert_eq!(
        hex::encode(i.public()),
        "667842d7d180ac2cde6f74f37551f55755c7645c20ef73e31634fe72b4c55ee6de3ac808acb4bdb4c88732aee95f41aa\
         9482ed1fc0eeb9cafc4984625ccfc23f65032149e0e144ada024181535a0f38eeb9fcff3c2c947dae69b4c634573a81c"
    );
    let shared =
        "11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4d603135569b9e9d09cf5d4a270f59746";
    assert_eq!(hex::encode(&*i.agree(r.public()).unwrap()), shared);
    assert_eq!(hex::encode(&*r.agree(i.public()).unwrap()), shared);
}

#[test]
fn x25519_agrees_with_rfc_7748() {
    let pair = |secret: &str| {
        let secret = <[u8; 32]>::try_from(unhex(secret)).unwrap();
        KeyPair::from_secret(DhGroup::X25519, Secret::X25519(Zeroizing::new(secret)))
    };
    let alice = pair("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    let bob = pair("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    assert_eq!(
        hex::encode(alice.public()),
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    );
    assert_eq!(hex::encode(bob.public()), "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    let shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
    assert_eq!(hex::encode(&*alice.agree(bob.public()).unwrap()), shared);
    assert_eq!(hex::encode(&*bob.agree(alice.public()).unwrap()), shared);
}

#[test]
fn both_ends_agree_in_every_group_and_public_values_have_their_length() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for group in GROUPS {
        let (i, r) = (KeyPair::generate(group, &mut rng), KeyPair::generate(group, &mut rng));
        assert_eq!(i.public().len(), group.public_len());
        assert_ne!(i.public(), r.public());
        let shared = i.agree(r.public()).unwrap();
        assert_eq!(shared, r.agree(i.public()).unwrap());
        let shared_len = match group {
            DhGroup::Ecp256 | DhGroup::Ecp384 => group.public_len() / 2,
            DhGroup::Modp2048 | DhGroup::Modp3072 | DhGroup::Modp4096 | DhGroup::X25519 => group.public_len(),
        };
        assert_eq!(shared.len(), shared_len);
        assert_eq!(DhGroup::from_iana(group.iana()), Some(group));
    }
}

#[test]
fn the_same_seed_gives_the_same_pair() {
    for group in GROUPS {
        let public = |seed| KeyPair::generate(group, &mut ChaCha8Rng::seed_from_u64(seed)).public().to_vec();
        assert_eq!(public(5), public(5));
        assert_ne!(public(5), public(6));
    }
}

/// CVE-2014-9221, CVE-2015-3240: a KE payload of an internal or a zero group.
#[test]
fn ke_of_an_internal_or_zero_group_has_no_type() {
    for id in [0, 1, 2, 5, 17, 18, 21, 22, 30, 32, 1024, 1040, 65_535] {
        assert_eq!(DhGroup::from_iana(id), None);
    }
}

#[test]
fn modp_values_of_small_order_or_out_of_range_are_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for (group, modp) in [DhGroup::Modp2048, DhGroup::Modp3072, DhGroup::Modp4096].into_iter().zip(MODP) {
        let pair = KeyPair::generate(group, &mut rng);
        let prime = BoxedUint::from_be_hex(modp.prime_hex, modp.bits).unwrap();
        let one = BoxedUint::one_with_precision(modp.bits);
        let zero = BoxedUint::zero_with_precision(modp.bits);
        let bad = [
            zero.clone(),
            one.clone(),
            prime.wrapping_sub(&one),
            prime.clone(),
            prime.wrapping_add(&one),
            zero.wrapping_sub(&one),
        ];
        for value in bad {
            assert_eq!(pair.agree(&value.to_be_bytes()), Err(CryptoError::BadPublicValue));
        }
        let two = one.wrapping_add(&one);
        assert!(pair.agree(&two.to_be_bytes()).is_ok(), "2 generates the group");
    }
}

#[test]
fn points_off_the_curve_and_at_infinity_are_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for group in [DhGroup::Ecp256, DhGroup::Ecp384] {
        let pair = KeyPair::generate(group, &mut rng);
        let mut off = KeyPair::generate(group, &mut rng).public().to_vec();
        *off.last_mut().unwrap() ^= 1;
        assert_eq!(pair.agree(&off), Err(CryptoError::BadPublicValue));
        assert_eq!(pair.agree(&vec![0; group.public_len()]), Err(CryptoError::BadPublicValue));
        assert_eq!(pair.agree(&vec![0xff; group.public_len()]), Err(CryptoError::BadPublicValue));
    }
}

#[test]
fn x25519_points_of_small_order_are_refused() {
    let pair = KeyPair::generate(DhGroup::X25519, &mut ChaCha8Rng::seed_from_u64(4));
    let mut one = [0; 32];
    one[0] = 1;
    let order_8 = unhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800");
    let p_minus_1 = unhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
    for bad in [&[0; 32][..], &one, &order_8, &p_minus_1] {
        assert_eq!(pair.agree(bad), Err(CryptoError::BadPublicValue));
    }
}

#[test]
fn public_values_of_another_length_are_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for group in GROUPS {
        let pair = KeyPair::generate(group, &mut rng);
        let want = group.public_len();
        for got in [0, 1, want - 1, want + 1, 2 * want] {
            assert_eq!(pair.agree(&vec![2; got]), Err(CryptoError::PublicValueLength { got, want }));
        }
    }
}

#[test]
fn debug_shows_no_secret() {
    let pair = KeyPair::generate(DhGroup::X25519, &mut ChaCha8Rng::seed_from_u64(6));
    assert_eq!(format!("{pair:?}"), "KeyPair { group: X25519, .. }");
}
