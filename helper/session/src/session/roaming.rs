//! A connection whose way to the gateway changes or fails: it moves by MOBIKE where the gateway can, is set up again at once
//! where not, waits quietly where there is no network, and says what it is doing.
//!
//! ```text
//!                   path gone            opened          answered
//! using a path ---------------> opening --------> moving ---------> using the new path
//!      |  ^                        |  none             | refused, not answered
//!      |  |                        v                   v
//!      |  |                   no network           set up anew
//!      |  | failed
//!      |  +------------ testing <--- opening <--- another way looks better
//!      +-- works: moving
//! ```
//!
//! The IKE_SA lives through all of it ([`super::State::Connected`]), but whoever asks is told "connected" only while the
//! tunnel carries as far as can be known ([`Roaming::down`]).

mod clock;
mod down;
mod transport;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use rand_core::CryptoRng;
use ropewalk_ike::exchange::Path;
use ropewalk_ike::exchange::sa::{IkeSa, SaEvent};
use ropewalk_ike::time::Instant;
use ropewalk_ike::wire::{Message, NotifyType, find_notify};

use self::down::{explain, network_gone, no_network};
use super::{Session, State};
use crate::command::Command;
use crate::explain::Explanation;

/// A move that is over sooner is not worth telling of.
const MOVE_GRACE: Duration = Duration::from_secs(1);
/// A gateway that leaves a request unanswered for so long, and sends nothing else, is told of.
const UNANSWERED: Duration = Duration::from_secs(2);
/// One address of the gateway is tried for so long before the next.
const NEXT_ADDRESS: Duration = Duration::from_millis(1200);
/// After so long a sleep, or without a network, the gateway has forgotten us: nothing is asked, all is set up anew.
const LONG_ABSENCE: Duration = Duration::from_secs(600);
/// A better way that did not work is tried again after this, then half as often each time.
const FIRST_RETEST: Duration = Duration::from_secs(15);
const LAST_RETEST: Duration = Duration::from_secs(240);
/// How long a gateway may take from a farewell until the inner address is free: strongSwan answers first and removes routes
/// after that.
const CLEAN_UP: Duration = Duration::from_millis(200);
/// Unauthenticated hints are heeded this often.
const HINT_INTERVAL: Duration = Duration::from_secs(5);

/// What is being done about the path.
#[derive(Debug)]
enum Attempt {
    /// A socket was asked for; the path is tested first when the old one still works.
    /// The move that it is to take the place of goes on until then.
    Opening { remote: SocketAddr, test: bool, behind: Option<Move> },
    /// The gateway was asked by it.
    Testing { path: Path },
    /// The gateway was told to use it.
    Moving { to: Move, since: Instant },
}

/// A move that the gateway was told of.
#[derive(Clone, Copy, Debug)]
struct Move {
    path: Path,
    /// Where we were before.
    home: Path,
}

/// What a session knows about its way to the gateway.
#[derive(Debug)]
pub(super) struct Roaming {
    /// There is a network at all.
    online: bool,
    attempt: Option<Attempt>,
    /// Addresses of the gateway to try next.
    others: VecDeque<SocketAddr>,
    /// The path in use is gone since then.
    lost_at: Option<Instant>,
    asleep: bool,
    /// The machine woke up then, and nothing was heard of the gateway since.
    woke_at: Option<Instant>,
    /// Why the tunnel does not carry, while the IKE_SA is kept.
    pub(super) down: Option<Explanation>,
    retest: Option<Instant>,
    retest_wait: Duration,
    hinted_at: Option<Instant>,
    /// An IKE_SA that the gateway still has and we gave up: it is told by the next path.
    pub(super) former: Option<Box<IkeSa>>,
    /// Another one, which the gateway is to have until the next login is done.
    pub(super) leftover: Option<Box<IkeSa>>,
    /// The gateway is given until then to clean up after that one.
    farewell_until: Option<Instant>,
    /// Sockets of paths that were left, to which a CHILD_SA is still bound.
    left: Vec<u32>,
}

impl Default for Roaming {
    fn default() -> Self {
        Self {
            online: true,
            attempt: None,
            others: VecDeque::new(),
            lost_at: None,
            asleep: false,
            woke_at: None,
            down: None,
            retest: None,
            retest_wait: FIRST_RETEST,
            hinted_at: None,
            former: None,
            leftover: None,
            farewell_until: None,
            left: Vec::new(),
        }
    }
}

