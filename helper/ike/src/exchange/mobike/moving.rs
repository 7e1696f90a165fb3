//! The client's side of MOBIKE: it decides which path is used (RFC 4555 sections 3.5, 3.8 and 3.10).

use std::net::IpAddr;

use rand_core::CryptoRng;

use super::{MAX_ADDRESSES, MobikeTask, Travelled};
use crate::exchange::Path;
use crate::exchange::nat::detection_hash;
use crate::exchange::retransmit::RetransmitPolicy;
use crate::exchange::sa::{IkeSa, InFlight, SaEvent, Task};
use crate::time::Instant;
use crate::wire::{NotifyType, Payload, find_notify};

impl IkeSa {
    /// Goes over to another path, because the old one is gone or the new one is known to work. Requests go by it from now
    /// on, also the one under way; the CHILD_SAs follow with [`SaEvent::PathChanged`] when the peer has answered by it.
    pub fn move_to(&mut self, now: Instant, path: Path, rng: &mut dyn CryptoRng) {
        // The address in use belongs to the peer's, also when we leave it.
        let left = self.path.remote.ip();
        if !self.mobility.peer.contains(&left) && self.mobility.peer.len() < MAX_ADDRESSES {
            self.mobility.peer.push(left);
        }
        self.leave_path(self.path);
        self.path = path;
        self.mobility.update_pending = true;
        self.reroute(now, path, Some(RetransmitPolicy::MOVE));
        self.start_next(now, rng);
    }

    /// Deletes the IKE_SA by another path than its own, which is gone. Whether the DELETE is on its way: a request that is
    /// under way has to be answered first.
    pub fn close_by(&mut self, now: Instant, path: Path, rng: &mut dyn CryptoRng) -> bool {
        self.path = path;
        self.reroute(now, path, None);
        self.close(now, rng);
        !self.is_leaving()
    }

    /// Ends the IKE_SA by another path than its own, which is gone or of no use, in the order of the window: what is under way
    /// is answered there first.
    pub fn leave_by(&mut self, now: Instant, path: Path, rng: &mut dyn CryptoRng) {
        let leaving = |task: &Task| matches!(task, Task::DeleteIke);
        self.path = path;
        self.mobility.update_pending = false;
        self.tasks.clear();
        self.reroute(now, path, Some(RetransmitPolicy::MOVE));
        if !self.in_flight.as_ref().is_some_and(|in_flight| leaving(&in_flight.task)) {
            self.tasks.push_back(Task::DeleteIke);
        }
        self.start_next(now, rng);
    }

    /// Asks the peer by a path that is not in use; nothing moves. The outcome is [`SaEvent::PathWorks`] or
    /// [`SaEvent::PathFailed`].
    pub fn test_path(&mut self, now: Instant, path: Path, rng: &mut dyn CryptoRng) {
        let task = MobikeTask::TestPath { path, cookie: Vec::new() };
        self.tasks.push_front(Task::Mobike(task));
        self.start_next(now, rng);
    }

    /// Our addresses changed: the peer is told the new list. A gateway that lost the one in use tells it from another, `by`;
    /// its CHILD_SAs go on as they are until the client has moved over (section 3.6).
    pub fn announce_addresses(
        &mut self,
        now: Instant,
        own: Vec<IpAddr>,
        by: Option<Path>,
        rng: &mut dyn CryptoRng,
    ) {
        self.mobility.own = Some(own);
        if self.features().mobike {
            if let Some(path) = by {
                self.path = path;
                self.mobility.strayed = true;
                self.reroute(now, path, None);
            }
            self.tasks.push_back(Task::Mobike(MobikeTask::Announce { cookie: Vec::new() }));
            self.start_next(now, rng);
        }
    }

    /// A path test without an answer tells of its path, not of the peer: its request still has to be answered some day,
    /// so it goes on by the path in use. Whether that was the case.
    pub(in crate::exchange) fn give_up_test(&mut self, now: Instant) -> bool {
        let unanswered = matches!(
            &self.in_flight,
            Some(InFlight { task: Task::Mobike(MobikeTask::TestPath { .. }), rerouted: false, .. })
        );
        if unanswered {
            // It asks another question now: whether the peer is there.
            self.reroute(now, self.path, Some(RetransmitPolicy::ESTABLISHED));
        }
        unanswered
    }

    pub(super) fn finish_test(&mut self, path: Path, travelled: Travelled) {
        if travelled.proves_path() {
            self.events.push_back(SaEvent::PathWorks(path));
        } else if !travelled.rerouted {
            self.events.push_back(SaEvent::PathFailed(path));
        }
    }

    /// The peer's answer to UPDATE_SA_ADDRESSES. When the path changed again meanwhile, another one follows and this
    /// answer counts for nothing.
    pub(super) fn finish_update(&mut self, travelled: Travelled, payloads: &[Payload]) {
        if self.mobility.update_pending {
            return;
        }
        for refusal in [NotifyType::UnacceptableAddresses, NotifyType::UnexpectedNatDetected] {
            if find_notify(payloads, refusal).is_some() {
                self.events.push_back(SaEvent::MoveRefused(refusal));
                return;
            }
        }
        if travelled.rerouted || travelled.answer.link != self.path.link {
            self.mobility.update_pending = true;
            return;
        }
        let seen = find_notify(payloads, NotifyType::NatDetectionDestinationIp);
        self.mobility.seen_as = seen.map(|notify| notify.data.clone());
        self.judge_nat(self.path, payloads);
        self.mobility.moved = true;
        self.events.push_back(SaEvent::PathChanged(self.path));
    }

    /// What a liveness check carries besides: it also finds out whether a NAT on the way has another mapping for us now.
    pub(in crate::exchange) fn liveness_payloads(&self) -> Vec<Payload> {
        if self.can_move() { self.nat_detection(self.path).to_vec() } else { Vec::new() }
    }

    /// Compares how the peer sees us with how it saw us before; a change must be confirmed by an update (section 3.8).
    /// Behind a NAT that nothing is known of yet, an update finds out.
    pub(in crate::exchange) fn compare_mapping(&mut self, payloads: &[Payload]) {
        let Some(seen) = find_notify(payloads, NotifyType::NatDetectionDestinationIp) else { return };
        if !self.can_move() {
            return;
        }
        let direct = detection_hash(self.spis(), self.path.local).to_vec();
        let before = match &self.mobility.seen_as {
            Some(before) => Some(before),
            None if self.nat().ours => None,
            None => Some(&direct),
        };
        if before != Some(&seen.data) {
            self.mobility.update_pending = true;
        }
    }
}
