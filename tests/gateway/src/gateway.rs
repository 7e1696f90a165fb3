//! The whole gateway without I/O: many clients, one clock.
//!
//! A client is known by our SPI. It begins as [`HalfOpen`] and becomes an [`IkeSa`]; what the owner has to do in the data
//! path comes out as [`GatewayEvent`]s, in order.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_core::CryptoRng;
use ring::digest;
use ropewalk_ike::crypto::IkeKeys;
use ropewalk_ike::error::{PeerMisbehaved, WireError};
use ropewalk_ike::exchange::child::ChildSa;
use ropewalk_ike::exchange::rekey_ike::Successor;
use ropewalk_ike::exchange::sa::{CloseReason, SaEvent};
use ropewalk_ike::exchange::{IkeSpis, Path, Transmit};
use ropewalk_ike::proposal::ChosenIke;
use ropewalk_ike::time::{Instant, UnixTime};
use ropewalk_ike::wire::{ExchangeType, GatewayName, Message, ParsedMessage};

use crate::leases::Leases;
use crate::limit::RateLimit;
use crate::responder::cookie::CookieJar;
use crate::responder::init::{self, InitAnswer, InitDesk};
use crate::responder::{AuthDesk, Entered, HalfOpen, Step};
use crate::settings::{CookiePolicy, Settings};
use crate::stray;
use crate::up::Up;

/// How long an older login of a client goes on beside a newer one: longer than the client may take until the last answer
/// of IKE_AUTH arrives.
const OVERLAP: Duration = Duration::from_secs(40);

/// A client, by our SPI of its IKE_SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// What the owner has to know or do.
#[derive(Debug)]
pub enum GatewayEvent {
    /// A client proved itself. Its CHILD_SA follows, unless that was refused.
    ClientUp {
        /// Which.
        client: ClientId,
        /// Who it is.
        name: String,
        /// Its inner addresses.
        addresses: Vec<IpAddr>,
        /// Where it is.
        path: Path,
    },
    /// An IKE_SA's keys, when a key log is wanted.
    IkeKeys {
        /// Its SPIs.
        spis: IkeSpis,
        /// Its suite.
        suite: ChosenIke,
        /// Its keys.
        keys: Box<IkeKeys>,
    },
    /// A CHILD_SA to install for receiving.
    ChildUp {
        /// Whose.
        client: ClientId,
        /// The CHILD_SA.
        child: Box<ChildSa>,
        /// Where to send.
        path: Path,
    },
    /// Packets to the client's inner addresses leave by this CHILD_SA from now on.
    ChildCarries {
        /// Whose.
        client: ClientId,
        /// Our SPI of it.
        spi_in: u32,
    },
    /// A CHILD_SA to remove.
    ChildDown {
        /// Whose.
        client: ClientId,
        /// Our SPI of it.
        spi_in: u32,
    },
    /// The client is to be sent to by another path.
    PathChanged {
        /// Whose.
        client: ClientId,
        /// The new one.
        path: Path,
    },
    /// A client is gone; its CHILD_SAs went before.
    ClientGone {
        /// Which.
        client: ClientId,
        /// Who it was.
        name: String,
        /// Why.
        reason: CloseReason,
    },
}

/// A client that is in, for whoever asks.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// Its number.
    pub client: ClientId,
    /// Who it is.
    pub name: String,
    /// Its inner addresses.
    pub addresses: Vec<IpAddr>,
    /// Where it is.
    pub remote: SocketAddr,
    /// The suite of its IKE_SA.
    pub suite: ChosenIke,
    /// Our SPIs of its CHILD_SAs.
    pub children: Vec<u32>,
}

enum State {
    HalfOpen(Box<HalfOpen>),
    Up(Box<Up>),
}

/// The request of an IKE_SA_INIT, to know it again.
#[derive(Clone, Copy, PartialEq, Eq)]
struct InitRequest {
    spi: u64,
    remote: SocketAddr,
    digest: [u8; 32],
}

struct Client {
    init: InitRequest,
    since: Instant,
    state: State,
}

