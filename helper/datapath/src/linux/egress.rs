//! The table of what packets leave by: immutable, replaced as a whole behind an atomic pointer.

use std::collections::HashMap;
use std::hash::RandomState;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use ropewalk_paths::{PathId, Shares};

use super::address::RawAddress;
use super::socket::Socket;
use super::sys;
use crate::carriage::Carriage;
use crate::packet::flow::{flow_hash, is_worth_a_copy};
use crate::packet::ip::Ip;
use crate::sa::{Egress, Outbound, SocketId};

/// Flows fall into so many buckets, and each bucket to one way, so that a packet's way is found by one look. With 1024 the
/// ways get their weights within some percent.
const BUCKETS: usize = 1024;
/// A bucket goes on by the way that it went until it has paused for so long, also when the shares say otherwise by now: what
/// was sent by the old way has arrived when the new one is used, and nothing is reordered.
const PAUSE: u64 = 200_000_000;

/// An [`Egress`] with everything looked up.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) sa: Arc<Outbound>,
    pub(super) socket: Arc<Socket>,
    pub(super) peer: RawAddress,
    pub(super) peer_is_ipv6: bool,
}

impl Resolved {
    pub(super) fn new(egress: &Egress, socket: Arc<Socket>) -> Self {
        let peer = RawAddress::new(egress.peer, socket.is_ipv6());
        Self { sa: Arc::clone(&egress.sa.0), peer, peer_is_ipv6: is_ipv6(egress.peer), socket }
    }
}

fn is_ipv6(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_ipv6()
}

/// A [`Carriage`] with everything looked up.
#[derive(Debug, Clone)]
pub(super) struct Ways {
    main: Arc<Resolved>,
    spread: Option<Spread>,
    copies: Option<Arc<Resolved>>,
}

/// The ways that flows are spread over.
#[derive(Debug, Clone)]
struct Spread {
    ways: Vec<(PathId, u32, Arc<Resolved>)>,
    /// The way of each, by its place among them.
    buckets: Vec<usize>,
}

/// By which ways flows went last, and when. The sending thread's own.
#[derive(Debug)]
pub(super) struct Flows {
    keys: RandomState,
    went: Vec<(u64, PathId)>,
}

impl Flows {
    pub(super) fn new() -> Self {
        Self { keys: RandomState::new(), went: vec![(0, PathId(0)); BUCKETS] }
    }
}

impl Ways {
    pub(super) fn new(
        carriage: &Carriage,
        resolved: impl Fn(&Egress) -> Option<Arc<Resolved>>,
    ) -> Option<Self> {
        let shares = carriage.shares.iter();
        let shares =
            shares.filter_map(|share| Some((PathId(share.name), share.weight, resolved(&share.egress)?)));
        Some(Self {
            main: resolved(&carriage.main)?,
            spread: Spread::new(shares.collect()),
            copies: carriage.copies.as_ref().and_then(&resolved),
        })
    }

    /// What a packet leaves by, and what a copy of it leaves by.
    pub(super) fn choose(
        &self,
        flows: &mut Flows,
        ip: &Ip,
        packet: &[u8],
        longest: usize,
    ) -> (&Arc<Resolved>, Option<&Arc<Resolved>>) {
        let way = match &self.spread {
            None => &self.main,
            Some(spread) => {
                let flow = flow_hash(&flows.keys, ip, packet);
                spread.way_of(flow, &mut flows.went, sys::boottime_nanos()).unwrap_or(&self.main)
            }
        };
        let copies = self.copies.as_ref().filter(|_| is_worth_a_copy(longest, ip.tos));
        (way, copies)
    }

