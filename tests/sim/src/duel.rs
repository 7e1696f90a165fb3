//! One client and one gateway without a session: every message passes through the hands of the test, which knows the keys.
//!
//! The same seed gives the same bytes. So a first run is played to its end, which tells the keys, and in the next ones the
//! test can open, change and seal again what either end sends, as a peer that is not honest would.

use std::collections::VecDeque;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use ropewalk_gateway::{Gateway, Settings};
use ropewalk_ike::crypto::{IkeCipher, IkeKeys};
use ropewalk_ike::error::PeerMisbehaved;
use ropewalk_ike::exchange::config::InitiatorConfig;
use ropewalk_ike::exchange::group::GroupEvent;
use ropewalk_ike::exchange::initiator::{Established, HandshakeError, Initiator};
use ropewalk_ike::exchange::protect::Protection;
use ropewalk_ike::exchange::sa::{IkeSa, SaEvent};
use ropewalk_ike::exchange::{IkeSpis, Path, Role};
use ropewalk_ike::proposal::ChosenIke;
use ropewalk_ike::time::Instant;
use ropewalk_ike::wire::{Header, Message, Payload};

use crate::setup::{CLIENT, GATEWAY, Setup, WALL_CLOCK};

/// What a client is at the moment.
#[derive(Debug)]
pub enum Stage {
    /// On its way in.
    Attempt(Box<Initiator>),
    /// In.
    Up(Box<IkeSa>),
    /// It did not get in.
    Failed(HandshakeError),
}

/// The keys of an IKE_SA, as the test has them.
pub struct Known {
    /// Its SPIs.
    pub spis: IkeSpis,
    keys: IkeKeys,
    cipher: IkeCipher,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").field("spis", &self.spis).finish_non_exhaustive()
    }
}

impl Known {
    fn of(established: &Established) -> Option<Self> {
        let ChosenIke { encr, key_bits, integ, .. } = *established.sa.suite();
        let cipher = IkeCipher::from_iana(encr, key_bits, integ)?;
        Some(Self { spis: established.sa.spis(), keys: established.keys.clone(), cipher })
    }

    /// The payloads inside a protected message that is not in fragments.
    #[must_use]
    pub fn open(&self, by: Role, datagram: &[u8]) -> Option<Vec<Payload>> {
        let parsed = Message::parse(datagram).ok()?;
        let reader = if by == Role::Initiator { Role::Responder } else { Role::Initiator };
        let mut protection = Protection::new(self.cipher, &self.keys, reader).ok()?;
        let opened = protection.open(Instant::ZERO, datagram, &parsed.header, &parsed.encrypted?).ok()??;
        Some(opened.payloads().ok()?.to_vec())
    }

    /// A message with these payloads, sealed as one end would.
    #[must_use]
    pub fn seal(&self, by: Role, header: Header, payloads: &[Payload], rng: &mut ChaCha20Rng) -> Vec<u8> {
        let sealed = Protection::new(self.cipher, &self.keys, by)
            .and_then(|mut protection| protection.seal(header, payloads, false, path(by), rng));
        sealed.ok().and_then(|datagrams| datagrams.into_iter().next()).unwrap_or_default()
    }
}

/// Both ends and the clock.
pub struct Duel {
    /// The time.
    pub now: Instant,
    /// The client.
    pub client: Stage,
    /// The gateway.
    pub gateway: Gateway,
    /// What was learnt when the client got in.
    pub known: Option<Known>,
    /// What the client was told of a group's SA.
    pub group: Vec<GroupEvent>,
    /// On their way: who sent it, and what.
    pub in_flight: VecDeque<(Role, Vec<u8>)>,
    client_rng: ChaCha20Rng,
    gateway_rng: ChaCha20Rng,
}

impl std::fmt::Debug for Duel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Duel").field("client", &self.client).finish_non_exhaustive()
    }
}

/// Addresses as an end sees them.
#[must_use]
pub fn path(role: Role) -> Path {
    let (client, gateway) = ((CLIENT, 50_001).into(), (GATEWAY, 4500).into());
    match role {
        Role::Initiator => Path { link: 1, local: client, remote: gateway },
        Role::Responder => Path { link: 4500, local: gateway, remote: client },
    }
}

impl Duel {
    /// The client has sent its first request.
    ///
    /// # Panics
    /// When the configuration proposes nothing.
    #[must_use]
    pub fn new(setup: &Setup, seed: u64) -> Self {
        Self::with(setup.client.initiator.clone(), setup.gateway.clone(), seed)
    }

