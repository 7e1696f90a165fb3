//! IKE_SA_INIT and IKE_AUTH from the initiator's side (RFC 7296 sections 1.2, 2.6, 2.15 and 2.16).
//!
//! Each state of the exchanges is a type that consumes itself: [`init::InitSent`] becomes [`auth::AuthSent`], which
//! goes through its EAP rounds or not and ends as an [`IkeSa`]. A step that is not allowed in a state cannot be written.
//! [`Initiator`] around them moves datagrams and watches the clock.
//!
//! Nothing unauthenticated ends the attempt: an error in an IKE_SA_INIT response is kept, the request is repeated for a
//! bounded time as if nothing had come, and only then the error is reported (RFC 7296 section 2.21.1).

pub mod auth;
pub mod eap_rounds;
pub mod init;
pub mod outcome;

use std::collections::VecDeque;
use std::time::Duration;

use rand_core::CryptoRng;

use self::auth::{AuthSent, AuthStep};
use self::init::{InitSent, InitStep};
pub use self::outcome::{Established, HandshakeError, InnerConfig};
use super::config::InitiatorConfig;
use super::retransmit::{Due, Outstanding, RetransmitPolicy};
use super::{Path, Transmit};
use crate::error::PeerMisbehaved;
use crate::time::Instant;
use crate::wire::Message;

/// How long an attempt goes on after an unauthenticated error: time for the true answer to arrive when the error was
/// forged, short enough for somebody who waits.
const GRACE: Duration = Duration::from_secs(4);

enum Phase {
    Init(Box<InitSent>),
    Auth(Box<AuthSent>),
    Over,
}

/// An attempt to set up an IKE_SA.
pub struct Initiator {
    config: InitiatorConfig,
    path: Path,
    phase: Phase,
    outstanding: Outstanding,
    noted: Option<HandshakeError>,
    answered: bool,
    transmits: VecDeque<Transmit>,
    outcome: Option<Result<Box<Established>, HandshakeError>>,
}

