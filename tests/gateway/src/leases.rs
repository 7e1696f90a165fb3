//! Inner addresses for clients: who has which, and who gets his old one back.
//!
//! An address stays its client's after a disconnect, by identity, so that open connections survive a reconnect. Only
//! when a pool has no fresh address left, the one unused for longest goes to somebody else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use ropewalk_ike::time::Instant;

/// Who holds an address at the moment: the caller's number for a client.
pub type Holder = u64;

#[derive(Debug)]
struct Lease {
    identity: String,
    holder: Option<Holder>,
    used: Instant,
}

/// The addresses of all pools.
#[derive(Debug)]
pub struct Leases {
    pools: Vec<IpNet>,
    reserved: BTreeSet<IpAddr>,
    leases: BTreeMap<IpAddr, Lease>,
    /// With it a client's address moves to its newest IKE_SA.
    take_over: bool,
}

/// Who asks for an address.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Its proven identity.
    pub identity: &'a str,
    /// Its number.
    pub holder: Holder,
    /// The time.
    pub now: Instant,
}

impl Leases {
    /// Nobody has anything. `take_over`: a client's address moves to its newest IKE_SA at once.
    #[must_use]
    pub fn new(pools: &[IpNet], take_over: bool) -> Self {
        let mut reserved = BTreeSet::new();
        for pool in pools {
            reserved.insert(pool.network());
            reserved.extend(gateway_address(pool));
            if pool.addr().is_ipv4() {
                reserved.insert(pool.broadcast());
            }
        }
        Self { pools: pools.to_vec(), reserved, leases: BTreeMap::new(), take_over }
    }

    /// An address of the family of IPv4 or IPv6 for this client: the one it asks for if that is free or its own, else the
    /// one it had, else a fresh one, else the one unused for longest. `None` when all are in use.
    pub fn acquire(&mut self, asker: Asker<'_>, ipv4: bool, wanted: Option<IpAddr>) -> Option<IpAddr> {
        let address = wanted
            .filter(|address| address.is_ipv4() == ipv4 && self.may_have(asker, *address))
            .or_else(|| self.had(asker, ipv4))
            .or_else(|| self.fresh(ipv4))
            .or_else(|| self.longest_unused(ipv4))?;
        let identity = asker.identity.to_owned();
        self.leases.insert(address, Lease { identity, holder: Some(asker.holder), used: asker.now });
        Some(address)
    }

    /// An address beside those that this client has, for a further IKE_SA of its: the one that this IKE_SA holds already, else
    /// the one it asks for, else one that the client had, else another one; never one that is held.
    pub fn acquire_further(
        &mut self,
        asker: Asker<'_>,
        ipv4: bool,
        wanted: Option<IpAddr>,
    ) -> Option<IpAddr> {
        let free = |address: &IpAddr| self.leases.get(address).is_none_or(|lease| lease.holder.is_none());
        let own = |(address, lease): (&IpAddr, &Lease)| {
            (address.is_ipv4() == ipv4 && lease.holder == Some(asker.holder)).then_some(*address)
        };
        let had = |(address, lease): (&IpAddr, &Lease)| {
            let unused = lease.identity == asker.identity && lease.holder.is_none();
            (address.is_ipv4() == ipv4 && unused).then_some(*address)
        };
        let wanted = wanted
            .filter(|address| address.is_ipv4() == ipv4 && free(address) && self.may_have(asker, *address));
        let address = self
            .leases
            .iter()
            .find_map(own)
            .or(wanted)
            .or_else(|| self.leases.iter().find_map(had))
            .or_else(|| self.fresh(ipv4))
            .or_else(|| self.longest_unused(ipv4))?;
        let identity = asker.identity.to_owned();
        self.leases.insert(address, Lease { identity, holder: Some(asker.holder), used: asker.now });
        Some(address)
    }

    /// What is held by this number.
    #[must_use]
    pub fn held(&self, holder: Holder) -> Vec<IpAddr> {
        let held = self.leases.iter().filter(|(_, lease)| lease.holder == Some(holder));
        held.map(|(address, _)| *address).collect()
    }

    /// Somebody else gave this address to a client: a DHCP server.
    pub fn note(&mut self, identity: &str, holder: Holder, address: IpAddr, now: Instant) {
        for lease in self.leases.values_mut().filter(|lease| lease.holder == Some(holder)) {
            lease.holder = None;
        }
        let identity = identity.to_owned();
        self.leases.insert(address, Lease { identity, holder: Some(holder), used: now });
    }

    /// Whether a client of this identity has this address now.
    #[must_use]
    pub fn has(&self, identity: &str, address: IpAddr) -> bool {
        self.leases.get(&address).is_some_and(|lease| lease.identity == identity && lease.holder.is_some())
    }

    /// Gives back what this client holds; it stays reserved for its identity.
    pub fn release(&mut self, holder: Holder, now: Instant) {
        for lease in self.leases.values_mut().filter(|lease| lease.holder == Some(holder)) {
            lease.holder = None;
            lease.used = now;
        }
    }

    fn may_have(&self, asker: Asker<'_>, address: IpAddr) -> bool {
        let in_pool = self.pools.iter().any(|pool| pool.contains(&address));
        let free = match self.leases.get(&address) {
            None => true,
            Some(lease) => self.is_open_to(asker, lease),
        };
        in_pool && free && !self.reserved.contains(&address)
    }

    fn is_open_to(&self, asker: Asker<'_>, lease: &Lease) -> bool {
        lease.identity == asker.identity && (lease.holder.is_none() || self.take_over)
    }

