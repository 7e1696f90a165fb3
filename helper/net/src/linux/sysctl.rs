//! Kernel parameters: those of our own device, which go with it, and the one that is the whole system's.
//!
//! Strict reverse path filtering (`rp_filter` 1) asks where a reply to a received packet would go, without the mark
//! our sockets have, and so drops the gateway's packets on the real interface when a tunnel covers the gateway's
//! address. `src_valid_mark` helps only those who mark received packets in a firewall. So while a tunnel is up the
//! filter is loose (2) wherever it is strict; `all` is set, since the larger of `all` and the interface's value
//! counts, also for interfaces that come later.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::NetError;

const IPV4: &str = "/proc/sys/net/ipv4/conf";
const IPV6: &str = "/proc/sys/net/ipv6/conf";

/// A parameter that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Changed {
    path: PathBuf,
    was: String,
    set: String,
}

/// What must be changed for replies to marked packets to be let in; `None` when nothing filters strictly.
pub(super) fn loose_reverse_path() -> Option<Changed> {
    let strict = fs::read_dir(IPV4)
        .ok()?
        .flatten()
        .any(|entry| read(&entry.path().join("rp_filter")).is_some_and(|value| value == "1"));
    let path = Path::new(IPV4).join("all/rp_filter");
    let was = read(&path)?;
    (strict && was != "2").then(|| Changed { path, was, set: "2".to_owned() })
}

impl Changed {
    pub(super) fn apply(&self) -> Result<(), NetError> {
        fs::write(&self.path, &self.set)
            .map_err(|e| NetError::io(format!("setting {}", self.path.display()), e))
    }

    /// Puts the old value back, unless somebody has changed it since.
    pub(super) fn restore(&self) -> Result<(), NetError> {
        if read(&self.path).as_deref() != Some(self.set.as_str()) {
            tracing::info!(path = %self.path.display(), "kernel parameter was changed by somebody else: left alone");
            return Ok(());
        }
        fs::write(&self.path, &self.was)
            .map_err(|e| NetError::io(format!("restoring {}", self.path.display()), e))
    }
}

/// Prepares our own device: no link-local address (neighbour and router discovery have no place in the tunnel) unless it is
/// `routed`, for routing protocols speak from there; no router advertisements, and IPv6 on if the tunnel has it, though the
/// system's default for new devices be off.
pub(super) fn prepare_device(name: &str, with_ipv6: bool, routed: bool) {
    let folder = Path::new(IPV6).join(name);
    let mut wanted = vec![("accept_ra", "0"), ("autoconf", "0")];
    if !routed {
        wanted.push(("addr_gen_mode", "1"));
    }
    if with_ipv6 {
        wanted.push(("disable_ipv6", "0"));
    }
    for (key, value) in wanted {
        let path = folder.join(key);
        if read(&path).as_deref() != Some(value)
            && let Err(error) = fs::write(&path, value)
        {
            tracing::debug!(path = %path.display(), %error, "kernel parameter not set");
        }
    }
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|value| value.trim().to_owned())
}
