//! What of a lease configures the device: as far as the profile, the gateway's selectors and good sense allow.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use ropewalk_dhcp::Lease;
use ropewalk_dhcp::policy::{Refused, RoutePolicy};
use ropewalk_ike::exchange::child::ChildSa;
use ropewalk_ike::wire::TrafficSelectors;

use super::{LeaseInfo, Session, Until};
use crate::command::InnerSettings;
use crate::session::State;

impl Session {
    /// The lease, to be shown.
    pub(in crate::session) fn lease_info(&self) -> Option<LeaseInfo> {
        let dhcp = self.dhcp.as_ref().filter(|dhcp| dhcp.address().is_some())?;
        let (lease, until) = dhcp.remembered.clone()?;
        let ends = if let Until::Time(ends) = until { Some(ends) } else { None };
        Some(LeaseInfo { lease, ends, refused: dhcp.refused.clone() })
    }

    /// What the device is to look like with the lease that is held and this CHILD_SA; `None` without a lease.
    pub(in crate::session) fn leased_settings(&mut self, child: &ChildSa) -> Option<InnerSettings> {
        let in_use = if let State::Connected(sa) = &self.state { Some(sa.path().remote.ip()) } else { None };
        let others = self.strands.named_addresses();
        let gateways = in_use.into_iter().chain(others).filter_map(v4).collect();
        let dhcp = self.dhcp.as_mut().filter(|dhcp| dhcp.address().is_some())?;
        let (lease, _) = dhcp.remembered.as_ref()?;
        let granted = networks(&child.ts_remote);
        let policy = RoutePolicy { gateways, allowed: cut(&granted, &dhcp.allowed) };
        let subnet = subnet(lease, &granted);
        let (settings, refused) = settings(lease, &policy, subnet, child);
        for (route, why) in refused.iter().filter(|known| !dhcp.refused.contains(known)) {
            tracing::warn!(%route, %why, "a route that the DHCP server wants is not followed");
        }
        dhcp.refused = refused;
        Some(settings)
    }
}

fn settings(
    lease: &Lease,
    policy: &RoutePolicy,
    subnet: Option<Ipv4Net>,
    child: &ChildSa,
) -> (InnerSettings, Vec<(Ipv4Net, Refused)>) {
    let from_server = &lease.settings;
    let named = from_server.destinations();
    let (mut followed, refused) = policy.apply(&named);
    // Without a word of the server's on routes, all that is allowed leads into the tunnel, as with any other gateway.
    if named.is_empty() && from_server.routes.is_none() {
        followed.clone_from(&policy.allowed);
    }
    followed.extend(subnet.filter(|subnet| policy.check(*subnet).is_ok()));
    followed.sort_unstable();
    followed.dedup();
    let domain = from_server.domain.iter();
    let mut search: Vec<String> = Vec::new();
    for name in from_server.search.iter().chain(domain) {
        if !search.contains(name) {
            search.push(name.clone());
        }
    }
    let inner = InnerSettings {
        addresses: vec![(lease.address.into(), 32)],
        dns_servers: from_server.dns_servers.iter().copied().map(IpAddr::from).collect(),
        dns_domains: Vec::new(),
        reachable: child.ts_remote.clone(),
        local: child.ts_local.clone(),
        link_prefix: None,
        routes: Some(followed.into_iter().map(IpNet::from).collect()),
        search,
        mtu: from_server.mtu,
    };
    (inner, refused)
}

/// The network that the lease's mask makes, when the gateway lets us reach all of it.
fn subnet(lease: &Lease, granted: &[Ipv4Net]) -> Option<Ipv4Net> {
    let subnet = Ipv4Net::new(lease.address, lease.settings.prefix_len).ok()?.trunc();
    let wide = subnet.prefix_len() < 32 && granted.iter().any(|granted| granted.contains(&subnet));
    wide.then_some(subnet)
}

fn networks(selectors: &TrafficSelectors) -> Vec<Ipv4Net> {
    let prefixes = selectors.selectors.iter().flat_map(|selector| selector.prefixes());
    prefixes.filter_map(|(ip, len)| Ipv4Net::new(v4(ip)?, len).ok()).collect()
}

/// What is common to what the gateway grants and what the profile allows, where that says something.
fn cut(granted: &[Ipv4Net], allowed: &[Ipv4Net]) -> Vec<Ipv4Net> {
    if allowed.is_empty() {
        return granted.to_vec();
    }
    let mut common = Vec::new();
    for granted in granted {
        for allowed in allowed {
            if granted.contains(allowed) {
                common.push(*allowed);
            } else if allowed.contains(granted) {
                common.push(*granted);
            }
        }
    }
    common
}

fn v4(address: IpAddr) -> Option<std::net::Ipv4Addr> {
    if let IpAddr::V4(v4) = address { Some(v4) } else { None }
}
