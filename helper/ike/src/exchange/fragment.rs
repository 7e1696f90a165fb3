//! Putting a fragmented message together (RFC 7383 section 2.6).
//!
//! Every fragment is decrypted and authenticated by itself before it comes here, so only the peer can fill this memory,
//! and not beyond the bounds below. A fragment that is not yet known is kept, one that is there already is ignored. A
//! larger total number means that the peer began again with smaller fragments: what was collected is dropped, as is a
//! message that is not complete after a while.

use std::time::Duration;

use zeroize::Zeroizing;

use super::retransmit::RetransmitPolicy;
use crate::error::PeerMisbehaved;
use crate::time::Instant;

/// More fragments than any honest message has: at 576 octets a datagram, so many are the largest message there is.
const MAX_FRAGMENTS: u16 = 144;
/// Octets of a whole message; larger ones cannot be sent unfragmented either.
const MAX_MESSAGE: usize = 65_535;

/// After this nobody repeats a request any more: the longest that an initiator of ours waits for an answer in a hurry.
const INCOMPLETE: Duration = RetransmitPolicy::AUTH.give_up;

/// A whole message's decrypted content.
pub struct Reassembled {
    /// The type of the first payload inside.
    pub first_payload: u8,
    /// The payloads.
    pub content: Zeroizing<Vec<u8>>,
}

/// One fragment, decrypted.
pub struct Fragment {
    /// The Message ID that all fragments of one message share.
    pub message_id: u32,
    /// From 1 to `total`.
    pub number: u16,
    /// How many there are.
    pub total: u16,
    /// The type of the first payload inside; meaningful in fragment 1 only.
    pub first_payload: u8,
    /// The decrypted piece.
    pub content: Zeroizing<Vec<u8>>,
}

/// Collects the fragments of one message at a time.
#[derive(Default)]
pub struct Reassembler {
    message_id: u32,
    first_payload: u8,
    octets: usize,
    parts: Vec<Option<Zeroizing<Vec<u8>>>>,
    /// When what was collected is thrown away.
    until: Option<Instant>,
}

impl Reassembler {
    /// Takes a fragment; the message when it is the last one missing.
    ///
    /// # Errors
    /// [`PeerMisbehaved::FragmentNumber`], by which nothing collected is lost, and [`PeerMisbehaved::FragmentsTooMany`], with
    /// which all of it goes.
    pub fn add(&mut self, now: Instant, fragment: Fragment) -> Result<Option<Reassembled>, PeerMisbehaved> {
        let Fragment { message_id, number, total, first_payload, content } = fragment;
        if number == 0 || number > total {
            return Err(PeerMisbehaved::FragmentNumber { number, total });
        }
        if total > MAX_FRAGMENTS {
            *self = Self::default();
            return Err(PeerMisbehaved::FragmentsTooMany { total });
        }
        self.handle_timeout(now);
        let have = self.parts.len();
        if message_id != self.message_id || usize::from(total) > have {
            let parts = (0..total).map(|_| None).collect();
            *self = Self { message_id, first_payload: 0, octets: 0, parts, until: Some(now + INCOMPLETE) };
        } else if usize::from(total) < have {
            return Ok(None);
        }
        let Some(slot) = self.parts.get_mut(usize::from(number) - 1) else {
            return Err(PeerMisbehaved::FragmentNumber { number, total });
        };
        if slot.is_some() {
            return Ok(None);
        }
        if self.octets + content.len() > MAX_MESSAGE {
            *self = Self::default();
            return Err(PeerMisbehaved::FragmentsTooMany { total });
        }
        self.octets += content.len();
        if number == 1 {
            self.first_payload = first_payload;
        }
        *slot = Some(content);
        Ok(self.take_if_complete())
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }

