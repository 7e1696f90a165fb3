//! NetworkManager, when it writes `/etc/resolv.conf` itself: its global DNS configuration.
//!
//! The tunnel's device is none of NetworkManager's, so its servers cannot be said per device. The property
//! `GlobalDnsConfiguration` of `org.freedesktop.NetworkManager` replaces the servers of all connections at once, so
//! for a tunnel of some domains the connections' own servers are said again, for all other names. With its dnsmasq
//! plug-in NetworkManager tells names apart; without, the tunnel's servers stand first.
//!
//! NetworkManager keeps the setting on disk: it outlives a kill and a reboot, and the start-up sweep removes it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use zbus::{OwnedObjectPath, OwnedVariant, Variant};

use super::bus::{Bus, Place};
use super::{Want, plain_domain, search_domains};
use crate::{DnsManager, NetError};

pub(super) const SERVICE: &str = "org.freedesktop.NetworkManager";

const ROOT: Place<'static> =
    Place { service: SERVICE, path: "/org/freedesktop/NetworkManager", interface: SERVICE };

const DNS_MANAGER: Place<'static> = Place {
    service: SERVICE,
    path: "/org/freedesktop/NetworkManager/DnsManager",
    interface: "org.freedesktop.NetworkManager.DnsManager",
};

/// The property's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Global {
    searches: Vec<String>,
    options: Vec<String>,
    /// `*` is all other names.
    domains: BTreeMap<String, Servers>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Servers {
    servers: Vec<String>,
    options: Vec<String>,
}

/// What was there and what we said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    original: Global,
    /// The last is what shall be there, an earlier one what was.
    set: Vec<Global>,
    per_domain: bool,
}

/// Whether NetworkManager rules DNS at all, and by itself.
pub(super) async fn rules_dns(bus: &Bus) -> bool {
    let text = async |property| match bus.get(&DNS_MANAGER, property).await {
        Ok(value) => String::try_from(value).unwrap_or_default(),
        Err(_) => String::new(),
    };
    let mode = text("Mode").await;
    let rc_manager = text("RcManager").await;
    matches!(mode.as_str(), "default" | "dnsmasq" | "unbound")
        && matches!(rc_manager.as_str(), "symlink" | "file" | "auto")
}

pub(super) async fn prepare(bus: &Bus, old: Option<&Record>, wants: &[Want]) -> Result<Record, NetError> {
    let current = read(bus).await?;
    let (original, mut set) = match old {
        Some(old) if old.set.contains(&current) => (old.original.clone(), vec![current]),
        _ => (current, Vec::new()),
    };
    let mode = bus.get(&DNS_MANAGER, "Mode").await.map_err(failed)?;
    let per_domain = String::try_from(mode).is_ok_and(|mode| mode == "dnsmasq");
    let (servers, search) = if original.domains.is_empty() {
        of_connections(bus).await.map_err(failed)?
    } else {
        let all = original.domains.get("*").map(|all| all.servers.clone()).unwrap_or_default();
        (all, original.searches.clone())
    };
    set.push(compose(wants, per_domain, servers, search));
    Ok(Record { original, set, per_domain })
}

/// Sets it; returns whether names are told apart.
pub(super) async fn perform(bus: &Bus, record: &Record) -> Result<bool, NetError> {
    if let Some(wanted) = record.set.last() {
        write(bus, wanted).await?;
    }
    Ok(record.per_domain)
}

pub(super) async fn holds(bus: &Bus, record: &Record) -> bool {
    read(bus).await.is_ok_and(|current| record.set.last() == Some(&current))
}

/// Puts the original back, unless somebody else has set something since.
pub(super) async fn undo(bus: &Bus, record: &Record) -> Result<(), NetError> {
    let current = read(bus).await?;
    if !record.set.contains(&current) {
        tracing::info!("NetworkManager's global DNS was changed by somebody else: left alone");
        return Ok(());
    }
    write(bus, &record.original).await
}

fn compose(wants: &[Want], per_domain: bool, mut others: Vec<String>, other_search: Vec<String>) -> Global {
    let (full, split): (Vec<&Want>, Vec<&Want>) = wants.iter().partition(|w| w.config.domains.is_empty());
    let servers = |want: &Want| want.config.servers.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut global = Global::default();
    let mut all: Vec<String> = full.iter().flat_map(|want| servers(want)).collect();
    for want in &split {
        global.searches.extend(search_domains(&want.config).map(str::to_owned));
        if per_domain {
            for domain in &want.config.domains {
                let entry = Servers { servers: servers(want), options: Vec::new() };
                global.domains.insert(plain_domain(domain).to_owned(), entry);
            }
        } else {
            all.extend(servers(want));
        }
    }
    if full.is_empty() {
        all.append(&mut others);
        global.searches.extend(other_search);
    }
    global.domains.insert("*".to_owned(), Servers { servers: all, options: Vec::new() });
    global
}

