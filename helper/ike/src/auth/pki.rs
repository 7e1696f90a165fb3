//! The gateway's certificate: chain to a trust anchor, validity, usage, and the identity it proves (RFC 5280, RFC 4945).
//!
//! The path is built and checked by webpki; this module says in plain words what is wrong with one. Nothing that a
//! certificate names (CRL, OCSP, issuer URLs) is ever fetched. A trust anchor is a name and a key: its own validity
//! and signature are not looked at (RFC 5280 section 6.2), so a gateway's self-signed certificate can be one, too.

use ring::digest;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor};
use thiserror::Error;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter};
use x509_parser::prelude::{FromDer, X509Certificate};

pub use super::identity::{IdRef, alternative_names, check_identity, subject_text};
use crate::time::UnixTime;

/// Why a certificate is not accepted. The texts are plain sentences.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PkiError {
    /// There is no certificate in the PEM text.
    #[error("there is no certificate in the PEM text")]
    NoCertificate,
    /// The profile or the system has no CA certificate at all.
    #[error("there is no CA certificate to check the gateway's certificate with")]
    NoTrustAnchors,
    /// A CA certificate cannot be used.
    #[error("the CA certificate {subject} cannot be used")]
    BadTrustAnchor {
        /// Its subject.
        subject: String,
    },
    /// A certificate cannot be read.
    #[error("the gateway's certificate cannot be read")]
    Malformed,
    /// A certificate of the chain has expired.
    #[error("the certificate {subject} has expired on {not_after} (the clock of this computer says {now})")]
    Expired {
        /// Whose certificate.
        subject: String,
        /// The end of its validity, UTC.
        not_after: String,
        /// The time it was checked at, UTC.
        now: String,
    },
    /// A certificate of the chain is not valid yet.
    #[error(
        "the certificate {subject} is not valid before {not_before} (the clock of this computer says {now})"
    )]
    NotYetValid {
        /// Whose certificate.
        subject: String,
        /// The start of its validity, UTC.
        not_before: String,
        /// The time it was checked at, UTC.
        now: String,
    },
    /// The chain ends in no CA that is trusted.
    #[error("the certificate {subject} was issued by {issuer}, which is not a CA that this profile trusts")]
    UnknownCa {
        /// Subject of the gateway's certificate.
        subject: String,
        /// Its issuer.
        issuer: String,
    },
    /// A signature in the chain is wrong.
    #[error(
        "the signature on the certificate {subject} is wrong: it is forged, or its CA has another key than the CA of \
         the same name that this profile trusts"
    )]
    BadSignature {
        /// Subject of the gateway's certificate.
        subject: String,
    },
    /// A signature or a key in the chain is of a kind that is not accepted.
    #[error(
        "the chain of the certificate {subject} uses a key or signature that is too weak or not supported"
    )]
    UnsupportedAlgorithm {
        /// Subject of the gateway's certificate.
        subject: String,
    },
    /// A CA certificate is used as the gateway's own.
    #[error("the gateway presented the CA certificate {subject} as its own")]
    CaAsGateway {
        /// Its subject.
        subject: String,
    },
    /// The extended key usage does not allow a gateway.
    #[error("the certificate {subject} is not meant for a gateway (its extended key usage lacks serverAuth)")]
    WrongUsage {
        /// Its subject.
        subject: String,
    },
    /// The chain breaks a rule of a CA in it: a name constraint, a path length, a CA flag.
    #[error("the chain of the certificate {subject} breaks a rule of one of its CAs: {rule}")]
    Constraint {
        /// Subject of the gateway's certificate.
        subject: String,
        /// Which rule.
        rule: &'static str,
    },
    /// Anything else that is wrong with the chain.
    #[error("the chain of the certificate {subject} is not valid: {reason}")]
    Invalid {
        /// Subject of the gateway's certificate.
        subject: String,
        /// What the verifier said.
        reason: String,
    },
    /// The certificate does not prove the identity.
    #[error("the gateway should be {expected}, but its certificate is for {found}")]
    IdentityMismatch {
        /// The identity that was expected.
        expected: String,
        /// The identities in the certificate.
        found: String,
    },
}

/// The CA certificates that a gateway's chain may end in.
#[derive(Clone, Debug, Default)]
pub struct TrustAnchors {
    anchors: Vec<TrustAnchor<'static>>,
}

impl TrustAnchors {
    /// Reads all certificates of a PEM text.
    ///
    /// # Errors
    /// [`PkiError::NoCertificate`], or [`PkiError::BadTrustAnchor`] when one cannot be used.
    pub fn from_pem(text: &str) -> Result<Self, PkiError> {
        Self::from_der(certificates_from_pem(text)?)
    }

