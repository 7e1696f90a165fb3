//! The few netlink requests that tunnels need, and dumps of what is there.
//!
//! Adding what is there and removing what is not are no errors: applying, undoing and sweeping may be repeated.

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures_util::{Stream, StreamExt};
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};

use super::plan::{Route, Rule, Target};
use crate::{Family, NetError, RouteTo};

/// A connection to the kernel's routing interface, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Netlink {
    handle: rtnetlink::Handle,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer that is an error.
#[derive(Debug)]
struct Refused {
    errno: i32,
}

impl Netlink {
    pub(super) fn open() -> Result<Self, NetError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|e| NetError::io("talking to the kernel about routes", e))?;
        Ok(Netlink { handle, task: tokio::spawn(connection) })
    }

    /// Brings a link up with that MTU; without an address of its own making, so that no neighbour or router
    /// discovery goes into the tunnel.
    pub(super) async fn link_up(&self, name: &str, index: u32, mtu: u32) -> Result<(), NetError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.push(LinkAttribute::Mtu(mtu));
        let answer = self.change(RouteNetlinkMessage::SetLink(message), 0).await;
        explain(answer, || format!("bringing {name} up"), &[])
    }

    /// Takes a link down, if it is there.
    pub(super) async fn link_down(&self, name: &str, index: u32) -> Result<(), NetError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.change_mask = LinkFlags::Up;
        let answer = self.change(RouteNetlinkMessage::SetLink(message), 0).await;
        explain(answer, || format!("taking {name} down"), &[libc::ENODEV])
    }

    /// Removes a link.
    pub(super) async fn delete_link(&self, name: &str, index: u32) -> Result<(), NetError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let answer = self.change(RouteNetlinkMessage::DelLink(message), 0).await;
        explain(answer, || format!("removing {name}"), &[libc::ENODEV])
    }

    pub(super) async fn add_address(
        &self,
        index: u32,
        address: &IpNet,
        routed: bool,
    ) -> Result<(), NetError> {
        let message = address_message(index, address, routed);
        let answer =
            self.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE).await;
        // Kernels answer so when IPv6 is switched off for the device or altogether.
        if let Err(refused) = &answer
            && address.addr().is_ipv6()
            && matches!(refused.errno, libc::EACCES | libc::EOPNOTSUPP | libc::EAFNOSUPPORT)
        {
            return Err(NetError::Ipv6Disabled { address: address.addr() });
        }
        explain(answer, || format!("setting the address {address}"), &[libc::EEXIST])
    }

    pub(super) async fn delete_address(&self, index: u32, address: &IpNet) -> Result<(), NetError> {
        let message = address_message(index, address, false);
        let answer = self.change(RouteNetlinkMessage::DelAddress(message), 0).await;
        explain(
            answer,
            || format!("removing the address {address}"),
            &[libc::EADDRNOTAVAIL, libc::ENODEV, libc::EAFNOSUPPORT],
        )
    }

    pub(super) async fn add_route(&self, index: u32, route: &Route) -> Result<(), NetError> {
        let message = route_message(index, route);
        // In a table of ours what is there is ours; in the main one nothing of others' is replaced.
        let ours = super::plan::is_our_table(route.table);
        let flags = NLM_F_CREATE | if ours { NLM_F_REPLACE } else { NLM_F_EXCL };
        let answer = self.change(RouteNetlinkMessage::NewRoute(message), flags).await;
        let there = [libc::EEXIST];
        explain(
            answer,
            || format!("adding the route to {}", route.net),
            if ours { &[] } else { there.as_slice() },
        )
    }

    /// That there is no such route is no error, nor (IPv6, ENOENT) that there is no such table.
    pub(super) async fn delete_route(&self, index: u32, route: &Route) -> Result<(), NetError> {
        let mut message = route_header(&route.net, route.table);
        if let Some(metric) = route.metric {
            // Others may have a route to the same destination.
            message.attributes.extend([RouteAttribute::Oif(index), RouteAttribute::Priority(metric)]);
        }
        message.header.kind = RouteType::Unspec;
        message.header.scope = RouteScope::NoWhere;
        message.header.protocol = RouteProtocol::Unspec;
        let answer = self.change(RouteNetlinkMessage::DelRoute(message), 0).await;
        explain(
            answer,
            || format!("removing the route to {}", route.net),
            &[libc::ESRCH, libc::ENOENT, libc::ENODEV, libc::EAFNOSUPPORT, libc::EOPNOTSUPP],
        )
    }

    pub(super) async fn add_rule(&self, rule: &Rule) -> Result<(), NetError> {
        let message = rule_message(rule);
        let answer = self.change(RouteNetlinkMessage::NewRule(message), NLM_F_CREATE | NLM_F_EXCL).await;
        explain(answer, || format!("adding the routing rule {}", rule.priority), &[libc::EEXIST])
    }

    pub(super) async fn delete_rule(&self, rule: &Rule) -> Result<(), NetError> {
        let message = rule_message(rule);
        let answer = self.change(RouteNetlinkMessage::DelRule(message), 0).await;
        explain(
            answer,
            || format!("removing the routing rule {}", rule.priority),
            &[libc::ENOENT, libc::EAFNOSUPPORT, libc::EOPNOTSUPP],
        )
    }

    pub(super) async fn links(&self) -> Result<Vec<LinkMessage>, NetError> {
        self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |m| match m {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        })
        .await
    }

    pub(super) async fn addresses(&self) -> Result<Vec<AddressMessage>, NetError> {
        self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |m| match m {
            RouteNetlinkMessage::NewAddress(address) => Some(address),
            _ => None,
        })
        .await
    }

    /// All routes of both families, with their tables.
    pub(super) async fn routes(&self) -> Result<Vec<(u32, RouteMessage)>, NetError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let routes = self
                .dump(RouteNetlinkMessage::GetRoute(message), |m| match m {
                    RouteNetlinkMessage::NewRoute(route) => Some(route),
                    _ => None,
                })
                .await?;
            found.extend(routes.into_iter().map(|route| (table_of(&route), route)));
        }
        Ok(found)
    }

    /// Those rules of both families that have a priority of ours and the shape of ours.
    pub(super) async fn our_rules(&self) -> Result<BTreeSet<Rule>, NetError> {
        let mut found = BTreeSet::new();
        for (family, ours) in [(AddressFamily::Inet, Family::V4), (AddressFamily::Inet6, Family::V6)] {
            let mut message = RuleMessage::default();
            message.header.family = family;
            let rules = self
                .dump(RouteNetlinkMessage::GetRule(message), |m| match m {
                    RouteNetlinkMessage::NewRule(rule) => Some(rule),
                    _ => None,
                })
                .await?;
            found.extend(rules.iter().filter_map(|rule| parse_rule(ours, rule)));
        }
        Ok(found)
    }

    /// What the routing decision for a packet with that mark would be.
    pub(super) async fn route_to(
        &self,
        destination: IpAddr,
        mark: u32,
        interface: Option<u32>,
    ) -> Result<RouteTo, NetError> {
        let mut message = RouteMessage::default();
        message.header.address_family = match destination {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(destination.into()));
        message.attributes.push(RouteAttribute::Mark(mark));
        if let Some(index) = interface {
            message.attributes.push(RouteAttribute::Oif(index));
        }
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(message));
        request.header.flags = NLM_F_REQUEST;
        let no_route = || NetError::NoRoute { destination };
        let mut answers = self.send(request)?;
        let Some(answer) = answers.next().await else { return Err(no_route()) };
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) = answer.payload else {
            return Err(no_route());
        };
        parse_decision(&route).ok_or_else(no_route)
    }

    async fn change(&self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Refused> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let Ok(mut answers) = self.send(request) else { return Err(Refused { errno: libc::EPIPE }) };
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.raw_code() != 0
            {
                return Err(Refused { errno: error.raw_code().saturating_abs() });
            }
        }
        Ok(())
    }

    async fn dump<T>(
        &self,
        message: RouteNetlinkMessage,
        pick: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, NetError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = self.send(request)?;
        let mut found = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => found.extend(pick(message)),
                NetlinkPayload::Error(error) => {
                    // No IPv6 at all: nothing to list.
                    let errno = error.raw_code().saturating_abs();
                    if !matches!(errno, libc::EAFNOSUPPORT | libc::EOPNOTSUPP) {
                        return Err(refused("reading the network configuration", errno));
                    }
                }
                _ => {}
            }
        }
        Ok(found)
    }

    fn send(
        &self,
        request: NetlinkMessage<RouteNetlinkMessage>,
    ) -> Result<impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin + use<>, NetError> {
        self.handle.clone().request(request).map(Box::pin).map_err(|e| NetError::Netlink {
            action: "talking to the kernel about routes".into(),
            reason: e.to_string(),
        })
    }
}

