//! How a strand comes to be, in the order of the draft's appendix B: an IKE_SA made from the one that carries, which is kept
//! (B.2), its CHILD_SA (B.3), a test of the new path, and the move there (B.4).
//!
//! ```text
//! way without a strand -> socket -> N(KEEP_OLD_IKE_SA) -> CHILD_SA -> test by COOKIE2 -> UPDATE_SA_ADDRESSES -> strand
//!                           |            | ordinary rekey       \________ failed ______/
//!                           |            v                                  v
//!                           |      one path, as told             deleted over the path that carries
//!                           +--------> tried again, less and less often <--+
//! ```
//!
//! One at a time. Each interface gets its first strand before any gets a second one.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_core::CryptoRng;
use ropewalk_ike::exchange::Path;
use ropewalk_ike::exchange::initiator::InnerConfig;
use ropewalk_ike::exchange::rekey_ike::Successor;
use ropewalk_ike::exchange::sa::{IkeSa, SaEvent};
use ropewalk_ike::time::Instant;
use ropewalk_ike::wire::NotifyType;
use ropewalk_paths::{Health, PathId};

use super::Strand;
use crate::command::{Command, Lane};
use crate::session::{Session, State};

/// Addresses of a gateway that are considered at most.
pub(super) const MAX_ADDRESSES: usize = 8;
/// Strands of a connection at most.
const MOST: usize = 4;
/// From the socket to the strand it may take so long: two exchanges by the path that carries, a test and a move.
const LIMIT: Duration = Duration::from_secs(15);
/// A way that did not work is tried again after this, then half as often each time.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(240);
/// A way that has worked for so long has a clean record.
const FORGIVEN: Duration = Duration::from_secs(600);
/// A gateway that is busy is asked again after this.
const BUSY_WAIT: Duration = Duration::from_secs(2);

/// A way to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    interface: u32,
    remote: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A socket was asked for.
    Opening,
    /// An IKE_SA was asked for.
    Keeping,
    /// Its CHILD_SA was asked for.
    Joining,
    /// The gateway was asked by the new path.
    Testing,
    /// The gateway was told to use it.
    Moving,
}

#[derive(Debug)]
struct Attempt {
    way: Way,
    stage: Stage,
    since: Instant,
    /// From the second stage on.
    path: Option<Path>,
    /// From the third stage on; from the first when the gateway has offered it.
    sa: Option<Box<IkeSa>>,
    spi_in: Option<u32>,
    /// Addresses that the gateway has granted for it.
    inner: Option<InnerConfig>,
}

/// How often a way has failed, and when it did last.
#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    fn over_at(self) -> Instant {
        let doubled =
            FIRST_WAIT.saturating_mul(1_u32.checked_shl(self.count.min(16) - 1).unwrap_or(u32::MAX));
        self.last + doubled.min(LONGEST_WAIT)
    }
}

/// What is being set up, and what did not work.
#[derive(Debug, Default)]
pub(super) struct Growth {
    attempt: Option<Attempt>,
    /// Nothing is begun before.
    next_at: Instant,
    failures: BTreeMap<(u32, IpAddr), Failures>,
    refused: bool,
}

impl Growth {
    pub(super) fn begin(&mut self, now: Instant) {
        (self.next_at, self.refused) = (now, false);
    }

