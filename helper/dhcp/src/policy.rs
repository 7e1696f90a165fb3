//! Which of a DHCP server's routes are followed.
//!
//! A server says where to send packets (options 3 and 121), and whoever can answer in its place can pull traffic out of a
//! tunnel with a route more specific than the tunnel's (TunnelVision, CVE-2024-3661). Here every route of the server leads
//! *into* the tunnel, so what it could do is the opposite: take the gateway's own address into the tunnel and so cut it, or
//! draw in networks that the profile keeps out. Both are refused.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// What the server may not widen.
#[derive(Clone, Debug, Default)]
pub struct RoutePolicy {
    /// The gateway's outer addresses in use.
    pub gateways: Vec<Ipv4Addr>,
    /// What the CHILD_SA's traffic selectors and the profile allow.
    pub allowed: Vec<Ipv4Net>,
}

/// Why a route was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It would lead the tunnel's own packets into the tunnel.
    #[error("it covers the gateway's own address {0}")]
    CoversGateway(Ipv4Addr),
    /// The profile or the traffic selectors do not allow it.
    #[error("it leaves what the profile and the gateway allow")]
    NotAllowed,
    /// It concerns the host itself or no host.
    #[error("it is no destination outside this host")]
    NoDestination,
}

impl RoutePolicy {
    /// Judges one route of the server.
    ///
    /// A default route is no danger to the gateway's address: the tunnel's own packets are exempt from the tunnel's default
    /// route by their mark, and it means "all that is allowed".
    ///
    /// # Errors
    /// Why it must not be followed.
    pub fn check(&self, route: Ipv4Net) -> Result<(), Refused> {
        let network = route.network();
        if network.is_loopback() || network.is_multicast() || network.is_link_local() {
            return Err(Refused::NoDestination);
        }
        if route.prefix_len() == 0 {
            return Ok(());
        }
        if let Some(gateway) = self.gateways.iter().find(|gateway| route.contains(*gateway)) {
            return Err(Refused::CoversGateway(*gateway));
        }
        if self.allowed.iter().any(|allowed| allowed.contains(&route)) {
            Ok(())
        } else {
            Err(Refused::NotAllowed)
        }
    }

    /// The destinations to route into the tunnel, and those that are refused. The server's default route stands for all
    /// that is allowed.
    #[must_use]
    pub fn apply(&self, destinations: &[Ipv4Net]) -> (Vec<Ipv4Net>, Vec<(Ipv4Net, Refused)>) {
        let (mut followed, mut refused) = (Vec::new(), Vec::new());
        for route in destinations {
            match self.check(*route) {
                Ok(()) if route.prefix_len() == 0 => followed.extend(&self.allowed),
                Ok(()) => followed.push(*route),
                Err(why) => refused.push((*route, why)),
            }
        }
        followed.sort_unstable();
        followed.dedup();
        (followed, refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn policy(allowed: &[&str]) -> RoutePolicy {
        let allowed = allowed.iter().map(|text| net(text)).collect();
        RoutePolicy { gateways: vec![Ipv4Addr::new(203, 0, 113, 5)], allowed }
    }

    #[test]
    fn a_route_to_the_gateway_itself_is_refused() {
        let policy = policy(&["0.0.0.0/0"]);
        let gateway = Ipv4Addr::new(203, 0, 113, 5);
        for text in ["203.0.113.5/32", "203.0.113.0/24", "128.0.0.0/1"] {
            assert_eq!(policy.check(net(text)), Err(Refused::CoversGateway(gateway)), "{text}");
        }
        assert_eq!(policy.check(net("10.0.0.0/8")), Ok(()));
    }

    #[test]
    fn a_route_beyond_the_selectors_is_refused() {
        let policy = policy(&["10.0.0.0/8"]);
        assert_eq!(policy.check(net("10.9.0.0/16")), Ok(()));
        assert_eq!(policy.check(net("192.168.0.0/16")), Err(Refused::NotAllowed));
        assert_eq!(policy.check(net("8.0.0.0/5")), Err(Refused::NotAllowed), "wider than what is allowed");
    }

    #[test]
    fn destinations_that_are_none_are_refused() {
        for text in ["127.0.0.0/8", "224.0.0.0/4", "169.254.0.0/16"] {
            assert_eq!(policy(&["0.0.0.0/0"]).check(net(text)), Err(Refused::NoDestination), "{text}");
        }
    }

    #[test]
    fn a_default_route_means_all_that_is_allowed_and_no_more() {
        let policy = policy(&["10.0.0.0/8", "172.16.0.0/12"]);
        let (followed, refused) = policy.apply(&[net("0.0.0.0/0"), net("10.0.0.0/8"), net("1.2.3.0/24")]);
        assert_eq!(followed, [net("10.0.0.0/8"), net("172.16.0.0/12")]);
        assert_eq!(refused, [(net("1.2.3.0/24"), Refused::NotAllowed)]);
    }
}
