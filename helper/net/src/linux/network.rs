//! Tunnels: the journal first, then the kernel, then DNS; and back again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::rule::RuleAttribute;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use super::dns::{self, Bus, Dns, DnsRecord, Want};
use super::journal::{Journal, JournalFile, TunnelRecord};
use super::netlink::{self, Netlink};
use super::plan::{self, Plan, SLOTS, TABLE_BASE};
use super::{monitor, sysctl, tun};
use crate::{Applied, DnsManager, DnsStatus, NetError, NetworkSettings, SweepReport, TunnelConfig};

/// So often within [`NetworkSettings::fight_window`] DNS settings are put back that somebody else keeps changing; then they
/// are left alone until the window has passed: two programs must not rewrite a file all day.
const FIGHT_LIMIT: usize = 5;

/// Addresses, routes and DNS of all tunnels. One of it per system; it may be shared between tasks.
#[derive(Debug)]
pub struct Network {
    netlink: Netlink,
    file: JournalFile,
    dns: Dns,
    bus: Arc<Bus>,
    state: Mutex<State>,
    disturbed: watch::Sender<u64>,
    fight_window: Duration,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    journal: Journal,
    /// The journal could not be read; the error is told by the sweep.
    unreadable: bool,
    /// When DNS settings were put back lately.
    fights: Vec<Instant>,
    /// They were not, and it will be looked at again when the window has passed.
    truce: bool,
    /// How DNS was set last.
    dns: DnsStatus,
}

impl Network {
    /// Connects to the kernel and reads the journal. Changes nothing: call [`Network::sweep`] next.
    ///
    /// # Errors
    /// The state folder cannot be made, or there is no routing interface to talk to.
    pub async fn open(settings: NetworkSettings) -> Result<Self, NetError> {
        let file = JournalFile::open(&settings.state_dir)?;
        let (journal, unreadable) = match file.load() {
            Ok(journal) => (journal, false),
            Err(error) => {
                tracing::warn!(%error, "the record of network changes cannot be read");
                (Journal::of_this_boot(), true)
            }
        };
        let bus = Arc::new(Bus::new(settings.system_bus));
        let (disturbed, _) = watch::channel(0);
        let tasks = vec![
            tokio::spawn(dns::watch::file(settings.resolv_conf.clone(), disturbed.clone())),
            tokio::spawn(dns::watch::services(Arc::clone(&bus), disturbed.clone())),
            watch_routing(disturbed.clone())?,
        ];
        Ok(Network {
            netlink: Netlink::open()?,
            dns: Dns::new(settings.resolv_conf, file.backup_path(), Arc::clone(&bus)),
            bus,
            file,
            state: Mutex::new(State {
                journal,
                unreadable,
                fights: Vec::new(),
                truce: false,
                dns: DnsStatus { manager: None, per_domain: true },
            }),
            disturbed,
            fight_window: settings.fight_window,
            tasks,
        })
    }

    /// Those of these interfaces whose use costs by the amount, as far as the system knows.
    pub async fn metered(&self, interfaces: &[String]) -> Vec<String> {
        super::metered::among(&self.bus, interfaces).await
    }

    /// Removes what a killed helper left: for start-up, before anything is applied.
    ///
    /// A journal that cannot be read is put aside; then rules and tables are known by their numbers, and the resolver's
    /// file by our first line in it.
    ///
    /// # Errors
    /// Something could not be removed; the rest was, and the next sweep tries again.
    pub async fn sweep(&self) -> Result<SweepReport, NetError> {
        let mut state = self.state.lock().await;
        let mut report = SweepReport::default();
        if state.unreadable {
            report.journal_unreadable = true;
            self.sweep_by_numbers().await?;
            report.dns_restored = self.dns.undo_without_record()?;
            self.file.put_aside()?;
            state.unreadable = false;
            return Ok(report);
        }
        report.devices = state.journal.tunnels.keys().cloned().collect();
        report.dns_restored = state.journal.dns != DnsRecord::default();
        if !state.journal.is_of_this_boot() {
            // The kernel began anew; numbers in the journal may be others' now.
            state.journal.tunnels.clear();
            state.journal.sysctls.clear();
        }
        self.undo_everything(&mut state, true).await?;
        state.journal = Journal::of_this_boot();
        self.file.save(&state.journal)?;
        Ok(report)
    }

