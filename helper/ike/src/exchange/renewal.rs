//! What an IKE_SA keeps so that it and its CHILD_SAs are renewed in time, and old ones go without losing a packet.
//!
//! Each CHILD_SA has a [`ChildLife`] beside it. At its soft limit a rekey is queued ([`super::rekey_child`]); the new
//! CHILD_SA receives as soon as it exists. Who began the rekey sends with it at once and deletes the old one. Who
//! answered goes on sending with the old one until something comes in by the new one or the old one is deleted, because the
//! other end has the new one only when it has the answer (RFC 7296 section 2.8). A CHILD_SA that was replaced receives
//! for a moment after its deletion, since packets may be overtaken.

use rand_core::CryptoRng;

use super::child::ChildSa;
use super::create_child_sa::{ChildPolicy, PendingChild, Purpose};
use super::lifetime::{ChildLife, GRACE, Lifetimes, Limits};
use super::rekey_ike::PendingIke;
use super::retransmit::RetransmitPolicy;
use super::sa::{CloseReason, IkeSa, PutOff, SaEvent, Task};
use crate::proposal::IkeProposal;
use crate::time::Instant;

/// CHILD_SAs of one IKE_SA at most, so that a peer that only ever asks for more does not fill the memory. One, its
/// successor, and both again in a collision are four.
pub(super) const MAX_CHILDREN: usize = 16;

/// A CHILD_SA that is deleted and still receives.
struct Retired {
    until: Instant,
    spi_in: u32,
    spi_out: u32,
}

/// The state of renewals.
pub(super) struct Renewal {
    pub(super) ike_proposals: Vec<IkeProposal>,
    pub(super) lifetimes: Lifetimes,
    pub(super) ike: Limits,
    pub(super) lives: Vec<ChildLife>,
    retired: Vec<Retired>,
    /// Our SPI of the CHILD_SA that we send with.
    carrying: Option<u32>,
    /// Another IKE_SA took this one's place.
    pub(super) succeeded: bool,
    pub(super) expired: bool,
    /// A renewal was asked for because Message IDs run low.
    pub(super) ids_low: bool,
    pub(super) put_off: PutOff,
    /// The peer gets no further SAs.
    pub(super) minimal: bool,
    /// When a CHILD_SA in transport mode is asked for once more after a move.
    pub(super) after_move: Option<Instant>,
}

impl Renewal {
    pub(super) fn new(
        now: Instant,
        own_spi: u64,
        lifetimes: Lifetimes,
        ike_proposals: Vec<IkeProposal>,
        child: Option<&ChildSa>,
    ) -> Self {
        // The low half of our own random SPI is chance enough.
        let chance = u32::try_from(own_spi & u64::from(u32::MAX)).unwrap_or(0);
        Self {
            ike_proposals,
            lifetimes,
            ike: Limits::new(now, lifetimes.ike, chance),
            lives: child.map(|child| ChildLife::new(now, &lifetimes, child)).into_iter().collect(),
            retired: Vec::new(),
            carrying: child.filter(|child| !child.is_for_dhcp()).map(|child| child.spi_in),
            succeeded: false,
            expired: false,
            ids_low: false,
            put_off: PutOff::default(),
            minimal: false,
            after_move: None,
        }
    }

    /// Why the IKE_SA ends when we delete it.
    pub(super) fn farewell(&self) -> CloseReason {
        if self.expired { CloseReason::Expired } else { CloseReason::Deleted }
    }

    /// Nobody waits for the end of an IKE_SA that has a successor, but the peer should hear of it.
    pub(super) fn farewell_policy(&self) -> RetransmitPolicy {
        if self.succeeded { RetransmitPolicy::ESTABLISHED } else { RetransmitPolicy::FAREWELL }
    }

    pub(super) fn life(&mut self, spi_in: u32) -> Option<&mut ChildLife> {
        self.lives.iter_mut().find(|life| life.spi_in == spi_in)
    }
}

impl IkeSa {
    /// Our SPI of the CHILD_SA that we send with.
    #[must_use]
    pub fn carrying(&self) -> Option<u32> {
        self.renewal.carrying
    }

    /// Tells how many octets of inner packets a CHILD_SA has received and sent so far. What came in by a new one shows that
    /// the peer has it; many octets make it due for renewal at the next [`Self::handle_timeout`].
    pub fn note_traffic(&mut self, now: Instant, spi_in: u32, received: u64, sent: u64) {
        let Some(life) = self.renewal.life(spi_in) else { return };
        life.heard |= received > 0;
        life.note_octets(now, received.max(sent));
        if received == 0 || !life.unproven {
            return;
        }
        life.unproven = false;
        let carrying = self.renewal.carrying;
        let replaces_carrying = self.renewal.lives.iter().any(|old| {
            Some(old.spi_in) == carrying && (old.successor == Some(spi_in) || old.successor.is_none())
        });
        if replaces_carrying || carrying.is_none() {
            self.carry(spi_in);
        }
    }

