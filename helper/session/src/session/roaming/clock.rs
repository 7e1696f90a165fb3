//! What a connection that stands does by the clock: its IKE_SA's own, and when another path or address is tried.

use rand_core::CryptoRng;
use ropewalk_ike::exchange::sa::IkeSa;
use ropewalk_ike::time::Instant;

use super::{Attempt, MOVE_GRACE, NEXT_ADDRESS, UNANSWERED, other_addresses};
use crate::session::{Session, State};

impl Session {
    /// Acts on the clock while the IKE_SA stands.
    pub(in crate::session) fn connected_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if !self.is_away()
            && let State::Connected(sa) = &mut self.state
        {
            sa.handle_timeout(now, rng);
            self.drain_sa(now, rng);
        }
        let was_down = self.roaming.down.is_some();
        self.review(now);
        let State::Connected(sa) = &self.state else { return };
        let remote = sa.path().remote;
        let silent = self.roaming.lost_at.is_none() && self.roaming.down.is_some() && !was_down;
        match &self.roaming.attempt {
            Some(Attempt::Moving { since, .. }) if now >= *since + NEXT_ADDRESS => {
                if let Some(next) = self.roaming.others.pop_front() {
                    self.open(next, false);
                }
            }
            None if silent
                && self.strands.is_alone()
                && self.link.is_some()
                && sa.can_move()
                && !other_addresses(sa).is_empty() =>
            {
                // Perhaps another address of the gateway answers; the one in use has the last word.
                self.roaming.others = other_addresses(sa);
                self.roaming.others.push_back(remote);
                if let Some(next) = self.roaming.others.pop_front() {
                    self.open(next, false);
                }
            }
            None if self.roaming.retest.is_some_and(|at| now >= at) => {
                self.roaming.retest = None;
                if self.link.is_some() {
                    self.open(remote, true);
                } else {
                    self.seek(now);
                }
            }
            Some(_) | None => {}
        }
    }

    /// When [`Self::connected_timeout`] wants to be called.
    pub(in crate::session) fn connected_poll(&self, sa: &IkeSa) -> Option<Instant> {
        let roaming = &self.roaming;
        let protocol = if self.is_away() { None } else { sa.poll_timeout() };
        let shown = roaming.down.is_some();
        let grace = roaming.lost_at.filter(|_| !shown).map(|at| at + MOVE_GRACE);
        let testing = matches!(roaming.attempt, Some(Attempt::Testing { .. }));
        let unanswered = sa.unanswered_since().filter(|_| !shown && !testing && roaming.lost_at.is_none());
        let stalled = sa.stalled_since().filter(|_| !shown && roaming.lost_at.is_none());
        let next = match &roaming.attempt {
            Some(Attempt::Moving { since, .. }) if !roaming.others.is_empty() => Some(*since + NEXT_ADDRESS),
            Some(_) | None => None,
        };
        let retest = roaming.retest.filter(|_| roaming.attempt.is_none());
        let silence = [unanswered, stalled].map(|since| since.map(|at| at + UNANSWERED));
        silence.into_iter().chain([protocol, grace, next, retest]).flatten().min()
    }
}