    /// Configures a tunnel, or moves one that is configured to new settings: what is in both is not touched, the new is
    /// there before the old goes. When this fails, a new tunnel leaves nothing, an old one keeps its settings.
    ///
    /// # Errors
    /// [`NetError::AddressConflict`], [`NetError::InvalidConfig`], [`NetError::InvalidDomain`],
    /// [`NetError::TooManyTunnels`], [`NetError::Ipv6Disabled`], [`NetError::Dns`], or what the kernel says.
    pub async fn apply(&self, config: &TunnelConfig) -> Result<Applied, NetError> {
        dns::check(&config.dns)?;
        let config = &without_ipv6_where_there_is_none(config);
        let name = &config.device.name;
        if tun::index_of(name)? != config.device.index {
            return Err(NetError::NoSuchInterface { name: name.clone() });
        }
        let mut state = self.state.lock().await;
        let record = state.journal.tunnels.get(name);
        if record.is_some_and(|record| !record.stands(config.device.index)) {
            // Of another device of this name, or undone in part: nothing of it can be built on.
            if let Err(error) = self.undo_one(&mut state, name, false).await {
                tracing::warn!(device = %name, %error, "what a tunnel of this name had left cannot be undone");
            }
        }
        let before = state.journal.tunnels.get(name).cloned();
        let slot = match &before {
            Some(record) => record.slot,
            None => self.free_slot(&state.journal).await?,
        };
        let (new, blocked) = Plan::of(config, slot)?;
        if let Some(conflict) = plan::conflict(config, &monitor::collect(&self.netlink).await?) {
            return Err(conflict);
        }
        let last = before.as_ref().and_then(|r| r.plans.last().cloned()).unwrap_or_default();
        let before = before.filter(|record| record.stands(config.device.index));
        let old = if before.is_some() { last.clone() } else { Plan::default() };

        let earlier = state.journal.clone();
        let plans = vec![last.clone(), new.clone()];
        let record = TunnelRecord { slot, config: config.clone(), plans, torn: false };
        state.journal.tunnels.insert(name.clone(), record);
        let sysctl = if state.journal.sysctls.is_empty() { sysctl::loose_reverse_path() } else { None };
        state.journal.sysctls.extend(sysctl.clone());
        if let Err(error) = self.file.save_for_this_boot(&state.journal) {
            // Nothing has been changed yet, so nothing may be thought to stand.
            state.journal = earlier;
            return Err(error);
        }

        let changed = match sysctl.map_or(Ok(()), |s| s.apply()) {
            Ok(()) => self.change(config, &old, &new, &mut state).await,
            Err(error) => Err(error),
        };
        let Err(error) = changed else {
            if before.is_none()
                && let Err(error) = self.remove(config.device.index, &last, &new).await
            {
                tracing::debug!(device = %name, %error, "what was left is not all there");
            }
            if let Some(record) = state.journal.tunnels.get_mut(name) {
                record.plans = vec![new];
            }
            self.file.save_for_this_boot(&state.journal)?;
            tracing::debug!(device = %name, slot, ?blocked, "tunnel configured");
            return Ok(Applied { table: TABLE_BASE + slot, dns: state.dns.clone(), blocked });
        };
        tracing::warn!(device = %name, %error, "tunnel not configured: going back");
        self.go_back(&mut state, before, &old, &new, config).await;
        Err(error)
    }

    /// Undoes a tunnel's configuration. A tunnel that has none is no error, nor is a device that is gone.
    ///
    /// # Errors
    /// Something could not be undone; it stays in the journal, so that undoing again or the next sweep tries again.
    pub async fn undo(&self, device: &str) -> Result<(), NetError> {
        let mut state = self.state.lock().await;
        self.undo_one(&mut state, device, false).await
    }

    /// Undoes all tunnels: for the end of the service.
    ///
    /// # Errors
    /// As [`Network::undo`]; all are tried.
    pub async fn undo_all(&self) -> Result<(), NetError> {
        let mut state = self.state.lock().await;
        self.undo_everything(&mut state, false).await
    }

    /// A counter that grows when somebody else touched what a tunnel relies on: our rules and routes, the resolver's
    /// file, a DNS manager that started or ended. Then call [`Network::refresh`].
    #[must_use]
    pub fn disturbances(&self) -> watch::Receiver<u64> {
        self.disturbed.subscribe()
    }