    /// From DER certificates.
    ///
    /// # Errors
    /// [`PkiError::BadTrustAnchor`] when one cannot be used.
    pub fn from_der<I: IntoIterator<Item = Vec<u8>>>(certificates: I) -> Result<Self, PkiError> {
        let mut anchors = Vec::new();
        for certificate in certificates {
            let Some(anchor) = anchor(certificate.clone()) else {
                return Err(PkiError::BadTrustAnchor { subject: subject_text(&certificate) });
            };
            anchors.push(anchor);
        }
        Ok(Self { anchors })
    }

    /// From DER certificates of the system's store: what cannot be used is left out.
    #[must_use]
    pub fn from_der_lenient<I: IntoIterator<Item = Vec<u8>>>(certificates: I) -> Self {
        Self { anchors: certificates.into_iter().filter_map(anchor).collect() }
    }

    /// Adds the anchors of `other`.
    pub fn extend(&mut self, other: Self) {
        self.anchors.extend(other.anchors);
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// The number of anchors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.anchors.len()
    }

    /// Certification Authority field of a CERTREQ payload with encoding 4 (RFC 7296 section 3.7): the SHA-1 hashes of
    /// the anchors' SubjectPublicKeyInfo, one after the other.
    #[must_use]
    pub fn certreq(&self) -> Vec<u8> {
        let mut hashes = Vec::with_capacity(self.anchors.len() * 20);
        for anchor in &self.anchors {
            // webpki keeps the content of the SEQUENCE only.
            let spki = super::der::encode(super::der::SEQUENCE, &anchor.subject_public_key_info);
            hashes.extend_from_slice(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &spki).as_ref());
        }
        hashes
    }
}

/// Verifies that `end_entity` (DER) chains by `intermediates` to one of `anchors`, is valid at `now`, may be used by an
/// IKE gateway, and proves `expected`.
///
/// The extended key usage must name serverAuth, ikeIntermediate or any, or be absent (RFC 4945 section 5.1.3.12).
///
/// # Errors
/// Says why not; see [`PkiError`].
pub fn verify_gateway(
    end_entity: &[u8],
    intermediates: &[&[u8]],
    anchors: &TrustAnchors,
    now: UnixTime,
    expected: IdRef<'_>,
) -> Result<(), PkiError> {
    verify_chain(end_entity, intermediates, anchors, now, Usage::Gateway)?;
    check_identity(end_entity, expected)
}

/// Verifies a client's certificate as a gateway does: like [`verify_gateway`], with clientAuth instead of serverAuth.
///
/// # Errors
/// As [`verify_gateway`].
pub fn verify_client(
    end_entity: &[u8],
    intermediates: &[&[u8]],
    anchors: &TrustAnchors,
    now: UnixTime,
    expected: IdRef<'_>,
) -> Result<(), PkiError> {
    verify_chain(end_entity, intermediates, anchors, now, Usage::Client)?;
    check_identity(end_entity, expected)
}

/// All certificates of a PEM text, in DER.
///
/// # Errors
/// [`PkiError::NoCertificate`] when there is none.
pub fn certificates_from_pem(text: &str) -> Result<Vec<Vec<u8>>, PkiError> {
    let blocks = pem::parse_many(text).map_err(|_| PkiError::NoCertificate)?;
    let is_certificate =
        |tag: &str| matches!(tag, "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE");
    let certificates: Vec<Vec<u8>> =
        blocks.into_iter().filter(|b| is_certificate(b.tag())).map(pem::Pem::into_contents).collect();
    if certificates.is_empty() { Err(PkiError::NoCertificate) } else { Ok(certificates) }
}

/// Seconds since 1970 as "2026-01-31 23:59:59 UTC".
pub(super) fn date_text(seconds: u64) -> String {
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days: years begin in March, so that the leap day is a year's last, in eras of 400 years.
    let days = days.saturating_add(719_468);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era.saturating_mul(400) + u64::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[derive(Clone, Copy)]
enum Usage {
    Gateway,
    Client,
}

impl ExtendedKeyUsageValidator for Usage {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        /// id-kp-serverAuth: 1.3.6.1.5.5.7.3.1
        const SERVER_AUTH: KeyPurposeId<'static> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 1]);
        /// id-kp-clientAuth: 1.3.6.1.5.5.7.3.2
        const CLIENT_AUTH: KeyPurposeId<'static> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 2]);
        /// id-kp-ipsecIKE: 1.3.6.1.5.5.7.3.17
        const IPSEC_IKE: KeyPurposeId<'static> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 17]);
        /// iKEIntermediate: 1.3.6.1.5.5.8.2.2
        const IKE_INTERMEDIATE: KeyPurposeId<'static> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 8, 2, 2]);
        /// anyExtendedKeyUsage: 2.5.29.37.0
        const ANY: KeyPurposeId<'static> = KeyPurposeId::new(&[0x55, 0x1d, 0x25, 0]);

        let own = match self {
            Self::Gateway => SERVER_AUTH,
            Self::Client => CLIENT_AUTH,
        };
        let mut absent = true;
        let mut allowed = false;
        for purpose in purposes {
            let purpose = purpose?;
            absent = false;
            allowed |= [own, IPSEC_IKE, IKE_INTERMEDIATE, ANY].contains(&purpose);
        }
        if absent || allowed {
            return Ok(());
        }
        Err(webpki::Error::RequiredEkuNotFoundContext(webpki::RequiredEkuNotFoundContext {
            required: webpki::KeyUsage::server_auth(),
            present: Vec::new(),
        }))
    }
}

