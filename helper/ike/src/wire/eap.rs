//! The EAP payload (RFC 7296 section 3.16): carries one EAP message, which [`crate::eap`] reads.

use crate::error::WireError;

/// Code, identifier and length of an EAP message.
const MIN: usize = 4;

/// One EAP message. What is in it may be a credential, so `Debug` shows its length only.
#[derive(Clone, PartialEq, Eq)]
pub struct EapMessage {
    /// The message, from its code on.
    pub data: Vec<u8>,
}

impl std::fmt::Debug for EapMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EapMessage").field("length", &self.data.len()).finish_non_exhaustive()
    }
}

impl EapMessage {
    /// Reads the payload's body.
    ///
    /// # Errors
    /// The body is shorter than an EAP header.
    pub fn parse(body: &[u8]) -> Result<Self, WireError> {
        if body.len() < MIN {
            return Err(WireError::BadLength { what: "an EAP payload", length: body.len() });
        }
        Ok(EapMessage { data: body.to_vec() })
    }

    /// Writes the payload's body.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.data);
    }
}
