//! Name servers: who rules them, and one file for each way of asking.
//!
//! Order: systemd-resolved, NetworkManager, resolvconf, the file. Being installed or running is not enough to be
//! asked: `/etc/resolv.conf` must be that manager's work, since otherwise what is told it changes nothing for most
//! programs, and in a network namespace with a `resolv.conf` of its own would change the wrong system's settings.
//!
//! A change is made in three steps, so that the journal is always ahead: [`Dns::prepare`] says what the record will
//! be and saves the original, the caller writes the journal, [`Dns::perform`] changes the system.

mod bus;
mod file;
mod network_manager;
mod resolvconf;
mod resolved;
pub(super) mod watch;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(super) use bus::Bus;

use crate::{DnsConfig, DnsManager, DnsStatus, NetError};

/// What one tunnel wants.
#[derive(Clone, Debug)]
pub(super) struct Want {
    pub interface: String,
    pub index: u32,
    pub config: DnsConfig,
}

/// What has been changed, for the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DnsRecord {
    manager: Option<DnsManager>,
    /// Tunnels told to the manager, with their index.
    links: BTreeMap<String, u32>,
    file: Option<file::FileRecord>,
    network_manager: Option<network_manager::Record>,
}

impl DnsRecord {
    pub(super) fn manager(&self) -> Option<DnsManager> {
        self.manager
    }

    /// With the links of an earlier record too: while both may be in force.
    pub(super) fn including(mut self, earlier: &DnsRecord) -> Self {
        for (name, index) in &earlier.links {
            self.links.entry(name.clone()).or_insert(*index);
        }
        self
    }
}

/// Access to the system's name resolution.
#[derive(Debug)]
pub(super) struct Dns {
    resolv_conf: PathBuf,
    backup: PathBuf,
    bus: Arc<Bus>,
}

impl Dns {
    pub(super) fn new(resolv_conf: PathBuf, backup: PathBuf, bus: Arc<Bus>) -> Self {
        Dns { resolv_conf, backup, bus }
    }

    /// Who rules name resolution now. Where our own text is in the file, the original decides.
    pub(super) async fn detect(&self, record: &DnsRecord) -> DnsManager {
        let seen = match &record.file {
            Some(file) if file.is_ours(&self.resolv_conf) => Seen::read(&self.backup, &self.resolv_conf),
            _ => Seen::read(&self.resolv_conf, &self.resolv_conf),
        };
        if seen.is_resolved() && self.bus.has(resolved::SERVICE).await {
            return DnsManager::Resolved;
        }
        if seen.is_network_manager()
            && self.bus.has(network_manager::SERVICE).await
            && network_manager::rules_dns(&self.bus).await
        {
            return DnsManager::NetworkManager;
        }
        if seen.is_resolvconf() && resolvconf::program().is_some() {
            return DnsManager::Resolvconf;
        }
        DnsManager::ResolvConfFile
    }

    /// What the record will be once `wants` are told to `manager`; saves the original of what is replaced.
    pub(super) async fn prepare(
        &self,
        manager: DnsManager,
        old: &DnsRecord,
        wants: &[Want],
    ) -> Result<DnsRecord, NetError> {
        let mut new = DnsRecord {
            manager: Some(manager),
            links: wants.iter().map(|w| (w.interface.clone(), w.index)).collect(),
            file: None,
            network_manager: None,
        };
        match manager {
            DnsManager::Resolved | DnsManager::Resolvconf => {}
            DnsManager::NetworkManager => {
                let old = old.network_manager.as_ref();
                new.network_manager = Some(network_manager::prepare(&self.bus, old, wants).await?);
            }
            DnsManager::ResolvConfFile => {
                let old = old.file.as_ref();
                new.file = Some(file::prepare(&self.resolv_conf, &self.backup, old, wants)?);
            }
        }
        Ok(new)
    }

