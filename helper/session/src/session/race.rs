//! The way up: all addresses of all gateways, raced in the manner of happy eyeballs (RFC 8305).
//!
//! ```text
//! name -> addresses, families in turn -> one IKE_SA_INIT after the other, the earlier ones going on
//!                                                    | the first acceptable answer
//!                                                    v
//!                                   the others are dropped, IKE_AUTH with this one
//!                                                    | two seconds without a proof of who it is
//!                                                    +--------> the others again, this one going on
//! ```
//!
//! Before IKE_AUTH nothing is shown that is worth anything, so several gateways may be asked; who we are and what we know
//! goes to one at a time, and to the next only when that one stays silent: its answer to IKE_SA_INIT may have been forged,
//! or its way may be too narrow for IKE_AUTH. A dropped request leaves nothing here, and a half-open IKE_SA at the gateway
//! that forgets it by itself, as after a lost packet.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_core::CryptoRng;
use ropewalk_ike::error::PeerMisbehaved;
use ropewalk_ike::exchange::Path;
use ropewalk_ike::exchange::child::Mode;
use ropewalk_ike::exchange::config::{InitiatorConfig, LocalAuth};
use ropewalk_ike::exchange::initiator::{Established, HandshakeError, Initiator};
use ropewalk_ike::proposal::every_ike_proposal;
use ropewalk_ike::time::{Instant, UnixTime};
use ropewalk_ike::wire::{GatewayName, Identification};

use super::dhcp::ask_for_dhcp_sa;
use super::{MAX_REFUSALS, Session, State};
use crate::command::{Command, CredentialReason};
use crate::explain::{Cause, Circumstances, Explanation, Unreached};

/// How long an address is given before the next one of the same gateway is tried beside it (RFC 8305 section 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// The same for the next gateway. It is there for when the one before is down, not for when it is far.
const NEXT_GATEWAY: Duration = Duration::from_secs(2);
/// How long IKE_AUTH with one address may go without a proof of who answers there until the others are tried beside it: the
/// request has been repeated by then.
const UNPROVEN: Duration = Duration::from_secs(2);

/// Redirections that are followed within [`REDIRECT_PERIOD`] (RFC 5685 section 7).
const MAX_REDIRECTS: usize = 5;
const REDIRECT_PERIOD: Duration = Duration::from_secs(300);

/// The first of January 2026: this was written later, so a clock that says less is wrong.
const IMPOSSIBLE_BEFORE: UnixTime = UnixTime(1_767_225_600);

/// A gateway to try.
#[derive(Clone, Debug)]
struct Name {
    /// A name or an address, also for messages.
    host: String,
    port: u16,
    /// Who sent us there.
    from: Option<GatewayName>,
}

/// An address to try.
#[derive(Clone, Debug)]
struct Candidate {
    remote: SocketAddr,
    name: Name,
}

/// An address that is being tried.
struct Runner {
    link: u32,
    candidate: Candidate,
    initiator: Initiator,
    /// Asks with everything that is spoken here what the gateway would take, when it takes nothing of the profile's.
    probe: Option<Initiator>,
    unreached: Option<Unreached>,
    /// IKE_AUTH runs with it.
    released: bool,
}

/// The one that the others wait for.
struct Favourite {
    link: u32,
    /// Not longer than this, unless it proves who it is.
    until: Instant,
}

/// Everything that is under way between the wish to be connected and an IKE_SA.
#[derive(Default)]
pub(super) struct Race {
    /// Gateways whose addresses were not asked for yet.
    names: VecDeque<Name>,
    resolving: Option<Name>,
    candidates: VecDeque<Candidate>,
    opening: Option<Candidate>,
    runners: Vec<Runner>,
    /// Nothing else is begun while it may still answer IKE_AUTH.
    favourite: Option<Favourite>,
    /// Nothing further is begun before.
    next_at: Option<Instant>,
    /// The best explanation of a failure so far.
    error: Option<Explanation>,
}

