//! AUTH by a shared secret (method 2, RFC 7296 section 2.15), also after EAP with its MSK as the secret (section 2.16).

use zeroize::Zeroizing;

use crate::crypto::{Prf, constant_time_eq};

/// The Auth Method number of a Shared Key Message Integrity Code.
pub const METHOD_SHARED_KEY: u8 = 2;

const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// AUTH = prf(prf(secret, "Key Pad for IKEv2"), octets).
#[must_use]
pub fn shared_key_auth(prf: Prf, secret: &[u8], octets: &[u8]) -> Zeroizing<Vec<u8>> {
    let padded = prf.compute(secret, &[KEY_PAD]);
    prf.compute(&padded, &[octets])
}

/// Whether `received` is the AUTH value for `secret` over `octets`, compared in constant time.
#[must_use]
pub fn verify_shared_key_auth(prf: Prf, secret: &[u8], octets: &[u8], received: &[u8]) -> bool {
    constant_time_eq(&shared_key_auth(prf, secret, octets), received)
}
