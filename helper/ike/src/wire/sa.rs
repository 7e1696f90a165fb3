//! The Security Association payload: proposals and transforms (RFC 7296 section 3.3).
//!
//! What is read here is only well-formed; which proposals are acceptable is decided by [`crate::proposal`].

use crate::error::WireError;
use crate::wire::reader::{Reader, len8, len16};

/// More proposals than any real peer sends.
const MAX_PROPOSALS: usize = 64;
/// More transforms in one proposal than any real peer sends.
const MAX_TRANSFORMS: usize = 128;
/// More attributes of one transform than any real peer sends.
const MAX_ATTRIBUTES: usize = 16;

/// The only transform attribute of IKEv2: key length in bits.
const KEY_LENGTH: u16 = 14;
/// Set in an attribute's type when its value stands in the place of its length.
const ATTRIBUTE_TV: u16 = 0x8000;
const PROPOSAL_FOLLOWS: u8 = 2;
const TRANSFORM_FOLLOWS: u8 = 3;
const PROPOSAL_HEADER: usize = 8;
const TRANSFORM_HEADER: usize = 8;

/// IANA numbers of the transforms that this crate knows by name.
pub mod transform_id {
    /// AES in CBC mode.
    pub const ENCR_AES_CBC: u16 = 12;
    /// AES in Galois/Counter Mode with an ICV of 16 octets.
    pub const ENCR_AES_GCM_16: u16 = 20;
    /// ChaCha20 and Poly1305 (RFC 7634).
    pub const ENCR_CHACHA20_POLY1305: u16 = 28;
    /// HMAC with SHA-256.
    pub const PRF_HMAC_SHA2_256: u16 = 5;
    /// HMAC with SHA-384.
    pub const PRF_HMAC_SHA2_384: u16 = 6;
    /// HMAC with SHA-512.
    pub const PRF_HMAC_SHA2_512: u16 = 7;
    /// No integrity transform: the cipher is an AEAD.
    pub const AUTH_NONE: u16 = 0;
    /// HMAC with SHA-256, cut to 128 bits.
    pub const AUTH_HMAC_SHA2_256_128: u16 = 12;
    /// HMAC with SHA-384, cut to 192 bits.
    pub const AUTH_HMAC_SHA2_384_192: u16 = 13;
    /// HMAC with SHA-512, cut to 256 bits.
    pub const AUTH_HMAC_SHA2_512_256: u16 = 14;
    /// No key exchange.
    pub const GROUP_NONE: u16 = 0;
    /// 2048-bit MODP group.
    pub const GROUP_MODP_2048: u16 = 14;
    /// 3072-bit MODP group.
    pub const GROUP_MODP_3072: u16 = 15;
    /// 4096-bit MODP group.
    pub const GROUP_MODP_4096: u16 = 16;
    /// NIST P-256.
    pub const GROUP_ECP_256: u16 = 19;
    /// NIST P-384.
    pub const GROUP_ECP_384: u16 = 20;
    /// Curve25519 (RFC 8031).
    pub const GROUP_X25519: u16 = 31;
    /// 32-bit sequence numbers.
    pub const ESN_NO: u16 = 0;
    /// 64-bit, extended sequence numbers.
    pub const ESN_YES: u16 = 1;
}

/// Which protocol an SPI or a proposal belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// IKE, 1.
    Ike,
    /// AH, 2.
    Ah,
    /// ESP, 3.
    Esp,
    /// Any other number.
    Other(u8),
}

impl From<u8> for Protocol {
    fn from(number: u8) -> Self {
        match number {
            1 => Protocol::Ike,
            2 => Protocol::Ah,
            3 => Protocol::Esp,
            other => Protocol::Other(other),
        }
    }
}

impl From<Protocol> for u8 {
    fn from(protocol: Protocol) -> u8 {
        match protocol {
            Protocol::Ike => 1,
            Protocol::Ah => 2,
            Protocol::Esp => 3,
            Protocol::Other(number) => number,
        }
    }
}

/// What a transform is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TransformType {
    /// Encryption algorithm, 1.
    Encr,
    /// Pseudorandom function, 2.
    Prf,
    /// Integrity algorithm, 3.
    Integ,
    /// Key exchange method (Diffie-Hellman group), 4.
    Group,
    /// Extended sequence numbers, 5.
    Esn,
    /// Any other number.
    Other(u8),
}