/// A gateway.
pub struct Gateway {
    settings: Settings,
    wall_clock: UnixTime,
    clients: BTreeMap<u64, Client>,
    /// The clients by our SPIs of their IKE_SAs: after a rekey these are others than the first one, which is the number.
    by_spi: BTreeMap<u64, u64>,
    leases: Leases,
    cookies: CookieJar,
    limit: RateLimit,
    transmits: VecDeque<Transmit>,
    events: VecDeque<GatewayEvent>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("clients", &self.clients.len()).finish_non_exhaustive()
    }
}

impl Gateway {
    /// A gateway without clients. `wall_clock` decides about certificates until [`Self::set_wall_clock`].
    #[must_use]
    pub fn new(settings: Settings, wall_clock: UnixTime) -> Self {
        let leases = Leases::new(&settings.pools, settings.unique);
        Self {
            settings,
            wall_clock,
            clients: BTreeMap::new(),
            by_spi: BTreeMap::new(),
            leases,
            cookies: CookieJar::default(),
            limit: RateLimit::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The wall clock now.
    pub fn set_wall_clock(&mut self, wall_clock: UnixTime) {
        self.wall_clock = wall_clock;
    }

    /// The configuration.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The clients that are in.
    #[must_use]
    pub fn clients(&self) -> Vec<ClientInfo> {
        let of = |(id, client): (&u64, &Client)| match &client.state {
            State::Up(up) if up.is_current() => Some(ClientInfo {
                client: ClientId(*id),
                name: up.name.clone(),
                addresses: up.addresses.clone(),
                remote: up.sa.path().remote,
                suite: *up.sa.suite(),
                children: up.sa.children().iter().map(|child| child.spi_in).collect(),
            }),
            State::Up(_) | State::HalfOpen(_) => None,
        };
        self.clients.iter().filter_map(of).collect()
    }

    /// How many IKE_SAs there are, those included that were replaced and are not deleted yet.
    #[must_use]
    pub fn ike_sas(&self) -> usize {
        let of = |client: &Client| match &client.state {
            State::Up(up) => up.own_spis().len(),
            State::HalfOpen(_) => 0,
        };
        self.clients.values().map(of).sum()
    }

    /// How many clients are on their way in.
    #[must_use]
    pub fn half_open(&self) -> usize {
        let half = |client: &&Client| matches!(&client.state, State::HalfOpen(half) if !half.is_over());
        self.clients.values().filter(half).count()
    }

    /// The configuration, to be changed for logins to come.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing to do.
    pub fn poll_event(&mut self) -> Option<GatewayEvent> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of = |client: &Client| match &client.state {
            State::HalfOpen(_) => Some(client.since + self.settings.half_open_timeout),
            State::Up(up) => up.poll_timeout(),
        };
        self.clients.values().filter_map(of).min()
    }

    /// Acts on the clock.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let timeout = self.settings.half_open_timeout;
        self.clients.retain(|id, client| match &client.state {
            State::HalfOpen(half) => {
                let over = now >= client.since + timeout;
                if over && !half.is_over() {
                    tracing::info!(client = format_args!("{id:016x}"), "a login was not finished in time");
                }
                !over
            }
            State::Up(_) => true,
        });
        let due: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, client)| match &client.state {
                State::HalfOpen(_) => false,
                State::Up(up) => up.poll_timeout().is_some_and(|at| at <= now),
            })
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            if let Some(Client { state: State::Up(up), .. }) = self.clients.get_mut(&id) {
                up.handle_timeout(now, rng);
            }
            self.drain(now, id);
        }
    }

    /// Takes an IKE message, without the non-ESP marker.
    ///
    /// # Errors
    /// What was wrong with it, for the log.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        path: Path,
        datagram: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        let parsed = match Message::parse(datagram) {
            Ok(parsed) => parsed,
            Err(WireError::UnsupportedMajorVersion { major }) => {
                let answer = stray::other_version(datagram, major).filter(|_| self.limit.allow(now));
                self.transmits.extend(answer.map(|message| Transmit { path, message }));
                return Err(WireError::UnsupportedMajorVersion { major }.into());
            }
            Err(wire) => return Err(wire.into()),
        };
        let header = parsed.header;
        if header.exchange == ExchangeType::IkeSaInit && header.spi_r == 0 {
            if header.flags.response {
                return Err(PeerMisbehaved::WrongDirection);
            }
            return self.handle_init(now, path, datagram, &parsed, rng);
        }
        // Who began an IKE_SA may be the gateway, once it was rekeyed.
        let ours = if header.flags.initiator { header.spi_r } else { header.spi_i };
        let id = self.by_spi.get(&ours).copied().unwrap_or(ours);
        let Some(client) = self.clients.get_mut(&id) else {
            let answer = stray::unknown_spi(header, self.settings.crash_tokens.as_ref());
            let answer = answer.filter(|_| self.limit.allow(now));
            self.transmits.extend(answer.map(|message| Transmit { path, message }));
            return Err(PeerMisbehaved::WrongSpi);
        };
        match &mut client.state {
            State::Up(up) => {
                let outcome = up.handle_datagram(now, path, (ours, datagram), rng);
                self.drain(now, id);
                outcome
            }
            State::HalfOpen(_) => self.handle_auth(now, path, datagram, &parsed, rng),
        }
    }

    /// Tells of authenticated ESP that came in with our SPI `spi_in` at this time: the client is alive.
    pub fn note_inbound(&mut self, spi_in: u32, at: Instant) {
        if let Some((_, up)) = self.owner_of(spi_in) {
            up.sa.note_inbound(at);
        }
    }

    /// The CHILD_SA with our SPI `spi_in` has received and sent so many octets of inner packets so far.
    pub fn note_traffic(&mut self, now: Instant, spi_in: u32, received: u64, sent: u64) {
        if let Some((id, up)) = self.owner_of(spi_in) {
            up.sa.note_traffic(now, spi_in, received, sent);
            if received > 0 {
                self.let_carry(id);
            }
            self.drain(now, id);
        }
    }

    /// The sequence numbers of the CHILD_SA with the client's SPI `spi_out` run low: it is renewed now.
    pub fn sequence_low(&mut self, now: Instant, spi_out: u32, rng: &mut dyn CryptoRng) {
        let found = self.children().find(|(_, child)| child.spi_out == spi_out);
        let Some((id, spi_in)) = found.map(|(id, child)| (id, child.spi_in)) else { return };
        if let Some(Client { state: State::Up(up), .. }) = self.clients.get_mut(&id) {
            up.sa.rekey_child(now, spi_in, rng);
        }
        self.drain(now, id);
    }

    /// Renews the CHILD_SAs of all clients, or their IKE_SAs; how many clients there are.
    pub fn rekey_all(&mut self, now: Instant, ike: bool, rng: &mut dyn CryptoRng) -> usize {
        let mut ids = Vec::new();
        for (id, client) in &mut self.clients {
            let State::Up(up) = &mut client.state else { continue };
            match up.sa.carrying() {
                _ if ike => up.sa.rekey_ike(now, rng),
                Some(spi_in) => up.sa.rekey_child(now, spi_in, rng),
                None => {}
            }
            ids.push(*id);
        }
        for id in &ids {
            self.drain(now, *id);
        }
        ids.len()
    }

    /// Authenticated ESP with our SPI `spi_in` came by another path: the client's NAT has moved it (RFC 7296 section 2.23).
    pub fn peer_moved(&mut self, now: Instant, spi_in: u32, path: Path) {
        if let Some((id, up)) = self.owner_of(spi_in) {
            up.sa.follow_peer(path);
            self.drain(now, id);
        }
    }

    /// Deletes a CHILD_SA of a client that cannot be installed.
    pub fn delete_child(&mut self, now: Instant, client: ClientId, spi_in: u32, rng: &mut dyn CryptoRng) {
        if let Some(Client { state: State::Up(up), .. }) = self.clients.get_mut(&client.0) {
            up.sa.delete_child(now, spi_in, rng);
        }
        self.drain(now, client.0);
    }

    /// Ends the connections of a client by its name, telling it; how many there were.
    pub fn disconnect(&mut self, now: Instant, name: &str, rng: &mut dyn CryptoRng) -> usize {
        self.close_where(now, rng, |_, up| up.name == name)
    }

    /// Ends all connections, telling the clients; how many there were.
    pub fn disconnect_all(&mut self, now: Instant, rng: &mut dyn CryptoRng) -> usize {
        self.close_where(now, rng, |_, _| true)
    }

    /// Sends all clients that can be sent elsewhere to another gateway (RFC 5685 section 5); how many there were.
    pub fn redirect_all(&mut self, now: Instant, to: &GatewayName, rng: &mut dyn CryptoRng) -> usize {
        let mut ids = Vec::new();
        for (id, client) in &mut self.clients {
            if let State::Up(up) = &mut client.state
                && up.redirectable
            {
                up.sa.redirect(now, to.clone(), rng);
                ids.push(*id);
            }
        }
        for id in &ids {
            self.drain(now, *id);
        }
        ids.len()
    }

    fn close_where(
        &mut self,
        now: Instant,
        rng: &mut dyn CryptoRng,
        wanted: impl Fn(u64, &Up) -> bool,
    ) -> usize {
        let mut ids = Vec::new();
        for (id, client) in &mut self.clients {
            if let State::Up(up) = &mut client.state
                && wanted(*id, up)
            {
                up.sa.close(now, rng);
                ids.push(*id);
            }
        }
        for id in &ids {
            self.drain(now, *id);
        }
        ids.len()
    }

    fn handle_init(
        &mut self,
        now: Instant,
        path: Path,
        datagram: &[u8],
        parsed: &ParsedMessage,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        let request = InitRequest { spi: parsed.header.spi_i, remote: path.remote, digest: sha256(datagram) };
        if let Some(client) = self.clients.values().find(|client| client.init == request) {
            // Once IKE_AUTH has begun the answer has arrived: this is a late copy.
            if let State::HalfOpen(half) = &client.state {
                let message = half.init_response().to_vec();
                self.transmits.push_back(Transmit { path, message });
            }
            return Ok(());
        }
        let half_open = self.half_open();
        if half_open >= self.settings.half_open_limit {
            tracing::warn!(half_open, "too many clients are on their way in, another one is not answered");
            return Ok(());
        }
        let demand_cookie = match self.settings.cookies {
            CookiePolicy::Always => true,
            CookiePolicy::UnderLoad(threshold) => half_open >= threshold,
        };
        let spi = self.fresh_spi(rng);
        let cookies = &mut self.cookies;
        let desk = InitDesk { settings: &self.settings, cookies, demand_cookie, now, spi };
        match init::answer(desk, path, datagram, parsed, rng)? {
            InitAnswer::Stateless(message) => self.transmits.push_back(Transmit { path, message }),
            InitAnswer::Agreed(agreed) => {
                tracing::debug!(remote = %path.remote, suite = %agreed.suite, "IKE_SA_INIT answered");
                let message = agreed.response.clone();
                self.transmits.push_back(Transmit { path, message });
                let state = State::HalfOpen(Box::new(HalfOpen::new(agreed, path)));
                self.clients.insert(spi, Client { init: request, since: now, state });
            }
        }
        Ok(())
    }

    fn handle_auth(
        &mut self,
        now: Instant,
        path: Path,
        datagram: &[u8],
        parsed: &ParsedMessage,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        let id = parsed.header.spi_r;
        let Some(Client { init, since, state: State::HalfOpen(half) }) = self.clients.remove(&id) else {
            return Ok(());
        };
        let wall_clock = self.wall_clock;
        let (settings, leases) = (&self.settings, &mut self.leases);
        let mut desk = AuthDesk { settings, leases, holder: id, now, wall_clock };
        let transmits = &mut self.transmits;
        let (step, outcome) = half.handle_datagram(&mut desk, path, (datagram, parsed), transmits, rng);
        match step {
            Step::Stay(mut half) => {
                if let Some(refused) = half.take_refusal() {
                    tracing::info!(remote = %path.remote, reason = %refused, "client refused");
                }
                self.clients.insert(id, Client { init, since, state: State::HalfOpen(half) });
            }
            Step::Entered(entered) => self.enter(now, id, (init, since), *entered, rng),
        }
        outcome
    }

    fn enter(
        &mut self,
        now: Instant,
        id: u64,
        (init, since): (InitRequest, Instant),
        entered: Entered,
        rng: &mut dyn CryptoRng,
    ) {
        let Entered { sa, name, addresses, initial_contact, redirectable, keys } = entered;
        let (client, path) = (ClientId(id), sa.path());
        let stepped_aside = !initial_contact && self.settings.unique && self.step_aside(now, &name, path);
        if (self.settings.unique || initial_contact) && !stepped_aside {
            self.replace_older(now, &name, initial_contact, rng);
        }
        tracing::info!(
            name,
            ?addresses,
            remote = %path.remote,
            suite = %sa.suite(),
            children = sa.children().len(),
            "client connected"
        );
        if self.settings.log_keys {
            let (spis, suite, keys) = (sa.spis(), *sa.suite(), Box::new(keys));
            self.events.push_back(GatewayEvent::IkeKeys { spis, suite, keys });
        }
        let up = GatewayEvent::ClientUp { client, name: name.clone(), addresses: addresses.clone(), path };
        self.events.push_back(up);
        for child in sa.children() {
            let (spi_in, child) = (child.spi_in, Box::new(child.clone()));
            self.events.push_back(GatewayEvent::ChildUp { client, child, path });
            if !stepped_aside {
                self.events.push_back(GatewayEvent::ChildCarries { client, spi_in });
            }
        }
        let up = Up {
            fading: Vec::new(),
            name,
            addresses,
            redirectable,
            replaced: false,
            stepped_aside: false,
            leaves_at: None,
            silent: sa.carrying().filter(|_| stepped_aside),
            authentic_until: self.settings.auth_lifetime.map(|lifetime| now + lifetime),
            sa,
        };
        let state = State::Up(Box::new(up));
        self.clients.insert(id, Client { init, since, state });
        self.drain(now, id);
    }

    /// The same client from the same place logs in anew, as before its authentication is over: its older IKE_SA goes on
    /// receiving until it deletes it. Whether there is such a one.
    fn step_aside(&mut self, now: Instant, name: &str, path: Path) -> bool {
        let mut found = false;
        for client in self.clients.values_mut() {
            let State::Up(up) = &mut client.state else { continue };
            if up.is_current() && up.name == name && up.sa.path() == path && !up.sa.is_closed() {
                tracing::info!(name, reason = "the client logged in anew", "client gone");
                up.stepped_aside = true;
                up.leaves_at = Some(now + OVERLAP);
                up.authentic_until = None;
                up.sa.step_aside();
                found = true;
            }
        }
        found
    }

    /// This client sends with the CHILD_SA of its newest login from now on, if it does not yet.
    fn let_carry(&mut self, id: u64) {
        if let Some(Client { state: State::Up(up), .. }) = self.clients.get_mut(&id)
            && let Some(spi_in) = up.silent.take()
        {
            self.events.push_back(GatewayEvent::ChildCarries { client: ClientId(id), spi_in });
        }
    }

    /// What the older login of a client carried, its newer one carries before the older one goes.
    fn follow_stepped_aside(&mut self, id: u64) {
        let Some(Client { state: State::Up(up), .. }) = self.clients.get(&id) else { return };
        if !up.stepped_aside || !up.sa.children().is_empty() {
            return;
        }
        let name = up.name.clone();
        let newer = |(_, client): &(&u64, &Client)| matches!(&client.state, State::Up(up) if up.name == name && up.silent.is_some());
        let heirs: Vec<u64> = self.clients.iter().filter(newer).map(|(id, _)| *id).collect();
        heirs.into_iter().for_each(|heir| self.let_carry(heir));
    }

    /// Ends a client's older IKE_SAs. With INITIAL_CONTACT it knows nothing of them and is told nothing (RFC 7296
    /// section 2.4); else it is told.
    fn replace_older(&mut self, now: Instant, name: &str, silently: bool, rng: &mut dyn CryptoRng) {
        let mut older = Vec::new();
        for (id, client) in &mut self.clients {
            let State::Up(up) = &mut client.state else { continue };
            if up.replaced || up.name != name {
                continue;
            }
            for child in up.sa.children() {
                let client = ClientId(*id);
                self.events.push_back(GatewayEvent::ChildDown { client, spi_in: child.spi_in });
            }
            tracing::info!(name, reason = "replaced by a newer connection", "client gone");
            let (client, name) = (ClientId(*id), up.name.clone());
            self.events.push_back(GatewayEvent::ClientGone { client, name, reason: CloseReason::Deleted });
            up.replaced = true;
            up.sa.close(now, rng);
            older.push(*id);
        }
        for id in older {
            if silently {
                self.clients.remove(&id);
            } else {
                self.drain(now, id);
            }
        }
    }

    /// Takes out of an IKE_SA what it has for us.
    fn drain(&mut self, now: Instant, id: u64) {
        self.follow_stepped_aside(id);
        let Some(Client { state: State::Up(up), .. }) = self.clients.get_mut(&id) else { return };
        up.drain_fading(&mut self.transmits);
        self.transmits.extend(std::iter::from_fn(|| up.sa.poll_transmit()));
        let client = ClientId(id);
        let mut closed = None;
        while let Some(event) = up.sa.poll_event() {
            let event = match event {
                SaEvent::Closed(reason) => {
                    closed = Some(reason);
                    continue;
                }
                SaEvent::Rekeyed(successor) => {
                    let Successor { sa, keys } = *successor;
                    self.by_spi.insert(sa.own_spi(), id);
                    if self.settings.log_keys {
                        let (spis, suite, keys) = (sa.spis(), *sa.suite(), Box::new(keys));
                        self.events.push_back(GatewayEvent::IkeKeys { spis, suite, keys });
                    }
                    let old = std::mem::replace(&mut up.sa, sa);
                    up.fading.push(old);
                    continue;
                }
                SaEvent::Redundant(redundant) => {
                    self.by_spi.insert(redundant.own_spi(), id);
                    up.fading.push(*redundant);
                    continue;
                }
                _ if up.replaced => continue,
                SaEvent::ChildUp { child, replaces: _ } => {
                    GatewayEvent::ChildUp { client, child, path: up.sa.path() }
                }
                SaEvent::ChildCarries { spi_in } => GatewayEvent::ChildCarries { client, spi_in },
                SaEvent::ChildDown { spi_in, spi_out: _ } => GatewayEvent::ChildDown { client, spi_in },
                SaEvent::PathChanged(path) => GatewayEvent::PathChanged { client, path },
                SaEvent::PeerAddresses => {
                    tracing::debug!(name = up.name, addresses = ?up.sa.peer_addresses(), "other addresses");
                    continue;
                }
                SaEvent::PathWorks(_)
                | SaEvent::PathFailed(_)
                | SaEvent::MoveRefused(_)
                | SaEvent::Redirected(_) => continue,
                SaEvent::ChildRefused(notify) => {
                    tracing::info!(name = up.name, %notify, "the client refused a CHILD_SA");
                    continue;
                }
                SaEvent::AuthLifetime(_) => continue,
                SaEvent::RekeyRefused(notify) | SaEvent::IkeRekeyRefused(notify) => {
                    tracing::info!(name = up.name, %notify, "the client refused a renewal");
                    continue;
                }
            };
            self.events.push_back(event);
        }
        up.drain_fading(&mut self.transmits);
        let Some(reason) = closed else {
            let alive = up.own_spis();
            self.by_spi.retain(|spi, client| *client != id || alive.contains(spi));
            return;
        };
        let (name, replaced) = (up.name.clone(), !up.is_current());
        self.clients.remove(&id);
        self.by_spi.retain(|_, client| *client != id);
        self.leases.release(id, now);
        if !replaced {
            tracing::info!(name, ?reason, "client gone");
            self.events.push_back(GatewayEvent::ClientGone { client, name, reason });
        }
    }

    fn fresh_spi(&self, rng: &mut dyn CryptoRng) -> u64 {
        loop {
            let spi = rng.next_u64();
            if spi != 0 && !self.clients.contains_key(&spi) {
                return spi;
            }
        }
    }

    fn children(&self) -> impl Iterator<Item = (u64, &ChildSa)> {
        self.clients.iter().flat_map(|(id, client)| {
            let children = match &client.state {
                State::Up(up) => up.sa.children(),
                State::HalfOpen(_) => &[],
            };
            children.iter().map(|child| (*id, child))
        })
    }

    fn owner_of(&mut self, spi_in: u32) -> Option<(u64, &mut Up)> {
        self.clients.iter_mut().find_map(|(id, client)| match &mut client.state {
            State::Up(up) if up.sa.children().iter().any(|child| child.spi_in == spi_in) => {
                Some((*id, &mut **up))
            }
            State::Up(_) | State::HalfOpen(_) => None,
        })
    }
}

fn sha256(octets: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest::digest(&digest::SHA256, octets).as_ref()) {
        *to = *from;
    }
    out
}
