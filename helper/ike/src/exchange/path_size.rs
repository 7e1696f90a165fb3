//! Does the path carry a datagram of this size? It tells so by ICMP, or swallows what is larger without a word.
//!
//! An INFORMATIONAL request is filled up to the size, which every peer answers with an empty one: it ignores a status notify that
//! it does not know (RFC 7296 section 3.10.1). What is lost must not look like a dead peer, and stands in the window of one
//! until it is answered. So the first repetition is a small request under the same Message ID, and they go in turn from then
//! on: the peer answers the one that arrives first, and repeats that answer for all others, for it tells repetitions by their
//! Message ID. The answer proves the size only when it came before the first repetition. Whoever asks repeats the question:
//! one lost datagram proves nothing.
//!
//! Repetitions should be the same octets (section 2.1). These are not, on purpose: a large request that is repeated as it is
//! is lost again, and one that is cut in pieces (RFC 7383 section 2.5.2) finds gateways that take no pieces in this
//! exchange, strongSwan 5.9 with its mediation extension among them.

use std::time::Duration;

use super::Path;
use super::protect::overhead;
use super::retransmit::{Outstanding, RetransmitPolicy};
use super::sa::{IkeSa, SaEvent, Task};
use crate::time::Instant;
use crate::wire::{ExchangeType, Header, Notify, NotifyType, Payload};
use rand_core::CryptoRng;

/// A status notify of the private-use range that says nothing, away from those that say something. Its data are zero octets.
const FILLER: NotifyType = NotifyType::Other(65_000);
/// Octets of a Notify payload without data.
const EMPTY_NOTIFY: usize = 8;
/// The longest block of a cipher, in octets: a message cannot be cut finer.
const BLOCK: usize = 16;

/// A local network answers sooner, and a gateway may be busy for a moment.
const SHORTEST_WAIT: Duration = Duration::from_millis(200);
/// Satellites answer sooner, and a gateway that is silent for longer is told of.
const LONGEST_WAIT: Duration = Duration::from_millis(1500);

/// What is known of the way that matters for such questions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizing {
    /// The last round trip that could be told, and by which path it went.
    rtt: Option<(Path, Duration)>,
    /// After an answer that came too late to prove anything, the next is waited for so long.
    patience: Duration,
}

impl IkeSa {
    /// Asks whether the path in use carries a datagram of `octets`, IP header included; [`SaEvent::SizeTested`] tells.
    pub fn test_size(&mut self, now: Instant, octets: usize, rng: &mut dyn CryptoRng) {
        if self.round_trip().is_none() {
            self.tasks.push_back(Task::Liveness);
        }
        self.tasks.push_back(Task::Size(octets));
        self.start_next(now, rng);
    }

    /// The last round trip by the path in use, of a request that was answered at once; `None` when there was none yet.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.sizing.rtt.filter(|(path, _)| *path == self.path).map(|(_, rtt)| rtt)
    }

    /// The question, and in turn with it a request without anything.
    pub(super) fn with_small_form(
        &mut self,
        header: Header,
        question: Outstanding,
        rng: &mut dyn CryptoRng,
    ) -> Outstanding {
        match self.protection.seal(header, &[], false, self.path, rng) {
            Ok(small) => question.in_turn_with(small),
            Err(error) => {
                tracing::warn!(%error, "an empty request could not be sealed");
                question
            }
        }
    }

    /// What fills a request up to at least this size, and to less than one block more.
    pub(super) fn size_request(&self, octets: usize) -> Payload {
        let header = self.request_header(ExchangeType::Informational);
        let wanted = octets.saturating_sub(overhead(self.path));
        let reaches = |data: &usize| self.protection.message_len(&header, EMPTY_NOTIFY + data) >= wanted;
        let about = wanted.saturating_sub(self.protection.message_len(&header, EMPTY_NOTIFY));
        let data = (about..about + BLOCK).find(reaches).unwrap_or(about + BLOCK);
        Payload::Notify(Notify::new(FILLER, vec![0; data]))
    }

    /// The first wait is what decides between carried and lost: well above the round trip.
    pub(super) fn size_policy(&self) -> RetransmitPolicy {
        let usual = self.round_trip().map_or(RetransmitPolicy::SIZE.first, |rtt| rtt * 3);
        let first = usual.max(self.sizing.patience).clamp(SHORTEST_WAIT, LONGEST_WAIT);
        RetransmitPolicy { first, ..RetransmitPolicy::SIZE }
    }

    /// A request was answered that went by this path, and not by another one first.
    pub(super) fn size_answered(
        &mut self,
        now: Instant,
        task: &Task,
        request: &Outstanding,
        (path, rerouted): (Path, bool),
    ) {
        let took = now.saturating_since(request.started());
        let at_once = request.resent() == 0 && !rerouted;
        if at_once {
            self.sizing = Sizing { rtt: Some((path, took)), patience: Duration::ZERO };
        }
        let Task::Size(octets) = *task else { return };
        if !at_once {
            self.sizing.patience = took * 2;
        }
        self.events.push_back(SaEvent::SizeTested { path, octets, carried: at_once });
    }
}
