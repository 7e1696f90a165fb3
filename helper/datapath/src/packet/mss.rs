//! Lowering the MSS option of a TCP SYN to what the tunnel carries (RFC 9293 3.7.1), so that TCP never depends on ICMP.

use super::checksum;
use super::ip::{Fragment, Ip, TCP};

const SYN: u8 = 0x02;

/// Lowers the MSS to what `mtu` leaves. The checksum follows, unless `partial`: then its field holds only the
/// pseudo-header's sum.
pub(crate) fn clamp(packet: &mut [u8], ip: &Ip, mtu: usize, partial: bool) {
    if ip.protocol != TCP || ip.fragment != Fragment::Whole {
        return;
    }
    let headers = if ip.is_v6() { 40 + 20 } else { 20 + 20 };
    let limit = mtu.saturating_sub(headers).min(usize::from(u16::MAX)) as u16;
    let Some(segment) = packet.get_mut(ip.l4..ip.total_len) else { return };
    let Some(&[.., offset, flags]) = segment.first_chunk::<14>() else { return };
    if flags & SYN == 0 {
        return;
    }
    let header_len = usize::from(offset >> 4) * 4;
    let Some(at) = mss_position(segment.get(..header_len)) else { return };
    let Some(field) = segment.get_mut(at..at + 2).and_then(|field| field.first_chunk_mut::<2>()) else {
        return;
    };
    let old = *field;
    if u16::from_be_bytes(old) <= limit {
        return;
    }
    let new = limit.to_be_bytes();
    *field = new;
    if partial {
        return;
    }
    // Options may begin at an odd offset: what is replaced in the sum is then the same two octets, swapped.
    let swap = |[a, b]: [u8; 2]| if at % 2 == 0 { [a, b] } else { [b, a] };
    if let Some(sum) = segment.get_mut(16..18).and_then(|sum| sum.first_chunk_mut::<2>()) {
        *sum = checksum::update(*sum, swap(old), swap(new));
    }
}

/// Where the value of the MSS option (kind 2, length 4) stands in a TCP header.
fn mss_position(header: Option<&[u8]>) -> Option<usize> {
    let header = header?;
    let mut at = 20;
    loop {
        match header.get(at)? {
            0 => return None,
            1 => at += 1,
            2 => return (header.get(at + 1) == Some(&4) && header.len() >= at + 4).then_some(at + 2),
            _ => at += usize::from(*header.get(at + 1)?).max(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::{is_intact, tcp_with_options};
    use proptest::prelude::*;

    fn clamped(source: &str, destination: &str, flags: u8, options: &[u8]) -> Vec<u8> {
        let mut packet = tcp_with_options(source, destination, 1, flags, options, &[]);
        let ip = Ip::parse(&packet).unwrap();
        clamp(&mut packet, &ip, 1300, false);
        assert!(is_intact(&packet));
        packet
    }

    #[test]
    fn a_syn_gets_the_mss_that_fits_and_a_right_checksum() {
        let packet = clamped("10.0.0.1:1", "10.0.0.2:2", SYN, &[2, 4, 0x05, 0xb4]);
        assert_eq!(packet[42..44], 1260u16.to_be_bytes());
        let packet = clamped("[fd00::1]:1", "[fd00::2]:2", SYN | 0x10, &[1, 1, 2, 4, 0x05, 0xa0, 1, 0]);
        assert_eq!(packet[64..66], 1240u16.to_be_bytes());
    }

    #[test]
    fn an_option_at_an_odd_offset_keeps_the_checksum_right() {
        let packet = clamped("10.0.0.1:1", "10.0.0.2:2", SYN, &[1, 2, 4, 0x05, 0xb4, 1, 1, 1]);
        assert_eq!(packet[43..45], 1260u16.to_be_bytes());
    }

    #[test]
    fn smaller_values_and_other_segments_stay() {
        assert_eq!(clamped("10.0.0.1:1", "10.0.0.2:2", SYN, &[2, 4, 2, 0])[42..44], [2, 0]);
        assert_eq!(clamped("10.0.0.1:1", "10.0.0.2:2", 0x10, &[2, 4, 0x05, 0xb4])[42..44], [0x05, 0xb4]);
    }

    proptest! {
        #[test]
        fn arbitrary_options_never_panic_and_stay_intact(options in proptest::collection::vec(0u8..6, 0..10)) {
            let mut options = options;
            while options.len() % 4 != 0 { options.push(1); }
            clamped("10.0.0.1:1", "10.0.0.2:2", SYN, &options);
        }
    }
}
