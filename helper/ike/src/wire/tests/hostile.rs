//! Input that no honest peer sends is an error of the right kind, and never a panic.

use proptest::collection::vec;
use proptest::prelude::*;

use super::strategies::{header, payload, payloads};
use crate::wire::fuzz;
use crate::wire::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_octets_are_read_without_panic(octets in vec(any::<u8>(), 0..400)) {
        fuzz::datagram(&octets);
        fuzz::decrypted_payloads(&octets);
    }

    #[test]
    fn any_octets_behind_a_valid_header_are_read_without_panic(header in header(), first: u8, rest in vec(any::<u8>(), 0..400)) {
        let mut datagram = Vec::new();
        Header { next_payload: first, ..header }.emit(28 + rest.len(), &mut datagram);
        datagram.extend_from_slice(&rest);
        fuzz::datagram(&datagram);
    }

    #[test]
    fn a_spoilt_message_is_read_without_panic(
        header in header(),
        payloads in payloads(),
        flips in vec((any::<prop::sample::Index>(), 0..8u8), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let valid = emit_message(&header, &payloads);
        let mut flipped = valid.clone();
        for (index, bit) in flips {
            flipped[index.index(valid.len())] ^= 1 << bit;
        }
        fuzz::datagram(&flipped);
        let shortened = &valid[..cut.index(valid.len())];
        prop_assert!(Message::parse(shortened).is_err());
        // The same with a length field that agrees, so that the payloads are reached.
        if shortened.len() >= 28 {
            let mut agreeing = shortened.to_vec();
            agreeing[24..28].copy_from_slice(&(shortened.len() as u32).to_be_bytes());
            fuzz::datagram(&agreeing);
        }
    }

    #[test]
    fn length_fields_of_zero_one_and_the_greatest_are_refused_or_read(
        payload in payload(),
        position in any::<prop::sample::Index>(),
        value in prop_oneof![Just(0u16), Just(1), Just(2), Just(3), Just(u16::MAX)],
    ) {
        let (first, mut octets) = emit_payloads(&[payload]);
        let at = position.index(octets.len() - 1);
        octets[at..at + 2].copy_from_slice(&value.to_be_bytes());
        let _ = parse_payloads(first, &octets);
        octets[2..4].copy_from_slice(&value.to_be_bytes());
        prop_assert!(parse_payloads(first, &octets).is_err());
    }

    #[test]
    fn a_chain_cut_anywhere_is_refused(payload in payload(), cut in any::<prop::sample::Index>()) {
        let (first, octets) = emit_payloads(&[payload]);
        prop_assert!(parse_payloads(first, &octets[..cut.index(octets.len())]).is_err());
    }
}

fn datagram(next_payload: u8, rest: &[u8]) -> Vec<u8> {
    let header = Header {
        spi_i: 1,
        spi_r: 2,
        next_payload,
        exchange: ExchangeType::Informational,
        flags: Flags::default(),
        message_id: 0,
    };
    let mut out = Vec::new();
    header.emit(28 + rest.len(), &mut out);
    out.extend_from_slice(rest);
    out
}

fn error(next_payload: u8, rest: &[u8]) -> WireError {
    Message::parse(&datagram(next_payload, rest)).unwrap_err()
}

#[test]
fn the_header_length_must_be_that_of_the_datagram() {
    let valid = datagram(0, &[]);
    assert!(Message::parse(&valid).is_ok());
    for stated in [0, 1, 27, 29, u32::MAX] {
        let mut wrong = valid.clone();
        wrong[24..28].copy_from_slice(&stated.to_be_bytes());
        assert_eq!(Message::parse(&wrong), Err(WireError::LengthMismatch { stated, actual: 28 }));
    }
    assert_eq!(Message::parse(&valid[..27]), Err(WireError::Truncated { what: "the IKE header" }));
}

