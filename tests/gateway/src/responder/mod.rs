//! The responder's half of the initial exchanges (RFC 7296 section 1.2), without I/O.
//!
//! - [`init`]: IKE_SA_INIT, answered without memory until it leads on.
//! - [`auth`]: IKE_AUTH, one type a state.
//! - [`eap`]: the server's side of EAP-MSCHAPv2.
//! - [`grant`]: inner addresses and the first CHILD_SA.
//! - [`cookie`]: proof of the client's address without state.
//!
//! [`HalfOpen`] carries a client from the one to the other and ends in an [`IkeSa`]. After a refusal it stays for a
//! while, only to repeat its last answer when that was lost.

pub mod auth;
pub mod cookie;
pub mod eap;
pub mod grant;
pub mod init;

use std::collections::VecDeque;
use std::net::IpAddr;

use rand_core::CryptoRng;
use ropewalk_ike::crypto::{IkeCipher, IkeKeys};
use ropewalk_ike::error::{PeerMisbehaved, WireError};
use ropewalk_ike::exchange::mobike::{Mobility, additional_addresses};
use ropewalk_ike::exchange::protect::Protection;
use ropewalk_ike::exchange::retransmit::{Arrival, ResponseWindow};
use ropewalk_ike::exchange::sa::{IkeSa, SaParams};
use ropewalk_ike::exchange::{Path, Role, Transmit};
use ropewalk_ike::time::{Instant, UnixTime};
use ropewalk_ike::wire::{ExchangeType, Flags, Header, Notify, ParsedMessage, Payload, Protocol, Redirect};

use self::auth::{Admitted, AuthState, FirstAwaited, Refused, Verdict};
use self::init::Agreed;
use crate::leases::Leases;
use crate::settings::{RedirectAt, Settings};

/// What the gateway as a whole lends to a client in IKE_AUTH.
pub struct AuthDesk<'a> {
    /// The configuration.
    pub settings: &'a Settings,
    /// The inner addresses.
    pub leases: &'a mut Leases,
    /// Under which number this client holds its addresses.
    pub holder: u64,
    /// The time.
    pub now: Instant,
    /// The wall clock, for certificates.
    pub wall_clock: UnixTime,
}

/// A client that is in.
pub struct Entered {
    /// Its IKE_SA, with its first CHILD_SA unless that was refused.
    pub sa: IkeSa,
    /// Who it is: the user's name with EAP, else its identity.
    pub name: String,
    /// Its inner addresses.
    pub addresses: Vec<IpAddr>,
    /// It knows of no other IKE_SA with us.
    pub initial_contact: bool,
    /// It can be sent to another gateway (RFC 5685).
    pub redirectable: bool,
    /// The keys, for a key log.
    pub keys: IkeKeys,
}

/// Where a datagram led.
pub enum Step {
    /// The client is still on its way, or was refused.
    Stay(Box<HalfOpen>),
    /// It is in.
    Entered(Box<Entered>),
}

/// A client between IKE_SA_INIT and the end of IKE_AUTH.
pub struct HalfOpen {
    agreed: Box<Agreed>,
    /// `None` once refused.
    state: Option<AuthState>,
    window: ResponseWindow,
    path: Path,
    refused: Option<Refused>,
}

impl HalfOpen {
    /// Awaits IKE_AUTH.
    #[must_use]
    pub fn new(agreed: Box<Agreed>, path: Path) -> Self {
        let state = Some(AuthState::First(FirstAwaited));
        Self { agreed, state, window: ResponseWindow::starting_at(1), path, refused: None }
    }

    /// The answer to IKE_SA_INIT.
    #[must_use]
    pub fn init_response(&self) -> &[u8] {
        &self.agreed.response
    }

