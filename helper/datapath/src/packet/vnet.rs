//! `struct virtio_net_hdr`, which stands before every packet of a device opened with `IFF_VNET_HDR` and tells about
//! checksums and segments. Its fields are in the machine's byte order.

/// Octets of the header.
pub(crate) const VNET_LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What a super-packet is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gso {
    Tcp,
    Udp,
}

/// The header, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vnet {
    /// Where the sum starts and where, from there, the checksum goes, when the checksum is still to be computed.
    pub(crate) checksum: Option<(usize, usize)>,
    /// The kind of segments and the octets of payload in each, for a super-packet.
    pub(crate) gso: Option<(Gso, usize)>,
}

impl Vnet {
    /// Reads a header; `None` for a kind that was not asked for.
    pub(crate) fn parse(header: &[u8; VNET_LEN]) -> Option<Self> {
        let [flags, gso_type, _, _, size0, size1, start0, start1, offset0, offset1] = *header;
        let size = usize::from(u16::from_ne_bytes([size0, size1]));
        let gso = match gso_type & !GSO_ECN {
            GSO_NONE => None,
            GSO_TCPV4 | GSO_TCPV6 => Some((Gso::Tcp, size)),
            GSO_UDP_L4 => Some((Gso::Udp, size)),
            _ => return None,
        };
        let checksum = (flags & NEEDS_CSUM != 0).then(|| {
            (
                usize::from(u16::from_ne_bytes([start0, start1])),
                usize::from(u16::from_ne_bytes([offset0, offset1])),
            )
        });
        (gso.is_none_or(|(_, size)| size > 0 && checksum.is_some())).then_some(Self { checksum, gso })
    }

    /// The header of a super-packet whose checksum field holds the pseudo-header's sum.
    pub(crate) fn super_packet(
        kind: Gso,
        is_v6: bool,
        header_len: usize,
        size: usize,
        l4: usize,
    ) -> [u8; VNET_LEN] {
        let (gso_type, offset) = match (kind, is_v6) {
            (Gso::Tcp, false) => (GSO_TCPV4, 16u16),
            (Gso::Tcp, true) => (GSO_TCPV6, 16),
            (Gso::Udp, _) => (GSO_UDP_L4, 6),
        };
        let [h0, h1] = (header_len as u16).to_ne_bytes();
        let [s0, s1] = (size as u16).to_ne_bytes();
        let [c0, c1] = (l4 as u16).to_ne_bytes();
        let [o0, o1] = offset.to_ne_bytes();
        [NEEDS_CSUM, gso_type, h0, h1, s0, s1, c0, c1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let header = Vnet::super_packet(Gso::Tcp, true, 72, 1348, 40);
        assert_eq!(
            Vnet::parse(&header),
            Some(Vnet { checksum: Some((40, 16)), gso: Some((Gso::Tcp, 1348)) })
        );
        assert_eq!(Vnet::parse(&[0; VNET_LEN]), Some(Vnet { checksum: None, gso: None }));
    }

    #[test]
    fn segments_of_no_size_or_unknown_kind_are_refused() {
        assert_eq!(Vnet::parse(&Vnet::super_packet(Gso::Tcp, false, 40, 0, 20)), None);
        let mut header = Vnet::super_packet(Gso::Tcp, false, 40, 100, 20);
        header[1] = 3;
        assert_eq!(Vnet::parse(&header), None, "UFO was never offered");
        header[1] = 1;
        header[0] = 0;
        assert_eq!(Vnet::parse(&header), None, "a super-packet always leaves the checksum to us");
    }
}
