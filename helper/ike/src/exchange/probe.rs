//! Is the path in use alive? The owner of several paths asks that often, and at once (RFC 4555 section 3.10 leaves it open how).
//!
//! A probe is an empty INFORMATIONAL, as in [`super::liveness`]. The window takes one request at a time, so while one waits
//! for its answer a probe sends that again: whatever it is, only the peer can answer it. A round trip is measured by requests
//! that were sent once only, for of the others nobody knows which one was answered.

use std::time::Duration;

use rand_core::CryptoRng;

use super::retransmit::Outstanding;
use super::sa::{IkeSa, SaEvent, Task};
use super::{Path, Transmit};
use crate::time::Instant;

/// What is known of probes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probing {
    /// One waits for its answer.
    asked: bool,
}

impl IkeSa {
    /// Asks the peer by the path in use; [`SaEvent::Probed`] tells of the answer. With `patient` the request that it comes down
    /// to is not given up before its time from now on is over.
    pub fn probe(&mut self, now: Instant, patient: bool, rng: &mut dyn CryptoRng) {
        if self.is_closed() {
            return;
        }
        self.probing.asked = true;
        let Some(in_flight) = &mut self.in_flight else {
            self.tasks.push_front(Task::Liveness);
            self.start_next(now, rng);
            return;
        };
        in_flight.outstanding.sent_again();
        if patient {
            in_flight.outstanding.prolong(now);
        }
        let path = in_flight.path;
        let again = in_flight.outstanding.datagrams().iter().cloned();
        self.transmits.extend(again.map(|message| Transmit { path, message }));
    }

    /// A request was answered.
    pub(super) fn probe_answered(&mut self, now: Instant, request: &Outstanding, rerouted: bool, by: Path) {
        if std::mem::take(&mut self.probing.asked) {
            let rtt: Option<Duration> =
                (request.resent() == 0 && !rerouted).then(|| now.saturating_since(request.started()));
            self.events.push_back(SaEvent::Probed { by, rtt });
        }
    }
}
