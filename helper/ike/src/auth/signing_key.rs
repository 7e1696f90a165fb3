//! Private keys: reading them from the forms in which they are kept, and signing AUTH payloads with them.
//!
//! Signatures are deterministic: RSA by PKCS#1 v1.5, ECDSA by RFC 6979. So the same seed gives the same bytes on the
//! wire, and a poor random source cannot give an ECDSA key away.

use std::fmt;

use p256::ecdsa::signature::hazmat::PrehashSigner;
use ring::rand::SystemRandom;
use ring::rsa;
use ring::signature::{self as ring_signature, KeyPair as _};
use zeroize::Zeroizing;

use super::algorithm::{HashAlgorithm, SignatureAlgorithm};
use super::der::{self, Reader};
use super::signature::{AuthData, METHOD_DIGITAL_SIGNATURE, METHOD_ECDSA_256, METHOD_ECDSA_384, METHOD_RSA};
use super::signature::{PublicKey, SignatureError};

/// A private key that signs AUTH payloads. `Debug` shows only its kind.
pub struct SigningKey(Kind);

enum Kind {
    Rsa(Box<rsa::KeyPair>),
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Kind::Rsa(_) => "RSA",
            Kind::P256(_) => "ECDSA P-256",
            Kind::P384(_) => "ECDSA P-384",
        };
        f.debug_tuple("SigningKey").field(&kind).finish()
    }
}

impl SigningKey {
    /// Reads a key from PEM: PKCS#8, SEC1 (EC P-256, P-384) or PKCS#1 (RSA 2048 to 4096 bits), unencrypted.
    ///
    /// # Errors
    /// [`SignatureError::NoPrivateKey`], [`SignatureError::EncryptedKey`], [`SignatureError::UnsupportedKey`] or
    /// [`SignatureError::BadKey`].
    pub fn from_pem(text: &str) -> Result<Self, SignatureError> {
        let blocks = pem::parse_many(text).map_err(|_| SignatureError::NoPrivateKey)?;
        let mut found = Err(SignatureError::NoPrivateKey);
        for block in blocks {
            let encrypted = block.headers().get("Proc-Type").is_some_and(|v| v.contains("ENCRYPTED"));
            let tag = block.tag().to_owned();
            let der = Zeroizing::new(block.into_contents());
            match tag.as_str() {
                "ENCRYPTED PRIVATE KEY" => found = Err(SignatureError::EncryptedKey),
                "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY" if encrypted => {
                    found = Err(SignatureError::EncryptedKey);
                }
                "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY" => return Self::from_der(&der),
                _ => {}
            }
        }
        found
    }

    /// Reads a key from DER, in the same three forms.
    ///
    /// # Errors
    /// As [`SigningKey::from_pem`].
    pub fn from_der(der: &[u8]) -> Result<Self, SignatureError> {
        match form(der).ok_or(SignatureError::BadKey("it is not PKCS#8, PKCS#1 or SEC1"))? {
            Form::EncryptedPkcs8 => Err(SignatureError::EncryptedKey),
            Form::Pkcs1 => rsa_key(rsa::KeyPair::from_der(der)),
            Form::Sec1 => {
                ec_key(p256::SecretKey::from_sec1_der(der).ok(), p384::SecretKey::from_sec1_der(der).ok())
            }
            Form::Pkcs8(algorithm) => match algorithm {
                oid if oid == OID_RSA => rsa_key(rsa::KeyPair::from_pkcs8(der)),
                oid if oid == OID_EC => {
                    ec_key(p256::SecretKey::from_der(der).ok(), p384::SecretKey::from_der(der).ok())
                }
                _ => Err(SignatureError::UnsupportedKey(
                    "only RSA, ECDSA P-256 and ECDSA P-384 keys are supported",
                )),
            },
        }
    }

    /// Signs `octets`. `peer_hashes` is the content of the peer's SIGNATURE_HASH_ALGORITHMS notify, empty when it sent
    /// none: then the method of RFC 7296 or RFC 4754 that fits the key is used.
    ///
    /// Method 1 signs with SHA2-256: RFC 7296 says SHA-1 by default there, but RFC 8247 forbids making such
    /// signatures, and a PKCS#1 v1.5 signature names its hash anyway.
    ///
    /// # Errors
    /// [`SignatureError::NoCommonHash`] when the peer takes none of SHA2-256, SHA2-384 and SHA2-512.
    pub fn sign(&self, peer_hashes: &[u16], octets: &[u8]) -> Result<AuthData, SignatureError> {
        if peer_hashes.is_empty() {
            let (method, hash) = match &self.0 {
                Kind::Rsa(_) => (METHOD_RSA, HashAlgorithm::Sha2_256),
                Kind::P256(_) => (METHOD_ECDSA_256, HashAlgorithm::Sha2_256),
                Kind::P384(_) => (METHOD_ECDSA_384, HashAlgorithm::Sha2_384),
            };
            return Ok(AuthData { method, data: self.raw_signature(hash, octets, EcdsaForm::Fixed)? });
        }
        let hash = self
            .preferred_hashes()
            .into_iter()
            .find(|hash| peer_hashes.contains(&hash.iana()))
            .ok_or(SignatureError::NoCommonHash)?;
        let algorithm = match &self.0 {
            Kind::Rsa(_) => SignatureAlgorithm::RsaPkcs1(hash),
            Kind::P256(_) | Kind::P384(_) => SignatureAlgorithm::Ecdsa(hash),
        };
        let identifier = algorithm.to_der().ok_or(SignatureError::SigningFailed)?;
        let mut data = vec![u8::try_from(identifier.len()).map_err(|_| SignatureError::SigningFailed)?];
        data.extend_from_slice(&identifier);
        data.extend_from_slice(&self.raw_signature(hash, octets, EcdsaForm::Der)?);
        Ok(AuthData { method: METHOD_DIGITAL_SIGNATURE, data })
    }

