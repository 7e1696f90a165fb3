//! One path: is it alive, how long is a round trip, how much is lost.
//!
//! Evidence is an authenticated packet that came in, or an answer to a probe. Silence alone says nothing: a path is
//! suspected when data was sent and nothing came back for longer than the path's round trip explains, or a probe sent
//! meanwhile stays without an answer; and only probes that stay without an answer while nothing else comes in condemn it.
//!
//! Where a round trip is long there is no time to begin with probes when silence is noticed. While data flow by such a path
//! a probe is always under way, each as three copies: the first three that are lost are overdue within a second of the
//! first lost data, up to a round trip of 0.4 s.

use std::collections::VecDeque;
use std::time::Duration;

use ropewalk_ike::time::Instant;

use crate::PathId;
use crate::loss::{DataLoss, Direction};

/// Data without anything coming back for this long, or one and a half round trips, is suspicious.
const SUSPICION: Duration = Duration::from_millis(150);
/// Between the probes of a suspected path.
const HURRY: Duration = Duration::from_millis(100);
/// Probes without an answer that condemn a suspected path.
const CONDEMNING: usize = 3;
/// A probe counts as unanswered after the measured round trip and four times its variation, but not more than a quarter of it
/// or 100 ms, within these bounds.
const LEAST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// Answers in a row after which a path that failed is trusted again.
const REHABILITATING: u32 = 3;
/// Between the probes of a failed path, of one that stands by, and of one on a metered link.
const FAILED_PROBES: Duration = Duration::from_secs(2);
const STANDBY_PROBES: Duration = Duration::from_secs(5);
const METERED_PROBES: Duration = Duration::from_secs(60);
/// Between the probes of a path while data flow by it, of one that loses much, and of either on a metered link.
const FLOWING_PROBES: Duration = Duration::from_secs(1);
const METERED_FLOWING_PROBES: Duration = Duration::from_secs(5);
/// Data flow when some were sent within this.
const FLOWING: Duration = Duration::from_secs(1);
/// From this round trip on a probe is always under way while data flow: what begins with silence would take too long.
const LONG_RTT: Duration = Duration::from_millis(120);
/// From one such probe to the next, when the answer comes before.
const WATCH_PROBES: Duration = Duration::from_millis(250);
/// Between the copies of such a probe. Long enough for what makes a router drop several packets in a row to be over, and
/// short enough for a round trip of 0.4 s: one that was lost begins up to 0.4 s after the first lost data, is overdue after
/// 0.4 s more and some variation, and its third copy twice this later.
const COPY_GAP: Duration = Duration::from_millis(30);
const COPIES: u8 = 2;
/// Probes over which loss is counted.
const LOSS_WINDOW: u32 = 32;
/// Fewer probes than this say nothing about loss.
const LEAST_SAMPLES: u32 = 8;
/// Above this share of lost packets, there and back, a path is degraded, and until it is below the other one.
const LOSS_LIMIT: f64 = 0.25;
const LOSS_FORGIVEN: f64 = 0.125;
/// Probes that show that a path has got over its losses, when no data do.
const FORGIVING_SAMPLES: u32 = 16;
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

/// How long an answer took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundTrip {
    /// The probe was sent once.
    Exactly(Duration),
    /// It is the answer to one of several equal ones, the first of which was sent so long ago.
    AtMost(Duration),
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
    last_sent: Option<Instant>,
    /// Those that were not answered.
    probes: VecDeque<Asked>,
    next_probe: Instant,
    /// When the last probe was sent that is no copy of another one, and the copies that it gets yet.
    asked_at: Instant,
    copies: u8,
    /// Probed as fast as may be, because of a suspicion or for a first sign of life.
    hurried: bool,
    /// The last look at the clock.
    looked_at: Instant,
    answers_in_a_row: u32,
    srtt: Option<Duration>,
    variation: Duration,
    best_rtt: Option<Duration>,
    /// A bit for each of the last probes, the youngest lowest: was it answered?
    history: u32,
    samples: u32,
    data: DataLoss,
    /// So much was lost that it is not to be used while there is something better.
    lossy: bool,
}