    /// The networks are others: what failed may work now.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.failures.clear();
        self.begin(now);
    }

    /// A strand is gone.
    pub(super) fn lost_one(&mut self, now: Instant) {
        self.next_at = self.next_at.max(now + BUSY_WAIT);
    }

    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    pub(super) fn sa(&self) -> Option<&IkeSa> {
        self.attempt.as_ref()?.sa.as_deref()
    }

    pub(super) fn sa_mut(&mut self) -> Option<&mut IkeSa> {
        self.attempt.as_mut()?.sa.as_deref_mut()
    }

    /// The socket of the attempt.
    pub(super) fn link(&self) -> Option<u32> {
        Some(self.attempt.as_ref()?.path?.link)
    }

    /// Takes the attempt away: its IKE_SA and its socket.
    pub(super) fn take(&mut self) -> Option<(Option<Box<IkeSa>>, Option<u32>)> {
        let Attempt { path, sa, .. } = self.attempt.take()?;
        Some((sa, path.map(|path| path.link)))
    }

    /// A way did not work, or its strand is gone.
    pub(super) fn note_failure(&mut self, now: Instant, interface: u32, address: IpAddr) {
        let known = self.failures.get(&(interface, address)).filter(|known| now < known.last + FORGIVEN);
        let count = known.map_or(0, |known| known.count).saturating_add(1);
        self.failures.insert((interface, address), Failures { count, last: now });
    }

    fn ready_at(&self, way: Way) -> Instant {
        let failures = self.failures.get(&(way.interface, way.remote.ip()));
        failures.map_or(Instant::ZERO, |failures| failures.over_at()).max(self.next_at)
    }
}

impl Session {
    /// All ways to the gateway: each interface's best address first, then each one's second best.
    pub(super) fn ways(&self) -> Vec<Way> {
        let State::Connected(sa) = &self.state else { return Vec::new() };
        let in_use = sa.path().remote;
        let mut addresses = vec![in_use.ip()];
        for address in sa.peer_addresses().iter().chain(&self.strands.named) {
            if !addresses.contains(address) && addresses.len() < MAX_ADDRESSES {
                addresses.push(*address);
            }
        }
        let uplinks: Vec<_> = self.strands.allowed().collect();
        // One network is one way to one gateway, be it with IPv4 or with IPv6.
        if uplinks.len() < 2 {
            addresses.retain(|address| address.is_ipv4() == in_use.is_ipv4());
        }
        let mut ways = Vec::new();
        for rank in 0..addresses.len() {
            for uplink in &uplinks {
                let reached = addresses.iter().filter(|address| uplink.reaches(**address));
                if let Some(address) = reached.clone().nth(rank) {
                    let remote = SocketAddr::new(*address, in_use.port());
                    ways.push(Way { interface: uplink.interface, remote });
                }
            }
        }
        ways
    }

    /// The next way that wants a strand, and when.
    fn next_growth(&self) -> Option<(Instant, Way)> {
        let State::Connected(sa) = &self.state else { return None };
        let strands = &self.strands;
        let wanted = strands.config.multipath && strands.keeps != Some(false) && sa.can_move();
        let steady = !self.is_without_address()
            && self.link.is_some()
            && !self.is_on_the_move()
            && self.roaming.down.is_none();
        if !wanted || !steady || strands.growth.attempt.is_some() || self.is_logging_in_anew() {
            return None;
        }
        let links = self.link.map(|link| (link, sa.path().remote)).into_iter();
        let beside = strands.others.values().map(|strand| (strand.link, strand.sa.path().remote));
        let taken: Vec<(Option<u32>, SocketAddr)> =
            links.chain(beside).map(|(link, remote)| (strands.interface_of(link), remote)).collect();
        let is_taken = |way: &Way| taken.contains(&(Some(way.interface), way.remote));
        let has_none = |way: &Way| !taken.iter().any(|(interface, _)| *interface == Some(way.interface));
        let full = taken.len() >= MOST;
        if full && self.shared().next().is_none() {
            return None;
        }
        let open = self.ways().into_iter().filter(|way| !is_taken(way) && (!full || has_none(way)));
        open.map(|way| (strands.growth.ready_at(way), way)).min_by_key(|(at, _)| *at)
    }

