//! One inbound SA as the receiving thread has it, and the map that finds it by its SPI.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::port::Port;
use crate::counters::AtomicSaCounters;
use crate::esp::InboundSa;
use crate::packet::ip::{Fragment, Ip, UDP};
use crate::policy::Selector;
use crate::sa::{Divert, InboundSpec, SocketId};

/// How many senders of an SA are told apart.
const MAX_SENDERS: usize = 256;
/// How often each of them is told of, in nanoseconds.
const SENDER_SAID_EVERY: u64 = 250_000_000;

/// One inbound SA.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) sa: InboundSa,
    sources: Vec<Selector>,
    destinations: Vec<Selector>,
    /// The only outer addresses: ours, the peer's.
    outer: Option<(IpAddr, IpAddr)>,
    /// Where its packets go.
    pub(super) port: Arc<Port>,
    pub(super) peer: Option<(SocketId, SocketAddr)>,
    divert: Option<Divert>,
    /// Who sends, when there are many, and when that was said last.
    senders: Vec<(SocketAddr, u64)>,
    pub(super) counters: Arc<AtomicSaCounters>,
}

impl Entry {
    pub(super) fn new(spec: InboundSpec, port: Arc<Port>) -> Self {
        let InboundSpec { sa, sources, destinations, outer, device: _, peer, divert } = spec;
        let outer = outer.map(|(ours, theirs)| (ours.to_canonical(), theirs.to_canonical()));
        let senders = Vec::with_capacity(if sa.window().is_none() { MAX_SENDERS } else { 0 });
        Self { sa, sources, destinations, outer, port, peer, divert, senders, counters: Arc::default() }
    }

    pub(super) const fn spi(&self) -> u32 {
        self.sa.spi()
    }

    /// Whether it is time to say that this one of many senders was heard.
    pub(super) fn is_news(&mut self, sender: SocketAddr, now: u64) -> bool {
        if self.senders.len() < MAX_SENDERS && !self.senders.iter().any(|(known, _)| *known == sender) {
            self.senders.push((sender, now));
            return true;
        }
        // A new one takes the place of who was silent longest.
        let known = self.senders.iter().position(|(known, _)| *known == sender);
        let oldest = || self.senders.iter().enumerate().min_by_key(|(_, (_, said))| *said).map(|(at, _)| at);
        let place = known.or_else(oldest).and_then(|at| self.senders.get_mut(at));
        let place = place.filter(|(_, said)| now >= *said + SENDER_SAID_EVERY);
        place.map(|place| *place = (sender, now)).is_some()
    }

    /// Whether a packet with these outer addresses can be the SA's.
    pub(super) fn is_from(&self, local: IpAddr, remote: IpAddr) -> bool {
        self.outer.is_none_or(|outer| outer == (local.to_canonical(), remote.to_canonical()))
    }

    /// Whether an inner packet is the owner's.
    pub(super) fn diverts(&self, ip: &Ip, packet: &[u8]) -> bool {
        self.divert.is_some_and(|divert| {
            ip.protocol == UDP
                && ip.fragment == Fragment::Whole
                && ip.ports(packet) == Some((divert.source_port, divert.destination_port))
        })
    }

    /// Whether both ends of an inner packet are what was agreed.
    pub(super) fn allows(&self, ip: &Ip, packet: &[u8]) -> bool {
        let (from, to) = match ip.ports(packet) {
            Some((from, to)) => (Some(from), Some(to)),
            None => (None, None),
        };
        self.sources.iter().any(|selector| selector.matches(ip.source, ip.protocol, from))
            && self.destinations.iter().any(|selector| selector.matches(ip.destination, ip.protocol, to))
    }
}

/// SPIs of inbound SAs are our own choice: nobody can make them collide.
#[derive(Debug, Default)]
pub(super) struct SpiHasher(u64);

impl Hasher for SpiHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub(super) type SpiMap = HashMap<u32, Entry, BuildHasherDefault<SpiHasher>>;
