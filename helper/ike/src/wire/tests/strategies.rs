//! Any payload that may be emitted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::wire::*;

pub(super) fn octets(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=max)
}

pub(super) fn header() -> impl Strategy<Value = Header> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (1..=u64::MAX, any::<u64>(), any::<u8>(), flags, any::<u32>()).prop_map(
        |(spi_i, spi_r, exchange, flags, id)| Header {
            spi_i,
            spi_r,
            next_payload: 0,
            exchange: exchange.into(),
            flags: Flags { initiator: flags.0, response: flags.1, version: flags.2 },
            message_id: id,
        },
    )
}

fn transform() -> impl Strategy<Value = Transform> {
    (any::<u8>(), any::<u16>(), option::of(any::<u16>())).prop_map(|(ty, id, key_length)| Transform {
        ty: ty.into(),
        id,
        key_length,
        unknown_attributes: false,
    })
}

fn proposal() -> impl Strategy<Value = Proposal> {
    (any::<u8>(), any::<u8>(), octets(16), vec(transform(), 0..12)).prop_map(
        |(number, protocol, spi, transforms)| Proposal { number, protocol: protocol.into(), spi, transforms },
    )
}

pub(super) fn sa() -> impl Strategy<Value = SecurityAssociation> {
    vec(proposal(), 1..5).prop_map(|proposals| SecurityAssociation { proposals })
}

pub(super) fn selector() -> impl Strategy<Value = TrafficSelector> {
    let v4 = (any::<Ipv4Addr>(), any::<Ipv4Addr>())
        .prop_map(|(a, b)| (IpAddr::from(a.min(b)), IpAddr::from(a.max(b))));
    let v6 = (any::<Ipv6Addr>(), any::<Ipv6Addr>())
        .prop_map(|(a, b)| (IpAddr::from(a.min(b)), IpAddr::from(a.max(b))));
    let ports = prop_oneof![
        Just((0, u16::MAX)),
        Just((u16::MAX, 0)),
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| (a.min(b), a.max(b))),
    ];
    let protocol = prop_oneof![Just(0), Just(6), Just(17), any::<u8>()];
    (protocol, ports, prop_oneof![v4, v6]).prop_map(|(protocol, (first, last), (start, end))| {
        TrafficSelector::new(protocol, first, last, start, end).unwrap()
    })
}

pub(super) fn selectors() -> impl Strategy<Value = TrafficSelectors> {
    vec(selector(), 0..6).prop_map(TrafficSelectors::new)
}

pub(super) fn notify() -> impl Strategy<Value = Notify> {
    (any::<u8>(), octets(8), any::<u16>(), octets(64)).prop_map(|(protocol, spi, ty, data)| Notify {
        protocol,
        spi,
        ty: ty.into(),
        data,
    })
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let v4 = || option::of(any::<Ipv4Addr>());
    let prefix = || option::of((any::<Ipv6Addr>(), 0..=128u8));
    prop_oneof![
        v4().prop_map(Attribute::InternalIp4Address),
        v4().prop_map(Attribute::Ip4Netmask),
        v4().prop_map(Attribute::Ip4Dns),
        option::of((any::<Ipv4Addr>(), any::<Ipv4Addr>())).prop_map(Attribute::Ip4Subnet),
        prefix().prop_map(Attribute::Ip6Address),
        prefix().prop_map(Attribute::Ip6Subnet),
        option::of(any::<Ipv6Addr>()).prop_map(Attribute::Ip6Dns),
        "[a-z.-]{0,40}".prop_map(Attribute::InternalDnsDomain),
        ".{0,20}".prop_map(Attribute::ApplicationVersion),
        (100u16..0x7FFF, octets(20)).prop_map(|(ty, value)| Attribute::Other { ty, value }),
    ]
}

fn configuration() -> impl Strategy<Value = Configuration> {
    (any::<u8>(), vec(attribute(), 0..10))
        .prop_map(|(ty, attributes)| Configuration { ty: ty.into(), attributes })
}

fn identification() -> impl Strategy<Value = Identification> {
    let other = (prop_oneof![Just(2u8), Just(3), Just(9), Just(11), 12..=u8::MAX], octets(40))
        .prop_map(|(ty, data)| Identification { ty: ty.into(), data });
    prop_oneof![any::<IpAddr>().prop_map(Identification::address), other]
}

fn delete() -> impl Strategy<Value = Delete> {
    prop_oneof![
        Just(Delete::ike()),
        vec(any::<u32>(), 0..8).prop_map(Delete::esp),
        vec(any::<u32>(), 0..8).prop_map(|spis| Delete { protocol: Protocol::Ah, spis }),
    ]
}

fn unknown() -> impl Strategy<Value = UnknownPayload> {
    (prop_oneof![1..=32u8, 60..=u8::MAX], octets(40)).prop_map(|(payload_type, body)| UnknownPayload {
        payload_type,
        critical: false,
        body,
    })
}

pub(super) fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        sa().prop_map(Payload::Sa),
        (any::<u16>(), octets(96)).prop_map(|(group, data)| Payload::Ke(KeyExchange { group, data })),
        identification().prop_map(Payload::IdI),
        identification().prop_map(Payload::IdR),
        (any::<u8>(), octets(80))
            .prop_map(|(kind, data)| Payload::Cert(Certificate { encoding: kind.into(), data })),
        (any::<u8>(), octets(80)).prop_map(|(kind, authorities)| {
            Payload::CertReq(CertificateRequest { encoding: kind.into(), authorities })
        }),
        (any::<u8>(), octets(80))
            .prop_map(|(method, data)| Payload::Auth(Authentication { method: method.into(), data })),
        vec(any::<u8>(), 16..=256).prop_map(|data| Payload::Nonce(Nonce { data })),
        notify().prop_map(Payload::Notify),
        delete().prop_map(Payload::Delete),
        octets(40).prop_map(|data| Payload::VendorId(VendorId { data })),
        selectors().prop_map(Payload::TsI),
        selectors().prop_map(Payload::TsR),
        configuration().prop_map(Payload::Cp),
        vec(any::<u8>(), 4..80).prop_map(|data| Payload::Eap(EapMessage { data })),
        unknown().prop_map(Payload::Unknown),
    ]
}

pub(super) fn payloads() -> impl Strategy<Value = Vec<Payload>> {
    vec(payload(), 0..8)
}
