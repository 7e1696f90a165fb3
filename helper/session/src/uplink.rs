//! The networks of the machine, and the paths of a connection over them, as they are told and shown.

use std::net::IpAddr;
use std::time::Duration;

use ropewalk_ike::exchange::{IkeSpis, Path};
use ropewalk_ike::time::Instant;
use ropewalk_paths::{Health, PathId};

/// An interface that leads outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The system's number of it.
    pub interface: u32,
    /// Its name.
    pub name: String,
    /// What is sent by it costs.
    pub metered: bool,
    /// It leads outside with IPv4.
    pub ipv4: bool,
    /// It leads outside with IPv6.
    pub ipv6: bool,
}

impl Uplink {
    /// Whether it leads to addresses of this family.
    #[must_use]
    pub fn reaches(&self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

/// What a CHILD_SA has carried so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Our SPI of it.
    pub spi_in: u32,
    /// Octets of inner packets received.
    pub received: u64,
    /// Octets of inner packets sent.
    pub sent: u64,
    /// When the last authenticated packet came in.
    pub last_in: Option<Instant>,
    /// When the last packet went out.
    pub last_out: Option<Instant>,
    /// Authentic packets received, and the highest sequence number of one.
    pub arrived: (u64, u64),
}

/// A path, to be shown.
#[derive(Clone, Debug, PartialEq)]
pub struct PathSnapshot {
    /// Which; the same over all renewals.
    pub id: PathId,
    /// The system's number of its interface; `None` while it has none.
    pub interface: Option<u32>,
    /// Where it goes.
    pub path: Path,
    /// Its IKE_SA.
    pub spis: IkeSpis,
    /// Our SPI of the CHILD_SA that it sends with.
    pub spi_in: Option<u32>,
    /// How it is.
    pub health: Health,
    /// Its smoothed round trip time.
    pub rtt: Option<Duration>,
    /// The share of packets that are lost there and back, 0 to 1.
    pub loss: Option<f64>,
    /// Whether data goes by it.
    pub carrying: bool,
}

/// Why a connection has one path and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alone {
    /// The profile wants no more.
    NotWanted,
    /// Transport mode is bound to the addresses of one path (RFC 3884).
    Transport,
    /// There is only one network, and one address of the gateway.
    OneWay,
    /// The gateway does not know KEEP_OLD_IKE_SA.
    NotKept,
    /// The gateway does not know MOBIKE.
    NoMobike,
    /// The gateway refuses further IKE_SAs.
    Refused,
    /// The others do not answer, or are still being set up.
    Unanswered,
}
