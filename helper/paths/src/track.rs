//! One path: is it alive, how long is a round trip, how much is lost.
//!
//! Evidence is an authenticated packet that came in, or an answer to a probe. Silence alone says nothing: a path is
//! suspected when data was sent and nothing came back for longer than the path's round trip explains, and only probes that
//! stay without an answer while nothing else comes in condemn it.

use std::collections::VecDeque;
use std::time::Duration;

use ropewalk_ike::time::Instant;

use crate::PathId;

/// Data without anything coming back for this long, or one and a half round trips, is suspicious.
const SUSPICION: Duration = Duration::from_millis(150);
/// Between the probes of a suspected path.
const HURRY: Duration = Duration::from_millis(100);
/// Probes without an answer that condemn a suspected path.
const CONDEMNING: usize = 3;
/// A probe counts as unanswered after the measured round trip and four times its variation, but not more than half of it or
/// 100 ms, within these bounds.
const LEAST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// Answers in a row after which a path that failed is trusted again.
const REHABILITATING: u32 = 3;
/// Between the probes of a failed path, of one that stands by, and of one on a metered link.
const FAILED_PROBES: Duration = Duration::from_secs(2);
const STANDBY_PROBES: Duration = Duration::from_secs(5);
const METERED_PROBES: Duration = Duration::from_secs(60);
/// Probes over which loss is counted.
const LOSS_WINDOW: u32 = 32;
/// Fewer probes than this say nothing about loss.
const LEAST_SAMPLES: u32 = 8;
/// Above this share of lost probes a path is degraded.
const LOSS_LIMIT: f64 = 0.25;
/// A round trip this many times the best one, and this much longer, is degraded.
const RTT_FACTOR: u32 = 4;
const RTT_SLACK: Duration = Duration::from_millis(50);
/// Outstanding probes that are remembered.
const MOST_PROBES: usize = 64;

/// How a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing has come in by it yet.
    Unproven,
    /// It works.
    Good,
    /// It works badly: much is lost, or it became slow.
    Degraded,
    /// Data was sent and nothing comes back; it is being probed.
    Suspect,
    /// Probes stay without an answer.
    Failed,
    /// Its interface has no carrier or no address.
    Down,
}

/// A probe to send: something that only the gateway can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// By which path.
    pub path: PathId,
    /// To be given back with the answer.
    pub token: u64,
}

/// One path's record.
#[derive(Clone, Debug)]
pub struct Track {
    carrier: bool,
    metered: bool,
    /// Whether data goes by it: it is then probed less, for the data tells.
    carrying: bool,
    proven: bool,
    failed: bool,
    /// Data was sent then, and nothing has come in since.
    unanswered: Option<Instant>,
    last_evidence: Option<Instant>,
    probes: VecDeque<(u64, Instant)>,
    next_probe: Instant,
    /// The last look at the clock.
    looked_at: Instant,
    answers_in_a_row: u32,
    srtt: Option<Duration>,
    variation: Duration,
    best_rtt: Option<Duration>,
    /// A bit for each of the last probes, the youngest lowest: was it answered?
    history: u32,
    samples: u32,
}

impl Track {
    /// A path that has just come up: probed at once.
    #[must_use]
    pub fn new(now: Instant, metered: bool) -> Self {
        Self {
            carrier: true,
            metered,
            carrying: false,
            proven: false,
            failed: false,
            unanswered: None,
            last_evidence: None,
            probes: VecDeque::new(),
            next_probe: now,
            looked_at: now,
            answers_in_a_row: 0,
            srtt: None,
            variation: Duration::ZERO,
            best_rtt: None,
            history: 0,
            samples: 0,
        }
    }

    /// How it is.
    #[must_use]
    pub fn health(&self, now: Instant) -> Health {
        if !self.carrier {
            Health::Down
        } else if self.failed {
            Health::Failed
        } else if !self.proven {
            Health::Unproven
        } else if self.suspect_at().is_some_and(|at| now >= at) {
            Health::Suspect
        } else if self.is_degraded() {
            Health::Degraded
        } else {
            Health::Good
        }
    }