/// Signature algorithms accepted in a chain: no SHA-1, no RSA below 2048 bits.
static CHAIN_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = webpki::ALL_VERIFICATION_ALGS;

fn verify_chain(
    end_entity: &[u8],
    intermediates: &[&[u8]],
    anchors: &TrustAnchors,
    now: UnixTime,
    usage: Usage,
) -> Result<(), PkiError> {
    if anchors.is_empty() {
        return Err(PkiError::NoTrustAnchors);
    }
    let der = CertificateDer::from(end_entity);
    let certificate = EndEntityCert::try_from(&der).map_err(|_| PkiError::Malformed)?;
    let chain: Vec<CertificateDer<'_>> = intermediates.iter().map(|der| CertificateDer::from(*der)).collect();
    let time = rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.0));
    certificate
        .verify_for_usage(CHAIN_ALGORITHMS, &anchors.anchors, &chain, time, usage, None, None)
        .map(|_path| ())
        .map_err(|error| explain(&error, end_entity, intermediates))
}

/// The plain words for webpki's error.
fn explain(error: &webpki::Error, end_entity: &[u8], intermediates: &[&[u8]]) -> PkiError {
    use webpki::Error as E;
    let subject = subject_text(end_entity);
    match error {
        E::CertExpired { time, not_after } => PkiError::Expired {
            subject: whose(end_entity, intermediates, |c| c.validity().not_after.timestamp(), not_after),
            not_after: date_text(not_after.as_secs()),
            now: date_text(time.as_secs()),
        },
        E::CertNotValidYet { time, not_before } => PkiError::NotYetValid {
            subject: whose(end_entity, intermediates, |c| c.validity().not_before.timestamp(), not_before),
            not_before: date_text(not_before.as_secs()),
            now: date_text(time.as_secs()),
        },
        E::UnknownIssuer => PkiError::UnknownCa { subject, issuer: issuer_text(end_entity) },
        E::InvalidSignatureForPublicKey => PkiError::BadSignature { subject },
        E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
        | E::SignatureAlgorithmMismatch => PkiError::UnsupportedAlgorithm { subject },
        E::CaUsedAsEndEntity => PkiError::CaAsGateway { subject },
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => PkiError::WrongUsage { subject },
        E::NameConstraintViolation => {
            PkiError::Constraint { subject, rule: "a name lies outside its name constraints" }
        }
        E::PathLenConstraintViolated => {
            PkiError::Constraint { subject, rule: "there are too many CAs below it" }
        }
        E::EndEntityUsedAsCa => PkiError::Constraint { subject, rule: "an issuer in it is not a CA" },
        E::BadDer | E::BadDerTime | E::MalformedExtensions | E::ExtensionValueInvalid => PkiError::Malformed,
        other => PkiError::Invalid { subject, reason: format!("{other:?}") },
    }
}

/// The subject of the certificate that has the validity bound `bound`.
fn whose(
    end_entity: &[u8],
    intermediates: &[&[u8]],
    bound_of: impl Fn(&X509Certificate<'_>) -> i64,
    bound: &rustls_pki_types::UnixTime,
) -> String {
    let bound = i64::try_from(bound.as_secs()).unwrap_or(i64::MAX);
    let guilty = std::iter::once(&end_entity).chain(intermediates).find(|der| {
        X509Certificate::from_der(der).is_ok_and(|(_, certificate)| bound_of(&certificate) == bound)
    });
    subject_text(guilty.unwrap_or(&end_entity))
}

fn issuer_text(certificate: &[u8]) -> String {
    match X509Certificate::from_der(certificate) {
        Ok((_, certificate)) => super::identity::printable(&certificate.issuer().to_string()),
        Err(_) => String::new(),
    }
}

fn anchor(certificate: Vec<u8>) -> Option<TrustAnchor<'static>> {
    let der = CertificateDer::from(certificate);
    webpki::anchor_from_trusted_cert(&der).ok().map(|anchor| anchor.to_owned())
}

#[cfg(test)]
#[path = "pki_tests.rs"]
mod tests;
