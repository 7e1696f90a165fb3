//! The table of what packets leave by: immutable, replaced as a whole behind an atomic pointer.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use ropewalk_paths::{PathId, Shares};

use super::address::RawAddress;
use super::memory::{BUCKETS, Clock, Memory};
use super::socket::Socket;
use crate::carriage::Carriage;
use crate::packet::flow::{flow_hash, is_worth_a_copy};
use crate::packet::ip::Ip;
use crate::sa::{Egress, Outbound, SocketId};

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
    name: PathId,
    spread: Option<Spread>,
    /// By which ways flows have gone, whatever has taken this one's place since.
    memory: Arc<Memory>,
    copies: Option<Arc<Resolved>>,
    by_source: Vec<(IpAddr, Arc<Resolved>)>,
}

/// The ways that flows are spread over.
#[derive(Debug, Clone)]
struct Spread {
    ways: Vec<(PathId, u32, Arc<Resolved>)>,
    /// The way of each, by its place among them.
    buckets: Vec<usize>,
    /// A bucket goes on by the way that it went until it has paused for so long, also when the shares say otherwise by now.
    pause: u64,
}

impl Ways {
    pub(super) fn new(
        carriage: &Carriage,
        before: Option<&Self>,
        resolved: impl Fn(&Egress) -> Option<Arc<Resolved>>,
    ) -> Option<Self> {
        let memory = before.map(|before| Arc::clone(&before.memory)).unwrap_or_default();
        let shares = carriage.shares.iter();
        let shares =
            shares.filter_map(|share| Some((PathId(share.name), share.weight, resolved(&share.egress)?)));
        let by_source = carriage.by_source.iter();
        let spread = Spread::new(shares.collect(), nanos(carriage.pause));
        if spread.is_some() {
            memory.prepare();
        }
        Some(Self {
            main: resolved(&carriage.main)?,
            name: PathId(carriage.name),
            spread,
            memory,
            copies: carriage.copies.as_ref().and_then(&resolved),
            by_source: by_source.filter_map(|(source, egress)| Some((*source, resolved(egress)?))).collect(),
        })
    }

    /// What a packet leaves by, and what a copy of it leaves by.
    pub(super) fn choose(
        &self,
        clock: &Clock,
        ip: &Ip,
        packet: &[u8],
        longest: usize,
    ) -> (&Arc<Resolved>, Option<&Arc<Resolved>>) {
        if let Some((_, way)) = self.by_source.iter().find(|(source, _)| *source == ip.source) {
            return (way, None);
        }
        let way = match &self.spread {
            None => {
                self.memory.unspread.set(clock.now(), self.name);
                &self.main
            }
            Some(spread) => {
                let flow = flow_hash(&self.memory.keys, ip, packet);
                spread.way_of(flow, &self.memory, clock.now()).unwrap_or(&self.main)
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
            Spread::new(ways.cloned().collect(), spread.pause)
        });
        let copies = self.copies.as_ref().filter(stays);
        let shared = spread.as_ref().and_then(|spread| spread.ways.first());
        let shared = shared.map(|(name, _, egress)| (egress, *name));
        let main = Some((&self.main, self.name)).filter(|(egress, _)| stays(egress)).or(shared);
        let mut by_source = self.by_source.clone();
        by_source.retain(|(_, egress)| egress.socket.id != id);
        let own = by_source.first().map(|(_, egress)| (egress, self.name));
        let main = main.or(copies.map(|copies| (copies, self.name))).or(own);
        let (main, name) = main.map(|(main, name)| (Arc::clone(main), name))?;
        let copies = copies.filter(|copies| !Arc::ptr_eq(copies, &main)).cloned();
        let memory = Arc::clone(&self.memory);
        Some(Self { main, name, spread, memory, copies, by_source })
    }