    /// Whether the client was refused or has taken its leave.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state.is_none()
    }

    /// Why it was refused, once.
    pub fn take_refusal(&mut self) -> Option<Refused> {
        self.refused.take()
    }

    /// The last path a message came by.
    #[must_use]
    pub fn path(&self) -> Path {
        self.path
    }

    /// Takes a datagram with this client's SPIs.
    ///
    /// # Errors
    /// What was wrong with it, for the log, beside where it led.
    pub fn handle_datagram(
        mut self: Box<Self>,
        desk: &mut AuthDesk<'_>,
        path: Path,
        (datagram, parsed): (&[u8], &ParsedMessage),
        transmits: &mut VecDeque<Transmit>,
        rng: &mut dyn CryptoRng,
    ) -> (Step, Result<(), PeerMisbehaved>) {
        let header = parsed.header;
        let encrypted = match self.admissible(parsed) {
            Ok(encrypted) => encrypted,
            Err(misbehaved) => return (Step::Stay(self), Err(misbehaved)),
        };
        if self.window.classify(header.message_id) == Arrival::Repeated {
            let first = self.agreed.protection.is_first_piece(datagram, &encrypted);
            if first == Ok(true) {
                let again = self.window.last_answer().iter().cloned();
                transmits.extend(again.map(|message| Transmit { path, message }));
            }
            return (Step::Stay(self), first.map(|_| ()));
        }
        let opened = match self.agreed.protection.open(desk.now, datagram, &header, &encrypted) {
            Ok(Some(opened)) => opened,
            Ok(None) => return (Step::Stay(self), Ok(())),
            Err(misbehaved) => return (Step::Stay(self), Err(misbehaved)),
        };
        self.path = path;
        let Some(state) = self.state.take() else { return (Step::Stay(self), Ok(())) };
        let payloads = match opened.payloads() {
            Ok(payloads) => payloads,
            Err(wire) => {
                let outcome = self.answer(header, &[error_notify(wire)], transmits, rng);
                return (Step::Stay(self), outcome.and(Err(wire.into())));
            }
        };
        if header.exchange == ExchangeType::Informational {
            return self.leave(header, &payloads, state, transmits, rng);
        }
        let first = matches!(state, AuthState::First(_));
        match state.handle(&self.agreed, desk, &payloads, rng) {
            Verdict::Next(state, mut answer) => {
                if first && let Some(redirect) = self.redirection(desk, &[RedirectAt::Name]) {
                    answer.retain(|payload| !matches!(payload, Payload::Eap(_)));
                    answer.push(redirect);
                }
                self.state = Some(state);
                let outcome = self.answer(header, &answer, transmits, rng);
                (Step::Stay(self), outcome)
            }
            Verdict::Refused(refused, answer) => {
                self.refused = Some(refused);
                let outcome = self.answer(header, &answer, transmits, rng);
                (Step::Stay(self), outcome)
            }
            Verdict::Admitted(admitted) => self.enter(desk, header, *admitted, transmits, rng),
        }
    }

    fn admissible(&self, parsed: &ParsedMessage) -> Result<ropewalk_ike::wire::EncryptedRef, PeerMisbehaved> {
        let header = parsed.header;
        if header.spi_i != self.agreed.spis.initiator || header.spi_r != self.agreed.spis.responder {
            return Err(PeerMisbehaved::WrongSpi);
        }
        if header.flags.response || !header.flags.initiator {
            return Err(PeerMisbehaved::WrongDirection);
        }
        let Some(encrypted) = &parsed.encrypted else { return Err(PeerMisbehaved::NotEncrypted) };
        match header.exchange {
            ExchangeType::IkeAuth | ExchangeType::Informational => {}
            ExchangeType::IkeSaInit | ExchangeType::CreateChildSa | ExchangeType::Other(_) => {
                return Err(PeerMisbehaved::WrongExchange { exchange: header.exchange });
            }
        }
        if self.window.classify(header.message_id) == Arrival::Outside {
            return Err(PeerMisbehaved::OutsideWindow { message_id: header.message_id });
        }
        Ok(encrypted.clone())
    }

    /// Before it has proved itself a client can do only one thing besides: take its leave.
    fn leave(
        mut self: Box<Self>,
        header: Header,
        payloads: &[Payload],
        state: AuthState,
        transmits: &mut VecDeque<Transmit>,
        rng: &mut dyn CryptoRng,
    ) -> (Step, Result<(), PeerMisbehaved>) {
        let leaves = payloads
            .iter()
            .any(|payload| matches!(payload, Payload::Delete(delete) if delete.protocol == Protocol::Ike));
        if !leaves {
            self.state = Some(state);
            return (Step::Stay(self), Err(PeerMisbehaved::WrongExchange { exchange: header.exchange }));
        }
        let outcome = self.answer(header, &[], transmits, rng);
        (Step::Stay(self), outcome)
    }

    fn answer(
        &mut self,
        header: Header,
        payloads: &[Payload],
        transmits: &mut VecDeque<Transmit>,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        let flags = Flags { initiator: false, response: true, version: false };
        let response = Header { flags, ..header };
        let (fragment, path) = (self.agreed.features.fragmentation, self.path);
        let datagrams = self
            .agreed
            .protection
            .seal(response, payloads, fragment, path, rng)
            .map_err(|_| PeerMisbehaved::CannotAnswer)?;
        transmits.extend(datagrams.iter().cloned().map(|message| Transmit { path, message }));
        self.window.answered(datagrams);
        Ok(())
    }

    /// The word that sends a client elsewhere, if it is to go at this moment.
    fn redirection(&self, desk: &AuthDesk<'_>, moments: &[RedirectAt]) -> Option<Payload> {
        let (at, to) = desk.settings.redirect.as_ref().filter(|_| self.agreed.redirectable)?;
        let redirect = Redirect { to: to.clone(), nonce: Vec::new() };
        moments.contains(at).then(|| Payload::Notify(redirect.notify()))
    }

    fn enter(
        mut self: Box<Self>,
        desk: &mut AuthDesk<'_>,
        header: Header,
        admitted: Admitted,
        transmits: &mut VecDeque<Transmit>,
        rng: &mut dyn CryptoRng,
    ) -> (Step, Result<(), PeerMisbehaved>) {
        let Admitted { proof, peer_id, name, wishes } = admitted;
        if let Some(redirect) = self.redirection(desk, &[RedirectAt::Auth, RedirectAt::Name]) {
            tracing::info!(name, "a client that proved itself is sent elsewhere");
            let mut answer = proof;
            answer.push(redirect);
            let outcome = self.answer(header, &answer, transmits, rng);
            return (Step::Stay(self), outcome);
        }
        let grant = wishes.grant(desk, &self.agreed, &name, self.path, rng);
        let mut answer = proof;
        answer.extend(grant.payloads);
        let mobike = desk.settings.mobike && wishes.mobike;
        if mobike {
            answer.push(Payload::Notify(Notify::status(ropewalk_ike::wire::NotifyType::MobikeSupported)));
            answer.extend(additional_addresses(&desk.settings.addresses, self.path.local.ip()));
        }
        if let Some(tokens) = &desk.settings.crash_tokens {
            answer.push(Payload::Notify(tokens.notify(self.agreed.spis)));
        }
        answer.extend(desk.settings.auth_lifetime.map(|lifetime| {
            let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
            Payload::Notify(Notify::new(
                ropewalk_ike::wire::NotifyType::AuthLifetime,
                seconds.to_be_bytes().to_vec(),
            ))
        }));
        self.agreed.features.mobike = mobike;
        let settings = desk.settings;
        let Agreed { spis, suite, prf, nat, features, .. } = *self.agreed;
        let (path, keys) = (self.path, self.agreed.keys.clone());
        let params = |protection, window, child| SaParams {
            role: Role::Responder,
            spis,
            path,
            suite,
            prf,
            sk_d: keys.sk_d.clone(),
            protection,
            next_request: 0,
            window,
            features,
            peer_id: peer_id.clone(),
            nat,
            ike_proposals: settings.ike_proposals.clone(),
            lifetimes: settings.lifetimes,
            policy: grant.policy.clone(),
            child,
            dpd: settings.dpd,
            mobility: Mobility::of_responder(
                settings.move_policy(),
                settings.addresses.clone(),
                wishes.addresses.clone(),
            ),
            keep_old: settings.keep_old,
        };
        // The answer grants the further IKE_SA too, so that one is made from a likeness of the first, which seals nothing.
        let cipher = IkeCipher::from_iana(suite.encr, suite.key_bits, suite.integ);
        let cipher = cipher.filter(|_| settings.keep_old_in_auth && !settings.minimal);
        let unused = cipher.and_then(|cipher| Protection::new(cipher, &keys, Role::Responder).ok());
        let further = unused.and_then(|unused| {
            let likeness = IkeSa::new(desk.now, params(unused, ResponseWindow::default(), None));
            likeness.answer_shortened(desk.now, &wishes.further, rng)
        });
        let further = further.map(|(further, granted)| {
            answer.extend(granted);
            further
        });
        if let Err(misbehaved) = self.answer(header, &answer, transmits, rng) {
            return (Step::Stay(self), Err(misbehaved));
        }
        let redirectable = self.agreed.redirectable;
        let Self { agreed, window, .. } = *self;
        let mut sa = IkeSa::new(desk.now, params(agreed.protection, window, grant.child));
        if let Some(further) = further {
            sa.adopt(further);
        }
        if let Some(tokens) = &desk.settings.crash_tokens {
            sa.make_tokens(tokens.clone());
        }
        if desk.settings.minimal {
            sa.refuse_more();
        }
        let initial_contact = wishes.initial_contact;
        let addresses = grant.addresses;
        let entered = Entered { sa, name, addresses, initial_contact, redirectable, keys };
        (Step::Entered(Box::new(entered)), Ok(()))
    }
}

fn error_notify(wire: WireError) -> Payload {
    let (notify, data) = wire.answer();
    Payload::Notify(Notify::new(notify, data))
}