#[test]
fn another_major_version_is_answered_so_and_a_minor_one_ignored() {
    let mut message = datagram(0, &[]);
    message[17] = 0x21;
    assert!(Message::parse(&message).is_ok());
    message[17] = 0x30;
    let error = Message::parse(&message).unwrap_err();
    assert_eq!(error, WireError::UnsupportedMajorVersion { major: 3 });
    assert_eq!(error.answer().0, NotifyType::InvalidMajorVersion);
    message[17] = 0x10;
    assert_eq!(Message::parse(&message), Err(WireError::UnsupportedMajorVersion { major: 1 }));
}

#[test]
fn the_initiator_spi_must_not_be_zero() {
    let mut message = datagram(0, &[]);
    message[..8].fill(0);
    assert_eq!(Message::parse(&message), Err(WireError::InitiatorSpiZero));
}

#[test]
fn a_request_outside_an_ike_sa_may_have_no_spis_and_nothing_else_may() {
    let header = |exchange, spi_r, response| Header {
        spi_i: 0,
        spi_r,
        next_payload: 0,
        exchange,
        flags: Flags { initiator: true, response, version: false },
        message_id: 0,
    };
    let parsed = |header: Header| Message::parse(&emit_message(&header, &[])).map(|_| ());
    assert_eq!(parsed(header(ExchangeType::Informational, 0, false)), Ok(()));
    for other in [
        header(ExchangeType::Informational, 7, false),
        header(ExchangeType::Informational, 0, true),
        header(ExchangeType::IkeSaInit, 0, false),
        Header { message_id: 1, ..header(ExchangeType::Informational, 0, false) },
    ] {
        assert_eq!(parsed(other), Err(WireError::InitiatorSpiZero), "{other:?}");
    }
}

#[test]
fn an_unknown_payload_is_kept_unless_critical() {
    let parsed = Message::parse(&datagram(200, &[0, 0x7F, 0, 5, 9])).unwrap();
    let unknown = UnknownPayload { payload_type: 200, critical: false, body: vec![9] };
    assert_eq!(parsed.payloads, [Payload::Unknown(unknown)]);
    let error = error(200, &[0, 0x80, 0, 5, 9]);
    assert_eq!(error, WireError::UnsupportedCriticalPayload { payload_type: 200 });
    assert_eq!(error.answer(), (NotifyType::UnsupportedCriticalPayload, vec![200]));
}

#[test]
fn the_critical_bit_of_a_known_payload_is_ignored() {
    let rest = [0, 0x80, 0, 8, 0, 0, 0x40, 0x0C];
    let parsed = Message::parse(&datagram(41, &rest)).unwrap();
    assert_eq!(parsed.payloads, [Payload::Notify(Notify::status(NotifyType::MobikeSupported))]);
}

#[test]
fn nothing_may_follow_the_encrypted_payload_or_the_last_one() {
    assert_eq!(error(46, &[41, 0, 0, 5, 1, 0, 0, 0, 8, 0, 0, 0x40, 0x0C]), WireError::AfterEncrypted);
    assert_eq!(error(0, &[1]), WireError::TrailingOctets);
    assert_eq!(error(43, &[0, 0, 0, 4, 1]), WireError::TrailingOctets);
}

#[test]
fn payloads_in_front_of_the_encrypted_one_are_read() {
    let rest = [46, 0, 0, 8, 0, 0, 0x40, 0x0C, 0, 0, 0, 7, 1, 2, 3];
    let parsed = Message::parse(&datagram(41, &rest)).unwrap();
    assert_eq!(parsed.payloads.len(), 1);
    let encrypted = parsed.encrypted.unwrap();
    assert_eq!((encrypted.body, encrypted.associated_length), (40..43, 40));
}

#[test]
fn encrypted_payloads_do_not_nest() {
    assert_eq!(parse_payloads(46, &[0, 0, 0, 4]), Err(WireError::NestedEncrypted));
    assert_eq!(parse_payloads(53, &[0, 0, 0, 8, 0, 1, 0, 1]), Err(WireError::NestedEncrypted));
}

