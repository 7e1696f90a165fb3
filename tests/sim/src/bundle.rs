//! One client with several IKE_SAs and the gateway, without a session: the test decides when a path is added, moved,
//! switched to or lost.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a wrong number of an IKE_SA is a failed test"
)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use ropewalk_gateway::{Carriage, Gateway, GatewayEvent};
use ropewalk_ike::crypto::IkeCipher;
use ropewalk_ike::exchange::initiator::Initiator;
use ropewalk_ike::exchange::sa::{CloseReason, IkeSa, SaEvent};
use ropewalk_ike::exchange::{IkeSpis, Path};
use ropewalk_ike::keylog::ike_line;
use ropewalk_ike::time::Instant;
use ropewalk_ike::wire::{NotifyType, SwitchNotice};

use crate::setup::{GATEWAY, Setup, WALL_CLOCK};

/// One of the client's IKE_SAs.
#[derive(Debug)]
pub struct Lane {
    /// It.
    pub sa: IkeSa,
    /// It was replaced, and is only kept until it is deleted.
    pub fading: bool,
    /// Why it ended.
    pub closed: Option<CloseReason>,
}

/// Who a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The client.
    Client,
    /// The gateway.
    Gateway,
}

/// A datagram on its way.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Who is to get it.
    pub to: To,
    /// The client's address by which it goes.
    pub by: IpAddr,
    /// It.
    pub bytes: Vec<u8>,
}

/// Both ends, the clock, and what either was told.
#[derive(Debug)]
pub struct Bundle {
    /// The time.
    pub now: Instant,
    /// The client's IKE_SAs in the order in which they came; none is ever taken out.
    pub lanes: Vec<Lane>,
    /// The gateway.
    pub gateway: Gateway,
    /// The CHILD_SAs of the gateway, and to which address it sends with each.
    pub children: BTreeMap<u32, IpAddr>,
    /// With what the gateway sends to the client.
    pub carriage: Option<Carriage>,
    /// How often that changed.
    pub switches: usize,
    /// How the client was gone.
    pub gone: Vec<CloseReason>,
    /// What the gateway refused.
    pub refused: Vec<NotifyType>,
    /// What the gateway answered to switches.
    pub answered: Vec<(u32, bool)>,
    /// Addresses of the client by which nothing gets through.
    pub dead: Vec<IpAddr>,
    /// Everything that was sent.
    pub sent: Vec<Letter>,
    /// The lines for Wireshark, one for each IKE_SA, when the gateway logs keys.
    pub key_log: Vec<String>,
    /// Everything random.
    pub rng: ChaCha20Rng,
}

/// The way from one of the client's addresses to the gateway.
#[must_use]
pub fn way(address: IpAddr) -> Path {
    let link = match address {
        IpAddr::V4(v4) => u32::from(v4),
        IpAddr::V6(_) => 6,
    };
    Path { link, local: (address, 50_001).into(), remote: (GATEWAY, 4500).into() }
}

impl Bundle {
    /// A client that has logged in from this address.
    ///
    /// # Panics
    /// When it is not let in.
    #[must_use]
    pub fn new(setup: &Setup, seed: u64, from: IpAddr) -> Self {
        let mut bundle = Self {
            now: Instant::from_start(Duration::from_secs(1000)),
            lanes: Vec::new(),
            gateway: Gateway::new(setup.gateway.clone(), WALL_CLOCK),
            children: BTreeMap::new(),
            carriage: None,
            switches: 0,
            gone: Vec::new(),
            refused: Vec::new(),
            answered: Vec::new(),
            dead: Vec::new(),
            sent: Vec::new(),
            key_log: Vec::new(),
            rng: ChaCha20Rng::seed_from_u64(seed),
        };
        bundle.log_in(setup, from);
        bundle
    }

