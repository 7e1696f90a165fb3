//! Pings through the tunnel, by whatever way each end sends at the moment, and how long none of them came back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ropewalk_ike::time::Instant;
use ropewalk_session::Traffic;

use crate::network::below;
use crate::world::{World, first_address};

/// Where a ping is.
#[derive(Clone, Copy, Debug)]
enum Leg {
    /// On its way to the gateway, with the client's CHILD_SA of this SPI of the gateway.
    There { spi: u32, number: u64 },
    /// On its way back, with this SPI of the client, to its socket.
    Back { spi_in: u32, link: u32, number: u64 },
}

/// Pings, sent and answered.
#[derive(Debug, Default)]
pub struct Pings {
    /// Between two of them; `None` sends none.
    pub every: Option<Duration>,
    next_at: Instant,
    sequence: u64,
    flying: BTreeMap<(Instant, u64), Leg>,
    waiting: BTreeMap<u64, Instant>,
    /// When each was sent that was answered.
    answered: BTreeSet<Instant>,
    sent: BTreeSet<Instant>,
    /// The sequence number that each CHILD_SA was last sent with.
    numbers: BTreeMap<u32, u64>,
    /// What has arrived at the gateway by each: how many, and the newest.
    arrived: BTreeMap<u32, (u64, u64)>,
}

impl Pings {
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let flying = self.flying.keys().map(|(at, _)| *at).next();
        flying.into_iter().chain(self.every.map(|_| self.next_at)).min()
    }

    fn number(&mut self, spi: u32) -> u64 {
        let number = self.numbers.entry(spi).or_default();
        *number += 1;
        *number
    }

    /// Of those sent between these times: how many were lost, and the longest time from one that was lost to the next that
    /// was not.
    #[must_use]
    pub fn lost(&self, from: Instant, to: Instant) -> (usize, Duration) {
        let (mut lost, mut longest, mut since) = (0, Duration::ZERO, None);
        for at in self.sent.range(from..to) {
            if self.answered.contains(at) {
                if let Some(since) = since.take() {
                    longest = longest.max(*at - since);
                }
            } else {
                lost += 1;
                since.get_or_insert(*at);
            }
        }
        (lost, longest.max(since.map_or(Duration::ZERO, |since| to - since)))
    }
}

impl World {
    /// Sends the pings that are due, and moves those that are under way.
    pub(crate) fn play_pings(&mut self) {
        while let Some((at, leg)) = self.next_landed() {
            match leg {
                Leg::There { spi, number } => self.answer_ping(at, spi, number),
                Leg::Back { spi_in, link, number } => self.ping_is_back(at, (spi_in, number), link),
            }
        }
        if let Some(every) = self.pings.every
            && self.now >= self.pings.next_at
        {
            self.pings.next_at = self.now + every;
            self.pings.sequence += 1;
            let number = self.pings.sequence;
            self.pings.sent.insert(self.now);
            self.pings.waiting.insert(number, self.now);
            self.send_ping(number);
        }
    }

    fn next_landed(&mut self) -> Option<(u64, Leg)> {
        let first = self.pings.flying.first_entry()?;
        if first.key().0 > self.now {
            return None;
        }
        let number = first.key().1;
        Some((number, first.remove()))
    }

    fn counter(&mut self, spi_in: u32) -> &mut Traffic {
        let none = Traffic { spi_in, ..Traffic::default() };
        self.client.counters.entry(spi_in).or_insert(none)
    }

    fn send_ping(&mut self, number: u64) {
        let Some((spi_in, path)) = self.client.egress else { return };
        let Some(spi) = self.client.children.iter().find(|child| child.spi_in == spi_in) else { return };
        let (spi, now) = (spi.spi_out, self.now);
        let counter = self.counter(spi_in);
        counter.sent += 84;
        counter.last_out = Some(now);
        let sealed = self.pings.number(spi);
        if self.client.is_open(path.link, path.local) && !self.is_ping_lost(path.local.ip(), path.remote.ip())
        {
            let delay = self.ping_delay(path.local.ip(), path.remote.ip());
            self.pings.flying.insert((now + delay, number), Leg::There { spi, number: sealed });
        }
    }

    fn answer_ping(&mut self, number: u64, spi: u32, sealed: u64) {
        let Some((_, child, _)) = self.gateway_children.get(&spi) else { return };
        let (address, now) = (first_address(child), self.now);
        if let Some(gateway) = &mut self.gateway {
            gateway.note_inbound(spi, now);
            gateway.note_traffic(now, spi, number, number);
            let (packets, newest) = self.pings.arrived.entry(spi).or_default();
            (*packets, *newest) = (*packets + 1, sealed.max(*newest));
            gateway.note_arrivals(spi, *packets, *newest);
        }
        self.settle();
        let back = address.and_then(|address| self.gateway_egress.get(&address));
        let Some((_, child, path)) = back.and_then(|back| self.gateway_children.get(back)) else { return };
        let (spi_in, local, remote) = (child.spi_out, path.local.ip(), path.remote);
        let own = self.network.own_address(remote);
        let link = self.client.link_at(own).filter(|_| self.network.leads_to(remote, own));
        let Some(link) = link else { return };
        let sealed = self.pings.number(spi_in);
        if !self.is_ping_lost(own.ip(), local) {
            let delay = self.ping_delay(own.ip(), local);
            self.pings.flying.insert((now + delay, number), Leg::Back { spi_in, link, number: sealed });
        }
    }

    fn ping_is_back(&mut self, number: u64, (spi_in, sealed): (u32, u64), link: u32) {
        let known = self.client.children.iter().any(|child| child.spi_in == spi_in);
        if !known || !self.client.has_link(link) {
            return;
        }
        let now = self.now;
        let counter = self.counter(spi_in);
        counter.received += 84;
        counter.last_in = Some(now);
        counter.arrived = (counter.arrived.0 + 1, counter.arrived.1.max(sealed));
        if let Some(sent) = self.pings.waiting.remove(&number) {
            self.pings.answered.insert(sent);
        }
    }

    fn is_ping_lost(&mut self, own: std::net::IpAddr, gateway: std::net::IpAddr) -> bool {
        let way = self.network.way(own, gateway);
        self.network.cut || way.dark || self.gateway.is_none() || below(&mut self.rng, 1000) < way.loss
    }

    fn ping_delay(&self, own: std::net::IpAddr, gateway: std::net::IpAddr) -> Duration {
        Duration::from_millis(u64::from(10 + self.network.way(own, gateway).delay))
    }
}
