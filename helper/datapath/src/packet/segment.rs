//! Cutting a TCP or UDP super-packet into the packets it stands for, each written where it will be sealed: the one copy
//! its payload makes.

use super::checksum::Sum;
use super::ip::{Fragment, Ip, TCP, UDP, address_octets, set_total_len};
use super::vnet::Gso;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// How one super-packet is to be cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segmentation {
    kind: Gso,
    l4: usize,
    header_len: usize,
    size: usize,
    payload_len: usize,
}

impl Segmentation {
    /// Checks a super-packet against its vnet header; `None` when they do not agree.
    pub(crate) fn new(packet: &[u8], ip: &Ip, kind: Gso, size: usize) -> Option<Self> {
        let protocol = match kind {
            Gso::Tcp => TCP,
            Gso::Udp => UDP,
        };
        if ip.protocol != protocol || ip.fragment != Fragment::Whole || size == 0 {
            return None;
        }
        let l4_header = match kind {
            Gso::Tcp => usize::from(packet.get(ip.l4 + 12)? >> 4) * 4,
            Gso::Udp => 8,
        };
        let least = match kind {
            Gso::Tcp => 20,
            Gso::Udp => 8,
        };
        let header_len = ip.l4 + l4_header;
        let payload_len = ip.total_len.checked_sub(header_len)?;
        (l4_header >= least).then_some(Self { kind, l4: ip.l4, header_len, size, payload_len })
    }

    /// How many packets it makes.
    pub(crate) const fn count(&self) -> usize {
        if self.payload_len == 0 { 1 } else { self.payload_len.div_ceil(self.size) }
    }

    /// The length of the longest.
    pub(crate) const fn longest(&self) -> usize {
        self.header_len + if self.payload_len < self.size { self.payload_len } else { self.size }
    }

    /// The length of packet `index`.
    pub(crate) fn len(&self, index: usize) -> usize {
        self.header_len + self.size.min(self.payload_len.saturating_sub(index * self.size))
    }

    /// Writes packet `index` to the beginning of `out`, lengths, identification, sequence number, flags and checksums
    /// made right. Returns its length; `None` when `out` is too small or there is no such packet.
    pub(crate) fn write(&self, packet: &[u8], index: usize, out: &mut [u8]) -> Option<usize> {
        let len = self.len(index);
        let from = self.header_len + index * self.size;
        let payload = packet.get(from..from + (len - self.header_len))?;
        let out = out.get_mut(..len)?;
        let (header, body) = out.split_at_mut_checked(self.header_len)?;
        header.copy_from_slice(packet.get(..self.header_len)?);
        body.copy_from_slice(payload);

        if header.first()? >> 4 == 4 {
            let id: &mut [u8; 2] = header.get_mut(4..6)?.first_chunk_mut()?;
            *id = u16::from_be_bytes(*id).wrapping_add(index as u16).to_be_bytes();
        }
        if !set_total_len(header, len) {
            return None;
        }
        let l4_len = len - self.l4;
        let (protocol, checksum_at) = match self.kind {
            Gso::Tcp => (TCP, self.l4 + 16),
            Gso::Udp => (UDP, self.l4 + 6),
        };
        match self.kind {
            Gso::Tcp => {
                let seq: &mut [u8; 4] = header.get_mut(self.l4 + 4..)?.first_chunk_mut()?;
                *seq = u32::from_be_bytes(*seq).wrapping_add((index * self.size) as u32).to_be_bytes();
                let flags = header.get_mut(self.l4 + 13)?;
                if index + 1 < self.count() {
                    *flags &= !(FIN | PSH);
                }
                if index > 0 {
                    *flags &= !CWR;
                }
            }
            Gso::Udp => {
                header.get_mut(self.l4 + 4..self.l4 + 6)?.copy_from_slice(&(l4_len as u16).to_be_bytes());
            }
        }
        header.get_mut(checksum_at..checksum_at + 2)?.fill(0);
        let sum = Sum::default().pseudo_header(address_octets(header), protocol, l4_len);
        let mut checksum = sum.bytes(header.get(self.l4..)?).bytes(body).finish();
        if self.kind == Gso::Udp && checksum == [0, 0] {
            checksum = [0xff, 0xff];
        }
        header.get_mut(checksum_at..checksum_at + 2)?.copy_from_slice(&checksum);
        Some(len)
    }
}