/// Servers and search domains of all active connections.
async fn of_connections(bus: &Bus) -> zbus::Result<(Vec<String>, Vec<String>)> {
    let (mut servers, mut search) = (Vec::new(), Vec::new());
    let active = Vec::<OwnedObjectPath>::try_from(bus.get(&ROOT, "ActiveConnections").await?)?;
    for connection in &active {
        for family in ["Ip4Config", "Ip6Config"] {
            let at = Place {
                service: SERVICE,
                path: connection.as_str(),
                interface: "org.freedesktop.NetworkManager.Connection.Active",
            };
            // A connection may end while we read it.
            let Ok(config) = bus.get(&at, family).await else { continue };
            let Ok(config) = OwnedObjectPath::try_from(config) else { continue };
            if config.as_str() == "/" {
                continue;
            }
            let interface = format!("org.freedesktop.NetworkManager.{}", family.replace("Ip", "IP"));
            let at = Place { service: SERVICE, path: config.as_str(), interface: &interface };
            servers.extend(servers_of(bus, &at).await);
            for list in ["Searches", "Domains"] {
                if let Ok(value) = bus.get(&at, list).await {
                    search.extend(Vec::<String>::try_from(value).unwrap_or_default());
                }
            }
        }
    }
    Ok((servers, search))
}

async fn servers_of(bus: &Bus, at: &Place<'_>) -> Vec<String> {
    if let Ok(value) = bus.get(at, "NameserverData").await
        && let Ok(entries) = Vec::<HashMap<String, OwnedVariant>>::try_from(value)
    {
        return entries
            .into_iter()
            .filter_map(|mut entry| entry.remove("address"))
            .filter_map(|address| String::try_from(address).ok())
            .collect();
    }
    // IPv6 as octets.
    let Ok(value) = bus.get(at, "Nameservers").await else { return Vec::new() };
    let octets = Vec::<Vec<u8>>::try_from(value).unwrap_or_default();
    octets
        .into_iter()
        .filter_map(|address| <[u8; 16]>::try_from(address).ok())
        .map(|address| IpAddr::V6(Ipv6Addr::from(address)).to_string())
        .collect()
}

async fn read(bus: &Bus) -> Result<Global, NetError> {
    let value = bus.get(&ROOT, "GlobalDnsConfiguration").await.map_err(failed)?;
    let mut fields = HashMap::<String, OwnedVariant>::try_from(value).map_err(failed)?;
    let mut global = Global {
        searches: strings(fields.remove("searches")),
        options: strings(fields.remove("options")),
        domains: BTreeMap::new(),
    };
    if let Some(domains) = fields.remove("domains") {
        for (name, entry) in HashMap::<String, OwnedVariant>::try_from(domains).map_err(failed)? {
            let mut entry = HashMap::<String, OwnedVariant>::try_from(entry).map_err(failed)?;
            let servers = Servers {
                servers: strings(entry.remove("servers")),
                options: strings(entry.remove("options")),
            };
            global.domains.insert(name, servers);
        }
    }
    Ok(global)
}

async fn write(bus: &Bus, global: &Global) -> Result<(), NetError> {
    let mut fields: HashMap<&str, Variant<'_>> = HashMap::new();
    if !global.domains.is_empty() {
        let domains: HashMap<&str, Variant<'_>> = global
            .domains
            .iter()
            .map(|(name, entry)| {
                let mut fields = HashMap::from([("servers", Variant::from(entry.servers.clone()))]);
                if !entry.options.is_empty() {
                    fields.insert("options", Variant::from(entry.options.clone()));
                }
                (name.as_str(), Variant::from(fields))
            })
            .collect();
        fields.insert("domains", Variant::from(domains));
    }
    for (name, list) in [("searches", &global.searches), ("options", &global.options)] {
        if !list.is_empty() {
            fields.insert(name, Variant::from(list.clone()));
        }
    }
    bus.set(&ROOT, "GlobalDnsConfiguration", Variant::from(fields)).await.map_err(failed)
}

fn strings(value: Option<OwnedVariant>) -> Vec<String> {
    value.and_then(|value| Vec::<String>::try_from(value).ok()).unwrap_or_default()
}

fn failed(reason: impl ToString) -> NetError {
    NetError::Dns { manager: DnsManager::NetworkManager, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DnsConfig;

    fn want(server: &str, domains: &[&str]) -> Want {
        let domains = domains.iter().map(|d| (*d).to_owned()).collect();
        let config = DnsConfig { servers: vec![server.parse().unwrap()], domains, search: Vec::new() };
        Want { interface: "ropewalk0".into(), index: 3, config }
    }

    fn servers(global: &Global, domain: &str) -> Vec<String> {
        global.domains.get(domain).map(|d| d.servers.clone()).unwrap_or_default()
    }

    #[test]
    fn a_tunnel_for_all_names_replaces_the_connections_servers() {
        let global = compose(&[want("10.0.0.53", &[])], false, vec!["192.0.2.1".into()], vec!["home".into()]);
        assert_eq!(servers(&global, "*"), ["10.0.0.53"]);
        assert!(global.searches.is_empty());
    }

    #[test]
    fn a_tunnel_for_some_domains_keeps_the_connections_servers_for_the_others() {
        let wants = [want("10.0.0.53", &["corp.example", "~lab.example"])];
        let others = || (vec!["192.0.2.1".to_owned()], vec!["home".to_owned()]);
        let (all, search) = others();
        let apart = compose(&wants, true, all, search);
        assert_eq!(servers(&apart, "*"), ["192.0.2.1"]);
        assert_eq!(servers(&apart, "corp.example"), ["10.0.0.53"]);
        assert_eq!(servers(&apart, "lab.example"), ["10.0.0.53"]);
        assert_eq!(apart.searches, ["corp.example", "home"]);
        let (all, search) = others();
        let together = compose(&wants, false, all, search);
        assert_eq!(servers(&together, "*"), ["10.0.0.53", "192.0.2.1"]);
        assert_eq!(together.domains.len(), 1);
    }
}
