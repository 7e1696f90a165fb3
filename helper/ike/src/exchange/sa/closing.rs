//! How an IKE_SA ends from our side, and what has it end or renewed besides its age.
//!
//! The peer takes one request at a time (RFC 7296 section 2.3), so a DELETE waits for the answer to what is under way; a
//! farewell hurries that along, since somebody may be waiting for the end. Message IDs that run out (section 2.2), a
//! renewal that is put off for minutes (section 2.25) and a CHILD_SA that ran out unrenewed (section 2.8) end the IKE_SA, as
//! does a peer that goes beyond what a fragmented message may have (RFC 7383 section 5).

use std::time::Duration;

use rand_core::CryptoRng;

use super::{IkeSa, Task};
use crate::error::PeerMisbehaved;
use crate::exchange::lifetime::Limits;
use crate::exchange::retransmit::{Outstanding, RetransmitPolicy};
use crate::time::Instant;

/// From this Message ID on a new IKE_SA is asked for. What is left is good for years of liveness checks.
const MESSAGE_IDS_LOW: u32 = u32::MAX - 0xffff;

/// The last Message ID is kept for the DELETE.
const LAST_MESSAGE_ID: u32 = u32::MAX;

/// The least time that the DELETE of a farewell is given, however long it had to wait for its turn.
const LAST_WORD: Duration = Duration::from_millis(300);

/// After so long a time of TEMPORARY_FAILURE the two ends must have different ideas of what there is.
const PUT_OFF_FOR_TOO_LONG: Duration = Duration::from_secs(180);

/// Two refusals that are further apart have nothing to do with each other: a renewal is tried again much sooner.
const UNRELATED: Duration = Duration::from_secs(30);

/// Since when the peer says TEMPORARY_FAILURE.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::exchange) struct PutOff {
    /// The first and the last time of a series.
    series: Option<(Instant, Instant)>,
}

impl PutOff {
    /// The peer says so once more. Whether it has been for too long.
    pub(in crate::exchange) fn again(&mut self, now: Instant) -> bool {
        let first = self.series.filter(|(_, last)| now < *last + UNRELATED).map_or(now, |(first, _)| first);
        self.series = Some((first, now));
        now >= first + PUT_OFF_FOR_TOO_LONG
    }
}

impl IkeSa {
    /// Deletes the IKE_SA and with it all its CHILD_SAs; whatever was waiting is dropped, and what is under way is still
    /// waited for, but not for long.
    pub fn close(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let leaving = self.has_task(|task| matches!(task, Task::DeleteIke));
        if leaving || self.closed {
            return;
        }
        self.tasks.clear();
        self.tasks.push_back(Task::DeleteIke);
        if !self.renewal.succeeded {
            self.farewell_by = Some(now + RetransmitPolicy::FAREWELL.give_up);
            if let Some(in_flight) = &mut self.in_flight {
                in_flight.outstanding.restart(now, Some(RetransmitPolicy::FAREWELL));
            }
        }
        self.start_next(now, rng);
    }

    /// The IKE_SA has to end, though nobody wants that: what is there cannot go on.
    pub(in crate::exchange) fn expire(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        self.renewal.expired = true;
        self.close(now, rng);
    }

    /// Whether a DELETE of the IKE_SA waits for its turn; nothing else is asked any more then.
    pub(in crate::exchange) fn is_leaving(&self) -> bool {
        self.tasks.iter().any(|task| matches!(task, Task::DeleteIke))
    }

    /// When the end was wished for while `heir` was asked for, that one goes, too.
    pub(in crate::exchange) fn take_along(&self, heir: &mut Self) {
        if self.is_leaving() && !self.renewal.expired {
            heir.tasks.push_back(Task::DeleteIke);
            heir.farewell_by = self.farewell_by;
        }
    }

    /// The time that a farewell may still take.
    pub(super) fn bound_farewell(&self, now: Instant, outstanding: &mut Outstanding) {
        if let Some(by) = self.farewell_by {
            outstanding.give_up_by(by.max(now + LAST_WORD));
        }
    }

    /// Few Message IDs are left: a new IKE_SA is due (section 2.2).
    pub(in crate::exchange) fn watch_message_ids(&mut self, now: Instant) {
        let low = self.next_request >= MESSAGE_IDS_LOW || self.window.is_beyond(MESSAGE_IDS_LOW);
        if low && !self.renewal.ids_low && !self.renewal.succeeded {
            tracing::info!(sa = ?self.spis, "few Message IDs are left");
            self.renewal.ids_low = true;
            self.renewal.ike = Limits { soft: Some(now), ..self.renewal.ike };
        }
    }

    /// Whether a request other than the last DELETE would need a Message ID that is not there.
    pub(super) fn lacks_message_ids(&self) -> bool {
        self.next_request == LAST_MESSAGE_ID
    }

    /// The peer put a renewal off; when it has done so for minutes, the IKE_SA is closed (section 2.25).
    pub(in crate::exchange) fn put_off(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if self.renewal.put_off.again(now) {
            tracing::warn!(sa = ?self.spis, "the peer has put renewals off for minutes: the IKE_SA is closed");
            self.expire(now, rng);
        }
    }

    /// What was wrong with a message that was authentic may be too much to go on.
    pub(super) fn judge(&mut self, misbehaved: &PeerMisbehaved, now: Instant, rng: &mut dyn CryptoRng) {
        if matches!(misbehaved, PeerMisbehaved::FragmentsTooMany { .. }) {
            self.close(now, rng);
        }
    }
}
