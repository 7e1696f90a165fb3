//! What a connection wants of the operating system, in terms every platform has.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The mark on the helper's own sockets: what carries it is never routed into a tunnel. ("RW" in ASCII.)
pub const DEFAULT_FWMARK: u32 = 0x5257;

/// Octets of the `virtio_net_hdr` before each packet read from or written to a device with
/// [`TunDevice::vnet_hdr`](crate::TunDevice::vnet_hdr): 10, the form without `num_buffers`, native byte order.
pub const VNET_HDR_LEN: usize = 10;

/// A device to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunRequest {
    /// Exact name, or a name ending in `%d` for which the kernel picks the first free number.
    pub name: String,
    /// Inner MTU in octets.
    pub mtu: u32,
    /// Ask for super-packets and partial checksums (`IFF_VNET_HDR`); what the kernel grants is in
    /// [`TunDevice::offloads`](crate::TunDevice::offloads).
    pub offloads: bool,
}

impl Default for TunRequest {
    fn default() -> Self {
        TunRequest { name: "ropewalk%d".to_owned(), mtu: 1280, offloads: true }
    }
}

/// What the kernel may hand us in one read (and takes from us in one write), as granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offloads {
    /// Packets with a partial checksum (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
    pub csum: bool,
    /// TCP over IPv4 super-packets.
    pub tso4: bool,
    /// TCP over IPv6 super-packets.
    pub tso6: bool,
    /// UDP over IPv4 super-packets (Linux 6.2).
    pub uso4: bool,
    /// UDP over IPv6 super-packets (Linux 6.2).
    pub uso6: bool,
}

/// The device a [`TunnelConfig`] is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRef {
    /// The name.
    pub name: String,
    /// The kernel's index.
    pub index: u32,
}

/// Name servers of a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Addresses of name servers, in order of preference. Empty: the system's DNS is left alone.
    pub servers: Vec<IpAddr>,
    /// The domains these servers answer for; empty means all names. They become search domains too, except
    /// those written with a leading `~`.
    pub domains: Vec<String>,
    /// Further domains that names are completed with, and nothing more.
    #[serde(default)]
    pub search: Vec<String>,
}

/// All that a connected tunnel needs of the operating system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelConfig {
    /// The device.
    pub device: DeviceRef,
    /// Inner addresses. Their prefix lengths say nothing, unless `routed`: what goes into the tunnel is in `routes`.
    pub addresses: Vec<IpNet>,
    /// What goes into the tunnel; `0.0.0.0/0` or `::/0` is a full tunnel.
    pub routes: Vec<IpNet>,
    /// Those of the routes that say nothing of what else of their address family is to go into the tunnel.
    #[serde(default)]
    pub beside: Vec<IpNet>,
    /// What does not, though a route covers it.
    pub exclude: Vec<IpNet>,
    /// Inner MTU in octets.
    pub mtu: u32,
    /// Name servers.
    pub dns: DnsConfig,
    /// The mark of the sockets that must stay outside.
    pub fwmark: u32,
    /// In a full tunnel of one address family only, make the other family unreachable (except for what the
    /// system has a more specific route to, as the local network) instead of letting it leak past the tunnel.
    pub block_missing_family: bool,
    /// Accept an inner address that lies in a subnet of a local interface.
    pub allow_overlap: bool,
    /// The device is an interface like any other, for a routing daemon to use: its addresses have their prefixes as
    /// routes, IPv6 has a link-local address, and `routes` stand in the main table with [`LISTED_METRIC`]. There are no
    /// rules, and nothing is hidden from anybody.
    #[serde(default)]
    pub routed: bool,
}

/// The metric of what a profile lists for a routed interface. Learned routes are better (BIRD writes 32), those of
/// interfaces that NetworkManager rules are not (100 and more).
pub const LISTED_METRIC: u32 = 50;

/// The address at the other end of a link, where a prefix has two hosts: /31 or /30, /127 or /126.
#[must_use]
pub fn far_end(address: &IpNet) -> Option<IpAddr> {
    match address {
        IpNet::V4(net) => {
            let bits = net.addr().to_bits();
            let other = match (net.prefix_len(), bits & 3) {
                (31, _) => bits ^ 1,
                (30, 1 | 2) => bits ^ 3,
                _ => return None,
            };
            Some(IpAddr::V4(other.into()))
        }
        IpNet::V6(net) => {
            let bits = net.addr().to_bits();
            let other = match (net.prefix_len(), bits & 3) {
                (127, _) => bits ^ 1,
                (126, 1 | 2) => bits ^ 3,
                _ => return None,
            };
            Some(IpAddr::V6(other.into()))
        }
    }
}

