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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::auth_octets;

    /// Values computed with Python's hmac module from RFC 7296 section 2.15.
    #[test]
    fn auth_agrees_with_another_implementation() {
        let message: Vec<u8> = (0..64).collect();
        let id = b"\x02\0\0\0vpn.example.com";
        let auth = |prf| {
            let octets = auth_octets(prf, &message, &[0x5a; 32], &[0x77; 32], id);
            hex::encode(&*shared_key_auth(prf, b"correct horse", &octets))
        };
        assert_eq!(
            auth(Prf::HmacSha2_256),
            "431fcb3107f239a65355f773f46639fa864420e0a3f6ce21df2436837ce6654e"
        );
        assert_eq!(
            auth(Prf::HmacSha2_512),
            "10edc3e94b7312a54eca9915271b22ae328c235acb442c9b12fbf1d909f4a564\
             7b87b6ef5133beb40851752e37076cd410102118d6b99febe2df98a10c990ffa"
        );
    }

    #[test]
    fn only_the_right_secret_over_the_right_octets_verifies() {
        let prf = Prf::HmacSha2_256;
        let auth = shared_key_auth(prf, b"secret", b"octets");
        assert!(verify_shared_key_auth(prf, b"secret", b"octets", &auth));
        assert!(!verify_shared_key_auth(prf, b"Secret", b"octets", &auth));
        assert!(!verify_shared_key_auth(prf, b"secret", b"Octets", &auth));
        assert!(!verify_shared_key_auth(prf, b"secret", b"octets", &auth[..31]));
        assert!(!verify_shared_key_auth(prf, b"secret", b"octets", &[]));
    }
}
