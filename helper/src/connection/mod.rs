//! One connection: the loop that moves datagrams, timers and commands between the session and the system.
//!
//! The session decides; this loop does. It owns the TUN device for as long as the user wants to be connected, the pump
//! on it, and the sockets of its paths. IKE messages come out of the pump's queue and go into the session; what
//! the session wants done comes out as commands, which [`tunnel`] makes true.

mod carrying;
mod diagnosis;
mod group;
mod lease;
mod links;
mod mtu;
mod networks;
mod report;
mod setup;
mod tunnel;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use ropewalk_datapath::{Event, EventReceiver};
use ropewalk_ike::exchange::Path;
use ropewalk_ike::time::Instant;
use ropewalk_ipc::{CredentialField, CredentialReason, Credentials, ErrorCode, ErrorInfo, State};
use ropewalk_net::{Candidate, NextHop};
use ropewalk_profile::AddressSource;
use ropewalk_session::{Command as Wish, CredentialReason as Why, Phase, Session, Unreached};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

use crate::clock;
use crate::engine::{Command, ConnectionContext, Outcome};
use crate::neighbours::Membership;
use crate::platform::Platform;
use crate::sleep::Sleep;
use diagnosis::Finding;
use lease::LeaseFile;
pub use lease::forget as forget_lease;
use tunnel::Tunnel;

/// Counters are published, and traffic that is not answered is noticed, this often.
const TICK: Duration = Duration::from_secs(1);
/// A name that takes longer to resolve than this is not going to help.
const RESOLVE_LIMIT: Duration = Duration::from_secs(10);

/// What comes back from work done beside the loop.
enum Done {
    Resolved { host: String, answer: Result<Vec<IpAddr>, String> },
    Credentials(Result<Credentials, ErrorInfo>),
    Diagnosed(Finding),
    Metered(BTreeSet<String>),
}

struct Connection {
    context: ConnectionContext,
    platform: Arc<Platform>,
    session: Session,
    tunnel: Tunnel,
    rng: ChaCha20Rng,
    done: mpsc::UnboundedSender<Done>,
    /// The addresses a name had last: with the tunnel's DNS in place and the tunnel gone, it cannot be asked again.
    known: Vec<(String, Vec<IpAddr>)>,
    /// Where the lease is kept, when the inner address comes by DHCP.
    lease: Option<LeaseFile>,
    /// Why what the gateway granted cannot be used here, which ends the connection.
    unusable: Option<ErrorInfo>,
    shown: report::Shown,
    /// Something to be shown has changed that the session does not know.
    changed: bool,
    sleep: Sleep,
    told_to_sleep: Option<Instant>,
    /// The networks that lead outside.
    candidates: Vec<Candidate>,
    networks: Vec<networks::Network>,
    /// Names of interfaces whose use costs.
    metered: BTreeSet<String>,
    ask_what_costs_at: Instant,
    /// The gateway address that was tried first since the connection stood last, and when.
    tried: Option<(IpAddr, Instant)>,
    /// Why that is silent: asked for, and then known.
    finding: Option<Option<Finding>>,
    nap: clock::Nap,
    /// With whom the identity is shared that the gateway must not take for ours alone.
    membership: Option<Membership>,
}

/// Runs one connection to its end.
pub async fn run(context: ConnectionContext) -> Outcome {
    match Connection::prepare(context).await {
        Ok((connection, events, done)) => connection.run(events, done).await,
        Err(error) => Outcome::Failed(error),
    }
}