    /// Puts back what others removed, and finds out anew who rules DNS. Does nothing when all is in order, so it may be
    /// called on every change. Returns how each tunnel stands.
    ///
    /// # Errors
    /// Something could not be put back.
    pub async fn refresh(&self) -> Result<Vec<(String, Applied)>, NetError> {
        let mut state = self.state.lock().await;
        let configs: Vec<(u32, TunnelConfig)> =
            state.journal.tunnels.values().map(|r| (r.slot, r.config.clone())).collect();
        if configs.is_empty() {
            return Ok(Vec::new());
        }
        let rules = self.netlink.our_rules().await?;
        let routes: BTreeSet<(u32, IpNet)> = self
            .netlink
            .routes()
            .await?
            .iter()
            .filter_map(|(table, route)| Some((*table, netlink::destination_of(route)?)))
            .collect();
        let mut standing = Vec::new();
        for (slot, config) in configs {
            let (plan, blocked) = Plan::of(&config, slot)?;
            let whole = plan.rules.is_subset(&rules)
                && plan.routes.iter().all(|route| routes.contains(&(route.table, route.net)));
            if !whole && tun::index_of(&config.device.name).ok() == Some(config.device.index) {
                tracing::info!(device = %config.device.name, "routes were removed by somebody else: put back");
                self.add(&config, &Plan::default(), &plan).await?;
            }
            standing.push((
                config.device.name.clone(),
                Applied {
                    table: TABLE_BASE + slot,
                    dns: DnsStatus { manager: None, per_domain: true },
                    blocked,
                },
            ));
        }
        self.refresh_dns(&mut state).await?;
        for (name, applied) in &mut standing {
            applied.dns = dns_of(&state, name);
        }
        Ok(standing)
    }

    /// Who rules name resolution now.
    pub async fn dns_manager(&self) -> DnsManager {
        let state = self.state.lock().await;
        self.dns.detect(&state.journal.dns).await
    }

    /// A slot whose table and rules nobody has, not even another helper.
    async fn free_slot(&self, journal: &Journal) -> Result<u32, NetError> {
        let mut taken: BTreeSet<u32> = journal.tunnels.values().map(|r| TABLE_BASE + r.slot).collect();
        taken.extend(self.netlink.our_rules().await?.iter().map(|rule| rule.table));
        taken.extend(self.netlink.routes().await?.iter().map(|(table, _)| *table));
        (0..SLOTS)
            .find(|slot| !taken.contains(&(TABLE_BASE + slot)))
            .ok_or(NetError::TooManyTunnels { limit: usize::try_from(SLOTS).unwrap_or(usize::MAX) })
    }

    /// From one plan to another, with DNS in between.
    async fn change(
        &self,
        config: &TunnelConfig,
        old: &Plan,
        new: &Plan,
        state: &mut State,
    ) -> Result<(), NetError> {
        self.add(config, old, new).await?;
        self.sync_dns(state).await?;
        self.remove(config.device.index, old, new).await
    }

    /// Adds what is in `new` but not in `old`.
    async fn add(&self, config: &TunnelConfig, old: &Plan, new: &Plan) -> Result<(), NetError> {
        let (name, index) = (&config.device.name, config.device.index);
        sysctl::prepare_device(name, new.addresses.iter().any(|a| a.addr().is_ipv6()), new.routed);
        self.netlink.link_up(name, index, new.mtu).await?;
        for address in new.addresses.difference(&old.addresses) {
            self.netlink.add_address(index, address, new.routed).await?;
        }
        for route in new.routes.difference(&old.routes) {
            self.netlink.add_route(index, route).await?;
        }
        for rule in new.rules.difference(&old.rules) {
            self.netlink.add_rule(rule).await?;
        }
        Ok(())
    }

    /// Removes what is in `old` but not in `new`; everything is tried, the first error is told.
    async fn remove(&self, index: u32, old: &Plan, new: &Plan) -> Result<(), NetError> {
        let mut outcome = Ok(());
        for rule in old.rules.difference(&new.rules) {
            keep_first(&mut outcome, self.netlink.delete_rule(rule).await);
        }
        // A route that only changed its source or kind was replaced.
        let kept: BTreeSet<(u32, &IpNet)> = new.routes.iter().map(|r| (r.table, &r.net)).collect();
        for route in old.routes.iter().filter(|r| !kept.contains(&(r.table, &r.net))) {
            keep_first(&mut outcome, self.netlink.delete_route(index, route).await);
        }
        for address in old.addresses.difference(&new.addresses) {
            keep_first(&mut outcome, self.netlink.delete_address(index, address).await);
        }
        outcome
    }