impl Session {
    /// The networks changed. `online` says whether any of them leads outside. A wait for the next try is over; without a
    /// network there is none.
    pub fn network_changed(&mut self, now: Instant, online: bool) {
        self.roaming.online = online;
        match &self.state {
            State::Waiting { .. } if !online => self.go_offline(),
            State::Waiting { .. } | State::Offline if online => {
                self.backoff.reset();
                self.begin_again();
            }
            State::Connected(_) => self.seek_if_lost(now),
            State::Waiting { .. }
            | State::Offline
            | State::Idle
            | State::AskingCredential
            | State::Racing(_)
            | State::Closing(_)
            | State::Failed => {}
        }
        self.review(now);
    }

    /// The system would now go to the gateway another way than by the path in use. That one goes on as long as it works;
    /// the other is tested, and taken when the gateway answers by it.
    pub fn way_changed(&mut self) {
        let State::Connected(sa) = &self.state else { return };
        if self.strands_hold(sa) {
            return;
        }
        if sa.can_move() && self.link.is_some() && self.roaming.attempt.is_none() {
            self.roaming.retest_wait = FIRST_RETEST;
            let remote = sa.path().remote;
            self.open(remote, true);
        }
    }

    /// The machine is about to sleep: from here on nothing is known.
    pub fn falling_asleep(&mut self, now: Instant) {
        self.roaming.asleep = true;
        self.review(now);
    }

    /// The machine woke up after a sleep of this length.
    pub fn woke_up(&mut self, now: Instant, slept: Duration, rng: &mut dyn CryptoRng) {
        self.roaming.asleep = false;
        match &mut self.state {
            State::Connected(_) if slept >= LONG_ABSENCE => {
                self.set_up_anew(explain("The computer slept for long.", "The connection is set up again."));
            }
            State::Connected(sa) => {
                self.roaming.woke_at = Some(now);
                if self.link.is_some() {
                    sa.check_liveness_soon(now, rng);
                    self.drain_sa(now, rng);
                }
                self.strands_woke_up(now, rng);
            }
            State::Waiting { .. } => {
                self.backoff.reset();
                self.begin_again();
            }
            State::Idle
            | State::AskingCredential
            | State::Racing(_)
            | State::Offline
            | State::Closing(_)
            | State::Failed => {}
        }
        self.review(now);
    }

    /// There are hints, unauthenticated ones, that the gateway has forgotten us: ask it, but not for each of them.
    pub fn check_liveness(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let State::Connected(sa) = &mut self.state else { return };
        if self.roaming.hinted_at.is_some_and(|at| now < at + HINT_INTERVAL) {
            return;
        }
        self.roaming.hinted_at = Some(now);
        sa.check_liveness(now, rng);
        self.drain_sa(now, rng);
        self.fading.ask(now, rng);
        self.drain_fading();
    }

    /// INVALID_IKE_SPI or INVALID_SPI in the clear says that the gateway may have restarted (RFC 7296 section 1.5); anybody
    /// can say so, therefore it is only asked.
    pub(super) fn heed_hint(&mut self, now: Instant, path: Path, datagram: &[u8], rng: &mut dyn CryptoRng) {
        let State::Connected(sa) = &self.state else { return };
        if path.remote != sa.path().remote {
            return;
        }
        let Ok(message) = Message::parse(datagram) else { return };
        let ours = message.header.spi_i == sa.spis().initiator;
        let forgotten = ours && find_notify(&message.payloads, NotifyType::InvalidIkeSpi).is_some();
        let unknown_esp = find_notify(&message.payloads, NotifyType::InvalidSpi).is_some_and(|notify| {
            sa.children().iter().any(|child| notify.data == child.spi_out.to_be_bytes())
        });
        if message.encrypted.is_none() && (forgotten || unknown_esp) {
            tracing::debug!(remote = %path.remote, "the gateway seems to have restarted: it is asked");
            self.check_liveness(now, rng);
        }
    }

    /// The path in use is gone under a connection that stands.
    pub(super) fn carrier_lost(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let State::Connected(sa) = &mut self.state else { return };
        if !sa.can_move() {
            self.set_up_anew(network_gone());
            return;
        }
        self.close_path();
        self.roaming.lost_at = Some(now);
        match self.roaming.attempt.take() {
            None => self.seek(now),
            Some(Attempt::Opening { remote, behind, .. }) => {
                self.roaming.attempt = Some(Attempt::Opening { remote, test: false, behind });
            }
            Some(Attempt::Testing { path }) => self.go_over(now, path, rng),
            Some(moving @ Attempt::Moving { .. }) => self.roaming.attempt = Some(moving),
        }
        self.review(now);
    }

