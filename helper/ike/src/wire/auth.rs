//! The Authentication payload (RFC 7296 section 3.8, RFC 7427 section 3).

use crate::error::WireError;
use crate::wire::reader::Reader;

/// How the AUTH value was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthMethod {
    /// RSA digital signature, PKCS #1 v1.5, 1.
    RsaSignature,
    /// Shared key message integrity code, 2.
    SharedKey,
    /// DSS, 3.
    DssSignature,
    /// ECDSA with SHA-256 on P-256, 9 (RFC 4754).
    EcdsaSha256P256,
    /// ECDSA with SHA-384 on P-384, 10 (RFC 4754).
    EcdsaSha384P384,
    /// ECDSA with SHA-512 on P-521, 11 (RFC 4754).
    EcdsaSha512P521,
    /// NULL authentication, 13 (RFC 7619).
    Null,
    /// Digital signature with its AlgorithmIdentifier, 14 (RFC 7427).
    DigitalSignature,
    /// Any other number.
    Other(u8),
}

impl From<u8> for AuthMethod {
    fn from(number: u8) -> Self {
        match number {
            1 => AuthMethod::RsaSignature,
            2 => AuthMethod::SharedKey,
            3 => AuthMethod::DssSignature,
            9 => AuthMethod::EcdsaSha256P256,
            10 => AuthMethod::EcdsaSha384P384,
            11 => AuthMethod::EcdsaSha512P521,
            13 => AuthMethod::Null,
            14 => AuthMethod::DigitalSignature,
            other => AuthMethod::Other(other),
        }
    }
}

impl From<AuthMethod> for u8 {
    fn from(method: AuthMethod) -> u8 {
        match method {
            AuthMethod::RsaSignature => 1,
            AuthMethod::SharedKey => 2,
            AuthMethod::DssSignature => 3,
            AuthMethod::EcdsaSha256P256 => 9,
            AuthMethod::EcdsaSha384P384 => 10,
            AuthMethod::EcdsaSha512P521 => 11,
            AuthMethod::Null => 13,
            AuthMethod::DigitalSignature => 14,
            AuthMethod::Other(number) => number,
        }
    }
}

/// An AUTH value. For [`AuthMethod::DigitalSignature`] the data begins with the length of the AlgorithmIdentifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    /// How it was made.
    pub method: AuthMethod,
    /// The value.
    pub data: Vec<u8>,
}

impl Authentication {
    /// Reads the payload's body.
    ///
    /// # Errors
    /// The body is shorter than its fixed part.
    pub fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body, "an Authentication payload");
        let method = AuthMethod::from(reader.u8()?);
        reader.array::<3>()?;
        Ok(Authentication { method, data: reader.rest().to_vec() })
    }

    /// Writes the payload's body.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.method.into(), 0, 0, 0]);
        out.extend_from_slice(&self.data);
    }
}
