//! The anti-replay window of RFC 4303 3.4.3, as the ring of words of RFC 6479: moving the window forward clears whole
//! words instead of shifting bits.

/// Words in the ring: a power of two, so that the index is a mask.
const WORDS: usize = 64;

/// How far behind the newest authenticated sequence number a packet may still be accepted. One word of the ring is
/// always partly in the future, so it is a word less than the ring holds.
pub const REPLAY_WINDOW: u64 = (WORDS as u64 - 1) * 64;

/// Why a sequence number is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Zero, or too old to know.
    OutsideWindow,
    /// Seen before.
    Replayed,
}

/// Which 64-bit sequence numbers were received.
#[derive(Debug, Clone)]
pub struct ReplayWindow {
    newest: u64,
    seen: [u64; WORDS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

impl ReplayWindow {
    /// A window that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { newest: 0, seen: [0; WORDS] }
    }

    /// The newest sequence number recorded; 0 before the first.
    #[must_use]
    pub const fn newest(&self) -> u64 {
        self.newest
    }

    /// Whether `seq` is new enough and was not recorded. Changes nothing: asked before authentication.
    #[must_use]
    pub fn would_accept(&self, seq: u64) -> bool {
        self.check(seq).is_ok()
    }

    pub(crate) fn check(&self, seq: u64) -> Result<(), Refused> {
        if seq == 0 || seq.saturating_add(REPLAY_WINDOW) <= self.newest {
            return Err(Refused::OutsideWindow);
        }
        if seq > self.newest {
            return Ok(());
        }
        let (word, bit) = position(seq);
        match self.seen.get(word) {
            Some(seen) if seen & bit == 0 => Ok(()),
            Some(_) | None => Err(Refused::Replayed),
        }
    }

    /// Records an authenticated sequence number that [`Self::would_accept`] let pass.
    pub fn record(&mut self, seq: u64) {
        if seq > self.newest {
            let from = self.newest / 64;
            let steps = (seq / 64 - from).min(WORDS as u64);
            for step in 1..=steps {
                let (word, _) = position((from + step).wrapping_mul(64));
                if let Some(seen) = self.seen.get_mut(word) {
                    *seen = 0;
                }
            }
            self.newest = seq;
        }
        let (word, bit) = position(seq);
        if let Some(seen) = self.seen.get_mut(word) {
            *seen |= bit;
        }
    }

    /// The whole 64-bit sequence number behind the 32 bits on the wire, by RFC 4303 appendix A2.2: the one that is
    /// in the window or, failing that, next to its right.
    #[must_use]
    pub fn infer(&self, low: u32) -> u64 {
        let top_high = self.newest >> 32;
        let top_low = self.newest & 0xffff_ffff;
        let low = u64::from(low);
        let bottom_low = top_low.wrapping_sub(REPLAY_WINDOW - 1) & 0xffff_ffff;
        let high = match (top_low >= REPLAY_WINDOW - 1, low >= bottom_low) {
            // The window lies within one 2^32 subspace; left of it means the next subspace.
            (true, true) => top_high,
            (true, false) => top_high.saturating_add(1),
            // It spans two, and this is in the older one. Before the first wrap there is no older one: what results
            // is then far ahead, and authentication decides.
            (false, true) => top_high.saturating_sub(1),
            (false, false) => top_high,
        };
        (high << 32) | low
    }
}

const fn position(seq: u64) -> (usize, u64) {
    ((seq / 64) as usize & (WORDS - 1), 1 << (seq % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn zero_is_never_accepted() {
        assert!(!ReplayWindow::new().would_accept(0));
    }

    #[test]
    fn the_window_reaches_back_exactly_as_far_as_it_says() {
        let mut window = ReplayWindow::new();
        window.record(10_000);
        assert!(!window.would_accept(10_000));
        assert!(!window.would_accept(10_000 - REPLAY_WINDOW));
        assert!(window.would_accept(10_000 - REPLAY_WINDOW + 1));
        assert!(window.would_accept(u64::MAX));
        const { assert!(REPLAY_WINDOW >= 1024) };
    }

    #[test]
    fn a_jump_over_the_whole_ring_forgets_everything_old() {
        let mut window = ReplayWindow::new();
        for seq in 1..=64 {
            window.record(seq);
        }
        window.record(64 * 64 * 10 + 5);
        for seq in 64 * 64 * 10 - 100..64 * 64 * 10 + 5 {
            assert!(window.would_accept(seq), "{seq}");
        }
    }

    #[test]
    fn high_bits_follow_the_window_over_the_wrap() {
        let mut window = ReplayWindow::new();
        assert_eq!(window.infer(1), 1);
        assert_eq!(window.infer(u32::MAX), 0xffff_ffff);
        window.record(0xffff_fff0);
        assert_eq!(window.infer(0xffff_fff8), 0xffff_fff8);
        assert_eq!(window.infer(0xffff_ff00), 0xffff_ff00);
        assert_eq!(window.infer(3), 0x1_0000_0003);
        window.record(0x1_0000_0003);
        assert_eq!(window.infer(0xffff_fff1), 0xffff_fff1, "late, from before the wrap");
        assert_eq!(window.infer(4), 0x1_0000_0004);
        window.record(0x1_0000_0000 + REPLAY_WINDOW - 1);
        assert_eq!(window.infer(0), 0x1_0000_0000, "the window just fits into the new subspace");
        window.record(0x1_0000_0000 + REPLAY_WINDOW);
        assert_eq!(window.infer(0), 0x2_0000_0000, "left of the window is the next subspace");
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_of_everything_seen(
            start in prop_oneof![0u64..200, 0xffff_f000u64..0x1_0000_1000],
            steps in proptest::collection::vec((-5000i64..6000, any::<bool>()), 1..300),
        ) {
            let mut window = ReplayWindow::new();
            let mut seen = HashSet::new();
            let mut newest = 0u64;
            let mut at = start;
            for (step, authentic) in steps {
                at = at.saturating_add_signed(step);
                let expected = at != 0 && at + REPLAY_WINDOW > newest && !seen.contains(&at);
                prop_assert_eq!(window.would_accept(at), expected);
                if expected && authentic {
                    window.record(at);
                    seen.insert(at);
                    newest = newest.max(at);
                }
                prop_assert_eq!(window.newest(), newest);
            }
        }

        #[test]
        fn every_number_in_or_right_of_the_window_is_inferred(newest in 1u64..1 << 40, step in -4031i64..1 << 30) {
            let mut window = ReplayWindow::new();
            window.record(newest);
            let sent = newest.saturating_add_signed(step).max(1);
            prop_assert_eq!(window.infer(sent as u32), sent);
        }
    }
}
