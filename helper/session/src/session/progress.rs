//! What moves a session from one state to the next: success, and the loss of what was up. The way up is [`super::race`]'s.

use std::net::IpAddr;

use rand_core::CryptoRng;
use ropewalk_ike::crypto::IkeKeys;
use ropewalk_ike::exchange::Path;
use ropewalk_ike::exchange::config::LocalAuth;
use ropewalk_ike::exchange::initiator::{Established, InnerConfig};
use ropewalk_ike::exchange::rekey_ike::Successor;
use ropewalk_ike::exchange::sa::{CloseReason, IkeSa, SaEvent};
use ropewalk_ike::time::Instant;
use ropewalk_ike::wire::GatewayName;

use super::fading::Drained;
use super::reauth::Reauth;
use super::sizing::SizeAnswer;
use super::strands::News;
use super::{Session, State};
use crate::command::{Command, CredentialReason, InnerSettings};
use crate::explain::{Cause, Explanation};

impl Session {
    pub(super) fn begin(&mut self) {
        let missing = match &self.config.initiator.auth {
            LocalAuth::EapMschapv2 { user, password, .. } => user.is_empty() || password.is_empty(),
            LocalAuth::Psk(_) | LocalAuth::Certificate(_) => false,
        };
        if missing {
            self.ask(CredentialReason::Missing);
        } else {
            self.start_race();
        }
    }