/// A probe that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    token: u64,
    sent: Instant,
    /// Whether it says something about loss: not the copy of another one.
    counts: bool,
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
            last_sent: None,
            probes: VecDeque::new(),
            next_probe: now,
            asked_at: now,
            copies: 0,
            hurried: false,
            looked_at: now,
            answers_in_a_row: 0,
            srtt: None,
            variation: Duration::ZERO,
            best_rtt: None,
            history: 0,
            samples: 0,
            data: DataLoss::default(),
            lossy: false,
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

    /// The share of packets that are lost there and back, 0 to 1, by data as far as they tell, else by probes; `None` while
    /// there were too few.
    #[must_use]
    pub fn loss(&self) -> Option<f64> {
        let probes = (self.samples >= LEAST_SAMPLES)
            .then(|| f64::from(self.samples - self.history.count_ones()) / f64::from(self.samples));
        match (self.data.rate(Direction::In), self.data.rate(Direction::Out)) {
            (Some(inbound), Some(outbound)) => Some(1.0 - (1.0 - inbound) * (1.0 - outbound)),
            // Data of one direction are half of the truth.
            (Some(half), None) | (None, Some(half)) => Some(half.max(probes.unwrap_or_default())),
            (None, None) => probes,
        }
    }

    /// Whether it has shown lately enough that it works to take over without being asked once more. Where a round trip is long
    /// the answer would come too late, and the question would be in the way of what the gateway has to be told then.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        let long = self.srtt.is_some_and(|rtt| rtt >= LONG_RTT);
        let limit = if long { STANDBY_PROBES + FLOWING_PROBES } else { FLOWING_PROBES };
        self.last_evidence.is_some_and(|at| now < at + limit)
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
        self.last_sent = Some(self.last_sent.map_or(at, |last| last.max(at)));
        if self.carrying && self.probes.is_empty() {
            // It was probed seldom while nothing went by it.
            let next = self.asked_at + self.interval();
            self.next_probe = self.next_probe.min(if next > at { next } else { at });
        }
    }

    /// Of the data that went one way some have arrived and some not; true when what is to be thought of the path has changed.
    pub(crate) fn counted(&mut self, now: Instant, direction: Direction, arrived: u64, lost: u64) -> bool {
        self.data.count(now, direction, arrived, lost);
        self.judge_loss()
    }

    /// Authenticated data came in by it.
    pub(crate) fn received(&mut self, at: Instant) {
        if self.carrier && !self.failed {
            self.proven = true;
        }
        self.evidence(at);
    }

    /// An answer to a probe; false when no such probe is outstanding.
    pub(crate) fn answered(&mut self, now: Instant, token: u64, rtt: RoundTrip) -> bool {
        let Some(asked) = self.probes.iter().copied().find(|asked| asked.token == token) else {
            return false;
        };
        // What was sent before is answered with it: the peer takes one at a time.
        self.probes.retain(|other| other.sent > asked.sent);
        match rtt {
            RoundTrip::Exactly(rtt) => self.measure(rtt),
            RoundTrip::AtMost(longest) => {
                // Of three copies the first is answered, unless it was lost: rather too long than nothing.
                let copies = !self.hurried && longest <= now - self.asked_at + COPY_GAP / 4;
                if copies || self.srtt.is_none() {
                    self.measure(longest);
                }
            }
        }
        self.count(true);
        self.answers_in_a_row += 1;
        if self.failed && self.answers_in_a_row >= REHABILITATING {
            // What was lost while it was dead says nothing about it now.
            (self.failed, self.history, self.samples) = (false, 0, 0);
            (self.lossy, self.data) = (false, DataLoss::default());
        }
        self.proven |= self.carrier && !self.failed;
        self.copies = 0;
        if self.is_flowing(now) && !self.hurried {
            let next = self.asked_at + self.interval();
            self.next_probe = if next > now { next } else { now };
        }
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
        for asked in &mut self.probes {
            asked.sent = asked.sent + late;
        }
    }

    /// When something is due.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        if !self.carrier {
            return None;
        }
        // Of a suspected path they stay where they are when they are overdue.
        let overdue = self.probes.iter().map(|asked| asked.sent + self.patience());
        let lost = overdue.filter(|at| *at > self.looked_at).min();
        let suspicion = self.suspect_at().filter(|_| !self.hurried);
        [Some(self.next_probe), lost, suspicion].into_iter().flatten().min()
    }

    /// Acts on the clock; true when a probe is to be sent with this token.
    pub(crate) fn tick(&mut self, now: Instant, token: u64) -> bool {
        if !self.carrier {
            return false;
        }
        self.looked_at = now;
        self.data.forget_old(now);
        let suspect = self.suspect_at().is_some_and(|at| now >= at);
        if suspect && !self.hurried {
            (self.next_probe, self.hurried) = (now, true);
        }
        self.condemn(now, suspect);
        if now < self.next_probe {
            return false;
        }
        let is_copy = self.copies > 0;
        self.probes.push_back(Asked { token, sent: now, counts: !is_copy });
        if self.probes.len() > MOST_PROBES {
            self.probes.pop_front();
        }
        self.hurried = suspect || (!self.proven && !self.failed);
        if self.hurried {
            self.copies = 0;
        } else if is_copy {
            self.copies -= 1;
        } else {
            self.asked_at = now;
            self.copies = if self.is_watched(now) { COPIES } else { 0 };
        }
        self.next_probe = if self.hurried {
            now + HURRY
        } else if self.copies > 0 {
            now + COPY_GAP
        } else {
            // Not before the answer, which brings the next one nearer.
            self.asked_at + self.interval().max(self.patience())
        };
        true
    }

    fn condemn(&mut self, now: Instant, suspect: bool) {
        let patience = self.patience();
        let overdue = self.probes.iter().filter(|asked| now >= asked.sent + patience).count();
        let silent = self.last_evidence.is_none_or(|at| now >= at + patience);
        if suspect && silent && overdue >= CONDEMNING {
            self.failed = true;
            self.unanswered = None;
        }
        if suspect {
            return; // They are counted when the suspicion is over, one way or the other.
        }
        while let Some(lost) = self.probes.front().copied().filter(|asked| now >= asked.sent + patience) {
            self.probes.pop_front();
            self.answers_in_a_row = 0;
            if lost.counts {
                self.count(false);
            }
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
        if std::mem::take(&mut self.hurried) {
            // What is still outstanding is late rather than lost, or lost for a reason that has passed. But while no round trip
            // is known the answer to the newest is waited for: without one, silence takes long to be told.
            let wanted = usize::from(self.srtt.is_none());
            self.probes.drain(..self.probes.len().saturating_sub(wanted));
            self.next_probe = at + self.interval();
        }
    }

    fn suspect_at(&self) -> Option<Instant> {
        let unanswered = self.unanswered.filter(|_| !self.failed)?;
        let silence = unanswered + SUSPICION.max(self.srtt.unwrap_or_default().mul_f64(1.5));
        let overdue = self.probes.front().filter(|_| self.carrying);
        let overdue = overdue.map(|asked| (asked.sent + self.patience()).max(unanswered + SUSPICION));
        Some(overdue.map_or(silence, |overdue| overdue.min(silence)))
    }

    fn is_flowing(&self, now: Instant) -> bool {
        self.carrying && self.last_sent.is_some_and(|at| now <= at + FLOWING)
    }

    fn is_watched(&self, now: Instant) -> bool {
        let long = self.srtt.is_some_and(|rtt| rtt >= LONG_RTT);
        long && !self.metered && self.is_flowing(now)
    }

    fn patience(&self) -> Duration {
        match self.srtt {
            Some(rtt) => {
                let spread = (self.variation * 4).min((rtt / 4).max(HURRY));
                (rtt + spread).clamp(LEAST_WAIT, LONGEST_WAIT)
            }
            None => Duration::from_secs(1),
        }
    }

    fn interval(&self) -> Duration {
        let now = self.looked_at;
        if self.failed {
            FAILED_PROBES.max(if self.metered { METERED_PROBES } else { Duration::ZERO })
        } else if self.is_watched(now) {
            WATCH_PROBES
        } else if self.is_flowing(now) || self.lossy {
            if self.metered { METERED_FLOWING_PROBES } else { FLOWING_PROBES }
        } else if self.metered {
            METERED_PROBES
        } else {
            STANDBY_PROBES
        }
    }

    /// Whether so much is lost that it works badly, whatever its round trip time.
    #[must_use]
    pub fn is_lossy(&self) -> bool {
        self.lossy
    }

    /// Has it begun to lose much, or got over it? True when that has changed.
    fn judge_loss(&mut self) -> bool {
        let Some(loss) = self.loss() else { return false };
        if !self.lossy && loss > LOSS_LIMIT {
            // What comes is to show that it has got over it, not what was.
            (self.history, self.samples) = (0, 0);
            self.lossy = true;
            return true;
        }
        let shown = self.samples >= FORGIVING_SAMPLES || self.data.rate(Direction::Out).is_some();
        if self.lossy && shown && loss < LOSS_FORGIVEN {
            self.lossy = false;
            return true;
        }
        false
    }

    fn is_degraded(&self) -> bool {
        let slow = match (self.srtt, self.best_rtt) {
            (Some(now), Some(best)) => now > best * RTT_FACTOR && now > best + RTT_SLACK,
            _ => false,
        };
        self.lossy || slow
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
        self.judge_loss();
    }
}

fn lowest(bits: usize) -> u32 {
    (1 << bits) - 1
}
