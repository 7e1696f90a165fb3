//! What a session wants done outside.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use ropewalk_dhcp::Lease;
use ropewalk_ike::crypto::IkeKeys;
use ropewalk_ike::exchange::child::ChildSa;
use ropewalk_ike::exchange::{IkeSpis, Path};
use ropewalk_ike::multi_point::rollover::Action;
use ropewalk_ike::proposal::ChosenIke;
use ropewalk_ike::wire::TrafficSelectors;
use ropewalk_paths::PathId;

use crate::path_size::PathSize;

/// Why a credential is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialReason {
    /// None is known.
    Missing,
    /// The gateway refused the last one; with its message, if it sent one.
    Refused(Option<String>),
}

/// The inside of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InnerSettings {
    /// Our inner addresses with prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// DNS servers that the gateway named.
    pub dns_servers: Vec<IpAddr>,
    /// Names that those answer for; empty means all.
    pub dns_domains: Vec<String>,
    /// What the gateway lets us reach: the CHILD_SA's selectors on its side.
    pub reachable: TrafficSelectors,
    /// Our side's selectors.
    pub local: TrafficSelectors,
    /// The prefix length of the link that the IPv4 address belongs to, if the gateway gave a netmask.
    pub link_prefix: Option<u8>,
    /// Where a DHCP server lets us go, as far as that is allowed; `None`: all that is reachable.
    pub routes: Option<Vec<IpNet>>,
    /// Domains to complete names with.
    pub search: Vec<String>,
    /// The largest packet that a DHCP server allows.
    pub mtu: Option<u16>,
}

/// A way out: a CHILD_SA and where it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The path that it belongs to: the same over all renewals.
    pub id: PathId,
    /// Our SPI of the CHILD_SA.
    pub spi_in: u32,
    /// Where it sends.
    pub path: Path,
}

/// What leaves by which CHILD_SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carriage {
    /// The way of everything that is not spread.
    pub carrying: Lane,
    /// A flow may change its way when it has paused for so long.
    pub pause: Duration,
    /// How flows are spread, by [`ropewalk_paths::Shares`] of the lanes' ids and these weights; empty unless they are.
    pub shares: Vec<(Lane, u32)>,
    /// The way of second copies.
    pub copies: Option<Lane>,
    /// Where paths have inner addresses of their own: what has one of these leaves by that way, whatever else is said.
    pub by_source: Vec<(IpAddr, Lane)>,
}

/// One thing to do. The order matters.
#[derive(Debug)]
pub enum Command {
    /// Ask the user; answered by `Session::credential`.
    AskCredential(CredentialReason),
    /// Find a name's addresses outside the tunnel; answered by `Session::resolved`.
    Resolve(String),
    /// Open a socket for this gateway address; answered by `Session::path_opened` or `Session::path_failed`.
    OpenPath {
        /// The gateway's address and port.
        remote: SocketAddr,
        /// The system's number of the interface to bind it to; `None`: the one that the system would use.
        interface: Option<u32>,
    },
    /// The socket is not needed any more.
    ClosePath(u32),
    /// Receive, and be ready to send, with this CHILD_SA.
    InstallChild(Box<ChildSa>),
    /// Send like this from now on.
    Carry(Carriage),
    /// The path of this socket carries packets of this size.
    PathSize {
        /// The socket.
        link: u32,
        /// What is known of it.
        size: PathSize,
    },
    /// Forget the CHILD_SA with this inbound SPI.
    RemoveChild(u32),
    /// Install, use or forget an SA of the group.
    Group(Action),
    /// Send this inner packet by the CHILD_SA with our SPI `spi_in` along this path.
    SendInner {
        /// Our SPI of the CHILD_SA.
        spi_in: u32,
        /// Where it sends.
        path: Path,
        /// A whole IP packet.
        packet: Vec<u8>,
    },
    /// Find out whether this machine has this address already; answered by `Session::address_checked`.
    CheckAddress(Ipv4Addr),
    /// Remember this lease, which began now, over restarts; `None`: there is none any more.
    KeepLease(Option<Box<Lease>>),
    /// Make the tunnel device look like this.
    ConfigureTunnel(Box<InnerSettings>),
    /// The user's intent to be connected is over: remove the tunnel device.
    ReleaseTunnel,
    /// An IKE_SA's keys, for the administrator's key log.
    LogIkeKeys {
        /// Its SPIs.
        spis: IkeSpis,
        /// Its suite.
        suite: ChosenIke,
        /// Its keys.
        keys: Box<IkeKeys>,
    },
}