    /// After a failed [`Network::apply`].
    async fn go_back(
        &self,
        state: &mut State,
        before: Option<TunnelRecord>,
        old: &Plan,
        new: &Plan,
        config: &TunnelConfig,
    ) {
        let name = &config.device.name;
        let outcome = match before {
            None => self.undo_one(state, name, false).await,
            Some(record) => {
                let earlier = record.config.clone();
                state
                    .journal
                    .tunnels
                    .insert(name.clone(), TunnelRecord { plans: vec![new.clone(), old.clone()], ..record });
                // All of the old: replaced routes are not in any difference.
                let back = self.add(&earlier, &Plan::default(), old).await;
                let back = back.and(self.sync_dns(state).await.map(|_| ()));
                back.and(self.remove(config.device.index, new, old).await)
            }
        };
        let saved = self.file.save(&state.journal);
        if let Err(error) = outcome.and(saved) {
            tracing::warn!(device = %name, %error, "going back was not complete");
        }
    }

    async fn undo_everything(&self, state: &mut State, delete_links: bool) -> Result<(), NetError> {
        let mut outcome = Ok(());
        for name in state.journal.tunnels.keys().cloned().collect::<Vec<_>>() {
            keep_first(&mut outcome, self.undo_one(state, &name, delete_links).await);
        }
        if state.journal.tunnels.is_empty() {
            keep_first(&mut outcome, self.sync_dns(state).await);
            keep_first(&mut outcome, self.restore_sysctls(state));
        }
        keep_first(&mut outcome, self.file.save(&state.journal));
        outcome
    }

    async fn undo_one(&self, state: &mut State, name: &str, delete_link: bool) -> Result<(), NetError> {
        let Some(record) = state.journal.tunnels.remove(name) else { return Ok(()) };
        let index = record.config.device.index;
        let mut outcome = self.sync_dns(state).await;
        for plan in record.plans.iter().rev() {
            keep_first(&mut outcome, self.remove(index, plan, &Plan::default()).await);
        }
        if tun::index_of(name).ok() == Some(index) {
            keep_first(
                &mut outcome,
                if delete_link {
                    self.netlink.delete_link(name, index).await
                } else {
                    self.netlink.link_down(name, index).await
                },
            );
        }
        if state.journal.tunnels.is_empty() {
            keep_first(&mut outcome, self.restore_sysctls(state));
        }
        if outcome.is_err() {
            state.journal.tunnels.insert(name.to_owned(), TunnelRecord { torn: true, ..record });
        }
        keep_first(&mut outcome, self.file.save(&state.journal));
        outcome
    }

    fn restore_sysctls(&self, state: &mut State) -> Result<(), NetError> {
        let mut outcome = Ok(());
        state.journal.sysctls.retain(|changed| {
            let restored = changed.restore();
            let failed = restored.is_err();
            keep_first(&mut outcome, restored);
            failed
        });
        outcome
    }

    /// Makes DNS what the tunnels in the journal want.
    async fn sync_dns(&self, state: &mut State) -> Result<(), NetError> {
        let wants = wants(&state.journal.tunnels);
        let mut old = state.journal.dns.clone();
        if wants.is_empty() {
            self.dns.undo(&old).await?;
            state.journal.dns = DnsRecord::default();
            state.dns = DnsStatus { manager: None, per_domain: true };
            return Ok(());
        }
        let manager = self.dns.detect(&old).await;
        if old.manager().is_some_and(|before| before != manager) {
            tracing::info!(%manager, "name resolution has a new manager");
            self.dns.undo(&old).await?;
            old = DnsRecord::default();
        }
        let mut new = self.dns.prepare(manager, &old, &wants).await?;
        state.journal.dns = new.clone().including(&old);
        self.file.save(&state.journal)?;
        state.dns = self.dns.perform(&old, &mut new, &wants).await?;
        state.journal.dns = new;
        self.file.save_for_this_boot(&state.journal)
    }