impl TunnelConfig {
    /// A configuration of that device that routes nothing yet.
    #[must_use]
    pub fn new(device: DeviceRef) -> Self {
        TunnelConfig {
            device,
            addresses: Vec::new(),
            routes: Vec::new(),
            beside: Vec::new(),
            exclude: Vec::new(),
            mtu: 1280,
            dns: DnsConfig::default(),
            fwmark: DEFAULT_FWMARK,
            block_missing_family: true,
            allow_overlap: false,
            routed: false,
        }
    }
}

/// Who rules the system's name resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DnsManager {
    /// systemd-resolved, by D-Bus.
    Resolved,
    /// NetworkManager, by D-Bus.
    NetworkManager,
    /// Debian's resolvconf or openresolv, by its command.
    Resolvconf,
    /// Nobody: the file itself.
    ResolvConfFile,
}

impl fmt::Display for DnsManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DnsManager::Resolved => "systemd-resolved",
            DnsManager::NetworkManager => "NetworkManager",
            DnsManager::Resolvconf => "resolvconf",
            DnsManager::ResolvConfFile => "/etc/resolv.conf",
        })
    }
}

/// How a tunnel's DNS settings took effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsStatus {
    /// Who was asked; `None` when the tunnel has no name servers.
    pub manager: Option<DnsManager>,
    /// False when the tunnel has domains but the manager cannot tell names apart, so that all names go to the
    /// tunnel's servers first.
    pub per_domain: bool,
}

/// What [`Network::apply`](crate::Network::apply) did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The routing table of this tunnel.
    pub table: u32,
    /// The DNS.
    pub dns: DnsStatus,
    /// Address families made unreachable because the tunnel does not carry them.
    pub blocked: Vec<IpNet>,
}

/// What a start-up sweep found and removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepReport {
    /// Devices whose leftovers were removed.
    pub devices: Vec<String>,
    /// Whether DNS settings were put back.
    pub dns_restored: bool,
    /// The journal was unreadable; what carries our routing numbers was removed nevertheless.
    pub journal_unreadable: bool,
}

/// Where the pieces of the system are; the default is where they always are.
#[derive(Clone, Debug)]
pub struct NetworkSettings {
    /// Folder of the journal; created 0700 when absent.
    pub state_dir: std::path::PathBuf,
    /// Normally `/etc/resolv.conf`.
    pub resolv_conf: std::path::PathBuf,
    /// D-Bus address of the system bus; `None` is the usual one.
    pub system_bus: Option<String>,
    /// When another program has changed the name servers several times within this, they are left alone until it has passed.
    pub fight_window: std::time::Duration,
}

impl NetworkSettings {
    /// The usual places, with the journal in `state_dir`.
    #[must_use]
    pub fn new(state_dir: impl Into<std::path::PathBuf>) -> Self {
        NetworkSettings {
            state_dir: state_dir.into(),
            resolv_conf: "/etc/resolv.conf".into(),
            system_bus: None,
            fight_window: std::time::Duration::from_secs(60),
        }
    }
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_of_two_hosts_has_a_far_end_and_other_prefixes_have_none() {
        for (near, far) in [
            ("10.0.0.4/31", Some("10.0.0.5")),
            ("10.0.0.5/31", Some("10.0.0.4")),
            ("10.0.0.5/30", Some("10.0.0.6")),
            ("10.0.0.6/30", Some("10.0.0.5")),
            ("10.0.0.4/30", None),
            ("10.0.0.7/30", None),
            ("10.0.0.5/32", None),
            ("10.0.0.5/24", None),
            ("fd00::/127", Some("fd00::1")),
            ("fd00::2/126", Some("fd00::1")),
            ("fd00::2/64", None),
        ] {
            let found = far_end(&near.parse().unwrap());
            assert_eq!(found, far.map(|far| far.parse().unwrap()), "{near}");
        }
    }
}
