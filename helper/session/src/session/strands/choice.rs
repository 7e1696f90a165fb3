//! Which strand carries: the path manager decides, by what the data path and the answers to probes tell.

use std::collections::BTreeMap;
use std::time::Duration;

use rand_core::CryptoRng;
use ropewalk_ike::exchange::Path;
use ropewalk_ike::exchange::rekey_ike::Successor;
use ropewalk_ike::time::Instant;
use ropewalk_ike::wire::{NotifyType, PathReport, SwitchNotice};
use ropewalk_paths::{Direction, Manager, PathId, RoundTrip};

use super::loss::Left;
use super::{Strand, Strands};
use crate::command::Command;
use crate::session::{Session, State};
use crate::uplink::Traffic;

/// The data path is looked at this often, so that silence is noticed well within a second: while data flow, and else.
const LOOK: Duration = Duration::from_millis(100);
const IDLE_LOOK: Duration = Duration::from_millis(250);
/// Data flow when there were any within this.
const BUSY: Duration = Duration::from_secs(2);
/// CHILD_SAs of which is remembered what they had carried.
const MOST_KNOWN: usize = 64;

/// What an IKE_SA tells that concerns the strands.
#[derive(Debug)]
pub(in crate::session) enum News {
    /// There is a further IKE_SA.
    Kept(Box<Successor>),
    /// There is none.
    KeepRefused(NotifyType),
    /// A probe was answered.
    Probed { by: Path, rtt: RoundTrip },
    /// The gateway says what has arrived there.
    Reported(PathReport),
}

impl News {
    pub(in crate::session) fn probed(by: Path, rtt: Option<Duration>, since: Duration) -> Self {
        Self::Probed { by, rtt: rtt.map_or(RoundTrip::AtMost(since), RoundTrip::Exactly) }
    }
}

/// What the gateway was told of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    main: bool,
    copies: bool,
    weight: u16,
}

/// What had arrived by each CHILD_SA when that was looked at last.
#[derive(Debug, Default)]
pub(super) struct Arrivals(BTreeMap<u32, (u64, u64)>);

impl Arrivals {
    /// So many packets, the newest with this sequence number, have arrived by this CHILD_SA: how many arrived since the last
    /// look, and how many that were sent meanwhile did not.
    fn count(&mut self, spi: u32, (packets, newest): (u64, u64)) -> (u64, u64) {
        if self.0.len() > MOST_KNOWN {
            self.0.clear();
        }
        let Some((packets_before, newest_before)) = self.0.insert(spi, (packets, newest)) else {
            return (0, 0);
        };
        let arrived = packets.saturating_sub(packets_before);
        (arrived, newest.saturating_sub(newest_before).saturating_sub(arrived))
    }
}

impl Strands {
    /// The gateway says what has arrived there by this strand.
    fn reported(&mut self, now: Instant, id: PathId, report: PathReport) {
        let (arrived, lost) = self.outbound.count(report.spi, (report.packets, report.newest));
        if let Some(manager) = &mut self.manager {
            manager.counted(now, id, Direction::Out, arrived, lost);
        }
    }
}

impl Session {
    /// What the IKE_SA of this strand has told.
    pub(in crate::session) fn strand_news(
        &mut self,
        now: Instant,
        id: PathId,
        news: Vec<News>,
        rng: &mut dyn CryptoRng,
    ) {
        self.heed_keeping();
        let told = !news.is_empty();
        for one in news {
            match one {
                News::Kept(successor) => self.kept(now, *successor, rng),
                News::KeepRefused(notify) => self.keep_refused(now, notify),
                News::Probed { by, rtt } => self.probed(now, id, by, rtt),
                News::Reported(report) => self.strands.reported(now, id, report),
            }
        }
        if told {
            self.follow_manager(now, rng);
        }
    }

