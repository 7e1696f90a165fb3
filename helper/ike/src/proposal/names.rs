//! Names of the algorithms: strongSwan's words for profiles, and words for people.

use super::Cipher;
use crate::wire::sa::transform_id as id;

/// What one word of a proposal stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Cipher(Cipher),
    Integ(u16),
    Prf(u16),
    Group(u16),
    Esn(u16),
}

const fn gcm(bits: u16) -> Algorithm {
    Algorithm::Cipher(Cipher { id: id::ENCR_AES_GCM_16, key_bits: Some(bits) })
}

const fn cbc(bits: u16) -> Algorithm {
    Algorithm::Cipher(Cipher { id: id::ENCR_AES_CBC, key_bits: Some(bits) })
}

const CHACHA: Algorithm = Algorithm::Cipher(Cipher { id: id::ENCR_CHACHA20_POLY1305, key_bits: None });

/// The words, the one to write first and other spellings of the same behind it.
const WORDS: &[(&[&str], Algorithm)] = &[
    (&["aes256gcm16", "aes256gcm128", "aes256gcm"], gcm(256)),
    (&["aes128gcm16", "aes128gcm128", "aes128gcm"], gcm(128)),
    (&["chacha20poly1305"], CHACHA),
    (&["aes256"], cbc(256)),
    (&["aes128", "aes"], cbc(128)),
    (&["sha256", "sha2_256"], Algorithm::Integ(id::AUTH_HMAC_SHA2_256_128)),
    (&["sha384", "sha2_384"], Algorithm::Integ(id::AUTH_HMAC_SHA2_384_192)),
    (&["sha512", "sha2_512"], Algorithm::Integ(id::AUTH_HMAC_SHA2_512_256)),
    (&["prfsha256"], Algorithm::Prf(id::PRF_HMAC_SHA2_256)),
    (&["prfsha384"], Algorithm::Prf(id::PRF_HMAC_SHA2_384)),
    (&["prfsha512"], Algorithm::Prf(id::PRF_HMAC_SHA2_512)),
    (&["x25519", "curve25519"], Algorithm::Group(id::GROUP_X25519)),
    (&["ecp256"], Algorithm::Group(id::GROUP_ECP_256)),
    (&["ecp384"], Algorithm::Group(id::GROUP_ECP_384)),
    (&["modp2048"], Algorithm::Group(id::GROUP_MODP_2048)),
    (&["modp3072"], Algorithm::Group(id::GROUP_MODP_3072)),
    (&["modp4096"], Algorithm::Group(id::GROUP_MODP_4096)),
    (&["esn"], Algorithm::Esn(id::ESN_YES)),
    (&["noesn"], Algorithm::Esn(id::ESN_NO)),
];

/// What a word of a proposal stands for.
pub(super) fn algorithm(word: &str) -> Option<Algorithm> {
    let known = WORDS.iter().find(|(words, _)| words.contains(&word));
    known.map(|(_, algorithm)| *algorithm)
}

/// The word for an algorithm.
pub(super) fn word(algorithm: Algorithm) -> Option<&'static str> {
    let known = WORDS.iter().find(|(_, known)| *known == algorithm);
    known.and_then(|(words, _)| words.first().copied())
}

/// All words, for an error message.
pub(super) fn supported() -> String {
    let words: Vec<&str> = WORDS.iter().filter_map(|(words, _)| words.first().copied()).collect();
    words.join(", ")
}

/// A cipher's name for people.
pub fn cipher_name(cipher: Cipher) -> String {
    let mode = match cipher.id {
        id::ENCR_AES_GCM_16 => "GCM",
        id::ENCR_AES_CBC => "CBC",
        id::ENCR_CHACHA20_POLY1305 => return "ChaCha20-Poly1305".to_owned(),
        other => return format!("ENCR {other}"),
    };
    match cipher.key_bits {
        Some(bits) => format!("AES-{bits}-{mode}"),
        None => format!("AES-{mode}"),
    }
}

/// An integrity algorithm's name for people.
pub fn integ_name(integ: u16) -> String {
    match integ {
        id::AUTH_HMAC_SHA2_256_128 => "HMAC-SHA2-256-128".to_owned(),
        id::AUTH_HMAC_SHA2_384_192 => "HMAC-SHA2-384-192".to_owned(),
        id::AUTH_HMAC_SHA2_512_256 => "HMAC-SHA2-512-256".to_owned(),
        other => format!("INTEG {other}"),
    }
}

/// A pseudorandom function's name for people.
pub fn prf_name(prf: u16) -> String {
    match prf {
        id::PRF_HMAC_SHA2_256 => "HMAC-SHA2-256".to_owned(),
        id::PRF_HMAC_SHA2_384 => "HMAC-SHA2-384".to_owned(),
        id::PRF_HMAC_SHA2_512 => "HMAC-SHA2-512".to_owned(),
        other => format!("PRF {other}"),
    }
}

/// A key exchange method's name for people.
pub fn group_name(group: u16) -> String {
    match group {
        id::GROUP_X25519 => "X25519".to_owned(),
        id::GROUP_ECP_256 => "ECP-256".to_owned(),
        id::GROUP_ECP_384 => "ECP-384".to_owned(),
        id::GROUP_MODP_2048 => "MODP-2048".to_owned(),
        id::GROUP_MODP_3072 => "MODP-3072".to_owned(),
        id::GROUP_MODP_4096 => "MODP-4096".to_owned(),
        other => format!("group {other}"),
    }
}