    /// The smoothed round trip time.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.srtt
    }

    /// The share of probes that were lost, 0 to 1; `None` while too few were sent.
    #[must_use]
    pub fn loss(&self) -> Option<f64> {
        (self.samples >= LEAST_SAMPLES)
            .then(|| f64::from(self.samples - self.history.count_ones()) / f64::from(self.samples))
    }

    /// When it last showed that it works.
    #[must_use]
    pub fn last_evidence(&self) -> Option<Instant> {
        self.last_evidence
    }

    /// Whether the link is metered.
    #[must_use]
    pub fn is_metered(&self) -> bool {
        self.metered
    }

    /// Less is better: what a packet has to expect.
    #[must_use]
    pub fn cost(&self) -> Duration {
        let rtt = self.srtt.unwrap_or(LONGEST_WAIT);
        // A lost packet costs about a retransmission timeout.
        (rtt + self.variation * 4).mul_f64(1.0 + 10.0 * self.loss().unwrap_or(0.0))
    }

    pub(crate) fn set_metered(&mut self, metered: bool) {
        self.metered = metered;
    }

    pub(crate) fn set_carrying(&mut self, now: Instant, carrying: bool) {
        if self.carrying != carrying {
            self.carrying = carrying;
            self.unanswered = None;
            self.next_probe = self.next_probe.min(now + self.interval());
        }
    }

    /// What it was says nothing about what it is now: with a new carrier it has to prove itself again.
    pub(crate) fn set_carrier(&mut self, now: Instant, carrier: bool) {
        if self.carrier == carrier {
            return;
        }
        *self = Self { carrier, ..Self::new(now, self.metered) };
    }

    /// Data was sent by it.
    pub(crate) fn sent(&mut self, at: Instant) {
        if self.unanswered.is_none() {
            self.unanswered = Some(at);
        }
    }

    /// Authenticated data came in by it.
    pub(crate) fn received(&mut self, at: Instant) {
        if self.carrier && !self.failed {
            self.proven = true;
        }
        self.evidence(at);
    }

    /// An answer to a probe, and the round trip if the answer tells it; false when no such probe is outstanding.
    pub(crate) fn answered(&mut self, now: Instant, token: u64, rtt: Option<Duration>) -> bool {
        let Some(at) = self.probes.iter().position(|(known, _)| *known == token) else { return false };
        let oldest = self.probes.front().map(|(_, sent)| now - *sent);
        self.probes.remove(at);
        // At first something that is rather too long is better than nothing.
        if let Some(rtt) = rtt.or(oldest.filter(|_| self.srtt.is_none())) {
            self.measure(rtt);
        }
        self.count(true);
        self.answers_in_a_row += 1;
        if self.failed && self.answers_in_a_row >= REHABILITATING {
            // What was lost while it was dead says nothing about it now.
            (self.failed, self.history, self.samples) = (false, 0, 0);
        }
        self.proven |= self.carrier && !self.failed;
        self.evidence(now);
        true
    }

    /// Probes as soon as it may.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.next_probe = self.next_probe.min(now);
    }

    /// The clock stood still for this long, as when the machine was too busy to run us: what was waited for may have come.
    pub(crate) fn forgive(&mut self, late: Duration) {
        self.unanswered = self.unanswered.map(|at| at + late);
        for (_, sent) in &mut self.probes {
            *sent = *sent + late;
        }
    }

    /// When something is due.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        if !self.carrier {
            return None;
        }
        // Of a suspected path they stay where they are when they are overdue.
        let overdue = self.probes.iter().map(|(_, sent)| *sent + self.patience());
        let lost = overdue.filter(|at| *at > self.looked_at).min();
        let suspicion = self.suspect_at().filter(|_| !self.is_hurrying());
        [Some(self.next_probe), lost, suspicion].into_iter().flatten().min()
    }

    /// Acts on the clock; true when a probe is to be sent with this token.
    pub(crate) fn tick(&mut self, now: Instant, token: u64) -> bool {
        if !self.carrier {
            return false;
        }
        self.looked_at = now;
        let suspect = self.suspect_at().is_some_and(|at| now >= at);
        if suspect && !self.is_hurrying() {
            self.next_probe = now;
        }
        self.condemn(now, suspect);
        if now < self.next_probe {
            return false;
        }
        self.probes.push_back((token, now));
        if self.probes.len() > MOST_PROBES {
            self.probes.pop_front();
        }
        let hurry = suspect || (!self.proven && !self.failed);
        self.next_probe = now + if hurry { HURRY } else { self.interval() };
        true
    }

    fn condemn(&mut self, now: Instant, suspect: bool) {
        let patience = self.patience();
        let overdue = self.probes.iter().filter(|(_, sent)| now >= *sent + patience).count();
        let silent = self.last_evidence.is_none_or(|at| now >= at + patience);
        if suspect && silent && overdue >= CONDEMNING {
            self.failed = true;
            self.unanswered = None;
        }
        if suspect {
            return; // They are counted when the suspicion is over, one way or the other.
        }
        while self.probes.front().is_some_and(|(_, sent)| now >= *sent + patience) {
            self.probes.pop_front();
            self.answers_in_a_row = 0;
            self.count(false);
            // A path that stands by has nothing but probes to prove itself with.
            if !self.carrying && self.history & lowest(CONDEMNING) == 0 && self.samples as usize >= CONDEMNING
            {
                self.failed = true;
            }
        }
    }

    fn evidence(&mut self, at: Instant) {
        self.last_evidence = Some(self.last_evidence.map_or(at, |last| last.max(at)));
        self.unanswered = None;
        if self.is_hurrying() {
            // What is still outstanding is late rather than lost, or lost for a reason that has passed. But while no round trip
            // is known the answer to the newest is waited for: without one, silence takes long to be told.
            let wanted = usize::from(self.srtt.is_none());
            self.probes.drain(..self.probes.len().saturating_sub(wanted));
            self.next_probe = at + self.interval();
        }
    }

    fn is_hurrying(&self) -> bool {
        self.probes.back().is_some_and(|(_, sent)| self.next_probe <= *sent + HURRY)
    }

    fn suspect_at(&self) -> Option<Instant> {
        let after = SUSPICION.max(self.srtt.unwrap_or_default().mul_f64(1.5));
        self.unanswered.filter(|_| !self.failed).map(|at| at + after)
    }

    fn patience(&self) -> Duration {
        match self.srtt {
            Some(rtt) => {
                let spread = (self.variation * 4).min((rtt / 2).max(HURRY));
                (rtt + spread).clamp(LEAST_WAIT, LONGEST_WAIT)
            }
            None => Duration::from_secs(1),
        }
    }

    fn interval(&self) -> Duration {
        if self.failed {
            FAILED_PROBES.max(if self.metered { METERED_PROBES } else { Duration::ZERO })
        } else if self.metered {
            METERED_PROBES
        } else {
            STANDBY_PROBES
        }
    }

    /// Whether so much is lost that it works badly, whatever its round trip time.
    #[must_use]
    pub fn is_lossy(&self) -> bool {
        self.loss().is_some_and(|loss| loss > LOSS_LIMIT)
    }

    fn is_degraded(&self) -> bool {
        let slow = match (self.srtt, self.best_rtt) {
            (Some(now), Some(best)) => now > best * RTT_FACTOR && now > best + RTT_SLACK,
            _ => false,
        };
        self.is_lossy() || slow
    }

    /// RFC 6298 section 2.
    fn measure(&mut self, sample: Duration) {
        match self.srtt {
            None => (self.srtt, self.variation) = (Some(sample), sample / 2),
            Some(srtt) => {
                self.variation = (self.variation * 3 + srtt.abs_diff(sample)) / 4;
                self.srtt = Some((srtt * 7 + sample) / 8);
            }
        }
        self.best_rtt = Some(self.best_rtt.map_or(sample, |best| best.min(sample)));
    }

    fn count(&mut self, answered: bool) {
        self.history = self.history << 1 | u32::from(answered);
        self.samples = (self.samples + 1).min(LOSS_WINDOW);
    }
}

fn lowest(bits: usize) -> u32 {
    (1 << bits) - 1
}
