//! Logging in anew beside a connection that stands, and moving over (RFC 4478; RFC 7296 section 2.8.3).
//!
//! A whole second set of initial exchanges runs on the same path. Its IKE_SA and CHILD_SA, with the same inner address, take
//! over; the old ones receive for a moment more and are deleted. When it fails, what stands goes on until the gateway
//! ends it, and the reason is told.
//!
//! A gateway may give another inner address while the old IKE_SA holds the first: strongSwan's pool does when the client has
//! moved since it got that. Open connections would end with it, so the old IKE_SA is deleted, a third login asks for its
//! address, and only then the second one, with the other address, is deleted. That interrupts for a moment, and is not done
//! again once it did not help.

use std::time::Duration;

use rand_core::CryptoRng;
use ropewalk_ike::error::PeerMisbehaved;
use ropewalk_ike::exchange::initiator::{Established, HandshakeError, Initiator};
use ropewalk_ike::exchange::{IkeSpis, Path};
use ropewalk_ike::time::Instant;
use ropewalk_ike::wire::{Identification, NotifyType};

use super::progress::inner_settings;
use super::{MAX_REFUSALS, Session, State};
use crate::command::{Command, InnerSettings};
use crate::explain::{Cause, Circumstances, Explanation};

/// A failed attempt is repeated after this, and up to as much more by chance.
const AGAIN: Duration = Duration::from_secs(20);

/// While the connection moves to another path, an attempt waits for so long.
const AFTER_MOVE: Duration = Duration::from_secs(2);

/// The least time before the gateway's limit at which an attempt begins, where the limit leaves as much.
const LEAST_MARGIN: Duration = Duration::from_secs(30);

/// What is planned and under way.
#[derive(Debug, Default)]
pub(super) struct Reauth {
    due: Option<Instant>,
    attempt: Option<Box<Initiator>>,
    refusals: u32,
}

impl Reauth {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.attempt {
            Some(attempt) => attempt.poll_timeout(),
            None => self.due,
        }
    }
}

impl Session {
    /// A login succeeded, or the gateway said how long the one that counts holds. The profile's limit counts from the login.
    pub(super) fn plan_reauth(&mut self, now: Instant, gateway: Option<Duration>) {
        let logged_in = !matches!(self.state, State::Connected(_));
        let own = self.config.reauth.filter(|_| logged_in).map(|limit| now + limit);
        let theirs = gateway.map(|limit| {
            let margin = (limit / 10).max(LEAST_MARGIN).min(limit / 2);
            now + limit.saturating_sub(margin)
        });
        if logged_in {
            self.reauth = Reauth::default();
        }
        self.reauth.due = [own, theirs, self.reauth.due].into_iter().flatten().min();
        if let Some(due) = self.reauth.due {
            tracing::debug!(seconds = (due - now).as_secs(), "the next login is planned");
        }
    }

    /// Logs in anew now.
    pub(super) fn hasten_reauth(&mut self, now: Instant) {
        if self.reauth.refusals < MAX_REFUSALS {
            self.reauth.due = Some(now);
        }
    }

    /// Whether a new login is under way.
    pub(super) fn is_logging_in_anew(&self) -> bool {
        self.reauth.attempt.is_some()
    }

    /// Gives up an attempt that is under way.
    pub(super) fn drop_reauth(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        self.abort_attempt(now, rng);
        self.reauth = Reauth::default();
    }

    /// Another path carries: an attempt by the one before begins anew by this one.
    pub(super) fn restart_reauth(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if self.abort_attempt(now, rng) {
            self.reauth.due = Some(now);
        }
    }

    /// Whether there was one.
    fn abort_attempt(&mut self, now: Instant, rng: &mut dyn CryptoRng) -> bool {
        let Some(mut attempt) = self.reauth.attempt.take() else { return false };
        attempt.abort(now, rng);
        self.transmits.extend(std::iter::from_fn(|| attempt.poll_transmit()));
        true
    }

    /// Takes a datagram, if it is for the attempt.
    pub(super) fn reauth_datagram(
        &mut self,
        now: Instant,
        path: Path,
        datagram: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Option<Result<(), PeerMisbehaved>> {
        let attempt = self.reauth.attempt.as_mut()?;
        let spis = IkeSpis::of(datagram).filter(|spis| attempt.spi() == Some(spis.initiator))?;
        tracing::trace!(?spis, "a message for the new login");
        let result = attempt.handle_datagram(now, path, datagram, rng);
        self.drain_reauth(now, rng);
        Some(result)
    }

    /// Acts on the clock.
    pub(super) fn reauth_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let State::Connected(sa) = &self.state else { return };
        let path = sa.path();
        if self.is_on_the_move() {
            // A move leaves the attempt behind: it begins anew from where we are then.
            let begun = self.reauth.attempt.take().is_some();
            if begun || self.reauth.due.is_some_and(|due| due <= now) {
                self.reauth.due = Some(now + AFTER_MOVE);
            }
        } else if let Some(attempt) = &mut self.reauth.attempt {
            attempt.handle_timeout(now, rng);
        } else if self.reauth.due.take_if(|due| *due <= now).is_some() {
            self.begin_reauth(now, path, rng);
        }
        self.drain_reauth(now, rng);
    }

