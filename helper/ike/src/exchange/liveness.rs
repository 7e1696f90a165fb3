//! Is the peer still there? (RFC 7296 section 2.4)
//!
//! Whoever receives anything authentic from the peer knows that it lives, so nothing is asked while traffic flows. After
//! the profile's time of silence an empty INFORMATIONAL asks. When we send and nothing comes back, that is asked at once:
//! either the traffic goes one way only, which the answer shows and after which we ask half as often, or the peer is gone.

use std::time::Duration;

use rand_core::CryptoRng;

use super::retransmit::RetransmitPolicy;
use super::sa::{IkeSa, Task};
use crate::time::Instant;

/// What is sent and not answered for so long is asked about: more than the slowest path's round trip of 600 ms and a delayed
/// acknowledgement of 200 ms, less than people wait.
const STALL: Duration = Duration::from_secs(1);

/// The same while traffic is known to go one way only. What happens to the path then is told no later than this and the
/// time that an unanswered request is given, for the price of one small exchange.
const ONE_WAY: Duration = Duration::from_secs(2);

/// What we sent since the peer was last heard of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stall {
    /// When the first of it went out.
    since: Option<Instant>,
    /// How long it may go unanswered.
    patience: Duration,
    /// The next check must be over soon: the machine has slept.
    hurry: bool,
}

impl Default for Stall {
    fn default() -> Self {
        Self { since: None, patience: STALL, hurry: false }
    }
}

impl IkeSa {
    /// Tells of an authenticated ESP packet from the peer: it is alive.
    pub fn note_inbound(&mut self, at: Instant) {
        self.last_inbound = self.last_inbound.max(at);
        if self.stall.since.is_some_and(|since| at >= since) {
            self.stall = Stall { hurry: self.stall.hurry, ..Stall::default() };
        }
    }

    /// Tells of an ESP packet to the peer.
    pub fn note_outbound(&mut self, at: Instant) {
        let heard_since = self.stall.since.is_none_or(|since| since <= self.last_inbound);
        if heard_since && at > self.last_inbound {
            self.stall.since = Some(at);
        }
    }

    /// When the peer was last heard of.
    #[must_use]
    pub fn last_inbound(&self) -> Instant {
        self.last_inbound
    }

    /// Since when a request waits for its answer with nothing else heard from the peer.
    #[must_use]
    pub fn unanswered_since(&self) -> Option<Instant> {
        let started = self.in_flight.as_ref()?.outstanding.started();
        (self.last_inbound <= started).then_some(started)
    }

    /// When the peer had to be asked because ESP is sent and nothing at all is heard of it; `None` with checks switched off.
    #[must_use]
    pub fn stalled_since(&self) -> Option<Instant> {
        let since = self.stall.since.filter(|since| self.last_inbound <= *since)?;
        Some(since + self.stall.patience.min(self.dpd?))
    }

    /// Asks for a sign of life now, as after a hint that the peer may have restarted.
    pub fn check_liveness(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let checking = |task: &Task| matches!(task, Task::Liveness);
        let running = self.in_flight.as_ref().is_some_and(|in_flight| checking(&in_flight.task));
        if !running && !self.tasks.iter().any(checking) {
            self.tasks.push_back(Task::Liveness);
        }
        self.start_next(now, rng);
    }

    /// The same after the machine has slept, with an end soon: whoever opens the lid waits for it. A request that was under
    /// way is asked again.
    pub fn check_liveness_soon(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if self.in_flight.is_some() {
            self.reroute(now, self.path, Some(RetransmitPolicy::HURRY));
        } else {
            self.stall.hurry = true;
            self.check_liveness(now, rng);
        }
    }

    /// When the peer's silence has to be asked about; never with liveness checks switched off.
    pub(super) fn liveness_due(&self) -> Option<Instant> {
        let silence = self.dpd?;
        let quiet = self.last_inbound + silence;
        let stalled = self.stall.since.map(|since| since + self.stall.patience.min(silence));
        Some(stalled.map_or(quiet, |stalled| stalled.min(quiet)))
    }

    /// How long a liveness check is repeated.
    pub(super) fn liveness_policy(&mut self) -> RetransmitPolicy {
        if std::mem::take(&mut self.stall.hurry) {
            RetransmitPolicy::HURRY
        } else if self.is_patient() {
            RetransmitPolicy::PATIENT
        } else {
            RetransmitPolicy::ESTABLISHED
        }
    }

    /// The peer lives, though our traffic is not answered: that is asked about less often from now on.
    pub(super) fn liveness_answered(&mut self) {
        if self.stall.since.take().is_some() {
            self.stall.patience = ONE_WAY;
        }
    }
}
