//! What a DHCP server granted.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// A lease time that never ends, on the wire and here.
pub const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// The options of a DHCPACK that configure the interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The prefix length that the subnet mask says; 32 without one.
    pub prefix_len: u8,
    /// Option 3.
    pub routers: Vec<Ipv4Addr>,
    /// Option 6.
    pub dns_servers: Vec<Ipv4Addr>,
    /// Option 15, without a final dot.
    pub domain: Option<String>,
    /// Option 119, without final dots.
    pub search: Vec<String>,
    /// Option 26.
    pub mtu: Option<u16>,
    /// Option 42.
    pub ntp_servers: Vec<Ipv4Addr>,
    /// Option 44.
    pub wins_servers: Vec<Ipv4Addr>,
    /// Option 121: destination and next hop. When it is there, option 3 does not count (RFC 3442).
    pub routes: Option<Vec<(Ipv4Net, Ipv4Addr)>>,
}

impl Settings {
    /// The destinations that the server wants routed here.
    #[must_use]
    pub fn destinations(&self) -> Vec<Ipv4Net> {
        match &self.routes {
            Some(routes) => routes.iter().map(|(destination, _)| *destination).collect(),
            None if self.routers.is_empty() => Vec::new(),
            None => vec![Ipv4Net::default()],
        }
    }
}

/// An address on loan, with what came with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The server that lent it.
    pub server: Ipv4Addr,
    /// For how long.
    pub duration: Duration,
    /// When to ask the server for more (T1), from the start.
    pub renew_after: Duration,
    /// When to ask any server for more (T2), from the start.
    pub rebind_after: Duration,
    /// The rest of the configuration.
    pub settings: Settings,
}

impl Lease {
    /// A lease with the server's times, where these make sense: T1 < T2 < the end, else half and seven eighths of it.
    #[must_use]
    pub fn new(
        address: Ipv4Addr,
        server: Ipv4Addr,
        (duration, renewal, rebinding): (Duration, Option<Duration>, Option<Duration>),
        settings: Settings,
    ) -> Self {
        let rebind_after =
            rebinding.filter(|rebinding| *rebinding < duration).unwrap_or(duration.mul_f64(0.875));
        let renew_after = renewal
            .filter(|renewal| *renewal < rebind_after)
            .unwrap_or(duration.mul_f64(0.5))
            .min(rebind_after);
        Self { address, server, duration, renew_after, rebind_after, settings }
    }

    /// Whether it never ends.
    #[must_use]
    pub fn is_forever(&self) -> bool {
        self.duration == FOREVER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn times(duration: u64, renewal: Option<u64>, rebinding: Option<u64>) -> (u64, u64) {
        let of = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        let all = (Duration::from_secs(duration), of(renewal), of(rebinding));
        let lease = Lease::new(ADDRESS, SERVER, all, Settings::default());
        (lease.renew_after.as_secs(), lease.rebind_after.as_secs())
    }

    #[test]
    fn times_are_the_servers_where_they_make_sense() {
        assert_eq!(times(800, None, None), (400, 700));
        assert_eq!(times(800, Some(100), Some(200)), (100, 200));
        assert_eq!(times(800, Some(300), Some(200)), (200, 200));
        assert_eq!(times(800, Some(900), Some(900)), (400, 700));
    }

    #[test]
    fn classless_routes_replace_the_router() {
        let routers = vec![SERVER];
        let all = Settings { routers: routers.clone(), ..Settings::default() };
        assert_eq!(all.destinations(), [Ipv4Net::default()]);
        let lan: Ipv4Net = "10.1.0.0/16".parse().unwrap();
        let some = Settings { routers, routes: Some(vec![(lan, SERVER)]), ..Settings::default() };
        assert_eq!(some.destinations(), [lan]);
        assert!(Settings::default().destinations().is_empty());
    }

    #[test]
    fn a_lease_survives_its_file() {
        let settings =
            Settings { domain: Some("example.com".into()), mtu: Some(1300), ..Settings::default() };
        let lease = Lease::new(ADDRESS, SERVER, (FOREVER, None, None), settings);
        let text = serde_json::to_string(&lease).unwrap();
        assert_eq!(serde_json::from_str::<Lease>(&text).unwrap(), lease);
        assert!(lease.is_forever());
    }
}