    /// Whether this key's public half is the one in `certificate` (DER).
    ///
    /// # Errors
    /// When the certificate cannot be read or has an unsupported key.
    pub fn belongs_to(&self, certificate: &[u8]) -> Result<bool, SignatureError> {
        let public = PublicKey::of_certificate(certificate)?;
        let same = match (&self.0, &public) {
            (Kind::Rsa(key), PublicKey::Rsa(other)) => key.public_key().as_ref() == other.as_slice(),
            (Kind::P256(key), PublicKey::P256(other)) => {
                key.verifying_key().to_sec1_bytes().as_ref() == other.as_slice()
            }
            (Kind::P384(key), PublicKey::P384(other)) => {
                key.verifying_key().to_sec1_bytes().as_ref() == other.as_slice()
            }
            (Kind::Rsa(_) | Kind::P256(_) | Kind::P384(_), _) => false,
        };
        Ok(same)
    }

    /// The hash that fits the key's strength first.
    const fn preferred_hashes(&self) -> [HashAlgorithm; 3] {
        use HashAlgorithm::{Sha2_256, Sha2_384, Sha2_512};
        match &self.0 {
            Kind::Rsa(_) | Kind::P256(_) => [Sha2_256, Sha2_384, Sha2_512],
            Kind::P384(_) => [Sha2_384, Sha2_512, Sha2_256],
        }
    }

    fn raw_signature(
        &self,
        hash: HashAlgorithm,
        octets: &[u8],
        form: EcdsaForm,
    ) -> Result<Vec<u8>, SignatureError> {
        let failed = SignatureError::SigningFailed;
        match &self.0 {
            Kind::Rsa(key) => {
                let padding: &dyn ring_signature::RsaEncoding = match hash {
                    HashAlgorithm::Sha2_256 => &ring_signature::RSA_PKCS1_SHA256,
                    HashAlgorithm::Sha2_384 => &ring_signature::RSA_PKCS1_SHA384,
                    HashAlgorithm::Sha2_512 => &ring_signature::RSA_PKCS1_SHA512,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                // PKCS#1 v1.5 draws nothing from the random source that the interface asks for.
                key.sign(padding, &SystemRandom::new(), octets, &mut signature).map_err(|_| failed)?;
                Ok(signature)
            }
            Kind::P256(key) => {
                let signature: p256::ecdsa::Signature =
                    key.sign_prehash(hash.digest(octets).as_ref()).map_err(|_| failed)?;
                Ok(match form {
                    EcdsaForm::Der => signature.to_der().as_bytes().to_vec(),
                    EcdsaForm::Fixed => signature.to_bytes().to_vec(),
                })
            }
            Kind::P384(key) => {
                let signature: p384::ecdsa::Signature =
                    key.sign_prehash(hash.digest(octets).as_ref()).map_err(|_| failed)?;
                Ok(match form {
                    EcdsaForm::Der => signature.to_der().as_bytes().to_vec(),
                    EcdsaForm::Fixed => signature.to_bytes().to_vec(),
                })
            }
        }
    }
}

/// How an ECDSA signature is written: ECDSA-Sig-Value (method 14) or r | s (methods 9 and 10).
#[derive(Clone, Copy)]
enum EcdsaForm {
    Der,
    Fixed,
}

/// rsaEncryption: 1.2.840.113549.1.1.1
pub(super) const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// id-ecPublicKey: 1.2.840.10045.2.1
pub(super) const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

enum Form<'a> {
    /// PrivateKeyInfo with this algorithm.
    Pkcs8(&'a [u8]),
    EncryptedPkcs8,
    Pkcs1,
    Sec1,
}

/// Tells the forms apart by their first elements.
fn form(der: &[u8]) -> Option<Form<'_>> {
    let mut key = Reader::new(der::only(der, der::SEQUENCE)?);
    let (tag, _version) = key.element()?;
    if tag == der::SEQUENCE {
        return Some(Form::EncryptedPkcs8);
    }
    if tag != der::INTEGER {
        return None;
    }
    match key.element()? {
        (der::SEQUENCE, algorithm) => Some(Form::Pkcs8(Reader::new(algorithm).expect(der::OID)?)),
        (der::INTEGER, _modulus) => Some(Form::Pkcs1),
        (der::OCTET_STRING, _scalar) => Some(Form::Sec1),
        _ => None,
    }
}

fn rsa_key(key: Result<rsa::KeyPair, ring::error::KeyRejected>) -> Result<SigningKey, SignatureError> {
    match key {
        Ok(key) => Ok(SigningKey(Kind::Rsa(Box::new(key)))),
        Err(rejected) => Err(match rejected.to_string().as_str() {
            "TooSmall" => SignatureError::UnsupportedKey("the RSA key has less than 2048 bits"),
            "TooLarge" => SignatureError::UnsupportedKey("the RSA key has more than 4096 bits"),
            _ => SignatureError::BadKey("its RSA numbers do not fit together"),
        }),
    }
}

fn ec_key(
    p256: Option<p256::SecretKey>,
    p384: Option<p384::SecretKey>,
) -> Result<SigningKey, SignatureError> {
    match (p256, p384) {
        (Some(key), _) => Ok(SigningKey(Kind::P256(key.into()))),
        (None, Some(key)) => Ok(SigningKey(Kind::P384(key.into()))),
        (None, None) => {
            Err(SignatureError::UnsupportedKey("its curve is neither P-256 nor P-384, or it is damaged"))
        }
    }
}