    /// A socket that an attempt at another path uses is gone. Whether it was one of those.
    pub(super) fn attempt_lost(&mut self, now: Instant, link: u32, rng: &mut dyn CryptoRng) -> bool {
        let (path, home) = match &self.roaming.attempt {
            Some(Attempt::Testing { path }) => (*path, None),
            Some(Attempt::Moving { to, .. } | Attempt::Opening { behind: Some(to), .. }) => {
                (to.path, Some(to.home).filter(|home| self.link == Some(home.link)))
            }
            Some(Attempt::Opening { behind: None, .. }) | None => return false,
        };
        if path.link != link {
            return false;
        }
        self.drop_attempt();
        match (&mut self.state, home) {
            _ if self.link.is_none() => self.seek(now),
            // A test ends by itself; a move has to be taken back.
            (State::Connected(sa), Some(home)) => {
                sa.move_to(now, home, rng);
                self.drain_sa(now, rng);
            }
            _ => {}
        }
        self.review(now);
        true
    }

    /// The socket that an attempt at another path asked for. Whether it was one of those.
    pub(super) fn attempt_opened(&mut self, now: Instant, path: Path, rng: &mut dyn CryptoRng) -> bool {
        let Some(Attempt::Opening { remote, test, .. }) = self.roaming.attempt else { return false };
        if path.remote != remote {
            return false;
        }
        let State::Connected(sa) = &mut self.state else { return false };
        let in_use = sa.path();
        if self.link.is_some() && (in_use.local.ip(), in_use.remote) == (path.local.ip(), path.remote) {
            // The way that is in use already.
            self.drop_attempt();
            self.commands.push_back(Command::ClosePath(path.link));
        } else if test && self.link.is_some() {
            self.roaming.attempt = Some(Attempt::Testing { path });
            sa.test_path(now, path, rng);
            self.drain_sa(now, rng);
        } else {
            self.go_over(now, path, rng);
        }
        self.review(now);
        true
    }

    /// No socket can be opened for an attempt at another path. Whether it was one of those.
    pub(super) fn attempt_failed(&mut self, now: Instant) -> bool {
        let Some(Attempt::Opening { test, behind, .. }) = self.roaming.attempt else { return false };
        match (self.roaming.others.pop_front(), behind) {
            (Some(next), _) => self.open(next, test),
            (None, Some(behind)) => self.roaming.attempt = Some(Attempt::Moving { to: behind, since: now }),
            (None, None) => {
                self.roaming.attempt = None;
                if self.link.is_none() && self.roaming.online {
                    // The system need not tell of a way that opens later.
                    self.roaming.retest = Some(now + FIRST_RETEST);
                }
            }
        }
        self.review(now);
        true
    }

    /// What MOBIKE has to tell.
    pub(super) fn roaming_event(&mut self, now: Instant, event: &SaEvent, rng: &mut dyn CryptoRng) {
        let State::Connected(sa) = &mut self.state else { return };
        match event {
            SaEvent::PathChanged(path) => {
                if let Some(spi_in) = sa.carrying().filter(|_| sa.carrying_fits()) {
                    self.commands.push_back(self.strands.send_with(spi_in, *path));
                }
                self.arrived(*path);
                self.first_arrived(now, rng);
                self.fading_follow(now, *path, rng);
            }
            SaEvent::PathWorks(path) => {
                if matches!(&self.roaming.attempt, Some(Attempt::Testing { path: tested }) if tested == path)
                {
                    self.go_over(now, *path, rng);
                }
            }
            SaEvent::PathFailed(path) => {
                if matches!(&self.roaming.attempt, Some(Attempt::Testing { path: tested }) if tested == path)
                {
                    self.drop_attempt();
                    self.roaming.retest = Some(now + self.roaming.retest_wait);
                    self.roaming.retest_wait = (self.roaming.retest_wait * 2).min(LAST_RETEST);
                    tracing::info!(local = %path.local, "the new way to the gateway does not work yet");
                }
            }
            SaEvent::MoveRefused(notify) => {
                tracing::info!(%notify, "the gateway does not let us move there");
                self.move_refused(now, rng);
            }
            SaEvent::PeerAddresses => {
                let (known, in_use) = (sa.peer_addresses(), sa.path().remote);
                let other = known.iter().find(|ip| ip.is_ipv4() == in_use.is_ipv4()).or(known.first());
                if let Some(other) = other
                    && !known.contains(&in_use.ip())
                    && self.roaming.attempt.is_none()
                {
                    let remote = SocketAddr::new(*other, in_use.port());
                    self.open(remote, true);
                }
            }
            SaEvent::Group(_)
            | SaEvent::Redirected(_)
            | SaEvent::ChildUp { .. }
            | SaEvent::ChildCarries { .. }
            | SaEvent::ChildDown { .. }
            | SaEvent::ChildRefused(_)
            | SaEvent::RekeyRefused(_)
            | SaEvent::IkeRekeyRefused(_)
            | SaEvent::AuthLifetime(_)
            | SaEvent::Rekeyed(_)
            | SaEvent::Kept(_)
            | SaEvent::KeepRefused(_)
            | SaEvent::Probed { .. }
            | SaEvent::Reported(_)
            | SaEvent::InnerGranted(_)
            | SaEvent::SizeTested { .. }
            | SaEvent::SwitchAsked(_)
            | SaEvent::SwitchAnswered { .. }
            | SaEvent::Redundant(_)
            | SaEvent::Closed(_) => {}
        }
    }

