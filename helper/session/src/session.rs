//! The states of a session and what moves between them.
//!
//! ```text
//! connect -> [credential] -> race: all addresses of all gateways -> connected
//!               ^                        |                              |
//!               +-- password refused, ---+--> failed                    |
//!                   somebody to ask                                     |
//!            wait <------------------ lost: closed by the peer, dead ---+
//! ```
//!
//! Until the first success a failure is final, for somebody watches and decides. Once connected, the intent stays until
//! the user takes it back: every loss leads to another try, and the tunnel device stays.

mod dhcp;
mod fading;
mod group;
mod progress;
mod race;
mod reauth;
mod renewal;
mod roaming;
mod sizing;
mod strands;
mod stray;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use rand_core::CryptoRng;
use ropewalk_ike::error::{PeerMisbehaved, WireError};
use ropewalk_ike::exchange::config::LocalAuth;
use ropewalk_ike::exchange::nat::NatSituation;
use ropewalk_ike::exchange::sa::{Features, IkeSa};
use ropewalk_ike::exchange::{IkeSpis, Path, Transmit};
use ropewalk_ike::time::{Instant, UnixTime};
use zeroize::Zeroizing;

use crate::backoff::Backoff;
use crate::command::{Command, InnerSettings};
use crate::config::SessionConfig;
use crate::explain::{Cause, Explanation};
use crate::uplink::{Alone, PathSnapshot};
use dhcp::Dhcp;
pub use dhcp::LeaseInfo;
use fading::Fading;
use group::Group;
pub use group::GroupInfo;
use race::Race;
use reauth::Reauth;
use roaming::Roaming;
use sizing::Sizing;
use strands::Strands;

/// A disconnect is over after this, whether the gateway hears of it or not.
pub const FAREWELL: Duration = Duration::from_secs(2);

/// What was sent by a CHILD_SA may be overtaken by the word that deletes it, which therefore waits for so long.
const LAST_WORD: Duration = Duration::from_millis(50);

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
    Racing(Box<Race>),
    Connected(Box<IkeSa>),
    Waiting {
        until: Instant,
    },
    /// No network: nothing is tried until there is one.
    Offline,
    Closing(Box<IkeSa>),
    Failed,
}

/// What is known of an IKE_SA.
#[derive(Clone, Debug, PartialEq)]
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

impl IkeInfo {
    fn of(sa: &IkeSa) -> Self {
        Self {
            spis: sa.spis(),
            suite: sa.suite().syntax(),
            gateway_identity: sa.peer_id().to_string(),
            nat: sa.nat(),
            features: sa.features(),
            path: sa.path(),
            group: sa.suite().group,
        }
    }
}

/// A look at a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Where it stands.
    pub phase: Phase,
    /// The IKE_SA of the path that carries, when there is one.
    pub ike: Option<IkeInfo>,
    /// The IKE_SAs of the other paths.
    pub beside: Vec<IkeInfo>,
    /// The inside, once it was configured.
    pub inner: Option<InnerSettings>,
    /// Its paths, the one that carries first.
    pub paths: Vec<PathSnapshot>,
    /// Why there is one path and no more.
    pub alone: Option<Alone>,
    /// The lease of the inner address, when that comes by DHCP and is held.
    pub lease: Option<LeaseInfo>,
    /// The group, when the profile asks for multi-point SA.
    pub group: Option<GroupInfo>,
    /// Why it failed, why it is reconnecting, or what is wrong with it while it stands.
    pub error: Option<Explanation>,
}

