//! Rules about octets that the tables of `docs/conformance/` name.

use crate::wire::*;

/// Octets of a message whose payloads have all the reserved fields of the standard, and where these fields are.
fn message() -> Vec<u8> {
    let header = Header {
        spi_i: 1,
        spi_r: 2,
        next_payload: 0,
        exchange: ExchangeType::Informational,
        flags: Flags { initiator: true, response: false, version: false },
        message_id: 0,
    };
    let transforms = vec![
        Transform::cipher(transform_id::ENCR_AES_GCM_16, Some(256)),
        Transform::new(TransformType::Esn, 0),
    ];
    let proposal = Proposal { number: 1, protocol: Protocol::Esp, spi: vec![1, 2, 3, 4], transforms };
    let payloads = [
        Payload::Sa(SecurityAssociation { proposals: vec![proposal] }),
        Payload::Ke(KeyExchange { group: 31, data: vec![0x55; 4] }),
        Payload::IdI(Identification::fqdn("a.example")),
        Payload::Auth(Authentication { method: AuthMethod::SharedKey, data: vec![1, 2] }),
        Payload::TsI(TrafficSelectors::new(vec![TrafficSelector::any_v4()])),
        Payload::Cp(Configuration {
            ty: ConfigType::Request,
            attributes: vec![Attribute::InternalIp4Address(None)],
        }),
    ];
    emit_message(&header, &payloads)
}

/// Offsets and masks of reserved bits, by the figures of RFC 7296 sections 3.1 to 3.15.
fn reserved(message: &[u8]) -> Vec<(usize, u8)> {
    let mut places = vec![(19, 0xC7)];
    let mut at = 28;
    // Behind the generic header of SA, KE, IDi, AUTH, TSi and CP.
    let inside: [&[(usize, u8)]; 6] = [
        // Proposal; two transforms, of 12 and 8 octets, behind its 12.
        &[(5, 0xFF), (17, 0xFF), (21, 0xFF), (29, 0xFF), (33, 0xFF)],
        &[(6, 0xFF), (7, 0xFF)],
        &[(5, 0xFF), (6, 0xFF), (7, 0xFF)],
        &[(5, 0xFF), (6, 0xFF), (7, 0xFF)],
        &[(5, 0xFF), (6, 0xFF), (7, 0xFF)],
        &[(5, 0xFF), (6, 0xFF), (7, 0xFF), (8, 0x80)],
    ];
    for fields in inside {
        places.push((at + 1, 0x7F));
        places.extend(fields.iter().map(|(offset, mask)| (at + offset, *mask)));
        at += usize::from(u16::from_be_bytes([message[at + 2], message[at + 3]]));
    }
    assert_eq!(at, message.len());
    places
}

#[test]
fn reserved_fields_are_zero_when_sent() {
    let message = message();
    for (at, mask) in reserved(&message) {
        assert_eq!(message[at] & mask, 0, "octet {at}");
    }
}

#[test]
fn reserved_fields_are_ignored_when_received() {
    let message = message();
    let honest = Message::parse(&message).unwrap();
    for (at, mask) in reserved(&message) {
        let mut other = message.clone();
        other[at] |= mask;
        assert_eq!(Message::parse(&other).as_ref(), Ok(&honest), "octet {at}");
    }
}

#[test]
fn a_transform_with_two_attributes_of_one_type_is_marked() {
    let body =
        [&[0, 0, 0, 24, 1, 1, 0, 1, 0, 0, 0, 16, 1, 0, 0, 20][..], &[0x80, 14, 1, 0, 0x80, 14, 0, 128]]
            .concat();
    let sa = SecurityAssociation::parse(&body).unwrap();
    assert!(sa.proposals[0].transforms[0].unknown_attributes, "never chosen");
}

#[test]
fn no_payload_of_ours_is_critical() {
    let message = message();
    let mut at = 28;
    while at < message.len() {
        assert_eq!(message[at + 1] & 0x80, 0);
        at += usize::from(u16::from_be_bytes([message[at + 2], message[at + 3]]));
    }
}

#[test]
fn eap_success_and_failure_are_four_octets() {
    use crate::eap::EapPacket;
    for (packet, code) in [(EapPacket::success(9), 3), (EapPacket::failure(9), 4)] {
        let (_, octets) = emit_payloads(&[Payload::Eap(EapMessage { data: packet.emit() })]);
        assert_eq!(octets, [0, 0, 0, 8, code, 9, 0, 4], "the payload's length is four more");
    }
}
