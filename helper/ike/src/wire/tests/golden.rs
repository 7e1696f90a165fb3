//! Octets derived by hand from the documents, field by field, so that emitter and parser cannot be wrong together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::keep_old_ike_sa::{DEFAULT_NOTIFY_TYPE, KeepOldCode};
use crate::wire::*;

/// Emits a payload as the only one of a chain, expects these octets and this type, and reads them back.
fn check(payload: Payload, payload_type: u8, hex_text: &str) {
    let expected = hex::decode(hex_text.replace([' ', '\n'], "")).unwrap();
    let (first, octets) = emit_payloads(std::slice::from_ref(&payload));
    assert_eq!((first, hex::encode(&octets)), (payload_type, hex::encode(&expected)));
    assert_eq!(parse_payloads(first, &expected), Ok(vec![payload]));
}

fn check_notify(notify: Notify, hex_text: &str) {
    check(Payload::Notify(notify), 41, hex_text);
}

/// Figure 7 of the draft: protocol and SPI size zero, then Q and code. 50213 is C425.
#[test]
fn keep_old_ike_sa_of_a_request_has_the_question_bit() {
    let notify = KeepOldIkeSa::request().notify(DEFAULT_NOTIFY_TYPE);
    check_notify(notify, "00 00 000c  00 00 c425  80 00 0000");
}

#[test]
fn keep_old_ike_sa_of_a_response_has_no_question_bit() {
    check_notify(KeepOldIkeSa::kept().notify(50213), "00 00 000c  00 00 c425  00 00 0000");
    check_notify(KeepOldIkeSa::old_unused().notify(50213), "00 00 000c  00 00 c425  00 01 0000");
}

#[test]
fn keep_old_ike_sa_ignores_reserved_bits_and_refuses_other_lengths() {
    let read = KeepOldIkeSa::parse(&[0xFF, 0x07, 0xFF, 0xFF]).unwrap();
    assert_eq!(read, KeepOldIkeSa { request: true, code: KeepOldCode::Other(7) });
    assert!(KeepOldIkeSa::parse(&[0x80, 0, 0]).is_err());
    assert!(KeepOldIkeSa::parse(&[0x80, 0, 0, 0, 0]).is_err());
}

/// Section 3.2.1 of the draft: the 14 octets of the text, no terminator.
#[test]
fn the_vendor_id_of_multi_point_sa_is_its_text() {
    check(Payload::VendorId(VendorId::multi_point_sa()), 43, "00 00 0012  6d756c74692d706f696e74205341");
    assert!(VendorId { data: b"multi-point SA".to_vec() }.is_multi_point_sa());
    assert!(!VendorId { data: b"multi-point SA\0".to_vec() }.is_multi_point_sa());
}

/// Section 3.2.2: 40960 is A000.
#[test]
fn mpsa_put_has_its_number() {
    check_notify(Notify::new(NotifyType::MpsaPut, vec![0xAB]), "00 00 0009  00 00 a000  ab");
}

/// RFC 4555 section 4: numbers 16396 to 16402 and errors 40 and 41; protocol and SPI size are zero.
#[test]
fn mobike_notifies_have_their_octets() {
    let status = Notify::status;
    check_notify(status(NotifyType::MobikeSupported), "00 00 0008  00 00 400c");
    check_notify(
        Notify::additional_address(Ipv4Addr::new(192, 0, 2, 9).into()),
        "00 00 000c  00 00 400d  c0000209",
    );
    let v6: Ipv6Addr = "2001:db8::9".parse().unwrap();
    check_notify(
        Notify::additional_address(v6.into()),
        "00 00 0018  00 00 400e  20010db8 00000000 00000000 00000009",
    );
    check_notify(status(NotifyType::NoAdditionalAddresses), "00 00 0008  00 00 400f");
    check_notify(status(NotifyType::UpdateSaAddresses), "00 00 0008  00 00 4010");
    check_notify(
        Notify::new(NotifyType::Cookie2, vec![1, 2, 3, 4, 5, 6, 7, 8]),
        "00 00 0010 00 00 4011 0102030405060708",
    );
    check_notify(
        Notify::new(NotifyType::NoNatsAllowed, vec![0xC0, 0, 2, 1, 0xC0, 0, 2, 2, 1, 0xF4, 1, 0xF4]),
        "00 00 0014  00 00 4012  c0000201 c0000202 01f4 01f4",
    );
    check_notify(status(NotifyType::UnacceptableAddresses), "00 00 0008  00 00 0028");
    check_notify(status(NotifyType::UnexpectedNatDetected), "00 00 0008  00 00 0029");
}

