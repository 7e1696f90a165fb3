//! The computations of MS-CHAPv2 (RFC 2759) and the keys made from it (RFC 3079), as EAP-MSCHAPv2 uses them.
//!
//! MD4, DES and SHA-1 are what the method consists of. It is acceptable only because it runs inside an IKE_SA whose
//! gateway has proved itself by a certificate first.

use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};
use md4::{Digest, Md4};
use ring::digest;
use zeroize::Zeroizing;

use crate::crypto::constant_time_eq;

pub use super::packet::Mschapv2Message;

/// NtPasswordHash: MD4 of the password in UTF-16LE (RFC 2759 section 8.3). As good as the password itself.
#[must_use]
pub fn nt_password_hash(password: &str) -> Zeroizing<[u8; 16]> {
    let mut unicode = Zeroizing::new(Vec::with_capacity(password.len() * 2));
    for unit in password.encode_utf16() {
        unicode.extend_from_slice(&unit.to_le_bytes());
    }
    md4(&unicode)
}

/// What both ends know of one run: the challenges and the user's name.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The server's challenge.
    pub authenticator_challenge: &'a [u8; 16],
    /// The client's challenge.
    pub peer_challenge: &'a [u8; 16],
    /// The user name as it is sent; a domain before a backslash does not enter the computation.
    pub user: &'a [u8],
}

impl Run<'_> {
    /// GenerateNTResponse (RFC 2759 section 8.1).
    #[must_use]
    pub fn nt_response(&self, nt_hash: &[u8; 16]) -> [u8; 24] {
        let challenge = self.challenge_hash();
        // The hash, padded with zeros to 21 octets, is three DES keys.
        let [k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11, k12, k13, k14, k15] = *nt_hash;
        let first = des_encrypt([k0, k1, k2, k3, k4, k5, k6], challenge);
        let second = des_encrypt([k7, k8, k9, k10, k11, k12, k13], challenge);
        let third = des_encrypt([k14, k15, 0, 0, 0, 0, 0], challenge);
        let mut response = [0; 24];
        for (out, octet) in response.iter_mut().zip(first.into_iter().chain(second).chain(third)) {
            *out = octet;
        }
        response
    }

    /// Whether `received` is the NT-Response for this password, compared in constant time.
    #[must_use]
    pub fn check_nt_response(&self, nt_hash: &[u8; 16], received: &[u8; 24]) -> bool {
        constant_time_eq(&self.nt_response(nt_hash), received)
    }

    /// GenerateAuthenticatorResponse (RFC 2759 section 8.7), as octets: the wire has "S=" and them in upper-case hex.
    #[must_use]
    pub fn authenticator_response(&self, nt_hash: &[u8; 16], nt_response: &[u8; 24]) -> [u8; 20] {
        let hash_hash = md4(nt_hash);
        let inner = sha1(&[hash_hash.as_slice(), nt_response, b"Magic server to client signing constant"]);
        sha1(&[&inner, &self.challenge_hash(), b"Pad to make it do more than one iteration"])
    }

    /// ChallengeHash (RFC 2759 section 8.2).
    fn challenge_hash(&self) -> [u8; 8] {
        let user = self.user.rsplit(|octet| *octet == b'\\').next().unwrap_or_default();
        let [a, b, c, d, e, f, g, h, ..] =
            sha1(&[self.peer_challenge.as_slice(), self.authenticator_challenge, user]);
        [a, b, c, d, e, f, g, h]
    }
}

/// The MSK: the server's 128-bit receive key, its send key (RFC 3079 section 3), and 32 zero octets, which is what
/// strongSwan, Windows and RADIUS servers hand to IKEv2.
#[must_use]
pub fn msk(nt_hash: &[u8; 16], nt_response: &[u8; 24]) -> Zeroizing<[u8; 64]> {
    let master = master_key(nt_hash, nt_response);
    let keys = [asymmetric_start_key(&master, SERVER_RECEIVES), asymmetric_start_key(&master, SERVER_SENDS)];
    let mut msk = Zeroizing::new([0; 64]);
    for (out, octet) in msk.iter_mut().zip(keys.iter().flat_map(|key| key.iter())) {
        *out = *octet;
    }
    msk
}

/// "Magic2": the key of the direction client to server.
const SERVER_RECEIVES: &[u8] =
    b"On the client side, this is the send key; on the server side, it is the receive key.";
/// "Magic3": the key of the direction server to client.
const SERVER_SENDS: &[u8] =
    b"On the client side, this is the receive key; on the server side, it is the send key.";

/// GetMasterKey (RFC 3079 section 3.4).
fn master_key(nt_hash: &[u8; 16], nt_response: &[u8; 24]) -> Zeroizing<[u8; 16]> {
    let hash_hash = md4(nt_hash);
    first_16(sha1(&[hash_hash.as_slice(), nt_response, b"This is the MPPE Master Key"]))
}

/// GetAsymmetricStartKey (RFC 3079 section 3.4) for 128 bits.
fn asymmetric_start_key(master: &[u8; 16], magic: &[u8]) -> Zeroizing<[u8; 16]> {
    first_16(sha1(&[master.as_slice(), &[0; 40], magic, &[0xf2; 40]]))
}

fn first_16(hash: [u8; 20]) -> Zeroizing<[u8; 16]> {
    let [first @ .., _, _, _, _] = hash;
    Zeroizing::new(first)
}

fn md4(octets: &[u8]) -> Zeroizing<[u8; 16]> {
    Zeroizing::new(Md4::digest(octets).into())
}

fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 20];
    for (out, octet) in out.iter_mut().zip(context.finish().as_ref()) {
        *out = *octet;
    }
    out
}

/// DesEncrypt (RFC 2759 section 8.6): 56 bits of key spread over eight octets, whose parity bits DES ignores.
fn des_encrypt(key: [u8; 7], block: [u8; 8]) -> [u8; 8] {
    let bits = key.iter().fold(0_u64, |bits, octet| (bits << 8) | u64::from(*octet));
    let mut spread = Zeroizing::new([0_u8; 8]);
    for (index, octet) in spread.iter_mut().enumerate() {
        let seven = (bits >> (49 - 7 * index)) & 0x7f;
        *octet = seven.to_le_bytes()[0] << 1;
    }
    let mut block = block.into();
    Des::new(&(*spread).into()).encrypt_block(&mut block);
    block.into()
}

#[cfg(test)]
#[path = "mschapv2_tests.rs"]
mod tests;
