//! How strands go: their interface is gone, the gateway or silence ended them, or the connection ends.
//!
//! The gateway is told over a path that works. Whatever goes, the rest stays; the connection is lost when nothing is left
//! that works.

use std::time::Duration;

use rand_core::CryptoRng;
use ropewalk_ike::exchange::Path;
use ropewalk_ike::exchange::sa::{CloseReason, IkeSa};
use ropewalk_ike::time::Instant;
use ropewalk_paths::{Health, Manager, PathId, Policy};

use super::Strand;
use crate::command::Command;
use crate::session::progress::explain_close;
use crate::session::{Session, State};
use crate::uplink::Uplink;

/// A path that has failed for so long is ended; it is set up anew when it works again.
const FAILED_LIMIT: Duration = Duration::from_secs(60);

/// A strand that has no place any more.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) id: PathId,
    pub(super) sa: IkeSa,
    /// Its socket, if it has one.
    pub(super) link: Option<u32>,
}

impl Session {
    /// A socket is of no use any more. Whether all is said with that.
    pub(in crate::session) fn strand_path_lost(
        &mut self,
        now: Instant,
        link: u32,
        rng: &mut dyn CryptoRng,
    ) -> bool {
        if self.strands.growth.link() == Some(link) {
            self.abort_growth(now, rng);
            return true;
        }
        let mut others = self.strands.others.iter();
        if let Some(id) = others.find(|(_, strand)| strand.link == link).map(|(id, _)| *id) {
            self.carrier_gone(now, id, rng);
            return true;
        }
        self.link == Some(link) && self.leave_first(now, rng)
    }

    /// An interface does not lead outside any more.
    pub(super) fn interface_lost(&mut self, now: Instant, interface: u32, rng: &mut dyn CryptoRng) {
        let strands = &self.strands;
        let on = |link: u32| strands.interface_of(link) == Some(interface);
        let beside = strands.others.iter().filter(|(_, strand)| on(strand.link));
        let beside: Vec<PathId> = beside.map(|(id, _)| *id).collect();
        let first = self.link.is_some_and(on);
        if strands.growth.link().is_some_and(on) {
            self.abort_growth(now, rng);
        }
        for id in beside {
            self.carrier_gone(now, id, rng);
        }
        if first {
            self.leave_first(now, rng);
        }
    }

    /// All paths with their sockets.
    fn links_in_use(&self) -> impl Iterator<Item = (PathId, u32)> {
        let beside = self.strands.others.iter().map(|(id, strand)| (*id, strand.link));
        beside.chain(self.link.map(|link| (self.strands.first, link)))
    }

    /// These interfaces lead outside: a path that was taken for down, because its interface did not for a while, is not.
    pub(super) fn interfaces_lead_outside(&mut self, now: Instant, interfaces: &[u32]) {
        let leads = |link: u32| {
            self.strands.interface_of(link).is_some_and(|interface| interfaces.contains(&interface))
        };
        let back: Vec<PathId> =
            self.links_in_use().filter(|(_, link)| leads(*link)).map(|(id, _)| id).collect();
        if let Some(manager) = &mut self.strands.manager {
            back.into_iter().for_each(|id| manager.set_carrier(now, id, true));
        }
    }

    /// A network that the profile does not allow, such as one that turns out to be metered, carries nothing.
    pub(in crate::session) fn keep_to_the_allowed(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let strands = &self.strands;
        let Some(interface) = self.link.and_then(|link| strands.interface_of(link)) else { return };
        let is_it = |uplink: &Uplink| uplink.interface == interface;
        if strands.uplinks.iter().any(is_it)
            && !strands.allowed().any(is_it)
            && matches!(self.state, State::Connected(_))
            && !self.leave_first(now, rng)
        {
            tracing::info!("the profile does not allow the network that carries");
            self.carrier_lost(now, rng);
        }
    }

    /// The path that carries is gone: another strand takes over at once, if any works. Whether one has.
    fn leave_first(&mut self, now: Instant, rng: &mut dyn CryptoRng) -> bool {
        let old = self.strands.first;
        let Some(manager) = &mut self.strands.manager else { return false };
        manager.set_carrier(now, old, false);
        self.follow_manager(now, rng);
        if self.strands.first == old {
            return false;
        }
        self.carrier_gone(now, old, rng);
        true
    }

    /// A strand beside the one that carries has lost its interface.
    fn carrier_gone(&mut self, now: Instant, id: PathId, rng: &mut dyn CryptoRng) {
        let Some(Strand { sa, link, .. }) = self.strands.others.remove(&id) else { return };
        self.commands.push_back(Command::ClosePath(link));
        self.let_go(now, Left { id, sa, link: None }, rng);
    }