impl From<u8> for TransformType {
    fn from(number: u8) -> Self {
        match number {
            1 => TransformType::Encr,
            2 => TransformType::Prf,
            3 => TransformType::Integ,
            4 => TransformType::Group,
            5 => TransformType::Esn,
            other => TransformType::Other(other),
        }
    }
}

impl From<TransformType> for u8 {
    fn from(ty: TransformType) -> u8 {
        match ty {
            TransformType::Encr => 1,
            TransformType::Prf => 2,
            TransformType::Integ => 3,
            TransformType::Group => 4,
            TransformType::Esn => 5,
            TransformType::Other(number) => number,
        }
    }
}

impl std::fmt::Display for TransformType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TransformType::Encr => f.write_str("ENCR"),
            TransformType::Prf => f.write_str("PRF"),
            TransformType::Integ => f.write_str("INTEG"),
            TransformType::Group => f.write_str("KE"),
            TransformType::Esn => f.write_str("ESN"),
            TransformType::Other(number) => write!(f, "type {number}"),
        }
    }
}

/// One transform of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Transform {
    /// What it is for.
    pub ty: TransformType,
    /// Its IANA number.
    pub id: u16,
    /// Key length in bits, for ciphers that have several.
    pub key_length: Option<u16>,
    /// It came with an attribute that is not known, and so must not be chosen. Never emitted.
    pub unknown_attributes: bool,
}

impl Transform {
    /// A transform without attributes.
    pub fn new(ty: TransformType, id: u16) -> Self {
        Transform { ty, id, key_length: None, unknown_attributes: false }
    }

    /// A cipher with a key length in bits.
    pub fn cipher(id: u16, key_length: Option<u16>) -> Self {
        Transform { ty: TransformType::Encr, id, key_length, unknown_attributes: false }
    }

    fn parse(octets: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(octets, "a transform");
        let ty = TransformType::from(reader.u8()?);
        reader.u8()?;
        let mut transform = Transform::new(ty, reader.u16()?);
        let mut attributes = 0;
        while !reader.is_empty() {
            attributes += 1;
            if attributes > MAX_ATTRIBUTES {
                return Err(WireError::TooMany { what: "transform attributes", limit: MAX_ATTRIBUTES });
            }
            let kind = reader.u16()?;
            let value = reader.u16()?;
            if kind & ATTRIBUTE_TV == 0 {
                reader.take(usize::from(value))?;
                transform.unknown_attributes = true;
            } else if kind == ATTRIBUTE_TV | KEY_LENGTH && transform.key_length.is_none() {
                transform.key_length = Some(value);
            } else {
                transform.unknown_attributes = true;
            }
        }
        Ok(transform)
    }

    fn emit(&self, last: bool, out: &mut Vec<u8>) {
        let attribute = if self.key_length.is_some() { 4 } else { 0 };
        out.extend_from_slice(&[if last { 0 } else { TRANSFORM_FOLLOWS }, 0]);
        out.extend_from_slice(&len16(TRANSFORM_HEADER + attribute).to_be_bytes());
        out.extend_from_slice(&[self.ty.into(), 0]);
        out.extend_from_slice(&self.id.to_be_bytes());
        if let Some(bits) = self.key_length {
            out.extend_from_slice(&(ATTRIBUTE_TV | KEY_LENGTH).to_be_bytes());
            out.extend_from_slice(&bits.to_be_bytes());
        }
    }
}

/// One proposal: of each type of transform, one is to be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Its number: 1 for the first, one more for each further.
    pub number: u8,
    /// What it is for.
    pub protocol: Protocol,
    /// The sender's SPI: none for an initial IKE_SA, 8 octets for a rekeyed one, 4 for ESP.
    pub spi: Vec<u8>,
    /// The transforms.
    pub transforms: Vec<Transform>,
}

impl Proposal {
    /// The transforms of one type.
    pub fn of_type(&self, ty: TransformType) -> impl Iterator<Item = &Transform> {
        self.transforms.iter().filter(move |transform| transform.ty == ty)
    }

