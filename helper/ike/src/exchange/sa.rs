//! An established IKE_SA: one struct for both roles, with a table of running tasks.
//!
//! After IKE_AUTH the two ends are equals. What one of them wants is a [`Task`] in a queue, because the window allows
//! one request at a time (RFC 7296 section 2.3); what the peer wants is answered at once. Only authenticated messages
//! change anything: an [`Err`] from [`IkeSa::handle_datagram`] is something to log, never a reason to end.

mod closing;
mod event;
mod tasks;

pub(super) use closing::PutOff;
pub use event::{CloseReason, SaEvent};
pub(super) use tasks::{InFlight, Task};

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::child::ChildSa;
use super::crash::{Token, TokenMaker};
use super::create_child_sa::{ChildPolicy, PendingChild};
use super::inner::InnerSource;
use super::keep_old::KeepOld;
use super::lifetime::Lifetimes;
use super::liveness::Stall;
use super::mobike::Mobility;
use super::mobike::held::HeldAnswer;
use super::nat::NatSituation;
use super::path_size::Sizing;
use super::probe::Probing;
use super::protect::{Opened, Protection};
use super::renewal::Renewal;
use super::retransmit::{Arrival, Due, ResponseWindow};
use super::{IkeSpis, Path, Role, Transmit};
use crate::crypto::Prf;
use crate::error::PeerMisbehaved;
use crate::multi_point::group_sa::GroupPolicy;
use crate::proposal::{ChosenIke, IkeProposal};
use crate::time::Instant;
use crate::wire::encrypted::EncryptedRef;
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
    /// It keeps an IKE_SA beside the one that was made from it (KEEP_OLD_IKE_SA); `None` before that was tried.
    pub keep_old: Option<bool>,
    /// Multi-point SA (draft-yamaya-ipsecme-mpsa).
    pub multi_point: bool,
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
    /// The number of the KEEP_OLD_IKE_SA notify; `None` does not speak it.
    pub keep_old: Option<u16>,
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
    pub(super) protection: Protection,
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
    pub(super) keep_old: KeepOld,
    pub(super) probing: Probing,
    /// Where a client that asks for inner addresses of its own gets them from.
    pub(super) inner_source: Option<Arc<dyn InnerSource>>,
    pub(super) sizing: Sizing,
    pub(super) last_inbound: Instant,
    pub(super) stall: Stall,
    pub(super) tasks: VecDeque<Task>,
    pub(super) in_flight: Option<InFlight>,
    pub(super) transmits: VecDeque<Transmit>,
    pub(super) events: VecDeque<SaEvent>,
    closed: bool,
    /// What of a group's SA is taken; `None` takes none.
    pub(super) group: Option<GroupPolicy>,
    /// When a farewell has to be over.
    pub(super) farewell_by: Option<Instant>,
    pub(super) token: Option<Token>,
    pub(super) token_maker: Option<TokenMaker>,
    /// An answer that waits while we move.
    pub(super) held: HeldAnswer,
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
            keep_old: KeepOld::new(params.keep_old),
            probing: Probing::default(),
            inner_source: None,
            sizing: Sizing::default(),
            last_inbound: now,
            stall: Stall::default(),
            tasks: VecDeque::new(),
            in_flight: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            closed: false,
            group: None,
            farewell_by: None,
            token: None,
            token_maker: None,
            held: HeldAnswer::default(),
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
        if self.closed {
            self.release_held_now();
        }
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
            None if !self.tasks.is_empty() || self.mobility.check_pending => Some(Instant::ZERO),
            None => self.liveness_due(),
        };
        let others = [self.next_renewal(), self.protection.poll_timeout(), self.held_until()];
        others.into_iter().chain([own]).flatten().min()
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

    /// Acts on the clock: repeats requests, gives up on a dead peer, checks a silent one.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if self.closed {
            return;
        }
        self.protection.handle_timeout(now);
        self.release_held(now);
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
                    let leaving = self.has_task(|task| matches!(task, Task::DeleteIke));
                    if !leaving && self.give_up_test(now) {
                        return;
                    }
                    self.finish(if leaving { self.renewal.farewell() } else { CloseReason::PeerDead });
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
            let Some(opened) = self.open(now, datagram, &header, &encrypted, rng)? else { return Ok(()) };
            self.last_inbound = self.last_inbound.max(now);
            let handled = self.handle_response(now, path, header, opened, rng);
            self.hurry_held(now);
            handled
        } else {
            let arrival = self.window.classify(header.message_id);
            if arrival == Arrival::Outside {
                return Err(PeerMisbehaved::OutsideWindow { message_id: header.message_id });
            }
            if arrival == Arrival::Repeated {
                if self.protection.is_first_piece(datagram, &encrypted)? {
                    self.drop_held();
                    let again = self.window.last_answer().iter().cloned();
                    self.transmits.extend(again.map(|message| Transmit { path, message }));
                }
                return Ok(());
            }
            let Some(opened) = self.open(now, datagram, &header, &encrypted, rng)? else { return Ok(()) };
            self.last_inbound = self.last_inbound.max(now);
            if !self.features.mobike {
                self.follow_peer(path);
            }
            self.handle_request(now, path, header, &opened, rng)
        }
    }

    fn open(
        &mut self,
        now: Instant,
        datagram: &[u8],
        header: &Header,
        encrypted: &EncryptedRef,
        rng: &mut dyn CryptoRng,
    ) -> Result<Option<Opened>, PeerMisbehaved> {
        let opened = self.protection.open(now, datagram, header, encrypted);
        opened.inspect_err(|misbehaved| self.judge(misbehaved, now, rng))
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
        let answer = datagrams.iter().cloned().map(|message| Transmit { path, message });
        self.send_answer(now, header.message_id, answer);
        self.window.answered(datagrams);
        if self.closed {
            self.in_flight = None;
        } else {
            self.start_next(now, rng);
        }
        outcome
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
        self.forget_keep_requests();
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
