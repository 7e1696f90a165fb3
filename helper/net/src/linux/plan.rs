//! From what a tunnel wants to what the kernel must hold: a pure function, so that undoing, updating and sweeping
//! are differences of plans.
//!
//! See the crate's documentation for the scheme of tables and rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{Family, InterfaceKind, LISTED_METRIC, NetError, Snapshot, TunnelConfig};

/// How many tunnels may be up at once.
pub(super) const SLOTS: u32 = 32;

/// The first of [`SLOTS`] routing tables. ("RW" in ASCII.)
pub(super) const TABLE_BASE: u32 = 0x5257;

/// Rules begin here: after those of people who want to be first (Tailscale's end at 5270), before the main table.
const PRIORITY_BASE: u32 = 5300;

/// Priorities of one prefix length: a rule about the main table, then one about its own, for each slot.
const PRIORITY_STRIDE: u32 = 2 * SLOTS;

/// One past the last priority: a rule for each of the 129 prefix lengths of IPv6.
const PRIORITY_END: u32 = PRIORITY_BASE + 129 * PRIORITY_STRIDE;

/// The main routing table.
pub(super) const MAIN_TABLE: u32 = 254;

/// Whether a priority is one of ours.
pub(super) fn is_our_priority(priority: u32) -> bool {
    (PRIORITY_BASE..PRIORITY_END).contains(&priority)
}

/// Whether a routing table is one of ours.
pub(super) fn is_our_table(table: u32) -> bool {
    (TABLE_BASE..TABLE_BASE + SLOTS).contains(&table)
}

/// A rule `not fwmark M lookup TABLE [suppress_prefixlength N]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Rule {
    pub family: Family,
    pub priority: u32,
    pub not_mark: u32,
    pub table: u32,
    /// Routes of this length and shorter do not count.
    pub suppress: Option<u32>,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Target {
    /// Into the device.
    Device,
    /// On with the next rule.
    Throw,
    /// Nowhere.
    Unreachable,
}

/// A route of a tunnel's table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Route {
    pub net: IpNet,
    pub table: u32,
    pub target: Target,
    pub source: Option<IpAddr>,
    /// `None`: the kernel's default.
    #[serde(default)]
    pub metric: Option<u32>,
}

/// All that the kernel holds for one tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub mtu: u32,
    pub addresses: BTreeSet<IpNet>,
    /// The device is an interface like any other: addresses come with the routes of their prefixes.
    #[serde(default)]
    pub routed: bool,
    pub routes: BTreeSet<Route>,
    pub rules: BTreeSet<Rule>,
}

impl Plan {
    /// The plan of a tunnel in the given slot.
    pub(super) fn of(config: &TunnelConfig, slot: u32) -> Result<(Self, Vec<IpNet>), NetError> {
        check(config)?;
        if config.routed {
            return Ok((Self::of_interface(config), Vec::new()));
        }
        let table = TABLE_BASE + slot;
        let source = |net: &IpNet| {
            let family = Family::of(net.addr());
            config.addresses.iter().map(IpNet::addr).find(|a| Family::of(*a) == family)
        };
        let mut targets: BTreeMap<IpNet, Target> =
            config.routes.iter().map(|net| (net.trunc(), Target::Device)).collect();
        let blocked = missing_family(config);
        targets.extend(blocked.iter().map(|net| (*net, Target::Unreachable)));

        let mut rules = BTreeSet::new();
        for net in targets.keys() {
            let family = Family::of(net.addr());
            let length = u32::from(net.prefix_len());
            let priority = PRIORITY_BASE + (longest(family) - length) * PRIORITY_STRIDE + slot;
            let not_mark = config.fwmark;
            rules.insert(Rule { family, priority, not_mark, table: MAIN_TABLE, suppress: Some(length) });
            let priority = priority + SLOTS;
            rules.insert(Rule { family, priority, not_mark, table, suppress: length.checked_sub(1) });
        }

        targets.extend(config.exclude.iter().map(|net| (net.trunc(), Target::Throw)));
        let routes = targets
            .into_iter()
            .map(|(net, target)| Route {
                net,
                table,
                target,
                source: if target == Target::Device { source(&net) } else { None },
                metric: None,
            })
            .collect();
        // Of two addresses of one subnet IPv4 removes the second with the first, so each is its own subnet.
        let addresses = config.addresses.iter().map(|net| IpNet::from(net.addr())).collect();
        Ok((Plan { mtu: config.mtu, addresses, routed: false, routes, rules }, blocked))
    }

    /// The plan of an interface that routing daemons use.
    fn of_interface(config: &TunnelConfig) -> Self {
        let route = |net: &IpNet| Route {
            net: net.trunc(),
            table: MAIN_TABLE,
            target: Target::Device,
            source: None,
            metric: Some(LISTED_METRIC),
        };
        Plan {
            mtu: config.mtu,
            addresses: config.addresses.iter().copied().collect(),
            routed: true,
            routes: config.routes.iter().map(route).collect(),
            rules: BTreeSet::new(),
        }
    }
}

