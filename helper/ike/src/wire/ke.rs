//! The Key Exchange payload (RFC 7296 section 3.4).

use crate::error::WireError;
use crate::wire::reader::Reader;

/// A public value and the group it belongs to. Its length is checked by the group, not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyExchange {
    /// IANA number of the key exchange method.
    pub group: u16,
    /// The public value.
    pub data: Vec<u8>,
}

impl KeyExchange {
    /// Reads the payload's body.
    ///
    /// # Errors
    /// The body is shorter than its fixed part.
    pub fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body, "a Key Exchange payload");
        let group = reader.u16()?;
        reader.u16()?;
        Ok(KeyExchange { group, data: reader.rest().to_vec() })
    }

    /// Writes the payload's body.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.group.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.data);
    }
}
