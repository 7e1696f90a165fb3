//! Several paths at once: strands, each an IKE_SA with its CHILD_SA on one network of ours towards one address of the gateway
//! (draft-mglt-ipsecme-keep-old-ike-sa-00).
//!
//! ```text
//!            [`growth`]: kept IKE_SA, CHILD_SA, test, move
//! one strand ------------------------------------------> several, each on its own
//!     ^                                                      | [`choice`]: probes, the path manager's word
//!     |    [`loss`]: carrier gone, closed, failed for long   v
//!     +------------------------------------------------- another one carries
//! ```
//!
//! The strand that carries is the IKE_SA in [`State::Connected`]; the others are here. None is special: when another one is
//! to carry, the two change places. The tunnel device and what is inside belong to the connection and stay. It is lost
//! only with the last strand.

mod beside;
mod choice;
mod growth;
mod inner;
mod loss;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_core::CryptoRng;
use ropewalk_ike::exchange::Path;
use ropewalk_ike::exchange::child::Mode;
use ropewalk_ike::exchange::sa::IkeSa;
use ropewalk_ike::time::Instant;
use ropewalk_paths::{Health, Manager, PathId, Policy, UseMetered};

pub(super) use self::choice::News;
use self::choice::{Arrivals, Told};
use self::growth::Growth;
use self::inner::Inner;
use super::{IkeInfo, Session, State};
use crate::command::{Carriage, Command, Lane};
use crate::config::PathsConfig;
use crate::uplink::{Alone, PathSnapshot, Traffic, Uplink};

/// Sockets whose interface is remembered at most.
const MAX_LINKS: usize = 256;

/// A flow may change its way when it has paused for so long: twice the longest round trip, within these bounds.
const LEAST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// No system gives an interface this number: what is not allowed cannot be opened.
const NO_INTERFACE: u32 = u32::MAX;

/// A path beside the one that carries.
#[derive(Debug)]
struct Strand {
    sa: IkeSa,
    link: u32,
    /// Its probes stay without an answer since then.
    failed_since: Option<Instant>,
}

/// The strands of a connection and what is known of its networks.
#[derive(Debug)]
pub(super) struct Strands {
    config: PathsConfig,
    uplinks: Vec<Uplink>,
    /// The interface of each socket.
    interfaces: BTreeMap<u32, u32>,
    /// Addresses of the gateway that its name has.
    named: Vec<IpAddr>,
    /// The strand in the state.
    first: PathId,
    next: u32,
    others: BTreeMap<PathId, Strand>,
    /// With what each sends.
    lanes: BTreeMap<PathId, Lane>,
    /// Chooses, while there is a choice.
    manager: Option<Manager>,
    /// The probes of each that were not answered yet.
    probes: BTreeMap<PathId, Vec<u64>>,
    /// What each CHILD_SA had carried at the last look.
    traffic: BTreeMap<u32, Traffic>,
    /// What of the data has arrived, here by our SPIs and at the gateway by its own.
    inbound: Arrivals,
    outbound: Arrivals,
    look_at: Instant,
    /// The time, as far as it was told.
    seen_at: Instant,
    growth: Growth,
    /// The gateway keeps an IKE_SA beside the one made from it; `None` before that was tried.
    keeps: Option<bool>,
    /// What the gateway was told of each path, and how many notices there were.
    told: BTreeMap<PathId, Told>,
    notices: u32,
    inner: Inner,
}

impl Strands {
    pub(super) fn new(config: &PathsConfig) -> Self {
        Self {
            config: config.clone(),
            uplinks: Vec::new(),
            interfaces: BTreeMap::new(),
            named: Vec::new(),
            first: PathId(1),
            next: 2,
            others: BTreeMap::new(),
            lanes: BTreeMap::new(),
            manager: None,
            probes: BTreeMap::new(),
            traffic: BTreeMap::new(),
            inbound: Arrivals::default(),
            outbound: Arrivals::default(),
            look_at: Instant::ZERO,
            seen_at: Instant::ZERO,
            growth: Growth::default(),
            keeps: None,
            told: BTreeMap::new(),
            notices: 0,
            inner: Inner::default(),
        }
    }

    /// The strand in the state.
    pub(super) fn first(&self) -> PathId {
        self.first
    }

    /// Whether there is no other one.
    pub(super) fn is_alone(&self) -> bool {
        self.others.is_empty()
    }