    fn begin_reauth(&mut self, now: Instant, path: Path, rng: &mut dyn CryptoRng) {
        let mut config = self.config.initiator.clone();
        config.wall_clock = self.wall_clock;
        // There is another IKE_SA: the one that stands.
        config.initial_contact = false;
        if !self.ask_for_leased(&mut config) {
            self.reauth.due = Some(now + AFTER_MOVE);
            return;
        }
        if self.config.identity_from_address {
            config.local_id = Identification::address(path.local.ip());
        }
        match Initiator::start(config, path, now, rng) {
            Ok(mut attempt) => {
                tracing::info!("logging in anew");
                attempt.proceed(now, rng);
                self.reauth.attempt = Some(Box::new(attempt));
            }
            Err(error) => self.reauth_failed(now, &error, rng),
        }
    }

    fn drain_reauth(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let Some(attempt) = &mut self.reauth.attempt else { return };
        self.transmits.extend(std::iter::from_fn(|| attempt.poll_transmit()));
        match attempt.poll_outcome() {
            None => {}
            Some(Ok(established)) => self.reauthenticated(now, *established, rng),
            Some(Err(error)) => self.reauth_failed(now, &error, rng),
        }
    }

    /// The new login takes over.
    fn reauthenticated(&mut self, now: Instant, established: Established, rng: &mut dyn CryptoRng) {
        if !established.sa.has_data_child() {
            // Without a CHILD_SA of its own it cannot take over; what stands goes on.
            let mut sa = established.sa;
            sa.close(now, rng);
            self.fading.add(sa);
            self.drain_fading();
            self.reauth_failed(now, &HandshakeError::ChildRefused(NotifyType::NoAdditionalSas), rng);
            return;
        }
        let State::Connected(old) = std::mem::replace(&mut self.state, State::Idle) else { return };
        let Established { mut sa, inner, keys, auth_lifetime } = established;
        if self.dhcp.is_some() {
            sa.allow_dhcp();
        }
        let settings = sa
            .children()
            .first()
            .map(|child| self.leased_settings(child).unwrap_or_else(|| inner_settings(inner, child)));
        let keeps = settings.as_ref().is_none_or(|settings| self.keeps_addresses(settings));
        if !keeps && !self.insisted {
            tracing::info!(new = ?sa.spis(), "another inner address beside the old login; setting up anew for the old one");
            self.insisted = true;
            let why = Explanation::new(
                Cause::Unreachable,
                "The gateway gave another inner address at the new login; the old one is asked for again.",
                "This takes a moment.",
            );
            self.start_over(old, why);
            self.roaming.leftover = Some(Box::new(sa));
            return;
        }
        self.insisted = !keeps;
        tracing::info!(old = ?old.spis(), new = ?sa.spis(), "logged in anew");
        self.log_keys(&sa, keys);
        self.plan_reauth(now, auth_lifetime);
        if let (Some(child), Some(settings)) = (sa.children().first(), settings) {
            let (spi_in, path) = (child.spi_in, sa.path());
            self.commands.push_back(Command::InstallChild(Box::new(child.clone())));
            let addresses = settings.addresses.clone();
            if self.inner.as_ref() != Some(&settings) {
                self.commands.push_back(Command::ConfigureTunnel(Box::new(settings.clone())));
                self.remember_addresses(&settings);
                self.inner = Some(settings);
            }
            self.strands.note_inner(self.link, &addresses);
            self.commands.push_back(self.strands.send_with(spi_in, path));
        }
        self.error = None;
        self.forget_roaming();
        self.state = State::Connected(Box::new(sa));
        // They rest on the old login; this one makes others.
        self.end_strands(now, rng);
        self.carry_anew();
        self.strands.begin(now);
        self.fading.add_receiving(now, *old);
        self.drain_sa(now, rng);
    }

    /// Whether what the tunnel had stays.
    pub(super) fn keeps_addresses(&self, settings: &InnerSettings) -> bool {
        let had = self
            .inner
            .iter()
            .filter(|_| !self.config.paths.address_per_path)
            .flat_map(|inner| &inner.addresses);
        had.clone().all(|address| settings.addresses.contains(address))
    }

    fn reauth_failed(&mut self, now: Instant, error: &HandshakeError, rng: &mut dyn CryptoRng) {
        self.reauth.attempt = None;
        let gateway = self.gateway_host();
        let explanation =
            self.explain(error, Circumstances { gateway: &gateway, ..Circumstances::default() });
        tracing::warn!(
            reason = explanation.message,
            "the new login failed; the connection goes on until the gateway ends it"
        );
        if explanation.cause != Cause::Unreachable {
            self.reauth.refusals += 1;
        }
        if self.reauth.refusals < MAX_REFUSALS {
            let chance = rng.next_u32() % 1024;
            self.reauth.due = Some(now + AGAIN + AGAIN * chance / 1024);
        }
        self.error = Some(explanation);
    }

    /// What the profile calls the gateway, for messages.
    fn gateway_host(&self) -> String {
        self.config.gateways.first().map(|endpoint| endpoint.host.clone()).unwrap_or_default()
    }
}
