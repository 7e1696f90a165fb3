//! Routes to other members that a routing daemon learned on the inner network (section 3.4; RFC 5565 section 4): the next
//! hop of a route is the outer address of the member behind which its network is. Whoever may announce routes there could
//! draw packets to itself, so what is taken is bounded here, without I/O.
//!
//! Only the way of packets that go into the tunnel anyway is chosen by them: no route of the system comes of it.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use ropewalk_datapath::Selector;
use ropewalk_net::NextHop;
use ropewalk_profile::MultiPointRoute;

/// No more than this many: each costs an SA's worth of memory and a place in the pump's table.
pub const MOST: usize = 1024;
/// Of those that are not used no more are told one by one.
pub const MOST_SAID: usize = 16;

/// The kernel takes no IPv4 next hop in an IPv6 route; behind this prefix it does (RFC 6052 section 2.1).
const IPV4_BEHIND: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

/// What a learned route is held against.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    /// The networks that the profile lets routes be learned in.
    pub within: &'a [IpNet],
    /// The profile's own routes.
    pub listed: &'a [MultiPointRoute],
    /// What the gateway grants.
    pub granted: &'a [Selector],
    /// Outer addresses of the gateway.
    pub gateway: &'a [IpAddr],
    /// Outer addresses of this computer.
    pub own: &'a [IpAddr],
}

/// Why a learned route is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The profile does not let it be learned.
    #[error("it is not within multi_point_sa.learn_routes of the profile")]
    NotAllowed,
    /// The gateway does not carry it, so members do not take it from each other either.
    #[error("it is not within what the gateway grants")]
    NotGranted,
    /// The profile says where that network is.
    #[error("the profile lists a route for it")]
    Listed,
    /// Packets to the gateway itself would go to a member.
    #[error("the gateway's own address is within it")]
    CoversGateway,
    /// The gateway is no member; what is behind it goes there by itself.
    #[error("its next hop is the gateway")]
    ToGateway,
    /// It leads back here.
    #[error("its next hop is this computer")]
    ToUs,
    /// No address of one host on the network outside.
    #[error("its next hop is no address of a member")]
    NoHost,
    /// There are too many.
    #[error("there are more than {MOST} of them")]
    TooMany,
}

/// Those routes that may be used, and the first of the others with what is wrong with them.
#[must_use]
pub fn judge(found: &[NextHop], bounds: Bounds<'_>) -> (Vec<MultiPointRoute>, Vec<(NextHop, Unfit)>) {
    let (mut used, mut unfit) = (Vec::new(), Vec::new());
    for hop in found {
        let why = match fits(*hop, bounds) {
            Ok(route) if used.len() < MOST => {
                used.push(route);
                continue;
            }
            Ok(_) => Unfit::TooMany,
            Err(why) => why,
        };
        if unfit.len() < MOST_SAID {
            unfit.push((*hop, why));
        }
    }
    (used, unfit)
}

fn fits(hop: NextHop, bounds: Bounds<'_>) -> Result<MultiPointRoute, Unfit> {
    let prefix = hop.prefix.trunc();
    let endpoint = endpoint(hop.via);
    if bounds.gateway.contains(&endpoint) {
        return Err(Unfit::ToGateway);
    }
    if bounds.own.contains(&endpoint) {
        return Err(Unfit::ToUs);
    }
    if !is_host(endpoint) {
        return Err(Unfit::NoHost);
    }
    if !bounds.within.iter().any(|allowed| allowed.contains(&prefix)) {
        return Err(Unfit::NotAllowed);
    }
    if bounds.listed.iter().any(|listed| listed.prefix.contains(&prefix)) {
        return Err(Unfit::Listed);
    }
    if bounds.gateway.iter().any(|gateway| prefix.contains(gateway)) {
        return Err(Unfit::CoversGateway);
    }
    let granted = |selector: &Selector| {
        let Selector { addresses, protocol, ports } = selector;
        let any = *protocol == 0 && *ports.start() == 0 && *ports.end() == u16::MAX;
        let same_family = addresses.start().is_ipv4() == prefix.addr().is_ipv4();
        any && same_family && addresses.contains(&prefix.network()) && addresses.contains(&prefix.broadcast())
    };
    if !bounds.granted.iter().any(granted) {
        return Err(Unfit::NotGranted);
    }
    Ok(MultiPointRoute { prefix, endpoint })
}

/// The member's address, out of the forms in which an IPv4 address stands in an IPv6 route.
fn endpoint(via: IpAddr) -> IpAddr {
    match via.to_canonical() {
        IpAddr::V6(v6) if v6.segments()[..6] == IPV4_BEHIND.segments()[..6] => {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::from([a, b, c, d])
        }
        other => other,
    }
}