/// The longest prefix of a family.
fn longest(family: Family) -> u32 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

/// The default route of the family that a full tunnel does not carry.
fn missing_family(config: &TunnelConfig) -> Vec<IpNet> {
    // What leads to a name server only, or to what stands beside the routes, is no reason to let the rest go past the tunnel.
    let server =
        |net: &IpNet| net.prefix_len() == net.max_prefix_len() && config.dns.servers.contains(&net.addr());
    let chosen = config.routes.iter().filter(|net| !server(net) && !config.beside.contains(net));
    let carries = |v4: bool| chosen.clone().any(|net| net.addr().is_ipv4() == v4);
    let is_full = |v4: bool| {
        let of_family = config.routes.iter().filter(|net| net.addr().is_ipv4() == v4).copied().collect();
        // 0.0.0.0/1 and 128.0.0.0/1 together are a full tunnel too.
        IpNet::aggregate(&of_family).iter().any(|net| net.prefix_len() == 0)
    };
    if !config.block_missing_family {
        Vec::new()
    } else if is_full(true) && !carries(false) {
        vec![IpNet::V6(Ipv6Net::default())]
    } else if is_full(false) && !carries(true) {
        vec![IpNet::V4(Ipv4Net::default())]
    } else {
        Vec::new()
    }
}

fn check(config: &TunnelConfig) -> Result<(), NetError> {
    super::tun::check_name(&config.device.name)?;
    let invalid = |reason: String| Err(NetError::InvalidConfig { reason });
    if config.fwmark == 0 {
        return invalid("a mark of 0 would be every packet's".into());
    }
    if !(576..=65535).contains(&config.mtu) {
        return invalid(format!("an MTU of {} octets", config.mtu));
    }
    for net in &config.addresses {
        let address = net.addr();
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return invalid(format!("{address} cannot be the address of a tunnel"));
        }
        if address.is_ipv6() && config.mtu < 1280 {
            return invalid(format!("IPv6 needs an MTU of 1280 octets, not {}", config.mtu));
        }
    }
    for net in &config.routes {
        if !config.addresses.iter().any(|a| a.addr().is_ipv4() == net.addr().is_ipv4()) {
            return invalid(format!("a route to {net} without an address of that family"));
        }
    }
    Ok(())
}