    /// Says good-bye to the gateway for an IKE_SA that was given up when its path was gone, so that the next one gets the
    /// inner address.
    pub(super) fn bury_former(&mut self, now: Instant, path: Path, rng: &mut dyn CryptoRng) {
        let former = self.roaming.former.take_if(|former| former.path().remote.ip() == path.remote.ip());
        let Some(mut former) = former else { return };
        let remote = former.path().remote;
        let told = former.close_by(now, Path { remote, ..path }, rng);
        self.fading.add(*former);
        self.drain_fading();
        // What is under way has to be answered before the DELETE can go.
        self.roaming.farewell_until = Some(now + if told { CLEAN_UP } else { CLEAN_UP * 2 });
    }

    /// The next login is done.
    pub(super) fn bury_leftover(&mut self, now: Instant, path: Path, rng: &mut dyn CryptoRng) {
        let Some(mut leftover) = self.roaming.leftover.take() else { return };
        let remote = leftover.path().remote;
        leftover.close_by(now, Path { remote, ..path }, rng);
        self.fading.add(*leftover);
        self.drain_fading();
    }

    /// Whether IKE_AUTH may begin: the gateway has had the time to clean up after an IKE_SA of ours that it was told to drop.
    pub(super) fn farewell_heard(&mut self, now: Instant) -> bool {
        self.roaming.farewell_until.take_if(|until| now >= *until);
        self.roaming.farewell_until.is_none()
    }

    /// When that may be.
    pub(super) fn farewell_poll(&self) -> Option<Instant> {
        self.roaming.farewell_until
    }

    /// The connection ends or begins anew: nothing of the old way counts. Whether it ended because of its way, so that
    /// another try need not wait.
    pub(super) fn forget_roaming(&mut self) -> bool {
        let troubled = self.roaming.lost_at.is_some() || self.roaming.woke_at.is_some() || self.is_moving();
        self.drop_attempt();
        let roaming = std::mem::take(&mut self.roaming);
        self.commands.extend(roaming.left.into_iter().map(Command::ClosePath));
        self.roaming.online = roaming.online;
        (self.roaming.former, self.roaming.leftover) = (roaming.former, roaming.leftover);
        troubled
    }

    /// The next try, from the first gateway on.
    pub(super) fn begin_again(&mut self) {
        if self.roaming.online {
            self.begin();
        } else {
            self.go_offline();
        }
    }

    pub(super) fn is_offline(&self) -> bool {
        !self.roaming.online
    }

    pub(super) fn go_offline(&mut self) {
        self.error = Some(no_network());
        self.state = State::Offline;
    }

    /// Gives the IKE_SA up without waiting for anything, and sets up another.
    fn set_up_anew(&mut self, why: Explanation) {
        let State::Connected(sa) = std::mem::replace(&mut self.state, State::Idle) else { return };
        self.start_over(sa, why);
    }

    /// Sets up another IKE_SA in place of this one, which the gateway is told of by the next path.
    pub(super) fn start_over(&mut self, former: Box<IkeSa>, why: Explanation) {
        self.forget(&former);
        self.leave_all();
        self.close_path();
        self.forget_roaming();
        self.roaming.former = Some(former);
        self.error = Some(why);
        self.begin_again();
    }

    /// Looks for a path, if the one in use is gone and none is tried.
    pub(super) fn seek_if_lost(&mut self, now: Instant) {
        if matches!(self.state, State::Connected(_)) && self.link.is_none() && self.roaming.attempt.is_none()
        {
            self.seek(now);
        }
    }

