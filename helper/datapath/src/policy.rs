//! Which inner packets an SA may carry: the traffic selectors, as far as the receiving side checks them (RFC 4301 5.2,
//! RFC 3948 3.1.1: the *inner* source address is what must fit, not the outer one).

use std::net::IpAddr;
use std::ops::RangeInclusive;

/// One traffic selector (RFC 7296 3.13.1): addresses of one family, a protocol, ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// First to last address, of one family.
    pub addresses: RangeInclusive<IpAddr>,
    /// IP protocol; 0 is any.
    pub protocol: u8,
    /// First to last port; `0..=65535` is any. Looked at for TCP, UDP and SCTP.
    pub ports: RangeInclusive<u16>,
}

impl Selector {
    /// Any protocol and port from these addresses.
    #[must_use]
    pub const fn addresses(first: IpAddr, last: IpAddr) -> Self {
        Self { addresses: first..=last, protocol: 0, ports: 0..=u16::MAX }
    }

    /// Any protocol and port of one address.
    #[must_use]
    pub const fn host(address: IpAddr) -> Self {
        Self::addresses(address, address)
    }

    /// Any protocol and port of a network.
    #[must_use]
    pub fn network(network: ipnet::IpNet) -> Self {
        Self::addresses(network.network(), network.broadcast())
    }

    /// All of IPv4 and all of IPv6.
    #[must_use]
    pub fn everything() -> Vec<Self> {
        use std::net::{Ipv4Addr, Ipv6Addr};
        vec![
            Self::addresses(IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::BROADCAST)),
            Self::addresses(IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::from_bits(u128::MAX))),
        ]
    }

    /// Whether one end of a packet fits. `port` is `None` when the packet shows none (a later fragment, or a protocol
    /// without): then only a selector for any port takes it.
    #[must_use]
    pub fn matches(&self, address: IpAddr, protocol: u8, port: Option<u16>) -> bool {
        let same_family = address.is_ipv4() == self.addresses.start().is_ipv4();
        let any_port = *self.ports.start() == 0 && *self.ports.end() == u16::MAX;
        same_family
            && self.addresses.contains(&address)
            && (self.protocol == 0 || self.protocol == protocol)
            && (any_port || port.is_some_and(|port| self.ports.contains(&port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_takes_what_lies_in_all_its_ranges() {
        let selector = Selector {
            addresses: "10.1.0.0".parse().unwrap()..="10.1.0.255".parse().unwrap(),
            protocol: 17,
            ports: 67..=68,
        };
        let matches = |a: &str, p, port| selector.matches(a.parse().unwrap(), p, port);
        assert!(matches("10.1.0.7", 17, Some(67)));
        assert!(!matches("10.1.1.7", 17, Some(67)));
        assert!(!matches("10.1.0.7", 6, Some(67)));
        assert!(!matches("10.1.0.7", 17, Some(53)));
        assert!(!matches("10.1.0.7", 17, None));
        assert!(!matches("::a01:7", 17, Some(67)));
    }

    #[test]
    fn everything_takes_both_families_and_packets_without_ports() {
        let all = Selector::everything();
        for address in ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            assert!(all.iter().any(|s| s.matches(address.parse().unwrap(), 1, None)), "{address}");
        }
    }
}