fn is_host(address: IpAddr) -> bool {
    let anywhere = !address.is_unspecified() && !address.is_loopback() && !address.is_multicast();
    anywhere
        && match address {
            IpAddr::V4(v4) => !v4.is_broadcast() && !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: &str = "198.18.9.2";
    const US: &str = "10.80.1.2";

    fn hop(prefix: &str, via: &str) -> NextHop {
        NextHop { prefix: prefix.parse().unwrap(), via: via.parse().unwrap() }
    }

    fn judged(found: &[NextHop]) -> (Vec<MultiPointRoute>, Vec<Unfit>) {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        let granted = nets(&["10.0.0.0/8", "198.18.0.0/15", "fd30::/16"]);
        let mut granted: Vec<Selector> = granted.into_iter().map(Selector::network).collect();
        let tcp = Selector { protocol: 6, ..Selector::network("172.16.0.0/12".parse().unwrap()) };
        granted.push(tcp);
        let listed = [MultiPointRoute {
            prefix: "10.30.9.0/24".parse().unwrap(),
            endpoint: "192.0.2.9".parse().unwrap(),
        }];
        let bounds = Bounds {
            within: &nets(&["10.30.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15", "fd30::/16"]),
            listed: &listed,
            granted: &granted,
            gateway: &[GATEWAY.parse().unwrap()],
            own: &[US.parse().unwrap()],
        };
        let (used, unfit) = judge(found, bounds);
        (used, unfit.into_iter().map(|(_, why)| why).collect())
    }

    #[test]
    fn a_route_within_all_bounds_is_used_inside_and_outside_of_either_family() {
        let found = [
            hop("10.30.2.0/24", "192.0.2.2"),
            hop("10.30.3.0/24", "2001:db8::3"),
            hop("fd30:2::/48", "2001:db8::2"),
            hop("fd30:4::/48", "::ffff:192.0.2.4"),
            hop("fd30:5::/48", "64:ff9b::192.0.2.5"),
        ];
        let (used, unfit) = judged(&found);
        let endpoints: Vec<String> = used.iter().map(|route| route.endpoint.to_string()).collect();
        assert_eq!(endpoints, ["192.0.2.2", "2001:db8::3", "2001:db8::2", "192.0.2.4", "192.0.2.5"]);
        assert_eq!(unfit, []);
    }

    #[test]
    fn whatever_would_draw_more_than_was_allowed_is_not_used() {
        let cases = [
            (hop("10.31.0.0/24", "192.0.2.2"), Unfit::NotAllowed),
            (hop("10.0.0.0/8", "192.0.2.2"), Unfit::NotAllowed),
            (hop("0.0.0.0/0", "192.0.2.2"), Unfit::NotAllowed),
            (hop("192.168.1.0/24", "192.0.2.2"), Unfit::NotGranted),
            (hop("172.16.1.0/24", "192.0.2.2"), Unfit::NotGranted),
            (hop("10.30.9.0/24", "192.0.2.2"), Unfit::Listed),
            (hop("10.30.9.7/32", "192.0.2.2"), Unfit::Listed),
            (hop("198.18.0.0/16", "192.0.2.2"), Unfit::CoversGateway),
            (hop("198.18.9.2/32", "192.0.2.2"), Unfit::CoversGateway),
            (hop("10.30.2.0/24", GATEWAY), Unfit::ToGateway),
            (hop("fd30:2::/48", "::ffff:198.18.9.2"), Unfit::ToGateway),
            (hop("10.30.2.0/24", US), Unfit::ToUs),
            (hop("10.30.2.0/24", "127.0.0.1"), Unfit::NoHost),
            (hop("10.30.2.0/24", "224.0.0.5"), Unfit::NoHost),
            (hop("10.30.2.0/24", "255.255.255.255"), Unfit::NoHost),
            (hop("10.30.2.0/24", "169.254.1.1"), Unfit::NoHost),
            (hop("fd30:2::/48", "fe80::1"), Unfit::NoHost),
            (hop("fd30:2::/48", "::"), Unfit::NoHost),
        ];
        for (hop, expected) in cases {
            assert_eq!(judged(&[hop]), (Vec::new(), vec![expected]), "{hop:?}");
        }
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let found: Vec<NextHop> =
            (0..=u16::MAX).map(|n| hop(&format!("10.30.{}.{}/32", n >> 8, n & 255), "192.0.2.2")).collect();
        let (used, unfit) = judged(&found);
        assert_eq!(used.len(), MOST);
        assert_eq!(unfit, [Unfit::TooMany; MOST_SAID]);
    }

    #[test]
    fn nothing_is_learned_when_the_profile_allows_nothing() {
        let everything = Selector::everything();
        let bounds = Bounds { within: &[], listed: &[], granted: &everything, gateway: &[], own: &[] };
        let (used, unfit) = judge(&[hop("10.30.2.0/24", "192.0.2.2")], bounds);
        assert!(used.is_empty() && unfit[0].1 == Unfit::NotAllowed);
    }
}
