//! All paths of a connection, and the choice among them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ropewalk_ike::time::Instant;

use crate::PathId;
use crate::loss::Direction;
use crate::shares::Shares;
use crate::track::{Health, Probe, RoundTrip, Track};

/// A timer that comes later than this says that we did not run, not that the network was silent.
const STALL: Duration = Duration::from_millis(250);
/// A degraded path is left only after this, and not more often.
const HOLD: Duration = Duration::from_secs(2);
const LEAST_STAY: Duration = Duration::from_secs(10);
/// An unmetered path must have worked for so long before it takes over from a metered one.
const UNMETERED_PROOF: Duration = Duration::from_secs(3);
/// What a path loses above twice of what another one does, when it is to be left alone for that.
const MUCH_WORSE: f64 = 0.1;
/// Throughput is measured over this.
const METER: Duration = Duration::from_secs(1);
/// The weights of shares; they change only when they would by more than a quarter.
const FULL_WEIGHT: u64 = 64;
/// A path that carries little keeps this weight: only with flows on it can it show what it carries.
const LEAST_WEIGHT: u64 = FULL_WEIGHT / 4;

/// What several paths are used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// One carries, the others stand by.
    #[default]
    Failover,
    /// Flows are spread over those that work.
    Balance,
    /// One carries, and small packets go by a second one too.
    Redundant,
}

/// What metered links are used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UseMetered {
    /// When nothing else works.
    #[default]
    Standby,
    /// Like any other.
    Yes,
    /// Never.
    No,
}

/// Which path carries what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Counts the changes; the gateway takes the newest.
    pub counter: u32,
    /// The path of everything that is not spread; `None` when there is no path at all.
    pub carrying: Option<PathId>,
    /// How flows are spread; empty unless they are.
    pub shares: Shares,
    /// The path of second copies.
    pub copies: Option<PathId>,
}

/// A path, to be shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PathView {
    /// Which.
    pub path: PathId,
    /// How it is.
    pub health: Health,
    /// The smoothed round trip time.
    pub rtt: Option<Duration>,
    /// The share of packets lost there and back, 0 to 1: of data as far as they tell, else of probes.
    pub loss: Option<f64>,
    /// Whether data goes by it.
    pub carrying: bool,
}

#[derive(Debug)]
struct Member {
    track: Track,
    good_since: Option<Instant>,
    degraded_since: Option<Instant>,
    octets: u64,
    /// Since when it loses much, and whether it gets no flows because of that.
    lossy_since: Option<Instant>,
    unfit: bool,
    /// The most octets in one [`METER`] so far, fading.
    capacity: u64,
}

/// The path manager.
#[derive(Debug)]
pub struct Manager {
    policy: Policy,
    use_metered: UseMetered,
    members: BTreeMap<PathId, Member>,
    assignment: Assignment,
    chosen_at: Option<Instant>,
    token: u64,
    metered_at: Instant,
    /// The last look at the clock.
    looked_at: Instant,
    probes: VecDeque<Probe>,
    changed: bool,
}

impl Manager {
    /// A manager without paths.
    #[must_use]
    pub fn new(policy: Policy, use_metered: UseMetered) -> Self {
        Self {
            policy,
            use_metered,
            members: BTreeMap::new(),
            assignment: Assignment::default(),
            chosen_at: None,
            token: 0,
            metered_at: Instant::ZERO,
            looked_at: Instant::ZERO,
            probes: VecDeque::new(),
            changed: false,
        }
    }

    /// A path is there: its CHILD_SA is installed.
    pub fn add(&mut self, now: Instant, path: PathId, metered: bool) {
        let track = Track::new(now, metered);
        let member = Member {
            track,
            good_since: None,
            degraded_since: None,
            lossy_since: None,
            unfit: false,
            octets: 0,
            capacity: 0,
        };
        self.members.insert(path, member);
        self.handle_timeout(now);
    }

    /// A path is gone, with its SAs.
    pub fn remove(&mut self, now: Instant, path: PathId) {
        self.members.remove(&path);
        self.choose(now);
    }

    /// The carrier or the address of a path's interface went or came.
    pub fn set_carrier(&mut self, now: Instant, path: PathId, carrier: bool) {
        if let Some(member) = self.members.get_mut(&path) {
            member.track.set_carrier(now, carrier);
        }
        self.handle_timeout(now);
    }