/// One connection.
pub struct Session {
    config: SessionConfig,
    state: State,
    /// The user was connected since the last `connect`.
    was_up: bool,
    link: Option<u32>,
    roaming: Roaming,
    strands: Strands,
    sizing: Sizing,
    backoff: Backoff,
    refusals: u32,
    /// When gateways sent us elsewhere.
    redirects: Vec<Instant>,
    /// Other connections show the same face to gateways.
    others: bool,
    /// The last gateway has nothing of ours left, by its own word.
    clean: bool,
    inner: Option<InnerSettings>,
    error: Option<Explanation>,
    /// What is wrong with a connection that stands.
    warning: Option<Explanation>,
    wall_clock: UnixTime,
    /// IKE_SAs that others took the place of.
    fading: Fading,
    group: Group,
    /// When the IKE_SA that is left is to be deleted: what was said by its CHILD_SA comes first.
    close_at: Option<Instant>,
    /// When the inner address comes by DHCP.
    dhcp: Option<Box<Dhcp>>,
    reauth: Reauth,
    /// Everything was set up anew to keep the inner address over a new login: not again, if that does not help.
    insisted: bool,
    /// When the gateway was told last of what it sends and nothing here belongs to.
    told_at: Option<Instant>,
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
            strands: Strands::new(&config.paths),
            dhcp: config.dhcp.clone().map(|dhcp| Box::new(Dhcp::new(dhcp))),
            config,
            state: State::Idle,
            was_up: false,
            link: None,
            roaming: Roaming::default(),
            sizing: Sizing::default(),
            backoff: Backoff::default(),
            refusals: 0,
            redirects: Vec::new(),
            others: false,
            clean: false,
            inner: None,
            error: None,
            warning: None,
            wall_clock: UnixTime(0),
            fading: Fading::default(),
            group: Group::default(),
            reauth: Reauth::default(),
            insisted: false,
            told_at: None,
            close_at: None,
            transmits: VecDeque::new(),
            commands: VecDeque::new(),
        }
    }

    /// Whether there are, or are about to be, other IKE_SAs with the same identity from this machine. Then the gateway is not
    /// told that this is the only one: it would end the others (INITIAL_CONTACT, RFC 7296 section 2.4).
    pub fn set_others(&mut self, others: bool) {
        self.others = others;
        if let (true, State::Racing(race)) = (others, &mut self.state) {
            race.others_are_up();
        }
    }

    /// The user wants to be connected. `wall_clock` decides about certificates in this attempt.
    pub fn connect(&mut self, wall_clock: UnixTime) {
        if !matches!(self.state, State::Idle | State::Failed) {
            return;
        }
        self.wall_clock = wall_clock;
        self.strands.hope();
        self.was_up = false;
        self.error = None;
        self.refusals = 0;
        self.clean = false;
        self.begin();
    }

    /// The user wants to be disconnected: the gateway is told, the tunnel goes.
    pub fn disconnect(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        self.error = None;
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Connected(mut sa) => {
                self.drop_reauth(now, rng);
                let gave_back = self.give_lease_back(now, &sa, rng);
                self.end_strands_by(now, sa.path(), rng);
                if gave_back {
                    self.close_at = Some(now + LAST_WORD);
                } else {
                    sa.close(now, rng);
                }
                self.state = State::Closing(sa);
                self.drain_sa(now, rng);
            }
            State::Closing(sa) => self.state = State::Closing(sa),
            State::Racing(race) => {
                self.abort_race(now, *race, rng);
                self.go_idle();
            }
            State::Idle
            | State::AskingCredential
            | State::Waiting { .. }
            | State::Offline
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
        self.start_race();
    }

    /// A socket that [`Command::OpenPath`] asked for, on this interface.
    pub fn path_opened(&mut self, now: Instant, path: Path, interface: u32, rng: &mut dyn CryptoRng) {
        self.note_link(path.link, interface);
        if self.growth_opened(now, path, interface, rng) || self.attempt_opened(now, path, rng) {
            return;
        }
        if self.race_opened(now, path, rng) {
            self.bury_former(now, path, rng);
        } else {
            // Nobody waits for it any more.
            self.commands.push_back(Command::ClosePath(path.link));
        }
    }

    /// The socket that [`Command::OpenPath`] asked for with this address and interface cannot be opened.
    pub fn path_failed(
        &mut self,
        now: Instant,
        (remote, interface): (SocketAddr, Option<u32>),
        why: &str,
        rng: &mut dyn CryptoRng,
    ) {
        tracing::debug!(%remote, ?interface, why, "there is no way there");
        if !self.growth_failed(now, remote, interface, rng) && !self.attempt_failed(now) {
            self.race_not_opened(now, why, rng);
        }
    }

    /// The socket of `link` is of no use any more, as when its interface went.
    pub fn path_lost(&mut self, now: Instant, link: u32, rng: &mut dyn CryptoRng) {
        let other = self.left_path_lost(link)
            || self.strand_path_lost(now, link, rng)
            || self.attempt_lost(now, link, rng)
            || self.race_lost(now, link, rng);
        if !other && self.link == Some(link) {
            self.carrier_lost(now, rng);
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
        if let Some(spis) = IkeSpis::of(datagram).filter(|spis| self.fading.owns(*spis)) {
            let result = self.fading.handle_datagram(now, spis, (path, datagram), rng);
            self.drain_fading();
            return result;
        }
        if let Some(result) = self.strand_datagram(now, path, datagram, rng) {
            return result;
        }
        if let Some(result) = self.reauth_datagram(now, path, datagram, rng) {
            return result;
        }
        match &mut self.state {
            State::Racing(_) => self.race_datagram(now, path, datagram, rng),
            State::Connected(sa) | State::Closing(sa) => {
                let result = sa.handle_datagram(now, path, datagram, rng);
                self.drain_sa(now, rng);
                if matches!(result, Err(PeerMisbehaved::NotEncrypted | PeerMisbehaved::WrongSpi)) {
                    self.heed_hint(now, path, datagram, rng);
                }
                if let Err(PeerMisbehaved::Wire(WireError::UnsupportedMajorVersion { major })) = result {
                    self.refuse_version(now, path, datagram, major);
                }
                self.review(now);
                result
            }
            State::Idle
            | State::AskingCredential
            | State::Waiting { .. }
            | State::Offline
            | State::Failed => Err(PeerMisbehaved::WrongSpi),
        }
    }

    /// Acts on the clock.
    pub fn handle_timeout(&mut self, now: Instant, wall_clock: UnixTime, rng: &mut dyn CryptoRng) {
        self.wall_clock = wall_clock;
        self.fading.handle_timeout(now, rng);
        self.drain_fading();
        self.reauth_timeout(now, rng);
        self.group_timeout(now);
        self.strands_timeout(now, rng);
        self.sizing_timeout(now, rng);
        self.dhcp_timeout(now, rng);
        match &mut self.state {
            State::Racing(_) => self.race_timeout(now, rng),
            State::Connected(_) => self.connected_timeout(now, rng),
            State::Closing(sa) => {
                if self.close_at.take_if(|at| now >= *at).is_some() {
                    sa.close(now, rng);
                }
                sa.handle_timeout(now, rng);
                self.drain_sa(now, rng);
            }
            State::Waiting { until } if now >= *until => self.begin_again(),
            State::Waiting { .. }
            | State::Offline
            | State::Idle
            | State::AskingCredential
            | State::Failed => {}
        }
    }

    /// The next datagram to send; none while a CHILD_SA waits to be installed, for the peer may use it as soon as it hears of
    /// it (RFC 7296 section 2.8), nor while an inner packet waits, whose CHILD_SA may be deleted by what is said next.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let first =
            |command: &Command| matches!(command, Command::InstallChild(_) | Command::SendInner { .. });
        if self.commands.iter().any(first) {
            return None;
        }
        self.transmits.pop_front()
    }

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match &self.state {
            State::Racing(race) => self.race_poll(race),
            State::Connected(sa) => self.connected_poll(sa),
            State::Closing(sa) => self.close_at.into_iter().chain(sa.poll_timeout()).min(),
            State::Waiting { until } => Some(*until),
            State::Idle | State::Offline | State::AskingCredential | State::Failed => None,
        };
        let reauth = self.reauth.poll_timeout().filter(|_| matches!(self.state, State::Connected(_)));
        let beside = [self.fading.poll_timeout(), reauth, self.group.poll_timeout()];
        let more = [own, self.strands_poll(), self.sizing_poll(), self.dhcp_poll()];
        beside.into_iter().chain(more).flatten().min()
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Idle => Phase::Disconnected,
            State::Failed => Phase::Failed,
            State::Connected(_) if self.roaming.down.is_some() => Phase::Reconnecting,
            State::Connected(_) if self.is_without_address() => {
                if self.was_up {
                    Phase::Reconnecting
                } else {
                    Phase::Connecting
                }
            }
            State::Connected(_) => Phase::Connected,
            State::Closing(_) => Phase::Disconnecting,
            State::AskingCredential | State::Racing(_) | State::Offline | State::Waiting { .. } => {
                if self.was_up { Phase::Reconnecting } else { Phase::Connecting }
            }
        }
    }

    /// All there is to show.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let ike = match &self.state {
            State::Connected(sa) => Some(IkeInfo::of(sa)),
            _ => None,
        };
        let warning = self.warning.as_ref().filter(|_| ike.is_some());
        let error = self.roaming.down.as_ref().or(self.error.as_ref()).or(warning).cloned();
        let beside = self.strands.ike_infos().filter(|_| ike.is_some()).collect();
        let (paths, alone) = (self.path_snapshots(), self.alone());
        let group = self.config.initiator.multi_point_sa.map(|_| self.group.info());
        let (inner, lease) = (self.inner.clone(), self.lease_info());
        Snapshot { phase: self.phase(), ike, beside, inner, paths, alone, lease, group, error }
    }
}
