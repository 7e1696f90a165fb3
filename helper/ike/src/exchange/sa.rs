//! An established IKE_SA: one struct for both roles, with a table of running tasks.
//!
//! After IKE_AUTH the two ends are equals. What one of them wants is a [`Task`] in a queue, because the window allows
//! one request at a time (RFC 7296 section 2.3); what the peer wants is answered at once. Only authenticated messages
//! change anything: an [`Err`] from [`IkeSa::handle_datagram`] is something to log, never a reason to end.

use std::collections::VecDeque;
use std::time::Duration;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::child::ChildSa;
use super::crash::Token;
use super::create_child_sa::{ChildPolicy, PendingChild};
use super::lifetime::Lifetimes;
use super::liveness::Stall;
use super::mobike::{MobikeTask, Mobility, Travelled};
use super::nat::NatSituation;
use super::protect::{Opened, Protection};
use super::rekey_ike::{PendingIke, Successor};
use super::renewal::Renewal;
use super::retransmit::{Arrival, Due, Outstanding, ResponseWindow, RetransmitPolicy};
use super::{IkeSpis, Path, Role, Transmit};
use crate::crypto::Prf;
use crate::error::PeerMisbehaved;
use crate::proposal::{ChosenIke, IkeProposal};
use crate::time::Instant;
use crate::wire::{
    ExchangeType, Flags, GatewayName, Header, Identification, Message, NotifyType, Payload, Redirect,
};

/// What the peer announced it can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// RFC 7383.
    pub fragmentation: bool,
    /// RFC 4555.
    pub mobike: bool,
}

/// What the initial exchanges hand over.
pub struct SaParams {
    /// Who began the IKE_SA.
    pub role: Role,
    /// Its SPIs.
    pub spis: IkeSpis,
    /// The path of its last message.
    pub path: Path,
    /// The negotiated suite.
    pub suite: ChosenIke,
    /// Its PRF.
    pub prf: Prf,
    /// SK_d, from which CHILD_SA keys come.
    pub sk_d: Zeroizing<Vec<u8>>,
    /// SK_e and SK_a of both directions.
    pub protection: Protection,
    /// The Message ID of our next request.
    pub next_request: u32,
    /// The receiving window, with the last answer of the initial exchanges for a responder.
    pub window: ResponseWindow,
    /// What the peer can do.
    pub features: Features,
    /// Who the peer proved to be.
    pub peer_id: Identification,
    /// Where NATs are.
    pub nat: NatSituation,
    /// What an IKE_SA that takes this one's place may be.
    pub ike_proposals: Vec<IkeProposal>,
    /// When the IKE_SA and its CHILD_SAs are renewed.
    pub lifetimes: Lifetimes,
    /// What CHILD_SAs may be.
    pub policy: ChildPolicy,
    /// The first CHILD_SA, unless there is none.
    pub child: Option<ChildSa>,
    /// Silence after which the peer's liveness is checked; `None` never checks.
    pub dpd: Option<Duration>,
    /// What is known of moving (RFC 4555).
    pub mobility: Mobility,
}

/// Why an IKE_SA ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// We deleted it.
    Deleted,
    /// The peer deleted it.
    DeletedByPeer,
    /// The peer stopped answering.
    PeerDead,
    /// The peer lost its memory and has shown so by the token that it gave us (RFC 6290).
    PeerRestarted,
    /// The peer answered with a fatal error, or we told it of one.
    Fatal(NotifyType),
    /// The peer's answer brought another COOKIE2 than was sent (RFC 4555 section 3.7).
    CookieMismatch,
    /// It was not renewed before its end.
    Expired,
}