impl std::fmt::Debug for Initiator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let phase = match self.phase {
            Phase::Init(_) => "IKE_SA_INIT",
            Phase::Auth(_) => "IKE_AUTH",
            Phase::Over => "over",
        };
        f.debug_struct("Initiator").field("phase", &phase).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Initiator {
    /// Begins an attempt on `path`: the first request waits in [`Self::poll_transmit`].
    ///
    /// # Errors
    /// [`HandshakeError::NothingToPropose`] when the configuration holds no proposal.
    pub fn start(
        config: InitiatorConfig,
        path: Path,
        now: Instant,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, HandshakeError> {
        let init = InitSent::new(&config, path, rng)?;
        let request = init.request().to_vec();
        let outstanding = Outstanding::new(now, 0, vec![request.clone()], RetransmitPolicy::INITIAL);
        Ok(Self {
            config,
            path,
            phase: Phase::Init(Box::new(init)),
            outstanding,
            noted: None,
            answered: false,
            transmits: VecDeque::from([Transmit { path, message: request }]),
            outcome: None,
        })
    }

    /// The path in use; its remote port changes to 4500 after IKE_SA_INIT.
    #[must_use]
    pub fn path(&self) -> Path {
        self.path
    }

    /// The initiator's SPI, by which datagrams for this attempt are known.
    #[must_use]
    pub fn spi(&self) -> Option<u64> {
        match &self.phase {
            Phase::Init(init) => Some(init.spi()),
            Phase::Auth(auth) => Some(auth.spis().initiator),
            Phase::Over => None,
        }
    }

    /// Whether the gateway has answered IKE_SA_INIT.
    #[must_use]
    pub fn gateway_answered(&self) -> bool {
        self.answered
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The end of the attempt, once.
    pub fn poll_outcome(&mut self) -> Option<Result<Box<Established>, HandshakeError>> {
        self.outcome.take()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Init(_) | Phase::Auth(_) => Some(self.outstanding.timeout()),
            Phase::Over => None,
        }
    }

    /// Acts on the clock.
    pub fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Over) {
            return;
        }
        match self.outstanding.poll(now) {
            Due::NotYet => {}
            Due::Resend => self.send_outstanding(),
            Due::GiveUp => {
                let error =
                    self.noted.take().unwrap_or(HandshakeError::NoAnswer { after_init: self.answered });
                self.fail(error);
            }
        }
    }

    /// Takes a datagram for this attempt.
    ///
    /// # Errors
    /// What was wrong with it, for the log; the attempt goes on unless [`Self::poll_outcome`] says otherwise.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        path: Path,
        datagram: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        if matches!(self.phase, Phase::Over) {
            return Ok(());
        }
        let parsed = Message::parse(datagram)?;
        if !parsed.header.flags.response {
            return Err(PeerMisbehaved::WrongDirection);
        }
        if parsed.header.message_id != self.outstanding.message_id {
            return Err(PeerMisbehaved::UnexpectedResponse { message_id: parsed.header.message_id });
        }
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Init(init) => {
                if path.remote != self.path.remote {
                    self.phase = Phase::Init(init);
                    return Err(PeerMisbehaved::WrongDirection);
                }
                let step = init.handle(&self.config, self.path, datagram, parsed, rng);
                self.after_init(now, step)
            }
            Phase::Auth(auth) => {
                let step = auth.handle(&self.config, now, self.path, datagram, &parsed, rng);
                self.after_auth(now, step, rng)
            }
            Phase::Over => Ok(()),
        }
    }

    /// Ends the attempt from our side. A gateway that may have made an IKE_SA already is told once.
    pub fn abort(&mut self, rng: &mut dyn CryptoRng) {
        if let Phase::Auth(auth) = std::mem::replace(&mut self.phase, Phase::Over) {
            self.say_goodbye(*auth, rng);
        }
    }

    fn after_init(&mut self, now: Instant, step: InitStep) -> Result<(), PeerMisbehaved> {
        match step {
            InitStep::Ignore { state, misbehaved } => {
                self.phase = Phase::Init(state);
                Err(misbehaved)
            }
            InitStep::Note { state, error } => {
                self.phase = Phase::Init(state);
                self.noted = Some(error);
                self.outstanding.give_up_by(now + GRACE);
                Ok(())
            }
            InitStep::Again(state) => {
                let request = state.request().to_vec();
                self.phase = Phase::Init(state);
                self.outstanding = Outstanding::new(now, 0, vec![request], RetransmitPolicy::INITIAL);
                self.send_outstanding();
                Ok(())
            }
            InitStep::Proceed { state, datagrams } => {
                self.answered = true;
                self.noted = None;
                self.path = state.path();
                self.phase = Phase::Auth(state);
                self.send_request(now, datagrams);
                Ok(())
            }
            InitStep::Failed(error) => {
                self.fail(error);
                Ok(())
            }
        }
    }

    fn after_auth(
        &mut self,
        now: Instant,
        step: AuthStep,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        match step {
            AuthStep::Ignore { state, misbehaved } => {
                self.phase = Phase::Auth(state);
                Err(misbehaved)
            }
            AuthStep::Wait(state) => {
                self.phase = Phase::Auth(state);
                Ok(())
            }
            AuthStep::Next { state, datagrams } => {
                self.phase = Phase::Auth(state);
                self.send_request(now, datagrams);
                Ok(())
            }
            AuthStep::Established(established) => {
                self.outcome = Some(Ok(established));
                Ok(())
            }
            AuthStep::Failed { state, error } => {
                if let Some(state) = state {
                    self.say_goodbye(*state, rng);
                }
                self.fail(error);
                Ok(())
            }
        }
    }

    fn send_request(&mut self, now: Instant, datagrams: Vec<Vec<u8>>) {
        let message_id = self.outstanding.message_id.saturating_add(1);
        self.outstanding = Outstanding::new(now, message_id, datagrams, RetransmitPolicy::AUTH);
        self.send_outstanding();
    }

    fn send_outstanding(&mut self) {
        let path = self.path;
        let again = self.outstanding.datagrams().iter().cloned();
        self.transmits.extend(again.map(|message| Transmit { path, message }));
    }

    fn say_goodbye(&mut self, auth: AuthSent, rng: &mut dyn CryptoRng) {
        let path = self.path;
        let message_id = self.outstanding.message_id.saturating_add(1);
        let datagrams = auth.goodbye(message_id, path, rng);
        self.transmits.extend(datagrams.into_iter().map(|message| Transmit { path, message }));
    }

    fn fail(&mut self, error: HandshakeError) {
        self.phase = Phase::Over;
        self.outcome = Some(Err(error));
    }
}
