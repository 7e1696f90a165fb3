//! The interface monitor: on every change the kernel tells of, a new snapshot, when it differs from the last.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use ipnet::IpNet;

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::netlink::{Netlink, destination_of, to_ip};
use super::plan::MAIN_TABLE;
use super::tun::index_of;
use crate::{DefaultRoute, Interface, InterfaceAddress, InterfaceKind, NetError, RouteTo, Snapshot};

/// A change of network comes as a burst of messages (link, addresses, routes): wait this long for the next. What is lost is
/// told at once, for another path may have to take over.
const QUIET: Duration = Duration::from_millis(30);

/// But no longer than this in all: a roaming client must not wait for a router that flaps.
const LONGEST: Duration = Duration::from_millis(150);

/// Watches the interfaces until it is dropped.
#[derive(Debug)]
pub struct Monitor {
    netlink: Arc<Netlink>,
    state: watch::Receiver<Arc<Snapshot>>,
    task: JoinHandle<()>,
}

impl Monitor {
    /// Starts watching; the first snapshot is there when this returns.
    ///
    /// # Errors
    /// The kernel's routing interface cannot be opened or read.
    pub async fn start() -> Result<Self, NetError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, _, mut messages) = rtnetlink::new_multicast_connection(&groups)
            .map_err(|e| NetError::io("watching network interfaces", e))?;
        let netlink = Arc::new(Netlink::open()?);
        // Subscribed before this is read, so nothing falls in between.
        let (publish, state) = watch::channel(Arc::new(collect(&netlink).await?));
        let reader = Arc::clone(&netlink);
        let task = tokio::spawn(async move {
            let watching = async move {
                while let Some((first, _)) = messages.next().await {
                    if is_loss(&first, &publish.borrow()) {
                        read_again(&reader, &publish).await;
                    }
                    let burst = async {
                        while let Ok(Some((next, _))) = tokio::time::timeout(QUIET, messages.next()).await {
                            if is_loss(&next, &publish.borrow()) {
                                read_again(&reader, &publish).await;
                            }
                        }
                    };
                    let _ = tokio::time::timeout(LONGEST, burst).await;
                    read_again(&reader, &publish).await;
                }
            };
            tokio::join!(connection, watching);
        });
        Ok(Monitor { netlink, state, task })
    }

    /// The newest state, and every later one.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.state.clone()
    }

    /// The newest state.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.state.borrow())
    }

    /// How the system would send a packet with that mark to `destination`, by that interface if one is given.
    ///
    /// # Errors
    /// [`NetError::NoRoute`], [`NetError::NoSuchInterface`].
    pub async fn source_for(
        &self,
        destination: IpAddr,
        mark: u32,
        interface: Option<&str>,
    ) -> Result<RouteTo, NetError> {
        let index = interface.map(index_of).transpose()?;
        let mut route = self.netlink.route_to(destination, mark, index).await?;
        let name = self.snapshot().interfaces.iter().find(|i| i.index == route.index).map(|i| i.name.clone());
        route.interface = match name {
            Some(name) => name,
            // Newer than the snapshot.
            None => name_of(route.index).ok_or(NetError::NoRoute { destination })?,
        };
        Ok(route)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Publishes the state of the network when it is another one.
async fn read_again(netlink: &Netlink, publish: &watch::Sender<Arc<Snapshot>>) {
    match collect(netlink).await {
        Ok(now) => {
            publish.send_if_modified(|last| {
                let changed = **last != now;
                if changed {
                    *last = Arc::new(now);
                }
                changed
            });
        }
        Err(error) => tracing::warn!(%error, "the state of the network cannot be read"),
    }
}

/// Whether a message says that something is gone which is in the snapshot: an interface, its carrier, or an address.
fn is_loss(message: &NetlinkMessage<RouteNetlinkMessage>, known: &Snapshot) -> bool {
    let NetlinkPayload::InnerMessage(message) = &message.payload else { return false };
    let (index, gone) = match message {
        RouteNetlinkMessage::NewLink(link) => {
            (link.header.index, !link.header.flags.contains(LinkFlags::Up | LinkFlags::Running))
        }
        RouteNetlinkMessage::DelLink(link) => (link.header.index, true),
        RouteNetlinkMessage::DelAddress(address) => (address.header.index, true),
        _ => return false,
    };
    gone && known.interfaces.iter().any(|interface| interface.index == index && interface.up)
}

/// Reads everything anew.
pub(super) async fn collect(netlink: &Netlink) -> Result<Snapshot, NetError> {
    let mut interfaces: BTreeMap<u32, Interface> =
        netlink.links().await?.iter().filter_map(interface).map(|i| (i.index, i)).collect();
    for message in netlink.addresses().await? {
        if let Some(interface) = interfaces.get_mut(&message.header.index) {
            interface.addresses.extend(address(&message));
        }
    }
    for (table, route) in netlink.routes().await? {
        let is_default = destination_of(&route).is_some_and(|net| net.prefix_len() == 0);
        if table != MAIN_TABLE || !is_default || route.header.kind != RouteType::Unicast {
            continue;
        }
        for (index, found) in next_hops(&route) {
            let Some(interface) = interfaces.get_mut(&index) else { continue };
            let best = match route.header.address_family {
                AddressFamily::Inet => &mut interface.default_v4,
                AddressFamily::Inet6 => &mut interface.default_v6,
                _ => continue,
            };
            if best.as_ref().is_none_or(|b| found.metric < b.metric) {
                *best = Some(found);
            }
        }
    }
    for interface in interfaces.values_mut() {
        interface.addresses.sort_by_key(|a| a.net);
    }
    Ok(Snapshot { interfaces: interfaces.into_values().collect() })
}

fn interface(message: &LinkMessage) -> Option<Interface> {
    let (mut name, mut mtu, mut info, mut mac) = (None, 0, None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Mtu(value) => mtu = *value,
            LinkAttribute::Address(octets) if message.header.link_layer_type == LinkLayerType::Ether => {
                mac = <[u8; 6]>::try_from(octets.as_slice()).ok().filter(|mac| *mac != [0; 6]);
            }
            LinkAttribute::LinkInfo(list) => {
                info = list.iter().find_map(|i| match i {
                    LinkInfo::Kind(kind) => Some(kind.clone()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let name = name?;
    Some(Interface {
        kind: kind(message, &name, info.as_ref()),
        name,
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up | LinkFlags::Running),
        mtu,
        mac,
        addresses: Vec::new(),
        default_v4: None,
        default_v6: None,
    })
}

fn kind(message: &LinkMessage, name: &str, info: Option<&InfoKind>) -> InterfaceKind {
    let sys = Path::new("/sys/class/net").join(name);
    match (message.header.link_layer_type, info) {
        (LinkLayerType::Loopback, _) => InterfaceKind::Loopback,
        (
            _,
            Some(
                InfoKind::Tun
                | InfoKind::Wireguard
                | InfoKind::IpIp
                | InfoKind::Ip6Tnl
                | InfoKind::SitTun
                | InfoKind::GreTun
                | InfoKind::GreTun6
                | InfoKind::Vti
                | InfoKind::Vti6
                | InfoKind::Xfrm,
            ),
        ) => InterfaceKind::Tun,
        (_, Some(InfoKind::Wwan | InfoKind::RmNet)) | (LinkLayerType::Ppp | LinkLayerType::Rawip, _) => {
            InterfaceKind::Mobile
        }
        (_, Some(_)) => InterfaceKind::Virtual,
        (LinkLayerType::Ether, None) if sys.join("phy80211").exists() || sys.join("wireless").exists() => {
            InterfaceKind::Wifi
        }
        (LinkLayerType::Ether, None) if is_mobile(&sys, name) => InterfaceKind::Mobile,
        (LinkLayerType::Ether, None) => InterfaceKind::Ethernet,
        (_, None) => InterfaceKind::Virtual,
    }
}

/// USB modems look like Ethernet but for what their driver says of the device.
fn is_mobile(sys: &Path, name: &str) -> bool {
    name.starts_with("wwan")
        || std::fs::read_to_string(sys.join("uevent")).is_ok_and(|text| text.contains("DEVTYPE=wwan"))
}

fn address(message: &AddressMessage) -> Option<InterfaceAddress> {
    let (mut own, mut other) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => own = Some(*address),
            // On point-to-point links this is the peer.
            AddressAttribute::Address(address) => other = Some(*address),
            AddressAttribute::Flags(wide) => flags = *wide,
            _ => {}
        }
    }
    let address = own.or(other)?;
    // IPv4 uses the same bit for a second address of a subnet.
    let temporary = address.is_ipv6() && flags.contains(AddressFlags::Secondary);
    let link_local = matches!(address, IpAddr::V4(v4) if v4.is_link_local());
    Some(InterfaceAddress {
        net: IpNet::new(address, message.header.prefix_len).ok()?,
        global: matches!(message.header.scope, AddressScope::Universe | AddressScope::Site) && !link_local,
        temporary,
        deprecated: flags.contains(AddressFlags::Deprecated),
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed)
            && !flags.contains(AddressFlags::Optimistic),
    })
}

/// A route's interfaces, each with its router.
pub(super) fn next_hops(route: &RouteMessage) -> Vec<(u32, DefaultRoute)> {
    let (mut index, mut gateway, mut metric, mut several) = (None, None, 0, Vec::new());
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(value) => index = Some(*value),
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::MultiPath(hops) => several.clone_from(hops),
            _ => gateway = gateway.or_else(|| router(attribute)),
        }
    }
    let mut found: Vec<(u32, DefaultRoute)> =
        index.map(|index| (index, DefaultRoute { gateway, metric })).into_iter().collect();
    found.extend(several.iter().map(|hop| {
        let gateway = hop.attributes.iter().find_map(router);
        (hop.interface_index, DefaultRoute { gateway, metric })
    }));
    found
}

fn router(attribute: &RouteAttribute) -> Option<IpAddr> {
    use netlink_packet_route::route::RouteVia;
    match attribute {
        RouteAttribute::Gateway(address) => to_ip(address),
        RouteAttribute::Via(RouteVia::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn name_of(index: u32) -> Option<String> {
    let name = nix::net::if_::if_indextoname(index).ok()?;
    name.into_string().ok()
}