    /// The client logs in, in a new connection.
    ///
    /// # Panics
    /// When it is not let in.
    pub fn log_in(&mut self, setup: &Setup, from: IpAddr) {
        let config = setup.client.initiator.clone();
        let mut attempt = Initiator::start(config, way(from), self.now, &mut self.rng).expect("a proposal");
        attempt.proceed(self.now, &mut self.rng);
        for _ in 0..8 {
            while let Some(transmit) = attempt.poll_transmit() {
                let path = seen(way(from));
                let _ = self.gateway.handle_datagram(self.now, path, &transmit.message, &mut self.rng);
            }
            while let Some(transmit) = self.gateway.poll_transmit() {
                let _ = attempt.handle_datagram(self.now, way(from), &transmit.message, &mut self.rng);
            }
            if let Some(outcome) = attempt.poll_outcome() {
                let sa = outcome.expect("the client is let in").sa;
                self.lanes.push(Lane { sa, fading: false, closed: None });
                self.settle();
                return;
            }
        }
        panic!("the login does not end");
    }

    /// Does something with one of the client's IKE_SAs, and waits until all is said.
    pub fn with<T>(
        &mut self,
        lane: usize,
        act: impl FnOnce(&mut IkeSa, Instant, &mut ChaCha20Rng) -> T,
    ) -> T {
        let outcome = act(&mut self.lanes[lane].sa, self.now, &mut self.rng);
        self.settle();
        outcome
    }

    /// A further IKE_SA, made from this one, with a CHILD_SA, moved to this address; its number.
    pub fn add(&mut self, from: usize, address: IpAddr) -> usize {
        self.with(from, |sa, now, rng| sa.add_ike_sa(now, rng));
        let new = self.lanes.len() - 1;
        self.with(new, |sa, now, rng| sa.create_child_alike(now, rng));
        self.with(new, |sa, now, rng| sa.move_to(now, way(address), rng));
        new
    }

    /// The client says how the path of this IKE_SA is to be used.
    pub fn announce(&mut self, lane: usize, notice: SwitchNotice) {
        self.with(lane, |sa, now, rng| sa.announce_switch(now, notice, rng));
    }

    /// Data come in at the gateway by this IKE_SA's CHILD_SA, so many octets in all.
    pub fn data(&mut self, lane: usize, octets: u64) {
        let spi = self.gateway_spi(lane);
        self.gateway.note_inbound(spi, self.now);
        self.gateway.note_traffic(self.now, spi, octets, 0);
        self.settle();
    }

