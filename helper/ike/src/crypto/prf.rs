//! Pseudorandom functions and prf+ (RFC 7296 section 2.13, RFC 4868).

use ring::hmac;
use zeroize::Zeroizing;

use super::CryptoError;

/// A negotiated pseudorandom function (transform type 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prf {
    /// PRF_HMAC_SHA2_256 (5).
    HmacSha2_256,
    /// PRF_HMAC_SHA2_384 (6).
    HmacSha2_384,
    /// PRF_HMAC_SHA2_512 (7).
    HmacSha2_512,
}

impl Prf {
    /// The function with this transform number, if it is supported.
    #[must_use]
    pub const fn from_iana(id: u16) -> Option<Self> {
        match id {
            5 => Some(Self::HmacSha2_256),
            6 => Some(Self::HmacSha2_384),
            7 => Some(Self::HmacSha2_512),
            _ => None,
        }
    }

    /// The transform number.
    #[must_use]
    pub const fn iana(self) -> u16 {
        match self {
            Self::HmacSha2_256 => 5,
            Self::HmacSha2_384 => 6,
            Self::HmacSha2_512 => 7,
        }
    }

    /// Octets of one output.
    #[must_use]
    pub const fn output_len(self) -> usize {
        match self {
            Self::HmacSha2_256 => 32,
            Self::HmacSha2_384 => 48,
            Self::HmacSha2_512 => 64,
        }
    }

    /// Octets of the preferred key (SK_d, SK_pi and SK_pr have this length).
    #[must_use]
    pub const fn key_len(self) -> usize {
        self.output_len()
    }

    /// prf(key, parts[0] | parts[1] | ...).
    #[must_use]
    pub fn compute(self, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        compute_with(&hmac::Key::new(self.algorithm(), key), parts)
    }

    /// The first `len` octets of prf+(key, seed).
    ///
    /// # Errors
    /// [`CryptoError::TooMuchKeyMaterial`] when `len` needs more than 255 blocks.
    pub fn prf_plus(self, key: &[u8], seed: &[u8], len: usize) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        prf_plus_with(self.algorithm(), key, seed, len)
    }

    fn algorithm(self) -> hmac::Algorithm {
        match self {
            Self::HmacSha2_256 => hmac::HMAC_SHA256,
            Self::HmacSha2_384 => hmac::HMAC_SHA384,
            Self::HmacSha2_512 => hmac::HMAC_SHA512,
        }
    }
}

/// prf+ with any HMAC.
///
/// # Errors
/// As [`Prf::prf_plus`].
pub(crate) fn prf_plus_with(
    algorithm: hmac::Algorithm,
    key: &[u8],
    seed: &[u8],
    len: usize,
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let key = hmac::Key::new(algorithm, key);
    let output_len = algorithm.digest_algorithm().output_len();
    // Reserved whole, so that no reallocation leaves a copy of key material behind.
    let mut out = Zeroizing::new(Vec::with_capacity(len.saturating_add(output_len)));
    let mut block = Zeroizing::new(Vec::new());
    let mut counter = 0_u8;
    while out.len() < len {
        counter = counter.checked_add(1).ok_or(CryptoError::TooMuchKeyMaterial)?;
        block = compute_with(&key, &[&block, seed, &[counter]]);
        out.extend_from_slice(&block);
    }
    out.truncate(len);
    Ok(out)
}

fn compute_with(key: &hmac::Key, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    Zeroizing::new(context.sign().as_ref().to_vec())
}

#[cfg(test)]
#[path = "prf_tests.rs"]
mod tests;
