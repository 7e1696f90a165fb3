//! The routes with a next hop that others, such as a routing daemon, put on a tunnel's device: in any table, as the kernel
//! has them now. The tunnel's own routes have no next hop, and so are none of these.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteMessage, RouteType};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::monitor::next_hops;
use super::netlink::{Netlink, destination_of};
use crate::{NetError, NextHop};

/// A routing daemon changes many routes at once: wait this long for the next one,
const QUIET: Duration = Duration::from_millis(50);
/// but no longer than this in all.
const LONGEST: Duration = Duration::from_millis(500);

/// No more than this many are read, whatever a routing daemon does.
const MOST: usize = 65_536;

/// Watches one device's next hops until it is dropped.
#[derive(Debug)]
pub struct NextHops {
    state: watch::Receiver<Arc<Vec<NextHop>>>,
    task: JoinHandle<()>,
}

impl NextHops {
    /// Starts watching the device of this index; its routes are known when this returns.
    ///
    /// # Errors
    /// The kernel's routing interface cannot be opened or read.
    pub async fn start(device: u32) -> Result<Self, NetError> {
        let groups = [MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];
        let (connection, _, mut messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(|e| NetError::io("watching routes", e))?;
        let netlink = Netlink::open()?;
        // Subscribed before this is read, so nothing falls in between.
        let (publish, state) = watch::channel(Arc::new(read(&netlink, device).await?));
        let task = tokio::spawn(async move {
            let watching = async move {
                while let Some((message, _)) = messages.next().await {
                    if !concerns(&message, device) {
                        continue;
                    }
                    let burst = async {
                        while let Ok(Some(_)) = tokio::time::timeout(QUIET, messages.next()).await {}
                    };
                    let _ = tokio::time::timeout(LONGEST, burst).await;
                    match read(&netlink, device).await {
                        Ok(now) => {
                            publish.send_if_modified(|last| {
                                let changed = **last != now;
                                if changed {
                                    *last = Arc::new(now);
                                }
                                changed
                            });
                        }
                        Err(error) => {
                            tracing::warn!(%error, "the routes of the tunnel's device cannot be read")
                        }
                    }
                }
            };
            tokio::join!(connection, watching);
        });
        Ok(Self { state, task })
    }

    /// The next hops now, and every later state.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Vec<NextHop>>> {
        self.state.clone()
    }
}

impl Drop for NextHops {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a message may change what is known: a route of the device, or messages were lost.
fn concerns(message: &NetlinkMessage<RouteNetlinkMessage>, device: u32) -> bool {
    match &message.payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => next_hops(route).iter().any(|(index, _)| *index == device),
        NetlinkPayload::Overrun(_) => true,
        _ => false,
    }
}

/// Of several routes to one network the one that the kernel would prefer within a table.
async fn read(netlink: &Netlink, device: u32) -> Result<Vec<NextHop>, NetError> {
    let mut best: BTreeMap<IpNet, (u32, IpAddr)> = BTreeMap::new();
    for (_, route) in netlink.routes().await? {
        let Some((prefix, metric, via)) = of_device(&route, device) else { continue };
        if best.len() >= MOST && !best.contains_key(&prefix) {
            tracing::warn!(MOST, "there are more routes on the tunnel's device than are looked at");
            break;
        }
        let known = best.entry(prefix).or_insert((metric, via));
        if metric < known.0 {
            *known = (metric, via);
        }
    }
    Ok(best.into_iter().map(|(prefix, (_, via))| NextHop { prefix, via }).collect())
}

fn of_device(route: &RouteMessage, device: u32) -> Option<(IpNet, u32, IpAddr)> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let prefix = destination_of(route)?.trunc();
    let hops = next_hops(route);
    let (_, hop) = hops.iter().find(|(index, hop)| *index == device && hop.gateway.is_some())?;
    Some((prefix, hop.metric, hop.gateway?))
}