    /// What is left of it without a socket; `None` when that is nothing.
    fn without(&self, id: SocketId) -> Option<Self> {
        let stays = |egress: &&Arc<Resolved>| egress.socket.id != id;
        let spread = self.spread.as_ref().and_then(|spread| {
            let ways = spread.ways.iter().filter(|(_, _, egress)| stays(&egress));
            Spread::new(ways.cloned().collect())
        });
        let copies = self.copies.as_ref().filter(stays);
        let shared = spread.as_ref().and_then(|spread| spread.ways.first()).map(|(_, _, egress)| egress);
        let main = Some(&self.main).filter(stays).or(shared).or(copies)?;
        let copies = copies.filter(|copies| !Arc::ptr_eq(copies, main)).cloned();
        Some(Self { main: Arc::clone(main), spread, copies })
    }

    fn names(&self, id: SocketId) -> bool {
        let spread = self.spread.iter().flat_map(|spread| &spread.ways).map(|(_, _, egress)| egress);
        let mut all = std::iter::once(&self.main).chain(spread).chain(&self.copies);
        all.any(|egress| egress.socket.id == id)
    }
}

impl Spread {
    fn new(ways: Vec<(PathId, u32, Arc<Resolved>)>) -> Option<Self> {
        let shares = Shares::new(ways.iter().map(|(path, weight, _)| (*path, *weight)).collect());
        let of = |bucket: u64| {
            let path = shares.path_of(bucket)?;
            ways.iter().position(|(name, _, _)| *name == path)
        };
        let buckets: Vec<usize> = (0..BUCKETS as u64).filter_map(of).collect();
        (buckets.len() == BUCKETS).then_some(Self { ways, buckets })
    }

    fn way_of(&self, flow: u64, went: &mut [(u64, PathId)], now: u64) -> Option<&Arc<Resolved>> {
        let bucket = flow as usize % BUCKETS;
        let (at, last) = went.get_mut(bucket)?;
        let mut way = self.ways.get(*self.buckets.get(bucket)?)?;
        if way.0 != *last && now.saturating_sub(*at) < PAUSE {
            way = self.ways.iter().find(|(name, _, _)| name == last).unwrap_or(way);
        }
        (*at, *last) = (now, way.0);
        Some(&way.2)
    }
}

/// Routes of whole addresses, of prefixes, and the default.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    hosts: HashMap<IpAddr, Arc<Ways>>,
    /// Longest first.
    prefixes: Vec<(IpNet, Arc<Ways>)>,
    default: Option<Arc<Ways>>,
}

impl Table {
    pub(super) fn lookup(&self, destination: IpAddr) -> Option<&Ways> {
        if !self.hosts.is_empty()
            && let Some(host) = self.hosts.get(&destination)
        {
            return Some(host);
        }
        let prefix = self.prefixes.iter().find(|(prefix, _)| prefix.contains(&destination));
        prefix.map(|(_, ways)| ways).or(self.default.as_ref()).map(Arc::as_ref)
    }

    pub(super) fn set_default(&mut self, ways: Option<Arc<Ways>>) {
        self.default = ways;
    }

    pub(super) fn set_route(&mut self, destination: IpNet, ways: Option<Arc<Ways>>) {
        let destination = destination.trunc();
        if destination.prefix_len() == destination.max_prefix_len() {
            match ways {
                Some(ways) => self.hosts.insert(destination.addr(), ways),
                None => self.hosts.remove(&destination.addr()),
            };
            return;
        }
        self.prefixes.retain(|(prefix, _)| *prefix != destination);
        if let Some(ways) = ways {
            let at =
                self.prefixes.partition_point(|(prefix, _)| prefix.prefix_len() >= destination.prefix_len());
            self.prefixes.insert(at, (destination, ways));
        }
    }

    /// Removes whatever leaves by a socket.
    pub(super) fn remove_socket(&mut self, id: SocketId) {
        let stays = |ways: &mut Arc<Ways>| {
            if !ways.names(id) {
                return true;
            }
            ways.without(id).map(|left| *ways = Arc::new(left)).is_some()
        };
        self.hosts.retain(|_, ways| stays(ways));
        self.prefixes.retain_mut(|(_, ways)| stays(ways));
        self.default = self.default.take().and_then(|mut ways| stays(&mut ways).then_some(ways));
    }
}
