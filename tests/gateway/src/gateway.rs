//! The whole gateway without I/O: many clients, one clock.
//!
//! A client is known by our SPI. It begins as [`HalfOpen`] and becomes an [`IkeSa`]; what the owner has to do in the data
//! path comes out as [`GatewayEvent`]s, in order.

mod dhcp;
mod drain;
mod entry;
mod event;
mod group;

pub use event::{ClientId, ClientInfo, GatewayEvent, PathInfo};

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use rand_core::CryptoRng;
use ropewalk_ike::error::{PeerMisbehaved, WireError};
use ropewalk_ike::exchange::child::ChildSa;
use ropewalk_ike::exchange::version::refuse_version;
use ropewalk_ike::exchange::{Path, Transmit};
use ropewalk_ike::time::{Instant, UnixTime};
use ropewalk_ike::wire::{ExchangeType, GatewayName, Header, Message};

use crate::dhcp_relay::DhcpRelay;
use crate::group::Group;
use crate::inner::SharedLeases;
use crate::leases::Leases;
use crate::limit::RateLimit;
use crate::responder::HalfOpen;
use crate::responder::cookie::CookieJar;
use crate::settings::Settings;
use crate::stray;
use crate::up::{Strand, Up};

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
    leases: SharedLeases,
    group: Option<Group>,
    relay: Option<DhcpRelay>,
    cookies: CookieJar,
    limit: RateLimit,
    /// For ESP that nobody knows, of which there may be much more.
    esp_limit: RateLimit,
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
        let leases = SharedLeases::new(Leases::new(&settings.pools, settings.unique));
        Self {
            relay: dhcp::relay(settings.dhcp),
            settings,
            wall_clock,
            clients: BTreeMap::new(),
            by_spi: BTreeMap::new(),
            leases,
            group: None,
            cookies: CookieJar::default(),
            limit: RateLimit::default(),
            esp_limit: RateLimit::default(),
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
            State::Up(up) if up.is_current() => {
                let main = up.main()?;
                let path = |strand: &Strand| PathInfo {
                    path: strand.sa.path(),
                    spis: strand.sa.spis(),
                    children: strand.sa.children().iter().map(|child| child.spi_in).collect(),
                    main: strand.id == main.id,
                };
                Some(ClientInfo {
                    client: ClientId(*id),
                    name: up.name.clone(),
                    addresses: up.inner_addresses(),
                    remote: main.sa.path().remote,
                    suite: *main.sa.suite(),
                    children: up.children().map(|child| child.spi_in).collect(),
                    paths: up.strands.iter().map(path).collect(),
                    carriage: up.carriage(),
                })
            }
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
        self.clients.values().filter_map(of).chain(self.group.as_ref().map(Group::due)).min()
    }

    /// Acts on the clock.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        self.group_timeout(now, rng);
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
                let answer = refuse_version(datagram, major, false).filter(|_| self.limit.allow(now));
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
            return self.handle_stray(now, path, header);
        };
        match &mut client.state {
            State::Up(up) => {
                let Some(outcome) = up.handle_datagram(now, path, (ours, datagram), rng) else {
                    return self.handle_stray(now, path, header);
                };
                self.drain(now, id);
                outcome
            }
            State::HalfOpen(_) => self.handle_auth(now, path, datagram, &parsed, rng),
        }
    }

    /// Tells of authenticated ESP that came in with our SPI `spi_in` at this time: the client is alive.
    pub fn note_inbound(&mut self, spi_in: u32, at: Instant) {
        if let Some((_, strand)) = self.owner_of(spi_in).and_then(strand_of(spi_in))
            && strand.sa.comes_as_expected(spi_in)
        {
            strand.sa.note_inbound(at);
        }
    }

    /// So many authentic packets have come in with our SPI `spi_in`, the newest with this sequence number: the client is told
    /// when it asks (docs/switch-notify.md).
    pub fn note_arrivals(&mut self, spi_in: u32, packets: u64, newest: u64) {
        if let Some((_, strand)) = self.owner_of(spi_in).and_then(strand_of(spi_in)) {
            strand.sa.note_arrivals(spi_in, packets, newest);
        }
    }

    /// The CHILD_SA with our SPI `spi_in` has received and sent so many octets of inner packets so far.
    pub fn note_traffic(&mut self, now: Instant, spi_in: u32, received: u64, sent: u64) {
        if let Some((id, up)) = self.owner_of(spi_in) {
            let Some(strand) = up.strand_of(spi_in) else { return };
            strand.sa.note_traffic(now, spi_in, received, sent);
            let strand = strand.id;
            up.steering.note_received(now, strand, spi_in, received);
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
        if let Some((_, strand)) = self.owner_of(spi_in).and_then(strand_of(spi_in)) {
            strand.sa.rekey_child(now, spi_in, rng);
        }
        self.drain(now, id);
    }

    /// Renews the CHILD_SAs of all clients, or their IKE_SAs; how many clients there are.
    pub fn rekey_all(&mut self, now: Instant, ike: bool, rng: &mut dyn CryptoRng) -> usize {
        let mut ids = Vec::new();
        for (id, client) in &mut self.clients {
            let State::Up(up) = &mut client.state else { continue };
            for strand in &mut up.strands {
                match strand.sa.carrying() {
                    _ if ike => strand.sa.rekey_ike(now, rng),
                    Some(spi_in) => strand.sa.rekey_child(now, spi_in, rng),
                    None => {}
                }
            }
            ids.push(*id);
        }
        for id in &ids {
            self.drain(now, *id);
        }
        ids.len()
    }

    /// Asks all clients for a further IKE_SA beside the one of their main path (KEEP_OLD_IKE_SA), which a client then gives
    /// a CHILD_SA and moves; how many were asked.
    pub fn add_paths(&mut self, now: Instant, rng: &mut dyn CryptoRng) -> usize {
        let mut ids = Vec::new();
        for (id, client) in &mut self.clients {
            if let State::Up(up) = &mut client.state
                && let Some(main) = up.main_mut()
                && main.sa.add_ike_sa(now, rng)
            {
                ids.push(*id);
            }
        }
        for id in &ids {
            self.drain(now, *id);
        }
        ids.len()
    }

    /// Authenticated ESP with our SPI `spi_in` came by another path: the client's NAT has moved it (RFC 7296 section 2.23).
    pub fn peer_moved(&mut self, now: Instant, spi_in: u32, path: Path) {
        if let Some((id, up)) = self.owner_of(spi_in) {
            if let Some(strand) = up.strand_of(spi_in) {
                strand.sa.esp_came_by(spi_in, path);
                strand.sa.follow_peer(path);
            }
            self.drain(now, id);
        }
    }

    /// ESP with an SPI that no CHILD_SA has came by this path: its sender is told, so that it asks whether we forgot it.
    pub fn unknown_esp(&mut self, now: Instant, spi: u32, path: Path) {
        if self.esp_limit.allow(now) {
            self.transmits.push_back(Transmit { path, message: stray::invalid_spi(spi) });
        }
    }

    /// Deletes a CHILD_SA of a client that cannot be installed.
    pub fn delete_child(&mut self, now: Instant, client: ClientId, spi_in: u32, rng: &mut dyn CryptoRng) {
        if let Some((_, strand)) = self.owner_of(spi_in).and_then(strand_of(spi_in)) {
            strand.sa.delete_child(now, spi_in, rng);
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
                && let Some(main) = up.main_mut()
            {
                main.sa.redirect(now, to.clone(), rng);
                ids.push(*id);
            }
        }
        for id in &ids {
            self.drain(now, *id);
        }
        ids.len()
    }

    /// The gateway has these addresses from now on. The clients that speak MOBIKE are told, those that come by an address that
    /// is gone from the one that `way` gives instead (RFC 4555 section 3.6); how many there were.
    pub fn change_addresses(
        &mut self,
        now: Instant,
        own: &[IpAddr],
        way: impl Fn(Path) -> Option<Path>,
        rng: &mut dyn CryptoRng,
    ) -> usize {
        self.settings.addresses = own.to_vec();
        let mut ids = Vec::new();
        for (id, client) in &mut self.clients {
            if let State::Up(up) = &mut client.state
                && let Some(main) = up.main_mut()
                && main.sa.features().mobike
            {
                let by = way(main.sa.path());
                main.sa.announce_addresses(now, own.to_vec(), by, rng);
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
                up.close(now, rng);
                ids.push(*id);
            }
        }
        for id in &ids {
            self.drain(now, *id);
        }
        ids.len()
    }

    /// A message for an IKE_SA that does not exist, or not any more.
    fn handle_stray(&mut self, now: Instant, path: Path, header: Header) -> Result<(), PeerMisbehaved> {
        let answer = stray::unknown_spi(header, self.settings.crash_tokens.as_ref());
        let answer = answer.filter(|_| self.limit.allow(now));
        self.transmits.extend(answer.map(|message| Transmit { path, message }));
        Err(PeerMisbehaved::WrongSpi)
    }

    fn children(&self) -> impl Iterator<Item = (u64, &ChildSa)> {
        self.clients.iter().flat_map(|(id, client)| {
            let up = match &client.state {
                State::Up(up) => Some(up),
                State::HalfOpen(_) => None,
            };
            up.into_iter().flat_map(|up| up.children()).map(|child| (*id, child))
        })
    }

    fn owner_of(&mut self, spi_in: u32) -> Option<(u64, &mut Up)> {
        self.clients.iter_mut().find_map(|(id, client)| match &mut client.state {
            State::Up(up) if up.children().any(|child| child.spi_in == spi_in) => Some((*id, &mut **up)),
            State::Up(_) | State::HalfOpen(_) => None,
        })
    }
}

/// The strand of a client that has this CHILD_SA.
fn strand_of(spi_in: u32) -> impl Fn((u64, &mut Up)) -> Option<(u64, &mut Strand)> {
    move |(id, up)| up.strand_of(spi_in).map(|strand| (id, strand))
}
