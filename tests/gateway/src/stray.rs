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
}