    /// Renews the CHILD_SA with our SPI `spi_in` before its time, as when its sequence numbers run low.
    pub fn rekey_child(&mut self, now: Instant, spi_in: u32, rng: &mut dyn CryptoRng) {
        let Some(life) = self.renewal.life(spi_in).filter(|life| life.successor.is_none()) else { return };
        life.limits.hasten(now);
        self.handle_timeout(now, rng);
    }

    /// Renews the IKE_SA before its time.
    pub fn rekey_ike(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if !self.renewal.succeeded {
            self.renewal.ike.hasten(now);
            self.handle_timeout(now, rng);
        }
    }

    /// Refuses every CREATE_CHILD_SA request from now on, as a minimal implementation may (section 4).
    pub fn refuse_more(&mut self) {
        self.renewal.minimal = true;
    }

    /// Another IKE_SA, with CHILD_SAs of its own, takes this one's place, as after a reauthentication. This one receives
    /// until it is closed, and renews nothing.
    pub fn step_aside(&mut self) {
        self.renewal.succeeded = true;
        self.renewal.ike = Limits::default();
        self.renewal.lives.iter_mut().for_each(|life| life.limits = Limits::default());
        self.tasks.retain(|task| !matches!(task, Task::CreateChild(_) | Task::RekeyIke(_)));
        self.dpd = None;
    }

    /// When something is due for renewal or removal.
    pub(super) fn next_renewal(&self) -> Option<Instant> {
        let renewal = &self.renewal;
        let children = renewal.lives.iter().filter_map(|life| life.limits.next());
        let retired = renewal.retired.iter().map(|retired| retired.until);
        children.chain(retired).chain(renewal.ike.next()).chain(renewal.after_move).min()
    }

    /// Queues what is due.
    pub(super) fn renew_due(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        for retired in self.renewal.retired.extract_if(.., |retired| retired.until <= now) {
            let Retired { spi_in, spi_out, .. } = retired;
            self.events.push_back(SaEvent::ChildDown { spi_in, spi_out });
        }
        self.watch_message_ids(now);
        if self.renewal.after_move.take_if(|at| *at <= now).is_some() {
            self.renew_after_move(rng);
        }
        let (mut renew, mut delete, mut unrenewed) = (Vec::new(), Vec::new(), Vec::new());
        for life in &mut self.renewal.lives {
            if life.limits.take_hard(now) {
                let alone = life.is_replaced() || life.passing;
                let end = if alone { &mut delete } else { &mut unrenewed };
                end.push(life.spi_in);
            } else if life.limits.take_soft(now) && life.successor.is_none() {
                renew.push(life.spi_in);
            }
        }
        for spi_in in delete {
            if !self.is_closing_child(spi_in) {
                tracing::info!(spi = format_args!("{spi_in:08x}"), "a CHILD_SA is at its end");
                self.tasks.push_back(Task::DeleteChildren(vec![spi_in]));
            }
        }
        if unrenewed.into_iter().any(|spi_in| !self.is_closing_child(spi_in)) {
            // Section 2.8: what cannot be renewed ends with its IKE_SA.
            tracing::info!(sa = ?self.spis, "a CHILD_SA is at its end and was not renewed");
            self.expire(now, rng);
            return;
        }
        for spi_in in renew {
            let about = |task: &Task| matches!(task, Task::CreateChild(pending) if pending.is_about(spi_in));
            if !self.has_task(about) && !self.is_closing_child(spi_in) {
                self.queue_child(spi_in, Purpose::Rekey(spi_in), rng);
            }
        }
        if self.renewal.ike.take_hard(now) {
            tracing::info!(sa = ?self.spis, succeeded = self.renewal.succeeded, "an IKE_SA is at its end");
            self.expire(now, rng);
        } else if self.renewal.ike.take_soft(now) && !self.renewal.succeeded && !self.is_rekeying_ike() {
            let pending = PendingIke::new(self, rng);
            self.tasks.extend(pending.map(|pending| Task::RekeyIke(Box::new(pending))));
        }
    }

    /// Asks for a CHILD_SA like `old`.
    pub(super) fn queue_child(&mut self, old: u32, purpose: Purpose, rng: &mut dyn CryptoRng) {
        let Some(old) = self.children.iter().find(|child| child.spi_in == old) else { return };
        let policy = ChildPolicy {
            proposals: self.policy.proposals.clone(),
            ts_local: old.ts_local.clone(),
            ts_remote: old.ts_remote.clone(),
            mode: old.mode,
            dhcp: self.policy.dhcp,
        };
        let pending = PendingChild::new(&policy, rng).with_purpose(purpose);
        self.tasks.push_back(Task::CreateChild(Box::new(pending)));
    }

    /// Whether such a task is under way or waits.
    pub(super) fn has_task(&self, wanted: impl Fn(&Task) -> bool) -> bool {
        let running = self.in_flight.as_ref().map(|in_flight| &in_flight.task);
        running.into_iter().chain(&self.tasks).any(wanted)
    }