    /// Throws away what has been incomplete for too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.until.is_some_and(|until| now >= until) {
            *self = Self::default();
        }
    }

    fn take_if_complete(&mut self) -> Option<Reassembled> {
        if self.parts.iter().any(Option::is_none) {
            return None;
        }
        let mut content = Zeroizing::new(Vec::with_capacity(self.octets));
        for part in self.parts.drain(..).flatten() {
            content.extend_from_slice(&part);
        }
        self.octets = 0;
        self.until = None;
        Some(Reassembled { first_payload: self.first_payload, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    fn fragment(number: u16, total: u16, content: &[u8]) -> Fragment {
        let first_payload = if number == 1 { 35 } else { 0 };
        Fragment { message_id: 1, number, total, first_payload, content: Zeroizing::new(content.to_vec()) }
    }

    #[test]
    fn fragments_in_any_order_and_doubled_give_the_message() {
        let mut reassembler = Reassembler::default();
        assert!(reassembler.add(NOW, fragment(3, 3, b"c")).unwrap().is_none());
        assert!(reassembler.add(NOW, fragment(1, 3, b"a")).unwrap().is_none());
        assert!(reassembler.add(NOW, fragment(1, 3, b"X")).unwrap().is_none());
        let whole = reassembler.add(NOW, fragment(2, 3, b"b")).unwrap().unwrap();
        assert_eq!((whole.first_payload, whole.content.as_slice()), (35, b"abc".as_slice()));
    }

    #[test]
    fn a_larger_total_begins_again_and_a_smaller_one_is_ignored() {
        let mut reassembler = Reassembler::default();
        assert!(reassembler.add(NOW, fragment(1, 2, b"old")).unwrap().is_none());
        assert!(reassembler.add(NOW, fragment(1, 3, b"a")).unwrap().is_none());
        assert!(reassembler.add(NOW, fragment(2, 2, b"old")).unwrap().is_none());
        assert!(reassembler.add(NOW, fragment(2, 3, b"b")).unwrap().is_none());
        let whole = reassembler.add(NOW, fragment(3, 3, b"c")).unwrap().unwrap();
        assert_eq!(whole.content.as_slice(), b"abc");
    }

    #[test]
    fn a_fragment_number_beyond_the_total_is_refused() {
        let mut reassembler = Reassembler::default();
        for (number, total) in [(0, 2), (3, 2), (1, 0)] {
            let error = reassembler.add(NOW, fragment(number, total, b"x")).err().unwrap();
            assert_eq!(error, PeerMisbehaved::FragmentNumber { number, total });
        }
    }

    #[test]
    fn the_number_and_size_of_fragments_are_bounded() {
        let mut reassembler = Reassembler::default();
        let error = reassembler.add(NOW, fragment(1, u16::MAX, b"x")).err().unwrap();
        assert_eq!(error, PeerMisbehaved::FragmentsTooMany { total: u16::MAX });
        let big = vec![0; 40_000];
        assert!(reassembler.add(NOW, fragment(1, 3, &big)).unwrap().is_none());
        let error = reassembler.add(NOW, fragment(2, 3, &big)).err().unwrap();
        assert_eq!(error, PeerMisbehaved::FragmentsTooMany { total: 3 });
    }

    #[test]
    fn what_is_not_complete_in_time_is_thrown_away() {
        let mut reassembler = Reassembler::default();
        assert!(reassembler.add(NOW, fragment(1, 2, b"old")).unwrap().is_none());
        let end = reassembler.poll_timeout().unwrap();
        assert_eq!(end, NOW + RetransmitPolicy::AUTH.give_up);
        assert!(reassembler.add(end, fragment(2, 2, b"b")).unwrap().is_none(), "the first piece is gone");
        let whole = reassembler.add(end, fragment(1, 2, b"a")).unwrap().unwrap();
        assert_eq!(whole.content.as_slice(), b"ab");
        assert_eq!(reassembler.poll_timeout(), None);
        assert!(reassembler.add(NOW, fragment(1, 2, b"old")).unwrap().is_none());
        reassembler.handle_timeout(end);
        assert_eq!((reassembler.octets, reassembler.parts.len()), (0, 0));
    }
}
