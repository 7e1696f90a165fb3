//! The Encrypted payload (RFC 7296 section 3.14) and the Encrypted Fragment payload (RFC 7383 section 2.5).
//!
//! Only their frame is here: where the body with IV, ciphertext and ICV lies, and which octets in front of it are
//! authenticated with it. Sealing and opening is [`crate::crypto`]'s.

use std::ops::Range;

use crate::error::WireError;
use crate::wire::header::{HEADER_LENGTH, Header};
use crate::wire::payload::{GENERIC_HEADER, GenericPayload, payload_type};
use crate::wire::reader::{Reader, len16};

/// Octets of fragment number and total.
const FRAGMENT_FIELDS: usize = 4;

/// Which of the two payloads it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EncryptedKind {
    /// A whole message.
    Sk,
    /// One fragment of a message.
    Skf {
        /// Its number, from 1.
        fragment_number: u16,
        /// How many there are.
        total: u16,
    },
}

/// Where in a datagram the Encrypted payload lies. It is always the last one and reaches to the datagram's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptedRef {
    /// Which of the two.
    pub kind: EncryptedKind,
    /// Type of the first payload inside; in fragments that are not the first it is zero.
    pub next_payload: u8,
    /// IV, ciphertext and ICV.
    pub body: Range<usize>,
    /// How many octets from the datagram's beginning are authenticated with it: up to `body`.
    pub associated_length: usize,
}

impl EncryptedRef {
    pub(crate) fn parse(generic: &GenericPayload<'_>, datagram_length: usize) -> Result<Self, WireError> {
        let mut reader = Reader::new(generic.body, "an Encrypted payload");
        let kind = if generic.payload_type == payload_type::SK {
            EncryptedKind::Sk
        } else {
            let fragment_number = reader.u16()?;
            let total = reader.u16()?;
            if fragment_number == 0 || fragment_number > total {
                return Err(WireError::Malformed { what: "the fragment number" });
            }
            EncryptedKind::Skf { fragment_number, total }
        };
        let start = datagram_length.saturating_sub(reader.remaining());
        Ok(EncryptedRef {
            kind,
            next_payload: generic.next,
            body: start..datagram_length,
            associated_length: start,
        })
    }
}

/// Writes what stands in front of the body of an encrypted message without payloads in the clear, and is authenticated
/// with it: the header, the generic header and, for a fragment, its numbers. `body_length` is that of IV, ciphertext and
/// ICV, which the caller appends; `first_inner` the type of the first payload inside, zero in fragments that are not the
/// first.
///
/// The payload's length field holds at most 65,535, more than a datagram does.
pub fn emit_prefix(header: &Header, kind: EncryptedKind, first_inner: u8, body_length: usize) -> Vec<u8> {
    let (own_type, fields) = match kind {
        EncryptedKind::Sk => (payload_type::SK, 0),
        EncryptedKind::Skf { .. } => (payload_type::SKF, FRAGMENT_FIELDS),
    };
    let payload_length = GENERIC_HEADER + fields + body_length;
    let mut out = Vec::with_capacity(HEADER_LENGTH + payload_length);
    Header { next_payload: own_type, ..*header }.emit(HEADER_LENGTH + payload_length, &mut out);
    out.extend_from_slice(&[first_inner, 0]);
    out.extend_from_slice(&len16(payload_length).to_be_bytes());
    if let EncryptedKind::Skf { fragment_number, total } = kind {
        out.extend_from_slice(&fragment_number.to_be_bytes());
        out.extend_from_slice(&total.to_be_bytes());
    }
    out
}