#[test]
fn fragment_numbers_are_between_one_and_the_total() {
    for (number, total) in [(0, 0), (0, 2), (3, 2)] {
        assert_eq!(
            error(53, &[0, 0, 0, 8, 0, number, 0, total]),
            WireError::Malformed { what: "the fragment number" }
        );
    }
    assert_eq!(error(53, &[0, 0, 0, 6, 0, 1]), WireError::Truncated { what: "an Encrypted payload" });
}

#[test]
fn a_flood_of_payloads_is_refused() {
    let mut rest = [43, 0, 0, 4].repeat(10_000);
    let end = rest.len();
    rest[end - 4] = 0;
    assert_eq!(error(43, &rest), WireError::TooMany { what: "payloads", limit: 128 });
}

#[test]
fn a_flood_of_proposals_transforms_or_attributes_is_refused() {
    let mut proposals = [2, 0, 0, 8, 1, 1, 0, 0].repeat(65);
    proposals[64 * 8] = 0;
    assert_eq!(
        SecurityAssociation::parse(&proposals),
        Err(WireError::TooMany { what: "proposals", limit: 64 })
    );

    let transforms = [3, 0, 0, 8, 1, 0, 0, 12].repeat(129);
    let length = (8 + transforms.len()) as u16;
    let mut proposal = vec![0, 0, (length >> 8) as u8, length as u8, 1, 1, 0, 129];
    proposal.extend_from_slice(&transforms);
    assert_eq!(
        SecurityAssociation::parse(&proposal),
        Err(WireError::TooMany { what: "transforms", limit: 128 })
    );

    let attributes = [0x80, 0x0E, 0, 128].repeat(17);
    let length = 8 + attributes.len() as u8;
    let mut proposal = vec![0, 0, 0, 8 + length, 1, 1, 0, 1, 0, 0, 0, length, 1, 0, 0, 12];
    proposal.extend_from_slice(&attributes);
    let error = SecurityAssociation::parse(&proposal);
    assert_eq!(error, Err(WireError::TooMany { what: "transform attributes", limit: 16 }));

    let attributes = [&[2, 0, 0, 0][..], &[0x60, 0, 0, 0].repeat(513)].concat();
    let error = Configuration::parse(&attributes);
    assert_eq!(error, Err(WireError::TooMany { what: "configuration attributes", limit: 512 }));
}

#[test]
fn counts_of_proposals_and_transforms_must_agree_with_the_lengths() {
    // One transform announced, none there; none announced, one there; "more follows" without more; nothing at all.
    for body in [
        &[0, 0, 0, 8, 1, 1, 0, 1][..],
        &[0, 0, 0, 16, 1, 1, 0, 0, 0, 0, 0, 8, 1, 0, 0, 12],
        &[2, 0, 0, 8, 1, 1, 0, 0],
        &[0, 0, 0, 16, 1, 1, 0, 1, 3, 0, 0, 8, 1, 0, 0, 12],
        &[],
    ] {
        assert!(matches!(SecurityAssociation::parse(body), Err(WireError::Malformed { .. })), "{body:?}");
    }
    // Lengths of 0, 1 and 65535, of a proposal and of a transform.
    for length in [[0, 0], [0, 1], [0xFF, 0xFF]] {
        let [high, low] = length;
        assert!(SecurityAssociation::parse(&[0, 0, high, low, 1, 1, 0, 0]).is_err());
        let body = [0, 0, 0, 16, 1, 1, 0, 1, 0, 0, high, low, 1, 0, 0, 12];
        assert!(SecurityAssociation::parse(&body).is_err());
    }
}

#[test]
fn an_unknown_transform_attribute_marks_the_transform() {
    // A TV attribute 15, and a TLV attribute 14, which only has the other form.
    for attribute in [&[0x80, 15, 0, 1][..], &[0, 14, 0, 2, 0, 128]] {
        let length = 8 + attribute.len() as u8;
        let mut body = vec![0, 0, 0, 8 + length, 1, 1, 0, 1, 0, 0, 0, length, 1, 0, 0, 12];
        body.extend_from_slice(attribute);
        let sa = SecurityAssociation::parse(&body).unwrap();
        assert!(sa.proposals[0].transforms[0].unknown_attributes);
        assert_eq!(sa.proposals[0].transforms[0].key_length, None);
    }
}

