//! The Internet checksum (RFC 1071).
//!
//! Sums are kept in the machine's own byte order, which the one's complement sum does not mind as long as the result is
//! stored in the same order.

/// A running one's complement sum.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Adds octets. Only the last call of a sum may give an odd number of them.
    #[must_use]
    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        // 32-bit words in 64-bit sums cannot overflow below 2^32 words; four sums let the compiler use vectors.
        let (words, rest) = bytes.as_chunks::<16>();
        let mut lanes = [0u64; 4];
        for chunk in words {
            let (quads, _) = chunk.as_chunks::<4>();
            for (lane, quad) in lanes.iter_mut().zip(quads) {
                *lane += u64::from(u32::from_ne_bytes(*quad));
            }
        }
        let (pairs, last) = rest.as_chunks::<2>();
        let tail: u64 = pairs.iter().map(|pair| u64::from(u16::from_ne_bytes(*pair))).sum();
        let odd = last.first().map_or(0, |last| u64::from(u16::from_ne_bytes([*last, 0])));
        Self(fold_once(self.0) + lanes.iter().map(|lane| fold_once(*lane)).sum::<u64>() + tail + odd)
    }

    /// Adds a number that is in host order.
    #[must_use]
    pub(crate) fn word(self, value: u16) -> Self {
        Self(self.0 + u64::from(value.to_be()))
    }

    /// Adds the pseudo-header of IPv4 (RFC 9293 3.1) or IPv6 (RFC 8200 8.1) from the addresses' octets.
    #[must_use]
    pub(crate) fn pseudo_header(self, addresses: &[u8], protocol: u8, length: usize) -> Self {
        self.bytes(addresses)
            .word(u16::from(protocol))
            .word((length >> 16) as u16)
            .word((length & 0xffff) as u16)
    }

    /// The sum as it is stored where hardware or the kernel is to finish it.
    #[must_use]
    pub(crate) fn partial(self) -> [u8; 2] {
        fold(self.0).to_ne_bytes()
    }

    /// The checksum.
    #[must_use]
    pub(crate) fn finish(self) -> [u8; 2] {
        (!fold(self.0)).to_ne_bytes()
    }

    /// Whether what was summed, its checksum field included, is intact.
    #[must_use]
    pub(crate) fn is_intact(self) -> bool {
        fold(self.0) == 0xffff
    }
}

/// The checksum after `old` became `new` at an even offset (RFC 1624: HC' = ~(~HC + ~m + m')).
#[must_use]
pub(crate) fn update(checksum: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let sum = u64::from(!u16::from_ne_bytes(checksum))
        + u64::from(!u16::from_ne_bytes(old))
        + u64::from(u16::from_ne_bytes(new));
    (!fold(sum)).to_ne_bytes()
}

fn fold_once(sum: u64) -> u64 {
    (sum & 0xffff_ffff) + (sum >> 32)
}

fn fold(sum: u64) -> u16 {
    let sum = fold_once(fold_once(sum)) as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 word by word.
    fn slow(bytes: &[u8]) -> [u8; 2] {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }

    #[test]
    fn rfc_1071_section_3_example() {
        assert_eq!(
            Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).partial(),
            [0xdd, 0xf2]
        );
    }

    proptest! {
        #[test]
        fn it_equals_the_sum_word_by_word(bytes in proptest::collection::vec(any::<u8>(), 0..3000), cut in 0usize..1500) {
            prop_assert_eq!(Sum::default().bytes(&bytes).finish(), slow(&bytes));
            let cut = (cut * 2).min(bytes.len() / 2 * 2);
            let (a, b) = bytes.split_at(cut);
            prop_assert_eq!(Sum::default().bytes(a).bytes(b).finish(), slow(&bytes));
        }

        #[test]
        fn an_update_equals_a_new_sum(mut bytes in proptest::collection::vec(any::<u8>(), 8..64), at in 0usize..4, new: [u8; 2]) {
            bytes[0] |= 1; // all zero has two sums
            let before = Sum::default().bytes(&bytes).finish();
            let old = [bytes[2 * at], bytes[2 * at + 1]];
            bytes[2 * at..2 * at + 2].copy_from_slice(&new);
            prop_assume!(bytes.iter().any(|b| *b != 0));
            prop_assert_eq!(update(before, old, new), slow(&bytes));
        }
    }

    #[test]
    fn sums_of_a_whole_super_packet_do_not_overflow() {
        let bytes = vec![0xff; 65535];
        assert_eq!(Sum::default().bytes(&bytes).finish(), slow(&bytes));
    }
}
