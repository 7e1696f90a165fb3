//! The headers around a DHCP message on its way through an SA: IPv4 (RFC 791) and UDP (RFC 768), made and read here because
//! no socket of the system sends from an address that is not configured.

use std::net::{Ipv4Addr, SocketAddrV4};

const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;
const TIME_TO_LIVE: u8 = 64;

/// A UDP datagram that came out of an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Whence.
    pub source: SocketAddrV4,
    /// Whither.
    pub destination: SocketAddrV4,
    /// What.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// The whole packet. `None` when the payload is longer than a packet can be.
    #[must_use]
    pub fn packet(&self) -> Option<Vec<u8>> {
        let udp_len = u16::try_from(UDP_HEADER + self.payload.len()).ok()?;
        let total_len = u16::try_from(IPV4_HEADER + UDP_HEADER + self.payload.len()).ok()?;
        let mut ip = [0; IPV4_HEADER];
        let fields: [&[u8]; 7] = [
            &[0x45, 0],
            &total_len.to_be_bytes(),
            // Identification, no flags, no offset: it is whole.
            &[0; 4],
            &[TIME_TO_LIVE, UDP],
            &[0; 2],
            &self.source.ip().octets(),
            &self.destination.ip().octets(),
        ];
        for (to, from) in ip.iter_mut().zip(fields.concat()) {
            *to = from;
        }
        let mut packet = Vec::with_capacity(usize::from(total_len));
        packet.extend(ip);
        if let Some(checksum) = packet.get_mut(10..12) {
            checksum.copy_from_slice(&(!sum(&[&ip])).to_be_bytes());
        }
        let [source, destination] = [self.source.port(), self.destination.port()].map(u16::to_be_bytes);
        let head = [source, destination, udp_len.to_be_bytes()].concat();
        let pseudo = self.pseudo_header(udp_len);
        // Zero would say that there is none (RFC 768).
        let checksum = match !sum(&[&pseudo, &head, self.payload]) {
            0 => u16::MAX,
            checksum => checksum,
        };
        packet.extend(head);
        packet.extend(checksum.to_be_bytes());
        packet.extend(self.payload);
        Some(packet)
    }

    /// Reads a packet. `None` when it is no whole UDP datagram over IPv4, or a checksum is wrong.
    #[must_use]
    pub fn read(packet: &'a [u8]) -> Option<Self> {
        let [first, _, len_high, len_low, _, _, frag_high, frag_low, _, protocol, ..] =
            *packet.first_chunk::<IPV4_HEADER>()?;
        let header_len = usize::from(first & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([len_high, len_low]));
        let fragment = u16::from_be_bytes([frag_high, frag_low]) & 0x3fff;
        if first >> 4 != 4 || header_len < IPV4_HEADER || protocol != UDP || fragment != 0 {
            return None;
        }
        let (header, rest) = packet.get(..total_len)?.split_at_checked(header_len)?;
        if sum(&[header]) != u16::MAX {
            return None;
        }
        let [s0, s1, s2, s3, d0, d1, d2, d3] = *header.get(12..20)?.first_chunk::<8>()?;
        let [p0, p1, q0, q1, l0, l1, c0, c1] = *rest.first_chunk::<UDP_HEADER>()?;
        let udp_len = u16::from_be_bytes([l0, l1]);
        let udp = rest.get(..usize::from(udp_len))?;
        let datagram = Self {
            source: SocketAddrV4::new(Ipv4Addr::new(s0, s1, s2, s3), u16::from_be_bytes([p0, p1])),
            destination: SocketAddrV4::new(Ipv4Addr::new(d0, d1, d2, d3), u16::from_be_bytes([q0, q1])),
            payload: udp.get(UDP_HEADER..)?,
        };
        let unchecked = [c0, c1] == [0, 0];
        (unchecked || sum(&[&datagram.pseudo_header(udp_len), udp]) == u16::MAX).then_some(datagram)
    }

    fn pseudo_header(&self, udp_len: u16) -> [u8; 12] {
        let [s0, s1, s2, s3] = self.source.ip().octets();
        let [d0, d1, d2, d3] = self.destination.ip().octets();
        let [l0, l1] = udp_len.to_be_bytes();
        [s0, s1, s2, s3, d0, d1, d2, d3, 0, UDP, l0, l1]
    }
}

/// The one's complement sum (RFC 1071). All parts but the last have an even number of octets.
fn sum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2)).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn datagram(payload: &[u8]) -> Datagram<'_> {
        Datagram {
            source: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68),
            destination: SocketAddrV4::new(Ipv4Addr::BROADCAST, 67),
            payload,
        }
    }

    /// The checksums were computed with Python's own arithmetic, not with this code.
    #[test]
    fn headers_are_octet_by_octet_as_the_standards_say() {
        let packet = datagram(b"abc").packet().unwrap();
        let expected = [
            0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0x7a, 0xcf, 0, 0, 0, 0, 255, 255, 255, 255, //
            0, 68, 0, 67, 0, 11, 0x3a, 0xef, b'a', b'b', b'c',
        ];
        assert_eq!(packet, expected);
    }

    #[test]
    fn what_is_not_whole_or_not_intact_is_not_read() {
        let packet = datagram(b"discover").packet().unwrap();
        assert_eq!(Datagram::read(&packet), Some(datagram(b"discover")));
        for at in 0..packet.len() {
            let mut broken = packet.clone();
            broken[at] ^= 0x10;
            assert_ne!(Datagram::read(&broken), Some(datagram(b"discover")), "octet {at}");
            assert_eq!(Datagram::read(&packet[..at]), None);
        }
        let mut unchecked = packet.clone();
        unchecked[26..28].fill(0);
        assert_eq!(Datagram::read(&unchecked), Some(datagram(b"discover")));
    }

    proptest! {
        #[test]
        fn what_is_made_is_read(payload in proptest::collection::vec(any::<u8>(), 0..700)) {
            let packet = datagram(&payload).packet().unwrap();
            prop_assert_eq!(Datagram::read(&packet), Some(datagram(&payload)));
        }

        #[test]
        fn nothing_makes_the_reader_panic(packet in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Datagram::read(&packet);
        }
    }
}
