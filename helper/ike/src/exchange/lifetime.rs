//! How long SAs live: each is renewed at a soft limit and deleted at a hard one (RFC 7296 section 2.8).
//!
//! Both ends keep limits of their own and tell each other nothing of them. The soft limit comes up to a tenth of its time
//! early, by chance, so that two ends with the same configuration seldom renew at the same moment (section 2.8.1). The
//! hard limit leaves a tenth, and never less than half a minute, for a renewal that is refused or gets lost.

use std::time::Duration;

use super::Path;
use super::child::ChildSa;
use super::dhcp_sa;
use crate::time::Instant;
use crate::wire::{NotifyType, Payload, find_notify};

/// Octets after which a CHILD_SA is renewed whatever is configured: RFC 8446 section 5.5 bounds AES-GCM to 2^24.5 records
/// of 2^14 octets under one key, 2^38.5 octets; every other cipher here bears more.
pub const CIPHER_LIMIT: u64 = 1 << 38;

/// The least time that a renewal is given before the hard limit.
const LEAST_MARGIN: Duration = Duration::from_secs(30);

/// A refused or postponed renewal is tried again after this, and up to as much more by chance.
const RETRY: Duration = Duration::from_secs(2);

/// The same after a refusal that will hardly change.
const RETRY_REFUSED: Duration = Duration::from_secs(60);

/// An SA whose successor is there is the peer's to delete; after this we do it.
pub(super) const REDUNDANT: Duration = Duration::from_secs(60);

/// How long a deleted CHILD_SA that was replaced still receives: packets may be overtaken by the exchange that deletes it.
pub(super) const GRACE: Duration = Duration::from_secs(3);

/// What is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetimes {
    /// After this the IKE_SA is rekeyed; `None`: never.
    pub ike: Option<Duration>,
    /// After this a CHILD_SA is rekeyed; `None`: never.
    pub child: Option<Duration>,
    /// After so many octets in one direction a CHILD_SA is rekeyed; `None`: [`CIPHER_LIMIT`].
    pub child_octets: Option<u64>,
}

/// What AUTH_LIFETIME says (RFC 4478 section 3): how long the authentication holds from now on.
pub(super) fn auth_lifetime(payloads: &[Payload]) -> Option<Duration> {
    let seconds = find_notify(payloads, NotifyType::AuthLifetime)?.data_u32()?;
    Some(Duration::from_secs(seconds.into()))
}

/// The two limits of one SA, as far as they are still to come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub(super) soft: Option<Instant>,
    pub(super) hard: Option<Instant>,
}

impl Limits {
    /// The limits of an SA made at `now`; `chance` is anything random, such as its SPI.
    pub(super) fn new(now: Instant, lifetime: Option<Duration>, chance: u32) -> Self {
        let Some(lifetime) = lifetime else { return Self::default() };
        let early = lifetime / 10 * (chance % 1024) / 1024;
        let margin = (lifetime / 10).max(LEAST_MARGIN);
        Self { soft: Some(now + (lifetime - early)), hard: Some(now + lifetime + margin) }
    }

    /// Renewal is due at once, for a reason other than time.
    pub(super) fn hasten(&mut self, now: Instant) {
        self.soft = Some(now);
        self.end_by(now + LEAST_MARGIN * 2);
    }

    /// A renewal did not come about; the next try, somewhat by chance.
    pub(super) fn retry(&mut self, now: Instant, refused: bool, chance: u32) {
        let wait = if refused { RETRY_REFUSED } else { RETRY };
        self.soft = Some(now + wait + wait * (chance % 1024) / 1024);
    }

    /// There is a successor: this one ends soon, whatever the peer does.
    pub(super) fn succeeded(&mut self, now: Instant) {
        self.soft = None;
        self.end_by(now + REDUNDANT);
    }