    /// The IKE_SAs beside the one in the state, of paths that stand.
    pub(super) fn ike_infos(&self) -> impl Iterator<Item = IkeInfo> {
        self.others.values().map(|strand| IkeInfo::of(&strand.sa))
    }

    /// The IKE_SA beside the one in the state that uses this socket.
    pub(super) fn beside_by(&mut self, link: u32) -> Option<&mut IkeSa> {
        let found = self.others.values_mut().find(|strand| strand.link == link);
        found.map(|strand| &mut strand.sa)
    }

    /// How many IKE_SAs there are beside the one in the state.
    pub(super) fn beside(&self) -> usize {
        self.others.len() + usize::from(self.growth.sa().is_some())
    }

    /// The gateway's name has these addresses.
    pub(super) fn note_addresses(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            if !self.named.contains(address) && self.named.len() < growth::MAX_ADDRESSES {
                self.named.push(*address);
            }
        }
    }

    /// The addresses that the gateway's name has.
    pub(super) fn named_addresses(&self) -> Vec<IpAddr> {
        self.named.clone()
    }

    /// Another gateway is looked for: what is known of the last one does not hold.
    pub(super) fn forget_gateway(&mut self) {
        self.named.clear();
    }

    /// The user wants to be connected: what a gateway could not do last time, it may now.
    pub(super) fn hope(&mut self) {
        self.keeps = None;
    }

    /// The strand in the state stands from now on.
    pub(super) fn begin(&mut self, now: Instant) {
        self.growth.begin(now);
    }

    /// The strand in the state sends with this CHILD_SA along this path from now on.
    pub(super) fn send_with(&mut self, spi_in: u32, path: Path) -> Command {
        let lane = Lane { id: self.first, spi_in, path };
        self.lanes.insert(self.first, lane);
        Command::Carry(self.carriage(lane))
    }

    /// What leaves by which lane, as the manager has it.
    fn carriage(&self, carrying: Lane) -> Carriage {
        let Some(manager) = &self.manager else {
            return Carriage {
                carrying,
                pause: LEAST_PAUSE,
                shares: Vec::new(),
                copies: None,
                by_source: Vec::new(),
            };
        };
        let assignment = manager.assignment();
        // What was sent by the longest way has arrived, and what waits in its queues as well.
        let longest = manager.paths(self.seen_at).iter().filter_map(|view| view.rtt).max();
        let pause = (longest.unwrap_or_default() * 2).clamp(LEAST_PAUSE, LONGEST_PAUSE);
        let lane = |id: &PathId| self.lanes.get(id).copied();
        let shares = assignment.shares.paths().iter();
        let shares: Vec<(Lane, u32)> = shares.filter_map(|(id, weight)| Some((lane(id)?, *weight))).collect();
        let copies = assignment.copies.as_ref().and_then(lane).filter(|copies| copies.id != carrying.id);
        let by_source = self.by_source();
        if !by_source.is_empty() {
            return Carriage { carrying, pause, shares: Vec::new(), copies: None, by_source };
        }
        let shares = if shares.len() > 1 { shares } else { Vec::new() };
        Carriage { carrying, pause, shares, copies, by_source }
    }

    fn uplink(&self, interface: u32) -> Option<&Uplink> {
        self.uplinks.iter().find(|uplink| uplink.interface == interface)
    }

    /// The networks that the profile allows.
    fn allowed(&self) -> impl Iterator<Item = &Uplink> {
        let PathsConfig { interfaces, use_metered, .. } = &self.config;
        self.uplinks.iter().filter(move |uplink| {
            let named = interfaces.is_empty() || interfaces.contains(&uplink.name);
            named && !(*use_metered == UseMetered::No && uplink.metered)
        })
    }

    /// The socket that leads there: by the way of the system, or the best of the networks that the profile allows.
    pub(super) fn open_path(&self, remote: SocketAddr) -> Command {
        let PathsConfig { interfaces, use_metered, .. } = &self.config;
        let free = interfaces.is_empty() && *use_metered != UseMetered::No;
        let best = self.allowed().find(|uplink| uplink.reaches(remote.ip()));
        let interface = if free { None } else { Some(best.map_or(NO_INTERFACE, |uplink| uplink.interface)) };
        Command::OpenPath { remote, interface }
    }

    /// The sockets of the paths beside the one that carries.
    pub(super) fn links(&self) -> impl Iterator<Item = u32> {
        self.others.values().map(|strand| strand.link)
    }

    fn interface_of(&self, link: u32) -> Option<u32> {
        self.interfaces.get(&link).copied()
    }

    fn is_metered(&self, link: u32) -> bool {
        self.interface_of(link).and_then(|interface| self.uplink(interface)).is_some_and(|up| up.metered)
    }

    fn fresh_id(&mut self) -> PathId {
        let id = PathId(self.next);
        self.next = self.next.wrapping_add(1);
        id
    }
}

