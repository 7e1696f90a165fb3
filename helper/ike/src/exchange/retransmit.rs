//! Retransmission of requests and the memory of answers (RFC 7296 sections 2.1 to 2.3).
//!
//! The initiator of an exchange owns reliability: it repeats its request, byte for byte, until the answer comes or it
//! gives up. The responder repeats its answer only when it sees the request again. The window is one in both
//! directions, so each side remembers exactly one message.

use std::time::Duration;

use crate::time::Instant;

/// From this repetition on a request goes in smaller pieces: one lost datagram says little, two in a row are mostly a path that
/// carries less.
pub const CUT_SMALLER: u32 = 2;

/// How often and how long a request is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetransmitPolicy {
    /// Wait before the first repetition.
    pub first: Duration,
    /// The wait doubles each time up to this.
    pub longest: Duration,
    /// From the first transmission to giving up.
    pub give_up: Duration,
}

impl RetransmitPolicy {
    /// For IKE_SA_INIT: nobody is known to be there, so somebody who waits in front of a window learns soon.
    pub const INITIAL: Self = Self {
        first: Duration::from_millis(500),
        longest: Duration::from_secs(2),
        give_up: Duration::from_secs(10),
    };
    /// For IKE_AUTH: the gateway exists, but may ask a slow RADIUS server behind it.
    pub const AUTH: Self = Self {
        first: Duration::from_millis(1000),
        longest: Duration::from_secs(6),
        give_up: Duration::from_secs(30),
    };
    /// For an established IKE_SA: what decides that a peer is dead.
    pub const ESTABLISHED: Self = Self {
        first: Duration::from_millis(500),
        longest: Duration::from_secs(4),
        give_up: Duration::from_secs(15),
    };
    /// For a gateway whose client may be on the move: the client finds out what is wrong (RFC 4555 section 3.11).
    pub const PATIENT: Self = Self {
        first: Duration::from_millis(500),
        longest: Duration::from_secs(30),
        give_up: Duration::from_secs(300),
    };
    /// For the check of a client's new address: traffic stands still meanwhile, and the client may be on the move yet.
    pub const CHECK: Self = Self {
        first: Duration::from_millis(250),
        longest: Duration::from_secs(2),
        give_up: Duration::from_secs(300),
    };
    /// For a move: traffic stands still meanwhile, and a new connection takes its place if it fails.
    pub const MOVE: Self = Self {
        first: Duration::from_millis(250),
        longest: Duration::from_secs(1),
        give_up: Duration::from_secs(5),
    };
    /// For the word that another path is in use: traffic is lost until it arrives.
    pub const SWITCH: Self = Self {
        first: Duration::from_millis(200),
        longest: Duration::from_secs(1),
        give_up: Duration::from_secs(15),
    };
    /// For the check after a sleep: the network may need a moment, the user none.
    pub const HURRY: Self = Self {
        first: Duration::from_millis(250),
        longest: Duration::from_secs(1),
        give_up: Duration::from_secs(4),
    };
    /// For the test of a path.
    pub const TEST: Self = Self {
        first: Duration::from_millis(300),
        longest: Duration::from_millis(600),
        give_up: Duration::from_millis(2000),
    };
    /// For a datagram of a certain size: the first wait is set by what is known of the round trip.
    pub const SIZE: Self = Self {
        first: Duration::from_millis(1000),
        longest: Duration::from_secs(2),
        give_up: Duration::from_secs(15),
    };
    /// For the farewell: worth a few tries, not worth a wait.
    pub const FAREWELL: Self = Self {
        first: Duration::from_millis(300),
        longest: Duration::from_millis(600),
        give_up: Duration::from_millis(1500),
    };
}

/// What a look at the clock asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    NotYet,
    /// Send the request again.
    Resend,
    /// The answer will not come.
    GiveUp,
}

/// What is sent instead of a request that is not answered.
#[derive(Debug)]
enum Smaller {
    /// From this repetition on the same message in smaller pieces.
    Pieces(u32, Vec<Vec<u8>>),
    /// Every other time, from the first repetition on, another message that leads to the same answer; or, in its turn, the
    /// first one.
    Instead(Vec<Vec<u8>>),
}