    fn had(&self, asker: Asker<'_>, ipv4: bool) -> Option<IpAddr> {
        let mut leases = self.leases.iter().filter(|(address, _)| address.is_ipv4() == ipv4);
        leases.find(|(_, lease)| self.is_open_to(asker, lease)).map(|(address, _)| *address)
    }

    fn fresh(&self, ipv4: bool) -> Option<IpAddr> {
        let pools = self.pools.iter().filter(|pool| pool.addr().is_ipv4() == ipv4);
        // At most as many candidates are passed over as there are leases and reserved addresses.
        pools
            .flat_map(pool_addresses)
            .find(|address| !self.leases.contains_key(address) && !self.reserved.contains(address))
    }

    fn longest_unused(&self, ipv4: bool) -> Option<IpAddr> {
        let unused =
            self.leases.iter().filter(|(address, lease)| address.is_ipv4() == ipv4 && lease.holder.is_none());
        unused.min_by_key(|(_, lease)| lease.used).map(|(address, _)| *address)
    }
}

/// The gateway's own address in a pool: the first host; none in a pool of one address.
#[must_use]
pub fn gateway_address(pool: &IpNet) -> Option<IpAddr> {
    if pool.prefix_len() == pool.max_prefix_len() { None } else { pool_addresses(pool).nth(1) }
}

fn pool_addresses(pool: &IpNet) -> Box<dyn Iterator<Item = IpAddr>> {
    match pool {
        IpNet::V4(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            Box::new((first..=last).map(|bits| IpAddr::V4(bits.into())))
        }
        IpNet::V6(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            Box::new((first..=last).map(|bits| IpAddr::V6(bits.into())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(identity: &str, holder: Holder) -> Asker<'_> {
        Asker { identity, holder, now: Instant::ZERO }
    }

    fn pools(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|pool| pool.parse().unwrap()).collect()
    }

    #[test]
    fn a_client_gets_its_address_back_and_others_do_not() {
        let mut leases = Leases::new(&pools(&["10.9.0.0/29", "fd09::/64"]), false);
        let first = leases.acquire(asker("a", 1), true, None).unwrap();
        assert_eq!(first.to_string(), "10.9.0.2");
        assert_eq!(leases.acquire(asker("a", 1), false, None).unwrap().to_string(), "fd09::2");
        leases.release(1, Instant::ZERO);
        assert_eq!(leases.acquire(asker("b", 2), true, Some(first)).unwrap().to_string(), "10.9.0.3");
        assert_eq!(leases.acquire(asker("a", 3), true, None), Some(first));
        assert_eq!(leases.acquire(asker("a", 4), true, Some(first)).unwrap().to_string(), "10.9.0.4");
    }

    #[test]
    fn after_a_restart_a_client_gets_the_address_it_asks_for() {
        let mut leases = Leases::new(&pools(&["10.9.0.0/24"]), false);
        let wanted: IpAddr = "10.9.0.77".parse().unwrap();
        assert_eq!(leases.acquire(asker("a", 1), true, Some(wanted)), Some(wanted));
        for refused in ["10.9.0.0", "10.9.0.1", "10.9.0.255", "10.8.0.5", "fd09::5"] {
            let given = leases.acquire(asker(refused, 2), true, Some(refused.parse().unwrap())).unwrap();
            assert_ne!(given.to_string(), refused);
        }
    }

    #[test]
    fn the_longest_unused_address_goes_first_and_then_there_is_none() {
        let mut leases = Leases::new(&pools(&["10.9.0.0/30"]), false);
        let only = leases.acquire(asker("a", 1), true, None).unwrap();
        assert_eq!(leases.acquire(asker("b", 2), true, None), None);
        leases.release(1, Instant::ZERO);
        assert_eq!(leases.acquire(asker("b", 2), true, None), Some(only));
        assert_eq!(leases.acquire(asker("a", 3), true, None), None);
    }

    #[test]
    fn a_further_address_is_one_that_nobody_has_and_the_same_when_asked_again() {
        for take_over in [false, true] {
            let mut leases = Leases::new(&pools(&["10.9.0.0/29"]), take_over);
            let first = leases.acquire(asker("a", 1), true, None);
            let further = leases.acquire_further(asker("a", 100), true, first);
            assert_eq!(further.unwrap().to_string(), "10.9.0.3", "not its own first one");
            assert_eq!(leases.acquire_further(asker("a", 100), true, None), further);
            assert_eq!(leases.held(100), further.into_iter().collect::<Vec<_>>());
            let third = leases.acquire_further(asker("a", 101), true, None);
            leases.release(100, Instant::ZERO);
            leases.release(101, Instant::ZERO);
            // Each gets its own back that asks for it.
            assert_eq!(leases.acquire_further(asker("a", 102), true, third), third);
            assert_eq!(leases.acquire_further(asker("a", 103), true, None), further);
            let last: Vec<_> =
                (0..3).map(|n| leases.acquire_further(asker("a", 200 + n), true, None)).collect();
            assert_eq!(last.iter().flatten().count(), 2, "the pool has no more: {last:?}");
        }
    }

    #[test]
    fn with_take_over_the_newest_connection_holds_the_address() {
        let mut leases = Leases::new(&pools(&["10.9.0.0/24"]), true);
        let first = leases.acquire(asker("a", 1), true, None);
        assert_eq!(leases.acquire(asker("a", 2), true, None), first);
        leases.release(1, Instant::ZERO);
        assert_ne!(leases.acquire(asker("b", 3), true, first), first);
    }
}
