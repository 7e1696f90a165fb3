//! The client's own certificate and private key.

use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::identity::{alternative_names, subject_text};
use super::pki::{PkiError, certificates_from_pem, date_text};
use super::signature::{SignatureError, SigningKey};
use crate::time::UnixTime;

/// Why a certificate and key of the profile cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CredentialError {
    /// The private key cannot be used.
    #[error(transparent)]
    Key(#[from] SignatureError),
    /// There is no certificate in the PEM text.
    #[error("there is no client certificate in the PEM text")]
    NoCertificate,
    /// A certificate cannot be read.
    #[error("the client certificate cannot be read")]
    BadCertificate,
    /// The private key is not that of any certificate given.
    #[error("the private key does not belong to the certificate {subject}")]
    KeyMismatch {
        /// Subject of the first certificate.
        subject: String,
    },
    /// The certificate has expired.
    #[error("your certificate {subject} has expired on {not_after}")]
    Expired {
        /// Its subject.
        subject: String,
        /// The end of its validity, UTC.
        not_after: String,
    },
    /// The certificate is not valid yet.
    #[error("your certificate {subject} is not valid before {not_before}")]
    NotYetValid {
        /// Its subject.
        subject: String,
        /// The start of its validity, UTC.
        not_before: String,
    },
}

/// A certificate with its chain and its private key. `Debug` shows nothing of the key.
#[derive(Debug)]
pub struct ClientCertificate {
    chain: Vec<Vec<u8>>,
    key: SigningKey,
    subject_der: Vec<u8>,
    not_before: i64,
    not_after: i64,
}

impl ClientCertificate {
    /// Reads the certificate with its chain (in any order) and the private key from PEM. Self-signed certificates of
    /// the chain are left out of it: the gateway has its own.
    ///
    /// # Errors
    /// When one cannot be read, or the key does not belong to a certificate.
    pub fn from_pem(certificates: &str, key: &str) -> Result<Self, CredentialError> {
        let certificates = match certificates_from_pem(certificates) {
            Ok(certificates) => certificates,
            Err(PkiError::NoCertificate) => return Err(CredentialError::NoCertificate),
            Err(_) => return Err(CredentialError::BadCertificate),
        };
        Self::new(certificates, SigningKey::from_pem(key)?)
    }

    /// As [`ClientCertificate::from_pem`], from certificates in DER and a key.
    ///
    /// # Errors
    /// As [`ClientCertificate::from_pem`].
    pub fn new(certificates: Vec<Vec<u8>>, key: SigningKey) -> Result<Self, CredentialError> {
        let mut own = None;
        let mut others = Vec::new();
        let first_subject = certificates.first().map(|der| subject_text(der));
        for der in certificates {
            let (_, certificate) =
                X509Certificate::from_der(&der).map_err(|_| CredentialError::BadCertificate)?;
            if own.is_none() && key.belongs_to(&der).unwrap_or(false) {
                let validity = certificate.validity();
                let bounds = (validity.not_before.timestamp(), validity.not_after.timestamp());
                own = Some((certificate.subject().as_raw().to_vec(), bounds, der));
            } else if certificate.subject().as_raw() != certificate.issuer().as_raw() {
                others.push(der);
            }
        }
        let Some((subject_der, (not_before, not_after), der)) = own else {
            let subject = first_subject.ok_or(CredentialError::NoCertificate)?;
            return Err(CredentialError::KeyMismatch { subject });
        };
        others.insert(0, der);
        Ok(Self { chain: others, key, subject_der, not_before, not_after })
    }

    /// The certificates in DER, end entity first: one CERT payload each.
    #[must_use]
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// The certificate itself, in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        self.chain.first().map_or(&[], Vec::as_slice)
    }

    /// The private key.
    #[must_use]
    pub const fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The subject in DER: the data of an IDi of type DER_ASN1_DN.
    #[must_use]
    pub fn subject_der(&self) -> &[u8] {
        &self.subject_der
    }

    /// The subject as text, for people.
    #[must_use]
    pub fn subject_text(&self) -> String {
        subject_text(self.certificate())
    }

    /// The names of the subjectAltName as (ID type, Identification Data): what IDi may be besides the subject.
    #[must_use]
    pub fn alternative_names(&self) -> Vec<(u8, Vec<u8>)> {
        alternative_names(self.certificate())
    }

    /// Whether the certificate is valid at `now`.
    ///
    /// # Errors
    /// [`CredentialError::Expired`] or [`CredentialError::NotYetValid`].
    pub fn check_validity(&self, now: UnixTime) -> Result<(), CredentialError> {
        let now = i64::try_from(now.0).unwrap_or(i64::MAX);
        let date = |bound: i64| date_text(u64::try_from(bound).unwrap_or(0));
        if now > self.not_after {
            let (subject, not_after) = (self.subject_text(), date(self.not_after));
            return Err(CredentialError::Expired { subject, not_after });
        }
        if now < self.not_before {
            let (subject, not_before) = (self.subject_text(), date(self.not_before));
            return Err(CredentialError::NotYetValid { subject, not_before });
        }
        Ok(())
    }
}