    /// Makes it so: `old` is what was told before, `new` what [`Dns::prepare`] returned and the journal holds.
    pub(super) async fn perform(
        &self,
        old: &DnsRecord,
        new: &mut DnsRecord,
        wants: &[Want],
    ) -> Result<DnsStatus, NetError> {
        let Some(manager) = new.manager else { return Ok(DnsStatus { manager: None, per_domain: true }) };
        let gone: Vec<(&String, &u32)> =
            old.links.iter().filter(|(name, index)| new.links.get(*name) != Some(*index)).collect();
        let some_split = wants.iter().any(|w| !w.config.domains.is_empty());
        let per_domain = match manager {
            DnsManager::Resolved => {
                for (_, index) in gone {
                    resolved::revert(&self.bus, *index).await?;
                }
                for want in wants {
                    resolved::set(&self.bus, want).await?;
                }
                true
            }
            DnsManager::NetworkManager => match &new.network_manager {
                Some(record) => network_manager::perform(&self.bus, record).await?,
                None => false,
            },
            DnsManager::Resolvconf => {
                for (name, _) in gone {
                    resolvconf::delete(name).await?;
                }
                for want in wants {
                    resolvconf::add(want).await?;
                }
                false
            }
            DnsManager::ResolvConfFile => {
                if let Some(record) = &mut new.file {
                    file::perform(&self.resolv_conf, record)?;
                }
                false
            }
        };
        Ok(DnsStatus { manager: Some(manager), per_domain: per_domain || !some_split })
    }

    /// Whether the system still is as `record` says; false when somebody else changed it.
    pub(super) async fn holds(&self, record: &DnsRecord) -> bool {
        match record.manager {
            None => true,
            Some(DnsManager::Resolved) => resolved::holds(&self.bus, &record.links).await,
            Some(DnsManager::NetworkManager) => match &record.network_manager {
                Some(nm) => network_manager::holds(&self.bus, nm).await,
                None => true,
            },
            Some(DnsManager::Resolvconf) => resolvconf::holds(&record.links),
            Some(DnsManager::ResolvConfFile) => {
                record.file.as_ref().is_none_or(|file| file.is_ours(&self.resolv_conf))
            }
        }
    }

    /// Puts everything back.
    pub(super) async fn undo(&self, record: &DnsRecord) -> Result<(), NetError> {
        match record.manager {
            None => Ok(()),
            Some(DnsManager::Resolved) => {
                for index in record.links.values() {
                    resolved::revert(&self.bus, *index).await?;
                }
                Ok(())
            }
            Some(DnsManager::NetworkManager) => match &record.network_manager {
                Some(nm) => network_manager::undo(&self.bus, nm).await,
                None => Ok(()),
            },
            Some(DnsManager::Resolvconf) => {
                for name in record.links.keys() {
                    resolvconf::delete(name).await?;
                }
                Ok(())
            }
            Some(DnsManager::ResolvConfFile) => match &record.file {
                Some(file) => file::undo(&self.resolv_conf, &self.backup, file),
                None => Ok(()),
            },
        }
    }

    /// Puts the file back without a record, when it is unmistakably our work and the original was kept.
    pub(super) fn undo_without_record(&self) -> Result<bool, NetError> {
        file::undo_by_header(&self.resolv_conf, &self.backup)
    }
}

/// What `/etc/resolv.conf` looks like.
struct Seen {
    /// Where it leads, when it is a symbolic link.
    target: Option<PathBuf>,
    text: String,
}

impl Seen {
    /// Reads `path`; a relative link is meant from the folder of `place`.
    fn read(path: &Path, place: &Path) -> Self {
        let target = fs::read_link(path).ok().map(|link| match place.parent() {
            Some(folder) => normalise(&folder.join(link)),
            None => link,
        });
        let bytes = fs::read(target.as_deref().unwrap_or(path)).unwrap_or_default();
        Seen { target, text: String::from_utf8_lossy(&bytes).into_owned() }
    }

    fn leads_into(&self, folder: &str) -> bool {
        self.target.as_ref().is_some_and(|target| target.starts_with(folder))
    }

    fn is_resolved(&self) -> bool {
        self.leads_into("/run/systemd/resolve")
            || self.leads_into("/usr/lib/systemd")
            || self.leads_into("/lib/systemd")
            || nameservers(&self.text)
                .iter()
                .any(|s| matches!(s.to_string().as_str(), "127.0.0.53" | "127.0.0.54"))
    }

    fn is_network_manager(&self) -> bool {
        self.leads_into("/run/NetworkManager") || self.text.starts_with("# Generated by NetworkManager")
    }

