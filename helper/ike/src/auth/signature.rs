//! AUTH by a digital signature: RFC 7427 (method 14) and the older methods 1, 9 and 10 (RFC 7296, RFC 4754).

use std::fmt;

use thiserror::Error;

/// RSA Digital Signature (1).
pub const METHOD_RSA: u8 = 1;
/// ECDSA with SHA-256 on the P-256 curve (9).
pub const METHOD_ECDSA_256: u8 = 9;
/// ECDSA with SHA-384 on the P-384 curve (10).
pub const METHOD_ECDSA_384: u8 = 10;
/// ECDSA with SHA-512 on the P-521 curve (11), not supported.
pub const METHOD_ECDSA_521: u8 = 11;
/// Digital Signature (14).
pub const METHOD_DIGITAL_SIGNATURE: u8 = 14;

/// What goes into the SIGNATURE_HASH_ALGORITHMS notify: SHA2-256, SHA2-384, SHA2-512 (RFC 7427 section 4).
pub const SUPPORTED_HASHES: [u16; 3] = [2, 3, 4];

/// The content of an AUTH payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthData {
    /// The Auth Method octet.
    pub method: u8,
    /// The Authentication Data field.
    pub data: Vec<u8>,
}

/// Why a signature could not be made or was not accepted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SignatureError {
    /// Placeholder list, filled in below.
    #[error("the signature does not verify")]
    BadSignature,
}

/// A private key that signs AUTH payloads. `Debug` shows nothing of it.
pub struct SigningKey {
    _private: (),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads a key from PEM: PKCS#8, SEC1 (EC P-256, P-384) or PKCS#1 (RSA 2048 to 4096 bits), unencrypted.
    ///
    /// # Errors
    /// When the text holds no such key.
    pub fn from_pem(_pem: &str) -> Result<Self, SignatureError> {
        todo!()
    }

    /// Reads a key from DER, in the same three forms.
    ///
    /// # Errors
    /// When the octets are no such key.
    pub fn from_der(_der: &[u8]) -> Result<Self, SignatureError> {
        todo!()
    }

    /// Signs `octets`. `peer_hashes` is the content of the peer's SIGNATURE_HASH_ALGORITHMS notify; empty when it sent
    /// none, then one of the older methods is used.
    ///
    /// # Errors
    /// When key and peer have no hash in common.
    pub fn sign(&self, _peer_hashes: &[u16], _octets: &[u8]) -> Result<AuthData, SignatureError> {
        todo!()
    }
}

/// Verifies an AUTH payload of method 1, 9, 10 or 14 with the public key in `certificate` (DER).
///
/// # Errors
/// Says why it is not accepted.
pub fn verify_signature(
    _method: u8,
    _data: &[u8],
    _certificate: &[u8],
    _octets: &[u8],
    _allow_sha1: bool,
) -> Result<(), SignatureError> {
    todo!()
}
