//! Requests of another major version (RFC 7296 section 2.5): only the fixed fields of their header can be understood.

use crate::wire::{Flags, Header, Notify, NotifyType, Payload, emit_message};

/// The answer to a request of a higher major version: INVALID_MAJOR_VERSION, with the highest version that is spoken here in
/// its own header. `initiator` is whether we began the IKE_SA. A response gets none. It is not protected, and the caller
/// sends it with moderation.
#[must_use]
pub fn refuse_version(datagram: &[u8], major: u8, initiator: bool) -> Option<Vec<u8>> {
    const FLAG_RESPONSE: u8 = 0x20;
    let (spi_i, rest) = datagram.split_first_chunk::<8>()?;
    let (spi_r, rest) = rest.split_first_chunk::<8>()?;
    let (&[_next, _version, exchange, bits], rest) = rest.split_first_chunk::<4>()?;
    let (message_id, _) = rest.split_first_chunk::<4>()?;
    if major < 2 || bits & FLAG_RESPONSE != 0 {
        return None;
    }
    let header = Header {
        spi_i: u64::from_be_bytes(*spi_i),
        spi_r: u64::from_be_bytes(*spi_r),
        next_payload: 0,
        exchange: exchange.into(),
        flags: Flags { initiator, response: true, version: false },
        message_id: u32::from_be_bytes(*message_id),
    };
    let notify = Payload::Notify(Notify::status(NotifyType::InvalidMajorVersion));
    Some(emit_message(&header, &[notify]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ExchangeType, Message, find_notify};

    #[test]
    fn a_request_of_version_3_is_answered_in_version_2_and_others_are_not() {
        let request = Header {
            spi_i: 1,
            spi_r: 2,
            next_payload: 0,
            exchange: ExchangeType::Informational,
            flags: Flags { initiator: true, response: false, version: false },
            message_id: 7,
        };
        let mut datagram = emit_message(&request, &[]);
        datagram[17] = 0x30;
        let answer = Message::parse(&refuse_version(&datagram, 3, false).unwrap()).unwrap();
        assert!(find_notify(&answer.payloads, NotifyType::InvalidMajorVersion).is_some());
        assert_eq!(answer.header.message_id, 7);
        assert_eq!(refuse_version(&datagram, 1, false), None);
        assert_eq!(refuse_version(&datagram[..23], 3, false), None);
        datagram[19] |= 0x20;
        assert_eq!(refuse_version(&datagram, 3, false), None, "a response");
    }
}
