//! The operating system: interfaces, TUN device, addresses, routes, DNS.
//!
//! - [`TunDevice`]: the device; the datapath gets a duplicate of its descriptor. It goes when all are closed.
//! - [`Network`]: addresses, routes and DNS of the tunnels. [`Network::apply`] also moves a tunnel to new settings
//!   (what both have in common is not touched), [`Network::undo`] leaves what was there before. Whatever is to
//!   be changed is first written to a journal, from which [`Network::sweep`] removes what a killed helper left.
//! - [`Monitor`]: what interfaces there are, and which of them lead outside.
//! - [`NextHops`]: routes with a next hop that others put on a tunnel's device.
//! - [`open_path_socket`]: UDP sockets that do not loop into the tunnel.
//!
//! # Routes without loops
//!
//! Each tunnel has a routing table of its own, and for each prefix length `n` among its routes two rules, both
//! `not fwmark M`: look in the main table, but only for routes longer than `n`; look in the tunnel's table, but only
//! for routes of `n` and longer. The priority of the rules is the prefix length, over all tunnels. So the longest
//! prefix wins, whether the system or a tunnel has it, and the tunnel wins a tie; that serves full and split
//! tunnels alike, several at a time, and nothing in the main table is touched. Excluded prefixes are `throw`
//! routes. The helper's sockets carry the mark and see the system as if there were no tunnel.
//!
//! An interface that is [routed](TunnelConfig::routed) has neither table nor rules: its routes stand in the main table, so
//! that a routing daemon sees all there is and decides. The helper's sockets stay outside by being bound to an interface.
//!
//! A full tunnel of one family makes the other unreachable (see [`TunnelConfig::block_missing_family`]).
//!
//! # What is left to others
//!
//! - Routes are no firewall: a more specific route of the local network (DHCP option 121) wins over a full tunnel.
//! - A name server inside the tunnel needs a route into the tunnel like any other host; none is added for it.
//! - Strict reverse path filtering by the kernel is loosened while a tunnel is up; one by a firewall (firewalld's
//!   `IPv6_rpfilter=strict`) is not, and drops the gateway's answers when a tunnel covers the gateway's address.
//! - Only systemd-resolved, and NetworkManager with dnsmasq, can ask different servers for different domains. With the
//!   others the tunnel's servers stand first for all names ([`DnsStatus::per_domain`] is false).
//!
//! Linux only for now; on macOS and Windows everything returns [`NetError::Unsupported`].

mod config;
mod error;
mod snapshot;
mod socket;
#[cfg(any(not(target_os = "linux"), test))]
mod unsupported;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(target_os = "macos", all(test, target_os = "linux")))]
#[cfg_attr(target_os = "linux", allow(dead_code))]
mod macos;
#[cfg(any(target_os = "windows", all(test, target_os = "linux")))]
#[cfg_attr(target_os = "linux", allow(dead_code))]
mod windows;

pub use config::{
    Applied, DEFAULT_FWMARK, DeviceRef, DnsConfig, DnsManager, DnsStatus, Family, LISTED_METRIC,
    NetworkSettings, Offloads, SweepReport, TunRequest, TunnelConfig, VNET_HDR_LEN, far_end,
};
pub use error::NetError;
pub use snapshot::{
    Candidate, DefaultRoute, Interface, InterfaceAddress, InterfaceKind, NextHop, RouteTo, Snapshot,
};
pub use socket::PathSocket;

#[cfg(target_os = "linux")]
use linux as platform;
#[cfg(target_os = "macos")]
use macos as platform;
#[cfg(target_os = "windows")]
use windows as platform;

pub use platform::{Monitor, Network, NextHops, TunDevice, open_path_socket, send_fragmentable};
