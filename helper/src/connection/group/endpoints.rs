//! Which endpoints of the group are sent to directly, and which through the gateway, without I/O.
//!
//! The draft has no way to ask an endpoint whether it can be reached: what is known is what comes from it. So an endpoint is
//! sent to directly until what was sent to it stays without anything from it for [`PATIENCE`]; then its networks are reached
//! through the gateway for a while, and tried again, each time later. Whatever comes from it ends the detour. Who is only
//! sent to and never answers is reached, in turn, directly and through the gateway.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use ropewalk_ike::time::Instant;
use ropewalk_profile::MultiPointRoute;

/// How long packets may leave for an endpoint while nothing comes from it.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// What comes from an endpoint is told of a few times a second only: so much later it may have come.
const HEARSAY: Duration = Duration::from_millis(300);
/// The first detour, and the longest: each is twice as long as the one before.
const DETOUR: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(960));

/// One endpoint and the networks behind it.
#[derive(Debug)]
pub struct Endpoint {
    /// Its outer address.
    pub address: IpAddr,
    /// Its networks.
    pub networks: Vec<IpNet>,
    /// The first packet since something came from it.
    unanswered: Option<Instant>,
    heard: Option<Instant>,
    detour_until: Option<Instant>,
    /// How long the next detour is.
    next_detour: Duration,
}

impl Endpoint {
    /// Whether anything came from it since it was last given up, or since the last move.
    #[must_use]
    pub fn was_heard(&self) -> bool {
        self.heard.is_some()
    }

    /// Whether it is sent to directly.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.detour_until.is_none()
    }
}

/// All endpoints that there are routes to.
#[derive(Debug, Default)]
pub struct Endpoints {
    all: Vec<Endpoint>,
}

impl Endpoints {
    /// From now on there are those behind these routes. What is known of one that stays is kept.
    pub fn set(&mut self, routes: &[MultiPointRoute]) {
        let mut networks: BTreeMap<IpAddr, Vec<IpNet>> = BTreeMap::new();
        for route in routes {
            networks.entry(route.endpoint).or_default().push(route.prefix);
        }
        self.all.retain(|endpoint| networks.contains_key(&endpoint.address));
        for endpoint in &mut self.all {
            endpoint.networks = networks.remove(&endpoint.address).unwrap_or_default();
        }
        self.all.extend(networks.into_iter().map(|(address, networks)| Endpoint {
            address,
            networks,
            unanswered: None,
            heard: None,
            detour_until: None,
            next_detour: DETOUR.0,
        }));
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Endpoint] {
        &self.all
    }

    /// The last packet for an endpoint left then.
    pub fn sent(&mut self, at: Instant, address: IpAddr) {
        if let Some(endpoint) = self.find(address)
            && endpoint.is_direct()
            && endpoint.heard.is_none_or(|heard| at > heard + HEARSAY)
        {
            endpoint.unanswered.get_or_insert(at);
        }
    }

    /// An authentic packet came from an endpoint, from the port that it is sent to at. Whether it is on the direct way again.
    pub fn heard(&mut self, now: Instant, address: IpAddr) -> bool {
        let Some(endpoint) = self.find(address) else { return false };
        (endpoint.unanswered, endpoint.heard, endpoint.next_detour) = (None, Some(now), DETOUR.0);
        let back = endpoint.detour_until.take().is_some();
        if back {
            tracing::info!(%address, "an endpoint of the group answers again");
        }
        back
    }

    /// The system says that an endpoint cannot be reached. Whether it is not sent to directly any more.
    pub fn refused(&mut self, now: Instant, address: IpAddr) -> bool {
        match self.find(address).filter(|endpoint| endpoint.is_direct()) {
            Some(endpoint) => {
                go_round(now, endpoint);
                true
            }
            None => false,
        }
    }

    /// Nothing is known of any of them, as after a move of our own.
    pub fn forget(&mut self) {
        for endpoint in &mut self.all {
            (endpoint.unanswered, endpoint.heard, endpoint.detour_until) = (None, None, None);
            endpoint.next_detour = DETOUR.0;
        }
    }

    /// Acts on the clock. Whether the way to one of them changed.
    pub fn tick(&mut self, now: Instant) -> bool {
        let mut changed = false;
        for endpoint in &mut self.all {
            if endpoint.detour_until.take_if(|until| *until <= now).is_some() {
                changed = true;
            }
            if endpoint.unanswered.is_some_and(|since| now >= since + PATIENCE) {
                go_round(now, endpoint);
                changed = true;
            }
        }
        changed
    }

    fn find(&mut self, address: IpAddr) -> Option<&mut Endpoint> {
        self.all.iter_mut().find(|endpoint| endpoint.address == address)
    }
}