impl Race {
    /// This is not the only IKE_SA with this identity.
    pub(super) fn others_are_up(&mut self) {
        for runner in &mut self.runners {
            runner.initiator.is_not_alone();
        }
    }

    fn note(&mut self, error: Explanation) {
        // That a gateway said no is worth more than that another was silent.
        let known = self.error.as_ref().is_some_and(|known| known.cause != Cause::Unreachable);
        if !known || error.cause != Cause::Unreachable {
            self.error = Some(error);
        }
    }

    fn is_busy(&self) -> bool {
        self.resolving.is_some() || self.opening.is_some() || !self.runners.is_empty()
    }

    fn has_more(&self) -> bool {
        !self.candidates.is_empty() || !self.names.is_empty()
    }

    /// Whether there is a gateway at the other end of one of them for certain.
    fn is_proven(&self) -> bool {
        self.runners.iter().any(|runner| runner.initiator.is_proven())
    }
}

impl Session {
    /// Sets out for the first gateway.
    pub(super) fn start_race(&mut self) {
        self.start_race_by_way_of(None);
    }

    /// The same, with the gateway first that another one sent us to.
    pub(super) fn start_race_by_way_of(&mut self, redirect: Option<(GatewayName, GatewayName)>) {
        let mut race = Race::default();
        self.strands.forget_gateway();
        let port = self.config.gateways.first().map_or(0, |endpoint| endpoint.port);
        let redirected = redirect.map(|(to, from)| Name { host: to.to_string(), port, from: Some(from) });
        let gateways = self.config.gateways.iter();
        let gateways = gateways.map(|to| Name { host: to.host.clone(), port: to.port, from: None });
        race.names = redirected.into_iter().chain(gateways).collect();
        let Some(first) = race.names.pop_front() else {
            self.fail(Explanation::new(
                Cause::Profile,
                "The profile names no gateway.",
                "Set gateway.address in the profile.",
            ));
            return;
        };
        self.commands.push_back(Command::Resolve(first.host.clone()));
        race.resolving = Some(first);
        self.state = State::Racing(Box::new(race));
    }

    /// The addresses that answer [`Command::Resolve`], or why there are none.
    pub fn resolved(&mut self, now: Instant, answer: Result<Vec<IpAddr>, String>, rng: &mut dyn CryptoRng) {
        let State::Racing(race) = &mut self.state else { return };
        let Some(name) = race.resolving.take() else { return };
        let why = match answer {
            Ok(addresses) if !addresses.is_empty() => {
                self.strands.note_addresses(&addresses);
                let candidate = |ip| Candidate { remote: SocketAddr::new(ip, name.port), name: name.clone() };
                race.candidates.extend(families_in_turn(addresses).into_iter().map(candidate));
                None
            }
            Ok(_) => Some("it has no addresses".to_owned()),
            Err(why) => Some(why),
        };
        if let Some(why) = why {
            race.note(Explanation::new(
                Cause::Unreachable,
                format!("The gateway's name {} cannot be found: {why}.", name.host),
                "Check the name in the profile and the network's DNS.",
            ));
        }
        race.next_at = None;
        self.drive_race(now, rng);
    }

    /// The socket that the race asked for. Whether it was one of its.
    pub(super) fn race_opened(&mut self, now: Instant, path: Path, rng: &mut dyn CryptoRng) -> bool {
        let State::Racing(race) = &mut self.state else { return false };
        let Some(candidate) = race.opening.take_if(|opening| opening.remote == path.remote) else {
            return false;
        };
        let mut config = self.config.initiator.clone();
        config.wall_clock = self.wall_clock;
        config.initial_contact &= !self.clean && !self.others;
        config.redirected_from.clone_from(&candidate.name.from);
        if self.dhcp.is_some() {
            ask_for_dhcp_sa(&mut config);
        }
        if self.config.identity_from_address {
            config.local_id = Identification::address(path.local.ip());
        }
        match Initiator::start(config, path, now, rng) {
            Ok(initiator) => {
                let wait = if race.candidates.is_empty() { NEXT_GATEWAY } else { NEXT_ADDRESS };
                race.next_at = Some(now + wait);
                race.runners.push(Runner {
                    link: path.link,
                    candidate,
                    initiator,
                    probe: None,
                    unreached: None,
                    released: false,
                });
                self.drive_race(now, rng);
            }
            Err(error) => {
                self.commands.push_back(Command::ClosePath(path.link));
                self.refused(now, &error, &candidate.name.host, rng);
            }
        }
        true
    }