#[test]
fn nonces_have_sixteen_to_256_octets() {
    for (length, fits) in [(0, false), (15, false), (16, true), (256, true), (257, false)] {
        assert_eq!(Nonce::parse(&vec![0; length]).is_ok(), fits, "{length}");
    }
}

#[test]
fn a_delete_payload_has_the_spis_it_announces() {
    assert!(Delete::parse(&[1, 0, 0, 0]).is_ok());
    for body in [
        &[1, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1][..],
        &[1, 0, 0, 1],
        &[3, 4, 0, 2, 0, 0, 0, 1],
        &[3, 4, 0xFF, 0xFF, 0, 0, 0, 1],
        &[3, 4, 0, 0, 0, 0, 0, 1],
        &[3, 0, 0, 1],
        &[9, 4, 0, 1, 0, 0, 0, 1],
    ] {
        assert!(Delete::parse(body).is_err(), "{body:?}");
    }
}

#[test]
fn traffic_selectors_out_of_order_are_refused_and_unknown_types_passed_over() {
    let backwards = [1, 0, 0, 0, 7, 0, 0, 16, 0, 0, 0xFF, 0xFF, 10, 0, 0, 2, 10, 0, 0, 1];
    assert!(TrafficSelectors::parse(&backwards).is_err());
    let ports_backwards = [1, 0, 0, 0, 7, 6, 0, 16, 0, 2, 0, 1, 10, 0, 0, 1, 10, 0, 0, 1];
    assert!(TrafficSelectors::parse(&ports_backwards).is_err());
    let wrong_length = [1, 0, 0, 0, 7, 0, 0, 17, 0, 0, 0xFF, 0xFF, 10, 0, 0, 1, 10, 0, 0, 1, 0];
    assert!(TrafficSelectors::parse(&wrong_length).is_err());
    let more_announced = [2, 0, 0, 0, 7, 0, 0, 16, 0, 0, 0xFF, 0xFF, 10, 0, 0, 1, 10, 0, 0, 1];
    assert!(TrafficSelectors::parse(&more_announced).is_err());
    let fibre_channel =
        [2, 0, 0, 0, 9, 0, 0, 9, 1, 2, 3, 4, 5, 7, 0, 0, 16, 0, 0, 0xFF, 0xFF, 10, 0, 0, 1, 10, 0, 0, 1];
    let read = TrafficSelectors::parse(&fibre_channel).unwrap();
    assert_eq!(read.selectors, [TrafficSelector::host([10, 0, 0, 1].into())]);
}

#[test]
fn configuration_attributes_have_the_length_of_their_type() {
    let parse = |attribute: &[u8]| Configuration::parse(&[&[2, 0, 0, 0], attribute].concat());
    assert!(parse(&[0, 1, 0, 3, 10, 0, 0]).is_err());
    assert!(parse(&[0, 1, 0xFF, 0xFF, 10, 0, 0, 1]).is_err());
    assert!(parse(&[0, 1, 0]).is_err());
    let long_prefix = [&[0, 8, 0, 17][..], &[0x20; 16], &[129]].concat();
    assert!(parse(&long_prefix).is_err());
    // The reserved bit of the type is ignored, and a missing prefix length means the whole address.
    let read = parse(&[&[0x80, 8, 0, 16][..], &[0x20; 16]].concat()).unwrap();
    assert_eq!(read.attributes, [Attribute::Ip6Address(Some(([0x20; 16].into(), 128)))]);
    let not_text = parse(&[0, 7, 0, 1, 0xFF]).unwrap();
    assert_eq!(not_text.attributes, [Attribute::Other { ty: 7, value: vec![0xFF] }]);
}

#[test]
fn what_does_not_fit_a_payload_is_cut_not_wrapped() {
    let (first, octets) = emit_payloads(&[Payload::VendorId(VendorId { data: vec![1; 70_000] })]);
    assert_eq!(octets.len(), 65_535);
    assert!(parse_payloads(first, &octets).is_ok());
}
