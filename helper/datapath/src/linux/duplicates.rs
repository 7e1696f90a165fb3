//! Copies that came by two paths are told here: the SAs have separate sequence numbers, so only the inner packet tells.
//!
//! A packet is a copy when an equal one was delivered a moment ago *by another SA* and was not matched yet. Two equal
//! packets by one SA are two packets: the sender meant it. The window is bounded in time and in memory, and is keyed, so
//! that nobody can make packets of others look like copies.

use std::hash::{BuildHasher, Hasher, RandomState};

/// How much later than the first the second copy may come: the difference between two paths. Longer would make equal
/// packets that were both meant, and of which one was lost, look like copies.
const WINDOW: u64 = 500_000_000;
/// Sets of entries: with four entries each, 16,384 packets within the window before the oldest are forgotten, 32,000 packets a
/// second.
const SETS: usize = 4096;
const WAYS: usize = 4;

/// One packet that was delivered.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    hash: u64,
    /// When, in nanoseconds.
    at: u64,
    /// By which SA.
    spi: u32,
    /// How many such packets that SA delivered that no other SA has matched.
    unmatched: u32,
}

/// The packets that were delivered within the window.
#[derive(Debug)]
pub(super) struct Duplicates {
    keys: RandomState,
    sets: Box<[[Seen; WAYS]]>,
}

impl Duplicates {
    pub(super) fn new() -> Self {
        Self { keys: RandomState::new(), sets: vec![[Seen::default(); WAYS]; SETS].into_boxed_slice() }
    }

    /// Whether `packet`, which came in by `spi` at `now`, is the copy of one that another SA delivered. If not, it counts as
    /// delivered.
    pub(super) fn is_copy(&mut self, packet: &[u8], spi: u32, now: u64) -> bool {
        let mut hasher = self.keys.build_hasher();
        hasher.write(packet);
        let hash = hasher.finish();
        let Some(set) = self.sets.get_mut(hash as usize % SETS) else { return false };
        let fresh = |seen: &Seen| seen.unmatched > 0 && now.saturating_sub(seen.at) < WINDOW;
        if let Some(seen) = set.iter_mut().find(|seen| seen.hash == hash && fresh(seen)) {
            if seen.spi == spi {
                seen.unmatched = seen.unmatched.saturating_add(1);
                seen.at = now;
                return false;
            }
            seen.unmatched -= 1;
            return true;
        }
        // A matched or outdated entry first, else the oldest.
        if let Some(slot) = set.iter_mut().min_by_key(|seen| if fresh(seen) { seen.at } else { 0 }) {
            *slot = Seen { hash, at: now, spi, unmatched: 1 };
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MILLISECOND: u64 = 1_000_000;
    /// A time long after the start.
    const START: u64 = 1_000_000_000_000;

    #[test]
    fn a_copy_by_another_sa_is_told_and_equal_packets_by_one_sa_are_not_copies() {
        let mut window = Duplicates::new();
        assert!(!window.is_copy(b"ping", 1, START));
        assert!(window.is_copy(b"ping", 2, START + 1));
        // Twice on purpose, with both copies of both.
        assert!(!window.is_copy(b"ack", 1, START));
        assert!(!window.is_copy(b"ack", 1, START + 1));
        assert!(window.is_copy(b"ack", 2, START + 2));
        assert!(window.is_copy(b"ack", 2, START + 3));
        // The third came by the other one first.
        assert!(!window.is_copy(b"ack", 2, START + 4));
        assert!(window.is_copy(b"ack", 1, START + 5));
        assert!(!window.is_copy(b"ack", 1, START + 6));
    }

    #[test]
    fn after_the_window_an_equal_packet_is_another_one() {
        let mut window = Duplicates::new();
        assert!(!window.is_copy(b"x", 1, START));
        assert!(!window.is_copy(b"x", 2, START + WINDOW));
        assert!(window.is_copy(b"x", 1, START + WINDOW + 1));
    }

    /// Packets 0 to `count`, each on both paths, each path with its own delay and its own losses.
    fn arrivals(losses: &[(bool, bool)], delays: (u64, u64)) -> Vec<(u64, u32, usize)> {
        let sent = |number: usize| START + number as u64 * MILLISECOND;
        let mut arrivals = Vec::new();
        for (number, (first, second)) in losses.iter().enumerate() {
            for (lost, spi, delay) in [(first, 1, delays.0), (second, 2, delays.1)] {
                if !lost {
                    arrivals.push((sent(number) + delay * MILLISECOND, spi, number));
                }
            }
        }
        arrivals.sort_unstable();
        arrivals
    }

    proptest! {
        #[test]
        fn whatever_is_lost_each_packet_that_came_is_delivered_once(
            losses in proptest::collection::vec(any::<(bool, bool)>(), 1..400),
            delays in (0u64..400, 0u64..400),
        ) {
            let mut window = Duplicates::new();
            let mut delivered = vec![0; losses.len()];
            for (at, spi, number) in arrivals(&losses, delays) {
                if !window.is_copy(&number.to_be_bytes(), spi, at) {
                    delivered[number] += 1;
                }
            }
            for (number, (first, second)) in losses.iter().enumerate() {
                prop_assert_eq!(delivered[number], i32::from(!first || !second), "packet {}", number);
            }
        }

        #[test]
        fn one_sa_alone_delivers_everything(
            packets in proptest::collection::vec(0u8..4, 1..400),
            step in 0u64..1000 * MILLISECOND,
        ) {
            let mut window = Duplicates::new();
            for (number, packet) in packets.iter().enumerate() {
                prop_assert!(!window.is_copy(&[*packet], 7, START + number as u64 * step));
            }
        }

        #[test]
        fn equal_packets_without_loss_are_delivered_as_often_as_they_were_sent(
            kinds in proptest::collection::vec(0u8..3, 1..200),
            delays in (0u64..400, 0u64..400),
        ) {
            // Sent within the window as a whole, so that all copies can be told.
            let mut window = Duplicates::new();
            let mut delivered = [0; 3];
            for (at, spi, number) in arrivals(&vec![(false, false); kinds.len()], delays) {
                let at = START + (at - START) / 8;
                if !window.is_copy(&[kinds[number]], spi, at) {
                    delivered[usize::from(kinds[number])] += 1;
                }
            }
            for kind in 0..3u8 {
                let sent = kinds.iter().filter(|sent| **sent == kind).count();
                prop_assert_eq!(delivered[usize::from(kind)], sent);
            }
        }
    }

    #[test]
    fn a_flood_of_other_packets_takes_no_more_memory_and_hides_no_packet() {
        let mut window = Duplicates::new();
        for number in 0u64..100_000 {
            assert!(!window.is_copy(&number.to_be_bytes(), 1, START + number * 1000));
        }
        assert_eq!(window.sets.len() * WAYS, 16_384);
    }
}
