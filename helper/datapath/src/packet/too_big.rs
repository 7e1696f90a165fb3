//! The answer to an inner packet that the tunnel does not carry: ICMP "fragmentation needed" (RFC 792, RFC 1191 4) or
//! ICMPv6 "packet too big" (RFC 4443 3.2), written back to the TUN device.
//!
//! It comes from the packet's own destination address: that one is routed into the tunnel, so no reverse path filter on
//! the sender's side throws the answer away.

use std::net::IpAddr;

use super::checksum::Sum;
use super::ip::{Fragment, ICMP, ICMPV6, Ip, address_octets, set_total_len};

/// Room for the longest answer: an IPv6 one fills the minimum MTU.
pub(crate) const LONGEST: usize = 1280;

/// Octets of the offending packet in an IPv4 answer (RFC 1812 4.3.2.3: as much as makes 576 octets).
const V4_QUOTE: usize = 576 - 20 - 8;

/// Writes the answer to `packet` into `out` and returns its length; `None` when none may be sent.
pub(crate) fn answer(packet: &[u8], ip: &Ip, mtu: u16, out: &mut [u8; LONGEST]) -> Option<usize> {
    if ip.fragment == Fragment::Later || !answers(ip, packet) {
        return None;
    }
    match (ip.source, ip.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let quote = packet.get(..ip.total_len.min(V4_QUOTE))?;
            let [m0, m1] = mtu.to_be_bytes();
            let (header, rest) = out.split_first_chunk_mut::<20>()?;
            *header = [0x45, 0xc0, 0, 0, 0, 0, 0x40, 0, 64, ICMP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            header.get_mut(12..16)?.copy_from_slice(&destination.octets());
            header.get_mut(16..20)?.copy_from_slice(&source.octets());
            let message = rest.get_mut(..8 + quote.len())?;
            let (icmp, body) = message.split_first_chunk_mut::<8>()?;
            *icmp = [3, 4, 0, 0, 0, 0, m0, m1];
            body.copy_from_slice(quote);
            let checksum = Sum::default().bytes(message).finish();
            message.get_mut(2..4)?.copy_from_slice(&checksum);
            let len = 28 + quote.len();
            set_total_len(out, len).then_some(len)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let quote = packet.get(..ip.total_len.min(LONGEST - 48))?;
            let [m0, m1] = mtu.max(1280).to_be_bytes();
            let len = 48 + quote.len();
            let (header, rest) = out.split_first_chunk_mut::<40>()?;
            header.fill(0);
            header.get_mut(..8)?.copy_from_slice(&[0x60, 0, 0, 0, 0, 0, ICMPV6, 64]);
            header.get_mut(8..24)?.copy_from_slice(&destination.octets());
            header.get_mut(24..40)?.copy_from_slice(&source.octets());
            let message = rest.get_mut(..8 + quote.len())?;
            let (icmp, body) = message.split_first_chunk_mut::<8>()?;
            *icmp = [2, 0, 0, 0, 0, 0, m0, m1];
            body.copy_from_slice(quote);
            let sum = Sum::default().pseudo_header(address_octets(header), ICMPV6, message.len());
            let checksum = sum.bytes(message).finish();
            message.get_mut(2..4)?.copy_from_slice(&checksum);
            set_total_len(out, len).then_some(len)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// Never an error about an error, nor to a group or an unspecified address (RFC 1122 3.2.2; "too big" alone may answer
/// IPv6 multicast, RFC 4443 2.4 e, but it must not come from a multicast address, which ours would).
fn answers(ip: &Ip, packet: &[u8]) -> bool {
    let kind = packet.get(ip.l4).copied();
    let about_an_error = match ip.protocol {
        ICMP => !matches!(kind, Some(0 | 8 | 13 | 14)),
        ICMPV6 => kind.is_none_or(|kind| kind < 128),
        _ => false,
    };
    let broadcast = matches!(ip.destination, IpAddr::V4(address) if address.is_broadcast());
    !about_an_error
        && !broadcast
        && !ip.destination.is_multicast()
        && !ip.source.is_multicast()
        && !ip.source.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::udp;

    fn answered(packet: &[u8]) -> Option<Vec<u8>> {
        let ip = Ip::parse(packet).unwrap();
        let mut out = [0; LONGEST];
        answer(packet, &ip, 1400, &mut out).map(|len| out[..len].to_vec())
    }

    #[test]
    fn ipv4_gets_fragmentation_needed_with_the_mtu() {
        let packet = udp("10.0.0.1:5", "10.0.0.2:6", &[7; 1500]);
        let answer = answered(&packet).unwrap();
        let ip = Ip::parse(&answer).unwrap();
        assert_eq!(
            (ip.source.to_string(), ip.destination.to_string()),
            ("10.0.0.2".into(), "10.0.0.1".into())
        );
        assert_eq!(answer[20..22], [3, 4]);
        assert_eq!(answer[26..28], 1400u16.to_be_bytes());
        assert_eq!(answer[28..], packet[..V4_QUOTE]);
        assert!(Sum::default().bytes(&answer[..20]).is_intact());
        assert!(Sum::default().bytes(&answer[20..]).is_intact());
    }

    #[test]
    fn ipv6_gets_packet_too_big_with_the_mtu() {
        let packet = udp("[fd00::1]:5", "[fd00::2]:6", &[7; 1500]);
        let answer = answered(&packet).unwrap();
        assert_eq!(answer.len(), LONGEST);
        assert_eq!(answer[40..42], [2, 0]);
        assert_eq!(answer[44..48], 1400u32.to_be_bytes());
        assert_eq!(answer[48..], packet[..LONGEST - 48]);
        let sum = Sum::default().pseudo_header(address_octets(&answer), ICMPV6, answer.len() - 40);
        assert!(sum.bytes(&answer[40..]).is_intact());
    }

    #[test]
    fn errors_groups_and_later_fragments_get_no_answer() {
        assert!(answered(&udp("10.0.0.1:5", "224.0.0.5:6", &[7; 1500])).is_none());
        assert!(answered(&udp("10.0.0.1:5", "255.255.255.255:6", &[7; 1500])).is_none());
        assert!(answered(&udp("0.0.0.0:5", "10.0.0.2:6", &[7; 1500])).is_none());
        assert!(answered(&udp("[fd00::1]:5", "[ff02::1]:6", &[7; 1500])).is_none());
        let mut later = udp("10.0.0.1:5", "10.0.0.2:6", &[7; 1500]);
        later[7] = 9;
        assert!(answered(&later).is_none());
        let mut error = udp("10.0.0.1:5", "10.0.0.2:6", &[7; 1500]);
        (error[9], error[20]) = (ICMP, 3);
        assert!(answered(&error).is_none());
        error[20] = 8;
        assert!(answered(&error).is_some(), "an echo request does");
    }
}