    /// Ends a strand beside the one that carries; its way waits.
    pub(in crate::session) fn retire(&mut self, now: Instant, id: PathId, rng: &mut dyn CryptoRng) {
        let Some(Strand { sa, link, .. }) = self.strands.others.remove(&id) else { return };
        if let Some(interface) = self.strands.interface_of(link) {
            self.strands.growth.note_failure(now, interface, sa.path().remote.ip());
        }
        self.let_go(now, Left { id, sa, link: Some(link) }, rng);
    }

    /// Ends a strand that has no place any more, and tells the gateway by the path that carries.
    pub(super) fn let_go(&mut self, now: Instant, left: Left, rng: &mut dyn CryptoRng) {
        let Left { id, mut sa, link } = left;
        self.forget_strand(now, id);
        if sa.is_closed() {
            self.forget(&sa);
            self.commands.extend(link.map(Command::ClosePath));
        } else if let State::Connected(first) = &self.state {
            sa.leave_by(now, first.path(), rng);
            self.fading.add_leaving(sa, link);
            self.drain_fading();
        } else {
            self.forget(&sa);
            self.commands.extend(link.map(Command::ClosePath));
        }
        self.carry_anew();
        self.tell_gateway(now, rng);
        self.strands.growth.lost_one(now);
    }

    fn forget_strand(&mut self, now: Instant, id: PathId) {
        let strands = &mut self.strands;
        strands.lanes.remove(&id);
        strands.probes.remove(&id);
        strands.told.remove(&id);
        strands.inner.forget(id);
        if let Some(manager) = &mut strands.manager {
            manager.remove(now, id);
            // The one that is gone does not carry: whatever the manager makes of that is in order already.
            if manager.assignment().carrying == Some(strands.first) {
                manager.poll_change();
            }
        }
        if strands.others.is_empty() {
            strands.manager = None;
            strands.probes.clear();
        }
        self.readdress();
    }

    /// The IKE_SA in the state is over: another strand takes its place, if one works. Whether one has.
    pub(in crate::session) fn survive(
        &mut self,
        now: Instant,
        reason: CloseReason,
        rng: &mut dyn CryptoRng,
    ) -> bool {
        if reason == CloseReason::PeerRestarted || self.strands.is_alone() {
            return false;
        }
        let (old, mut choice) = (self.strands.first, None);
        if let Some(manager) = &mut self.strands.manager {
            manager.remove(now, old);
            choice = manager.assignment().carrying.filter(|id| *id != old);
            let works = |id: &PathId| {
                let paths = manager.paths(now);
                let health = paths.iter().find(|view| view.path == *id).map(|view| view.health);
                !matches!(health, None | Some(Health::Failed | Health::Down))
            };
            choice = choice.filter(works);
        }
        let Some(id) = choice else { return false };
        tracing::info!(?reason, ?id, "the path that carried is gone; another one carries");
        if !matches!(self.state, State::Connected(_)) {
            // It was taken out to be closed.
            self.restart_reauth(now, rng);
            let Some(Strand { sa, link, .. }) = self.strands.others.remove(&id) else { return false };
            self.stop_moving();
            self.state = State::Connected(Box::new(sa));
            self.close_path();
            self.link = Some(link);
            self.strands.first = id;
            self.forget_strand(now, old);
            self.review(now);
        } else if let Some(left) = self.promote(now, id, rng) {
            self.let_go(now, left, rng);
        } else {
            self.retire(now, old, rng);
        }
        if let State::Connected(sa) = &self.state {
            self.fading_follow(now, sa.path(), rng);
        }
        self.carry_anew();
        self.tell_gateway(now, rng);
        self.strands.growth.lost_one(now);
        true
    }

    /// The gateway has lost its memory, as one of the strands has shown: none of them stands.
    pub(super) fn gateway_restarted(&mut self, now: Instant, id: PathId, rng: &mut dyn CryptoRng) {
        self.retire(now, id, rng);
        let State::Connected(sa) = std::mem::replace(&mut self.state, State::Idle) else { return };
        self.forget(&sa);
        self.clean = true;
        self.close_path();
        self.lost(now, explain_close(CloseReason::PeerRestarted), rng);
    }

    /// When a failed strand has had its time.
    pub(super) fn loss_poll(&self) -> Option<Instant> {
        self.strands.others.values().filter_map(|strand| Some(strand.failed_since? + FAILED_LIMIT)).min()
    }

