//! The IKE header: 28 octets in front of every message (RFC 7296 section 3.1).

use crate::error::WireError;
use crate::wire::reader::Reader;

/// Octets of the header.
pub const HEADER_LENGTH: usize = 28;

/// Major version 2, minor version 0.
const VERSION: u8 = 0x20;
const FLAG_INITIATOR: u8 = 0x08;
const FLAG_VERSION: u8 = 0x10;
const FLAG_RESPONSE: u8 = 0x20;

/// Which exchange a message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExchangeType {
    /// IKE_SA_INIT, 34.
    IkeSaInit,
    /// IKE_AUTH, 35.
    IkeAuth,
    /// CREATE_CHILD_SA, 36.
    CreateChildSa,
    /// INFORMATIONAL, 37.
    Informational,
    /// Any other number.
    Other(u8),
}

impl From<u8> for ExchangeType {
    fn from(number: u8) -> Self {
        match number {
            34 => ExchangeType::IkeSaInit,
            35 => ExchangeType::IkeAuth,
            36 => ExchangeType::CreateChildSa,
            37 => ExchangeType::Informational,
            other => ExchangeType::Other(other),
        }
    }
}

impl From<ExchangeType> for u8 {
    fn from(exchange: ExchangeType) -> u8 {
        match exchange {
            ExchangeType::IkeSaInit => 34,
            ExchangeType::IkeAuth => 35,
            ExchangeType::CreateChildSa => 36,
            ExchangeType::Informational => 37,
            ExchangeType::Other(number) => number,
        }
    }
}

impl std::fmt::Display for ExchangeType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ExchangeType::IkeSaInit => f.write_str("IKE_SA_INIT"),
            ExchangeType::IkeAuth => f.write_str("IKE_AUTH"),
            ExchangeType::CreateChildSa => f.write_str("CREATE_CHILD_SA"),
            ExchangeType::Informational => f.write_str("INFORMATIONAL"),
            ExchangeType::Other(number) => write!(f, "exchange {number}"),
        }
    }
}

/// The header's flags. Reserved bits are zero when sent and ignored when received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags {
    /// Sent by the original initiator of the IKE_SA.
    pub initiator: bool,
    /// A response, not a request.
    pub response: bool,
    /// The sender can speak a higher major version.
    pub version: bool,
}

/// The IKE header, without its length field: that is checked when parsed and computed when emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The initiator's SPI; zero in INVALID_SPI outside an IKE_SA only (RFC 7296 section 1.5).
    pub spi_i: u64,
    /// The responder's SPI; zero in the first message of an IKE_SA_INIT exchange.
    pub spi_r: u64,
    /// Type of the first payload; set by the emitting functions.
    pub next_payload: u8,
    /// The exchange.
    pub exchange: ExchangeType,
    /// The flags.
    pub flags: Flags,
    /// The message id.
    pub message_id: u32,
}

impl Header {
    /// Reads the header of a whole datagram.
    ///
    /// # Errors
    /// The datagram is shorter than a header, of another major version, has a zero initiator SPI, or its length differs
    /// from what the header says.
    pub fn parse(datagram: &[u8]) -> Result<Header, WireError> {
        let mut reader = Reader::new(datagram, "the IKE header");
        let spi_i = reader.u64()?;
        let spi_r = reader.u64()?;
        let next_payload = reader.u8()?;
        let version = reader.u8()?;
        let exchange = ExchangeType::from(reader.u8()?);
        let bits = reader.u8()?;
        let message_id = reader.u32()?;
        let stated = reader.u32()?;
        if version >> 4 != VERSION >> 4 {
            return Err(WireError::UnsupportedMajorVersion { major: version >> 4 });
        }
        if u32::try_from(datagram.len()) != Ok(stated) {
            return Err(WireError::LengthMismatch { stated, actual: datagram.len() });
        }
        // INVALID_SPI outside an IKE_SA is the one message that has no SPIs to name (section 1.5).
        let outside = exchange == ExchangeType::Informational
            && spi_r == 0
            && bits & FLAG_RESPONSE == 0
            && message_id == 0;
        if spi_i == 0 && !outside {
            return Err(WireError::InitiatorSpiZero);
        }
        let flags = Flags {
            initiator: bits & FLAG_INITIATOR != 0,
            response: bits & FLAG_RESPONSE != 0,
            version: bits & FLAG_VERSION != 0,
        };
        Ok(Header { spi_i, spi_r, next_payload, exchange, flags, message_id })
    }

    /// Writes the header of a message of `length` octets, header included.
    pub fn emit(&self, length: usize, out: &mut Vec<u8>) {
        let mut bits = 0;
        if self.flags.initiator {
            bits |= FLAG_INITIATOR;
        }
        if self.flags.response {
            bits |= FLAG_RESPONSE;
        }
        if self.flags.version {
            bits |= FLAG_VERSION;
        }
        out.extend_from_slice(&self.spi_i.to_be_bytes());
        out.extend_from_slice(&self.spi_r.to_be_bytes());
        out.extend_from_slice(&[self.next_payload, VERSION, self.exchange.into(), bits]);
        out.extend_from_slice(&self.message_id.to_be_bytes());
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
}
