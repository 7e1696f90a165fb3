//! What the owner sets when it starts the pump.

use std::net::SocketAddr;
use std::time::Duration;

/// An opened TUN device (`IFF_TUN | IFF_NO_PI`), which the pump reads and writes.
///
/// The device may belong to the owner's longer-lived intent: hand in a duplicate of the descriptor then. The pump sets it
/// to non-blocking, which duplicates share, and closes it when it stops.
#[derive(Debug)]
pub struct TunFd {
    /// The open device.
    #[cfg(unix)]
    pub fd: std::os::fd::OwnedFd,
    /// Whether it was opened with `IFF_VNET_HDR`. Without it there is no segmentation offload towards the device.
    pub vnet_hdr: bool,
}

/// Settings of one pump.
#[derive(Debug, Clone)]
pub struct Config {
    /// The largest inner packet, in octets; [`crate::esp::EspSuite::inner_mtu`] derives it from the path's. Can be
    /// changed later.
    pub inner_mtu: u16,
    /// Use segmentation offloads of the device and the sockets where probing finds them.
    pub offloads: bool,
    /// Copy the inner DSCP to the outer header (RFC 4301 5.1.2.1), which tells the outer network what is inside.
    pub copy_dscp: bool,
    /// Lower the MSS option of TCP SYNs, in both directions, to what `inner_mtu` carries.
    pub clamp_mss: bool,
    /// IKE datagrams that wait for the owner at most; more are dropped, for the peer sends them again.
    pub ike_queue: usize,
    /// Other events that wait for the owner at most; more are dropped.
    pub event_queue: usize,
    /// Name prefix of the threads.
    pub name: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            inner_mtu: 1400,
            offloads: true,
            copy_dscp: false,
            clamp_mss: true,
            ike_queue: 256,
            event_queue: 256,
            name: String::from("ropewalk"),
        }
    }
}

/// How datagrams of a socket are framed (RFC 3948 2, RFC 7296 2.23).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A client's socket: plain IKE with remote port 500, NAT traversal framing with any other.
    ByRemotePort,
    /// A gateway's socket on local port 500: always plain IKE.
    Plain,
    /// A gateway's socket on local port 4500: always NAT traversal framing.
    NatTraversal,
}

impl Framing {
    /// Whether datagrams from or to `remote` have the NAT traversal framing.
    #[must_use]
    pub const fn nat_traversal(self, remote: &SocketAddr) -> bool {
        match self {
            Self::ByRemotePort => remote.port() != 500,
            Self::Plain => false,
            Self::NatTraversal => true,
        }
    }
}

/// A NAT keepalive (RFC 3948 4) on one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Where it goes.
    pub peer: SocketAddr,
    /// It is sent when nothing else was sent on the socket for this long.
    pub interval: Duration,
}