    fn probed(&mut self, now: Instant, id: PathId, by: Path, rtt: RoundTrip) {
        let link = if id == self.strands.first {
            self.link
        } else {
            self.strands.others.get(&id).map(|strand| strand.link)
        };
        // Only an answer by its own path tells of it.
        let (Some(manager), true) = (&mut self.strands.manager, link == Some(by.link)) else { return };
        let mut tokens = self.strands.probes.remove(&id).unwrap_or_default();
        if let Some(newest) = tokens.pop() {
            manager.probe_answered(now, id, newest, rtt);
        }
        manager.received(now, id, 0);
    }

    /// A look at a CHILD_SA; whether it belongs to a strand beside the one that carries.
    pub(in crate::session) fn strand_traffic(
        &mut self,
        now: Instant,
        traffic: &Traffic,
        rng: &mut dyn CryptoRng,
    ) -> bool {
        let owns = |strand: &Strand| strand.sa.children().iter().any(|child| child.spi_in == traffic.spi_in);
        let found = self.strands.others.iter().find(|(_, strand)| owns(strand)).map(|(id, _)| *id);
        let id = found.unwrap_or(self.strands.first);
        self.feed_manager(now, id, traffic);
        let Some(strand) = found.and_then(|id| self.strands.others.get_mut(&id)) else { return false };
        if let Some(at) = traffic.last_in {
            strand.sa.note_inbound(at);
        }
        // No `note_outbound`: what goes unanswered here is the manager's to judge.
        strand.sa.note_traffic(now, traffic.spi_in, traffic.received, traffic.sent);
        self.drain_strand(now, id, rng);
        true
    }

    fn feed_manager(&mut self, now: Instant, id: PathId, traffic: &Traffic) {
        let strands = &mut self.strands;
        let Some(manager) = &mut strands.manager else { return };
        let (arrived, lost) = strands.inbound.count(traffic.spi_in, traffic.arrived);
        manager.counted(now, id, Direction::In, arrived, lost);
        let before = strands.traffic.insert(traffic.spi_in, *traffic);
        let (received, sent) = before.map_or((0, 0), |before| {
            (traffic.received.saturating_sub(before.received), traffic.sent.saturating_sub(before.sent))
        });
        let came = traffic.last_in.filter(|at| before.is_none_or(|before| before.last_in != Some(*at)));
        let went = traffic.last_out.filter(|at| before.is_none_or(|before| before.last_out != Some(*at)));
        // The later one last: it tells whether something waits for an answer.
        let answered = traffic.last_in >= traffic.last_out;
        if let Some(at) = went.filter(|_| answered) {
            manager.sent(at, id, sent);
        }
        if let Some(at) = came {
            manager.received(at, id, received);
        }
        if let Some(at) = went.filter(|_| !answered) {
            manager.sent(at, id, sent);
        }
    }

    /// When the manager or the next look at the data path is due.
    pub(super) fn choice_poll(&self) -> Option<Instant> {
        let manager = self.strands.manager.as_ref()?;
        manager.poll_timeout().into_iter().chain([self.strands.look_at]).min()
    }

    /// Acts on the clock.
    pub(super) fn choose_by_clock(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let strands = &mut self.strands;
        let Some(manager) = &mut strands.manager else { return };
        if now >= strands.look_at {
            let last = |traffic: &Traffic| traffic.last_in.max(traffic.last_out);
            let busy = strands.traffic.values().filter_map(last).max().is_some_and(|at| now < at + BUSY);
            strands.look_at = now + if busy { LOOK } else { IDLE_LOOK };
            // What is gone is not looked at any more.
            if strands.traffic.len() > MOST_KNOWN {
                strands.traffic.clear();
            }
        }
        if manager.poll_timeout().is_some_and(|at| at <= now) {
            manager.handle_timeout(now);
        }
        self.follow_manager(now, rng);
    }

