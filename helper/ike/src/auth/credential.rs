//! The client's own certificate and private key.

use thiserror::Error;

use super::signature::{SignatureError, SigningKey};
use crate::time::UnixTime;

/// Why a certificate and key of the profile cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CredentialError {
    /// The private key cannot be used.
    #[error(transparent)]
    Key(#[from] SignatureError),
}

/// A certificate with its chain and its private key. `Debug` shows nothing of the key.
#[derive(Debug)]
pub struct ClientCertificate {
    _key: SigningKey,
}

impl ClientCertificate {
    /// Reads the end entity's certificate (first) with its chain and the private key from PEM.
    ///
    /// # Errors
    /// When one cannot be read, or the key does not belong to the certificate.
    pub fn from_pem(_certificates: &str, _key: &str) -> Result<Self, CredentialError> {
        todo!()
    }

    /// The certificates in DER, end entity first: one CERT payload each.
    #[must_use]
    pub fn chain(&self) -> &[Vec<u8>] {
        todo!()
    }

    /// The private key.
    #[must_use]
    pub const fn key(&self) -> &SigningKey {
        &self._key
    }

    /// The subject in DER: the data of an IDi of type DER_ASN1_DN.
    #[must_use]
    pub fn subject_der(&self) -> &[u8] {
        todo!()
    }

    /// The subject as text, for people.
    #[must_use]
    pub fn subject_text(&self) -> String {
        todo!()
    }

    /// Whether the certificate is valid at `now`.
    ///
    /// # Errors
    /// When it has expired or is not yet valid.
    pub fn check_validity(&self, _now: UnixTime) -> Result<(), CredentialError> {
        todo!()
    }
}
