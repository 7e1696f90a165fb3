//! Is the path in use alive? The owner of several paths asks that often, and at once (RFC 4555 section 3.10 leaves it open how).
//!
//! A probe is an empty INFORMATIONAL, as in [`super::liveness`]. The window takes one request at a time, so while one waits
//! for its answer a probe sends that again: whatever it is, only the peer can answer it. A round trip is measured by requests
//! that were sent once only, for of the others nobody knows which one was answered.
//!
//! A gateway that keeps IKE_SAs says in its answer what has arrived by the CHILD_SA, when the client asks for that
//! ([`crate::wire::path_report`]): so the client learns what of its data is lost on the way there.

use std::time::Duration;

use rand_core::CryptoRng;

use super::keep_old::find_own_notify;
use super::retransmit::Outstanding;
use super::sa::{IkeSa, SaEvent, Task};
use super::{Path, Role, Transmit};
use crate::time::Instant;
use crate::wire::path_report::path_report_type;
use crate::wire::{Notify, NotifyType, PathReport, Payload};

/// What is known of probes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probing {
    /// One waits for its answer.
    asked: bool,
    /// What has arrived here, for a client that asks.
    arrived: Option<PathReport>,
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
        // A question about a size, which a repetition would spoil, is repeated soon by itself.
        if matches!(in_flight.task, Task::Size(_)) && in_flight.outstanding.resent() == 0 {
            return;
        }
        in_flight.outstanding.sent_again();
        if patient {
            in_flight.outstanding.prolong(now);
        }
        let path = in_flight.path;
        let again = in_flight.outstanding.datagrams().iter().cloned();
        self.transmits.extend(again.map(|message| Transmit { path, message }));
    }

    /// So many packets have arrived by the CHILD_SA with our SPI `spi_in`, the newest with this sequence number: a client
    /// that asks is told of the CHILD_SA that carries.
    pub fn note_arrivals(&mut self, spi_in: u32, packets: u64, newest: u64) {
        if self.carrying() == Some(spi_in) {
            self.probing.arrived = Some(PathReport { spi: spi_in, packets, newest });
        }
    }

    /// What asks the gateway for its report.
    pub(super) fn report_request(&self) -> Option<Payload> {
        let number = self.report_number().filter(|_| self.role == Role::Initiator)?;
        Some(Payload::Notify(Notify::status(number)))
    }

    /// The report, where it is asked for.
    pub(super) fn answer_report(&self, payloads: &[Payload]) -> Option<Payload> {
        let number = self.report_number().filter(|_| self.role == Role::Responder)?;
        let asked = find_own_notify(payloads, number)?.data.is_empty();
        let report = self.probing.arrived.filter(|_| asked)?;
        Some(Payload::Notify(report.notify(number.into())))
    }

    /// Takes the gateway's report, if there is one.
    pub(super) fn take_report(&mut self, payloads: &[Payload]) {
        let Some(number) = self.report_number().filter(|_| self.role == Role::Initiator) else { return };
        let report = find_own_notify(payloads, number).map(|notify| PathReport::parse(&notify.data));
        if let Some(Ok(report)) = report {
            self.events.push_back(SaEvent::Reported(report));
        }
    }

    /// Its number, where there may be several paths.
    fn report_number(&self) -> Option<NotifyType> {
        let number = self.keep_old.number().filter(|_| self.features.keep_old == Some(true))?;
        Some(NotifyType::from(path_report_type(number)))
    }

    /// A request was answered.
    pub(super) fn probe_answered(&mut self, now: Instant, request: &Outstanding, rerouted: bool, by: Path) {
        if std::mem::take(&mut self.probing.asked) {
            let since = now.saturating_since(request.started());
            let rtt: Option<Duration> = (request.resent() == 0 && !rerouted).then_some(since);
            self.events.push_back(SaEvent::Probed { by, rtt, since });
        }
    }
}
