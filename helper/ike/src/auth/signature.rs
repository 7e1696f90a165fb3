//! AUTH by a digital signature: RFC 7427 (method 14) and the older methods 1, 9 and 10 (RFC 7296, RFC 4754).
//!
//! With method 14 the Authentication Data begins with a length octet and the AlgorithmIdentifier, so the peer says how
//! it signed; an algorithm is taken only if it is one of ours with exactly the parameters it should have. Method 11
//! (P-521) is not supported.

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use ring::signature::{self as ring_signature, UnparsedPublicKey, VerificationAlgorithm};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

pub use super::algorithm::HashAlgorithm;
use super::algorithm::SignatureAlgorithm;

pub use super::signing_key::SigningKey;
use super::signing_key::{OID_EC, OID_RSA};

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
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SignatureError {
    /// The text holds no private key.
    #[error("there is no private key in the PEM text")]
    NoPrivateKey,
    /// The private key is encrypted with a passphrase.
    #[error("the private key is encrypted: decrypt it first, or give it as PKCS#12")]
    EncryptedKey,
    /// A private key of a kind that is not supported.
    #[error("the private key cannot be used: {0}")]
    UnsupportedKey(&'static str),
    /// A private key that is damaged.
    #[error("the private key cannot be read: {0}")]
    BadKey(&'static str),
    /// The peer accepts none of our hashes.
    #[error("the gateway accepts none of SHA2-256, SHA2-384 and SHA2-512 for signatures")]
    NoCommonHash,
    /// The library refused to sign.
    #[error("the private key cannot sign")]
    SigningFailed,
    /// The peer's certificate cannot be read.
    #[error("the gateway's certificate cannot be read")]
    BadCertificate,
    /// The peer's certificate holds a public key of a kind that is not supported.
    #[error("the gateway's certificate has an unsupported public key: {0}")]
    UnsupportedPublicKey(&'static str),
    /// An Auth Method that is not a supported signature.
    #[error("authentication method {0} is not supported")]
    UnsupportedMethod(u8),
    /// An AlgorithmIdentifier that is not accepted.
    #[error("the gateway signed with {0}")]
    RefusedAlgorithm(&'static str),
    /// The Auth Method or algorithm does not fit the kind of key in the certificate.
    #[error("the gateway's signature algorithm does not fit the key in its certificate")]
    WrongKeyType,
    /// The Authentication Data is cut short.
    #[error("the gateway's AUTH payload is malformed")]
    MalformedAuth,
    /// The signature is wrong.
    #[error("the gateway's signature is wrong: it does not have the private key of its certificate")]
    BadSignature,
}

/// Verifies an AUTH payload of method 1, 9, 10 or 14 with the public key in `certificate` (DER).
///
/// `allow_sha1` lets method 1 be made with SHA-1, the default of RFC 7296 for it, which gateways that do not know
/// RFC 7427 use. The signed octets hold our fresh nonce; method 14 never takes SHA-1.
///
/// # Errors
/// Says why it is not accepted.
pub fn verify_signature(
    method: u8,
    data: &[u8],
    certificate: &[u8],
    octets: &[u8],
    allow_sha1: bool,
) -> Result<(), SignatureError> {
    let key = PublicKey::of_certificate(certificate)?;
    match method {
        METHOD_RSA => verify_rsa_method_1(&key, data, octets, allow_sha1),
        METHOD_ECDSA_256 => {
            let PublicKey::P256(point) = &key else { return Err(SignatureError::WrongKeyType) };
            verify(&ring_signature::ECDSA_P256_SHA256_FIXED, point, octets, data)
        }
        METHOD_ECDSA_384 => {
            let PublicKey::P384(point) = &key else { return Err(SignatureError::WrongKeyType) };
            verify(&ring_signature::ECDSA_P384_SHA384_FIXED, point, octets, data)
        }
        METHOD_DIGITAL_SIGNATURE => {
            let (&len, rest) = data.split_first().ok_or(SignatureError::MalformedAuth)?;
            let (identifier, signature) =
                rest.split_at_checked(usize::from(len)).ok_or(SignatureError::MalformedAuth)?;
            let algorithm =
                SignatureAlgorithm::from_der(identifier).map_err(SignatureError::RefusedAlgorithm)?;
            verify_with(algorithm, &key, octets, signature)
        }
        other => Err(SignatureError::UnsupportedMethod(other)),
    }
}

/// The public key of a certificate, as ring takes it.
#[derive(Debug)]
pub(super) enum PublicKey {
    /// RSAPublicKey in DER.
    Rsa(Vec<u8>),
    /// An uncompressed point.
    P256(Vec<u8>),
    /// An uncompressed point.
    P384(Vec<u8>),
}

impl PublicKey {
    pub(super) fn of_certificate(certificate: &[u8]) -> Result<Self, SignatureError> {
        /// 1.2.840.10045.3.1.7
        const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        /// 1.3.132.0.34
        const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];

        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|_| SignatureError::BadCertificate)?;
        let spki = &certificate.tbs_certificate.subject_pki;
        let octets = spki.subject_public_key.data.to_vec();
        let algorithm = spki.algorithm.algorithm.as_bytes();
        if algorithm == OID_RSA {
            return Ok(Self::Rsa(octets));
        }
        if algorithm != OID_EC {
            return Err(SignatureError::UnsupportedPublicKey("it is neither RSA nor ECDSA"));
        }
        let curve = spki.algorithm.parameters.as_ref().map(|parameters| parameters.data);
        match curve {
            Some(P256) if octets.first() == Some(&4) => Ok(Self::P256(octets)),
            Some(P384) if octets.first() == Some(&4) => Ok(Self::P384(octets)),
            Some(P256 | P384) => Err(SignatureError::UnsupportedPublicKey("its point is compressed")),
            _ => Err(SignatureError::UnsupportedPublicKey("its curve is neither P-256 nor P-384")),
        }
    }
}

fn verify_with(
    algorithm: SignatureAlgorithm,
    key: &PublicKey,
    octets: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    use HashAlgorithm::{Sha2_256, Sha2_384, Sha2_512};
    match (algorithm, key) {
        (SignatureAlgorithm::RsaPkcs1(hash), PublicKey::Rsa(key)) => {
            verify(rsa_pkcs1(hash), key, octets, signature)
        }
        (SignatureAlgorithm::RsaPss(hash), PublicKey::Rsa(key)) => {
            let algorithm = match hash {
                Sha2_256 => &ring_signature::RSA_PSS_2048_8192_SHA256,
                Sha2_384 => &ring_signature::RSA_PSS_2048_8192_SHA384,
                Sha2_512 => &ring_signature::RSA_PSS_2048_8192_SHA512,
            };
            verify(algorithm, key, octets, signature)
        }
        (SignatureAlgorithm::Ecdsa(Sha2_256), PublicKey::P256(key)) => {
            verify(&ring_signature::ECDSA_P256_SHA256_ASN1, key, octets, signature)
        }
        (SignatureAlgorithm::Ecdsa(Sha2_384), PublicKey::P256(key)) => {
            verify(&ring_signature::ECDSA_P256_SHA384_ASN1, key, octets, signature)
        }
        (SignatureAlgorithm::Ecdsa(Sha2_256), PublicKey::P384(key)) => {
            verify(&ring_signature::ECDSA_P384_SHA256_ASN1, key, octets, signature)
        }
        (SignatureAlgorithm::Ecdsa(Sha2_384), PublicKey::P384(key)) => {
            verify(&ring_signature::ECDSA_P384_SHA384_ASN1, key, octets, signature)
        }
        // ring has no ECDSA with SHA2-512 on these curves.
        (SignatureAlgorithm::Ecdsa(Sha2_512), PublicKey::P256(key)) => {
            let bad = |_| SignatureError::BadSignature;
            let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(key).map_err(bad)?;
            let signature = p256::ecdsa::Signature::from_der(signature).map_err(bad)?;
            key.verify_prehash(Sha2_512.digest(octets).as_ref(), &signature).map_err(bad)
        }
        (SignatureAlgorithm::Ecdsa(Sha2_512), PublicKey::P384(key)) => {
            let bad = |_| SignatureError::BadSignature;
            let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(key).map_err(bad)?;
            let signature = p384::ecdsa::Signature::from_der(signature).map_err(bad)?;
            key.verify_prehash(Sha2_512.digest(octets).as_ref(), &signature).map_err(bad)
        }
        (
            SignatureAlgorithm::RsaPkcs1(_) | SignatureAlgorithm::RsaPss(_),
            PublicKey::P256(_) | PublicKey::P384(_),
        )
        | (SignatureAlgorithm::Ecdsa(_), PublicKey::Rsa(_)) => Err(SignatureError::WrongKeyType),
    }
}

/// Method 1 does not say its hash outside the signature; inside, DigestInfo does, so each is tried.
fn verify_rsa_method_1(
    key: &PublicKey,
    signature: &[u8],
    octets: &[u8],
    allow_sha1: bool,
) -> Result<(), SignatureError> {
    let PublicKey::Rsa(key) = key else { return Err(SignatureError::WrongKeyType) };
    for hash in HashAlgorithm::ALL {
        if verify(rsa_pkcs1(hash), key, octets, signature).is_ok() {
            return Ok(());
        }
    }
    let sha1 = &ring_signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY;
    verify(sha1, key, octets, signature)?;
    if allow_sha1 { Ok(()) } else { Err(SignatureError::RefusedAlgorithm("RSA with SHA-1")) }
}

fn rsa_pkcs1(hash: HashAlgorithm) -> &'static dyn VerificationAlgorithm {
    match hash {
        HashAlgorithm::Sha2_256 => &ring_signature::RSA_PKCS1_2048_8192_SHA256,
        HashAlgorithm::Sha2_384 => &ring_signature::RSA_PKCS1_2048_8192_SHA384,
        HashAlgorithm::Sha2_512 => &ring_signature::RSA_PKCS1_2048_8192_SHA512,
    }
}

fn verify(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    octets: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    UnparsedPublicKey::new(algorithm, key).verify(octets, signature).map_err(|_| SignatureError::BadSignature)
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
