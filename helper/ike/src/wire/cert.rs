//! The Certificate payload (RFC 7296 section 3.6).

use crate::error::WireError;
use crate::wire::reader::Reader;

/// What a Certificate or Certificate Request payload holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CertEncoding {
    /// PKCS #7 wrapped X.509 certificate, 1.
    Pkcs7,
    /// X.509 certificate, 4.
    X509Signature,
    /// Certificate revocation list, 7.
    Crl,
    /// Hash and URL of an X.509 certificate, 12.
    HashAndUrl,
    /// Hash and URL of an X.509 bundle, 13.
    HashAndUrlBundle,
    /// OCSP content, 14 (RFC 4806).
    Ocsp,
    /// Raw public key, 15 (RFC 7670).
    RawPublicKey,
    /// Any other number.
    Other(u8),
}

impl From<u8> for CertEncoding {
    fn from(number: u8) -> Self {
        match number {
            1 => CertEncoding::Pkcs7,
            4 => CertEncoding::X509Signature,
            7 => CertEncoding::Crl,
            12 => CertEncoding::HashAndUrl,
            13 => CertEncoding::HashAndUrlBundle,
            14 => CertEncoding::Ocsp,
            15 => CertEncoding::RawPublicKey,
            other => CertEncoding::Other(other),
        }
    }
}

impl From<CertEncoding> for u8 {
    fn from(encoding: CertEncoding) -> u8 {
        match encoding {
            CertEncoding::Pkcs7 => 1,
            CertEncoding::X509Signature => 4,
            CertEncoding::Crl => 7,
            CertEncoding::HashAndUrl => 12,
            CertEncoding::HashAndUrlBundle => 13,
            CertEncoding::Ocsp => 14,
            CertEncoding::RawPublicKey => 15,
            CertEncoding::Other(number) => number,
        }
    }
}

/// One certificate, or something else about certificates; the first one of a message is the sender's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// What the data is.
    pub encoding: CertEncoding,
    /// The data, DER for [`CertEncoding::X509Signature`].
    pub data: Vec<u8>,
}

impl Certificate {
    /// An X.509 certificate in DER.
    pub fn x509(der: Vec<u8>) -> Self {
        Certificate { encoding: CertEncoding::X509Signature, data: der }
    }

    /// Reads the payload's body.
    ///
    /// # Errors
    /// The body is empty.
    pub fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body, "a Certificate payload");
        let encoding = CertEncoding::from(reader.u8()?);
        Ok(Certificate { encoding, data: reader.rest().to_vec() })
    }

    /// Writes the payload's body.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.encoding.into());
        out.extend_from_slice(&self.data);
    }
}