    fn names(&self, id: SocketId) -> bool {
        let spread = self.spread.iter().flat_map(|spread| &spread.ways).map(|(_, _, egress)| egress);
        let own = self.by_source.iter().map(|(_, egress)| egress);
        let mut all = std::iter::once(&self.main).chain(spread).chain(&self.copies).chain(own);
        all.any(|egress| egress.socket.id == id)
    }
}

impl Spread {
    fn new(ways: Vec<(PathId, u32, Arc<Resolved>)>, pause: u64) -> Option<Self> {
        let shares = Shares::new(ways.iter().map(|(path, weight, _)| (*path, *weight)).collect());
        let of = |bucket: u64| {
            let path = shares.path_of(bucket)?;
            ways.iter().position(|(name, _, _)| *name == path)
        };
        let buckets: Vec<usize> = (0..BUCKETS as u64).filter_map(of).collect();
        (buckets.len() == BUCKETS).then_some(Self { ways, buckets, pause })
    }

    fn way_of(&self, flow: u64, memory: &Memory, now: u64) -> Option<&Arc<Resolved>> {
        let bucket = flow as usize % BUCKETS;
        let mut way = self.ways.get(*self.buckets.get(bucket)?)?;
        let went = memory.of(bucket)?;
        let (at, last) = went.get().max(memory.unspread.get());
        if way.0 != last && now.saturating_sub(at) < self.pause {
            way = self.ways.iter().find(|(name, _, _)| *name == last).unwrap_or(way);
        }
        went.set(now, way.0);
        Some(&way.2)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Routes of whole addresses, of prefixes, and the default.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    /// Nothing beside one of these stands for the default.
    hosts: HashMap<IpAddr, Option<Arc<Ways>>>,
    /// Longest first.
    prefixes: Vec<(IpNet, Option<Arc<Ways>>)>,
    default: Option<Arc<Ways>>,
}

impl Table {
    pub(super) fn lookup(&self, destination: IpAddr) -> Option<&Ways> {
        if !self.hosts.is_empty()
            && let Some(host) = self.hosts.get(&destination)
        {
            return host.as_deref().or(self.default.as_deref());
        }
        let prefix = self.prefixes.iter().find(|(prefix, _)| prefix.contains(&destination));
        prefix.and_then(|(_, ways)| ways.as_deref()).or(self.default.as_deref())
    }

    /// What packets to these destinations leave by now, or to all others.
    pub(super) fn ways_to(&self, destination: Option<IpNet>) -> Option<&Ways> {
        let Some(destination) = destination.map(|destination| destination.trunc()) else {
            return self.default.as_deref();
        };
        if destination.prefix_len() == destination.max_prefix_len() {
            return self.hosts.get(&destination.addr())?.as_deref();
        }
        let known = self.prefixes.iter().find(|(prefix, _)| *prefix == destination);
        known?.1.as_deref()
    }

    pub(super) fn set_default(&mut self, ways: Option<Arc<Ways>>) {
        self.default = ways;
    }

    pub(super) fn set_route(&mut self, destination: IpNet, ways: Option<Arc<Ways>>) {
        self.set(destination, ways.map(Some));
    }

    /// What goes there leaves by the default, also within a shorter prefix that leaves by something else.
    pub(super) fn set_route_by_default(&mut self, destination: IpNet) {
        self.set(destination, Some(None));
    }

    fn set(&mut self, destination: IpNet, entry: Option<Option<Arc<Ways>>>) {
        let destination = destination.trunc();
        if destination.prefix_len() == destination.max_prefix_len() {
            match entry {
                Some(ways) => self.hosts.insert(destination.addr(), ways),
                None => self.hosts.remove(&destination.addr()),
            };
            return;
        }
        self.prefixes.retain(|(prefix, _)| *prefix != destination);
        if let Some(ways) = entry {
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
        self.hosts.retain(|_, ways| ways.as_mut().is_none_or(stays));
        self.prefixes.retain_mut(|(_, ways)| ways.as_mut().is_none_or(stays));
        self.default = self.default.take().and_then(|mut ways| stays(&mut ways).then_some(ways));
    }
}