    /// Sends the probes that the manager wants, and does what it decides.
    pub(in crate::session) fn follow_manager(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        while let Some(probe) = self.strands.manager.as_mut().and_then(Manager::poll_probe) {
            let id = probe.path;
            self.strands.probes.entry(id).or_default().push(probe.token);
            if id == self.strands.first {
                if let (State::Connected(sa), Some(_)) = (&mut self.state, self.link) {
                    sa.probe(now, false, rng);
                }
            } else if let Some(strand) = self.strands.others.get_mut(&id) {
                strand.sa.probe(now, true, rng);
            }
            self.flush(id);
        }
        let Some(assignment) = self.strands.manager.as_mut().and_then(Manager::poll_change) else { return };
        let left = assignment.carrying.and_then(|id| self.promote(now, id, rng));
        self.carry_anew();
        self.readdress();
        if let Some(left) = left {
            self.let_go(now, left, rng);
        }
        self.tell_gateway(now, rng);
    }

    /// This strand carries from now on: it changes places with the one that did. That comes back when it has lost its path.
    pub(super) fn promote(&mut self, now: Instant, id: PathId, rng: &mut dyn CryptoRng) -> Option<Left> {
        if id == self.strands.first || !matches!(self.state, State::Connected(_)) {
            return None;
        }
        self.restart_reauth(now, rng);
        let strand = self.strands.others.remove(&id)?;
        let (old, moving) = (self.strands.first, self.is_on_the_move());
        self.stop_moving();
        let State::Connected(sa) = &mut self.state else { return None };
        let left = std::mem::replace(&mut **sa, strand.sa);
        let path = sa.path();
        tracing::info!(?id, local = %path.local, remote = %path.remote, "another path carries");
        let link = self.link.replace(strand.link);
        self.strands.first = id;
        self.review(now);
        match link {
            Some(link) if !moving => {
                self.strands.others.insert(old, Strand { sa: left, link, failed_since: None });
                None
            }
            link => Some(Left { id: old, sa: left, link }),
        }
    }

    /// Tells the data path what leaves by which lane now.
    pub(in crate::session) fn carry_anew(&mut self) {
        if let Some(carrying) = self.strands.lanes.get(&self.strands.first) {
            let carriage = self.strands.carriage(*carrying);
            self.commands.push_back(Command::Carry(carriage));
        }
    }

    /// Tells the gateway how each path is used, where it was told otherwise.
    pub(super) fn tell_gateway(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let Some(assignment) = self.strands.manager.as_ref().map(|manager| manager.assignment().clone())
        else {
            return;
        };
        let first = self.strands.first;
        let ids: Vec<PathId> = std::iter::once(first).chain(self.strands.others.keys().copied()).collect();
        for id in ids {
            let weight = assignment.shares.paths().iter().find(|(shared, _)| *shared == id);
            let wanted = Told {
                main: id == first,
                copies: assignment.copies == Some(id),
                weight: weight.map_or(0, |(_, weight)| u16::try_from(*weight).unwrap_or(u16::MAX)),
            };
            let told = self.strands.told.insert(id, wanted).unwrap_or_default();
            // Another one has been told to carry: that is enough for the one that did.
            if told == wanted || told == (Told { main: true, ..wanted }) {
                continue;
            }
            self.strands.notices = self.strands.notices.wrapping_add(1);
            let Told { main, copies, weight } = wanted;
            let notice = SwitchNotice { counter: self.strands.notices, main, copies, weight };
            if id == first {
                if let State::Connected(sa) = &mut self.state {
                    sa.announce_switch(now, notice, rng);
                }
            } else if let Some(strand) = self.strands.others.get_mut(&id) {
                strand.sa.announce_switch(now, notice, rng);
            }
            self.flush(id);
        }
    }

    /// Takes what the IKE_SA of this strand has to send.
    pub(super) fn flush(&mut self, id: PathId) {
        let sa = match &mut self.state {
            State::Connected(sa) if id == self.strands.first => Some(&mut **sa),
            _ => self.strands.others.get_mut(&id).map(|strand| &mut strand.sa),
        };
        if let Some(sa) = sa {
            self.transmits.extend(std::iter::from_fn(|| sa.poll_transmit()));
        }
    }
}
