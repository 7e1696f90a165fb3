//! Datagrams in flight: some are lost, some doubled, some overtaken; and a NAT in front of the client.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::Rng;
use ring::digest;
use ropewalk_ike::time::Instant;

/// What the network does to datagrams, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Lost.
    pub loss: u32,
    /// Delivered twice.
    pub duplicate: u32,
    /// Held up long enough to be overtaken.
    pub reorder: u32,
}

impl Faults {
    /// A mixture that depends on the seed: up to 30 % loss, 20 % duplication, 30 % reordering.
    #[must_use]
    pub fn of_seed(rng: &mut ChaCha20Rng) -> Self {
        Self { loss: below(rng, 300), duplicate: below(rng, 200), reorder: below(rng, 300) }
    }
}

/// What is wrong with one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WayFaults {
    /// Nothing arrives.
    pub dark: bool,
    /// Lost, in thousandths.
    pub loss: u32,
    /// It takes so much longer, in milliseconds.
    pub delay: u32,
}

/// A datagram on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Whence, as the receiver sees it.
    pub source: SocketAddr,
    /// Whither, as the sender means it.
    pub destination: SocketAddr,
    /// What.
    pub bytes: Vec<u8>,
}

/// The address behind which the NAT hides the client.
const NAT_ADDRESS: [u8; 4] = [198, 51, 100, 1];

/// The network between the two ends.
pub struct Network {
    /// What goes wrong at the moment.
    pub faults: Faults,
    /// Nothing arrives at all.
    pub cut: bool,
    /// What goes wrong between one of the client's addresses and one of the gateway's, besides.
    pub ways: BTreeMap<(IpAddr, IpAddr), WayFaults>,
    /// Datagrams with more octets than this do not arrive.
    pub largest: Option<usize>,
    /// The same for what the client sends.
    pub largest_from_client: Option<usize>,
    in_flight: BTreeMap<(Instant, u64), Datagram>,
    sequence: u64,
    datagrams: u64,
    last: Option<Datagram>,
    recorded: Option<Vec<Datagram>>,
    digest: digest::Context,
    /// With a NAT: the client's own address to the public one.
    nat: Option<BTreeMap<SocketAddr, SocketAddr>>,
    next_port: u16,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("faults", &self.faults).finish_non_exhaustive()
    }
}

impl Network {
    /// A network, with a NAT or without.
    #[must_use]
    pub fn new(faults: Faults, nat: bool) -> Self {
        Self {
            faults,
            cut: false,
            ways: BTreeMap::new(),
            largest: None,
            largest_from_client: None,
            in_flight: BTreeMap::new(),
            sequence: 0,
            datagrams: 0,
            last: None,
            recorded: None,
            digest: digest::Context::new(&digest::SHA256),
            nat: nat.then(BTreeMap::new),
            next_port: 40_000,
        }
    }

    /// How many datagrams were sent so far.
    #[must_use]
    pub fn datagrams(&self) -> u64 {
        self.datagrams
    }

    /// The datagram sent last.
    #[must_use]
    pub fn last_sent(&self) -> Option<&Datagram> {
        self.last.as_ref()
    }

    /// From now on all datagrams are kept.
    pub fn record(&mut self) {
        self.recorded = Some(Vec::new());
    }

    /// The datagrams sent since [`Self::record`].
    #[must_use]
    pub fn recorded(&self) -> &[Datagram] {
        self.recorded.as_deref().unwrap_or_default()
    }

