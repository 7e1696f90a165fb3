//! ECN over the tunnel (RFC 6040) and what of the TOS octet goes outside (RFC 4301 5.1.2.1).

const ECN: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const CE: u8 = 0b11;

/// The outer TOS octet for an inner one: ECN always (RFC 6040 4.1, normal mode), DSCP when wanted.
#[must_use]
pub(crate) const fn outer_tos(inner: u8, copy_dscp: bool) -> u8 {
    if copy_dscp { inner } else { inner & ECN }
}

/// The inner TOS octet of a packet that came out of a tunnel with this outer one (RFC 6040 4.2, figure 4); `None`: drop
/// it, for congestion was marked on a packet whose sender will not see the mark.
#[must_use]
pub(crate) const fn inner_tos(inner: u8, outer: u8) -> Option<u8> {
    match (inner & ECN, outer & ECN) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) | (CE, _) => Some(inner),
        (_, CE) => Some(inner | CE),
        (_, ECT_1) => Some((inner & !ECN) | ECT_1),
        (_, _) => Some(inner),
    }
}

/// Writes the TOS octet into a packet, IPv4 header checksum included.
#[must_use]
pub(crate) fn set_tos(packet: &mut [u8], tos: u8) -> bool {
    let Some([first, second, ..]) = packet.first_chunk_mut::<2>() else { return false };
    if *first >> 4 == 6 {
        *first = (*first & 0xf0) | (tos >> 4);
        *second = (*second & 0x0f) | (tos << 4);
        return true;
    }
    *second = tos;
    super::ip::renew_v4_checksum(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::ip::Ip;
    use crate::packet::testing::{is_intact, udp};

    #[test]
    fn rfc_6040_figure_4() {
        // rows: inner Not-ECT, ECT(0), ECT(1), CE; columns: outer Not-ECT, ECT(0), ECT(1), CE
        let (n, z, o, c) = (0b00, 0b10, 0b01, 0b11);
        let table = [
            (n, [Some(n), Some(n), Some(n), None]),
            (z, [Some(z), Some(z), Some(o), Some(c)]),
            (o, [Some(o), Some(o), Some(o), Some(c)]),
            (c, [Some(c), Some(c), Some(c), Some(c)]),
        ];
        for (inner, row) in table {
            for (outer, expected) in [n, z, o, c].into_iter().zip(row) {
                assert_eq!(inner_tos(0xb8 | inner, outer), expected.map(|e| 0xb8 | e), "{inner} {outer}");
            }
        }
    }

    #[test]
    fn dscp_goes_outside_only_when_wanted() {
        assert_eq!(outer_tos(0xba, false), 0b10);
        assert_eq!(outer_tos(0xba, true), 0xba);
    }

    #[test]
    fn a_new_tos_leaves_the_packet_intact() {
        for (source, destination) in [("10.0.0.1:1", "10.0.0.2:2"), ("[fd00::1]:1", "[fd00::2]:2")] {
            let mut packet = udp(source, destination, &[1, 2, 3]);
            assert!(set_tos(&mut packet, 0xbb));
            assert_eq!(Ip::parse(&packet).unwrap().tos, 0xbb);
            assert!(is_intact(&packet));
        }
    }
}
