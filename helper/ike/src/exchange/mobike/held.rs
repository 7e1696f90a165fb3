//! An answer that waits for a moment while we move.
//!
//! strongSwan drops what carries the Message ID of the request that it is just working on, and takes our answer to a request
//! of its own with the same number for that, though numbers count for each direction alone (RFC 7296 section 2.2). It asks
//! from within our UPDATE_SA_ADDRESSES where its ESP cannot follow without a rekey, and we may answer before it is through.
//! Its next try comes after four seconds, in which nothing reaches us. So while our update waits for its answer, the answer to
//! a request of the same number waits for that too, and a moment more, for strongSwan sends its answer before it is done; but
//! it does not wait for long. Only a client moves, so two ends never wait for each other.

use std::time::Duration;

use super::MobikeTask;
use crate::exchange::Transmit;
use crate::exchange::sa::{IkeSa, Task};
use crate::time::Instant;

/// Less than what anybody waits for an answer before asking again.
const LONGEST: Duration = Duration::from_millis(100);
/// A busy gateway has a turn again within this; it costs one of a hundred packets a second.
const MOMENT: Duration = Duration::from_millis(10);

/// What waits.
#[derive(Debug, Default)]
pub(in crate::exchange) struct HeldAnswer {
    message_id: u32,
    until: Option<Instant>,
    datagrams: Vec<Transmit>,
}

impl IkeSa {
    /// Sends the answer to a request of that number, in a moment if that may be better.
    pub(in crate::exchange) fn send_answer(
        &mut self,
        now: Instant,
        message_id: u32,
        datagrams: impl Iterator<Item = Transmit>,
    ) {
        if self.updates_as(message_id) {
            self.held = HeldAnswer { message_id, until: Some(now + LONGEST), datagrams: datagrams.collect() };
        } else {
            self.transmits.extend(datagrams);
        }
    }

    /// The request was repeated and is answered again: nothing has to wait.
    pub(in crate::exchange) fn drop_held(&mut self) {
        self.held = HeldAnswer::default();
    }

    /// Our request was answered: what waited for that waits a moment more.
    pub(in crate::exchange) fn hurry_held(&mut self, now: Instant) {
        if !self.updates_as(self.held.message_id) {
            self.held.until = self.held.until.map(|until| until.min(now + MOMENT));
        }
    }

    /// Lets go of what has waited long enough.
    pub(in crate::exchange) fn release_held(&mut self, now: Instant) {
        if self.held.until.is_some_and(|until| now >= until) {
            self.release_held_now();
        }
    }

    /// Lets go of what waits.
    pub(in crate::exchange) fn release_held_now(&mut self) {
        self.transmits.extend(std::mem::take(&mut self.held).datagrams);
    }

    /// When [`Self::release_held`] wants to be called.
    pub(in crate::exchange) fn held_until(&self) -> Option<Instant> {
        self.held.until
    }

    /// Whether an update of that number waits for its answer.
    fn updates_as(&self, message_id: u32) -> bool {
        self.in_flight.as_ref().is_some_and(|in_flight| {
            let update = matches!(in_flight.task, Task::Mobike(MobikeTask::Update { .. }));
            update && in_flight.outstanding.message_id == message_id
        })
    }
}