impl Session {
    /// The interfaces that lead outside are these now.
    pub fn uplinks_changed(&mut self, now: Instant, uplinks: Vec<Uplink>, rng: &mut dyn CryptoRng) {
        if self.strands.uplinks == uplinks {
            return;
        }
        let before = std::mem::replace(&mut self.strands.uplinks, uplinks);
        let allowed: Vec<u32> = self.strands.allowed().map(|uplink| uplink.interface).collect();
        for uplink in before.iter().filter(|uplink| !allowed.contains(&uplink.interface)) {
            self.interface_lost(now, uplink.interface, rng);
        }
        self.interfaces_lead_outside(now, &allowed);
        self.remeter(now, rng);
        self.keep_to_the_allowed(now, rng);
        self.seek_if_lost(now);
        self.strands.growth.hurry(now);
    }

    /// Several paths are used for this from now on.
    pub fn set_policy(&mut self, now: Instant, policy: Policy, rng: &mut dyn CryptoRng) {
        self.strands.config.policy = policy;
        if let Some(manager) = &mut self.strands.manager {
            manager.set_policy(now, policy);
        }
        self.follow_manager(now, rng);
    }

    /// A socket was opened on this interface.
    pub(super) fn note_link(&mut self, link: u32, interface: u32) {
        let strands = &mut self.strands;
        strands.interfaces.insert(link, interface);
        if strands.interfaces.len() > MAX_LINKS {
            let in_use =
                |old: u32| self.link == Some(old) || strands.others.values().any(|strand| strand.link == old);
            let oldest = strands.interfaces.keys().copied().find(|old| !in_use(*old));
            oldest.and_then(|oldest| strands.interfaces.remove(&oldest));
        }
    }

    /// Whether another way of the system is no reason to move: it gets, or may get, a strand of its own.
    pub(super) fn strands_hold(&self, sa: &IkeSa) -> bool {
        let strands = &self.strands;
        let several = !strands.is_alone() || (strands.uplinks.len() > 1 && !strands.growth.is_refused());
        strands.config.multipath && sa.can_move() && strands.keeps != Some(false) && several
    }

    /// The paths, to be shown; the one that carries first.
    pub(super) fn path_snapshots(&self) -> Vec<PathSnapshot> {
        let State::Connected(sa) = &self.state else { return Vec::new() };
        let strands = &self.strands;
        let views =
            strands.manager.as_ref().map(|manager| manager.paths(strands.seen_at)).unwrap_or_default();
        let of = |id: PathId, sa: &IkeSa| {
            let view = views.iter().find(|view| view.path == id);
            let lane = strands.lanes.get(&id);
            let path = lane.map_or_else(|| sa.path(), |lane| lane.path);
            PathSnapshot {
                id,
                interface: strands.interface_of(path.link),
                path,
                spis: sa.spis(),
                spi_in: lane.map(|lane| lane.spi_in),
                health: view.map_or(Health::Good, |view| view.health),
                rtt: view.map_or_else(|| sa.round_trip(), |view| view.rtt),
                loss: view.and_then(|view| view.loss),
                carrying: id == strands.first || view.is_some_and(|view| view.carrying),
            }
        };
        let mut first = of(strands.first, sa);
        if self.link.is_none() {
            (first.health, first.interface) = (Health::Down, None);
        }
        let others = strands.others.iter().map(|(id, strand)| of(*id, &strand.sa));
        std::iter::once(first).chain(others).collect()
    }

    /// Why there is one path and no more.
    pub(super) fn alone(&self) -> Option<Alone> {
        let State::Connected(sa) = &self.state else { return None };
        let strands = &self.strands;
        if !strands.is_alone() {
            None
        } else if sa.mode() == Mode::Transport {
            Some(Alone::Transport)
        } else if !strands.config.multipath {
            Some(Alone::NotWanted)
        } else if !sa.can_move() {
            Some(Alone::NoMobike)
        } else if strands.keeps == Some(false) {
            Some(Alone::NotKept)
        } else if self.ways().len() < 2 {
            Some(Alone::OneWay)
        } else if strands.growth.is_refused() {
            Some(Alone::Refused)
        } else {
            Some(Alone::Unanswered)
        }
    }
}
