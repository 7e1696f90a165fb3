//! A checked view of an inner packet's headers, as far as the pump looks at them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
const SCTP: u8 = 132;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// What kind of fragment a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fragment {
    /// None: a whole packet.
    Whole,
    /// The first: it shows the ports.
    First,
    /// A later one.
    Later,
}

/// What an IP packet's headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// The upper layer's protocol, behind IPv6 extension headers.
    pub(crate) protocol: u8,
    /// Where the upper layer begins.
    pub(crate) l4: usize,
    /// The packet's own length, which may be less than the buffer's.
    pub(crate) total_len: usize,
    /// TOS or traffic class: DSCP and ECN.
    pub(crate) tos: u8,
    pub(crate) fragment: Fragment,
    /// IPv4's flag; always set for IPv6, which routers do not fragment.
    pub(crate) dont_fragment: bool,
    /// No IPv4 options, no IPv6 extension headers.
    pub(crate) plain: bool,
}

impl Ip {
    /// Reads the headers. `None` when they are not those of an IPv4 or IPv6 packet that is wholly there.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }
    }

    fn parse_v4(packet: &[u8]) -> Option<Self> {
        let header: &[u8; 20] = packet.first_chunk()?;
        let [first, tos, len_hi, len_lo, _, _, frag_hi, frag_lo, _, protocol, _, _, addresses @ ..] = *header;
        let l4 = usize::from(first & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([len_hi, len_lo]));
        if l4 < 20 || total_len < l4 || packet.len() < total_len {
            return None;
        }
        let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
        let frag = u16::from_be_bytes([frag_hi, frag_lo]);
        let fragment = match (frag & 0x1fff, frag & 0x2000) {
            (0, 0) => Fragment::Whole,
            (0, _) => Fragment::First,
            (_, _) => Fragment::Later,
        };
        Some(Self {
            source: Ipv4Addr::new(s0, s1, s2, s3).into(),
            destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
            protocol,
            l4,
            total_len,
            tos,
            fragment,
            dont_fragment: frag & 0x4000 != 0,
            plain: l4 == 20,
        })
    }

    fn parse_v6(packet: &[u8]) -> Option<Self> {
        let (header, _) = packet.split_first_chunk::<40>()?;
        let [b0, b1, _, _, len_hi, len_lo, next, _, ..] = *header;
        let total_len = 40 + usize::from(u16::from_be_bytes([len_hi, len_lo]));
        if packet.len() < total_len {
            return None;
        }
        let (_, addresses) = header.split_last_chunk::<32>()?;
        let (source, destination) = addresses.split_first_chunk::<16>()?;
        let destination: &[u8; 16] = destination.first_chunk()?;
        let mut ip = Self {
            source: Ipv6Addr::from(*source).into(),
            destination: Ipv6Addr::from(*destination).into(),
            protocol: next,
            l4: 40,
            total_len,
            tos: (b0 << 4) | (b1 >> 4),
            fragment: Fragment::Whole,
            dont_fragment: true,
            plain: true,
        };
        // Hop-by-hop, routing, destination options (RFC 8200 4). The loop ends, for each turn moves on by 8 at least.
        while ip.fragment != Fragment::Later && matches!(ip.protocol, 0 | 43 | 44 | 60) {
            let [next, len, frag_hi, frag_lo, ..] = *packet.get(ip.l4..total_len)?.first_chunk::<8>()?;
            ip.plain = false;
            if ip.protocol == 44 {
                let frag = u16::from_be_bytes([frag_hi, frag_lo]);
                ip.fragment = match (frag & 0xfff8, frag & 1) {
                    (0, 0) => Fragment::Whole,
                    (0, _) => Fragment::First,
                    (_, _) => Fragment::Later,
                };
                ip.l4 += 8;
            } else {
                ip.l4 += (usize::from(len) + 1) * 8;
            }
            ip.protocol = next;
        }
        (ip.l4 <= total_len).then_some(ip)
    }

    pub(crate) const fn is_v6(&self) -> bool {
        self.source.is_ipv6()
    }

    /// Source and destination port, when the packet shows them.
    pub(crate) fn ports(&self, packet: &[u8]) -> Option<(u16, u16)> {
        if self.fragment == Fragment::Later || !matches!(self.protocol, TCP | UDP | SCTP) {
            return None;
        }
        let [s0, s1, d0, d1] = *packet.get(self.l4..self.total_len)?.first_chunk::<4>()?;
        Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
    }
}