    /// No socket can be opened for the race. Whether it was one of its.
    pub(super) fn race_not_opened(&mut self, now: Instant, why: &str, rng: &mut dyn CryptoRng) -> bool {
        let State::Racing(race) = &mut self.state else { return false };
        let Some(candidate) = race.opening.take() else { return false };
        race.note(Explanation::new(
            Cause::Unreachable,
            format!("There is no way to the gateway {}: {why}.", candidate.remote.ip()),
            "Check the network connection.",
        ));
        race.next_at = None;
        self.drive_race(now, rng);
        true
    }

    /// The socket of this link is of no use any more. Whether the race used it.
    pub(super) fn race_lost(&mut self, now: Instant, link: u32, rng: &mut dyn CryptoRng) -> bool {
        let State::Racing(race) = &mut self.state else { return false };
        let Some(at) = race.runners.iter().position(|runner| runner.link == link) else { return false };
        race.runners.remove(at);
        race.favourite.take_if(|favourite| favourite.link == link);
        race.next_at = None;
        race.note(Explanation::new(
            Cause::Unreachable,
            "The network that carried the connection is gone.",
            "Ropewalk reconnects as soon as there is one.",
        ));
        self.commands.push_back(Command::ClosePath(link));
        self.drive_race(now, rng);
        true
    }

    /// The system says that what was sent on this link does not arrive. Anybody can make it say so: the next address is
    /// tried at once, and this one goes on.
    pub fn path_refused(&mut self, now: Instant, link: u32, why: Unreached, rng: &mut dyn CryptoRng) {
        let State::Racing(race) = &mut self.state else { return };
        if let Some(runner) = race.runners.iter_mut().find(|runner| runner.link == link) {
            runner.unreached = Some(why);
            race.next_at = None;
            self.drive_race(now, rng);
        }
    }

    /// Takes a datagram for one of the attempts.
    ///
    /// # Errors
    /// What was wrong with it.
    pub(super) fn race_datagram(
        &mut self,
        now: Instant,
        path: Path,
        datagram: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        let State::Racing(race) = &mut self.state else { return Err(PeerMisbehaved::WrongSpi) };
        let runner = race.runners.iter_mut().find(|runner| runner.link == path.link);
        let runner = runner.ok_or(PeerMisbehaved::WrongSpi)?;
        if let Some(probe) = &mut runner.probe
            && probe.spi().is_some_and(|spi| datagram.starts_with(&spi.to_be_bytes()))
        {
            let result = probe.handle_datagram(now, path, datagram, rng);
            self.drive_race(now, rng);
            return result;
        }
        let result = runner.initiator.handle_datagram(now, path, datagram, rng);
        self.drive_race(now, rng);
        result
    }

