//! A whole message: header and chain of payloads (RFC 7296 sections 3.1 and 3.2).

use crate::error::WireError;
use crate::wire::encrypted::EncryptedRef;
use crate::wire::header::{HEADER_LENGTH, Header};
use crate::wire::payload::{GenericPayload, Payload, emit_chain, first_type, payload_type, push_bounded};
use crate::wire::reader::Reader;

/// A message in the clear, as IKE_SA_INIT's are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The header.
    pub header: Header,
    /// The payloads.
    pub payloads: Vec<Payload>,
}

/// What a datagram holds: payloads in the clear, then perhaps an Encrypted one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedMessage {
    /// The header.
    pub header: Header,
    /// The payloads in the clear. Those beside an Encrypted payload are not protected.
    pub payloads: Vec<Payload>,
    /// Where the Encrypted payload is, if there is one.
    pub encrypted: Option<EncryptedRef>,
}

impl Message {
    /// Reads a datagram (without a non-ESP marker).
    ///
    /// # Errors
    /// The datagram is no message: see [`WireError`].
    pub fn parse(datagram: &[u8]) -> Result<ParsedMessage, WireError> {
        let header = Header::parse(datagram)?;
        let mut reader = Reader::new(datagram, "a message");
        reader.take(HEADER_LENGTH)?;
        let mut next = header.next_payload;
        let mut payloads = Vec::new();
        while next != payload_type::NONE {
            let generic = GenericPayload::read(next, &mut reader)?;
            if matches!(next, payload_type::SK | payload_type::SKF) {
                if !reader.is_empty() {
                    return Err(WireError::AfterEncrypted);
                }
                let encrypted = Some(EncryptedRef::parse(&generic, datagram.len())?);
                return Ok(ParsedMessage { header, payloads, encrypted });
            }
            next = generic.next;
            push_bounded(&mut payloads, &generic)?;
        }
        if !reader.is_empty() {
            return Err(WireError::TrailingOctets);
        }
        Ok(ParsedMessage { header, payloads, encrypted: None })
    }

    /// Writes the datagram.
    pub fn emit(&self) -> Vec<u8> {
        emit_message(&self.header, &self.payloads)
    }
}

/// Writes a message in the clear; the header's `next_payload` is taken from the payloads.
pub fn emit_message(header: &Header, payloads: &[Payload]) -> Vec<u8> {
    let mut chain = Vec::new();
    emit_chain(payloads, payload_type::NONE, &mut chain);
    let mut out = Vec::with_capacity(HEADER_LENGTH + chain.len());
    let header = Header { next_payload: first_type(payloads, payload_type::NONE), ..*header };
    header.emit(HEADER_LENGTH + chain.len(), &mut out);
    out.extend_from_slice(&chain);
    out
}