    /// A hash over the times, addresses and bytes of all datagrams sent so far.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.digest.clone().finish().as_ref());
        out
    }

    /// The NAT forgets its mappings: the client appears under other ports from now on, and what is sent to the old ones
    /// is lost.
    pub fn rebind(&mut self) {
        if let Some(mappings) = &mut self.nat {
            mappings.clear();
        }
    }

    /// From now on the client is behind a NAT, or not any more.
    pub fn set_nat(&mut self, nat: bool) {
        self.nat = nat.then(BTreeMap::new);
    }

    /// Whether what is sent to `outside` arrives at the client's `own` address.
    #[must_use]
    pub fn leads_to(&self, outside: SocketAddr, own: SocketAddr) -> bool {
        match &self.nat {
            Some(mappings) if own.is_ipv4() => mappings.get(&own) == Some(&outside),
            Some(_) | None => outside == own,
        }
    }

    /// What is wrong between these two, whichever sends.
    #[must_use]
    pub fn way(&self, one: IpAddr, other: IpAddr) -> WayFaults {
        let found = self.ways.get(&(one, other)).or_else(|| self.ways.get(&(other, one)));
        found.copied().unwrap_or_default()
    }

    /// The client's own address behind an address outside.
    #[must_use]
    pub fn own_address(&self, outside: SocketAddr) -> SocketAddr {
        let mappings = self.nat.iter().flatten();
        let own = mappings.filter(|(_, public)| **public == outside).map(|(own, _)| *own).next();
        own.unwrap_or(outside)
    }

    /// Sends a datagram from the client's side.
    pub fn send_from_client(&mut self, now: Instant, mut datagram: Datagram, rng: &mut ChaCha20Rng) {
        if self.largest_from_client.is_some_and(|largest| datagram.bytes.len() > largest) {
            return;
        }
        if let Some(mappings) = self.nat.as_mut().filter(|_| datagram.source.is_ipv4()) {
            let next = self.next_port;
            let public = mappings.entry(datagram.source).or_insert_with(|| (NAT_ADDRESS, next).into());
            if public.port() == next {
                self.next_port += 1;
            }
            datagram.source = *public;
        }
        self.send(now, datagram, rng);
    }

    /// Sends a datagram from the gateway's side, or from anywhere outside.
    pub fn send(&mut self, now: Instant, datagram: Datagram, rng: &mut ChaCha20Rng) {
        self.datagrams += 1;
        self.last = Some(datagram.clone());
        self.recorded.iter_mut().for_each(|kept| kept.push(datagram.clone()));
        let micros = u64::try_from(now.since_start().as_micros()).unwrap_or(u64::MAX);
        self.digest.update(&micros.to_be_bytes());
        self.digest.update(format!("{} {} ", datagram.source, datagram.destination).as_bytes());
        self.digest.update(&datagram.bytes);
        let ends = [datagram.source, datagram.destination].map(|end| self.own_address(end).ip());
        let way = self.way(ends[0], ends[1]);
        let copies = if below(rng, 1000) < self.faults.duplicate { 2 } else { 1 };
        for _ in 0..copies {
            let too_large = self.largest.is_some_and(|largest| datagram.bytes.len() > largest);
            if self.cut || way.dark || too_large || below(rng, 1000) < self.faults.loss {
                continue;
            }
            if way.loss > 0 && below(rng, 1000) < way.loss {
                continue;
            }
            let held_up = if below(rng, 1000) < self.faults.reorder { below(rng, 400) } else { 0 };
            let delay = Duration::from_millis(u64::from(10 + below(rng, 10) + held_up + way.delay));
            self.sequence += 1;
            self.in_flight.insert((now + delay, self.sequence), datagram.clone());
        }
    }

    /// When the next datagram arrives.
    #[must_use]
    pub fn next_arrival(&self) -> Option<Instant> {
        self.in_flight.keys().next().map(|(at, _)| *at)
    }

    /// The next datagram that has arrived by `now`, with its destination translated where there is a NAT; one to a
    /// mapping that is gone is dropped.
    pub fn receive(&mut self, now: Instant) -> Option<Datagram> {
        loop {
            let first = self.in_flight.first_entry()?;
            if first.key().0 > now {
                return None;
            }
            let mut datagram = first.remove();
            let Some(mappings) = &self.nat else { return Some(datagram) };
            if datagram.destination.ip() != IpAddr::from(NAT_ADDRESS) {
                return Some(datagram);
            }
            let own = mappings.iter().find(|(_, public)| **public == datagram.destination);
            if let Some((own, _)) = own {
                datagram.destination = *own;
                return Some(datagram);
            }
        }
    }
}

/// A random number below `bound`.
pub fn below(rng: &mut ChaCha20Rng, bound: u32) -> u32 {
    if bound == 0 { 0 } else { rng.next_u32() % bound }
}
