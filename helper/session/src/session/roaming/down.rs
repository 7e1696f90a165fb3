//! Whether the tunnel carries while the IKE_SA is kept, as far as can be known, and if not, in what words that is told.

use ropewalk_ike::time::Instant;

use super::{Attempt, MOVE_GRACE, UNANSWERED};
use crate::explain::{Cause, Explanation};
use crate::session::{Session, State};

impl Session {
    /// Whether the tunnel carries as far as can be known, and if not, why.
    pub(in crate::session) fn review(&mut self, now: Instant) {
        let State::Connected(sa) = &self.state else {
            self.roaming.down = None;
            return;
        };
        let moving = self.is_moving();
        let roaming = &mut self.roaming;
        if roaming.woke_at.is_some_and(|at| sa.last_inbound() >= at && roaming.lost_at.is_none()) {
            roaming.woke_at = None;
        }
        let testing = matches!(roaming.attempt, Some(Attempt::Testing { .. }));
        let unanswered = sa.unanswered_since().is_some_and(|at| now >= at + UNANSWERED) && !testing;
        let silent = unanswered || sa.stalled_since().is_some_and(|at| now >= at + UNANSWERED);
        roaming.down = match roaming.lost_at {
            _ if roaming.asleep => {
                Some(explain("The computer sleeps.", "The connection is checked when it wakes up."))
            }
            Some(_) if roaming.attempt.is_none() && !roaming.online => Some(no_network()),
            Some(_) if roaming.attempt.is_none() => Some(explain(
                "There is no way to the gateway from this network.",
                "Ropewalk goes on as soon as there is one.",
            )),
            Some(at) if now >= at + MOVE_GRACE => Some(explain(
                "The network has changed; the connection moves to the new one.",
                "This takes a moment.",
            )),
            Some(_) => roaming.down.take(),
            None if roaming.woke_at.is_some() => Some(explain(
                "The computer has slept; the gateway is asked whether the connection still stands.",
                "This takes a moment.",
            )),
            // Each address that is tried begins the request's time anew; the gateway is no less silent for that.
            None if moving && roaming.down.is_some() => roaming.down.take(),
            None if silent => Some(explain(
                "The gateway does not answer at the moment.",
                "Ropewalk keeps trying until you disconnect.",
            )),
            None => None,
        };
    }
}

pub(super) fn explain(message: &str, hint: &str) -> Explanation {
    Explanation::new(Cause::Unreachable, message, hint)
}

pub(super) fn no_network() -> Explanation {
    explain("There is no network.", "Ropewalk reconnects as soon as there is one.")
}

pub(super) fn network_gone() -> Explanation {
    explain(
        "The network that carried the connection is gone.",
        "Ropewalk reconnects as soon as there is one.",
    )
}
