//! The gateway's certificate: chain to a trust anchor, validity, usage, and the identity it proves (RFC 5280, RFC 4945).

use thiserror::Error;

use crate::time::UnixTime;

/// An identity as the ID payload carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRef<'a> {
    /// ID type: 1 IPv4, 2 FQDN, 3 RFC822, 5 IPv6, 9 DER_ASN1_DN, 11 KEY_ID.
    pub id_type: u8,
    /// Identification Data.
    pub data: &'a [u8],
}

/// Why a certificate is not accepted. The texts are plain sentences that name the certificate.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PkiError {
    /// Placeholder list, filled in below.
    #[error("unknown CA")]
    UnknownCa,
}

/// The CA certificates that a gateway's chain may end in.
#[derive(Clone, Debug, Default)]
pub struct TrustAnchors {
    _certificates: Vec<Vec<u8>>,
}

impl TrustAnchors {
    /// Reads all certificates of a PEM text.
    ///
    /// # Errors
    /// When there is none, or one cannot be used.
    pub fn from_pem(_pem: &str) -> Result<Self, PkiError> {
        todo!()
    }

    /// From DER certificates; those that cannot be used are an error.
    ///
    /// # Errors
    /// When one cannot be used.
    pub fn from_der<I: IntoIterator<Item = Vec<u8>>>(_certificates: I) -> Result<Self, PkiError> {
        todo!()
    }

    /// From DER certificates of the system's store: what cannot be used is left out.
    #[must_use]
    pub fn from_der_lenient<I: IntoIterator<Item = Vec<u8>>>(_certificates: I) -> Self {
        todo!()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        todo!()
    }

    /// The number of anchors.
    #[must_use]
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Certification Authority field of a CERTREQ payload with encoding 4: SHA-1 of each SubjectPublicKeyInfo.
    #[must_use]
    pub fn certreq(&self) -> Vec<u8> {
        todo!()
    }
}

/// Verifies that `end_entity` (DER) chains by `intermediates` to one of `anchors`, is valid at `now`, may be used by an
/// IKE gateway, and proves `expected`.
///
/// # Errors
/// Says why not.
pub fn verify_gateway(
    _end_entity: &[u8],
    _intermediates: &[&[u8]],
    _anchors: &TrustAnchors,
    _now: UnixTime,
    _expected: IdRef<'_>,
) -> Result<(), PkiError> {
    todo!()
}

/// Whether a certificate (DER) proves an identity: by a subjectAltName, or by its subject for a DN.
///
/// # Errors
/// When it does not; the error names both.
pub fn check_identity(_certificate: &[u8], _expected: IdRef<'_>) -> Result<(), PkiError> {
    todo!()
}

/// The subject of a certificate (DER) as text, for people.
#[must_use]
pub fn subject_text(_certificate: &[u8]) -> String {
    todo!()
}
