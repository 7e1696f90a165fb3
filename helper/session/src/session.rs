//! The states of a session and what moves between them.
//!
//! ```text
//! connect -> [credential] -> resolve -> open a path -> initial exchanges -> connected
//!               ^                                            |                 |
//!               +--- password refused, somebody to ask ------+                 |
//!                    next address, or failed <---------------+                 |
//!            wait <---------------------- lost: closed by the peer, dead ------+
//! ```
//!
//! Until the first success a failure is final, for somebody watches and decides. Once connected, the intent stays until
//! the user takes it back: every loss leads to another try, and the tunnel device stays.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_core::CryptoRng;
use ropewalk_ike::error::PeerMisbehaved;
use ropewalk_ike::exchange::config::LocalAuth;
use ropewalk_ike::exchange::initiator::{Established, HandshakeError, Initiator, InnerConfig};
use ropewalk_ike::exchange::nat::NatSituation;
use ropewalk_ike::exchange::sa::{CloseReason, Features, IkeSa, SaEvent};
use ropewalk_ike::exchange::{IkeSpis, Path, Transmit};
use ropewalk_ike::time::{Instant, UnixTime};
use zeroize::Zeroizing;

use crate::backoff::Backoff;
use crate::command::{Command, CredentialReason, InnerSettings};
use crate::config::{Endpoint, SessionConfig};
use crate::explain::{Cause, Explanation};

/// Refused logins in a row that a reconnect survives: a gateway that comes back may refuse for a while.
const MAX_REFUSALS: u32 = 3;

/// Where a session stands, for whoever shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not wanted.
    Disconnected,
    /// On the way up for the first time.
    Connecting,
    /// Up.
    Connected,
    /// Lost, and on the way up again.
    Reconnecting,
    /// On the way down.
    Disconnecting,
    /// Given up; somebody has to act.
    Failed,
}

enum State {
    Idle,
    AskingCredential,
    Resolving,
    OpeningPath { remote: SocketAddr },
    Handshake(Box<Initiator>),
    Connected(Box<IkeSa>),
    Waiting { until: Instant },
    Closing(Box<IkeSa>),
    Failed,
}

/// What is known of the IKE_SA.
#[derive(Clone, Debug)]
pub struct IkeInfo {
    /// Its SPIs.
    pub spis: IkeSpis,
    /// Its suite, in a profile's syntax.
    pub suite: String,
    /// The gateway's proven identity.
    pub gateway_identity: String,
    /// NATs on the way.
    pub nat: NatSituation,
    /// What the gateway can do.
    pub features: Features,
    /// The path.
    pub path: Path,
    /// The key exchange method.
    pub group: u16,
}

/// A look at a session.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Where it stands.
    pub phase: Phase,
    /// The IKE_SA, when there is one.
    pub ike: Option<IkeInfo>,
    /// The inside, once it was configured.
    pub inner: Option<InnerSettings>,
    /// Why it failed, or why it is reconnecting.
    pub error: Option<Explanation>,
}

/// One connection.
pub struct Session {
    config: SessionConfig,
    state: State,
    /// The user was connected since the last `connect`.
    was_up: bool,
    endpoint: usize,
    candidates: VecDeque<SocketAddr>,
    link: Option<u32>,
    backoff: Backoff,
    refusals: u32,
    inner: Option<InnerSettings>,
    error: Option<Explanation>,
    wall_clock: UnixTime,
    transmits: VecDeque<Transmit>,
    commands: VecDeque<Command>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("phase", &self.phase()).finish_non_exhaustive()
    }
}

impl Session {
    /// A session that is not connected yet.
    #[must_use]
    pub fn new(config: SessionConfig) -> Self {
        Self {
            config,
            state: State::Idle,
            was_up: false,
            endpoint: 0,
            candidates: VecDeque::new(),
            link: None,
            backoff: Backoff::default(),
            refusals: 0,
            inner: None,
            error: None,
            wall_clock: UnixTime(0),
            transmits: VecDeque::new(),
            commands: VecDeque::new(),
        }
    }

    /// The user wants to be connected. `wall_clock` decides about certificates in this attempt.
    pub fn connect(&mut self, wall_clock: UnixTime) {
        if !matches!(self.state, State::Idle | State::Failed) {
            return;
        }
        self.wall_clock = wall_clock;
        self.was_up = false;
        self.error = None;
        self.refusals = 0;
        self.endpoint = 0;
        self.begin();
    }