    /// The next moment at which something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        [self.soft, self.hard].into_iter().flatten().min()
    }

    /// Whether the soft limit has come; told once.
    pub(super) fn take_soft(&mut self, now: Instant) -> bool {
        self.soft.take_if(|at| *at <= now).is_some()
    }

    /// Whether the hard limit has come; told once.
    pub(super) fn take_hard(&mut self, now: Instant) -> bool {
        self.hard.take_if(|at| *at <= now).is_some()
    }

    fn end_by(&mut self, at: Instant) {
        self.hard = Some(self.hard.map_or(at, |hard| hard.min(at)));
    }
}

/// What belongs to a CHILD_SA besides its keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChildLife {
    /// Our SPI of it.
    pub(super) spi_in: u32,
    pub(super) limits: Limits,
    octets_limit: u64,
    /// Our SPI of the one that takes its place.
    pub(super) successor: Option<u32>,
    /// The peer made it to replace another, and nothing came in by it yet: it may not know our answer.
    pub(super) unproven: bool,
    /// Another one is used in its place, and the peer is to delete this one.
    pub(super) redundant: bool,
    /// Something came in by it.
    pub(super) heard: bool,
    /// It is not renewed, and ends alone.
    pub(super) passing: bool,
    /// By which path ESP comes in, once that is known to be of interest.
    pub(super) came_by: Option<Path>,
}

impl ChildLife {
    pub(super) fn new(now: Instant, lifetimes: &Lifetimes, child: &ChildSa) -> Self {
        let octets_limit = lifetimes.child_octets.unwrap_or(CIPHER_LIMIT).min(CIPHER_LIMIT);
        let passing = child.is_for_dhcp();
        let limits = if passing {
            Limits { soft: None, hard: Some(now + dhcp_sa::LIFETIME) }
        } else {
            Limits::new(now, lifetimes.child, child.spi_in)
        };
        Self {
            spi_in: child.spi_in,
            limits,
            passing,
            octets_limit,
            successor: None,
            unproven: false,
            redundant: false,
            heard: false,
            came_by: None,
        }
    }

    /// Whether there is another one in its place.
    pub(super) fn is_replaced(&self) -> bool {
        self.successor.is_some() || self.redundant
    }

    /// So many octets went through it in the busier direction.
    pub(super) fn note_octets(&mut self, now: Instant, octets: u64) {
        if octets >= self.octets_limit && self.successor.is_none() {
            self.octets_limit = u64::MAX;
            self.limits.hasten(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn renewal_is_due_up_to_a_tenth_early_and_the_end_comes_a_tenth_late() {
        let now = Instant::from_start(HOUR);
        let mut seen = Vec::new();
        for chance in 0..2048 {
            let limits = Limits::new(now, Some(HOUR), chance);
            let after = limits.soft.unwrap() - now;
            assert!(after <= HOUR && after > HOUR - HOUR / 10, "{after:?}");
            assert_eq!(limits.hard.unwrap() - now, HOUR + HOUR / 10);
            seen.push(after);
        }
        seen.sort();
        seen.dedup();
        assert!(seen.len() > 1000, "{} different times", seen.len());
        let short = Limits::new(now, Some(Duration::from_secs(10)), 0);
        assert_eq!(short.hard.unwrap() - now, Duration::from_secs(40));
    }

    #[test]
    fn a_limit_is_told_once_and_the_end_is_only_ever_brought_forward() {
        let now = Instant::from_start(HOUR);
        let mut limits = Limits::new(now, Some(HOUR), 0);
        assert!(!limits.take_soft(now));
        limits.hasten(now);
        assert!(limits.take_soft(now) && !limits.take_soft(now));
        assert_eq!(limits.next(), Some(now + LEAST_MARGIN * 2));
        limits.succeeded(now + HOUR);
        assert_eq!(limits.next(), Some(now + LEAST_MARGIN * 2));
        assert!(limits.take_hard(now + HOUR) && limits.next().is_none());
    }
}
