//! What can go wrong, one enum an operation.

use thiserror::Error;

/// The negotiated transforms name no suite we have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SuiteError {
    /// ENCR transform or its key length is not supported.
    #[error("encryption transform {encr} with a {key_bits}-bit key is not supported")]
    Encryption {
        /// IANA transform id.
        encr: u16,
        /// Key Length attribute.
        key_bits: u16,
    },
    /// INTEG transform is not supported, missing beside AES-CBC, or present beside an AEAD.
    #[error("integrity transform {integ:?} does not go with encryption transform {encr}")]
    Integrity {
        /// IANA transform id of the encryption.
        encr: u16,
        /// IANA transform id of the integrity, when one was given.
        integ: Option<u16>,
    },
}

/// An SA cannot be made from these values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// SPI 0 is never sent (RFC 4303 2.1); on UDP 4500 it would be the non-ESP marker.
    #[error("SPI 0 is reserved")]
    ZeroSpi,
    /// The encryption key has the wrong length.
    #[error("the encryption key must have {expected} octets, not {actual}")]
    EncryptionKeyLength {
        /// What the suite needs, salt included.
        expected: usize,
        /// What was given.
        actual: usize,
    },
    /// The integrity key has the wrong length.
    #[error("the integrity key must have {expected} octets, not {actual}")]
    IntegrityKeyLength {
        /// What the suite needs.
        expected: usize,
        /// What was given.
        actual: usize,
    },
}

/// A packet cannot be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealError {
    /// The sequence numbers of this SA are used up: it must be rekeyed, a counter never wraps (RFC 4303 3.3.3).
    #[error("the sequence numbers of this SA are used up")]
    SequenceExhausted,
    /// The output buffer is too small.
    #[error("the output buffer needs {needed} octets and has {available}")]
    BufferTooSmall {
        /// Octets needed.
        needed: usize,
        /// Octets there are.
        available: usize,
    },
    /// The cipher refused (length beyond what it can do).
    #[error("the cipher refused the packet")]
    Cipher,
}

/// A received packet is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Too short to be ESP of this suite.
    #[error("the packet is too short")]
    TooShort,
    /// The ciphertext is not a whole number of cipher blocks.
    #[error("the ciphertext is not a whole number of blocks")]
    Misaligned,
    /// The packet carries another SPI than this SA's.
    #[error("the packet belongs to another SPI")]
    WrongSpi,
    /// The sequence number was received before.
    #[error("the sequence number was received before")]
    Replayed,
    /// The sequence number is 0 or left of the replay window.
    #[error("the sequence number is outside the replay window")]
    OutsideWindow,
    /// The integrity check failed.
    #[error("the integrity check failed")]
    Authentication,
    /// Authenticated, but the padding is not what RFC 4303 2.4 prescribes.
    #[error("the padding is malformed")]
    Padding,
}
