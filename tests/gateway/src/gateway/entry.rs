//! How clients come in, and what their older logins come to then.

use std::time::Duration;

use rand_core::CryptoRng;
use ring::digest;
use ropewalk_ike::error::PeerMisbehaved;
use ropewalk_ike::exchange::sa::CloseReason;
use ropewalk_ike::exchange::{Path, Transmit};
use ropewalk_ike::time::Instant;
use ropewalk_ike::wire::ParsedMessage;

use super::{Client, ClientId, Gateway, GatewayEvent, InitRequest, State};
use crate::responder::init::{self, InitAnswer, InitDesk};
use crate::responder::{AuthDesk, Entered, HalfOpen, Step};
use crate::settings::CookiePolicy;
use crate::up::{Strand, Up};

/// How long an older login of a client goes on beside a newer one: longer than the client may take until the last answer
/// of IKE_AUTH arrives.
const OVERLAP: Duration = Duration::from_secs(40);

impl Gateway {
    pub(super) fn handle_init(
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

    pub(super) fn handle_auth(
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
        let mut leases = self.leases.get();
        let settings = &self.settings;
        let mut desk = AuthDesk { settings, leases: &mut leases, holder: id, now, wall_clock };
        let transmits = &mut self.transmits;
        let (step, outcome) = half.handle_datagram(&mut desk, path, (datagram, parsed), transmits, rng);
        drop(leases);
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
            let child = Box::new(child.clone());
            self.events.push_back(GatewayEvent::ChildUp { client, child, path });
        }
        let mut up = Up::new(sa, name, addresses, redirectable);
        up.silent = stepped_aside;
        up.authentic_until = self.settings.auth_lifetime.map(|lifetime| now + lifetime);
        let state = State::Up(Box::new(up));
        self.clients.insert(id, Client { init, since, state });
        self.admit_to_group(now, id, rng);
        self.drain(now, id);
    }

    /// The same client from the same place logs in anew, as before its authentication is over: its older IKE_SA goes on
    /// receiving until it deletes it. Whether there is such a one.
    fn step_aside(&mut self, now: Instant, name: &str, path: Path) -> bool {
        let mut found = false;
        for client in self.clients.values_mut() {
            let State::Up(up) = &mut client.state else { continue };
            let there = |strand: &Strand| strand.sa.path() == path && !strand.sa.is_closed();
            if up.is_current() && up.name == name && up.strands.iter().any(there) {
                tracing::info!(name, reason = "the client logged in anew", "client gone");
                up.step_aside(now + OVERLAP);
                found = true;
            }
        }
        found
    }

    /// This client is sent to with the CHILD_SA of its newest login from now on, if it is not yet.
    pub(super) fn let_carry(&mut self, id: u64) {
        if let Some(Client { state: State::Up(up), .. }) = self.clients.get_mut(&id)
            && std::mem::take(&mut up.silent)
        {
            self.tell_carriage(id);
        }
    }

    /// Tells the owner with what a client is sent to, when that is news.
    pub(super) fn tell_carriage(&mut self, id: u64) {
        let Some(Client { state: State::Up(up), .. }) = self.clients.get(&id) else { return };
        // Of a login that stepped aside one path goes after the other, and that is no news once the newer one carries.
        let (aside, name) = (up.stepped_aside, &up.name);
        let carries = |client: &Client| matches!(&client.state, State::Up(up) if up.is_current() && !up.silent && up.name == *name);
        if aside && self.clients.values().any(carries) {
            return;
        }
        if let Some(Client { state: State::Up(up), .. }) = self.clients.get_mut(&id)
            && !up.replaced
            && let Some(carriage) = up.carriage()
            && up.told.as_ref() != Some(&carriage)
        {
            up.told = Some(carriage.clone());
            self.events.push_back(GatewayEvent::Carriage { client: ClientId(id), carriage });
        }
    }

    /// What the older login of a client carried, its newer one carries before the older one goes.
    pub(super) fn follow_stepped_aside(&mut self, id: u64) {
        let Some(Client { state: State::Up(up), .. }) = self.clients.get(&id) else { return };
        if !up.stepped_aside || up.children().next().is_some() {
            return;
        }
        let name = up.name.clone();
        let newer = |(_, client): &(&u64, &Client)| matches!(&client.state, State::Up(up) if up.name == name && up.silent);
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
            for child in up.children() {
                let client = ClientId(*id);
                self.events.push_back(GatewayEvent::ChildDown { client, spi_in: child.spi_in });
            }
            tracing::info!(name, reason = "replaced by a newer connection", "client gone");
            let (client, name) = (ClientId(*id), up.name.clone());
            self.events.push_back(GatewayEvent::ClientGone { client, name, reason: CloseReason::Deleted });
            up.replaced = true;
            up.close(now, rng);
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

    fn fresh_spi(&self, rng: &mut dyn CryptoRng) -> u64 {
        loop {
            let spi = rng.next_u64();
            if spi != 0 && !self.clients.contains_key(&spi) && !self.by_spi.contains_key(&spi) {
                return spi;
            }
        }
    }
}

fn sha256(octets: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest::digest(&digest::SHA256, octets).as_ref()) {
        *to = *from;
    }
    out
}