    /// Ends what has failed for long. While flows are shared the gateway sends by each that it knows of: it must hear at once.
    pub(super) fn retire_failed(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let views = self.strands.manager.as_ref().map(|manager| manager.paths(now)).unwrap_or_default();
        let patience =
            if self.strands.config.policy == Policy::Failover { FAILED_LIMIT } else { Duration::ZERO };
        let mut over = Vec::new();
        for (id, strand) in &mut self.strands.others {
            let failed = views.iter().any(|view| view.path == *id && view.health == Health::Failed);
            strand.failed_since = failed.then(|| strand.failed_since.unwrap_or(now));
            if strand.failed_since.is_some_and(|since| now >= since + patience) {
                over.push(*id);
            }
        }
        for id in over {
            tracing::info!(?id, "a path does not work: it is given up until it does");
            self.retire(now, id, rng);
        }
    }

    /// The path that carries goes another way now, after a move.
    pub(in crate::session) fn first_arrived(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let (Some(link), State::Connected(sa)) = (self.link, &self.state) else { return };
        let (first, remote) = (self.strands.first, sa.path().remote);
        let metered = self.strands.is_metered(link);
        let interface = self.strands.interface_of(link);
        if let Some(manager) = &mut self.strands.manager {
            manager.set_metered(now, first, metered);
            manager.set_carrier(now, first, true);
        }
        let same = |strand: &Strand| {
            interface.is_some()
                && self.strands.interface_of(strand.link) == interface
                && strand.sa.path().remote == remote
        };
        let doubled: Vec<PathId> =
            self.strands.others.iter().filter(|(_, strand)| same(strand)).map(|(id, _)| *id).collect();
        for id in doubled {
            self.retire(now, id, rng);
        }
        if let Some(interface) = interface {
            self.drop_growth_at(now, interface, remote, rng);
        }
        self.follow_manager(now, rng);
    }

    /// Which links are metered may be another matter now.
    pub(super) fn remeter(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let links = self.links_in_use();
        let metered: Vec<(PathId, bool)> =
            links.map(|(id, link)| (id, self.strands.is_metered(link))).collect();
        if let Some(manager) = &mut self.strands.manager {
            for (id, metered) in metered {
                manager.set_metered(now, id, metered);
            }
        }
        self.follow_manager(now, rng);
    }

    /// The machine woke up: every strand asks whether it still stands.
    pub(in crate::session) fn strands_woke_up(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let ids: Vec<PathId> = self.strands.others.keys().copied().collect();
        for id in ids {
            if let Some(strand) = self.strands.others.get_mut(&id) {
                strand.sa.check_liveness_soon(now, rng);
            }
            self.drain_strand(now, id, rng);
        }
    }

    /// All strands but the one that carries end; the gateway is told.
    pub(in crate::session) fn end_strands(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let State::Connected(sa) = &self.state else { return };
        let by = sa.path();
        self.end_strands_by(now, by, rng);
    }

    /// The same, by this path.
    pub(in crate::session) fn end_strands_by(&mut self, now: Instant, by: Path, rng: &mut dyn CryptoRng) {
        self.abort_growth_by(now, Some(by), rng);
        for (_, Strand { mut sa, link, .. }) in std::mem::take(&mut self.strands.others) {
            if sa.is_closed() {
                self.forget(&sa);
                self.commands.push_back(Command::ClosePath(link));
            } else {
                sa.leave_by(now, by, rng);
                self.fading.add_leaving(sa, Some(link));
            }
        }
        self.drain_fading();
        self.forget_others();
    }

    /// All strands but the one that carries end without a word.
    pub(in crate::session) fn drop_strands(&mut self) {
        if let Some((sa, link)) = self.strands.growth.take() {
            sa.iter().for_each(|sa| self.forget(sa));
            self.commands.extend(link.map(Command::ClosePath));
        }
        for (_, Strand { sa, link, .. }) in std::mem::take(&mut self.strands.others) {
            self.forget(&sa);
            self.commands.push_back(Command::ClosePath(link));
        }
        self.forget_others();
        self.strands.lanes.clear();
        self.strands.told.clear();
        self.strands.first = self.strands.fresh_id();
    }

    fn forget_others(&mut self) {
        let strands = &mut self.strands;
        let first = strands.first;
        strands.manager = None;
        strands.probes.clear();
        strands.lanes.retain(|id, _| *id == first);
        strands.told.clear();
    }

    /// A second strand is there: from now on there is a choice.
    pub(super) fn begin_choice(&mut self, now: Instant) {
        if self.strands.manager.is_none() {
            let mut manager = Manager::new(self.strands.config.policy, self.strands.config.use_metered);
            let metered = self.link.is_some_and(|link| self.strands.is_metered(link));
            manager.add(now, self.strands.first, metered);
            self.strands.manager = Some(manager);
            self.strands.look_at = now;
        }
    }
}
