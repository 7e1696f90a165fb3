//! The exchanges of IKEv2: what a peer does with messages (RFC 7296 section 1).
//!
//! - [`initiator`]: IKE_SA_INIT and IKE_AUTH from the client's side, one type a state.
//! - [`sa`]: an established IKE_SA, the same for both roles, with its table of running tasks.
//! - [`create_child_sa`], [`informational`]: the exchanges on it.
//! - [`liveness`]: is the peer still there?
//! - [`inner`]: inner addresses for one more path.
//! - [`probe`]: is the path alive?
//! - [`path_size`]: how large datagrams may be.
//! - [`mobike`]: ends that move.
//! - [`lifetime`], `renewal`: when it and its CHILD_SAs are renewed, and how old ones go.
//! - `rekey_child`, [`rekey_ike`]: how they are renewed.
//! - [`keep_old`]: a further IKE_SA beside one that stands, and which of them carries.
//! - [`protect`], [`fragment`]: the Encrypted payload around messages, whole or in fragments.
//! - [`group`]: the SA of a group, handed out by the gateway.
//! - [`crash`]: a peer that shows to have lost its memory.
//! - [`retransmit`]: requests repeated, answers remembered.

pub mod child;
pub mod config;
pub mod crash;
pub mod create_child_sa;
pub mod dhcp_sa;
pub mod fragment;
pub mod group;
pub mod informational;
pub mod initiator;
pub mod inner;
pub mod keep_old;
pub mod lifetime;
pub mod liveness;
pub mod mobike;
pub mod nat;
pub mod path_size;
pub mod probe;
pub mod protect;
mod rekey_child;
pub mod rekey_ike;
mod renewal;
pub mod retransmit;
pub mod sa;
pub mod transport;
pub mod version;

use std::fmt;
use std::net::SocketAddr;

/// The way a datagram takes: which of the caller's sockets, and both ends' addresses as the operating system sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// The caller's name for the socket; opaque here.
    pub link: u32,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
}

impl Path {
    /// The same path to another port of the peer.
    #[must_use]
    pub fn with_remote_port(self, port: u16) -> Self {
        let mut remote = self.remote;
        remote.set_port(port);
        Self { remote, ..self }
    }

    /// Whether both have the same ends but for the port of the peer, which a NAT changes when it has forgotten the old one.
    pub(crate) fn is_same_host(self, other: Self) -> bool {
        self.with_remote_port(other.remote.port()) == other
    }
}

/// A datagram to send: an IKE message without the non-ESP marker, which the path's port calls for or not.
#[derive(Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where it goes.
    pub path: Path,
    /// The message.
    pub message: Vec<u8>,
}

impl fmt::Debug for Transmit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transmit").field("path", &self.path).field("octets", &self.message.len()).finish()
    }
}

/// Which end of the IKE_SA we are: the original initiator's flag and key directions depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We began the IKE_SA.
    Initiator,
    /// The peer did.
    Responder,
}

/// The two SPIs that name an IKE_SA.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IkeSpis {
    /// The initiator's.
    pub initiator: u64,
    /// The responder's; zero before it has answered.
    pub responder: u64,
}

impl IkeSpis {
    /// The SPIs that a datagram names, when it is long enough for a header.
    #[must_use]
    pub fn of(datagram: &[u8]) -> Option<Self> {
        let (initiator, rest) = datagram.split_first_chunk()?;
        let (responder, _) = rest.split_first_chunk()?;
        Some(Self { initiator: u64::from_be_bytes(*initiator), responder: u64::from_be_bytes(*responder) })
    }
}

impl fmt::Debug for IkeSpis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{:016x}", self.initiator, self.responder)
    }
}

#[cfg(test)]
mod tests;