/// Finds an inner address that another interface has too, or whose subnet has it.
pub(super) fn conflict(config: &TunnelConfig, snapshot: &Snapshot) -> Option<NetError> {
    for inner in config.addresses.iter().map(IpNet::addr) {
        for interface in &snapshot.interfaces {
            if interface.name == config.device.name || interface.kind == InterfaceKind::Loopback {
                continue;
            }
            for address in &interface.addresses {
                // Other tunnels have nobody else on their link, so only the very address counts.
                let subnet_counts = interface.kind != InterfaceKind::Tun && !config.allow_overlap;
                if address.net.addr() == inner || (subnet_counts && address.net.contains(&inner)) {
                    return Some(NetError::AddressConflict {
                        inner,
                        interface: interface.name.clone(),
                        subnet: address.net,
                    });
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceRef, Interface, InterfaceAddress};

    fn config(addresses: &[&str], routes: &[&str], exclude: &[&str]) -> TunnelConfig {
        let nets = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect();
        TunnelConfig {
            addresses: nets(addresses),
            routes: nets(routes),
            exclude: nets(exclude),
            ..TunnelConfig::new(DeviceRef { name: "ropewalk0".into(), index: 7 })
        }
    }

    fn plan(config: &TunnelConfig, slot: u32) -> Plan {
        Plan::of(config, slot).unwrap().0
    }

    #[test]
    fn longer_prefixes_are_asked_first_and_the_main_table_before_ours_at_equal_length() {
        let split = plan(&config(&["10.9.0.2/32"], &["10.0.0.0/8", "10.1.0.0/16"], &[]), 0);
        let full = plan(&config(&["10.8.0.2/32"], &["0.0.0.0/0"], &[]), 1);
        let mut rules: Vec<Rule> =
            split.rules.union(&full.rules).filter(|r| r.family == Family::V4).cloned().collect();
        rules.sort_by_key(|r| r.priority);
        let order: Vec<(u32, Option<u32>)> = rules.iter().map(|r| (r.table, r.suppress)).collect();
        let (first, second) = (TABLE_BASE, TABLE_BASE + 1);
        assert_eq!(
            order,
            [
                (MAIN_TABLE, Some(16)),
                (first, Some(15)),
                (MAIN_TABLE, Some(8)),
                (first, Some(7)),
                (MAIN_TABLE, Some(0)),
                (second, None),
            ]
        );
    }

    #[test]
    fn every_priority_lies_in_our_range_and_before_the_main_table() {
        for slot in [0, SLOTS - 1] {
            let all = plan(
                &config(
                    &["10.9.0.2/32", "fd00::2/128"],
                    &["0.0.0.0/0", "10.1.2.3/32", "::/0", "fd00::3/128"],
                    &[],
                ),
                slot,
            );
            assert_eq!(all.rules.len(), 8);
            for rule in &all.rules {
                assert!(is_our_priority(rule.priority) && rule.priority < 32766, "{rule:?}");
            }
        }
    }

    #[test]
    fn a_routed_interface_has_no_rules_and_its_routes_are_in_the_main_table() {
        let wanted = config(&["10.9.0.2/31", "fd00::2/127"], &["10.0.0.0/8", "0.0.0.0/0"], &[]);
        let (plan, blocked) = Plan::of(&TunnelConfig { routed: true, ..wanted.clone() }, 3).unwrap();
        assert!(plan.rules.is_empty() && blocked.is_empty() && plan.routed);
        assert_eq!(plan.addresses, wanted.addresses.iter().copied().collect());
        let said: Vec<_> = plan.routes.iter().map(|r| (r.net.to_string(), r.table, r.metric)).collect();
        let main = |net: &str| (net.to_owned(), MAIN_TABLE, Some(LISTED_METRIC));
        assert_eq!(said, [main("0.0.0.0/0"), main("10.0.0.0/8")]);
    }

    #[test]
    fn an_excluded_prefix_is_thrown_even_when_it_is_also_a_route() {
        let plan = plan(&config(&["10.9.0.2/24"], &["10.0.0.0/8"], &["10.0.0.0/8", "10.2.0.0/16"]), 0);
        assert!(plan.routes.iter().all(|r| r.target == Target::Throw && r.source.is_none()));
        assert_eq!(plan.routes.len(), 2);
    }

    #[test]
    fn a_full_tunnel_of_one_family_makes_the_other_unreachable_unless_told_not_to() {
        for routes in [&["0.0.0.0/0"][..], &["0.0.0.0/1", "128.0.0.0/1"]] {
            let mut wanted = config(&["10.9.0.2/32"], routes, &[]);
            let (plan, blocked) = Plan::of(&wanted, 0).unwrap();
            assert_eq!(blocked, ["::/0".parse::<IpNet>().unwrap()]);
            assert!(plan.routes.iter().any(|r| r.target == Target::Unreachable));
            assert!(plan.rules.iter().any(|r| r.family == Family::V6));
            wanted.block_missing_family = false;
            assert!(Plan::of(&wanted, 0).unwrap().1.is_empty());
        }
        let v6 = config(&["fd00::2/128"], &["::/0"], &[]);
        assert_eq!(Plan::of(&v6, 0).unwrap().1, ["0.0.0.0/0".parse::<IpNet>().unwrap()]);
        let split = config(&["10.9.0.2/32"], &["0.0.0.0/1"], &[]);
        assert!(Plan::of(&split, 0).unwrap().1.is_empty());
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let good = config(&["10.9.0.2/32"], &["10.0.0.0/8"], &[]);
        assert!(Plan::of(&good, 0).is_ok());
        let bad = [
            config(&["10.9.0.2/32"], &["fd00::/8"], &[]),
            config(&["127.0.0.1/8"], &[], &[]),
            config(&["224.0.0.1/32"], &[], &[]),
            TunnelConfig { fwmark: 0, ..good.clone() },
            TunnelConfig { mtu: 100, ..good.clone() },
            TunnelConfig { mtu: 1200, ..config(&["fd00::1/64"], &[], &[]) },
            TunnelConfig { device: DeviceRef { name: "a/b".into(), index: 1 }, ..good },
        ];
        for wrong in bad {
            assert!(Plan::of(&wrong, 0).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_inner_address_that_the_local_network_has_is_a_conflict() {
        let lan = Snapshot {
            interfaces: vec![Interface {
                name: "eth0".into(),
                index: 2,
                kind: InterfaceKind::Ethernet,
                up: true,
                mtu: 1500,
                mac: None,
                addresses: vec![InterfaceAddress {
                    net: "192.168.1.7/24".parse().unwrap(),
                    global: true,
                    temporary: false,
                    deprecated: false,
                    tentative: false,
                }],
                default_v4: None,
                default_v6: None,
            }],
        };
        let conflicts = |address: &str, allow_overlap: bool| {
            let wanted = TunnelConfig { allow_overlap, ..config(&[address], &[], &[]) };
            conflict(&wanted, &lan).is_some()
        };
        assert!(conflicts("192.168.1.9/32", false));
        assert!(!conflicts("192.168.1.9/32", true));
        assert!(conflicts("192.168.1.7/32", true));
        assert!(!conflicts("192.168.2.9/32", false));
    }
}