/// What the owner of an IKE_SA has to know.
#[derive(Debug)]
pub enum SaEvent {
    /// A CHILD_SA to install for receiving; it takes the place of the one with the inbound SPI `replaces`.
    ChildUp {
        /// The new one.
        child: Box<ChildSa>,
        /// The inbound SPI of the one that it replaces.
        replaces: Option<u32>,
    },
    /// Send with this CHILD_SA, by our SPI, from now on.
    ChildCarries {
        /// Our SPI of it.
        spi_in: u32,
    },
    /// A CHILD_SA to remove.
    ChildDown {
        /// Our SPI of it.
        spi_in: u32,
        /// The peer's SPI of it.
        spi_out: u32,
    },
    /// The peer refused a CHILD_SA that we asked for.
    ChildRefused(NotifyType),
    /// The peer refused to renew a CHILD_SA; what is there goes on until its hard limit.
    RekeyRefused(NotifyType),
    /// The peer refused to renew the IKE_SA, which goes on until its hard limit.
    IkeRekeyRefused(NotifyType),
    /// The authentication holds for so long from now on (RFC 4478): the client has to log in anew before.
    AuthLifetime(Duration),
    /// A new IKE_SA takes this one's place and has its CHILD_SAs. This one is only kept until it says [`Self::Closed`].
    Rekeyed(Box<Successor>),
    /// Both ends rekeyed the IKE_SA at once: this one is not needed, and only kept until it says [`Self::Closed`].
    Redundant(Box<IkeSa>),
    /// CHILD_SAs send by this path from now on: the peer moved, or we did and the peer has answered.
    PathChanged(Path),
    /// A tested path works.
    PathWorks(Path),
    /// A tested path does not.
    PathFailed(Path),
    /// The peer does not let us move to the path that requests go by.
    MoveRefused(NotifyType),
    /// The peer's list of addresses is another one.
    PeerAddresses,
    /// The gateway sends us to another one (RFC 5685 section 5).
    Redirected(GatewayName),
    /// The IKE_SA is over; all its CHILD_SAs went before.
    Closed(CloseReason),
}

/// What we want from the peer.
#[derive(Debug)]
pub(super) enum Task {
    /// An empty INFORMATIONAL: is the peer there?
    Liveness,
    /// Delete CHILD_SAs by our SPIs.
    DeleteChildren(Vec<u32>),
    /// Delete the IKE_SA.
    DeleteIke,
    /// Tell the peer something.
    Inform(Vec<Payload>),
    /// A further CHILD_SA, or one in the place of another.
    CreateChild(Box<PendingChild>),
    /// An IKE_SA in the place of this one.
    RekeyIke(Box<PendingIke>),
    /// Something of RFC 4555.
    Mobike(MobikeTask),
}

pub(super) struct InFlight {
    pub(super) outstanding: Outstanding,
    pub(super) task: Task,
    pub(super) path: Path,
    /// It went by another path first.
    pub(super) rerouted: bool,
}

/// An established IKE_SA.
pub struct IkeSa {
    /// Who began the first IKE_SA of this line, whatever was rekeyed since (RFC 4555 section 2.1).
    pub(super) role: Role,
    /// Who began the exchange that made this one: its flags and keys go by that (RFC 7296 section 2.18).
    pub(super) sa_role: Role,
    pub(super) spis: IkeSpis,
    pub(super) path: Path,
    pub(super) suite: ChosenIke,
    pub(super) prf: Prf,
    pub(super) sk_d: Zeroizing<Vec<u8>>,
    protection: Protection,
    next_request: u32,
    window: ResponseWindow,
    pub(super) features: Features,
    pub(super) peer_id: Identification,
    pub(super) nat: NatSituation,
    pub(super) policy: ChildPolicy,
    pub(super) children: Vec<ChildSa>,
    pub(super) renewal: Renewal,
    pub(super) dpd: Option<Duration>,
    pub(super) mobility: Mobility,
    pub(super) last_inbound: Instant,
    pub(super) stall: Stall,
    pub(super) tasks: VecDeque<Task>,
    pub(super) in_flight: Option<InFlight>,
    pub(super) transmits: VecDeque<Transmit>,
    pub(super) events: VecDeque<SaEvent>,
    closed: bool,
    pub(super) token: Option<Token>,
}

impl std::fmt::Debug for IkeSa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IkeSa")
            .field("role", &self.role)
            .field("spis", &self.spis)
            .field("children", &self.children.len())
            .finish_non_exhaustive()
    }
}

impl IkeSa {
    /// Takes over from the initial exchanges.
    #[must_use]
    pub fn new(now: Instant, params: SaParams) -> Self {
        let own_spi = own_spi(params.role, params.spis);
        let renewal =
            Renewal::new(now, own_spi, params.lifetimes, params.ike_proposals, params.child.as_ref());
        Self {
            role: params.role,
            sa_role: params.role,
            spis: params.spis,
            path: params.path,
            suite: params.suite,
            prf: params.prf,
            sk_d: params.sk_d,
            protection: params.protection,
            next_request: params.next_request,
            window: params.window,
            features: params.features,
            peer_id: params.peer_id,
            nat: params.nat,
            policy: params.policy,
            children: params.child.into_iter().collect(),
            renewal,
            dpd: params.dpd,
            mobility: params.mobility,
            last_inbound: now,
            stall: Stall::default(),
            tasks: VecDeque::new(),
            in_flight: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            closed: false,
            token: None,
        }
    }

    /// Its SPIs.
    #[must_use]
    pub fn spis(&self) -> IkeSpis {
        self.spis
    }