impl Connection {
    async fn prepare(
        context: ConnectionContext,
    ) -> Result<(Self, EventReceiver, mpsc::UnboundedReceiver<Done>), ErrorInfo> {
        let platform = context.config.platform.clone().ok_or_else(|| {
            let hint = "see the helper's log for why the network cannot be configured here";
            ErrorInfo::new(ErrorCode::Failed, "the helper cannot configure this system's network", hint)
        })?;
        let log_keys = context.config.key_log_dir.is_some();
        let mut config =
            setup::session_config(&context.profile, &context.secrets, &context.credentials, log_keys)?;
        let by_dhcp = context.profile.address.source == AddressSource::Dhcp;
        let lease = by_dhcp.then(|| LeaseFile::open(&context, &platform.monitor.snapshot())).transpose()?;
        config.dhcp = lease.as_ref().map(|lease| lease.config(setup::allowed_v4(&context.profile)));
        let membership = config
            .initiator
            .initial_contact
            .then(|| context.config.neighbours.join(config.initiator.local_id.body()));
        let (tunnel, events) = Tunnel::open(&context, platform.clone())?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| {
            ErrorInfo::new(ErrorCode::Failed, format!("the system gives no random numbers: {error}"), "")
        })?;
        let (done, results) = mpsc::unbounded_channel();
        let connection = Self {
            context,
            platform,
            session: Session::new(config),
            tunnel,
            rng: ChaCha20Rng::from_seed(seed),
            done,
            known: Vec::new(),
            lease,
            unusable: None,
            shown: report::Shown::default(),
            changed: false,
            sleep: Sleep::Awake,
            told_to_sleep: None,
            candidates: Vec::new(),
            networks: Vec::new(),
            metered: BTreeSet::new(),
            ask_what_costs_at: Instant::ZERO,
            tried: None,
            finding: None,
            nap: clock::Nap::default(),
            membership,
        };
        Ok((connection, events, results))
    }

    async fn run(mut self, events: EventReceiver, mut results: mpsc::UnboundedReceiver<Done>) -> Outcome {
        // SAFETY: the receiver owns one open descriptor from its making to its end, names no other, and the wrapper is
        // dropped with it here.
        let mut events = match unsafe { AsyncFd::register(events) } {
            Ok(events) => events,
            Err(error) => {
                let message = format!("the packet pump cannot be watched: {error}");
                return Outcome::Failed(ErrorInfo::new(ErrorCode::Failed, message, ""));
            }
        };
        let alarm = match clock::Alarm::new() {
            Ok(alarm) => alarm,
            Err(error) => {
                let message = format!("the system gives no timer: {error}");
                return Outcome::Failed(ErrorInfo::new(ErrorCode::Failed, message, ""));
            }
        };
        let mut networks = self.platform.monitor.watch();
        let mut disturbances = self.platform.network.disturbances();
        let mut sleeps = self.platform.sleep.watch();
        let learning = self.tunnel.next_hops().await;
        let mut next_hops = learning.as_ref().map(ropewalk_net::NextHops::watch);
        let mut told_to_end = false;
        self.tell_uplinks();
        self.look_around();
        self.session.connect(clock::wall());
        loop {
            self.carry_out().await;
            self.publish();
            match self.session.phase() {
                Phase::Disconnected => break,
                Phase::Failed => break,
                Phase::Connecting | Phase::Connected | Phase::Reconnecting | Phase::Disconnecting => {}
            }
            let tick = clock::now() + TICK;
            let next = self.session.poll_timeout().map_or(tick, |at| at.min(tick));
            tokio::select! {
                biased;
                command = self.context.commands.recv(), if !told_to_end => match command {
                    Some(Command::Disconnect) | None => {
                        told_to_end = true;
                        self.session.disconnect(clock::now(), &mut self.rng);
                    }
                    Some(Command::SetPolicy(policy)) => {
                        self.session.set_policy(clock::now(), setup::policy(policy), &mut self.rng);
                        self.context.status.update(|status| status.policy = policy);
                    }
                    Some(Command::Refresh(done)) => {
                        self.changed = true;
                        self.publish();
                        // Whoever asked may have gone.
                        let _ = done.send(());
                    }
                },
                Some(done) = results.recv() => self.finished(done),
                ready = events.readable_mut() => {
                    if let Ok(mut guard) = ready {
                        guard.clear_ready();
                    }
                    self.pump_events(events.get_mut());
                }
                changed = networks.changed() => {
                    if changed.is_ok() {
                        self.network_changed().await;
                    }
                }
                Some(found) = newest(&mut next_hops) => self.tunnel.group_found(found),
                changed = sleeps.changed() => {
                    if changed.is_ok() {
                        self.sleep = *sleeps.borrow_and_update();
                        if self.sleep == Sleep::Falling {
                            self.session.falling_asleep(clock::now());
                        }
                    }
                }
                changed = disturbances.changed() => {
                    if changed.is_ok() {
                        self.repair().await;
                    }
                }
                () = alarm.wait_until(next) => {}
            }
            self.look_around();
            self.notice_sleep();
            self.look_into_silence();
            if self.networks.len() > 1 && clock::now() >= self.ask_what_costs_at {
                self.ask_what_costs();
            }
            for traffic in self.tunnel.traffic() {
                self.session.note_traffic(clock::now(), &traffic, &mut self.rng);
            }
            self.tunnel.group_tick(clock::now());
            self.session.handle_timeout(clock::now(), clock::wall(), &mut self.rng);
        }
        self.tunnel.close(&self.platform).await;
        match (self.session.phase(), self.session.snapshot().error, self.unusable) {
            (_, _, Some(error)) => Outcome::Failed(error),
            (Phase::Failed, Some(error), None) => {
                Outcome::Failed(report::error_info(&error, self.finding.as_ref().and_then(Option::as_ref)))
            }
            _ => Outcome::Disconnected,
        }
    }

    /// A gateway that has not answered for a while may be behind a login page, or UDP may be blocked.
    fn look_into_silence(&mut self) {
        match self.session.phase() {
            Phase::Connected | Phase::Disconnected | Phase::Disconnecting => {
                (self.tried, self.finding) = (None, None);
            }
            Phase::Connecting | Phase::Reconnecting | Phase::Failed => {}
        }
        let Some((address, since)) = self.tried else { return };
        if self.finding.is_some() || clock::now() < since + diagnosis::PATIENCE {
            return;
        }
        let known = self.known.iter().find(|(_, addresses)| addresses.contains(&address));
        let host = known.map_or_else(|| address.to_string(), |(host, _)| host.clone());
        let networks = self.platform.monitor.snapshot();
        let done = self.done.clone();
        self.finding = Some(None);
        tokio::spawn(async move {
            let finding = diagnosis::look(host, address, &networks).await;
            // A loop that ended meanwhile needs no answer.
            let _ = done.send(Done::Diagnosed(finding));
        });
    }

    /// After a sleep the session is told before it looks at its timers, which all ran out meanwhile.
    fn notice_sleep(&mut self) {
        let jumped = self.nap.slept();
        let told = self.told_to_sleep.take_if(|_| self.sleep == Sleep::Awake);
        if self.sleep == Sleep::Falling && self.told_to_sleep.is_none() {
            self.told_to_sleep = Some(clock::now());
        }
        let now = clock::now();
        let slept = match told {
            Some(since) => Some(now.saturating_since(since)),
            // The computer wakes up before it says so.
            None if self.sleep == Sleep::Falling => None,
            None => jumped,
        };
        if let Some(slept) = slept {
            tracing::info!(seconds = slept.as_secs(), "the computer woke up");
            self.session.woke_up(now, slept, &mut self.rng);
        }
    }

    /// Whether other connections log in with the same identity.
    fn look_around(&mut self) {
        self.session.set_others(self.membership.as_ref().is_some_and(Membership::has_others));
    }

    /// Sends what the session wants sent, then does what it wants done, until it wants nothing.
    async fn carry_out(&mut self) {
        loop {
            while let Some(transmit) = self.session.poll_transmit() {
                self.tunnel.send_ike(&transmit);
            }
            let Some(wish) = self.session.poll_command() else { return };
            self.do_one(wish).await;
        }
    }

    async fn do_one(&mut self, wish: Wish) {
        self.changed = true;
        match wish {
            Wish::AskCredential(why) => self.ask(why),
            Wish::Resolve(host) => self.resolve(host),
            Wish::OpenPath { remote, interface } => {
                self.tried.get_or_insert((remote.ip(), clock::now()));
                match self.tunnel.open_path(&self.platform, remote, interface).await {
                    Ok((path, index)) => {
                        self.session.path_opened(clock::now(), path, index, &mut self.rng);
                    }
                    Err(why) => {
                        let asked = (remote, interface);
                        self.session.path_failed(clock::now(), asked, &why, &mut self.rng);
                    }
                }
            }
            Wish::ClosePath(link) => self.tunnel.close_path(link),
            Wish::InstallChild(child) => {
                if let Err(error) = self.tunnel.install(*child, &self.context.config) {
                    tracing::error!(%error, "the CHILD_SA cannot be installed");
                }
            }
            Wish::SendInner { spi_in, path, packet } => self.tunnel.send_inner(spi_in, path, &packet),
            Wish::CheckAddress(address) => {
                let networks = self.platform.monitor.snapshot();
                let in_use = lease::has_address(&networks, self.tunnel.device_name(), address);
                self.session.address_checked(clock::now(), address, in_use, &mut self.rng);
            }
            Wish::KeepLease(kept) => {
                if let Some(lease) = &mut self.lease {
                    lease.keep(kept.map(|kept| *kept));
                }
            }
            Wish::Carry(carriage) => {
                self.tunnel.carry(carriage);
                for (path, bounds) in self.tunnel.sizes_wanted() {
                    self.session.size_wanted(clock::now(), path, bounds, &mut self.rng);
                }
            }
            Wish::PathSize { link, size } => self.tunnel.path_size(link, size),
            Wish::RemoveChild(spi_in) => self.tunnel.remove(spi_in),
            Wish::Group(action) => self.tunnel.group(action),
            Wish::ConfigureTunnel(settings) => {
                let configured =
                    self.tunnel.configure(&self.platform, &self.context.profile, &settings).await;
                if let Err(error) = configured {
                    tracing::error!(message = %error.message, "the tunnel cannot be configured");
                    self.unusable = Some(error);
                    self.session.disconnect(clock::now(), &mut self.rng);
                }
            }
            Wish::ReleaseTunnel => self.tunnel.release(&self.platform).await,
            Wish::LogIkeKeys { spis, suite, keys } => {
                if let Some(folder) = &self.context.config.key_log_dir {
                    ropewalk_keylog::ike(folder, spis, &suite, &keys);
                }
            }
        }
    }

    fn ask(&mut self, why: Why) {
        let source = self.context.credentials.clone();
        let (reason, fields) = match why {
            Why::Missing => {
                (CredentialReason::Missing, vec![CredentialField::User, CredentialField::Password])
            }
            Why::Refused(_) => {
                (CredentialReason::Wrong, vec![CredentialField::User, CredentialField::Password])
            }
        };
        let user = self.context.profile.auth.user.clone();
        let done = self.done.clone();
        tokio::spawn(async move {
            let answer = source.ask(fields, reason, user).await;
            // A loop that ended meanwhile needs no answer.
            let _ = done.send(Done::Credentials(answer));
        });
    }

    fn resolve(&mut self, host: String) {
        let done = self.done.clone();
        if let Ok(ip) = host.parse::<IpAddr>() {
            let _ = done.send(Done::Resolved { host, answer: Ok(vec![ip]) });
            return;
        }
        tokio::spawn(async move {
            let answer = look_up(&host).await;
            // A loop that ended meanwhile needs no answer.
            let _ = done.send(Done::Resolved { host, answer });
        });
    }

    fn finished(&mut self, done: Done) {
        self.changed |= !matches!(done, Done::Metered(_));
        match done {
            Done::Resolved { host, answer } => {
                let answer = match answer {
                    Ok(found) if !found.is_empty() => {
                        self.known.retain(|(name, _)| *name != host);
                        self.known.push((host, found.clone()));
                        Ok(found)
                    }
                    Ok(_) | Err(_) => match self.known.iter().find(|(name, _)| *name == host) {
                        Some((_, known)) => Ok(known.clone()),
                        None => answer,
                    },
                };
                self.session.resolved(clock::now(), answer, &mut self.rng);
            }
            Done::Credentials(Ok(credentials)) => {
                let user = credentials.user.unwrap_or_default();
                let password =
                    credentials.password.map(|secret| secret.expose().to_owned()).unwrap_or_default();
                self.session.credential(Some((user, Zeroizing::new(password))));
            }
            Done::Metered(metered) => self.metered(metered),
            Done::Diagnosed(finding) => {
                tracing::info!(?finding, "the gateway's silence was looked into");
                self.finding = Some(Some(finding));
            }
            Done::Credentials(Err(error)) => {
                tracing::debug!(message = %error.message, "the question for a password was not answered");
                self.session.credential(None);
            }
        }
    }

    fn pump_events(&mut self, events: &mut EventReceiver) {
        let now = clock::now();
        // The next message may carry our identity.
        self.look_around();
        while let Some(event) = events.try_recv() {
            match event {
                Event::Ike(datagram) => {
                    let Some(link) = self.tunnel.links().of_socket(datagram.socket) else { continue };
                    let path = Path { link, local: datagram.local, remote: datagram.remote };
                    let handled = self.session.handle_datagram(now, path, &datagram.bytes, &mut self.rng);
                    if let Err(misbehaved) = handled {
                        tracing::debug!(remote = %datagram.remote, %misbehaved, "an IKE message is dropped");
                    }
                }
                Event::UnknownSpi { spi, remote, .. } => {
                    self.session.unknown_spi(now, spi, remote, &mut self.rng);
                }
                Event::PathMtu { socket, remote, mtu } => {
                    self.changed = true;
                    if !self.tunnel.group_path_mtu(now, socket, remote, mtu)
                        && let Some(link) = self.tunnel.links().of_socket(socket)
                    {
                        self.session.size_hint(now, link, mtu.into(), &mut self.rng);
                    }
                }
                Event::SocketError { socket, errno, remote } => {
                    tracing::debug!(errno, ?remote, "the socket reports an error");
                    if self.tunnel.group_refused(now, socket, remote) {
                        continue;
                    }
                    if let Some(link) = self.tunnel.links().of_socket(socket) {
                        let why = match Errno::from_raw(errno) {
                            Errno::ECONNREFUSED => Unreached::NothingListens,
                            _ => Unreached::NoWay,
                        };
                        self.session.path_refused(now, link, why, &mut self.rng);
                    }
                    self.session.check_liveness(now, &mut self.rng);
                }
                Event::Failed { reason } => {
                    tracing::error!(reason, "the packet pump stopped");
                    self.session.disconnect(now, &mut self.rng);
                }
                Event::SequenceLow { spi, remaining } => {
                    tracing::debug!(spi, remaining, "sequence numbers run low");
                    self.session.sequence_low(now, spi, &mut self.rng);
                }
                Event::PeerMoved { spi, socket, local, remote } => {
                    if let Some(link) = self.tunnel.links().of_socket(socket) {
                        self.session.esp_came_by(spi, Path { link, local, remote });
                    }
                }
                Event::Inner { packet, .. } => self.session.inner_packet(now, &packet, &mut self.rng),
                Event::Heard { remote, .. } => self.tunnel.group_heard(now, remote),
                Event::NoEgress { .. } => {}
                _ => {}
            }
        }
    }

    /// Somebody else removed a rule or rewrote the name servers: ours are put back.
    async fn repair(&self) {
        match self.platform.network.refresh().await {
            Ok(tunnels) => {
                tracing::debug!(tunnels = tunnels.len(), "routes and name servers are as they must be")
            }
            Err(error) => tracing::warn!(%error, "the tunnel's routes or name servers cannot be put back"),
        }
    }

    fn publish(&mut self) {
        let snapshot = self.session.snapshot();
        let state = match snapshot.phase {
            // The engine publishes the end itself, once everything is undone.
            Phase::Disconnected | Phase::Failed => State::Disconnecting,
            Phase::Connecting => State::Connecting,
            Phase::Connected => State::Connected,
            Phase::Reconnecting => State::Reconnecting,
            Phase::Disconnecting => State::Disconnecting,
        };
        self.tunnel.note_paths(&snapshot.paths);
        if !self.shown.is_due(&snapshot, std::mem::take(&mut self.changed)) {
            return;
        }
        let finding = self.finding.as_ref().and_then(Option::as_ref);
        self.shown.publish(&self.context, state, &snapshot, finding, (&self.tunnel, &self.networks));
    }
}

/// The next hops on the device when they change; nothing when nobody watches them.
async fn newest(watch: &mut Option<watch::Receiver<Arc<Vec<NextHop>>>>) -> Option<Arc<Vec<NextHop>>> {
    let watch = watch.as_mut()?;
    watch.changed().await.ok()?;
    Some(Arc::clone(&watch.borrow_and_update()))
}

/// All addresses of a name, each once, in the system's order.
async fn look_up(host: &str) -> Result<Vec<IpAddr>, String> {
    let looked_up = tokio::time::timeout(RESOLVE_LIMIT, tokio::net::lookup_host((host, 0))).await;
    let addresses = looked_up.map_err(|_| "no name server answers".to_owned())?;
    let mut found: Vec<IpAddr> = Vec::new();
    for address in addresses.map_err(|error| error.to_string())? {
        if !found.contains(&address.ip()) {
            found.push(address.ip());
        }
    }
    Ok(found)
}