    /// The strands whose interface has another.
    fn shared(&self) -> impl Iterator<Item = PathId> {
        let strands = &self.strands;
        let first = self.link.and_then(|link| strands.interface_of(link));
        let interface = |strand: &Strand| strands.interface_of(strand.link);
        let shared = move |id: &PathId, strand: &Strand| {
            let own = interface(strand);
            let mut others = strands.others.iter().filter(|(other, _)| *other != id);
            own == first || others.any(|(_, other)| interface(other) == own)
        };
        strands.others.iter().filter(move |(id, strand)| shared(id, strand)).map(|(id, _)| *id)
    }

    /// The strand that can be spared for an interface without one: the worst of those that share one.
    fn surplus(&self) -> Option<PathId> {
        let strands = &self.strands;
        let views =
            strands.manager.as_ref().map(|manager| manager.paths(strands.seen_at)).unwrap_or_default();
        let badness = |id: &PathId| {
            let view = views.iter().find(|view| view.path == *id);
            let fails = view.is_none_or(|view| view.health != Health::Good);
            (fails, view.and_then(|view| view.rtt), *id)
        };
        self.shared().max_by_key(badness)
    }

    /// When something is due.
    pub(super) fn growth_poll(&self) -> Option<Instant> {
        match &self.strands.growth.attempt {
            Some(attempt) => {
                let protocol = attempt.sa.as_ref().and_then(|sa| sa.poll_timeout());
                protocol.into_iter().chain([attempt.since + LIMIT]).min()
            }
            None => self.next_growth().map(|(at, _)| at),
        }
    }