    /// The one of its SPIs that we chose.
    #[must_use]
    pub fn own_spi(&self) -> u64 {
        own_spi(self.sa_role, self.spis)
    }

    /// The path it uses.
    #[must_use]
    pub fn path(&self) -> Path {
        self.path
    }

    /// The negotiated suite.
    #[must_use]
    pub fn suite(&self) -> &ChosenIke {
        &self.suite
    }

    /// What the peer can do.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    /// Who the peer proved to be.
    #[must_use]
    pub fn peer_id(&self) -> &Identification {
        &self.peer_id
    }

    /// Where NATs were seen.
    #[must_use]
    pub fn nat(&self) -> NatSituation {
        self.nat
    }

    /// Its CHILD_SAs.
    #[must_use]
    pub fn children(&self) -> &[ChildSa] {
        &self.children
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing that the owner has to know.
    pub fn poll_event(&mut self) -> Option<SaEvent> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called; `None` once closed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let own = match &self.in_flight {
            Some(in_flight) => Some(in_flight.outstanding.timeout()),
            None if !self.tasks.is_empty() => Some(Instant::ZERO),
            None => self.liveness_due(),
        };
        [own, self.next_renewal()].into_iter().flatten().min()
    }

    /// Asks for a further CHILD_SA; the outcome is [`SaEvent::ChildUp`] or [`SaEvent::ChildRefused`].
    pub fn create_child(&mut self, now: Instant, child: PendingChild, rng: &mut dyn CryptoRng) {
        self.tasks.push_back(Task::CreateChild(Box::new(child)));
        self.start_next(now, rng);
    }

    /// Sends a client to another gateway (RFC 5685 section 5); it goes when it has been there.
    pub fn redirect(&mut self, now: Instant, to: GatewayName, rng: &mut dyn CryptoRng) {
        let redirect = Redirect { to, nonce: Vec::new() };
        self.tasks.push_back(Task::Inform(vec![Payload::Notify(redirect.notify())]));
        self.start_next(now, rng);
    }

    /// Deletes the CHILD_SA with our SPI `spi_in`.
    pub fn delete_child(&mut self, now: Instant, spi_in: u32, rng: &mut dyn CryptoRng) {
        self.tasks.push_back(Task::DeleteChildren(vec![spi_in]));
        self.start_next(now, rng);
    }

    /// Deletes the IKE_SA and with it all its CHILD_SAs; whatever was waiting is dropped.
    ///
    /// A running exchange is abandoned: the DELETE takes the next Message ID, which RFC 7296 section 2.3 allows only
    /// to a window larger than one, so a peer that insists on order is told by silence instead, as after a crash.
    pub fn close(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        self.tasks.clear();
        if self.in_flight.as_ref().is_some_and(|in_flight| matches!(in_flight.task, Task::DeleteIke)) {
            return;
        }
        self.in_flight = None;
        self.tasks.push_back(Task::DeleteIke);
        self.start_next(now, rng);
    }