fn explain(
    answer: Result<(), Refused>,
    action: impl FnOnce() -> String,
    tolerated: &[i32],
) -> Result<(), NetError> {
    match answer {
        Err(Refused { errno }) if !tolerated.contains(&errno) => Err(refused(action(), errno)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn refused(action: impl Into<String>, errno: i32) -> NetError {
    NetError::io(action, std::io::Error::from_raw_os_error(errno))
}

fn address_message(index: u32, address: &IpNet, routed: bool) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.family = family_of(&address.addr());
    message.header.prefix_len = address.prefix_len();
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    // No duplicate detection: nobody would answer. No route by the prefix, unless the interface is like any other: routes
    // are what the tunnel's table says.
    let mut flags = AddressFlags::Nodad;
    flags.set(AddressFlags::Noprefixroute, !routed);
    message.attributes.push(AddressAttribute::Flags(flags));
    message
}

fn route_header(net: &IpNet, table: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(&net.addr());
    message.header.destination_prefix_length = net.prefix_len();
    message.attributes.push(RouteAttribute::Table(table));
    if net.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(net.network().into()));
    }
    message
}

fn route_message(index: u32, route: &Route) -> RouteMessage {
    let mut message = route_header(&route.net, route.table);
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    match route.target {
        Target::Device => {
            message.header.kind = RouteType::Unicast;
            if route.net.addr().is_ipv4() {
                message.header.scope = RouteScope::Link;
            }
            message.attributes.push(RouteAttribute::Oif(index));
        }
        Target::Throw => message.header.kind = RouteType::Throw,
        Target::Unreachable => message.header.kind = RouteType::Unreachable,
    }
    if let Some(metric) = route.metric {
        message.attributes.push(RouteAttribute::Priority(metric));
    }
    if let Some(source) = route.source {
        message.attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    message
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = match rule.family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    message.header.action = RuleAction::ToTable;
    message.header.flags = RuleFlags::Invert;
    message.attributes.push(RuleAttribute::Priority(rule.priority));
    message.attributes.push(RuleAttribute::FwMark(rule.not_mark));
    message.attributes.push(RuleAttribute::Table(rule.table));
    if let Some(length) = rule.suppress {
        message.attributes.push(RuleAttribute::SuppressPrefixLen(length));
    }
    message
}

fn parse_rule(family: Family, message: &RuleMessage) -> Option<Rule> {
    if message.header.action != RuleAction::ToTable || !message.header.flags.contains(RuleFlags::Invert) {
        return None;
    }
    let (mut priority, mut mark, mut suppress) = (None, None, None);
    let mut table = u32::from(message.header.table);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(value) => priority = Some(*value),
            RuleAttribute::FwMark(value) => mark = Some(*value),
            RuleAttribute::Table(value) => table = *value,
            // The kernel says "none" as -1.
            RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            RuleAttribute::SuppressPrefixLen(value) => suppress = Some(*value),
            _ => {}
        }
    }
    let priority = priority.filter(|p| super::plan::is_our_priority(*p))?;
    if table != super::plan::MAIN_TABLE && !super::plan::is_our_table(table) {
        return None;
    }
    Some(Rule { family, priority, not_mark: mark?, table, suppress })
}

fn parse_decision(route: &RouteMessage) -> Option<RouteTo> {
    let (mut source, mut index, mut gateway, mut mtu) = (None, None, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::PrefSource(address) => source = to_ip(address),
            RouteAttribute::Oif(value) => index = Some(*value),
            RouteAttribute::Gateway(address) => gateway = to_ip(address),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|m| match m {
                    RouteMetric::Mtu(value) if *value > 0 => Some(*value),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(RouteTo { source: source?, index: index?, interface: String::new(), gateway, mtu })
}

pub(super) fn table_of(route: &RouteMessage) -> u32 {
    let wide = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    wide.unwrap_or_else(|| u32::from(route.header.table))
}

/// The destination of a route; without the attribute it is the default route.
pub(super) fn destination_of(route: &RouteMessage) -> Option<IpNet> {
    let address = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(address) => to_ip(address),
        _ => None,
    });
    let family = match route.header.address_family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let address = address.unwrap_or(match family {
        Family::V4 => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    });
    IpNet::new(address, route.header.destination_prefix_length).ok()
}

pub(super) fn to_ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn family_of(address: &IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
