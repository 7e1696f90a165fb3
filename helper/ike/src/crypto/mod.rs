//! Suites, key derivation, the protection of the Encrypted payload and key agreement.
//!
//! Everything here works on octets and IANA transform numbers, so that it depends on neither the wire formats nor the
//! state machine. A negotiated number becomes a type ([`prf::Prf`], [`cipher::IkeCipher`], [`dh::DhGroup`]) once, at
//! the edge, and what is not supported cannot be represented further in. Secrets are zeroized when dropped and their
//! `Debug` shows nothing of them.

use thiserror::Error;

pub mod cipher;
pub mod dh;
pub mod keys;
mod modp;
pub mod prf;

pub use cipher::{IkeCipher, Integ, SkCipher};
pub use dh::{DhGroup, KeyPair};
pub use keys::{ChildKeys, IkeKeys};
pub use prf::Prf;
pub(crate) use prf::prf_plus_with;

/// What can go wrong in key agreement, key derivation and the Encrypted payload.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CryptoError {
    /// A key does not have the length its algorithm needs.
    #[error("a key of {got} octets was given where {want} are needed")]
    KeyLength {
        /// Octets given.
        got: usize,
        /// Octets the algorithm needs.
        want: usize,
    },
    /// More key material was asked for than prf+ can give (255 blocks, RFC 7296 section 2.13).
    #[error("prf+ cannot give that much key material")]
    TooMuchKeyMaterial,
    /// An Encrypted payload is too short, not a whole number of blocks, or lies outside its message.
    #[error("the Encrypted payload is malformed")]
    MalformedCiphertext,
    /// The integrity check of an Encrypted payload failed.
    #[error("the integrity check of the Encrypted payload failed")]
    IntegrityCheckFailed,
    /// The padding inside an Encrypted payload is longer than its content.
    #[error("the padding of the Encrypted payload is longer than its content")]
    BadPadding,
    /// The cryptographic library refused to seal a message (it is absurdly long).
    #[error("the message cannot be encrypted")]
    SealFailed,
    /// A public value has not the length of its group.
    #[error("the public value has {got} octets, its group needs {want}")]
    PublicValueLength {
        /// Octets received.
        got: usize,
        /// Octets of the group.
        want: usize,
    },
    /// A public value is not acceptable: 0, 1, p-1, not below p, not on the curve, or of small order.
    #[error("the public value is not an element of its group that may be used")]
    BadPublicValue,
}

/// Compares two octet strings in a time that depends on their lengths only.
#[must_use]
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let difference = a.iter().zip(b).fold(0_u8, |acc, (x, y)| acc | (x ^ y));
    std::hint::black_box(difference) == 0
}