    /// Acts on the clock.
    pub(super) fn race_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        // A time that is over must not be asked for again.
        self.farewell_heard(now);
        let State::Racing(race) = &mut self.state else { return };
        for runner in &mut race.runners {
            runner.initiator.handle_timeout(now, rng);
            if let Some(probe) = &mut runner.probe {
                probe.handle_timeout(now, rng);
            }
        }
        if !race.is_proven() && race.favourite.take_if(|favourite| now >= favourite.until).is_some() {
            tracing::info!("whoever answered first does not prove who it is; other addresses are tried, too");
            race.next_at = None;
        }
        self.drive_race(now, rng);
    }

    /// When [`Self::race_timeout`] wants to be called.
    pub(super) fn race_poll(&self, race: &Race) -> Option<Instant> {
        let open = race.favourite.is_none() && !race.is_proven();
        let ready = open && race.resolving.is_none() && race.opening.is_none();
        let next = race.next_at.filter(|_| ready && race.has_more());
        let patience = race.favourite.as_ref().filter(|_| !race.is_proven()).map(|favourite| favourite.until);
        let runners = race.runners.iter().filter_map(|runner| runner.initiator.poll_timeout());
        let probes = race.runners.iter().filter_map(|runner| runner.probe.as_ref()?.poll_timeout());
        runners.chain(probes).chain(next).chain(patience).chain(self.farewell_poll()).min()
    }

    /// Ends all attempts; a gateway that may have made an IKE_SA is told.
    pub(super) fn abort_race(&mut self, now: Instant, mut race: Race, rng: &mut dyn CryptoRng) {
        for runner in &mut race.runners {
            runner.initiator.abort(now, rng);
            self.transmits.extend(std::iter::from_fn(|| runner.initiator.poll_transmit()));
            self.commands.push_back(Command::ClosePath(runner.link));
        }
    }

    /// Takes out of the attempts what they have, and begins what is due.
    fn drive_race(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let State::Racing(race) = &mut self.state else { return };
        let mut redirect = None;
        for runner in &mut race.runners {
            if runner.probe.is_none() && runner.initiator.lacks_proposal() {
                let ike_proposals = every_ike_proposal();
                let config = InitiatorConfig { ike_proposals, ..self.config.initiator.clone() };
                // Never more than the first exchange: it only shows what would be chosen.
                runner.probe = Initiator::start(config, runner.initiator.path(), now, rng).ok();
            }
            if let Some(probe) = &mut runner.probe {
                self.transmits.extend(std::iter::from_fn(|| probe.poll_transmit()));
            }
            self.transmits.extend(std::iter::from_fn(|| runner.initiator.poll_transmit()));
            redirect = runner.initiator.poll_redirect().map(|to| (to, runner.candidate.clone())).or(redirect);
        }
        if let Some((to, by)) = redirect {
            // Nobody vouches for it: whoever sent us there may still answer.
            self.follow(now, to, &by);
        }
        let State::Racing(race) = &mut self.state else { return };
        let ended = race.runners.iter_mut().enumerate();
        let ended = ended.filter_map(|(at, runner)| Some((at, runner.initiator.poll_outcome()?))).next();
        match ended {
            Some((at, Ok(established))) => self.won(now, at, *established, rng),
            Some((at, Err(error))) => self.dropped_out(now, at, &error, rng),
            None if race.favourite.is_none() && !race.is_proven() => {
                let answered = |runner: &Runner| !runner.released && runner.initiator.gateway_answered();
                if let Some(at) = race.runners.iter().position(answered) {
                    if self.farewell_heard(now) {
                        self.choose(now, at, rng);
                    }
                } else {
                    self.set_out_further(now, rng);
                }
            }
            None => {}
        }
    }

    /// This gateway answered first: those that did not are dropped, and come again only when it falls silent.
    fn choose(&mut self, now: Instant, at: usize, rng: &mut dyn CryptoRng) {
        let State::Racing(race) = &mut self.state else { return };
        let Some(chosen) = race.runners.get_mut(at) else { return };
        chosen.released = true;
        race.favourite = Some(Favourite { link: chosen.link, until: now + UNPROVEN });
        chosen.initiator.proceed(now, rng);
        let losers: Vec<Runner> = race.runners.extract_if(.., |runner| !runner.released).collect();
        for loser in losers.into_iter().rev() {
            self.commands.push_back(Command::ClosePath(loser.link));
            race.candidates.push_front(loser.candidate);
        }
        self.drive_race(now, rng);
    }

    fn won(&mut self, now: Instant, at: usize, established: Established, rng: &mut dyn CryptoRng) {
        let State::Racing(mut race) = std::mem::replace(&mut self.state, State::Idle) else { return };
        self.link = Some(race.runners.remove(at).link);
        self.abort_race(now, *race, rng);
        self.established(now, established, rng);
    }

    fn dropped_out(&mut self, now: Instant, at: usize, error: &HandshakeError, rng: &mut dyn CryptoRng) {
        let State::Racing(race) = &mut self.state else { return };
        let runner = race.runners.remove(at);
        self.commands.push_back(Command::ClosePath(runner.link));
        race.favourite.take_if(|favourite| favourite.link == runner.link);
        let chosen = runner.released;
        let host = &runner.candidate.name.host;
        let would_take = runner.probe.as_ref().and_then(Initiator::chosen);
        let would_take = would_take.map(|suite| suite.syntax());
        let explanation =
            self.explain(error, Circumstances { would_take, unreached: runner.unreached, ..about(host) });
        if let HandshakeError::Redirected(to) = error {
            self.follow(now, to.clone(), &runner.candidate);
            self.drive_race(now, rng);
            return;
        }
        if chosen && explanation.cause != Cause::Unreachable {
            self.refused(now, error, host, rng);
            return;
        }
        if let State::Racing(race) = &mut self.state {
            race.note(explanation);
            race.next_at = None;
        }
        self.drive_race(now, rng);
    }

    fn set_out_further(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let State::Racing(race) = &mut self.state else { return };
        let early = race.is_busy() && race.next_at.is_some_and(|at| now < at);
        if race.resolving.is_some() || race.opening.is_some() || early {
            return;
        }
        // A name that a gateway sent us to comes before what is left of the others.
        let sent = race.names.front().is_some_and(|name| name.from.is_some());
        let candidate = if sent { None } else { race.candidates.pop_front() };
        if let Some(candidate) = candidate {
            self.commands.push_back(self.strands.open_path(candidate.remote));
            race.opening = Some(candidate);
        } else if let Some(name) = race.names.pop_front() {
            self.commands.push_back(Command::Resolve(name.host.clone()));
            race.resolving = Some(name);
        } else if !race.is_busy() {
            let error = race.error.take();
            self.exhausted(now, error, rng);
        }
    }

    /// One gateway sends us to another. That one must prove to be whom the profile expects, as any other.
    fn follow(&mut self, now: Instant, to: GatewayName, by: &Candidate) {
        let allowed = self.may_follow(now);
        let State::Racing(race) = &mut self.state else { return };
        race.next_at = None;
        if !allowed {
            race.note(sent_in_circles());
            return;
        }
        tracing::info!(from = %by.remote.ip(), %to, "the gateway sends us to another one");
        let from = Some(GatewayName::Address(by.remote.ip()));
        let name = Name { host: to.to_string(), port: by.name.port, from };
        match to {
            GatewayName::Address(ip) => {
                race.candidates.push_front(Candidate { remote: SocketAddr::new(ip, name.port), name });
            }
            GatewayName::Host(_) => race.names.push_front(name),
        }
    }

    /// Whether one more redirection may be followed.
    pub(super) fn may_follow(&mut self, now: Instant) -> bool {
        self.redirects.retain(|at| now < *at + REDIRECT_PERIOD);
        let allowed = self.redirects.len() < MAX_REDIRECTS;
        if allowed {
            self.redirects.push(now);
        }
        allowed
    }

    /// No gateway is left to try.
    fn exhausted(&mut self, now: Instant, error: Option<Explanation>, rng: &mut dyn CryptoRng) {
        match error {
            Some(error) if error.cause != Cause::Unreachable => self.give_up_or_wait(now, error, rng),
            error if self.was_up => {
                self.error = error.or_else(|| self.error.take());
                self.wait(now, rng);
            }
            error => {
                self.error = error;
                self.state = State::Failed;
                self.commands.push_back(Command::ReleaseTunnel);
            }
        }
    }

    /// A gateway refused us in a way that another one would not mend.
    fn refused(&mut self, now: Instant, error: &HandshakeError, host: &str, rng: &mut dyn CryptoRng) {
        let explanation = self.explain(error, about(host));
        if let State::Racing(race) = std::mem::replace(&mut self.state, State::Idle) {
            self.abort_race(now, *race, rng);
        }
        let by_password = matches!(self.config.initiator.auth, LocalAuth::EapMschapv2 { .. });
        match error {
            // Another password helps where that was what was refused.
            HandshakeError::EapRefused(failure)
                if by_password
                    && self.config.can_ask
                    && !self.was_up
                    && failure.wanted.is_none()
                    && !matches!(failure.code, Some(646 | 647 | 649)) =>
            {
                self.error = Some(explanation);
                self.ask(CredentialReason::Refused(failure.message.clone()));
            }
            _ => self.give_up_or_wait(now, explanation, rng),
        }
    }

    /// Until the first success a refusal is final; later a few are borne, for a gateway that comes back may refuse at first.
    fn give_up_or_wait(&mut self, now: Instant, explanation: Explanation, rng: &mut dyn CryptoRng) {
        self.refusals += u32::from(self.was_up);
        if self.was_up && self.refusals < MAX_REFUSALS {
            self.error = Some(explanation);
            self.wait(now, rng);
        } else {
            self.fail(explanation);
        }
    }

    pub(super) fn explain(&self, error: &HandshakeError, known: Circumstances<'_>) -> Explanation {
        let config = &self.config.initiator;
        let ike: Vec<String> = config.ike_proposals.iter().map(ToString::to_string).collect();
        let esp: Vec<String> = config.esp_proposals.iter().map(ToString::to_string).collect();
        let clock_is_wrong = self.wall_clock < IMPOSSIBLE_BEFORE;
        let transport = config.mode == Mode::Transport;
        let group = config.ike_proposals.first().and_then(|proposal| proposal.groups().first());
        let other_pfs = config.esp_proposals.first().zip(group);
        let other_pfs = other_pfs.map(|(proposal, group)| crate::explain::other_pfs(proposal, *group));
        let known = Circumstances {
            ike: ike.join(", "),
            esp: esp.join(", "),
            transport,
            other_pfs,
            clock_is_wrong,
            dhcp: self.dhcp.is_some(),
            ..known
        };
        Explanation::of_handshake(error, &known)
    }
}

