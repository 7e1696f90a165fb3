//! The strands beside the one that carries: their messages, their clocks, and what their IKE_SAs tell. Each is renewed, checked
//! and deleted on its own.

use rand_core::CryptoRng;
use ropewalk_ike::error::PeerMisbehaved;
use ropewalk_ike::exchange::rekey_ike::Successor;
use ropewalk_ike::exchange::sa::{CloseReason, SaEvent};
use ropewalk_ike::exchange::{IkeSpis, Path};
use ropewalk_ike::time::Instant;
use ropewalk_paths::PathId;

use super::choice::News;
use crate::command::{Command, Lane};
use crate::session::sizing::SizeAnswer;
use crate::session::{Session, State};

impl Session {
    /// Takes a datagram, if it is for a strand beside the one that carries, or for one that is being set up.
    pub(in crate::session) fn strand_datagram(
        &mut self,
        now: Instant,
        path: Path,
        datagram: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Option<Result<(), PeerMisbehaved>> {
        let spis = IkeSpis::of(datagram)?;
        if let Some(sa) = self.strands.growth.sa_mut().filter(|sa| sa.spis() == spis) {
            let result = sa.handle_datagram(now, path, datagram, rng);
            self.drain_growth(now, rng);
            return Some(result);
        }
        let mut others = self.strands.others.iter_mut();
        let (id, strand) = others.find(|(_, strand)| strand.sa.spis() == spis)?;
        let id = *id;
        let result = strand.sa.handle_datagram(now, path, datagram, rng);
        self.drain_strand(now, id, rng);
        self.review(now);
        Some(result)
    }

    /// When something is due that concerns the strands.
    pub(in crate::session) fn strands_poll(&self) -> Option<Instant> {
        if !matches!(self.state, State::Connected(_)) {
            return None;
        }
        let beside = self.strands.others.values().filter_map(|strand| strand.sa.poll_timeout());
        beside.chain(self.choice_poll()).chain(self.growth_poll()).chain(self.loss_poll()).min()
    }

    /// Acts on the clock.
    pub(in crate::session) fn strands_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        self.strands.seen_at = now;
        if !matches!(self.state, State::Connected(_)) {
            return;
        }
        let ids: Vec<PathId> = self.strands.others.keys().copied().collect();
        for id in ids {
            if let Some(strand) = self.strands.others.get_mut(&id)
                && strand.sa.poll_timeout().is_some_and(|at| at <= now)
            {
                strand.sa.handle_timeout(now, rng);
            }
            self.drain_strand(now, id, rng);
        }
        self.choose_by_clock(now, rng);
        self.retire_failed(now, rng);
        self.growth_timeout(now, rng);
    }

    /// The sequence numbers of a CHILD_SA run low; whether it belongs to a strand beside the one that carries.
    pub(in crate::session) fn strand_sequence_low(
        &mut self,
        now: Instant,
        spi_out: u32,
        rng: &mut dyn CryptoRng,
    ) -> bool {
        let found = self.strands.others.iter_mut().find_map(|(id, strand)| {
            let child = strand.sa.children().iter().find(|child| child.spi_out == spi_out)?;
            Some((*id, child.spi_in, &mut strand.sa))
        });
        let Some((id, spi_in, sa)) = found else { return false };
        sa.rekey_child(now, spi_in, rng);
        self.drain_strand(now, id, rng);
        true
    }

    /// Takes out of a strand beside the one that carries what it has for us.
    pub(super) fn drain_strand(&mut self, now: Instant, id: PathId, rng: &mut dyn CryptoRng) {
        let Some(strand) = self.strands.others.get_mut(&id) else { return };
        self.transmits.extend(std::iter::from_fn(|| strand.sa.poll_transmit()));
        let (mut closed, mut refused, mut lifetime, mut redirect) = (None, None, None, None);
        let (mut successors, mut news, mut lane) = (Vec::new(), Vec::new(), None);
        let (mut groups, mut sizes) = (Vec::new(), Vec::new());
        while let Some(event) = strand.sa.poll_event() {
            match event {
                SaEvent::ChildUp { child, replaces: _ } => {
                    self.commands.push_back(Command::InstallChild(child));
                }
                SaEvent::ChildCarries { spi_in } => lane = Some((spi_in, strand.sa.path())),
                SaEvent::ChildDown { spi_in, spi_out: _ } => {
                    self.commands.push_back(Command::RemoveChild(spi_in));
                }
                SaEvent::Rekeyed(successor) => {
                    let Successor { sa: new, keys } = *successor;
                    successors.push((new.spis(), *new.suite(), keys));
                    let old = std::mem::replace(&mut strand.sa, new);
                    self.fading.add(old);
                }
                SaEvent::Redundant(redundant) => self.fading.add(*redundant),
                SaEvent::PathChanged(path) => {
                    lane = strand.sa.carrying().map(|spi_in| (spi_in, path));
                }
                SaEvent::Kept(kept) => news.push(News::Kept(kept)),
                SaEvent::KeepRefused(notify) => news.push(News::KeepRefused(notify)),
                SaEvent::Probed { by, rtt, since } => news.push(News::probed(by, rtt, since)),
                SaEvent::Reported(report) => news.push(News::Reported(report)),
                SaEvent::SizeTested { path, octets, carried } => {
                    sizes.push(SizeAnswer { path, octets, carried });
                }
                SaEvent::Group(event) => groups.push(event),
                SaEvent::AuthLifetime(seconds) => lifetime = Some(seconds),
                SaEvent::RekeyRefused(notify) => refused = Some((notify, false)),
                SaEvent::IkeRekeyRefused(notify) => refused = Some((notify, true)),
                SaEvent::Redirected(to) => redirect = Some(to),
                SaEvent::MoveRefused(notify) => {
                    tracing::info!(?id, %notify, "the gateway does not take a path's new address");
                    closed = Some(CloseReason::Fatal(notify));
                }
                SaEvent::Closed(reason) => closed = Some(reason),
                SaEvent::ChildRefused(notify) => tracing::warn!(%notify, "the gateway refused a CHILD_SA"),
                SaEvent::PathWorks(_)
                | SaEvent::InnerGranted(_)
                | SaEvent::PathFailed(_)
                | SaEvent::SwitchAsked(_)
                | SaEvent::SwitchAnswered { .. }
                | SaEvent::PeerAddresses => {}
            }
        }
        let empty = !strand.sa.has_data_child();
        if let Some((spi_in, path)) = lane {
            self.strands.lanes.insert(id, Lane { id, spi_in, path });
            self.carry_anew();
        }
        for (spis, suite, keys) in successors.into_iter().filter(|_| self.config.log_keys) {
            self.commands.push_back(Command::LogIkeKeys { spis, suite, keys: Box::new(keys) });
        }
        self.drain_fading();
        for event in groups {
            self.group_event(now, event);
        }
        match refused {
            Some((notify, true)) => self.ike_rekey_refused(now, notify),
            Some((notify, false)) => self.rekey_refused(now, notify),
            None => {}
        }
        if lifetime.is_some() {
            self.plan_reauth(now, lifetime);
        }
        self.sizes_answered(now, sizes, rng);
        self.strand_news(now, id, news, rng);
        match closed {
            Some(CloseReason::PeerRestarted) => self.gateway_restarted(now, id, rng),
            Some(reason) => {
                tracing::info!(?id, ?reason, "a path is gone");
                self.retire(now, id, rng);
            }
            None if empty => self.retire(now, id, rng),
            None => {}
        }
        if let Some(to) = redirect {
            self.go_elsewhere(now, to, rng);
        }
    }
}
