//! What is printed, for people and as JSON. Only what the contract names goes to stdout.

use std::io::{self, Write};

use ropewalk_ipc::{
    ChildSa, EndpointStatus, EndpointWay, ErrorInfo, GroupState, GroupStatus, Imported, LeaseStatus,
    PathStatus, Policy, ProfilePaths, ProfileShown, ProfileSummary, State, Status,
};
use serde_json::json;

use crate::commands::failed;

type Printed = Result<(), ErrorInfo>;

/// One line on stderr: what failed and why, and what to do; or the object.
pub fn error(error: &ErrorInfo, json: bool) {
    let line = if json {
        serde_json::to_string(error).unwrap_or_default()
    } else {
        // A message from deep below may have lines; the promise is one.
        error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let prefix = if json { "" } else { "ropewalk: " };
    let _ = writeln!(io::stderr(), "{prefix}{line}");
}

/// Text as it is.
pub fn text(text: &str) -> Printed {
    print(text.trim_end_matches('\n'))
}

/// The name of what was imported; warnings go to stderr.
pub fn imported(imported: &Imported, json: bool) -> Printed {
    if json {
        return print_json(imported);
    }
    for warning in &imported.warnings {
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
    print(&imported.name)
}

/// The list of profiles.
pub fn profiles(profiles: &[ProfileSummary], json: bool) -> Printed {
    if json {
        return print_json(&profiles);
    }
    if profiles.is_empty() {
        let _ = writeln!(io::stderr(), "no profiles; `ropewalk import FILE` adds one");
        return Ok(());
    }
    let width = |of: fn(&ProfileSummary) -> usize| profiles.iter().map(of).max().unwrap_or(0);
    let name = width(|one| one.name.chars().count());
    let gateway = width(|one| one.gateway.chars().count());
    let mut lines = Vec::new();
    for one in profiles {
        let note = match &one.error {
            Some(error) => format!("  (cannot be used: {})", error.message),
            None => String::new(),
        };
        lines.push(format!(
            "{:name$}  {:gateway$}  {:12}  {}{note}",
            one.name,
            one.gateway,
            if one.gateway.is_empty() { "" } else { one.method.as_str() },
            one.source.as_str(),
        ));
    }
    print(&lines.join("\n"))
}

/// What a profile will do.
pub fn profile(shown: &ProfileShown, json: bool) -> Printed {
    if json {
        return print_json(shown);
    }
    let preview = &shown.preview;
    let or = |list: &[String], otherwise: &str| {
        if list.is_empty() { otherwise.to_owned() } else { list.join(", ") }
    };
    let yes = |flag: bool| if flag { "yes" } else { "no" };
    let mut facts = vec![
        ("Name", preview.name.clone()),
        ("From", shown.summary.source.as_str().to_owned()),
        ("Gateway", preview.gateway.join(", ")),
        ("It must prove to be", preview.gateway_identity.clone()),
        (
            "Trusted by",
            if preview.own_ca { "the profile's own CA" } else { "the system's trust store" }.to_owned(),
        ),
        ("Login", preview.method.as_str().to_owned()),
        ("User", preview.user.clone().unwrap_or_else(|| "-".to_owned())),
        ("Asks for", or(&preview.asks_for, "nothing")),
        ("Through the tunnel", or(&preview.routes, "what the gateway grants")),
        ("Outside", or(&preview.exclude, "nothing more")),
        ("DNS servers", or(&preview.dns_servers, "the gateway's")),
        ("DNS for", or(&preview.dns_domains, "all names")),
        ("Kill switch", yes(preview.kill_switch).to_owned()),
        ("Several paths", format!("{} ({})", yes(preview.multipath), preview.policy.as_str())),
    ];
    if let Some(reason) = &preview.unsupported {
        facts.push(("Cannot be used", reason.clone()));
    }
    print(&aligned(&facts))
}

/// The connection that was made.
pub fn connected(status: &Status, json: bool) -> Printed {
    if json { print_json(status) } else { print(&line(status)) }
}

/// What was disconnected.
pub fn disconnected(names: &[String], json: bool) -> Printed {
    if json {
        return print_json(&json!({ "disconnected": names }));
    }
    if names.is_empty() {
        let _ = writeln!(io::stderr(), "nothing was connected");
        return Ok(());
    }
    print(&names.iter().map(|name| format!("{name}: disconnected")).collect::<Vec<_>>().join("\n"))
}

/// The paths of each connection.
pub fn paths(connections: &[ProfilePaths], json: bool) -> Printed {
    if json {
        return print_json(&connections);
    }
    let mut lines = Vec::new();
    for connection in connections {
        lines.push(format!("{} ({})", connection.profile, policy_words(connection.policy)));
        for path in &connection.paths {
            let rtt = path.rtt_ms.map(|rtt| format!("{rtt:.1} ms")).unwrap_or_else(|| "-".to_owned());
            lines.push(format!(
                "  {:12} {:8} {} -> {}  {rtt}  {:.0} % lost  in {}  out {}{}",
                path.interface,
                path.state.as_str(),
                path.local,
                path.remote,
                path.loss * 100.0,
                octets(path.bytes_in),
                octets(path.bytes_out),
                if path.metered { "  metered" } else { "" },
            ));
        }
    }
    if lines.is_empty() {
        let _ = writeln!(io::stderr(), "nothing is connected");
        return Ok(());
    }
    print(&lines.join("\n"))
}

/// The state of one connection, or of all.
pub fn statuses(statuses: &[Status], all: bool, json: bool) -> Printed {
    match (all, json) {
        (true, true) => print_json(&statuses),
        (false, true) => match statuses.first() {
            Some(status) => print_json(status),
            None => Err(failed("the helper told no state")),
        },
        (_, false) => {
            let blocks: Vec<_> = statuses.iter().map(status_text).collect();
            if blocks.is_empty() { print("Nothing is connected") } else { print(&blocks.join("\n\n")) }
        }
    }
}

/// One change, for `watch`; false when nobody reads any more.
pub fn change(status: &Status, json: bool) -> Result<bool, ErrorInfo> {
    let text = if json {
        serde_json::to_string(status).map_err(|error| failed(error.to_string()))?
    } else {
        format!("{} {}", status.since, line(status))
    };
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(failed(format!("cannot print: {error}"))),
    }
}

fn line(status: &Status) -> String {
    let mut text = format!("{}: {}", name_of(status), status.state.as_str());
    if !status.addresses.is_empty() {
        text.push_str(&format!(", address {}", status.addresses.join(", ")));
    }
    if let Some(gateway) = status.gateway.address.as_ref().filter(|_| status.state.is_active()) {
        text.push_str(&format!(", gateway {gateway}"));
    }
    if let Some(error) = &status.error {
        text.push_str(&format!(" ({error})"));
    }
    text
}

fn status_text(status: &Status) -> String {
    let mut facts = vec![("State", state_words(status.state).to_owned()), ("Since", status.since.clone())];
    if let Some(error) = &status.error {
        facts.push(("Error", error.message.clone()));
        if !error.hint.is_empty() {
            facts.push(("What to do", error.hint.clone()));
        }
    }
    let gateway = [status.gateway.address.as_deref(), status.gateway.identity.as_deref()];
    let gateway: Vec<_> = gateway.into_iter().flatten().collect();
    let mut list = |name, values: Vec<String>| {
        if !values.is_empty() {
            facts.push((name, values.join(", ")));
        }
    };
    list("Gateway", gateway.into_iter().map(str::to_owned).collect());
    list("Addresses", status.addresses.clone());
    let lease = status.lease.as_ref();
    list("Lease", lease.map(lease_words).into_iter().collect());
    list("DNS servers", status.dns.servers.clone());
    list("DNS for", status.dns.domains.clone());
    list("Search domains", lease.map(|lease| lease.search.clone()).unwrap_or_default());
    list("Time servers", lease.map(|lease| lease.ntp.clone()).unwrap_or_default());
    list("Routes", status.routes.clone());
    list("Routes refused", lease.map(|lease| lease.refused_routes.clone()).unwrap_or_default());
    list("MTU", status.mtu.map(|mtu| mtu.to_string()).into_iter().collect());
    list("IKE", status.ike.iter().map(|ike| ike.suite.clone()).collect());
    let esp = |child: &ChildSa| match child.mode.as_str() {
        "transport" => format!("{} (transport mode, IIPtran)", child.suite),
        _ => child.suite.clone(),
    };
    list("ESP", status.children.iter().map(esp).collect());
    let path = |path: &PathStatus| format!("{} {}", path.interface, path.state.as_str());
    list("Paths", status.paths.iter().map(path).collect());
    list("One path because", status.alone.iter().cloned().collect());
    if let Some(group) = &status.group {
        list("Group", vec![group_words(group)]);
        for endpoint in &group.endpoints {
            list("Member", vec![endpoint_words(endpoint)]);
        }
        for route in &group.ignored_routes {
            list("Not used", vec![route.clone()]);
        }
    }
    if status.state.is_active() && status.owned {
        list("Received", vec![octets(status.totals.bytes_in)]);
        list("Sent", vec![octets(status.totals.bytes_out)]);
    }
    format!("{}\n{}", name_of(status), aligned(&facts))
}

fn lease_words(lease: &LeaseStatus) -> String {
    match &lease.until {
        Some(until) => format!("until {until}, from {}", lease.server),
        None => format!("for ever, from {}", lease.server),
    }
}

fn name_of(status: &Status) -> &str {
    match (&status.profile, status.owned, status.state.is_active()) {
        (Some(profile), _, _) => profile,
        (None, false, true) => "another user's connection",
        (None, _, _) => "Ropewalk",
    }
}

fn state_words(state: State) -> &'static str {
    match state {
        State::Disconnected => "not connected",
        State::Connecting => "connecting",
        State::Connected => "connected",
        State::Reconnecting => "reconnecting",
        State::Disconnecting => "disconnecting",
        State::Blocked => "blocked: no traffic leaves",
        State::Failed => "failed",
    }
}