    /// The link became metered, or is no longer.
    pub fn set_metered(&mut self, now: Instant, path: PathId, metered: bool) {
        if let Some(member) = self.members.get_mut(&path) {
            member.track.set_metered(metered);
        }
        self.choose(now);
    }

    /// Another policy, from now on.
    pub fn set_policy(&mut self, now: Instant, policy: Policy) {
        if policy == Policy::Balance && self.policy != policy {
            // What one path carried for all says nothing of the others.
            self.metered_at = now;
            for member in self.members.values_mut() {
                (member.octets, member.capacity) = (0, 0);
            }
        }
        self.policy = policy;
        self.choose(now);
    }

    /// Data went out by a path.
    pub fn sent(&mut self, at: Instant, path: PathId, octets: u64) {
        if let Some(member) = self.members.get_mut(&path) {
            member.track.sent(at);
            member.octets += octets;
        }
    }

    /// Authenticated data came in by a path.
    pub fn received(&mut self, at: Instant, path: PathId, octets: u64) {
        if let Some(member) = self.members.get_mut(&path) {
            member.track.received(at);
            member.octets += octets;
        }
    }

    /// Of the data that went by a path one way so many packets have arrived, and so many have not.
    pub fn counted(&mut self, now: Instant, path: PathId, direction: Direction, arrived: u64, lost: u64) {
        if let Some(member) = self.members.get_mut(&path)
            && member.track.counted(now, direction, arrived, lost)
        {
            self.choose(now);
        }
    }

    /// A probe was answered, after this round trip. One that nobody sent, or that was answered before, changes nothing.
    pub fn probe_answered(&mut self, now: Instant, path: PathId, token: u64, rtt: RoundTrip) {
        if let Some(member) = self.members.get_mut(&path)
            && member.track.answered(now, token, rtt)
        {
            self.choose(now);
        }
    }

    /// The next probe to send.
    pub fn poll_probe(&mut self) -> Option<Probe> {
        self.probes.pop_front()
    }

    /// The assignment, when it has changed.
    pub fn poll_change(&mut self) -> Option<Assignment> {
        std::mem::take(&mut self.changed).then(|| self.assignment.clone())
    }

    /// The assignment in force.
    #[must_use]
    pub fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// All paths, to be shown.
    #[must_use]
    pub fn paths(&self, now: Instant) -> Vec<PathView> {
        let view = |(path, member): (&PathId, &Member)| PathView {
            path: *path,
            health: member.track.health(now),
            rtt: member.track.rtt(),
            loss: member.track.loss(),
            carrying: self.carries(*path),
        };
        self.members.iter().map(view).collect()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let tracks = self.members.values().filter_map(|member| member.track.timeout());
        let settling = self.settles_at();
        tracks.chain(settling).chain(self.meter_at()).min()
    }

