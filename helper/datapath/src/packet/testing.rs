//! Packets for unit tests, with right lengths and checksums.

use std::net::SocketAddr;

use super::checksum::Sum;
use super::ip::{Ip, TCP, UDP, address_octets, set_total_len};

pub(crate) fn tcp(source: &str, destination: &str, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    tcp_with_options(source, destination, seq, flags, &[], payload)
}

pub(crate) fn tcp_with_options(
    source: &str,
    destination: &str,
    seq: u32,
    flags: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let (source, destination) = (addr(source), addr(destination));
    let mut l4 = Vec::new();
    l4.extend(source.port().to_be_bytes());
    l4.extend(destination.port().to_be_bytes());
    l4.extend(seq.to_be_bytes());
    l4.extend(77u32.to_be_bytes());
    l4.extend([(((20 + options.len()) / 4) << 4) as u8, flags, 0x20, 0, 0, 0, 0, 0]);
    l4.extend(options);
    l4.extend(payload);
    finish(source, destination, TCP, 16, &l4)
}

pub(crate) fn udp(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (addr(source), addr(destination));
    let mut l4 = Vec::new();
    l4.extend(source.port().to_be_bytes());
    l4.extend(destination.port().to_be_bytes());
    l4.extend(((8 + payload.len()) as u16).to_be_bytes());
    l4.extend([0, 0]);
    l4.extend(payload);
    finish(source, destination, UDP, 6, &l4)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn finish(
    source: SocketAddr,
    destination: SocketAddr,
    protocol: u8,
    checksum_at: usize,
    l4: &[u8],
) -> Vec<u8> {
    let mut packet = match (source, destination) {
        (SocketAddr::V4(s), SocketAddr::V4(d)) => {
            let mut ip = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0];
            ip.extend(s.ip().octets());
            ip.extend(d.ip().octets());
            ip
        }
        (SocketAddr::V6(s), SocketAddr::V6(d)) => {
            let mut ip = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            ip.extend(s.ip().octets());
            ip.extend(d.ip().octets());
            ip
        }
        _ => panic!("mixed families"),
    };
    let at = packet.len();
    packet.extend(l4);
    let len = packet.len();
    assert!(set_total_len(&mut packet, len));
    let checksum = Sum::default()
        .pseudo_header(address_octets(&packet), protocol, l4.len())
        .bytes(&packet[at..])
        .finish();
    packet[at + checksum_at..at + checksum_at + 2].copy_from_slice(&checksum);
    packet
}

/// Whether lengths and checksums of a TCP or UDP packet are right.
pub(crate) fn is_intact(packet: &[u8]) -> bool {
    let Some(ip) = Ip::parse(packet) else { return false };
    let l4 = &packet[ip.l4..];
    ip.total_len == packet.len()
        && (ip.is_v6() || Sum::default().bytes(&packet[..ip.l4]).is_intact())
        && (ip.protocol != UDP || usize::from(u16::from_be_bytes([l4[4], l4[5]])) == l4.len())
        && Sum::default().pseudo_header(address_octets(packet), ip.protocol, l4.len()).bytes(l4).is_intact()
}