/// One request that waits for its answer.
#[derive(Debug)]
pub struct Outstanding {
    /// The Message ID of the request.
    pub message_id: u32,
    datagrams: Vec<Vec<u8>>,
    smaller: Option<Smaller>,
    started: Instant,
    next: Instant,
    interval: Duration,
    policy: RetransmitPolicy,
    resent: u32,
}

impl Outstanding {
    /// A request that is being sent for the first time at `now`; `datagrams` are its fragments, or itself.
    #[must_use]
    pub fn new(now: Instant, message_id: u32, datagrams: Vec<Vec<u8>>, policy: RetransmitPolicy) -> Self {
        Self {
            message_id,
            datagrams,
            smaller: None,
            started: now,
            next: now + policy.first,
            interval: policy.first,
            policy,
            resent: 0,
        }
    }

    /// From this repetition on the same message goes in smaller pieces: what is not answered may have been too large for the
    /// path (RFC 7383 section 2.5.2).
    #[must_use]
    pub fn cut_smaller(mut self, from: u32, pieces: Option<Vec<Vec<u8>>>) -> Self {
        self.smaller = pieces.map(|pieces| Smaller::Pieces(from, pieces));
        self
    }

    /// Every other time, from the first repetition on, this goes under the same Message ID.
    #[must_use]
    pub fn in_turn_with(mut self, other: Vec<Vec<u8>>) -> Self {
        self.smaller = Some(Smaller::Instead(other));
        self
    }

    /// The datagrams, as they are sent next.
    #[must_use]
    pub fn datagrams(&self) -> &[Vec<u8>] {
        &self.datagrams
    }

    /// How often it was repeated so far.
    #[must_use]
    pub fn resent(&self) -> u32 {
        self.resent
    }

    /// When it was first sent.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// When [`Self::poll`] wants to be asked next.
    #[must_use]
    pub fn timeout(&self) -> Instant {
        self.next.min(self.started + self.policy.give_up)
    }

    /// Begins anew, as the request goes by another path, and with another policy if one is given.
    pub fn restart(&mut self, now: Instant, policy: Option<RetransmitPolicy>) {
        self.policy = policy.unwrap_or(self.policy);
        self.shrink(self.resent + 1);
        self.started = now;
        self.next = now + self.policy.first;
        self.interval = self.policy.first;
    }

    /// It was sent once more out of turn.
    pub fn sent_again(&mut self) {
        self.resent += 1;
        self.shrink(self.resent);
    }

    /// Is not given up before the policy's time from `now` on is over.
    pub fn prolong(&mut self, now: Instant) {
        let wanted = now.saturating_since(self.started) + RetransmitPolicy::ESTABLISHED.give_up;
        self.policy.give_up = self.policy.give_up.max(wanted);
    }

    /// Ends the wait early: nothing is due after `deadline`.
    pub fn give_up_by(&mut self, deadline: Instant) {
        let budget = deadline.saturating_since(self.started);
        self.policy.give_up = self.policy.give_up.min(budget);
    }

    /// Looks at the clock; after [`Due::Resend`] the next repetition is planned.
    pub fn poll(&mut self, now: Instant) -> Due {
        if now >= self.started + self.policy.give_up {
            return Due::GiveUp;
        }
        if now < self.next {
            return Due::NotYet;
        }
        self.sent_again();
        self.interval = (self.interval * 2).min(self.policy.longest);
        self.next = now + self.interval;
        Due::Resend
    }

    fn shrink(&mut self, repetition: u32) {
        match self.smaller.take() {
            Some(Smaller::Pieces(from, pieces)) if repetition >= from => self.datagrams = pieces,
            Some(Smaller::Instead(other)) => {
                let before = std::mem::replace(&mut self.datagrams, other);
                self.smaller = Some(Smaller::Instead(before));
            }
            kept @ (Some(Smaller::Pieces(..)) | None) => self.smaller = kept,
        }
    }
}

/// What to do with a request by its Message ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The next one: handle it.
    New,
    /// The last one again: repeat the answer.
    Repeated,
    /// Outside the window: drop it.
    Outside,
}

/// The receiving side of a window of one.
#[derive(Debug, Default)]
pub struct ResponseWindow {
    /// One beyond the last Message ID when that was taken.
    expected: u64,
    last_answer: Vec<Vec<u8>>,
}

