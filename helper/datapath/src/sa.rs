//! Security associations as the pump holds them, and the egress that joins SA, socket and peer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ropewalk_esp::{InboundSa, OutboundSa, SequenceCounter};

use crate::counters::{AtomicSaCounters, SaCounters};
use crate::policy::Selector;

/// A socket that was added to the pump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub(crate) u32);

/// A TUN device of the pump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(pub(crate) u32);

impl DeviceId {
    /// The one that the pump was started with.
    pub const MAIN: Self = Self(0);
}

/// An inbound SA to be added.
#[derive(Debug)]
pub struct InboundSpec {
    /// Keys, SPI and replay window.
    pub sa: InboundSa,
    /// What the inner source must match: on the client the gateway's selectors (TSr), on the gateway the client's (TSi).
    pub sources: Vec<Selector>,
    /// What the inner destination must match: on the client its own (TSi), on the gateway TSr.
    pub destinations: Vec<Selector>,
    /// The outer addresses that the SA is bound to in transport mode: ours, the peer's. ESP from or to others is refused, and
    /// the port does not count. `None` in tunnel mode.
    pub outer: Option<(IpAddr, IpAddr)>,
    /// The device that gets its packets.
    pub device: DeviceId,
    /// Where the peer is expected; ESP from elsewhere is taken all the same and reported as [`crate::Event::PeerMoved`].
    /// `None`: the first packet tells, and is not reported.
    pub peer: Option<(SocketId, SocketAddr)>,
    /// What goes to the owner instead of the device ([`crate::Event::Inner`]).
    pub divert: Option<Divert>,
}

/// UDP packets of one service, IPv4 or IPv6, that the owner speaks itself. Fragments are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Divert {
    /// From this port.
    pub source_port: u16,
    /// To this port.
    pub destination_port: u16,
}

/// The owner's view of an inbound SA: its counters. Dropping it does not remove the SA.
#[derive(Debug, Clone)]
pub struct InboundHandle {
    pub(crate) spi: u32,
    pub(crate) counters: Arc<AtomicSaCounters>,
}

impl InboundHandle {
    /// The SPI.
    #[must_use]
    pub const fn spi(&self) -> u32 {
        self.spi
    }

    /// The counters now.
    #[must_use]
    pub fn counters(&self) -> SaCounters {
        self.counters.read()
    }
}

/// An outbound SA with its one sequence counter. Clones are the same SA: whichever egress uses it, a sequence number is
/// used once.
#[derive(Debug, Clone)]
pub struct OutboundHandle(pub(crate) Arc<Outbound>);

#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) sa: OutboundSa,
    pub(crate) sequence: SequenceCounter,
    pub(crate) counters: AtomicSaCounters,
    pub(crate) low_reported: AtomicBool,
}

impl OutboundHandle {
    /// Starts an SA at sequence number 1. Make one handle for a set of keys, once.
    #[must_use]
    pub fn new(sa: OutboundSa) -> Self {
        let sequence = SequenceCounter::new(sa.esn());
        Self::with_sequence(sa, sequence)
    }

    /// As [`Self::new`], with a counter that was begun elsewhere.
    #[must_use]
    pub fn with_sequence(sa: OutboundSa, sequence: SequenceCounter) -> Self {
        Self(Arc::new(Outbound {
            sa,
            sequence,
            counters: AtomicSaCounters::default(),
            low_reported: AtomicBool::new(false),
        }))
    }

    /// The SPI.
    #[must_use]
    pub fn spi(&self) -> u32 {
        self.0.sa.spi()
    }

    /// The counters now.
    #[must_use]
    pub fn counters(&self) -> SaCounters {
        self.0.counters.read()
    }

    /// The sequence number used last.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.0.sequence.last()
    }
}

/// What a packet leaves by. Replaced as a whole.
#[derive(Debug, Clone)]
pub struct Egress {
    /// Seals it.
    pub sa: OutboundHandle,
    /// Sends it.
    pub socket: SocketId,
    /// Where to.
    pub peer: SocketAddr,
}
