//! The Certificate Request payload (RFC 7296 section 3.7).

use crate::error::WireError;
use crate::wire::cert::CertEncoding;
use crate::wire::reader::Reader;

/// Octets of one SHA-1 hash of an authority's SubjectPublicKeyInfo.
const HASH: usize = 20;

/// Which kind of certificate is wanted, and from which authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    /// What is wanted.
    pub encoding: CertEncoding,
    /// For X.509: SHA-1 hashes of the SubjectPublicKeyInfo of trusted authorities, one after another. May be empty.
    pub authorities: Vec<u8>,
}

impl CertificateRequest {
    /// Asks for an X.509 certificate of one of these authorities.
    pub fn x509(hashes: &[[u8; HASH]]) -> Self {
        CertificateRequest { encoding: CertEncoding::X509Signature, authorities: hashes.concat() }
    }

    /// The hashes of the authorities; an incomplete last one is left out.
    pub fn hashes(&self) -> impl Iterator<Item = &[u8]> {
        self.authorities.chunks_exact(HASH)
    }

    /// Reads the payload's body.
    ///
    /// # Errors
    /// The body is empty.
    pub fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body, "a Certificate Request payload");
        let encoding = CertEncoding::from(reader.u8()?);
        Ok(CertificateRequest { encoding, authorities: reader.rest().to_vec() })
    }

    /// Writes the payload's body.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.encoding.into());
        out.extend_from_slice(&self.authorities);
    }
}
