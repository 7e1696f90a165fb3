//! The networks that lead outside, as the session and the status want them: one entry an interface.

use std::collections::BTreeSet;

use ropewalk_net::{Candidate, InterfaceKind};
use ropewalk_session::Uplink;

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