    /// The gateway's SPI of the CHILD_SA that this IKE_SA sends with.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn gateway_spi(&self, lane: usize) -> u32 {
        let sa = &self.lanes[lane].sa;
        let carrying = sa.carrying().expect("a CHILD_SA");
        sa.children().iter().find(|child| child.spi_in == carrying).expect("the same").spi_out
    }

    /// Which of the client's IKE_SAs the gateway sends by; `None` when it has no CHILD_SA for it.
    #[must_use]
    pub fn main(&self) -> Option<usize> {
        let main = self.carriage.as_ref()?.main;
        let has = |lane: &Lane| lane.sa.children().iter().any(|child| child.spi_out == main);
        self.lanes.iter().position(has).filter(|_| self.children.contains_key(&main))
    }

    /// Lets time pass, with everything delivered at once.
    pub fn live(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let lanes = self.lanes.iter().filter_map(|lane| lane.sa.poll_timeout());
            let next = lanes.chain(self.gateway.poll_timeout()).min().filter(|next| *next <= until);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            for lane in &mut self.lanes {
                if lane.sa.poll_timeout().is_some_and(|at| at <= self.now) {
                    lane.sa.handle_timeout(self.now, &mut self.rng);
                }
            }
            if self.gateway.poll_timeout().is_some_and(|at| at <= self.now) {
                self.gateway.handle_timeout(self.now, &mut self.rng);
            }
            self.settle();
        }
        self.now = until;
    }

    /// Hands a datagram over, whoever sent it.
    pub fn deliver(&mut self, letter: &Letter) {
        match letter.to {
            To::Gateway => {
                let path = seen(way(letter.by));
                let _ = self.gateway.handle_datagram(self.now, path, &letter.bytes, &mut self.rng);
            }
            To::Client => {
                let spis = IkeSpis::of(&letter.bytes);
                if let Some(lane) = self.lanes.iter_mut().find(|lane| Some(lane.sa.spis()) == spis) {
                    let _ = lane.sa.handle_datagram(self.now, way(letter.by), &letter.bytes, &mut self.rng);
                }
            }
        }
    }

    /// Takes what both ends want sent, and what they have to tell.
    pub fn collect(&mut self) -> Vec<Letter> {
        let mut letters = Vec::new();
        let mut at = 0;
        while at < self.lanes.len() {
            let lane = &mut self.lanes[at];
            letters.extend(std::iter::from_fn(|| lane.sa.poll_transmit()).map(|transmit| Letter {
                to: To::Gateway,
                by: transmit.path.local.ip(),
                bytes: transmit.message,
            }));
            let Some(event) = lane.sa.poll_event() else {
                at += 1;
                continue;
            };
            self.note(at, event);
        }
        while let Some(transmit) = self.gateway.poll_transmit() {
            let (by, bytes) = (transmit.path.remote.ip(), transmit.message);
            letters.push(Letter { to: To::Client, by, bytes });
        }
        while let Some(event) = self.gateway.poll_event() {
            self.note_gateway(event);
        }
        self.sent.extend(letters.iter().cloned());
        letters
    }

    /// Delivers until both ends are silent.
    ///
    /// # Panics
    /// When they talk without end.
    pub fn settle(&mut self) {
        for _ in 0..200 {
            let letters = self.collect();
            if letters.is_empty() {
                return;
            }
            for letter in letters {
                if !self.dead.contains(&letter.by) {
                    self.deliver(&letter);
                }
            }
        }
        panic!("the two ends talk without end");
    }

    fn note(&mut self, at: usize, event: SaEvent) {
        match event {
            SaEvent::Kept(kept) => self.lanes.push(Lane { sa: kept.sa, fading: false, closed: None }),
            SaEvent::Rekeyed(heir) => {
                let old = std::mem::replace(&mut self.lanes[at].sa, heir.sa);
                self.lanes.push(Lane { sa: old, fading: true, closed: None });
            }
            SaEvent::Redundant(sa) => self.lanes.push(Lane { sa: *sa, fading: true, closed: None }),
            SaEvent::Closed(reason) => self.lanes[at].closed = Some(reason),
            SaEvent::KeepRefused(notify)
            | SaEvent::ChildRefused(notify)
            | SaEvent::RekeyRefused(notify)
            | SaEvent::IkeRekeyRefused(notify)
            | SaEvent::MoveRefused(notify) => self.refused.push(notify),
            SaEvent::SwitchAnswered { counter, understood } => self.answered.push((counter, understood)),
            _ => {}
        }
    }

    fn note_gateway(&mut self, event: GatewayEvent) {
        match event {
            GatewayEvent::ChildUp { child, path, .. } => {
                self.children.insert(child.spi_in, path.remote.ip());
            }
            GatewayEvent::ChildDown { spi_in, .. } => {
                self.children.remove(&spi_in).expect("a CHILD_SA that was there goes");
            }
            GatewayEvent::Carriage { carriage, .. } => {
                assert!(self.children.contains_key(&carriage.main), "sends with what is not there");
                self.carriage = Some(carriage);
                self.switches += 1;
            }
            GatewayEvent::PathChanged { children, path, .. } => {
                for spi_in in children {
                    self.children.insert(spi_in, path.remote.ip());
                }
            }
            GatewayEvent::ClientGone { reason, .. } => self.gone.push(reason),
            GatewayEvent::IkeKeys { spis, suite, keys } => {
                let cipher = IkeCipher::from_iana(suite.encr, suite.key_bits, suite.integ).expect("a cipher");
                let (initiator, responder) = (spis.initiator.to_be_bytes(), spis.responder.to_be_bytes());
                let line = ike_line(initiator, responder, cipher, &keys);
                self.key_log.extend(line.map(|line| line.to_string()));
            }
            GatewayEvent::ClientUp { .. }
            | GatewayEvent::ToDhcpServer { .. }
            | GatewayEvent::SendInner { .. } => {}
        }
    }
}

/// The client's way as the gateway sees it.
fn seen(way: Path) -> Path {
    Path { link: 4500, local: way.remote, remote: way.local }
}