    /// The SPI of an ESP or AH proposal, when it is one: four octets, not zero.
    pub fn esp_spi(&self) -> Option<u32> {
        let octets: [u8; 4] = self.spi.as_slice().try_into().ok()?;
        Some(u32::from_be_bytes(octets)).filter(|spi| *spi != 0)
    }

    /// The SPI of a proposal that rekeys an IKE_SA, when it is one: eight octets, not zero.
    pub fn ike_spi(&self) -> Option<u64> {
        let octets: [u8; 8] = self.spi.as_slice().try_into().ok()?;
        Some(u64::from_be_bytes(octets)).filter(|spi| *spi != 0)
    }

    fn parse(octets: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(octets, "a proposal");
        let number = reader.u8()?;
        let protocol = Protocol::from(reader.u8()?);
        let spi_size = usize::from(reader.u8()?);
        let count = usize::from(reader.u8()?);
        if count > MAX_TRANSFORMS {
            return Err(WireError::TooMany { what: "transforms", limit: MAX_TRANSFORMS });
        }
        let spi = reader.take(spi_size)?.to_vec();
        let mut transforms = Vec::new();
        while let Some(body) = next_substructure(&mut reader, TRANSFORM_FOLLOWS, "a transform")? {
            if transforms.len() == count {
                return Err(WireError::Malformed { what: "the number of transforms" });
            }
            transforms.push(Transform::parse(body)?);
        }
        if transforms.len() != count {
            return Err(WireError::Malformed { what: "the number of transforms" });
        }
        Ok(Proposal { number, protocol, spi, transforms })
    }

    fn emit(&self, last: bool, out: &mut Vec<u8>) {
        let mut transforms = Vec::new();
        for (index, transform) in self.transforms.iter().enumerate() {
            transform.emit(index + 1 == self.transforms.len(), &mut transforms);
        }
        let length = PROPOSAL_HEADER + self.spi.len() + transforms.len();
        out.extend_from_slice(&[if last { 0 } else { PROPOSAL_FOLLOWS }, 0]);
        out.extend_from_slice(&len16(length).to_be_bytes());
        out.extend_from_slice(&[
            self.number,
            self.protocol.into(),
            len8(self.spi.len()),
            len8(self.transforms.len()),
        ]);
        out.extend_from_slice(&self.spi);
        out.extend_from_slice(&transforms);
    }
}

/// The proposals of an SA payload, the preferred one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityAssociation {
    /// The proposals.
    pub proposals: Vec<Proposal>,
}

impl SecurityAssociation {
    /// Reads the payload's body.
    ///
    /// # Errors
    /// A length, a count or a "more follows" field does not fit, or there are more elements than any real peer sends.
    pub fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body, "a Security Association payload");
        let mut proposals = Vec::new();
        while let Some(octets) = next_substructure(&mut reader, PROPOSAL_FOLLOWS, "a proposal")? {
            if proposals.len() == MAX_PROPOSALS {
                return Err(WireError::TooMany { what: "proposals", limit: MAX_PROPOSALS });
            }
            proposals.push(Proposal::parse(octets)?);
        }
        if proposals.is_empty() {
            return Err(WireError::Malformed { what: "an SA payload without proposals" });
        }
        Ok(SecurityAssociation { proposals })
    }

    /// Writes the payload's body.
    pub fn emit(&self, out: &mut Vec<u8>) {
        for (index, proposal) in self.proposals.iter().enumerate() {
            proposal.emit(index + 1 == self.proposals.len(), out);
        }
    }
}

/// The inside of the next proposal or transform: both begin with "more follows", a reserved octet and their length.
fn next_substructure<'a>(
    reader: &mut Reader<'a>,
    follows: u8,
    what: &'static str,
) -> Result<Option<&'a [u8]>, WireError> {
    if reader.is_empty() {
        return Ok(None);
    }
    let more = reader.u8()?;
    reader.u8()?;
    let length = usize::from(reader.u16()?);
    let Some(inner) = length.checked_sub(4) else {
        return Err(WireError::BadLength { what, length });
    };
    let body = reader.take(inner)?;
    let expected = if reader.is_empty() { 0 } else { follows };
    if more != expected {
        return Err(WireError::Malformed { what: "the \"more follows\" octet" });
    }
    Ok(Some(body))
}