/// RFC 7296 section 3.10.1 and the extensions' own registrations.
#[test]
fn other_notifies_have_their_octets() {
    check_notify(Notify::invalid_ke(31), "00 00 000a  00 00 0011  001f");
    check_notify(Notify::rekey_esp(0xC0FF_EE01), "00 00 000c  03 04 4009  c0ffee01");
    check_notify(Notify::status(NotifyType::UseTransportMode), "00 00 0008  00 00 4007");
    check_notify(Notify::new(NotifyType::Cookie, vec![0xAA; 4]), "00 00 000c  00 00 4006  aaaaaaaa");
    check_notify(
        Notify::new(NotifyType::NatDetectionSourceIp, vec![0x11; 20]),
        "00 00 001c  00 00 4004  11111111 11111111 11111111 11111111 11111111",
    );
    check_notify(Notify::status(NotifyType::NatDetectionDestinationIp), "00 00 0008  00 00 4005");
    check_notify(
        Notify::new(NotifyType::AuthLifetime, 3600u32.to_be_bytes().to_vec()),
        "00 00 000c  00 00 4013  00000e10",
    );
    check_notify(Notify::status(NotifyType::EapOnlyAuthentication), "00 00 0008  00 00 4021");
    check_notify(Notify::status(NotifyType::ChildlessIkev2Supported), "00 00 0008  00 00 4022");
    check_notify(Notify::status(NotifyType::QuickCrashDetection), "00 00 0008  00 00 4023");
    check_notify(Notify::status(NotifyType::IkeFragmentationSupported), "00 00 0008  00 00 402e");
    check_notify(Notify::signature_hash_algorithms(&[2, 3, 4]), "00 00 000e  00 00 402f  0002 0003 0004");
    check_notify(Notify::status(NotifyType::RedirectSupported), "00 00 0008  00 00 4016");
    check_notify(Notify::status(NotifyType::Redirect), "00 00 0008  00 00 4017");
    check_notify(Notify::status(NotifyType::RedirectedFrom), "00 00 0008  00 00 4018");
}

#[test]
fn the_data_of_notifies_is_read_by_meaning() {
    assert_eq!(Notify::invalid_ke(19).data_u16(), Some(19));
    assert_eq!(Notify::status(NotifyType::InvalidKePayload).data_u16(), None);
    assert_eq!(Notify::new(NotifyType::AuthLifetime, vec![0, 0, 0x0E, 0x10]).data_u32(), Some(3600));
    let hashes = Notify::new(NotifyType::SignatureHashAlgorithms, vec![0, 2, 0, 3, 9]);
    assert_eq!(hashes.data_u16_list().collect::<Vec<_>>(), [2, 3]);
    assert_eq!(Notify::rekey_esp(7).esp_spi(), Some(7));
    let address = IpAddr::from([192, 0, 2, 1]);
    assert_eq!(Notify::additional_address(address).address(), Some(address));
    assert_eq!(Notify::new(NotifyType::AdditionalIp4Address, vec![1, 2, 3]).address(), None);
    assert!(NotifyType::ChildSaNotFound.is_error() && NotifyType::Other(16383).is_error());
    assert!(!NotifyType::InitialContact.is_error() && !NotifyType::MpsaPut.is_error());
}

/// RFC 7296 section 3.3: one proposal of ESP, AES-GCM-16 with 256 bits, both kinds of sequence numbers.
#[test]
fn a_security_association_has_its_octets() {
    let transforms = vec![
        Transform::cipher(transform_id::ENCR_AES_GCM_16, Some(256)),
        Transform::new(TransformType::Esn, 1),
        Transform::new(TransformType::Esn, 0),
    ];
    let proposal =
        Proposal { number: 1, protocol: Protocol::Esp, spi: vec![0xDE, 0xAD, 0xBE, 0xEF], transforms };
    assert_eq!(proposal.esp_spi(), Some(0xDEAD_BEEF));
    let sa = SecurityAssociation { proposals: vec![proposal] };
    check(
        Payload::Sa(sa),
        33,
        "00 00 002c  00 00 0028 01 03 04 03 deadbeef
         03 00 000c 01 00 0014 800e 0100
         03 00 0008 05 00 0001
         00 00 0008 05 00 0000",
    );
}

/// Section 3.13: type 7, protocol, length 16; type 8 has 40 octets.
#[test]
fn traffic_selectors_have_their_octets() {
    let v4 = TrafficSelector::from_prefix(IpAddr::from([10, 1, 2, 3]), 8);
    let dhcp = TrafficSelector::any_v4().with_protocol(17, 67, 67).unwrap();
    check(
        Payload::TsR(TrafficSelectors::new(vec![v4, dhcp])),
        45,
        "00 00 0028  02 000000  07 00 0010 0000 ffff 0a000000 0affffff  07 11 0010 0043 0043 00000000 ffffffff",
    );
    check(
        Payload::TsI(TrafficSelectors::new(vec![TrafficSelector::any_v6()])),
        44,
        "00 00 0030  01 000000  08 00 0028 0000 ffff
         00000000 00000000 00000000 00000000 ffffffff ffffffff ffffffff ffffffff",
    );
}