/// Completes the checksum of one packet that the kernel left to us: the field holds the pseudo-header's sum.
#[must_use]
pub(crate) fn complete_checksum(packet: &mut [u8], start: usize, offset: usize) -> bool {
    let Some(covered) = packet.get(start..) else { return false };
    let mut checksum = Sum::default().bytes(covered).finish();
    let Some(field) = packet.get_mut(start + offset..).and_then(|rest| rest.first_chunk_mut::<2>()) else {
        return false;
    };
    // For UDP, which is the one with its field at 6, zero would mean "no checksum".
    if offset == 6 && checksum == [0, 0] {
        checksum = [0xff, 0xff];
    }
    *field = checksum;
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::{is_intact, tcp, udp};

    fn cut(packet: &[u8], kind: Gso, size: usize) -> Vec<Vec<u8>> {
        let ip = Ip::parse(packet).unwrap();
        let segmentation = Segmentation::new(packet, &ip, kind, size).unwrap();
        (0..segmentation.count())
            .map(|index| {
                let mut out = vec![0; 2000];
                let len = segmentation.write(packet, index, &mut out).unwrap();
                out.truncate(len);
                out
            })
            .collect()
    }

    #[test]
    fn tcp_segments_are_whole_packets_whose_payloads_make_the_original() {
        for (source, destination, l4) in
            [("10.0.0.1:5", "10.0.0.2:6", 20), ("[fd00::1]:5", "[fd00::2]:6", 40)]
        {
            let payload: Vec<u8> = (0..4001u32).map(|i| i as u8).collect();
            let packet = tcp(source, destination, u32::MAX - 1000, 0x19 | CWR, &payload);
            let segments = cut(&packet, Gso::Tcp, 1000);
            assert_eq!(segments.len(), 5);
            let mut joined: Vec<u8> = Vec::new();
            for (index, segment) in segments.iter().enumerate() {
                assert!(is_intact(segment));
                let seq = u32::from_be_bytes(segment[l4 + 4..l4 + 8].try_into().unwrap());
                assert_eq!(seq, (u32::MAX - 1000).wrapping_add(1000 * index as u32));
                let flags = segment[l4 + 13];
                assert_eq!(flags & (FIN | PSH) != 0, index == 4);
                assert_eq!(flags & CWR != 0, index == 0);
                joined.extend(&segment[l4 + 20..]);
            }
            assert_eq!(joined, payload);
        }
    }

    #[test]
    fn ipv4_identification_counts_up() {
        let packet = tcp("10.0.0.1:5", "10.0.0.2:6", 1, 0x10, &[0; 250]);
        let ids: Vec<_> =
            cut(&packet, Gso::Tcp, 100).iter().map(|s| u16::from_be_bytes([s[4], s[5]])).collect();
        assert_eq!(ids, [0x1234, 0x1235, 0x1236]);
    }

    #[test]
    fn udp_segments_are_whole_datagrams() {
        for (source, destination, l4) in
            [("10.0.0.1:5", "10.0.0.2:6", 20), ("[fd00::1]:5", "[fd00::2]:6", 40)]
        {
            let segments = cut(&udp(source, destination, &[7; 2500]), Gso::Udp, 1200);
            assert_eq!(segments.iter().map(|s| s.len() - l4 - 8).collect::<Vec<_>>(), [1200, 1200, 100]);
            assert!(segments.iter().all(|s| is_intact(s)));
        }
    }

    #[test]
    fn a_super_packet_that_is_not_what_its_header_says_is_refused() {
        let packet = udp("10.0.0.1:5", "10.0.0.2:6", &[7; 2500]);
        let ip = Ip::parse(&packet).unwrap();
        assert!(Segmentation::new(&packet, &ip, Gso::Tcp, 100).is_none());
        let mut packet = tcp("10.0.0.1:5", "10.0.0.2:6", 1, 0x10, &[0; 250]);
        packet[32] = 0xf0;
        let ip = Ip::parse(&packet).unwrap();
        let segmentation = Segmentation::new(&packet, &ip, Gso::Tcp, 100).unwrap();
        assert_eq!(segmentation.count(), 3, "60 octets of header leave 210");
        packet[32] = 0x40;
        assert!(Segmentation::new(&packet, &ip, Gso::Tcp, 100).is_none());
    }

    #[test]
    fn a_partial_checksum_is_completed() {
        let whole = tcp("10.0.0.1:5", "10.0.0.2:6", 1, 0x10, &[3; 99]);
        let mut packet = whole.clone();
        let partial = Sum::default().pseudo_header(address_octets(&packet), TCP, 20 + 99).partial();
        packet[36..38].copy_from_slice(&partial);
        assert!(complete_checksum(&mut packet, 20, 16));
        assert_eq!(packet, whole);
        assert!(!complete_checksum(&mut packet, 200, 16));
        assert!(!complete_checksum(&mut packet, 20, 400));
    }
}
