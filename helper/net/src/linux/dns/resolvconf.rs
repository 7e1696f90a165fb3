//! resolvconf: Debian's, or openresolv; one record for each tunnel.
//!
//! Neither tells names apart unless a local resolver stands behind it, so a tunnel for some domains is only put first,
//! by the name of its record; one for all names is exclusive with openresolv, and first with Debian's, which does not
//! know the option and ignores it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{Want, search_domains};
use crate::{DnsManager, NetError};

/// The program; not resolvectl under that name, which speaks to systemd-resolved.
pub(super) fn program() -> Option<PathBuf> {
    ["/usr/sbin/resolvconf", "/sbin/resolvconf", "/usr/bin/resolvconf"]
        .into_iter()
        .map(Path::new)
        .find(|path| {
            path.canonicalize().is_ok_and(|real| real.file_name().is_some_and(|name| name != "resolvectl"))
        })
        .map(Path::to_owned)
}

/// Gives a tunnel's servers.
pub(super) async fn add(want: &Want) -> Result<(), NetError> {
    let mut text = String::new();
    for server in &want.config.servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    let search: Vec<&str> = search_domains(&want.config).collect();
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    let record = record_name(&want.interface);
    let mut arguments = vec!["-a", record.as_str()];
    if want.config.domains.is_empty() {
        arguments.extend(["-m", "0", "-x"]);
    }
    run(&arguments, Some(text)).await
}

/// Takes a tunnel's servers away; that there are none is no error.
pub(super) async fn delete(interface: &str) -> Result<(), NetError> {
    if program().is_none() {
        return Ok(());
    }
    run(&["-d", record_name(interface).as_str(), "-f"], None).await
}

/// Whether the records are there, in the folders of either kind.
pub(super) fn holds(links: &BTreeMap<String, u32>) -> bool {
    links.keys().all(|name| {
        let record = record_name(name);
        ["/run/resolvconf/interface", "/run/resolvconf/interfaces", "/run/resolvconf/keys"]
            .iter()
            .any(|folder| Path::new(folder).join(&record).exists())
    })
}

/// A name that is first in the order of interfaces: Debian's has `tun.*` there and keeps it in a file, openresolv's has
/// `vpn.*` (as long as it has no metric).
fn record_name(interface: &str) -> String {
    let prefix = if Path::new("/etc/resolvconf/interface-order").exists() { "tun" } else { "vpn" };
    format!("{prefix}.{interface}")
}

async fn run(arguments: &[&str], input: Option<String>) -> Result<(), NetError> {
    let failed = |reason: String| NetError::Dns { manager: DnsManager::Resolvconf, reason };
    let Some(program) = program() else { return Err(failed("the program is gone".into())) };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).await.map_err(|e| failed(e.to_string()))?;
    }
    let limit = std::time::Duration::from_secs(15);
    let output = match tokio::time::timeout(limit, child.wait_with_output()).await {
        Ok(output) => output.map_err(|e| failed(e.to_string()))?,
        Err(_) => return Err(failed("it did not end within 15 seconds".into())),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("{}: {}", output.status, said.trim())))
}