/// The octets of both addresses, for a pseudo-header; empty when there are none.
pub(crate) fn address_octets(packet: &[u8]) -> &[u8] {
    let range = match packet.first().map(|first| first >> 4) {
        Some(4) => 12..20,
        _ => 8..40,
    };
    packet.get(range).unwrap_or_default()
}

/// The length in the IP header becomes `total_len`, and the IPv4 header checksum right. `false` when there is no header.
#[must_use]
pub(crate) fn set_total_len(packet: &mut [u8], total_len: usize) -> bool {
    let Some(first) = packet.first().copied() else { return false };
    if first >> 4 == 6 {
        let Some(field) = packet.get_mut(4..6) else { return false };
        field.copy_from_slice(&(total_len.saturating_sub(40) as u16).to_be_bytes());
        return true;
    }
    let Some(field) = packet.get_mut(2..4) else { return false };
    field.copy_from_slice(&(total_len as u16).to_be_bytes());
    renew_v4_checksum(packet)
}

/// Computes the IPv4 header checksum anew.
#[must_use]
pub(crate) fn renew_v4_checksum(packet: &mut [u8]) -> bool {
    let header_len = usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4;
    let Some(header) = packet.get_mut(..header_len) else { return false };
    let Some(field) = header.get_mut(10..12) else { return false };
    field.fill(0);
    let checksum = super::checksum::Sum::default().bytes(header).finish();
    let Some(field) = header.get_mut(10..12) else { return false };
    field.copy_from_slice(&checksum);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::{tcp, udp};
    use proptest::prelude::*;

    #[test]
    fn headers_of_both_families_are_read() {
        let packet = tcp("10.0.0.1:1000", "10.0.0.2:80", 7, 0x10, &[1, 2, 3]);
        let ip = Ip::parse(&packet).unwrap();
        assert_eq!((ip.protocol, ip.l4, ip.total_len), (TCP, 20, packet.len()));
        assert_eq!(ip.ports(&packet), Some((1000, 80)));
        let packet = udp("[fd00::1]:53", "[fd00::2]:1053", &[0; 10]);
        let ip = Ip::parse(&packet).unwrap();
        assert_eq!((ip.protocol, ip.l4, ip.is_v6(), ip.plain), (UDP, 40, true, true));
        assert_eq!(ip.ports(&packet), Some((53, 1053)));
        assert_eq!(ip.source, "fd00::1".parse::<IpAddr>().unwrap());
        assert_eq!(ip.destination, "fd00::2".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn extension_headers_are_stepped_over_and_later_fragments_show_no_ports() {
        let inner = udp("[fd00::1]:53", "[fd00::2]:1053", &[0; 10]);
        let mut packet = inner[..40].to_vec();
        packet[6] = 0;
        packet.extend([44, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend([17, 0, 0, 1, 0, 0, 0, 9]);
        packet.extend(&inner[40..]);
        packet[4..6].copy_from_slice(&34u16.to_be_bytes());
        let ip = Ip::parse(&packet).unwrap();
        assert_eq!((ip.protocol, ip.l4, ip.fragment, ip.plain), (UDP, 56, Fragment::First, false));
        assert_eq!(ip.ports(&packet), Some((53, 1053)));
        packet[51] = 9;
        let ip = Ip::parse(&packet).unwrap();
        assert_eq!((ip.fragment, ip.ports(&packet)), (Fragment::Later, None));
    }

    #[test]
    fn a_length_beyond_the_buffer_is_no_packet() {
        let packet = tcp("10.0.0.1:1000", "10.0.0.2:80", 7, 0x10, &[1, 2, 3]);
        assert!(Ip::parse(&packet[..packet.len() - 1]).is_none());
        assert!(Ip::parse(&[]).is_none());
        assert!(Ip::parse(&[0x50; 60]).is_none());
    }

    proptest! {
        #[test]
        fn arbitrary_octets_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), v6: bool) {
            if let Some(first) = bytes.first_mut() {
                *first = if v6 { 0x60 } else { 0x45 };
            }
            if let Some(ip) = Ip::parse(&bytes) {
                prop_assert!(ip.l4 <= ip.total_len && ip.total_len <= bytes.len());
                let _ = ip.ports(&bytes);
            }
            let _ = set_total_len(&mut bytes, 70);
        }
    }
}