/// Section 3.15: a request for any IPv4 address and DNS server; a reply.
#[test]
fn configuration_payloads_have_their_octets() {
    let attributes =
        vec![Attribute::InternalIp4Address(None), Attribute::Ip4Dns(None), Attribute::Ip6Address(None)];
    check(
        Payload::Cp(Configuration { ty: ConfigType::Request, attributes }),
        47,
        "00 00 0014  01 000000  0001 0000  0003 0000  0008 0000",
    );
    let attributes = vec![
        Attribute::InternalIp4Address(Some(Ipv4Addr::new(10, 0, 0, 2))),
        Attribute::Ip6Address(Some(("2001:db8::2".parse().unwrap(), 64))),
        Attribute::InternalDnsDomain("corp.example".to_owned()),
    ];
    check(
        Payload::Cp(Configuration { ty: ConfigType::Reply, attributes }),
        47,
        "00 00 0035  02 000000  0001 0004 0a000002
         0008 0011 20010db8 00000000 00000000 00000002 40
         0019 000c 636f72702e6578616d706c65",
    );
}

/// Sections 3.4 to 3.11 and 3.16.
#[test]
fn the_remaining_payloads_have_their_octets() {
    check(Payload::Ke(KeyExchange { group: 31, data: vec![0x55; 4] }), 34, "00 00 000c  001f 0000  55555555");
    check(Payload::IdI(Identification::fqdn("a.example")), 35, "00 00 0011  02 000000  612e6578616d706c65");
    check(
        Payload::IdR(Identification::address([192, 0, 2, 1].into())),
        36,
        "00 00 000c  01 000000  c0000201",
    );
    check(Payload::Cert(Certificate::x509(vec![0x30, 0x00])), 37, "00 00 0007  04  3000");
    check(
        Payload::CertReq(CertificateRequest::x509(&[[0xAB; 20]])),
        38,
        "00 00 0019  04  abababab abababab abababab abababab abababab",
    );
    let auth = Authentication { method: AuthMethod::DigitalSignature, data: vec![1, 2] };
    check(Payload::Auth(auth), 39, "00 00 000a  0e 000000  0102");
    check(Payload::Nonce(Nonce { data: vec![7; 16] }), 40, "00 00 0014  07070707 07070707 07070707 07070707");
    check(Payload::Delete(Delete::ike()), 42, "00 00 0008  01 00 0000");
    check(Payload::Delete(Delete::esp(vec![1, 0xCAFE])), 42, "00 00 0010  03 04 0002  00000001 0000cafe");
    check(Payload::Eap(EapMessage { data: vec![2, 1, 0, 5, 1] }), 48, "00 00 0009  02 01 0005 01");
}

/// Section 3.1: SPIs, next payload, version 2.0, exchange, flags, message id, length; two payloads that name each other.
#[test]
fn a_whole_message_has_its_octets() {
    let header = Header {
        spi_i: 0x0102_0304_0506_0708,
        spi_r: 0,
        next_payload: 0,
        exchange: ExchangeType::IkeSaInit,
        flags: Flags { initiator: true, response: false, version: false },
        message_id: 0,
    };
    let payloads = [
        Payload::Nonce(Nonce { data: vec![7; 16] }),
        Payload::Notify(Notify::status(NotifyType::MobikeSupported)),
    ];
    let datagram = emit_message(&header, &payloads);
    let expected = "0102030405060708 0000000000000000 28 20 22 08 00000000 00000038
        29 00 0014 07070707070707070707070707070707  00 00 0008 00 00 400c";
    assert_eq!(hex::encode(&datagram), expected.replace([' ', '\n'], ""));
}

/// RFC 7383 section 2.5: type 53, next payload, length, number and total; all of it is associated data.
#[test]
fn the_frame_of_a_fragment_has_its_octets() {
    let header = Header {
        spi_i: 1,
        spi_r: 2,
        next_payload: 0,
        exchange: ExchangeType::IkeAuth,
        flags: Flags { initiator: false, response: true, version: false },
        message_id: 1,
    };
    let kind = EncryptedKind::Skf { fragment_number: 2, total: 3 };
    let prefix = encrypted::emit_prefix(&header, kind, 0, 16);
    let expected = "0000000000000001 0000000000000002 35 20 23 20 00000001 00000034  00 00 0018 0002 0003";
    assert_eq!(hex::encode(&prefix), expected.replace(' ', ""));
    let prefix = encrypted::emit_prefix(&header, EncryptedKind::Sk, 36, 16);
    let expected = "0000000000000001 0000000000000002 2e 20 23 20 00000001 00000030  24 00 0014";
    assert_eq!(hex::encode(&prefix), expected.replace(' ', ""));
}

#[test]
fn what_a_notify_says_can_be_wiped() {
    use zeroize::Zeroize;
    let mut payload = Payload::Notify(Notify::new(NotifyType::Other(40_970), vec![7; 40]));
    payload.zeroize();
    assert!(matches!(payload, Payload::Notify(notify) if notify.data.is_empty()));
}
