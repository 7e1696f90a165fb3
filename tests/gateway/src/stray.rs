//! Answers to messages that belong to no client here. They are not protected, so what the receiver makes of them is a hint
//! to it at most, and the caller sends them with moderation.

use ropewalk_ike::exchange::IkeSpis;
use ropewalk_ike::exchange::crash::TokenMaker;
use ropewalk_ike::wire::{ExchangeType, Flags, Header, Notify, NotifyType, Payload, emit_message};

/// The answer to a request for an IKE_SA that does not exist, as after a restart (RFC 7296 section 2.21.4). A response
/// gets none, and INVALID_SPI without SPIs neither. With the token that was given out before, it proves that the IKE_SA is gone (RFC 6290).
#[must_use]
pub fn unknown_spi(header: Header, tokens: Option<&TokenMaker>) -> Option<Vec<u8>> {
    if header.flags.response || header.spi_i == 0 {
        return None;
    }
    let flags = Flags { initiator: !header.flags.initiator, response: true, version: false };
    let mut payloads = vec![Payload::Notify(Notify::status(NotifyType::InvalidIkeSpi))];
    let spis = IkeSpis { initiator: header.spi_i, responder: header.spi_r };
    payloads.extend(tokens.map(|tokens| Payload::Notify(tokens.notify(spis))));
    Some(emit_message(&Header { flags, ..header }, &payloads))
}

/// What is said to whoever sends ESP with an SPI of ours that no CHILD_SA has, as after a restart (RFC 7296 section 1.5).
/// There are no IKE SPIs that would mean anything to the receiver.
#[must_use]
pub fn invalid_spi(spi: u32) -> Vec<u8> {
    let flags = Flags { initiator: true, response: false, version: false };
    let exchange = ExchangeType::Informational;
    let header = Header { spi_i: 0, spi_r: 0, next_payload: 0, exchange, flags, message_id: 0 };
    let notify = Notify::new(NotifyType::InvalidSpi, spi.to_be_bytes().to_vec());
    emit_message(&header, &[Payload::Notify(notify)])
}

/// The answer to a request of a higher major version (RFC 7296 section 2.5), of which only the header's fixed fields can
/// be understood.
#[must_use]
pub fn other_version(datagram: &[u8], major: u8) -> Option<Vec<u8>> {
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
        flags: Flags { initiator: false, response: true, version: false },
        message_id: u32::from_be_bytes(*message_id),
    };
    let notify = Payload::Notify(Notify::status(NotifyType::InvalidMajorVersion));
    Some(emit_message(&header, &[notify]))
}

#[cfg(test)]
mod tests {
    use ropewalk_ike::wire::{Message, find_notify};

    use super::*;

    fn request() -> Header {
        Header {
            spi_i: 1,
            spi_r: 2,
            next_payload: 0,
            exchange: ExchangeType::Informational,
            flags: Flags { initiator: true, response: false, version: false },
            message_id: 7,
        }
    }

    #[test]
    fn a_request_for_an_unknown_ike_sa_is_told_so_and_a_response_is_not() {
        let answer = Message::parse(&unknown_spi(request(), None).unwrap()).unwrap();
        assert!(find_notify(&answer.payloads, NotifyType::InvalidIkeSpi).is_some());
        assert_eq!((answer.header.spi_i, answer.header.spi_r, answer.header.message_id), (1, 2, 7));
        assert!(answer.header.flags.response && !answer.header.flags.initiator);
        let flags = Flags { response: true, ..request().flags };
        assert_eq!(unknown_spi(Header { flags, ..request() }, None), None);
        assert_eq!(unknown_spi(Message::parse(&invalid_spi(1)).unwrap().header, None), None);
    }

    #[test]
    fn an_unknown_esp_spi_is_named_in_a_request_without_spis() {
        let said = Message::parse(&invalid_spi(0x0102_0304)).unwrap();
        let notify = find_notify(&said.payloads, NotifyType::InvalidSpi).unwrap();
        assert_eq!(notify.data, [1, 2, 3, 4]);
        assert_eq!((said.header.spi_i, said.header.spi_r), (0, 0));
        assert!(said.header.flags.initiator && !said.header.flags.response);
    }

    #[test]
    fn a_request_of_version_3_is_answered_in_version_2_and_others_are_not() {
        let mut datagram = emit_message(&request(), &[]);
        datagram[17] = 0x30;
        let answer = Message::parse(&other_version(&datagram, 3).unwrap()).unwrap();
        assert!(find_notify(&answer.payloads, NotifyType::InvalidMajorVersion).is_some());
        assert_eq!(answer.header.message_id, 7);
        assert_eq!(other_version(&datagram, 1), None);
        assert_eq!(other_version(&datagram[..23], 3), None);
        datagram[19] |= 0x20;
        assert_eq!(other_version(&datagram, 3), None, "a response");
    }
}
