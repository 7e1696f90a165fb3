//! The table of what packets leave by: immutable, replaced as a whole behind an atomic pointer.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::address::RawAddress;
use super::socket::Socket;
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

/// Routes of whole addresses, of prefixes, and the default.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    hosts: HashMap<IpAddr, Arc<Resolved>>,
    /// Longest first.
    prefixes: Vec<(IpNet, Arc<Resolved>)>,
    default: Option<Arc<Resolved>>,
}

impl Table {
    pub(super) fn lookup(&self, destination: IpAddr) -> Option<&Arc<Resolved>> {
        if !self.hosts.is_empty()
            && let Some(host) = self.hosts.get(&destination)
        {
            return Some(host);
        }
        let prefix = self.prefixes.iter().find(|(prefix, _)| prefix.contains(&destination));
        prefix.map(|(_, egress)| egress).or(self.default.as_ref())
    }

    pub(super) fn set_default(&mut self, egress: Option<Arc<Resolved>>) {
        self.default = egress;
    }

    pub(super) fn set_route(&mut self, destination: IpNet, egress: Option<Arc<Resolved>>) {
        let destination = destination.trunc();
        if destination.prefix_len() == destination.max_prefix_len() {
            match egress {
                Some(egress) => self.hosts.insert(destination.addr(), egress),
                None => self.hosts.remove(&destination.addr()),
            };
            return;
        }
        self.prefixes.retain(|(prefix, _)| *prefix != destination);
        if let Some(egress) = egress {
            let at =
                self.prefixes.partition_point(|(prefix, _)| prefix.prefix_len() >= destination.prefix_len());
            self.prefixes.insert(at, (destination, egress));
        }
    }

    /// Removes whatever leaves by a socket.
    pub(super) fn remove_socket(&mut self, id: SocketId) {
        let stays = |egress: &Arc<Resolved>| egress.socket.id != id;
        self.hosts.retain(|_, egress| stays(egress));
        self.prefixes.retain(|(_, egress)| stays(egress));
        self.default = self.default.take().filter(stays);
    }
}
