//! Entry points for fuzzing: plain functions over any octets, which tests replay over a corpus.
//!
//! Beyond "no panic" they hold one property: what was read and is written again is read as the same, and written the
//! same once more.

use crate::wire::message::{Message, emit_message};
use crate::wire::payload::{emit_payloads, parse_payloads};

/// Beyond this a payload that is written in another form than it was read (a missing prefix length filled in) might
/// not fit its length field.
const FITS: usize = 60_000;

/// A datagram from the network.
pub fn datagram(octets: &[u8]) {
    let Ok(parsed) = Message::parse(octets) else { return };
    if let Some(encrypted) = &parsed.encrypted {
        assert!(octets.get(encrypted.body.clone()).is_some(), "the body lies in the datagram");
        assert_eq!(
            encrypted.associated_length, encrypted.body.start,
            "what is authenticated reaches to the body"
        );
        return;
    }
    if octets.len() > FITS {
        return;
    }
    let written = emit_message(&parsed.header, &parsed.payloads);
    let again = Message::parse(&written).map(|again| emit_message(&again.header, &again.payloads));
    assert_eq!(again, Ok(written), "what was written is read back");
}

/// The content of an Encrypted payload; the first octet is the type of the first payload.
pub fn decrypted_payloads(octets: &[u8]) {
    let Some((first, rest)) = octets.split_first() else { return };
    let Ok(payloads) = parse_payloads(*first, rest) else { return };
    if octets.len() > FITS {
        return;
    }
    let (first, written) = emit_payloads(&payloads);
    let again = parse_payloads(first, &written).map(|again| emit_payloads(&again));
    assert_eq!(again, Ok((first, written)), "what was written is read back");
}