    pub(super) fn ask(&mut self, reason: CredentialReason) {
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

    pub(super) fn wait(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if self.is_offline() {
            self.go_offline();
        } else {
            self.state = State::Waiting { until: now + self.backoff.next(rng) };
        }
    }

    pub(super) fn established(&mut self, now: Instant, established: Established, rng: &mut dyn CryptoRng) {
        let Established { mut sa, inner, keys, auth_lifetime } = established;
        self.log_keys(&sa, keys);
        self.plan_reauth(now, auth_lifetime);
        let path = sa.path();
        self.bury_leftover(now, path, rng);
        if self.dhcp.is_some() {
            sa.allow_dhcp();
            self.commands
                .extend(sa.children().iter().map(|child| Command::InstallChild(Box::new(child.clone()))));
            self.clean = false;
            self.forget_roaming();
            self.state = State::Connected(Box::new(sa));
            self.look_for_address(now, rng);
            self.drain_sa(now, rng);
            self.keep_to_the_allowed(now, rng);
            return;
        }
        if let Some(child) = sa.children().first() {
            let settings = inner_settings(inner, child);
            let spi_in = child.spi_in;
            self.commands.push_back(Command::InstallChild(Box::new(child.clone())));
            self.commands.push_back(Command::ConfigureTunnel(Box::new(settings.clone())));
            self.commands.push_back(self.strands.send_with(spi_in, path));
            self.remember_addresses(&settings);
            self.strands.note_inner(self.link, &settings.addresses);
            self.insisted &= !self.keeps_addresses(&settings);
            self.inner = Some(settings);
        }
        self.clean = false;
        self.forget_roaming();
        self.state = State::Connected(Box::new(sa));
        self.stands(now);
        self.drain_sa(now, rng);
        self.keep_to_the_allowed(now, rng);
    }

    /// The tunnel carries from now on.
    pub(super) fn stands(&mut self, now: Instant) {
        self.was_up = true;
        self.refusals = 0;
        (self.error, self.warning) = (None, None);
        self.backoff.reset();
        self.strands.begin(now);
    }

    pub(super) fn log_keys(&mut self, sa: &IkeSa, keys: IkeKeys) {
        if self.config.log_keys {
            let (spis, suite) = (sa.spis(), *sa.suite());
            self.commands.push_back(Command::LogIkeKeys { spis, suite, keys: Box::new(keys) });
        }
    }

    /// What the IKE_SAs on their way out want.
    pub(super) fn drain_fading(&mut self) {
        let drained = self.fading.drain();
        self.forget_drained(drained);
    }

    /// The connection goes by another path: so do the IKE_SAs on their way out whose own is gone.
    pub(super) fn fading_follow(&mut self, now: Instant, to: Path, rng: &mut dyn CryptoRng) {
        let alive: Vec<u32> = self.strands.links().chain(self.link).chain([to.link]).collect();
        self.fading.follow(now, &alive, to, rng);
        self.drain_fading();
    }

    fn forget_drained(&mut self, drained: Drained) {
        self.transmits.extend(drained.transmits);
        self.commands.extend(drained.down.into_iter().map(Command::RemoveChild));
        self.commands.extend(drained.links.into_iter().map(Command::ClosePath));
    }

    /// Nothing goes on beside what is in the state any more.
    pub(super) fn leave_all(&mut self) {
        self.reauth = Reauth::default();
        self.suspend_dhcp();
        self.leave_group();
        self.drop_strands();
        let gone = self.fading.clear();
        self.forget_drained(gone);
    }

    /// The next attempt asks for the same inner addresses, so that open connections survive it.
    pub(super) fn remember_addresses(&mut self, settings: &InnerSettings) {
        for (address, _) in &settings.addresses {
            let request = &mut self.config.initiator.request;
            match address {
                IpAddr::V4(v4) => request.ipv4 = request.ipv4.map(|_| Some(*v4)),
                IpAddr::V6(v6) => request.ipv6 = request.ipv6.map(|_| Some(*v6)),
            }
        }
    }

    pub(super) fn drain_sa(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let (State::Connected(sa) | State::Closing(sa)) = &mut self.state else { return };
        let (path, first) = (sa.path(), self.strands.first());
        self.transmits.extend(std::iter::from_fn(|| sa.poll_transmit()));
        let (mut closed, mut refused, mut lifetime, mut redirect) = (None, None, None, None);
        let (mut successors, mut moves, mut news) = (Vec::new(), Vec::new(), Vec::new());
        let (mut groups, mut refused_child, mut child_down) = (Vec::new(), None, false);
        let mut sizes = Vec::new();
        while let Some(event) = sa.poll_event() {
            match event {
                SaEvent::ChildUp { child, replaces } => {
                    if replaces.is_some() {
                        self.warning = None;
                    }
                    self.commands.push_back(Command::InstallChild(child));
                }
                SaEvent::ChildCarries { spi_in } => {
                    self.commands.push_back(self.strands.send_with(spi_in, path));
                }
                SaEvent::Rekeyed(successor) => {
                    let Successor { sa: new, keys } = *successor;
                    successors.push((new.spis(), *new.suite(), keys));
                    let old = std::mem::replace(&mut **sa, new);
                    self.fading.add(old);
                }
                SaEvent::Redundant(redundant) => self.fading.add(*redundant),
                SaEvent::Kept(kept) => news.push(News::Kept(kept)),
                SaEvent::KeepRefused(notify) => news.push(News::KeepRefused(notify)),
                SaEvent::Probed { by, rtt, since } => news.push(News::probed(by, rtt, since)),
                SaEvent::Reported(report) => news.push(News::Reported(report)),
                SaEvent::SwitchAsked(_) | SaEvent::SwitchAnswered { .. } | SaEvent::InnerGranted(_) => {}
                SaEvent::SizeTested { path, octets, carried } => {
                    sizes.push(SizeAnswer { path, octets, carried });
                }
                SaEvent::AuthLifetime(seconds) => lifetime = Some(seconds),
                SaEvent::RekeyRefused(notify) => refused = Some((notify, false)),
                SaEvent::IkeRekeyRefused(notify) => refused = Some((notify, true)),
                SaEvent::ChildDown { spi_in, spi_out: _ } => {
                    self.commands.push_back(Command::RemoveChild(spi_in));
                    child_down = true;
                }
                SaEvent::ChildRefused(notify) => refused_child = Some(notify),
                event @ (SaEvent::PathChanged(_)
                | SaEvent::PathWorks(_)
                | SaEvent::PathFailed(_)
                | SaEvent::MoveRefused(_)
                | SaEvent::PeerAddresses) => moves.push(event),
                SaEvent::Redirected(to) => redirect = Some(to),
                SaEvent::Group(event) => groups.push(event),
                SaEvent::Closed(reason) => closed = Some(reason),
            }
        }
        self.drain_fading();
        match refused {
            Some((notify, true)) => self.ike_rekey_refused(now, notify),
            Some((notify, false)) => self.rekey_refused(now, notify),
            None => {}
        }
        for (spis, suite, keys) in successors.into_iter().filter(|_| self.config.log_keys) {
            self.commands.push_back(Command::LogIkeKeys { spis, suite, keys: Box::new(keys) });
        }
        if lifetime.is_some() {
            self.plan_reauth(now, lifetime);
        }
        if child_down {
            self.close_left_paths();
        }
        if let Some(notify) = refused_child {
            self.child_refused(notify);
        }
        for event in groups {
            self.group_event(now, event);
        }
        for event in &moves {
            self.roaming_event(now, event, rng);
        }
        self.sizes_answered(now, sizes, rng);
        self.strand_news(now, first, news, rng);
        if self.strands.first() != first {
            // It does not carry any more, and its end is not the connection's.
            if closed.is_some() {
                self.retire(now, first, rng);
            }
            return;
        }
        // An IKE_SA without a CHILD_SA carries nothing: it is as good as lost.
        let empty = matches!(self.state, State::Connected(ref sa) if !sa.has_data_child());
        let empty = empty && !self.is_without_address();
        match closed {
            Some(_) if matches!(self.state, State::Closing(_)) => self.go_idle(),
            Some(reason) if self.survive(now, reason, rng) => {}
            Some(reason) => {
                self.clean = matches!(reason, CloseReason::DeletedByPeer | CloseReason::PeerRestarted);
                self.close_path();
                self.lost(now, explain_close(reason), rng);
            }
            None if empty => {
                if let State::Connected(mut sa) = std::mem::replace(&mut self.state, State::Idle) {
                    sa.close(now, rng);
                    self.transmits.extend(std::iter::from_fn(|| sa.poll_transmit()));
                }
                if self.survive(now, CloseReason::DeletedByPeer, rng) {
                    return;
                }
                self.close_path();
                self.lost(now, explain_close(CloseReason::DeletedByPeer), rng);
            }
            None => {
                if let Some(to) = redirect {
                    self.go_elsewhere(now, to, rng);
                }
                self.drive_dhcp(now, refused_child, rng);
            }
        }
    }

    /// The gateway sends us to another one: the IKE_SA with it ends, the intent goes on there (RFC 5685 section 5).
    pub(super) fn go_elsewhere(&mut self, now: Instant, to: GatewayName, rng: &mut dyn CryptoRng) {
        if !matches!(self.state, State::Connected(_)) {
            return;
        }
        if !self.may_follow(now) {
            tracing::warn!(%to, "the gateways send us to each other without end; this one is kept");
            return;
        }
        let State::Connected(mut sa) = std::mem::replace(&mut self.state, State::Idle) else { return };
        let from = GatewayName::Address(sa.path().remote.ip());
        tracing::info!(%from, %to, "the gateway sends us to another one");
        // All that is under way was for this one.
        self.drop_reauth(now, rng);
        self.stop_moving();
        self.end_strands_by(now, sa.path(), rng);
        self.strands.hope();
        self.suspend_dhcp();
        self.forget(&sa);
        sa.close(now, rng);
        // What is under way has to be answered before the DELETE can go.
        self.fading.add_leaving(*sa, self.link.take());
        self.drain_fading();
        self.error = Some(Explanation::new(
            Cause::Failed,
            format!("The gateway sends its clients to {to}."),
            "Ropewalk connects there.",
        ));
        self.start_race_by_way_of(Some((to, from)));
    }

    /// The connection is gone, the intent is not: another try, the first one at once but for the jitter.
    pub(super) fn lost(&mut self, now: Instant, error: Explanation, rng: &mut dyn CryptoRng) {
        self.error = Some(error);
        self.leave_all();
        self.close_path();
        if self.forget_roaming() {
            self.begin_again();
        } else {
            self.wait(now, rng);
        }
    }

    pub(super) fn forget(&mut self, sa: &IkeSa) {
        for child in sa.children() {
            self.commands.push_back(Command::RemoveChild(child.spi_in));
        }
    }

    pub(super) fn close_path(&mut self) {
        if let Some(link) = self.link.take() {
            self.commands.push_back(Command::ClosePath(link));
        }
    }

    pub(super) fn fail(&mut self, error: Explanation) {
        self.error = Some(error);
        self.state = State::Failed;
        self.inner = None;
        self.commands.push_back(Command::ReleaseTunnel);
    }

    pub(super) fn go_idle(&mut self) {
        self.leave_all();
        self.close_path();
        self.close_at = None;
        self.state = State::Idle;
        self.forget_roaming();
        (self.roaming.former, self.roaming.leftover) = (None, None);
        self.was_up = false;
        self.inner = None;
        self.commands.push_back(Command::ReleaseTunnel);
    }
}

pub(super) fn inner_settings(
    inner: InnerConfig,
    child: &ropewalk_ike::exchange::child::ChildSa,
) -> InnerSettings {
    InnerSettings {
        addresses: inner.addresses,
        dns_servers: inner.dns_servers,
        dns_domains: inner.dns_domains,
        reachable: child.ts_remote.clone(),
        local: child.ts_local.clone(),
        link_prefix: inner.link_prefix,
        routes: None,
        search: Vec::new(),
        mtu: None,
    }
}

pub(super) fn explain_close(reason: CloseReason) -> Explanation {
    let hint = "Ropewalk keeps trying until you disconnect.";
    let message = match reason {
        CloseReason::DeletedByPeer => "The gateway ended the connection.".to_owned(),
        CloseReason::PeerDead => "The gateway stopped answering.".to_owned(),
        CloseReason::CookieMismatch => "The gateway failed the check of its address (COOKIE2).".to_owned(),
        CloseReason::PeerRestarted => "The gateway has restarted.".to_owned(),
        CloseReason::Deleted => "The connection was closed.".to_owned(),
        CloseReason::Expired => "The connection could not be renewed in time.".to_owned(),
        CloseReason::Fatal(notify) => format!("The gateway reported a fatal error ({notify})."),
    };
    let cause = if reason == CloseReason::PeerDead { Cause::Unreachable } else { Cause::Failed };
    Explanation::new(cause, message, hint)
}