impl ResponseWindow {
    /// A window whose next request has the Message ID `expected`.
    #[must_use]
    pub fn starting_at(expected: u32) -> Self {
        Self { expected: expected.into(), last_answer: Vec::new() }
    }

    /// What a request with `message_id` is.
    #[must_use]
    pub fn classify(&self, message_id: u32) -> Arrival {
        let message_id = u64::from(message_id);
        if message_id == self.expected {
            Arrival::New
        } else if message_id + 1 == self.expected && !self.last_answer.is_empty() {
            Arrival::Repeated
        } else {
            Arrival::Outside
        }
    }

    /// Whether the next request has at least this Message ID.
    #[must_use]
    pub fn is_beyond(&self, message_id: u32) -> bool {
        self.expected >= message_id.into()
    }

    /// Remembers the answer to the expected request and moves on.
    pub fn answered(&mut self, datagrams: Vec<Vec<u8>>) {
        self.last_answer = datagrams;
        self.expected = self.expected.saturating_add(1);
    }

    /// The last answer, for a repeated request.
    #[must_use]
    pub fn last_answer(&self) -> &[Vec<u8>] {
        &self.last_answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_start(Duration::from_millis(ms))
    }

    #[test]
    fn a_request_is_repeated_with_doubled_waits_until_it_is_given_up() {
        let mut request = Outstanding::new(at(0), 0, vec![vec![1]], RetransmitPolicy::INITIAL);
        let mut resent = Vec::new();
        let mut now = at(0);
        loop {
            now = request.timeout().max(now);
            match request.poll(now) {
                Due::NotYet => panic!("the timeout named a moment at which nothing was due"),
                Due::Resend => resent.push(now.since_start().as_millis()),
                Due::GiveUp => break,
            }
        }
        assert_eq!(resent, [500, 1500, 3500, 5500, 7500, 9500]);
        assert_eq!(now, at(10_000));
    }

    #[test]
    fn a_deadline_shortens_the_wait_and_never_lengthens_it() {
        let mut request = Outstanding::new(at(0), 0, vec![vec![1]], RetransmitPolicy::INITIAL);
        request.give_up_by(at(4000));
        request.give_up_by(at(9000));
        assert_eq!(request.poll(at(3999)), Due::Resend);
        assert_eq!(request.poll(at(4000)), Due::GiveUp);
    }

    #[test]
    fn what_is_not_answered_goes_in_smaller_pieces() {
        let pieces = vec![vec![1], vec![2]];
        let whole = || Outstanding::new(at(0), 0, vec![vec![9; 9]], RetransmitPolicy::INITIAL);
        let mut request = whole().cut_smaller(2, Some(pieces.clone()));
        assert_eq!(request.poll(at(500)), Due::Resend);
        assert_eq!(request.datagrams(), [vec![9; 9]]);
        assert_eq!(request.poll(at(1500)), Due::Resend);
        assert_eq!(request.datagrams(), pieces);
        assert_eq!(request.poll(at(3500)), Due::Resend);
        assert_eq!(request.datagrams(), pieces, "never back to fewer of them");
    }

    #[test]
    fn two_forms_of_a_request_go_in_turn() {
        let (large, small) = (vec![vec![9; 9]], vec![vec![1]]);
        let mut request = Outstanding::new(at(0), 0, large.clone(), RetransmitPolicy::INITIAL);
        request = request.in_turn_with(small.clone());
        assert_eq!(request.datagrams(), large);
        assert_eq!(request.poll(at(500)), Due::Resend);
        assert_eq!(request.datagrams(), small);
        request.sent_again();
        assert_eq!(request.datagrams(), large);
        // By another path nothing is known of the first.
        request.restart(at(100), None);
        assert_eq!(request.datagrams(), small);
    }

    #[test]
    fn only_the_last_request_is_answered_again() {
        let mut window = ResponseWindow::starting_at(0);
        assert_eq!(window.classify(0), Arrival::New);
        assert_eq!(window.classify(1), Arrival::Outside);
        window.answered(vec![vec![7]]);
        assert_eq!(window.classify(0), Arrival::Repeated);
        assert_eq!(window.classify(1), Arrival::New);
        window.answered(vec![vec![8]]);
        assert_eq!(window.classify(0), Arrival::Outside);
        assert_eq!(window.last_answer(), [vec![8]]);
    }
}
