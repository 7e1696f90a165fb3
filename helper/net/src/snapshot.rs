//! The state of the computer's network at one moment, as the monitor publishes it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum InterfaceKind {
    /// Wired.
    Ethernet,
    /// Wireless LAN.
    Wifi,
    /// A mobile modem (WWAN, PPP).
    Mobile,
    /// Software: bridge, veth, VLAN, bond and so on. It may well lead outside.
    Virtual,
    /// A tunnel, ours or another VPN's.
    Tun,
    /// The loopback.
    Loopback,
}

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InterfaceAddress {
    /// The address with its subnet's prefix length.
    pub net: IpNet,
    /// Usable beyond the link.
    pub global: bool,
    /// An IPv6 privacy address (RFC 8981).
    pub temporary: bool,
    /// Still valid, but not for new connections.
    pub deprecated: bool,
    /// Duplicate address detection is still running, or has failed: not usable.
    pub tentative: bool,
}

/// A default route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DefaultRoute {
    /// The router; `None` on point-to-point links.
    pub gateway: Option<IpAddr>,
    /// Lower is preferred.
    pub metric: u32,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The name.
    pub name: String,
    /// The kernel's index.
    pub index: u32,
    /// What it is.
    pub kind: InterfaceKind,
    /// Switched on, with a carrier.
    pub up: bool,
    /// Outer MTU in octets.
    pub mtu: u32,
    /// The hardware address of an Ethernet-like interface.
    pub mac: Option<[u8; 6]>,
    /// Addresses.
    pub addresses: Vec<InterfaceAddress>,
    /// The best IPv4 default route over it.
    pub default_v4: Option<DefaultRoute>,
    /// The best IPv6 default route over it.
    pub default_v6: Option<DefaultRoute>,
}

impl Interface {
    /// The address a new connection of that family should use: not tentative, preferably neither deprecated nor
    /// (for IPv6) permanent, since privacy addresses are made for outgoing connections.
    #[must_use]
    pub fn best_address(&self, family: crate::Family) -> Option<IpAddr> {
        self.addresses
            .iter()
            .filter(|a| a.global && !a.tentative && crate::Family::of(a.net.addr()) == family)
            .min_by_key(|a| (a.deprecated, !a.temporary))
            .map(|a| a.net.addr())
    }

    /// The default route of that family.
    #[must_use]
    pub fn default_route(&self, family: crate::Family) -> Option<&DefaultRoute> {
        match family {
            crate::Family::V4 => self.default_v4.as_ref(),
            crate::Family::V6 => self.default_v6.as_ref(),
        }
    }
}

/// An interface and family over which a gateway may be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The interface's name.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// What it is.
    pub kind: InterfaceKind,
    /// Family.
    pub family: crate::Family,
    /// The local address a new connection should use.
    pub address: IpAddr,
    /// Metric of the default route; lower is preferred.
    pub metric: u32,
}

/// All interfaces at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Ordered by index.
    pub interfaces: Vec<Interface>,
}

impl Snapshot {
    /// Interfaces that lead outside: up, with a default route and a usable address, no tunnels. Best first: by
    /// metric, then by index; an interface with both families appears twice.
    #[must_use]
    pub fn candidates(&self) -> Vec<Candidate> {
        let mut found: Vec<Candidate> = self
            .interfaces
            .iter()
            .filter(|i| i.up && !matches!(i.kind, InterfaceKind::Tun | InterfaceKind::Loopback))
            .flat_map(|i| {
                [crate::Family::V4, crate::Family::V6].into_iter().filter_map(move |family| {
                    let route = i.default_route(family)?;
                    Some(Candidate {
                        interface: i.name.clone(),
                        index: i.index,
                        kind: i.kind,
                        family,
                        address: i.best_address(family)?,
                        metric: route.metric,
                    })
                })
            })
            .collect();
        found.sort_by_key(|c| (c.metric, c.index));
        found
    }

    /// The interface of that name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|i| i.name == name)
    }
}

/// A network, and the next hop that a route on a tunnel's device gives for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The network.
    pub prefix: IpNet,
    /// The next hop.
    pub via: IpAddr,
}

/// How the system would send to a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTo {
    /// The local address it would use.
    pub source: IpAddr,
    /// Index of the interface it would leave by.
    pub index: u32,
    /// Name of that interface.
    pub interface: String,
    /// The next hop, when not on the link.
    pub gateway: Option<IpAddr>,
    /// Path MTU when the system knows one.
    pub mtu: Option<u32>,
}