fn group_words(group: &GroupStatus) -> String {
    let suite = group.suite.as_deref().unwrap_or_default();
    let reason = group.reason.as_deref().unwrap_or_default();
    match group.state {
        GroupState::Waiting => "the gateway has not handed out an SA yet".to_owned(),
        GroupState::InUse if reason.is_empty() => format!("{suite}, not checked for replayed packets"),
        GroupState::InUse => {
            format!("{suite}, not checked for replayed packets; the next SA is not used: {reason}")
        }
        GroupState::Refused => format!("not used: {reason}"),
        GroupState::NotOffered => format!("none: {reason}"),
    }
}

fn endpoint_words(endpoint: &EndpointStatus) -> String {
    let way = match endpoint.way {
        EndpointWay::Direct => "directly",
        EndpointWay::Untried => "directly, not heard from yet",
        EndpointWay::Gateway => "through the gateway",
    };
    let networks = endpoint.networks.iter().cloned();
    let learned = endpoint.learned.iter().map(|network| format!("{network} (learned)"));
    let networks: Vec<_> = networks.chain(learned).collect();
    format!("{} at {} {way}", networks.join(" and "), endpoint.address)
}

fn policy_words(policy: Policy) -> &'static str {
    match policy {
        Policy::Failover => "failover: one path carries, the others stand by",
        Policy::Balance => "balance: flows are spread",
        Policy::Redundant => "redundant: small packets go on two",
    }
}

fn octets(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut whole = count;
    let mut rest = 0;
    while whole >= 1024 && unit + 1 < UNITS.len() {
        rest = whole % 1024;
        whole /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{whole} {name}") } else { format!("{whole}.{} {name}", rest * 10 / 1024) }
}

fn aligned(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    facts.iter().map(|(name, value)| format!("  {name:width$}  {value}")).collect::<Vec<_>>().join("\n")
}

fn print_json(value: &impl serde::Serialize) -> Printed {
    print(&serde_json::to_string(value).map_err(|error| failed(error.to_string()))?)
}

fn print(text: &str) -> Printed {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(failed(format!("cannot print: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_told_in_units_a_person_reads() {
        assert_eq!(octets(0), "0 B");
        assert_eq!(octets(1536), "1.5 KiB");
        assert_eq!(octets(20 * 1024 * 1024), "20.0 MiB");
    }
}