    fn is_resolvconf(&self) -> bool {
        self.leads_into("/run/resolvconf")
            || self.leads_into("/etc/resolvconf/run")
            || self.text.starts_with("# Generated by resolvconf")
    }
}

/// Resolves `..` by text alone: the path may lead to nothing.
fn normalise(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            std::path::Component::CurDir => {}
            std::path::Component::Prefix(_)
            | std::path::Component::RootDir
            | std::path::Component::Normal(_) => plain.push(part),
        }
    }
    plain
}

/// The name servers of a `resolv.conf`.
fn nameservers(text: &str) -> Vec<IpAddr> {
    values(text, "nameserver").filter_map(|value| value.parse().ok()).collect()
}

/// The search list of a `resolv.conf`: the last line counts.
fn searches(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            matches!(words.next(), Some("search" | "domain")).then(|| words.map(str::to_owned).collect())
        })
        .next_back()
        .unwrap_or_default()
}

fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let mut words = line.split_ascii_whitespace();
        if words.next() == Some(key) { words.next() } else { None }
    })
}

/// The plain form of a domain: without the routing mark `~` and the root's dot.
fn plain_domain(domain: &str) -> &str {
    let domain = domain.strip_prefix('~').unwrap_or(domain);
    domain.strip_suffix('.').unwrap_or(domain)
}

/// The domains that are search domains too.
fn search_domains(config: &DnsConfig) -> impl Iterator<Item = &str> {
    let domains = config.domains.iter().filter(|d| !d.starts_with('~'));
    domains.chain(&config.search).map(|d| plain_domain(d))
}

/// Refuses what is no domain name or server: both come from the gateway and end up in files and commands.
pub(super) fn check(config: &DnsConfig) -> Result<(), NetError> {
    for server in &config.servers {
        if server.is_unspecified() || server.is_multicast() {
            return Err(NetError::InvalidConfig { reason: format!("{server} cannot be a name server") });
        }
    }
    for domain in config.domains.iter().chain(&config.search) {
        let plain = plain_domain(domain);
        let valid_label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if plain.len() > 253 || !plain.split('.').all(valid_label) {
            return Err(NetError::InvalidDomain { domain: domain.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domains(names: &[&str]) -> DnsConfig {
        DnsConfig {
            servers: vec![],
            domains: names.iter().map(|n| (*n).to_owned()).collect(),
            search: vec![],
        }
    }

    #[test]
    fn text_that_is_no_domain_name_is_refused() {
        for good in ["example.com", "corp", "~corp.example.", "_msdcs.ad.example", "xn--bcher-kva.example"] {
            assert!(check(&domains(&[good])).is_ok(), "{good}");
        }
        let long = format!("{}.example", "a".repeat(64));
        for bad in
            ["", ".", "~", "a b", "a\nnameserver 6.6.6.6", "a;rm", "$(x)", "-a.b", "a..b", "~~a", &long]
        {
            assert!(check(&domains(&[bad])).is_err(), "{bad:?}");
        }
        let zero = DnsConfig { servers: vec!["0.0.0.0".parse().unwrap()], ..DnsConfig::default() };
        assert!(check(&zero).is_err());
    }

    #[test]
    fn a_resolv_conf_tells_whose_work_it_is() {
        let text = |text: &str| Seen { target: None, text: text.to_owned() };
        let link = |to: &str| Seen { target: Some(to.into()), text: String::new() };
        assert!(text("nameserver 127.0.0.53\n").is_resolved());
        assert!(link("/run/systemd/resolve/stub-resolv.conf").is_resolved());
        assert!(text("# Generated by NetworkManager\nnameserver 1.1.1.1\n").is_network_manager());
        assert!(link("/run/NetworkManager/resolv.conf").is_network_manager());
        assert!(text("# Generated by resolvconf\n").is_resolvconf());
        assert!(link("/run/resolvconf/resolv.conf").is_resolvconf());
        let plain = text("# mine\nnameserver 10.0.0.1\n");
        assert!(!plain.is_resolved() && !plain.is_network_manager() && !plain.is_resolvconf());
    }

    #[test]
    fn a_relative_link_is_followed_from_where_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy");
        std::os::unix::fs::symlink("../run/systemd/resolve/stub-resolv.conf", &path).unwrap();
        assert!(Seen::read(&path, Path::new("/etc/resolv.conf")).is_resolved());
    }
}