    /// The user wants to be disconnected: the gateway is told, the tunnel goes.
    pub fn disconnect(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        self.error = None;
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Connected(mut sa) => {
                sa.close(now, rng);
                self.state = State::Closing(sa);
                self.drain_sa(now, rng);
            }
            State::Closing(sa) => self.state = State::Closing(sa),
            State::Handshake(mut initiator) => {
                initiator.abort(rng);
                self.transmits.extend(std::iter::from_fn(|| initiator.poll_transmit()));
                self.go_idle();
            }
            State::Idle
            | State::AskingCredential
            | State::Resolving
            | State::OpeningPath { .. }
            | State::Waiting { .. }
            | State::Failed => self.go_idle(),
        }
    }

    /// The user's answer to [`Command::AskCredential`]; `None` when they would not say.
    pub fn credential(&mut self, answer: Option<(String, Zeroizing<String>)>) {
        if !matches!(self.state, State::AskingCredential) {
            return;
        }
        let Some((given_user, given_password)) = answer else {
            // After a refused login that is what failed; the question for another password was only a second chance.
            let error = self.error.take().unwrap_or_else(|| {
                let hint = "Connect again and enter the password.";
                Explanation::new(Cause::Authentication, "No password was given.", hint)
            });
            self.fail(error);
            return;
        };
        if let LocalAuth::EapMschapv2 { identity, user, password } = &mut self.config.initiator.auth {
            if !given_user.is_empty() {
                if identity.is_empty() || identity == user {
                    identity.clone_from(&given_user);
                }
                *user = given_user;
            }
            *password = given_password;
        }
        self.next_endpoint();
    }

    /// The addresses that answer [`Command::Resolve`], or why there are none.
    pub fn resolved(&mut self, now: Instant, answer: Result<Vec<IpAddr>, String>, rng: &mut dyn CryptoRng) {
        if !matches!(self.state, State::Resolving) {
            return;
        }
        let Some(endpoint) = self.config.gateways.get(self.endpoint) else { return };
        let port = endpoint.port;
        match answer {
            Ok(addresses) if !addresses.is_empty() => {
                self.candidates = addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
                self.next_candidate(now, rng);
            }
            Ok(_) => {
                let why = "it has no addresses".to_owned();
                self.name_failed(now, &why, rng);
            }
            Err(why) => self.name_failed(now, &why, rng),
        }
    }

    /// The socket that [`Command::OpenPath`] asked for.
    pub fn path_opened(&mut self, now: Instant, path: Path, rng: &mut dyn CryptoRng) {
        let State::OpeningPath { remote } = self.state else { return };
        if path.remote != remote {
            return;
        }
        self.link = Some(path.link);
        let config = ropewalk_ike::exchange::config::InitiatorConfig {
            wall_clock: self.wall_clock,
            ..self.config.initiator.clone()
        };
        match Initiator::start(config, path, now, rng) {
            Ok(initiator) => {
                self.state = State::Handshake(Box::new(initiator));
                self.drain_initiator(now, rng);
            }
            Err(error) => self.handshake_failed(now, &error, rng),
        }
    }

    /// No socket can be opened towards this address.
    pub fn path_failed(&mut self, now: Instant, why: &str, rng: &mut dyn CryptoRng) {
        let State::OpeningPath { remote } = self.state else { return };
        let error = Explanation::new(
            Cause::Unreachable,
            format!("There is no way to the gateway {}: {why}.", remote.ip()),
            "Check the network connection.",
        );
        self.try_next(now, error, rng);
    }

    /// The socket of `link` is of no use any more, as when its interface went.
    pub fn path_lost(&mut self, now: Instant, link: u32, rng: &mut dyn CryptoRng) {
        if self.link != Some(link) {
            return;
        }
        let error = Explanation::new(
            Cause::Unreachable,
            "The network that carried the connection is gone.",
            "Ropewalk reconnects as soon as there is one.",
        );
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Connected(sa) => {
                self.forget(&sa);
                self.lost(now, error, rng);
            }
            State::Handshake(_) => self.try_next(now, error, rng),
            other => self.state = other,
        }
    }

    /// The networks changed: a wait for the next try is over.
    pub fn network_changed(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if let State::Waiting { until } = &mut self.state {
            *until = now;
            self.backoff.reset();
            self.handle_timeout(now, self.wall_clock, rng);
        }
    }

    /// An authenticated ESP packet came in at this time.
    pub fn note_inbound(&mut self, at: Instant) {
        if let State::Connected(sa) = &mut self.state {
            sa.note_inbound(at);
        }
    }

    /// There are hints, unauthenticated ones, that the gateway has forgotten us: ask it.
    pub fn check_liveness(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if let State::Connected(sa) = &mut self.state {
            sa.check_liveness(now, rng);
            self.drain_sa(now, rng);
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
        match &mut self.state {
            State::Handshake(initiator) => {
                let result = initiator.handle_datagram(now, path, datagram, rng);
                self.drain_initiator(now, rng);
                result
            }
            State::Connected(sa) | State::Closing(sa) => {
                let result = sa.handle_datagram(now, path, datagram, rng);
                self.drain_sa(now, rng);
                result
            }
            State::Idle
            | State::AskingCredential
            | State::Resolving
            | State::OpeningPath { .. }
            | State::Waiting { .. }
            | State::Failed => Err(PeerMisbehaved::WrongSpi),
        }
    }

    /// Acts on the clock.
    pub fn handle_timeout(&mut self, now: Instant, wall_clock: UnixTime, rng: &mut dyn CryptoRng) {
        self.wall_clock = wall_clock;
        match &mut self.state {
            State::Handshake(initiator) => {
                initiator.handle_timeout(now);
                self.drain_initiator(now, rng);
            }
            State::Connected(sa) | State::Closing(sa) => {
                sa.handle_timeout(now, rng);
                self.drain_sa(now, rng);
            }
            State::Waiting { until } if now >= *until => {
                self.endpoint = 0;
                self.begin();
            }
            State::Waiting { .. }
            | State::Idle
            | State::AskingCredential
            | State::Resolving
            | State::OpeningPath { .. }
            | State::Failed => {}
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Handshake(initiator) => initiator.poll_timeout(),
            State::Connected(sa) | State::Closing(sa) => sa.poll_timeout(),
            State::Waiting { until } => Some(*until),
            State::Idle
            | State::AskingCredential
            | State::Resolving
            | State::OpeningPath { .. }
            | State::Failed => None,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Idle => Phase::Disconnected,
            State::Failed => Phase::Failed,
            State::Connected(_) => Phase::Connected,
            State::Closing(_) => Phase::Disconnecting,
            State::AskingCredential
            | State::Resolving
            | State::OpeningPath { .. }
            | State::Handshake(_)
            | State::Waiting { .. } => {
                if self.was_up {
                    Phase::Reconnecting
                } else {
                    Phase::Connecting
                }
            }
        }
    }

    /// All there is to show.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let ike = match &self.state {
            State::Connected(sa) => Some(IkeInfo {
                spis: sa.spis(),
                suite: sa.suite().syntax(),
                gateway_identity: sa.peer_id().to_string(),
                nat: sa.nat(),
                features: sa.features(),
                path: sa.path(),
                group: sa.suite().group,
            }),
            _ => None,
        };
        Snapshot { phase: self.phase(), ike, inner: self.inner.clone(), error: self.error.clone() }
    }

    fn begin(&mut self) {
        let missing = match &self.config.initiator.auth {
            LocalAuth::EapMschapv2 { user, password, .. } => user.is_empty() || password.is_empty(),
            LocalAuth::Psk(_) | LocalAuth::Certificate(_) => false,
        };
        if missing {
            self.ask(CredentialReason::Missing);
        } else {
            self.next_endpoint();
        }
    }

    fn ask(&mut self, reason: CredentialReason) {
        if self.config.can_ask {
            self.state = State::AskingCredential;
            self.commands.push_back(Command::AskCredential(reason));
        } else {
            self.fail(Explanation::new(
                Cause::Authentication,
                "A user name and a password are needed, and nobody can be asked for them.",
                "Connect with --user and --password-stdin, or from a terminal or the window.",
            ));
        }
    }

    fn next_endpoint(&mut self) {
        self.candidates.clear();
        match self.config.gateways.get(self.endpoint) {
            Some(Endpoint { host, .. }) => {
                self.commands.push_back(Command::Resolve(host.clone()));
                self.state = State::Resolving;
            }
            None => self.fail(Explanation::new(
                Cause::Profile,
                "The profile names no gateway.",
                "Set gateway.address in the profile.",
            )),
        }
    }

    fn next_candidate(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        match self.candidates.pop_front() {
            Some(remote) => {
                self.state = State::OpeningPath { remote };
                self.commands.push_back(Command::OpenPath(remote));
            }
            None => self.endpoint_exhausted(now, rng),
        }
    }

    fn name_failed(&mut self, now: Instant, why: &str, rng: &mut dyn CryptoRng) {
        let host = self.config.gateways.get(self.endpoint).map(|endpoint| endpoint.host.clone());
        let error = Explanation::new(
            Cause::Unreachable,
            format!("The gateway's name {} cannot be found: {why}.", host.unwrap_or_default()),
            "Check the name in the profile and the network's DNS.",
        );
        self.candidates.clear();
        self.try_next(now, error, rng);
    }

    /// This address did not work: the next one, the next name, or the end of this round.
    fn try_next(&mut self, now: Instant, error: Explanation, rng: &mut dyn CryptoRng) {
        self.close_path();
        self.error = Some(error);
        self.next_candidate(now, rng);
    }

    fn endpoint_exhausted(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        self.endpoint += 1;
        if self.endpoint < self.config.gateways.len() {
            self.next_endpoint();
        } else if self.was_up {
            self.wait(now, rng);
        } else {
            self.state = State::Failed;
            self.commands.push_back(Command::ReleaseTunnel);
        }
    }

    fn wait(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        self.state = State::Waiting { until: now + self.backoff.next(rng) };
    }

    fn handshake_failed(&mut self, now: Instant, error: &HandshakeError, rng: &mut dyn CryptoRng) {
        let gateway = self.config.gateways.get(self.endpoint).map(|endpoint| endpoint.host.as_str());
        let offered: Vec<String> =
            self.config.initiator.ike_proposals.iter().map(ToString::to_string).collect();
        let explanation = Explanation::of_handshake(error, gateway.unwrap_or_default(), &offered.join(", "));
        let no_password_here = matches!(
            (error, &self.config.initiator.auth),
            (HandshakeError::EapRefused(_), LocalAuth::EapMschapv2 { .. })
        );
        match explanation.cause {
            Cause::Unreachable => self.try_next(now, explanation, rng),
            Cause::Authentication if no_password_here && self.config.can_ask && !self.was_up => {
                self.close_path();
                let said = match error {
                    HandshakeError::EapRefused(failure) => failure.message.clone(),
                    _ => None,
                };
                self.error = Some(explanation);
                self.ask(CredentialReason::Refused(said));
            }
            Cause::Authentication | Cause::NoProposal | Cause::Failed | Cause::Profile if self.was_up => {
                self.refusals += 1;
                self.close_path();
                if self.refusals >= MAX_REFUSALS {
                    self.fail(explanation);
                } else {
                    self.error = Some(explanation);
                    self.wait(now, rng);
                }
            }
            Cause::Authentication | Cause::NoProposal | Cause::Failed | Cause::Profile => {
                self.close_path();
                self.fail(explanation);
            }
        }
    }

    fn drain_initiator(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let State::Handshake(initiator) = &mut self.state else { return };
        self.transmits.extend(std::iter::from_fn(|| initiator.poll_transmit()));
        match initiator.poll_outcome() {
            None => {}
            Some(Ok(established)) => self.established(now, *established, rng),
            Some(Err(error)) => self.handshake_failed(now, &error, rng),
        }
    }

    fn established(&mut self, now: Instant, established: Established, rng: &mut dyn CryptoRng) {
        let Established { sa, inner, keys } = established;
        if self.config.log_keys {
            let (spis, suite) = (sa.spis(), *sa.suite());
            self.commands.push_back(Command::LogIkeKeys { spis, suite, keys: Box::new(keys) });
        }
        let path = sa.path();
        if let Some(child) = sa.children().first() {
            let settings = inner_settings(inner, child);
            let spi_in = child.spi_in;
            self.commands.push_back(Command::InstallChild(Box::new(child.clone())));
            self.commands.push_back(Command::ConfigureTunnel(Box::new(settings.clone())));
            self.commands.push_back(Command::SendWith { spi_in, path });
            self.remember_addresses(&settings);
            self.inner = Some(settings);
        }
        self.was_up = true;
        self.refusals = 0;
        self.error = None;
        self.backoff.reset();
        self.state = State::Connected(Box::new(sa));
        self.drain_sa(now, rng);
    }

    /// The next attempt asks for the same inner addresses, so that open connections survive it.
    fn remember_addresses(&mut self, settings: &InnerSettings) {
        for (address, _) in &settings.addresses {
            let request = &mut self.config.initiator.request;
            match address {
                IpAddr::V4(v4) => request.ipv4 = request.ipv4.map(|_| Some(*v4)),
                IpAddr::V6(v6) => request.ipv6 = request.ipv6.map(|_| Some(*v6)),
            }
        }
    }

    fn drain_sa(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let (State::Connected(sa) | State::Closing(sa)) = &mut self.state else { return };
        let path = sa.path();
        self.transmits.extend(std::iter::from_fn(|| sa.poll_transmit()));
        let mut closed = None;
        while let Some(event) = sa.poll_event() {
            match event {
                SaEvent::ChildUp { child, replaces: _ } => {
                    let spi_in = child.spi_in;
                    self.commands.push_back(Command::InstallChild(child));
                    self.commands.push_back(Command::SendWith { spi_in, path });
                }
                SaEvent::ChildDown { spi_in, spi_out: _ } => {
                    self.commands.push_back(Command::RemoveChild(spi_in));
                }
                SaEvent::ChildRefused(notify) => tracing::warn!(%notify, "the gateway refused a CHILD_SA"),
                SaEvent::PathChanged(path) => {
                    if let Some(child) = sa.children().last() {
                        self.commands.push_back(Command::SendWith { spi_in: child.spi_in, path });
                    }
                }
                SaEvent::Closed(reason) => closed = Some(reason),
            }
        }
        // An IKE_SA without a CHILD_SA carries nothing: it is as good as lost.
        let empty = matches!(self.state, State::Connected(ref sa) if sa.children().is_empty());
        match closed {
            Some(_) if matches!(self.state, State::Closing(_)) => self.go_idle(),
            Some(reason) => {
                self.close_path();
                self.lost(now, explain_close(reason), rng);
            }
            None if empty => {
                if let State::Connected(mut sa) = std::mem::replace(&mut self.state, State::Idle) {
                    sa.close(now, rng);
                    self.transmits.extend(std::iter::from_fn(|| sa.poll_transmit()));
                }
                self.close_path();
                self.lost(now, explain_close(CloseReason::DeletedByPeer), rng);
            }
            None => {}
        }
    }

    /// The connection is gone, the intent is not: another try, the first one at once but for the jitter.
    fn lost(&mut self, now: Instant, error: Explanation, rng: &mut dyn CryptoRng) {
        self.error = Some(error);
        self.close_path();
        self.wait(now, rng);
    }

    fn forget(&mut self, sa: &IkeSa) {
        for child in sa.children() {
            self.commands.push_back(Command::RemoveChild(child.spi_in));
        }
    }

    fn close_path(&mut self) {
        if let Some(link) = self.link.take() {
            self.commands.push_back(Command::ClosePath(link));
        }
    }

    fn fail(&mut self, error: Explanation) {
        self.error = Some(error);
        self.state = State::Failed;
        self.inner = None;
        self.commands.push_back(Command::ReleaseTunnel);
    }

    fn go_idle(&mut self) {
        self.close_path();
        self.state = State::Idle;
        self.was_up = false;
        self.inner = None;
        self.commands.push_back(Command::ReleaseTunnel);
    }
}

fn inner_settings(inner: InnerConfig, child: &ropewalk_ike::exchange::child::ChildSa) -> InnerSettings {
    InnerSettings {
        addresses: inner.addresses,
        dns_servers: inner.dns_servers,
        dns_domains: inner.dns_domains,
        reachable: child.ts_remote.clone(),
        local: child.ts_local.clone(),
    }
}

fn explain_close(reason: CloseReason) -> Explanation {
    let hint = "Ropewalk keeps trying until you disconnect.";
    let message = match reason {
        CloseReason::DeletedByPeer => "The gateway ended the connection.".to_owned(),
        CloseReason::PeerDead => "The gateway stopped answering.".to_owned(),
        CloseReason::Deleted => "The connection was closed.".to_owned(),
        CloseReason::Fatal(notify) => format!("The gateway reported a fatal error ({notify})."),
    };
    let cause = if reason == CloseReason::PeerDead { Cause::Unreachable } else { Cause::Failed };
    Explanation::new(cause, message, hint)
}

/// How long a farewell may take; the owner of a session waits no longer for the end.
pub const FAREWELL: Duration = Duration::from_secs(2);
