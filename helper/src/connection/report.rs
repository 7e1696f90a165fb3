//! From the session's and the pump's state to the status that clients see.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ropewalk_ike::exchange::child::Mode;
use ropewalk_ipc::{
    ChildSa, DnsStatus, ErrorCode, ErrorInfo, Features, GatewayStatus, IkeSa, InterfaceKind, LeaseStatus,
    PathState, PathStatus, State, Status, Totals,
};
use ropewalk_session::{
    Alone, Cause, Explanation, Health, IkeInfo, LeaseInfo, PathSnapshot, Phase, Snapshot,
};
use time::OffsetDateTime;

use super::diagnosis::Finding;
use super::networks::Network;
use super::tunnel::{Installed, Tunnel};
use crate::clock;
use crate::engine::ConnectionContext;
use crate::state::{now_rfc3339, rfc3339};

/// Counters are published this often while nothing else changes: watchers are told as often.
const COUNTERS: Duration = Duration::from_secs(1);

/// What was shown last, as far as it is not in the snapshot.
#[derive(Debug, Default)]
pub struct Shown {
    /// When each IKE_SA was seen first, by the initiator's SPI.
    established: BTreeMap<u64, String>,
    /// What was published, without what is measured, and when.
    last: Option<(Snapshot, Instant)>,
    /// When a lease ends, on both clocks.
    lease_end: Option<(ropewalk_ike::time::Instant, String)>,
}

impl Shown {
    /// Whether the state is to be published: something has changed, be it in the session or, as `changed` tells, elsewhere; or
    /// the counters are a second old. While data flow the session looks at them several times a second, which concerns nobody
    /// else.
    pub fn is_due(&mut self, snapshot: &Snapshot, changed: bool) -> bool {
        let mut steady = snapshot.clone();
        for path in &mut steady.paths {
            (path.rtt, path.loss) = (None, None);
        }
        let fresh = |(last, at): &(Snapshot, Instant)| *last == steady && at.elapsed() < COUNTERS;
        if !changed && self.last.as_ref().is_some_and(fresh) {
            return false;
        }
        self.last = Some((steady, Instant::now()));
        true
    }

    /// Publishes the connection's state.
    pub fn publish(
        &mut self,
        context: &ConnectionContext,
        state: State,
        snapshot: &Snapshot,
        finding: Option<&Finding>,
        (tunnel, networks): (&Tunnel, &[Network]),
    ) {
        let ike: Vec<IkeSa> =
            snapshot.ike.iter().chain(&snapshot.beside).map(|ike| self.ike_sa(ike)).collect();
        let spis = || snapshot.ike.iter().chain(&snapshot.beside).map(|ike| ike.spis.initiator);
        self.established.retain(|spi, _| spis().any(|known| known == *spi));
        let lease = snapshot.lease.as_ref().map(|lease| self.lease(lease));
        context.status.update(|status| {
            fill(status, state, snapshot, (tunnel, networks));
            status.ike = ike;
            status.lease = lease;
            let error = snapshot.error.as_ref().map(|error| error_info(error, finding));
            let narrow = || tunnel.too_narrow().filter(|_| state == State::Connected);
            status.error = error.or_else(narrow);
        });
    }

    fn lease(&mut self, held: &LeaseInfo) -> LeaseStatus {
        let until = held.ends.map(|ends| match &self.lease_end {
            Some((known, text)) if *known == ends => text.clone(),
            _ => {
                let text = rfc3339(OffsetDateTime::now_utc() + ends.saturating_since(clock::now()));
                self.lease_end = Some((ends, text.clone()));
                text
            }
        });
        let words = |addresses: &[Ipv4Addr]| addresses.iter().map(ToString::to_string).collect();
        let settings = &held.lease.settings;
        let domain = settings.domain.iter().filter(|domain| !settings.search.contains(domain));
        LeaseStatus {
            server: held.lease.server.to_string(),
            until,
            search: settings.search.iter().chain(domain).cloned().collect(),
            ntp: words(&settings.ntp_servers),
            wins: words(&settings.wins_servers),
            refused_routes: held.refused.iter().map(|(route, why)| format!("{route}: {why}")).collect(),
        }
    }

    fn ike_sa(&mut self, ike: &IkeInfo) -> IkeSa {
        IkeSa {
            spi_i: format!("{:016x}", ike.spis.initiator),
            spi_r: format!("{:016x}", ike.spis.responder),
            suite: ike.suite.clone(),
            established: self.established.entry(ike.spis.initiator).or_insert_with(now_rfc3339).clone(),
            // A gateway that always wants encapsulation says to be behind a NAT: only our side's is known to be real.
            nat: ike.nat.ours,
        }
    }
}

/// A failure as clients see it, with what was found out about a silent gateway.
#[must_use]
pub fn error_info(error: &Explanation, finding: Option<&Finding>) -> ErrorInfo {
    let code = match error.cause {
        Cause::Failed => ErrorCode::Failed,
        Cause::Authentication => ErrorCode::AuthFailed,
        Cause::Unreachable => ErrorCode::GatewayUnreachable,
        Cause::NoProposal => ErrorCode::NoProposal,
        Cause::Profile => ErrorCode::ProfileRefused,
    };
    let mut info = ErrorInfo::new(code, error.message.clone(), error.hint.clone());
    if let (Cause::Unreachable, Some(finding)) = (error.cause, finding) {
        // That TCP reaches a host says nothing new of one that was heard of.
        if !(error.heard && *finding == Finding::OnlyTcp) {
            finding.add_to(&mut info);
        }
    }
    info
}