    /// Looks for a path, the one in use being gone.
    fn seek(&mut self, now: Instant) {
        let State::Connected(sa) = &self.state else { return };
        if self.roaming.lost_at.is_some_and(|at| now >= at + LONG_ABSENCE) {
            self.set_up_anew(network_gone());
            return;
        }
        let remote = sa.path().remote;
        self.roaming.others = other_addresses(sa);
        self.open(remote, false);
    }

    fn open(&mut self, remote: SocketAddr, test: bool) {
        let behind = match &self.roaming.attempt {
            Some(Attempt::Moving { to, .. }) => Some(*to),
            Some(Attempt::Opening { behind, .. }) => *behind,
            Some(Attempt::Testing { .. }) | None => None,
        };
        if behind.is_none() {
            self.drop_attempt();
        }
        self.roaming.attempt = Some(Attempt::Opening { remote, test, behind });
        self.commands.push_back(self.strands.open_path(remote));
    }

    fn go_over(&mut self, now: Instant, path: Path, rng: &mut dyn CryptoRng) {
        let State::Connected(sa) = &mut self.state else { return };
        let to = Move { path, home: sa.path() };
        sa.move_to(now, path, rng);
        if !matches!(&self.roaming.attempt, Some(Attempt::Testing { path: tested }) if *tested == path) {
            self.drop_attempt();
        }
        self.roaming.attempt = Some(Attempt::Moving { to, since: now });
        self.drain_sa(now, rng);
        self.fading_follow(now, path, rng);
    }

    fn arrived(&mut self, path: Path) {
        let beside = match &self.roaming.attempt {
            Some(Attempt::Testing { path: tested }) => tested.link != path.link,
            Some(Attempt::Opening { test, behind, .. }) => *test && behind.is_none(),
            Some(Attempt::Moving { .. }) | None => false,
        };
        if beside && self.link == Some(path.link) {
            // The path in use, seen anew, as through a NAT that has another mapping: what is tried beside it goes on.
            return;
        }
        if self.link != Some(path.link) {
            self.leave_path();
            self.link = Some(path.link);
            tracing::info!(local = %path.local, remote = %path.remote, "moved to another path");
        }
        self.roaming.attempt = None;
        self.roaming.others.clear();
        self.roaming.lost_at = None;
        self.roaming.retest = None;
    }

    /// The gateway does not want us at the new address: back, if there is a way back; else all anew.
    fn move_refused(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let Some(Attempt::Moving { to: Move { home, .. }, .. }) = self.roaming.attempt else { return };
        if self.link == Some(home.link)
            && let State::Connected(sa) = &mut self.state
        {
            sa.move_to(now, home, rng);
            self.drop_attempt();
            self.drain_sa(now, rng);
        } else {
            self.set_up_anew(explain(
                "The gateway does not accept this network.",
                "The connection is set up again from here.",
            ));
        }
    }

    /// The path that was used, or looked for, does not matter any more: another strand carries.
    pub(super) fn stop_moving(&mut self) {
        self.drop_attempt();
        self.roaming.others.clear();
        self.roaming.lost_at = None;
        self.roaming.retest = None;
    }

    fn drop_attempt(&mut self) {
        let path = match self.roaming.attempt.take() {
            Some(Attempt::Testing { path }) => path,
            Some(Attempt::Moving { to, .. } | Attempt::Opening { behind: Some(to), .. }) => to.path,
            Some(Attempt::Opening { behind: None, .. }) | None => return,
        };
        if self.link != Some(path.link) {
            self.commands.push_back(Command::ClosePath(path.link));
        }
    }

    fn is_moving(&self) -> bool {
        matches!(
            self.roaming.attempt,
            Some(Attempt::Moving { .. } | Attempt::Opening { behind: Some(_), .. })
        )
    }

    /// Whether the path in use is gone or another one is being tried.
    pub(super) fn is_on_the_move(&self) -> bool {
        self.link.is_none() || self.roaming.attempt.is_some()
    }

    /// No path, and none under way: the IKE_SA's clocks stand still.
    fn is_away(&self) -> bool {
        self.link.is_none() && !self.is_moving()
    }
}

/// The gateway's other addresses, those of the family in use first.
fn other_addresses(sa: &IkeSa) -> VecDeque<SocketAddr> {
    let in_use = sa.path().remote;
    let mut others: Vec<SocketAddr> = sa
        .peer_addresses()
        .iter()
        .filter(|ip| **ip != in_use.ip())
        .map(|ip| SocketAddr::new(*ip, in_use.port()))
        .collect();
    others.sort_by_key(|other| other.is_ipv4() != in_use.is_ipv4());
    others.into()
}
