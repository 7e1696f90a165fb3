//! What the pump tells its owner.

use std::net::{IpAddr, SocketAddr};

use crate::sa::SocketId;

/// An IKE message, without the non-ESP marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IkeDatagram {
    /// The socket it came in by.
    pub socket: SocketId,
    /// Our address: the destination address where the system tells it, else what the socket is bound to.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// The message.
    pub bytes: Vec<u8>,
}

/// Something the owner may want to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// An IKE message came in. Unauthenticated.
    Ike(IkeDatagram),
    /// ESP came in for an SPI that is not known. Unauthenticated, rate limited.
    UnknownSpi {
        /// The SPI.
        spi: u32,
        /// Where it came in.
        socket: SocketId,
        /// Who sent it.
        remote: SocketAddr,
    },
    /// Authenticated ESP with the newest sequence number of its SPI came from another address or by another socket than
    /// before: the peer's NAT gave it a new mapping, or it moved. Said once for each change.
    PeerMoved {
        /// The inbound SPI.
        spi: u32,
        /// Where it came in now.
        socket: SocketId,
        /// Our address, as in [`IkeDatagram::local`].
        local: SocketAddr,
        /// The peer's address now.
        remote: SocketAddr,
    },
    /// Authenticated ESP of an SA with many senders came from here. Said a few times a second for each sender.
    Heard {
        /// The SPI.
        spi: u32,
        /// Who sent it.
        remote: SocketAddr,
    },
    /// An inner packet that its SA diverts ([`crate::InboundSpec::divert`]): authenticated, and as the SA's selectors allow.
    /// More than some dozens a second are dropped.
    Inner {
        /// The inbound SPI.
        spi: u32,
        /// The whole IP packet.
        packet: Vec<u8>,
    },
    /// The path to `remote` carries no UDP payload that makes IP packets above `mtu` octets: lower the inner MTU.
    PathMtu {
        /// The socket.
        socket: SocketId,
        /// Where it was sent to. Port 0 when the local interface is what refused it: the system does not tell it then.
        remote: SocketAddr,
        /// The path MTU in octets, IP header included.
        mtu: u16,
    },
    /// The system reported an error for a socket, such as "connection refused" or "network unreachable". Comes from
    /// unauthenticated ICMP, too: a hint, rate limited.
    SocketError {
        /// The socket.
        socket: SocketId,
        /// Whom it concerns, when known.
        remote: Option<SocketAddr>,
        /// The error number.
        errno: i32,
    },
    /// Three quarters of an outbound SA's sequence numbers are used: rekey. Said once.
    SequenceLow {
        /// The outbound SPI.
        spi: u32,
        /// Numbers that are left.
        remaining: u64,
    },
    /// A packet for `destination` had no egress. Rate limited.
    NoEgress {
        /// The inner destination.
        destination: IpAddr,
    },
    /// The pump cannot go on (the device is gone). Everything else is still released by stopping it.
    Failed {
        /// In plain words.
        reason: String,
    },
}