fn fill(status: &mut Status, state: State, snapshot: &Snapshot, (tunnel, networks): (&Tunnel, &[Network])) {
    status.state = state;
    status.features = Features::default();
    if let Some(ike) = &snapshot.ike {
        status.gateway = GatewayStatus {
            address: Some(ike.path.remote.ip().to_string()),
            identity: Some(ike.gateway_identity.clone()),
        };
        status.features = Features {
            mobike: ike.features.mobike,
            fragmentation: ike.features.fragmentation,
            keep_old_ike_sa: ike.features.keep_old == Some(true),
            key_exchange: Some(ropewalk_ike::proposal::group_name(ike.group)),
            multi_point_sa: snapshot.group.as_ref().is_some_and(|group| group.sending.is_some()),
            ..Features::default()
        };
    }
    status.children = tunnel.children().map(child).collect();
    status.totals = totals(tunnel);
    status.paths = snapshot.paths.iter().map(|path| path_status(path, snapshot, tunnel, networks)).collect();
    status.group = tunnel.group.status(snapshot);
    status.alone = snapshot.alone.map(|alone| why_alone(alone).to_owned());
    match tunnel.configured() {
        Some(configured) => {
            // An address whose lease is over is still the device's, and not ours.
            let addresses = configured.addresses.iter().filter(|_| snapshot.inner.is_some());
            status.addresses = addresses.map(ToString::to_string).collect();
            status.routes = configured.routes.iter().map(ToString::to_string).collect();
            status.mtu = Some(configured.mtu.into());
            status.dns = DnsStatus {
                servers: configured.dns_servers.iter().map(ToString::to_string).collect(),
                domains: configured.dns_domains.clone(),
            };
        }
        None => {
            status.addresses.clear();
            status.routes.clear();
            status.mtu = None;
            status.dns = DnsStatus::default();
        }
    }
}

fn path_status(
    path: &PathSnapshot,
    snapshot: &Snapshot,
    tunnel: &Tunnel,
    networks: &[Network],
) -> PathStatus {
    let known = networks.iter().find(|network| Some(network.index) == path.interface);
    let link = tunnel.links().get(path.path.link);
    let (bytes_in, bytes_out) = tunnel.octets(path);
    PathStatus {
        interface: link
            .map(|link| link.interface.clone())
            .or(known.map(|known| known.name.clone()))
            .unwrap_or_default(),
        kind: known.map(|known| kind(known.kind)).unwrap_or_default(),
        metered: known.is_some_and(|known| known.metered),
        local: path.path.local.to_string(),
        remote: path.path.remote.to_string(),
        state: path_state(path, snapshot.phase),
        rtt_ms: path.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
        loss: path.loss.unwrap_or_default(),
        bytes_in,
        bytes_out,
        spi_i: format!("{:016x}", path.spis.initiator),
    }
}

fn path_state(path: &PathSnapshot, phase: Phase) -> PathState {
    match path.health {
        Health::Failed | Health::Down => PathState::Failed,
        Health::Unproven | Health::Good | Health::Degraded | Health::Suspect
            if path.carrying && phase == Phase::Connected =>
        {
            PathState::Active
        }
        Health::Good | Health::Degraded if phase == Phase::Connected => PathState::Standby,
        Health::Unproven | Health::Suspect | Health::Good | Health::Degraded => PathState::Probing,
    }
}

fn kind(kind: ropewalk_net::InterfaceKind) -> InterfaceKind {
    match kind {
        ropewalk_net::InterfaceKind::Ethernet => InterfaceKind::Ethernet,
        ropewalk_net::InterfaceKind::Wifi => InterfaceKind::Wifi,
        ropewalk_net::InterfaceKind::Mobile => InterfaceKind::Mobile,
        _ => InterfaceKind::Other,
    }
}

fn why_alone(alone: Alone) -> &'static str {
    match alone {
        Alone::NotWanted => "the profile wants one path (paths.multipath)",
        Alone::Transport => "transport mode (tunnel.mode = \"iiptran\") is bound to one path",
        Alone::OneWay => "there is one network and one address of the gateway",
        Alone::NotKept => "the gateway does not know KEEP_OLD_IKE_SA",
        Alone::NoMobike => "the gateway does not know MOBIKE",
        Alone::Refused => "the gateway refuses further IKE_SAs",
        Alone::Unanswered => "other paths do not answer, or are still being set up",
    }
}

fn child(installed: &Installed) -> ChildSa {
    let (inbound, outbound) = (installed.inbound.counters(), installed.outbound.counters());
    ChildSa {
        spi_in: format!("{:08x}", installed.sa.spi_in),
        spi_out: format!("{:08x}", installed.sa.spi_out),
        mode: match installed.sa.mode {
            Mode::Tunnel => "tunnel",
            Mode::Transport => "transport",
        }
        .to_owned(),
        suite: installed.sa.suite.syntax(),
        bytes_in: inbound.bytes,
        bytes_out: outbound.bytes,
        packets_in: inbound.packets,
        packets_out: outbound.packets,
    }
}

fn totals(tunnel: &Tunnel) -> Totals {
    let ((bytes_in, packets_in), (bytes_out, packets_out)) = tunnel.retired();
    // What members send each other directly goes by no CHILD_SA.
    let mut totals = tunnel.group.totals();
    totals.bytes_in += bytes_in;
    totals.packets_in += packets_in;
    totals.bytes_out += bytes_out;
    totals.packets_out += packets_out;
    for child in tunnel.children() {
        let (inbound, outbound) = (child.inbound.counters(), child.outbound.counters());
        totals.bytes_in += inbound.bytes;
        totals.packets_in += inbound.packets;
        totals.bytes_out += outbound.bytes;
        totals.packets_out += outbound.packets;
    }
    totals
}
