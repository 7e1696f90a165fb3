//! The Nonce payload (RFC 7296 section 3.9).

use crate::error::WireError;

/// Fewest octets of a nonce.
const MIN: usize = 16;
/// Most octets of a nonce.
const MAX: usize = 256;

/// A nonce of 16 to 256 octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce {
    /// The octets.
    pub data: Vec<u8>,
}

impl Nonce {
    /// Reads the payload's body.
    ///
    /// # Errors
    /// The nonce is not between 16 and 256 octets long.
    pub fn parse(body: &[u8]) -> Result<Self, WireError> {
        if !(MIN..=MAX).contains(&body.len()) {
            return Err(WireError::BadLength { what: "a Nonce payload", length: body.len() });
        }
        Ok(Nonce { data: body.to_vec() })
    }

    /// Writes the payload's body.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.data);
    }
}
