//! From the session's and the pump's state to the status that clients see.

use ropewalk_ipc::{
    ChildSa, DnsStatus, ErrorCode, ErrorInfo, Features, GatewayStatus, IkeSa, PathState, PathStatus, State,
    Status, Totals,
};
use ropewalk_session::{Cause, Explanation, IkeInfo, Snapshot};

use super::diagnosis::Finding;
use super::tunnel::{Installed, Tunnel};
use crate::engine::ConnectionContext;
use crate::state::now_rfc3339;

/// What was shown last, as far as it is not in the snapshot.
#[derive(Debug, Default)]
pub struct Shown {
    established: Option<(u64, String)>,
}

impl Shown {
    /// Publishes the connection's state.
    pub fn publish(
        &mut self,
        context: &ConnectionContext,
        state: State,
        snapshot: &Snapshot,
        finding: Option<&Finding>,
        tunnel: &Tunnel,
    ) {
        let established = snapshot.ike.as_ref().map(|ike| self.established(ike));
        context.status.update(|status| {
            fill(status, state, snapshot, tunnel, established.as_deref());
            status.error = snapshot.error.as_ref().map(|error| error_info(error, finding));
        });
    }

    fn established(&mut self, ike: &IkeInfo) -> String {
        match &self.established {
            Some((spi, at)) if *spi == ike.spis.initiator => at.clone(),
            _ => {
                let at = now_rfc3339();
                self.established = Some((ike.spis.initiator, at.clone()));
                at
            }
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
        finding.add_to(&mut info);
    }
    info
}

fn fill(status: &mut Status, state: State, snapshot: &Snapshot, tunnel: &Tunnel, established: Option<&str>) {
    status.state = state;
    status.ike.clear();
    status.paths.clear();
    status.features = Features::default();
    if let Some(ike) = &snapshot.ike {
        status.gateway = GatewayStatus {
            address: Some(ike.path.remote.ip().to_string()),
            identity: Some(ike.gateway_identity.clone()),
        };
        status.ike.push(IkeSa {
            spi_i: format!("{:016x}", ike.spis.initiator),
            spi_r: format!("{:016x}", ike.spis.responder),
            suite: ike.suite.clone(),
            established: established.unwrap_or_default().to_owned(),
            // A gateway that always wants encapsulation says to be behind a NAT: only our side's is known to be real.
            nat: ike.nat.ours,
        });
        status.features = Features {
            mobike: ike.features.mobike,
            fragmentation: ike.features.fragmentation,
            key_exchange: Some(ropewalk_ike::proposal::group_name(ike.group)),
            ..Features::default()
        };
    }
    status.children = tunnel.children().map(child).collect();
    status.totals = totals(tunnel);
    if let (Some(ike), Some(link)) = (&snapshot.ike, tunnel.links().current()) {
        let carrying = status.children.first();
        status.paths.push(PathStatus {
            interface: link.interface.clone(),
            local: ike.path.local.to_string(),
            remote: ike.path.remote.to_string(),
            state: PathState::Active,
            rtt_ms: None,
            loss: 0.0,
            bytes_in: carrying.map_or(0, |child| child.bytes_in),
            bytes_out: carrying.map_or(0, |child| child.bytes_out),
            spi_i: format!("{:016x}", ike.spis.initiator),
            ..PathStatus::default()
        });
    }
    match tunnel.configured() {
        Some(configured) => {
            status.addresses = configured.addresses.iter().map(ToString::to_string).collect();
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

fn child(installed: &Installed) -> ChildSa {
    let (inbound, outbound) = (installed.inbound.counters(), installed.outbound.counters());
    ChildSa {
        spi_in: format!("{:08x}", installed.sa.spi_in),
        spi_out: format!("{:08x}", installed.sa.spi_out),
        mode: "tunnel".to_owned(),
        suite: installed.sa.suite.syntax(),
        bytes_in: inbound.bytes,
        bytes_out: outbound.bytes,
        packets_in: inbound.packets,
        packets_out: outbound.packets,
    }
}

fn totals(tunnel: &Tunnel) -> Totals {
    let ((bytes_in, packets_in), (bytes_out, packets_out)) = tunnel.retired();
    let mut totals = Totals { bytes_in, bytes_out, packets_in, packets_out };
    for child in tunnel.children() {
        let (inbound, outbound) = (child.inbound.counters(), child.outbound.counters());
        totals.bytes_in += inbound.bytes;
        totals.packets_in += inbound.packets;
        totals.bytes_out += outbound.bytes;
        totals.packets_out += outbound.packets;
    }
    totals
}