    /// Acts on the clock.
    pub(super) fn growth_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if let Some(sa) = self.strands.growth.sa_mut()
            && sa.poll_timeout().is_some_and(|at| at <= now)
        {
            sa.handle_timeout(now, rng);
        }
        self.drain_growth(now, rng);
        if self.strands.growth.attempt.as_ref().is_some_and(|attempt| now >= attempt.since + LIMIT) {
            self.growth_did_not_work(now, rng);
        }
        let Some((_, way)) = self.next_growth().filter(|(at, _)| *at <= now) else { return };
        if 1 + self.strands.others.len() >= MOST
            && let Some(id) = self.surplus()
        {
            self.retire(now, id, rng);
        }
        self.set_out(now, way, None);
    }

    fn set_out(&mut self, now: Instant, way: Way, sa: Option<Box<IkeSa>>) {
        tracing::debug!(interface = way.interface, remote = %way.remote, "a path is set up");
        let attempt =
            Attempt { way, stage: Stage::Opening, since: now, path: None, sa, spi_in: None, inner: None };
        self.strands.growth.attempt = Some(attempt);
        self.commands.push_back(Command::OpenPath { remote: way.remote, interface: Some(way.interface) });
    }

    /// The socket that an attempt asked for. Whether it was that.
    pub(in crate::session) fn growth_opened(
        &mut self,
        now: Instant,
        path: Path,
        interface: u32,
        rng: &mut dyn CryptoRng,
    ) -> bool {
        let Some(attempt) = &mut self.strands.growth.attempt else { return false };
        let wanted = Way { interface, remote: path.remote };
        if attempt.stage != Stage::Opening || attempt.way != wanted {
            return false;
        }
        attempt.path = Some(path);
        if let Some(mut offered) = attempt.sa.take() {
            attempt.stage = Stage::Joining;
            self.join(now, interface, &mut offered, rng);
            if let Some(attempt) = &mut self.strands.growth.attempt {
                attempt.sa = Some(offered);
            }
            self.drain_growth(now, rng);
            return true;
        }
        attempt.stage = Stage::Keeping;
        if let State::Connected(sa) = &mut self.state
            && sa.add_ike_sa(now, rng)
        {
            self.flush(self.strands.first);
        } else {
            self.growth_did_not_work(now, rng);
        }
        true
    }

    /// The socket that an attempt asked for cannot be opened. Whether it was that.
    pub(in crate::session) fn growth_failed(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        interface: Option<u32>,
        rng: &mut dyn CryptoRng,
    ) -> bool {
        let attempt = self.strands.growth.attempt.as_ref();
        let asked = attempt.filter(|attempt| attempt.stage == Stage::Opening).map(|attempt| attempt.way);
        let is_it = asked.is_some_and(|way| (way.remote, Some(way.interface)) == (remote, interface));
        if is_it {
            self.growth_did_not_work(now, rng);
        }
        is_it
    }

    /// There is a further IKE_SA.
    pub(super) fn kept(&mut self, now: Instant, successor: Successor, rng: &mut dyn CryptoRng) {
        let Successor { mut sa, keys } = successor;
        self.log_keys(&sa, keys);
        self.strands.keeps = Some(true);
        let asked = |attempt: &&mut Attempt| attempt.stage == Stage::Keeping && attempt.sa.is_none();
        let asked = self.strands.growth.attempt.as_mut().filter(asked).map(|attempt| attempt.way.interface);
        if let Some(interface) = asked {
            self.join(now, interface, &mut sa, rng);
            if let Some(attempt) = &mut self.strands.growth.attempt {
                (attempt.sa, attempt.stage) = (Some(Box::new(sa)), Stage::Joining);
            }
            self.drain_growth(now, rng);
            return;
        }
        // The gateway offers one.
        if let Some((_, way)) = self.next_growth().filter(|(at, _)| *at <= now) {
            self.set_out(now, way, Some(Box::new(sa)));
        } else {
            sa.close(now, rng);
            self.fading.add_leaving(sa, None);
            self.drain_fading();
        }
    }

    /// The gateway makes no further IKE_SA.
    pub(super) fn keep_refused(&mut self, now: Instant, notify: NotifyType) {
        let growth = &mut self.strands.growth;
        let asked = growth.attempt.take_if(|attempt| attempt.stage == Stage::Keeping);
        let Some(attempt) = asked else { return };
        self.commands.extend(attempt.path.map(|path| Command::ClosePath(path.link)));
        growth.refused = notify != NotifyType::TemporaryFailure;
        growth.next_at = now + if growth.refused { LONGEST_WAIT } else { BUSY_WAIT };
        tracing::info!(%notify, "the gateway makes no further IKE_SA now");
    }

    /// Notices that the gateway has answered with an ordinary rekey: there is one path, which moves.
    pub(super) fn heed_keeping(&mut self) {
        let State::Connected(sa) = &self.state else { return };
        if sa.features().keep_old != Some(false) || self.strands.keeps == Some(false) {
            return;
        }
        tracing::info!("the gateway does not know KEEP_OLD_IKE_SA: the connection stays on one path");
        self.strands.keeps = Some(false);
        if let Some((_, link)) = self.strands.growth.take() {
            self.commands.extend(link.map(Command::ClosePath));
        }
        self.way_changed();
    }

    /// Takes out of the IKE_SA that is being set up what it has for us.
    pub(super) fn drain_growth(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let Some(attempt) = &mut self.strands.growth.attempt else { return };
        let (Some(sa), Some(path)) = (&mut attempt.sa, attempt.path) else { return };
        let (mut failed, mut arrived) = (false, false);
        while let Some(event) = sa.poll_event() {
            match event {
                SaEvent::ChildUp { child, replaces: _ } => {
                    self.commands.push_back(Command::InstallChild(child));
                    if attempt.stage == Stage::Joining {
                        attempt.stage = Stage::Testing;
                        sa.test_path(now, path, rng);
                    }
                }
                SaEvent::ChildCarries { spi_in } => attempt.spi_in = Some(spi_in),
                SaEvent::InnerGranted(inner) => attempt.inner = Some(inner),
                SaEvent::ChildDown { spi_in, spi_out: _ } => {
                    self.commands.push_back(Command::RemoveChild(spi_in));
                    failed = true;
                }
                SaEvent::PathWorks(_) if attempt.stage == Stage::Testing => {
                    attempt.stage = Stage::Moving;
                    sa.move_to(now, path, rng);
                }
                SaEvent::PathChanged(changed) => arrived |= changed.link == path.link,
                SaEvent::PathFailed(_)
                | SaEvent::MoveRefused(_)
                | SaEvent::ChildRefused(_)
                | SaEvent::RekeyRefused(_)
                | SaEvent::IkeRekeyRefused(_)
                | SaEvent::Rekeyed(_)
                | SaEvent::Redirected(_)
                | SaEvent::Closed(_) => failed = true,
                SaEvent::Redundant(unused) => self.fading.add(*unused),
                SaEvent::Kept(unused) => {
                    let mut unused = unused.sa;
                    unused.close(now, rng);
                    self.fading.add_leaving(unused, None);
                }
                SaEvent::PathWorks(_)
                | SaEvent::KeepRefused(_)
                | SaEvent::SwitchAsked(_)
                | SaEvent::SwitchAnswered { .. }
                | SaEvent::AuthLifetime(_)
                | SaEvent::Group(_)
                | SaEvent::Probed { .. }
                | SaEvent::Reported(_)
                | SaEvent::SizeTested { .. }
                | SaEvent::PeerAddresses => {}
            }
        }
        self.transmits.extend(std::iter::from_fn(|| sa.poll_transmit()));
        self.drain_fading();
        if failed {
            self.growth_did_not_work(now, rng);
        } else if arrived {
            self.grown(now, rng);
        }
    }

    /// This way is taken by another strand: none is to be set up there.
    pub(super) fn drop_growth_at(
        &mut self,
        now: Instant,
        interface: u32,
        remote: SocketAddr,
        rng: &mut dyn CryptoRng,
    ) {
        let way = Way { interface, remote };
        if self.strands.growth.attempt.as_ref().is_some_and(|attempt| attempt.way == way) {
            self.abort_growth(now, rng);
        }
    }

    /// The strand stands.
    fn grown(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let Some(Attempt { sa: Some(sa), path: Some(path), spi_in: Some(spi_in), inner, .. }) =
            self.strands.growth.attempt.take()
        else {
            return;
        };
        self.begin_choice(now);
        let id = self.strands.fresh_id();
        tracing::info!(?id, local = %path.local, remote = %path.remote, "another path stands");
        let metered = self.strands.is_metered(path.link);
        self.strands.others.insert(id, Strand { sa: *sa, link: path.link, failed_since: None });
        self.strands.lanes.insert(id, Lane { id, spi_in, path });
        self.strands.note_own_inner(id, path.link, inner);
        if let Some(manager) = &mut self.strands.manager {
            manager.add(now, id, metered);
        }
        self.strands.growth.refused = false;
        self.follow_manager(now, rng);
        self.readdress();
    }

    /// An attempt ends, and its way waits.
    fn growth_did_not_work(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if let Some(Attempt { way, stage, .. }) = self.strands.growth.attempt {
            tracing::info!(interface = way.interface, remote = %way.remote, ?stage, "a path does not come about");
            self.strands.growth.note_failure(now, way.interface, way.remote.ip());
        }
        self.abort_growth(now, rng);
    }

    /// An attempt ends.
    pub(super) fn abort_growth(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let by = if let State::Connected(sa) = &self.state { Some(sa.path()) } else { None };
        self.abort_growth_by(now, by, rng);
    }

    /// The same; the gateway is told by this path.
    pub(super) fn abort_growth_by(&mut self, now: Instant, by: Option<Path>, rng: &mut dyn CryptoRng) {
        let Some((sa, link)) = self.strands.growth.take() else { return };
        self.commands.extend(link.map(Command::ClosePath));
        match (sa, by) {
            (Some(mut sa), Some(by)) if !sa.is_closed() => {
                sa.leave_by(now, by, rng);
                self.fading.add_leaving(*sa, None);
                self.drain_fading();
            }
            (Some(sa), _) => self.forget(&sa),
            (None, _) => {}
        }
    }
}