    async fn refresh_dns(&self, state: &mut State) -> Result<(), NetError> {
        let Some(manager) = state.journal.dns.manager() else { return Ok(()) };
        let same = self.dns.detect(&state.journal.dns).await == manager;
        if same && self.dns.holds(&state.journal.dns).await {
            return Ok(());
        }
        let window = self.fight_window;
        state.fights.retain(|when| when.elapsed() < window);
        if let Some(oldest) = state.fights.first().filter(|_| state.fights.len() >= FIGHT_LIMIT) {
            if !std::mem::replace(&mut state.truce, true) {
                let (rest, disturbed) = (window.saturating_sub(oldest.elapsed()), self.disturbed.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(rest).await;
                    disturbed.send_modify(|count| *count += 1);
                });
            }
            return Err(NetError::Dns {
                manager,
                reason: "another program keeps changing the name servers".to_owned(),
            });
        }
        state.truce = false;
        state.fights.push(Instant::now());
        tracing::info!(%manager, "name servers were changed by somebody else: set again");
        self.sync_dns(state).await
    }

    /// Removes all rules and routes that carry our numbers.
    async fn sweep_by_numbers(&self) -> Result<(), NetError> {
        let mut outcome = Ok(());
        for rule in self.netlink.our_rules().await? {
            keep_first(&mut outcome, self.netlink.delete_rule(&rule).await);
        }
        for (table, route) in self.netlink.routes().await? {
            if plan::is_our_table(table)
                && let Some(net) = netlink::destination_of(&route)
            {
                let route =
                    plan::Route { net, table, target: plan::Target::Throw, source: None, metric: None };
                // Without a metric the device does not count.
                keep_first(&mut outcome, self.netlink.delete_route(0, &route).await);
            }
        }
        outcome
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// On a kernel without IPv6 there is nothing of it to be blocked or excluded, and the attempt would fail.
fn without_ipv6_where_there_is_none(config: &TunnelConfig) -> TunnelConfig {
    let mut config = config.clone();
    if !Path::new("/proc/sys/net/ipv6").exists() {
        config.exclude.retain(|net| net.addr().is_ipv4());
        // Of the families only IPv6 can be missing here: a tunnel that has it fails by its address.
        config.block_missing_family = config.routes.iter().any(|net| net.addr().is_ipv6());
    }
    config
}

fn wants(tunnels: &BTreeMap<String, TunnelRecord>) -> Vec<Want> {
    tunnels
        .values()
        .filter(|record| !record.config.dns.servers.is_empty())
        .map(|record| Want {
            interface: record.config.device.name.clone(),
            index: record.config.device.index,
            config: record.config.dns.clone(),
        })
        .collect()
}

fn dns_of(state: &State, name: &str) -> DnsStatus {
    let has_servers = state.journal.tunnels.get(name).is_some_and(|r| !r.config.dns.servers.is_empty());
    if has_servers { state.dns.clone() } else { DnsStatus { manager: None, per_domain: true } }
}

fn keep_first(outcome: &mut Result<(), NetError>, next: Result<(), NetError>) {
    if let Err(error) = next {
        if outcome.is_ok() {
            *outcome = Err(error);
        } else {
            tracing::warn!(%error, "and another failure while undoing");
        }
    }
}

/// Notices rules and routes of ours that are removed, by whomever.
fn watch_routing(counter: watch::Sender<u64>) -> Result<JoinHandle<()>, NetError> {
    let groups = [
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Ipv6Rule,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (connection, _, mut messages) =
        rtnetlink::new_multicast_connection(&groups).map_err(|e| NetError::io("watching routes", e))?;
    Ok(tokio::spawn(async move {
        let watching = async move {
            while let Some((message, _)) = messages.next().await {
                let ours = match message.payload {
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRule(rule)) => rule
                        .attributes
                        .iter()
                        .any(|a| matches!(a, RuleAttribute::Priority(p) if plan::is_our_priority(*p))),
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)) => {
                        plan::is_our_table(netlink::table_of(&route))
                    }
                    // The kernel dropped messages.
                    NetlinkPayload::Overrun(_) => true,
                    _ => false,
                };
                if ours {
                    counter.send_modify(|count| *count += 1);
                }
            }
        };
        tokio::join!(connection, watching);
    }))
}