    /// Acts on the clock.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late = self.poll_timeout().map_or(Duration::ZERO, |due| now - due);
        self.looked_at = now;
        let mut suspicion = false;
        for (path, member) in &mut self.members {
            if late > STALL {
                member.track.forgive(late);
            }
            self.token += 1;
            if member.track.tick(now, self.token) {
                self.probes.push_back(Probe { path: *path, token: self.token });
            }
            suspicion |= member.track.health(now) == Health::Suspect;
        }
        if suspicion {
            // Whoever may have to take over shows now that it can.
            for (path, member) in &mut self.members {
                if !member.track.is_fresh(now) && member.track.health(now) != Health::Suspect {
                    member.track.hurry(now);
                    self.token += 1;
                    if member.track.tick(now, self.token) {
                        self.probes.push_back(Probe { path: *path, token: self.token });
                    }
                }
            }
        }
        self.measure(now);
        self.choose(now);
    }

    fn carries(&self, path: PathId) -> bool {
        let shared = self.assignment.shares.paths().iter().any(|(shared, _)| *shared == path);
        self.assignment.carrying == Some(path) || shared
    }

    /// Throughput is looked at while flows are spread.
    fn meter_at(&self) -> Option<Instant> {
        (self.policy == Policy::Balance && self.members.len() > 1).then(|| self.metered_at + METER)
    }

    fn measure(&mut self, now: Instant) {
        if now < self.metered_at + METER {
            return;
        }
        self.metered_at = now;
        for member in self.members.values_mut() {
            let seen = std::mem::take(&mut member.octets);
            member.capacity = seen.max(member.capacity - member.capacity / 64);
        }
    }

    /// When waiting for the end of a [`HOLD`] or of a proof has an end.
    fn settles_at(&self) -> Option<Instant> {
        let carrying = self.assignment.carrying.and_then(|path| self.members.get(&path))?;
        let stay = self.chosen_at.map(|at| at + LEAST_STAY).unwrap_or_default();
        let degraded = carrying.degraded_since.map(|since| (since + HOLD).max(stay));
        let lossy = self.members.values().filter(|member| !member.unfit);
        let lossy = lossy.filter_map(|member| member.lossy_since).map(|since| since + HOLD);
        let unmetered = self.members.values().filter(|member| !member.track.is_metered());
        let proofs = unmetered.filter_map(|member| member.good_since).map(|since| since + UNMETERED_PROOF);
        let cheaper = carrying.track.is_metered() && self.use_metered == UseMetered::Standby;
        // What is over has been looked at; more comes of it only when something else changes.
        proofs.filter(|_| cheaper).chain(degraded).chain(lossy).filter(|at| *at > self.looked_at).min()
    }

    fn choose(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            let health = member.track.health(now);
            note(&mut member.good_since, health == Health::Good, now);
            note(&mut member.degraded_since, health == Health::Degraded, now);
            note(&mut member.lossy_since, member.track.is_lossy(), now);
            member.unfit &= member.track.is_lossy();
        }
        self.judge_losses(now);
        let carrying = self.choose_carrying(now);
        let shares = match self.policy {
            Policy::Balance => self.share(now),
            Policy::Failover | Policy::Redundant => Shares::default(),
        };
        let copies = match self.policy {
            Policy::Redundant => self.best(now, carrying),
            Policy::Failover | Policy::Balance => None,
        };
        let same = (self.assignment.carrying, &self.assignment.shares, self.assignment.copies)
            == (carrying, &shares, copies);
        if same {
            return;
        }
        if self.assignment.carrying != carrying {
            tracing::info!(from = ?self.assignment.carrying, to = ?carrying, "another path carries");
            self.chosen_at = Some(now);
        }
        let counter = self.assignment.counter.wrapping_add(1);
        self.assignment = Assignment { counter, carrying, shares, copies };
        self.changed = true;
        let carriers: Vec<PathId> = self.members.keys().copied().filter(|path| self.carries(*path)).collect();
        for (path, member) in &mut self.members {
            member.track.set_carrying(now, carriers.contains(path));
        }
    }

    /// A path that loses much gets no flows, unless the others are hardly better: when there is more than all of them carry,
    /// all of them lose.
    fn judge_losses(&mut self, now: Instant) {
        let loss = |member: &Member| member.track.loss().unwrap_or_default();
        let held = |member: &Member| member.lossy_since.is_some_and(|since| now >= since + HOLD);
        let others_loss = |path: &PathId| {
            let others = self.working(now).filter(|(other, member)| *other != path && !member.unfit);
            others.map(|(_, member)| loss(member)).min_by(f64::total_cmp)
        };
        let worse = |path: &PathId, member: &Member| {
            others_loss(path).is_some_and(|other| loss(member) > other * 2.0 + MUCH_WORSE)
        };
        let unfit: Vec<PathId> = self
            .members
            .iter()
            .filter(|(path, member)| held(member) && worse(path, member))
            .map(|(path, _)| *path)
            .collect();
        for path in unfit {
            if let Some(member) = self.members.get_mut(&path) {
                member.unfit = true;
            }
        }
    }

    fn choose_carrying(&self, now: Instant) -> Option<PathId> {
        let current = self.assignment.carrying.and_then(|path| Some((path, self.members.get(&path)?)));
        let Some((path, member)) = current else {
            // The first one: there is nothing to lose.
            return self.best(now, None).or_else(|| {
                let up = |member: &&Member| member.track.health(now) != Health::Down;
                let usable = self.members.iter().filter(|(_, member)| up(member) && self.is_allowed(member));
                usable.map(|(path, _)| *path).next()
            });
        };
        let stayed = self.chosen_at.is_none_or(|at| now >= at + LEAST_STAY);
        let leave = match member.track.health(now) {
            Health::Down | Health::Failed => true,
            // What is not spread goes where the flows go.
            Health::Degraded if self.policy == Policy::Balance && member.unfit => true,
            Health::Degraded => stayed && member.degraded_since.is_some_and(|since| now >= since + HOLD),
            Health::Good | Health::Unproven | Health::Suspect => false,
        };
        let other = self.best(now, Some(path));
        if leave {
            let degraded = member.track.health(now) == Health::Degraded;
            let better = |other: &PathId| {
                !degraded
                    || self.members.get(other).is_some_and(|other| other.track.health(now) == Health::Good)
            };
            // With nothing better it stays where it is: a change without evidence helps nobody.
            return other.filter(better).or(Some(path));
        }
        if member.track.is_metered() && self.use_metered == UseMetered::Standby {
            let proven = |member: &Member| {
                !member.track.is_metered()
                    && member.good_since.is_some_and(|since| now >= since + UNMETERED_PROOF)
            };
            let cheaper = other.filter(|other| self.members.get(other).is_some_and(proven));
            return cheaper.or(Some(path));
        }
        Some(path)
    }

    /// The best of those that have shown that they work, without `except`.
    fn best(&self, now: Instant, except: Option<PathId>) -> Option<PathId> {
        let rank = |member: &Member| {
            let metered = member.track.is_metered() && self.use_metered != UseMetered::Yes;
            let degraded = member.track.health(now) == Health::Degraded;
            (degraded, metered, member.track.cost())
        };
        self.working(now)
            .filter(|(path, _)| Some(**path) != except)
            .min_by_key(|(path, member)| (rank(member), **path))
            .map(|(path, _)| *path)
    }

    fn working(&self, now: Instant) -> impl Iterator<Item = (&PathId, &Member)> {
        self.members.iter().filter(move |(_, member)| {
            let works = matches!(member.track.health(now), Health::Good | Health::Degraded);
            works && self.is_allowed(member)
        })
    }

    fn is_allowed(&self, member: &Member) -> bool {
        self.use_metered != UseMetered::No || !member.track.is_metered()
    }

    /// Weights by what each has been seen to carry.
    fn share(&self, now: Instant) -> Shares {
        let spread = |member: &Member| {
            let free = !member.track.is_metered() || self.use_metered == UseMetered::Yes;
            // Its share is what makes it slow: to take it away would move flows to and fro, and packets overtake others.
            free && match member.track.health(now) {
                Health::Good | Health::Suspect => true,
                Health::Degraded => !member.unfit,
                Health::Unproven | Health::Failed | Health::Down => false,
            }
        };
        let sharing: Vec<_> = self.members.iter().filter(|(_, member)| spread(member)).collect();
        if sharing.len() < 2 {
            return Shares::default();
        }
        let most = sharing.iter().map(|(_, member)| member.capacity).max().unwrap_or_default();
        // One that has carried nothing is tried like the best; one that has carried little may have had little to carry.
        let weight = |capacity: u64| {
            let share = (capacity * FULL_WEIGHT).checked_div(most).filter(|_| capacity > 0);
            u32::try_from(share.map_or(FULL_WEIGHT, |share| share.max(LEAST_WEIGHT))).unwrap_or(1)
        };
        let wanted =
            sharing.iter().map(|(path, member)| (**path, weight(member.capacity))).collect::<Vec<_>>();
        let current = self.assignment.shares.paths();
        let same_paths = current.iter().map(|(path, _)| path).eq(wanted.iter().map(|(path, _)| path));
        let close = |((_, old), (_, new)): (&(PathId, u32), &(PathId, u32))| old.abs_diff(*new) * 4 <= *old;
        if same_paths && current.iter().zip(&wanted).all(close) {
            return self.assignment.shares.clone();
        }
        Shares::new(wanted)
    }
}

/// Remembers since when something holds.
fn note(since: &mut Option<Instant>, holds: bool, now: Instant) {
    if holds {
        since.get_or_insert(now);
    } else {
        *since = None;
    }
}

#[cfg(test)]
#[path = "manager_tests.rs"]
mod tests;
