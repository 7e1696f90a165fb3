//! systemd-resolved: settings of a link, through `org.freedesktop.resolve1`.
//!
//! A tunnel for all names gets the routing domain `~.` and is a default route of names; one for some domains gets
//! these and is none. LLMNR and multicast DNS are off on the tunnel. resolved forgets a link's settings when the link
//! goes, so nothing is left after a kill.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::bus::{Bus, Place};
use super::{Want, plain_domain};
use crate::{DnsManager, NetError};

pub(super) const SERVICE: &str = "org.freedesktop.resolve1";

const MANAGER: Place<'static> = Place {
    service: SERVICE,
    path: "/org/freedesktop/resolve1",
    interface: "org.freedesktop.resolve1.Manager",
};

// <sys/socket.h>, as the interface wants them.
const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;

/// Tells a tunnel's servers and domains.
pub(super) async fn set(bus: &Bus, want: &Want) -> Result<(), NetError> {
    let link = i32::try_from(want.index).map_err(|_| failed("the link's index is out of range"))?;
    let servers: Vec<(i32, Vec<u8>)> = want.config.servers.iter().map(address).collect();
    let all_names = want.config.domains.is_empty();
    let mut domains: Vec<(String, bool)> = if all_names {
        vec![(".".to_owned(), true)]
    } else {
        want.config.domains.iter().map(|d| (plain_domain(d).to_owned(), d.starts_with('~'))).collect()
    };
    domains.extend(want.config.search.iter().map(|d| (plain_domain(d).to_owned(), false)));
    bus.call(&MANAGER, "SetLinkDNS", &(link, servers)).await.map_err(failed)?;
    bus.call(&MANAGER, "SetLinkDomains", &(link, domains)).await.map_err(failed)?;
    bus.call(&MANAGER, "SetLinkDefaultRoute", &(link, all_names)).await.map_err(failed)?;
    for method in ["SetLinkLLMNR", "SetLinkMulticastDNS"] {
        if let Err(error) = bus.call(&MANAGER, method, &(link, "no")).await {
            tracing::debug!(method, %error, "systemd-resolved did not take it");
        }
    }
    flush(bus).await;
    Ok(())
}

/// Forgets a link's settings; a link or resolved that is gone has forgotten them itself.
pub(super) async fn revert(bus: &Bus, index: u32) -> Result<(), NetError> {
    let link = i32::try_from(index).map_err(|_| failed("the link's index is out of range"))?;
    match bus.call(&MANAGER, "RevertLink", &(link,)).await {
        Ok(()) => {}
        Err(error) if is_gone(&error) => tracing::debug!(index, %error, "the link's DNS is gone already"),
        Err(error) => return Err(failed(error)),
    }
    flush(bus).await;
    Ok(())
}

/// Whether every link still has servers: a restarted resolved has forgotten them.
pub(super) async fn holds(bus: &Bus, links: &BTreeMap<String, u32>) -> bool {
    type Servers = Vec<(i32, i32, Vec<u8>)>;
    let Ok(all) = bus.get(&MANAGER, "DNS").await else { return false };
    let Ok(all) = Servers::try_from(all) else { return false };
    links.values().all(|index| {
        let index = i32::try_from(*index).unwrap_or(-1);
        all.iter().any(|(link, _, _)| *link == index)
    })
}

/// Names learnt outside are not true inside, and the other way round.
async fn flush(bus: &Bus) {
    if let Err(error) = bus.call(&MANAGER, "FlushCaches", &()).await {
        tracing::debug!(%error, "systemd-resolved did not flush its caches");
    }
}

fn is_gone(error: &zbus::Error) -> bool {
    let zbus::Error::MethodError(name, _, _) = error else {
        // No bus, no resolved.
        return true;
    };
    matches!(
        name.as_str(),
        "org.freedesktop.resolve1.NoSuchLink"
            | "org.freedesktop.DBus.Error.ServiceUnknown"
            | "org.freedesktop.DBus.Error.NameHasNoOwner"
            | "org.freedesktop.DBus.Error.NoReply"
            | "org.freedesktop.systemd1.NoSuchUnit"
    )
}

fn address(server: &IpAddr) -> (i32, Vec<u8>) {
    match server {
        IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
    }
}

fn failed(reason: impl ToString) -> NetError {
    NetError::Dns { manager: DnsManager::Resolved, reason: reason.to_string() }
}
