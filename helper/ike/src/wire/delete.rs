//! The Delete payload (RFC 7296 section 3.11).

use crate::error::WireError;
use crate::wire::reader::{Reader, len16};
use crate::wire::sa::Protocol;

/// The SAs the sender no longer has: its own inbound SPIs, or the IKE_SA itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// Whose SPIs these are.
    pub protocol: Protocol,
    /// The SPIs; empty for the IKE_SA, which is the one the message belongs to.
    pub spis: Vec<u32>,
}

impl Delete {
    /// Deletes the IKE_SA that carries the message.
    pub fn ike() -> Self {
        Delete { protocol: Protocol::Ike, spis: Vec::new() }
    }

    /// Deletes ESP SAs.
    pub fn esp(spis: Vec<u32>) -> Self {
        Delete { protocol: Protocol::Esp, spis }
    }

    /// Reads the payload's body.
    ///
    /// # Errors
    /// The SPI size does not fit the protocol, or the count does not fit the body.
    pub fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body, "a Delete payload");
        let protocol = Protocol::from(reader.u8()?);
        let spi_size = reader.u8()?;
        let count = usize::from(reader.u16()?);
        let expected_size = match protocol {
            Protocol::Ike => 0,
            Protocol::Ah | Protocol::Esp => 4,
            Protocol::Other(_) => {
                return Err(WireError::Malformed { what: "the protocol of a Delete payload" });
            }
        };
        if spi_size != expected_size || (protocol == Protocol::Ike && count != 0) {
            return Err(WireError::Malformed { what: "the SPI size of a Delete payload" });
        }
        if reader.remaining() != count * usize::from(spi_size) {
            return Err(WireError::BadLength {
                what: "the SPI list of a Delete payload",
                length: reader.remaining(),
            });
        }
        let mut spis = Vec::new();
        while !reader.is_empty() {
            spis.push(reader.u32()?);
        }
        Ok(Delete { protocol, spis })
    }

    /// Writes the payload's body.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let spi_size = if self.protocol == Protocol::Ike { 0 } else { 4 };
        let spis = if self.protocol == Protocol::Ike { &[] } else { self.spis.as_slice() };
        out.extend_from_slice(&[self.protocol.into(), spi_size]);
        out.extend_from_slice(&len16(spis.len()).to_be_bytes());
        for spi in spis {
            out.extend_from_slice(&spi.to_be_bytes());
        }
    }
}
