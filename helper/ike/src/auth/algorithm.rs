//! The AlgorithmIdentifier of RFC 7427 signatures: which algorithm, which hash, and that no parameter is odd.

use ring::digest;

use super::der::{self, Reader};

/// A hash of the SIGNATURE_HASH_ALGORITHMS registry that is supported (RFC 7427 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// SHA2-256 (2).
    Sha2_256,
    /// SHA2-384 (3).
    Sha2_384,
    /// SHA2-512 (4).
    Sha2_512,
}

impl HashAlgorithm {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Sha2_256, Self::Sha2_384, Self::Sha2_512];

    /// The hash with this number, if it is supported.
    #[must_use]
    pub const fn from_iana(id: u16) -> Option<Self> {
        match id {
            2 => Some(Self::Sha2_256),
            3 => Some(Self::Sha2_384),
            4 => Some(Self::Sha2_512),
            _ => None,
        }
    }

    /// Its number in the registry.
    #[must_use]
    pub const fn iana(self) -> u16 {
        match self {
            Self::Sha2_256 => 2,
            Self::Sha2_384 => 3,
            Self::Sha2_512 => 4,
        }
    }

    pub(super) fn digest(self, octets: &[u8]) -> digest::Digest {
        let algorithm = match self {
            Self::Sha2_256 => &digest::SHA256,
            Self::Sha2_384 => &digest::SHA384,
            Self::Sha2_512 => &digest::SHA512,
        };
        digest::digest(algorithm, octets)
    }

    const fn output_len(self) -> u8 {
        match self {
            Self::Sha2_256 => 32,
            Self::Sha2_384 => 48,
            Self::Sha2_512 => 64,
        }
    }

    /// id-sha256, id-sha384, id-sha512: 2.16.840.1.101.3.4.2.{1,2,3}.
    fn from_oid(oid: &[u8]) -> Option<Self> {
        match oid {
            [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, last] => match last {
                1 => Some(Self::Sha2_256),
                2 => Some(Self::Sha2_384),
                3 => Some(Self::Sha2_512),
                _ => None,
            },
            _ => None,
        }
    }
}

/// A signature algorithm that an AlgorithmIdentifier names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1(HashAlgorithm),
    /// RSASSA-PSS; MGF1 with the same hash, salt as long as the hash.
    RsaPss(HashAlgorithm),
    /// ECDSA on the curve of the key.
    Ecdsa(HashAlgorithm),
}

/// Why an AlgorithmIdentifier is not taken; the text goes into an error for people.
pub(super) type Refusal = &'static str;

/// 1.2.840.113549.1.1.x
const PKCS1: [u8; 8] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
/// 1.2.840.10045.4.3.x
const ECDSA_WITH_SHA2: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
/// id-mgf1: 1.2.840.113549.1.1.8
const MGF1: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];

impl SignatureAlgorithm {
    /// Reads the DER of an AlgorithmIdentifier.
    pub(super) fn from_der(identifier: &[u8]) -> Result<Self, Refusal> {
        const MALFORMED: Refusal = "a malformed algorithm identifier";
        let content = der::only(identifier, der::SEQUENCE).ok_or(MALFORMED)?;
        let mut reader = Reader::new(content);
        let oid = reader.expect(der::OID).ok_or(MALFORMED)?;
        if let Some([last]) = oid.strip_prefix(&PKCS1) {
            let hash = match last {
                5 => return Err("RSA with SHA-1, which RFC 8247 forbids"),
                10 => return pss(reader),
                11 => HashAlgorithm::Sha2_256,
                12 => HashAlgorithm::Sha2_384,
                13 => HashAlgorithm::Sha2_512,
                _ => return Err("an unknown RSA algorithm"),
            };
            // NULL by RFC 4055; some leave it out.
            let good = reader.is_empty() || (reader.expect(der::NULL) == Some(&[]) && reader.is_empty());
            return if good { Ok(Self::RsaPkcs1(hash)) } else { Err("RSA with unexpected parameters") };
        }
        if let Some([last]) = oid.strip_prefix(&ECDSA_WITH_SHA2) {
            let hash = match last {
                2 => HashAlgorithm::Sha2_256,
                3 => HashAlgorithm::Sha2_384,
                4 => HashAlgorithm::Sha2_512,
                _ => return Err("ECDSA with an unsupported hash"),
            };
            return if reader.is_empty() {
                Ok(Self::Ecdsa(hash))
            } else {
                Err("ECDSA with unexpected parameters")
            };
        }
        Err("an unsupported signature algorithm")
    }