    fn with(config: InitiatorConfig, settings: Settings, seed: u64) -> Self {
        let now = Instant::from_start(Duration::from_secs(1000));
        let mut client_rng = ChaCha20Rng::seed_from_u64(seed);
        // Port 4500 from the first message on: nothing here is about the float.
        let attempt = Initiator::start(config, path(Role::Initiator), now, &mut client_rng);
        let mut attempt = attempt.unwrap_or_else(|error| panic!("{error}"));
        attempt.proceed(now, &mut client_rng);
        let mut duel = Self {
            now,
            client: Stage::Attempt(Box::new(attempt)),
            gateway: Gateway::new(settings, WALL_CLOCK),
            known: None,
            group: Vec::new(),
            in_flight: VecDeque::new(),
            client_rng,
            gateway_rng: ChaCha20Rng::seed_from_u64(seed ^ 0x6a7e),
        };
        duel.collect();
        duel
    }

    /// Gives a datagram to one end, and takes what it sends.
    ///
    /// # Errors
    /// What that end has against it.
    pub fn deliver(&mut self, to: Role, datagram: &[u8]) -> Result<(), PeerMisbehaved> {
        let (now, path) = (self.now, path(to));
        let result = match (to, &mut self.client) {
            (Role::Responder, _) => self.gateway.handle_datagram(now, path, datagram, &mut self.gateway_rng),
            (Role::Initiator, Stage::Attempt(attempt)) => {
                attempt.handle_datagram(now, path, datagram, &mut self.client_rng)
            }
            (Role::Initiator, Stage::Up(sa)) => sa.handle_datagram(now, path, datagram, &mut self.client_rng),
            (Role::Initiator, Stage::Failed(_)) => Ok(()),
        };
        self.collect();
        result
    }

    /// Lets time pass for both.
    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let now = self.now;
        match &mut self.client {
            Stage::Attempt(attempt) => attempt.handle_timeout(now, &mut self.client_rng),
            Stage::Up(sa) => sa.handle_timeout(now, &mut self.client_rng),
            Stage::Failed(_) => {}
        }
        self.gateway.handle_timeout(now, &mut self.gateway_rng);
        self.collect();
    }

    /// Carries datagrams, each as `hands` leaves it, until nobody says anything any more.
    ///
    /// # Panics
    /// When they talk without end.
    pub fn settle(&mut self, mut hands: impl FnMut(Role, Vec<u8>) -> Vec<Vec<u8>>) {
        for _ in 0..1000 {
            let Some((by, datagram)) = self.in_flight.pop_front() else { return };
            let to = if by == Role::Initiator { Role::Responder } else { Role::Initiator };
            for datagram in hands(by, datagram) {
                // What is wrong with it is for the log only.
                let _ = self.deliver(to, &datagram);
            }
        }
        panic!("the two ends talk without end");
    }

    /// Carries datagrams as they are, and lets time pass, until the client is in or out.
    pub fn run(&mut self) {
        for _ in 0..200 {
            self.settle(|_, datagram| vec![datagram]);
            if !matches!(self.client, Stage::Attempt(_)) {
                return;
            }
            self.pass(Duration::from_millis(500));
        }
    }

    /// How many clients the gateway has let in.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.gateway.clients().len()
    }

    /// Whether the client is in and has a CHILD_SA.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(&self.client, Stage::Up(sa) if !sa.is_closed() && !sa.children().is_empty())
    }

    fn collect(&mut self) {
        if let Stage::Attempt(attempt) = &mut self.client {
            let sent = std::iter::from_fn(|| attempt.poll_transmit());
            self.in_flight.extend(sent.map(|transmit| (Role::Initiator, transmit.message)));
            match attempt.poll_outcome() {
                Some(Ok(established)) => {
                    self.known = Known::of(&established);
                    self.client = Stage::Up(Box::new(established.sa));
                }
                Some(Err(error)) => self.client = Stage::Failed(error),
                None => {}
            }
        }
        if let Stage::Up(sa) = &mut self.client {
            let sent = std::iter::from_fn(|| sa.poll_transmit());
            self.in_flight.extend(sent.map(|transmit| (Role::Initiator, transmit.message)));
            while let Some(event) = sa.poll_event() {
                let closed = matches!(event, SaEvent::Closed(_));
                assert!(!closed || sa.children().is_empty(), "an IKE_SA that is over has CHILD_SAs");
                if let SaEvent::Group(event) = event {
                    self.group.push(event);
                }
            }
        }
        let gateway = &mut self.gateway;
        let sent = std::iter::from_fn(|| gateway.poll_transmit());
        self.in_flight.extend(sent.map(|transmit| (Role::Responder, transmit.message)));
        while self.gateway.poll_event().is_some() {}
    }
}