fn about(gateway: &str) -> Circumstances<'_> {
    Circumstances { gateway, ..Circumstances::default() }
}

fn sent_in_circles() -> Explanation {
    Explanation::new(
        Cause::Failed,
        "The gateways send this client to each other without end.",
        "Ask the administrator to look into the gateways' redirection.",
    )
}

/// The addresses of a name with the families in turn, beginning with the one that the system puts first (RFC 8305
/// section 4).
fn families_in_turn(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let begins_with_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == begins_with_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::new();
    loop {
        let (one, other) = (first.next(), second.next());
        if one.is_none() && other.is_none() {
            return ordered;
        }
        ordered.extend(one.into_iter().chain(other));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_none_is_lost() {
        let ips = |list: &[&str]| -> Vec<IpAddr> { list.iter().map(|ip| ip.parse().unwrap()).collect() };
        let given = ips(&["2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1"]);
        let wanted = ips(&["2001:db8::1", "192.0.2.1", "2001:db8::2", "2001:db8::3"]);
        assert_eq!(families_in_turn(given), wanted);
        let given = ips(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
        let wanted = ips(&["192.0.2.1", "2001:db8::1", "192.0.2.2"]);
        assert_eq!(families_in_turn(given), wanted);
        assert!(families_in_turn(Vec::new()).is_empty());
    }
}