    /// The DER of its AlgorithmIdentifier, for the algorithms we sign with (RFC 7427 appendix A).
    pub(super) fn to_der(self) -> Option<Vec<u8>> {
        let (prefix, last, null): (&[u8], u8, bool) = match self {
            Self::RsaPkcs1(HashAlgorithm::Sha2_256) => (&PKCS1, 11, true),
            Self::RsaPkcs1(HashAlgorithm::Sha2_384) => (&PKCS1, 12, true),
            Self::RsaPkcs1(HashAlgorithm::Sha2_512) => (&PKCS1, 13, true),
            Self::Ecdsa(HashAlgorithm::Sha2_256) => (&ECDSA_WITH_SHA2, 2, false),
            Self::Ecdsa(HashAlgorithm::Sha2_384) => (&ECDSA_WITH_SHA2, 3, false),
            Self::Ecdsa(HashAlgorithm::Sha2_512) => (&ECDSA_WITH_SHA2, 4, false),
            Self::RsaPss(_) => return None,
        };
        let mut content = der::encode(der::OID, &[prefix, &[last]].concat());
        if null {
            content.extend_from_slice(&der::encode(der::NULL, &[]));
        }
        Some(der::encode(der::SEQUENCE, &content))
    }
}

/// RSASSA-PSS-params (RFC 4055 section 3.1). The defaults are SHA-1, so the hash, the mask generation function and the
/// salt length must all be present, agree with each other, and leave nothing over.
fn pss(mut algorithm: Reader<'_>) -> Result<SignatureAlgorithm, Refusal> {
    const BAD: Refusal = "RSASSA-PSS with malformed parameters";
    if algorithm.is_empty() {
        return Err("RSASSA-PSS without parameters, which means SHA-1");
    }
    let mut params = algorithm.nested(der::SEQUENCE).ok_or(BAD)?;
    if !algorithm.is_empty() {
        return Err(BAD);
    }
    let hash = params.optional(der::context(0)).ok_or("RSASSA-PSS without a hash, which means SHA-1")?;
    let hash = hash_identifier(hash)?;
    let mgf = params.optional(der::context(1)).ok_or("RSASSA-PSS with the mask function of SHA-1")?;
    let mut mgf = Reader::new(der::only(mgf, der::SEQUENCE).ok_or(BAD)?);
    if mgf.expect(der::OID) != Some(&MGF1) {
        return Err("RSASSA-PSS with an unknown mask function");
    }
    let (tag, mgf_hash) = mgf.element().ok_or(BAD)?;
    if tag != der::SEQUENCE || !mgf.is_empty() {
        return Err(BAD);
    }
    if hash_identifier(&der::encode(der::SEQUENCE, mgf_hash))? != hash {
        return Err("RSASSA-PSS with two different hashes");
    }
    let salt = params.optional(der::context(2)).ok_or("RSASSA-PSS with the salt length of SHA-1")?;
    if der::only(salt, der::INTEGER) != Some(&[hash.output_len()]) {
        return Err("RSASSA-PSS with a salt that is not as long as its hash");
    }
    if let Some(trailer) = params.optional(der::context(3))
        && der::only(trailer, der::INTEGER) != Some(&[1])
    {
        return Err("RSASSA-PSS with an unknown trailer");
    }
    if params.is_empty() { Ok(SignatureAlgorithm::RsaPss(hash)) } else { Err(BAD) }
}

/// A hash's AlgorithmIdentifier, with NULL parameters or none.
fn hash_identifier(identifier: &[u8]) -> Result<HashAlgorithm, Refusal> {
    const UNKNOWN: Refusal = "RSASSA-PSS with an unsupported hash";
    let mut reader = Reader::new(der::only(identifier, der::SEQUENCE).ok_or(UNKNOWN)?);
    let hash = reader.expect(der::OID).and_then(HashAlgorithm::from_oid).ok_or(UNKNOWN)?;
    let good = reader.is_empty() || (reader.expect(der::NULL) == Some(&[]) && reader.is_empty());
    if good { Ok(hash) } else { Err(UNKNOWN) }
}