fn go_round(now: Instant, endpoint: &mut Endpoint) {
    let detour = endpoint.next_detour;
    tracing::info!(
        address = %endpoint.address,
        seconds = detour.as_secs(),
        "an endpoint of the group cannot be reached directly and is reached through the gateway"
    );
    (endpoint.unanswered, endpoint.heard) = (None, None);
    endpoint.detour_until = Some(now + detour);
    endpoint.next_detour = (detour * 2).min(DETOUR.1);
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    const SECOND: Duration = Duration::from_secs(1);

    fn one() -> (Endpoints, Instant) {
        let route = |prefix: &str| MultiPointRoute { prefix: prefix.parse().unwrap(), endpoint: B };
        let mut endpoints = Endpoints::default();
        endpoints.set(&[route("10.30.2.0/24"), route("fd30:2::/48")]);
        (endpoints, Instant::from_start(100 * SECOND))
    }

    fn is_direct(endpoints: &Endpoints) -> bool {
        endpoints.all()[0].is_direct()
    }

    #[test]
    fn networks_of_one_endpoint_go_together() {
        let (endpoints, _) = one();
        assert_eq!(endpoints.all().len(), 1);
        assert_eq!(endpoints.all()[0].networks.len(), 2);
    }

    #[test]
    fn routes_that_come_and_go_change_nothing_for_an_endpoint_that_stays() {
        let (mut endpoints, now) = one();
        endpoints.sent(now, B);
        assert!(endpoints.tick(now + PATIENCE));
        let route = |prefix: &str, endpoint| MultiPointRoute { prefix: prefix.parse().unwrap(), endpoint };
        let other = "2001:db8::3".parse().unwrap();
        endpoints.set(&[route("10.30.4.0/24", B), route("10.30.3.0/24", other)]);
        let shown: Vec<_> = endpoints
            .all()
            .iter()
            .map(|one| (one.address, one.networks[0].to_string(), one.is_direct()))
            .collect();
        assert_eq!(shown, [(B, "10.30.4.0/24".into(), false), (other, "10.30.3.0/24".into(), true)]);
        endpoints.set(&[]);
        assert!(endpoints.all().is_empty());
    }

    #[test]
    fn silence_to_what_is_sent_leads_through_the_gateway_and_silence_alone_does_not() {
        let (mut endpoints, now) = one();
        assert!(!endpoints.tick(now + 3600 * SECOND));
        endpoints.sent(now, B);
        assert!(!endpoints.tick(now + PATIENCE / 2));
        endpoints.sent(now + PATIENCE / 2, B);
        assert!(endpoints.tick(now + PATIENCE));
        assert!(!is_direct(&endpoints));
    }

    #[test]
    fn who_answers_is_kept() {
        let (mut endpoints, mut now) = one();
        for _ in 0..100 {
            endpoints.sent(now, B);
            assert!(!endpoints.heard(now, B));
            now = now + PATIENCE;
            assert!(!endpoints.tick(now));
        }
    }

    #[test]
    fn the_last_packets_of_a_conversation_are_not_taken_for_unanswered() {
        let (mut endpoints, now) = one();
        endpoints.heard(now, B);
        // The answer to this one was not told of, for there was one just before.
        endpoints.sent(now + HEARSAY / 2, B);
        assert!(!endpoints.tick(now + 10 * PATIENCE));
        endpoints.sent(now + 2 * HEARSAY, B);
        assert!(endpoints.tick(now + 10 * PATIENCE));
    }

    #[test]
    fn detours_grow_and_end_with_the_first_packet() {
        let (mut endpoints, mut now) = one();
        for expected in [60, 120, 240, 480, 960, 960] {
            endpoints.sent(now, B);
            now = now + PATIENCE;
            assert!(endpoints.tick(now));
            now = now + (expected - 1) * SECOND;
            assert!(!endpoints.tick(now) && !is_direct(&endpoints), "{expected}");
            now = now + SECOND;
            assert!(endpoints.tick(now) && is_direct(&endpoints), "{expected}");
        }
        endpoints.sent(now, B);
        assert!(endpoints.tick(now + PATIENCE));
        assert!(endpoints.heard(now + PATIENCE, B));
        assert!(is_direct(&endpoints));
        let now = now + 2 * PATIENCE;
        endpoints.sent(now, B);
        assert!(endpoints.tick(now + PATIENCE));
        assert!(endpoints.tick(now + PATIENCE + DETOUR.0), "as short as the first one again");
    }

    #[test]
    fn an_error_counts_at_once_and_only_for_whom_it_concerns() {
        let (mut endpoints, now) = one();
        assert!(!endpoints.refused(now, "192.0.2.3".parse().unwrap()));
        assert!(endpoints.refused(now, B));
        assert!(!endpoints.refused(now, B));
        endpoints.forget();
        assert!(is_direct(&endpoints));
    }
}
