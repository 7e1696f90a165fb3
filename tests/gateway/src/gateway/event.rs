//! What the gateway tells its owner, and how it names clients.

use std::net::{IpAddr, SocketAddr};

use ropewalk_ike::crypto::IkeKeys;
use ropewalk_ike::exchange::child::ChildSa;
use ropewalk_ike::exchange::sa::CloseReason;
use ropewalk_ike::exchange::{IkeSpis, Path};
use ropewalk_ike::proposal::ChosenIke;

use crate::carriage::Carriage;

/// A client, by our SPI of its IKE_SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// What the owner has to know or do.
#[derive(Debug)]
pub enum GatewayEvent {
    /// A client proved itself. Its CHILD_SA follows, unless that was refused.
    ClientUp {
        /// Which.
        client: ClientId,
        /// Who it is.
        name: String,
        /// Its inner addresses.
        addresses: Vec<IpAddr>,
        /// Where it is.
        path: Path,
    },
    /// An IKE_SA's keys, when a key log is wanted.
    IkeKeys {
        /// Its SPIs.
        spis: IkeSpis,
        /// Its suite.
        suite: ChosenIke,
        /// Its keys.
        keys: Box<IkeKeys>,
    },
    /// A CHILD_SA to install for receiving.
    ChildUp {
        /// Whose.
        client: ClientId,
        /// The CHILD_SA.
        child: Box<ChildSa>,
        /// Where to send.
        path: Path,
    },
    /// Packets to the client's inner addresses leave by these CHILD_SAs from now on.
    Carriage {
        /// Whose.
        client: ClientId,
        /// Which.
        carriage: Carriage,
    },
    /// A CHILD_SA to remove.
    ChildDown {
        /// Whose.
        client: ClientId,
        /// Our SPI of it.
        spi_in: u32,
    },
    /// What goes by some of a client's CHILD_SAs is to be sent by another path.
    PathChanged {
        /// Whose.
        client: ClientId,
        /// Our SPIs of them.
        children: Vec<u32>,
        /// The new one.
        path: Path,
    },
    /// A message of a client's for the DHCP servers on the LAN.
    ToDhcpServer {
        /// It, as the relay sends it.
        message: Vec<u8>,
    },
    /// An inner packet to send by the CHILD_SA with our SPI `spi_in`.
    SendInner {
        /// Our SPI of it.
        spi_in: u32,
        /// The whole packet.
        packet: Vec<u8>,
    },
    /// A client is gone; its CHILD_SAs went before.
    ClientGone {
        /// Which.
        client: ClientId,
        /// Who it was.
        name: String,
        /// Why.
        reason: CloseReason,
    },
}

/// A client that is in, for whoever asks.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// Its number.
    pub client: ClientId,
    /// Who it is.
    pub name: String,
    /// Its inner addresses.
    pub addresses: Vec<IpAddr>,
    /// Where it is: the far end of the path that carries.
    pub remote: SocketAddr,
    /// The suite of that path's IKE_SA.
    pub suite: ChosenIke,
    /// Our SPIs of its CHILD_SAs, over all paths.
    pub children: Vec<u32>,
    /// Its paths, the oldest first.
    pub paths: Vec<PathInfo>,
    /// With what it is sent to; `None` without a CHILD_SA.
    pub carriage: Option<Carriage>,
}

/// One path of a client, for whoever asks.
#[derive(Clone, Debug)]
pub struct PathInfo {
    /// Where it leads.
    pub path: Path,
    /// The SPIs of its IKE_SA.
    pub spis: IkeSpis,
    /// Our SPIs of its CHILD_SAs.
    pub children: Vec<u32>,
    /// It is the main one.
    pub main: bool,
}