    /// Whether we are deleting this CHILD_SA, or are about to.
    pub(super) fn is_closing_child(&self, spi_in: u32) -> bool {
        self.has_task(|task| matches!(task, Task::DeleteChildren(spis) if spis.contains(&spi_in)))
    }

    /// Whether we are deleting this IKE_SA, or another took its place.
    pub(super) fn is_closing(&self) -> bool {
        self.renewal.succeeded || self.has_task(|task| matches!(task, Task::DeleteIke))
    }

    /// Whether we have asked for an IKE_SA in the place of this one.
    pub(super) fn is_rekeying_ike(&self) -> bool {
        self.has_task(|task| matches!(task, Task::RekeyIke(pending) if pending.keep.is_none()))
    }

    /// A new CHILD_SA: it receives from now on.
    pub(super) fn add_child(&mut self, now: Instant, child: ChildSa, replaces: Option<u32>, unproven: bool) {
        let mut life = ChildLife::new(now, &self.renewal.lifetimes, &child);
        life.unproven = unproven && !life.passing;
        let spi_in = life.spi_in;
        self.renewal.lives.push(life);
        self.children.push(child.clone());
        self.events.push_back(SaEvent::ChildUp { child: Box::new(child), replaces });
        if self.renewal.carrying.is_none() {
            self.carry(spi_in);
        }
    }

    /// Sends with this CHILD_SA from now on, unless it is one for DHCP.
    pub(super) fn carry(&mut self, spi_in: u32) {
        let dhcp = self.children.iter().any(|child| child.spi_in == spi_in && child.is_for_dhcp());
        if !dhcp && self.renewal.carrying != Some(spi_in) {
            self.renewal.carrying = Some(spi_in);
            self.events.push_back(SaEvent::ChildCarries { spi_in });
        }
    }

    /// The CHILD_SA `new` takes the place of `old`.
    pub(super) fn succeed_child(&mut self, now: Instant, old: u32, new: u32) {
        if let Some(life) = self.renewal.life(old) {
            life.successor = Some(new);
            life.limits.succeeded(now);
        }
    }

    /// A CHILD_SA is deleted on both ends. Before it goes, what was sent with it is sent with another.
    pub(super) fn remove_child(&mut self, now: Instant, spi_in: u32) {
        let Some(at) = self.children.iter().position(|child| child.spi_in == spi_in) else { return };
        let child = self.children.remove(at);
        let successor = self.renewal.life(spi_in).and_then(|life| life.successor);
        self.renewal.lives.retain(|life| life.spi_in != spi_in);
        if self.renewal.carrying == Some(spi_in) {
            self.renewal.carrying = None;
            let exists = |spi: &u32| self.children.iter().any(|child| child.spi_in == *spi);
            let mut others = self.children.iter().rev().filter(|child| !child.is_for_dhcp());
            let next = successor.filter(exists).or_else(|| others.next().map(|child| child.spi_in));
            if let Some(next) = next {
                self.carry(next);
            }
        }
        let spi_out = child.spi_out;
        if successor.is_some() {
            self.renewal.retired.push(Retired { until: now + GRACE, spi_in, spi_out });
        } else {
            self.events.push_back(SaEvent::ChildDown { spi_in, spi_out });
        }
    }

    /// The IKE_SA is over: nothing is sent or received any more.
    pub(super) fn drop_children(&mut self) {
        let children = self.children.drain(..).map(|child| (child.spi_in, child.spi_out));
        let retired = self.renewal.retired.drain(..).map(|retired| (retired.spi_in, retired.spi_out));
        let down = children.chain(retired);
        self.events.extend(down.map(|(spi_in, spi_out)| SaEvent::ChildDown { spi_in, spi_out }));
        self.renewal.lives.clear();
        self.renewal.carrying = None;
    }

    /// Gives all CHILD_SAs, and what is planned for them, to `heir`; this IKE_SA has none from now on (section 2.8).
    pub(super) fn bequeath(&mut self, heir: &mut Self) {
        heir.children.append(&mut self.children);
        heir.renewal.lives.append(&mut self.renewal.lives);
        heir.renewal.retired.append(&mut self.renewal.retired);
        heir.renewal.carrying = self.renewal.carrying.take();
        heir.renewal.after_move = self.renewal.after_move.take();
        self.take_along(heir);
        for task in self.tasks.drain(..) {
            match task {
                Task::DeleteChildren(_)
                | Task::CreateChild(_)
                | Task::Mobike(_)
                | Task::Inform(_)
                | Task::Switch(_)
                | Task::Size(_) => heir.tasks.push_back(task),
                Task::RekeyIke(pending) if pending.keep.is_some() => {
                    heir.tasks.push_back(Task::RekeyIke(pending));
                }
                Task::Liveness | Task::DeleteIke | Task::RekeyIke(_) => {}
            }
        }
        self.renewal.succeeded = true;
        self.dpd = None;
    }
}