    /// Acts on the clock: repeats requests, gives up on a dead peer, checks a silent one.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if self.closed {
            return;
        }
        self.renew_due(now, rng);
        if let Some(in_flight) = &mut self.in_flight {
            match in_flight.outstanding.poll(now) {
                Due::NotYet => {}
                Due::Resend => {
                    let path = in_flight.path;
                    let again = in_flight.outstanding.datagrams().iter().cloned();
                    self.transmits.extend(again.map(|message| Transmit { path, message }));
                }
                Due::GiveUp => {
                    if self.give_up_test(now) {
                        return;
                    }
                    let Some(in_flight) = &self.in_flight else { return };
                    let ours = matches!(in_flight.task, Task::DeleteIke);
                    self.finish(if ours { self.renewal.farewell() } else { CloseReason::PeerDead });
                    return;
                }
            }
        } else if self.tasks.is_empty() && self.liveness_due().is_some_and(|at| now >= at) {
            self.tasks.push_back(Task::Liveness);
        }
        self.start_next(now, rng);
    }

    /// Takes a datagram that carries this IKE_SA's SPIs.
    ///
    /// # Errors
    /// What the peer, or somebody who pretends to be it, did wrong. Unless it was authenticated and fatal
    /// ([`SaEvent::Closed`] says so), nothing changed.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        path: Path,
        datagram: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        if self.closed {
            return Ok(());
        }
        let parsed = Message::parse(datagram)?;
        let header = parsed.header;
        if (header.spi_i, header.spi_r) != (self.spis.initiator, self.spis.responder) {
            return Err(PeerMisbehaved::WrongSpi);
        }
        if header.flags.initiator != (self.sa_role == Role::Responder) {
            return Err(PeerMisbehaved::WrongDirection);
        }
        let Some(encrypted) = parsed.encrypted.clone() else {
            return self.handle_plain(&parsed);
        };
        if header.flags.response {
            let awaited = self.in_flight.as_ref().map(|in_flight| in_flight.outstanding.message_id);
            if awaited != Some(header.message_id) {
                return Err(PeerMisbehaved::UnexpectedResponse { message_id: header.message_id });
            }
            let Some(opened) = self.protection.open(datagram, &header, &encrypted)? else { return Ok(()) };
            self.last_inbound = self.last_inbound.max(now);
            self.handle_response(now, path, header, opened, rng)
        } else {
            let arrival = self.window.classify(header.message_id);
            if arrival == Arrival::Outside {
                return Err(PeerMisbehaved::OutsideWindow { message_id: header.message_id });
            }
            if arrival == Arrival::Repeated {
                if self.protection.is_first_piece(datagram, &encrypted)? {
                    let again = self.window.last_answer().iter().cloned();
                    self.transmits.extend(again.map(|message| Transmit { path, message }));
                }
                return Ok(());
            }
            let Some(opened) = self.protection.open(datagram, &header, &encrypted)? else { return Ok(()) };
            self.last_inbound = self.last_inbound.max(now);
            if !self.features.mobike {
                self.follow_peer(path);
            }
            self.handle_request(now, path, header, &opened, rng)
        }
    }

    fn handle_request(
        &mut self,
        now: Instant,
        path: Path,
        header: Header,
        opened: &Opened,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        let (answer, outcome) = match opened.payloads() {
            Ok(payloads) => match header.exchange {
                ExchangeType::Informational => self.answer_informational(now, path, &payloads),
                ExchangeType::CreateChildSa => self.answer_create_child_sa(now, &payloads, rng),
                ExchangeType::IkeSaInit | ExchangeType::IkeAuth | ExchangeType::Other(_) => {
                    let answer = error_answer(NotifyType::InvalidSyntax, Vec::new());
                    (answer, Err(PeerMisbehaved::WrongExchange { exchange: header.exchange }))
                }
            },
            Err(wire) => {
                let (notify, data) = wire.answer();
                (error_answer(notify, data), Err(wire.into()))
            }
        };
        let response = Header { flags: self.flags(true), ..header };
        let Ok(datagrams) = self.protection.seal(response, &answer, self.features.fragmentation, path, rng)
        else {
            return Err(PeerMisbehaved::CannotAnswer);
        };
        self.transmits.extend(datagrams.iter().cloned().map(|message| Transmit { path, message }));
        self.window.answered(datagrams);
        if self.closed {
            self.in_flight = None;
        } else {
            self.start_next(now, rng);
        }
        outcome
    }

    fn handle_response(
        &mut self,
        now: Instant,
        path: Path,
        header: Header,
        opened: Opened,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        let Some(InFlight { task, path: last, rerouted, .. }) = self.in_flight.take() else { return Ok(()) };
        let travelled = Travelled { path: last, rerouted, answer: path };
        let outcome = match opened.payloads() {
            Ok(payloads) => self.finish_task(now, task, travelled, header.exchange, &payloads, rng),
            Err(wire) => Err(wire.into()),
        };
        // An authenticated answer that cannot be read leaves the two ends with different ideas of what exists.
        if let Err(PeerMisbehaved::Wire(wire)) = outcome {
            self.finish(CloseReason::Fatal(wire.answer().0));
            return Err(wire.into());
        }
        if !self.closed {
            self.start_next(now, rng);
        }
        outcome
    }

    fn finish_task(
        &mut self,
        now: Instant,
        task: Task,
        travelled: Travelled,
        exchange: ExchangeType,
        payloads: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        match task {
            Task::Liveness => {
                self.fatal_notify(payloads)?;
                self.liveness_answered();
                self.compare_mapping(payloads);
                Ok(())
            }
            Task::Mobike(task) => self.finish_mobike(task, travelled, payloads),
            Task::DeleteChildren(spis) => {
                self.fatal_notify(payloads)?;
                for spi_in in spis {
                    self.remove_child(now, spi_in);
                }
                Ok(())
            }
            Task::DeleteIke => {
                self.finish(self.renewal.farewell());
                Ok(())
            }
            Task::Inform(_) => self.fatal_notify(payloads),
            Task::CreateChild(_) | Task::RekeyIke(_) if exchange != ExchangeType::CreateChildSa => {
                Err(PeerMisbehaved::WrongExchange { exchange })
            }
            Task::CreateChild(pending) => self.finish_create_child(now, *pending, payloads, rng),
            Task::RekeyIke(pending) => self.finish_rekey_ike(now, *pending, payloads, rng),
        }
    }

    /// INVALID_SYNTAX and AUTHENTICATION_FAILED in a protected answer end the IKE_SA (RFC 7296 section 2.21.3).
    pub(super) fn fatal_notify(&mut self, payloads: &[Payload]) -> Result<(), PeerMisbehaved> {
        for payload in payloads {
            if let Payload::Notify(notify) = payload
                && matches!(notify.ty, NotifyType::InvalidSyntax | NotifyType::AuthenticationFailed)
            {
                self.finish(CloseReason::Fatal(notify.ty));
                return Err(PeerMisbehaved::FatalNotify { notify: notify.ty });
            }
        }
        Ok(())
    }

    /// Sends the next request if none is under way.
    pub(super) fn start_next(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        while self.in_flight.is_none() && !self.closed {
            self.queue_mobike();
            let Some(mut task) = self.tasks.pop_front() else { return };
            let mut path = self.path;
            let patience =
                if self.is_patient() { RetransmitPolicy::PATIENT } else { RetransmitPolicy::ESTABLISHED };
            let (exchange, payloads, policy) = match &mut task {
                Task::Liveness => {
                    let policy = self.liveness_policy();
                    (ExchangeType::Informational, self.liveness_payloads(), policy)
                }
                Task::DeleteChildren(spis) => {
                    spis.retain(|spi| self.children.iter().any(|child| child.spi_in == *spi));
                    if spis.is_empty() {
                        continue;
                    }
                    let delete = Self::delete_payload(spis);
                    (ExchangeType::Informational, vec![delete], patience)
                }
                Task::DeleteIke => {
                    let delete = Payload::Delete(crate::wire::Delete::ike());
                    (ExchangeType::Informational, vec![delete], self.renewal.farewell_policy())
                }
                Task::Inform(payloads) => (ExchangeType::Informational, payloads.clone(), patience),
                Task::CreateChild(pending) => {
                    if !self.is_wanted(pending) {
                        continue;
                    }
                    (ExchangeType::CreateChildSa, Self::create_child_request(pending), patience)
                }
                Task::Mobike(task) => {
                    let policy = task.patience().unwrap_or(patience);
                    let request;
                    (path, request) = self.mobike_request(task, rng);
                    (ExchangeType::Informational, request, policy)
                }
                Task::RekeyIke(pending) => (ExchangeType::CreateChildSa, pending.request(), patience),
            };
            let header = Header {
                spi_i: self.spis.initiator,
                spi_r: self.spis.responder,
                next_payload: 0,
                exchange,
                flags: self.flags(false),
                message_id: self.next_request,
            };
            let fragments = self.features.fragmentation;
            let Ok(datagrams) = self.protection.seal(header, &payloads, fragments, path, rng) else {
                tracing::warn!(%exchange, "a request could not be sealed and is dropped");
                continue;
            };
            self.transmits.extend(datagrams.iter().cloned().map(|message| Transmit { path, message }));
            let outstanding = Outstanding::new(now, self.next_request, datagrams, policy);
            self.next_request = self.next_request.saturating_add(1);
            self.in_flight = Some(InFlight { outstanding, task, path, rerouted: false });
        }
    }

    fn flags(&self, response: bool) -> Flags {
        Flags { initiator: self.sa_role == Role::Initiator, response, version: false }
    }

    /// Whether a DELETE for this CHILD_SA is under way from our side.
    pub(super) fn is_deleting_child(&self, spi_in: u32) -> bool {
        self.in_flight.as_ref().is_some_and(
            |in_flight| matches!(&in_flight.task, Task::DeleteChildren(spis) if spis.contains(&spi_in)),
        )
    }

    pub(super) fn finish(&mut self, reason: CloseReason) {
        self.settle_rekey_before_end(reason);
        self.drop_children();
        self.closed = true;
        self.in_flight = None;
        self.tasks.clear();
        self.events.push_back(SaEvent::Closed(reason));
    }
}

fn own_spi(role: Role, spis: IkeSpis) -> u64 {
    match role {
        Role::Initiator => spis.initiator,
        Role::Responder => spis.responder,
    }
}

pub(super) fn error_answer(notify: NotifyType, data: Vec<u8>) -> Vec<Payload> {
    vec![Payload::Notify(crate::wire::Notify::new(notify, data))]
}
