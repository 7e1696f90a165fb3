//! The networks that lead outside, as the session and the status want them: one entry an interface.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ropewalk_net::{Candidate, InterfaceKind};
use ropewalk_session::Uplink;

use super::links::Way;
use super::{Connection, Done};
use crate::clock;

/// Whether the use of an interface costs is asked for this often while there are several: the user may say otherwise at any
/// time, and nothing else changes then.
const ASK_WHAT_COSTS: Duration = Duration::from_secs(10);

/// An interface that leads outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The kernel's number of it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: InterfaceKind,
    /// Its use costs.
    pub metered: bool,
    ipv4: bool,
    ipv6: bool,
}

impl Network {
    /// As the session wants it.
    #[must_use]
    pub fn uplink(&self) -> Uplink {
        Uplink {
            interface: self.index,
            name: self.name.clone(),
            metered: self.metered,
            ipv4: self.ipv4,
            ipv6: self.ipv6,
        }
    }
}

/// The interfaces behind these ways out, in their order.
#[must_use]
pub fn of(candidates: &[Candidate], metered: &BTreeSet<String>) -> Vec<Network> {
    let mut networks: Vec<Network> = Vec::new();
    for candidate in candidates {
        let at = networks.iter().position(|network| network.index == candidate.index);
        let at = at.unwrap_or_else(|| {
            networks.push(Network {
                index: candidate.index,
                name: candidate.interface.clone(),
                kind: candidate.kind,
                metered: metered.contains(&candidate.interface),
                ipv4: false,
                ipv6: false,
            });
            networks.len() - 1
        });
        if let Some(network) = networks.get_mut(at) {
            network.ipv4 |= candidate.address.is_ipv4();
            network.ipv6 |= candidate.address.is_ipv6();
        }
    }
    networks
}

impl Connection {
    /// Tells the session what the system's networks mean for its path.
    pub(super) async fn network_changed(&mut self) {
        let snapshot = self.platform.monitor.snapshot();
        let way = self.tunnel.links().way(&self.platform).await;
        let now = clock::now();
        let candidates = snapshot.candidates();
        if self.candidates != candidates {
            // Another network may have other reasons for a gateway's silence.
            self.finding = None;
            self.tried = self.tried.map(|(address, _)| (address, now));
            self.candidates.clone_from(&candidates);
        }
        self.tell_uplinks();
        let mut lost = self.tunnel.links().lost(&snapshot);
        if way == Way::None {
            lost.extend(self.tunnel.links().current().map(|link| link.id));
        }
        // Before what is lost: whoever loses a path asks for another one only where there is a network.
        let online = way == Way::Other || !candidates.is_empty();
        self.session.network_changed(now, online);
        for link in lost {
            self.session.path_lost(now, link, &mut self.rng);
        }
        if way == Way::Other {
            self.session.way_changed();
        }
    }

    /// Tells the session of the interfaces that lead outside.
    pub(super) fn tell_uplinks(&mut self) {
        self.hand_over_uplinks();
        self.ask_what_costs();
    }

    fn hand_over_uplinks(&mut self) {
        self.changed = true;
        let candidates = self.platform.monitor.snapshot().candidates();
        self.networks = of(&candidates, &self.metered);
        let uplinks = self.networks.iter().map(Network::uplink).collect();
        self.session.uplinks_changed(clock::now(), uplinks, &mut self.rng);
    }

    /// Which of the interfaces are metered. What they were counts until there is an answer: nothing waits for it.
    pub(super) fn ask_what_costs(&mut self) {
        let names: Vec<String> = self.networks.iter().map(|network| network.name.clone()).collect();
        self.ask_what_costs_at = clock::now() + ASK_WHAT_COSTS;
        let (platform, done) = (Arc::clone(&self.platform), self.done.clone());
        tokio::spawn(async move {
            let metered = platform.network.metered(&names).await;
            // A loop that ended meanwhile needs no answer.
            let _ = done.send(Done::Metered(metered.into_iter().collect()));
        });
    }

    pub(super) fn metered(&mut self, metered: BTreeSet<String>) {
        if self.metered == metered {
            return;
        }
        tracing::info!(?metered, "metered interfaces");
        self.metered = metered;
        self.hand_over_uplinks();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ropewalk_net::Family;

    #[test]
    fn an_interface_with_both_families_is_one_network_and_keeps_its_place() {
        let candidate = |interface: &str, index, address: &str, family| Candidate {
            interface: interface.to_owned(),
            index,
            kind: InterfaceKind::Wifi,
            family,
            address: address.parse().unwrap(),
            metric: 100,
        };
        let candidates = [
            candidate("wlan0", 3, "192.0.2.7", Family::V4),
            candidate("wwan0", 5, "198.51.100.7", Family::V4),
            candidate("wlan0", 3, "2001:db8::7", Family::V6),
        ];
        let metered = BTreeSet::from(["wwan0".to_owned()]);
        let uplinks: Vec<Uplink> = of(&candidates, &metered).iter().map(Network::uplink).collect();
        let told = |uplink: &Uplink| (uplink.interface, uplink.metered, uplink.ipv4, uplink.ipv6);
        assert_eq!(
            uplinks.iter().map(told).collect::<Vec<_>>(),
            [(3, false, true, true), (5, true, true, false)]
        );
    }
}
