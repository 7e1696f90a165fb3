//! IKE_SA_INIT and IKE_AUTH from the initiator's side (RFC 7296 sections 1.2, 2.6, 2.15 and 2.16).
//!
//! [`init::InitSent`] is the request in all its forms; each answer that agrees leads to an [`auth::AuthSent`], a state that
//! consumes itself, goes through its EAP rounds or not, and ends as an [`IkeSa`](super::sa::IkeSa). A step that is not
//! allowed in a state cannot be written. [`Initiator`] around them moves datagrams and watches the clock.
//!
//! Nothing unauthenticated ends the attempt (RFC 7296 section 2.21.1): an error in the clear is kept, the request is
//! repeated for a bounded time as if nothing had come, and only then the error is reported. Since an answer to IKE_SA_INIT
//! proves nothing either, further ones are kept too and tried when the first leads nowhere (section 2.4).

pub mod auth;
mod childless;
pub mod eap_rounds;
pub mod init;
pub mod outcome;

use std::collections::VecDeque;
use std::time::Duration;

use rand_core::CryptoRng;

use self::auth::{AuthSent, AuthStep, Negotiated};
use self::childless::{Completing, Completion};
use self::init::{Believed, InitSent, InitStep};
pub use self::outcome::{Established, HandshakeError, InnerConfig};
use super::config::InitiatorConfig;
use super::protect::SAFE_DATAGRAM;
use super::protect::Sealed;
use super::retransmit::{CUT_SMALLER, Due, Outstanding, RetransmitPolicy};
use super::{IkeSpis, Path, Transmit};
use crate::error::PeerMisbehaved;
use crate::proposal::ChosenIke;
use crate::time::Instant;
use crate::wire::{ExchangeType, GatewayName, Message, ParsedMessage, Payload};

/// Answers to IKE_SA_INIT that are kept at most: a gateway sends one for each form of the request.
const MAX_ANSWERS: usize = 8;
/// How long after the first answer a refusal that nobody vouches for waits for a better one: that is on its way by then,
/// for both answer the same request.
const LINGER: Duration = Duration::from_millis(500);
/// How long a form of the request that is tried alone waits for its answer: two repetitions.
const ALONE: Duration = Duration::from_secs(2);

/// One answer to IKE_SA_INIT and the IKE_AUTH that follows it.
struct Track {
    auth: Box<AuthSent>,
    spis: IkeSpis,
    path: Path,
    believed: Believed,
    outstanding: Outstanding,
}

/// An attempt to set up an IKE_SA.
pub struct Initiator {
    config: InitiatorConfig,
    /// Where IKE_SA_INIT goes.
    path: Path,
    init: InitSent,
    /// IKE_SA_INIT, while it is repeated.
    soliciting: Option<Outstanding>,
    deadline: Instant,
    /// IKE_AUTH may begin.
    released: bool,
    /// Answers that nothing was made of yet.
    held: VecDeque<Box<Negotiated>>,
    /// The answers that were tried, as received: a forged copy may differ from the true one anywhere.
    tried: Vec<Vec<u8>>,
    tracks: Vec<Track>,
    first_answer: Option<Instant>,
    /// Something protected came in: there is a gateway behind one of the answers.
    spoken: bool,
    linger: Option<Instant>,
    /// The IKE_SA is there, its CHILD_SA is not.
    completing: Option<Completing>,
    /// Where an answer in the clear sent us.
    redirect: Option<GatewayName>,
    /// What was said in the clear.
    noted: Option<HandshakeError>,
    /// How the last track ended.
    refused: Option<HandshakeError>,
    over: bool,
    transmits: VecDeque<Transmit>,
    outcome: Option<Result<Box<Established>, HandshakeError>>,
}

impl std::fmt::Debug for Initiator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let phase = match (self.over, self.tracks.is_empty()) {
            (true, _) => "over",
            (false, true) => "IKE_SA_INIT",
            (false, false) => "IKE_AUTH",
        };
        f.debug_struct("Initiator").field("phase", &phase).field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Initiator {
    /// Begins an attempt on `path`: the first request waits in [`Self::poll_transmit`]. IKE_AUTH does not begin before
    /// [`Self::proceed`].
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
        let soliciting = Outstanding::new(now, 0, Vec::new(), RetransmitPolicy::INITIAL);
        let requests = init.requests().into_iter();
        Ok(Self {
            config,
            path,
            transmits: requests.map(|message| Transmit { path, message }).collect(),
            init,
            soliciting: Some(soliciting),
            deadline: now + RetransmitPolicy::INITIAL.give_up,
            released: false,
            held: VecDeque::new(),
            tried: Vec::new(),
            tracks: Vec::new(),
            first_answer: None,
            spoken: false,
            linger: None,
            completing: None,
            redirect: None,
            noted: None,
            refused: None,
            over: false,
            outcome: None,
        })
    }

    /// IKE_AUTH may begin as soon as there is an answer: from here on who we are, and later what we know, is shown.
    pub fn proceed(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        self.released = true;
        self.begin_next(now, rng);
    }

    /// The path in use; its remote port changes to 4500 after IKE_SA_INIT.
    #[must_use]
    pub fn path(&self) -> Path {
        self.tracks.first().map_or(self.path, |track| track.path)
    }

    /// The initiator's SPI, by which datagrams for this attempt are known.
    #[must_use]
    pub fn spi(&self) -> Option<u64> {
        (!self.over).then(|| self.init.spi())
    }

    /// Whether somebody has answered IKE_SA_INIT acceptably.
    #[must_use]
    pub fn gateway_answered(&self) -> bool {
        self.first_answer.is_some()
    }

    /// Whether the gateway has proved who it is.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.completing.is_some() || self.tracks.iter().any(|track| track.auth.is_proven())
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Whether somebody who answers says that none of our proposals will do. Nobody vouches for it yet.
    #[must_use]
    pub fn lacks_proposal(&self) -> bool {
        matches!(
            self.noted,
            Some(
                HandshakeError::NoProposalChosen
                    | HandshakeError::Misbehaved(PeerMisbehaved::GroupNotOffered { .. })
            )
        )
    }

    /// What the gateway chose, while IKE_AUTH has not begun.
    #[must_use]
    pub fn chosen(&self) -> Option<ChosenIke> {
        self.held.front().map(|answer| answer.suite)
    }

    /// Another gateway that an answer to IKE_SA_INIT named, once. Nobody vouches for it: this attempt goes on.
    pub fn poll_redirect(&mut self) -> Option<GatewayName> {
        self.redirect.take()
    }

    /// The end of the attempt, once.
    pub fn poll_outcome(&mut self) -> Option<Result<Box<Established>, HandshakeError>> {
        self.outcome.take()
    }

    /// There is another IKE_SA with our identity: what is sent from now on does not claim that there is none.
    pub fn is_not_alone(&mut self) {
        self.config.initial_contact = false;
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        if let Some(completing) = &self.completing {
            return completing.poll_timeout();
        }
        let tracks = self.tracks.iter().map(|track| track.outstanding.timeout());
        let soliciting = self.soliciting.as_ref().map(Outstanding::timeout);
        tracks.chain(soliciting).chain(self.linger).min()
    }

    /// Acts on the clock.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if self.over {
            return;
        }
        if let Some(completing) = &mut self.completing {
            completing.handle_timeout(now, rng);
            self.complete(now, rng);
            return;
        }
        let mut silent = Vec::new();
        let mut hedge = false;
        for (at, track) in self.tracks.iter_mut().enumerate() {
            match track.outstanding.poll(now) {
                Due::NotYet => {}
                Due::Resend => {
                    let path = track.path;
                    let again = track.outstanding.datagrams().iter().cloned();
                    self.transmits.extend(again.map(|message| Transmit { path, message }));
                    let patience = if self.held.is_empty() { 2 } else { 1 };
                    hedge |= !self.spoken && track.outstanding.resent() >= patience;
                }
                Due::GiveUp => silent.push(at),
            }
        }
        for at in silent.into_iter().rev() {
            let track = self.tracks.remove(at);
            let large = track.outstanding.datagrams().iter().map(Vec::len).max().unwrap_or(0);
            let silence = if large > SAFE_DATAGRAM && !self.spoken {
                HandshakeError::LargeUnanswered { octets: large }
            } else {
                HandshakeError::NoAnswer { after_init: true }
            };
            let error = self.noted.clone().unwrap_or(silence);
            self.refused.get_or_insert(error);
        }
        if hedge {
            self.hedge(now, rng);
        }
        if let Some(soliciting) = &mut self.soliciting {
            match soliciting.poll(now) {
                Due::NotYet => {}
                Due::Resend => {
                    self.init.repeated();
                    self.solicit();
                }
                Due::GiveUp => {
                    self.soliciting = None;
                    if self.init.narrow_further() {
                        self.solicit_alone(now);
                    }
                }
            }
        }
        self.linger = self.linger.filter(|until| now < *until);
        self.end_if_nothing_is_left();
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
        if self.over {
            return Ok(());
        }
        if let Some(completing) = &mut self.completing {
            let result = completing.handle_datagram(now, path, datagram, rng);
            self.complete(now, rng);
            return result;
        }
        let parsed = Message::parse(datagram)?;
        let header = parsed.header;
        if !header.flags.response {
            return Err(PeerMisbehaved::WrongDirection);
        }
        if header.message_id == 0 {
            if self.is_proven() {
                return Err(PeerMisbehaved::UnexpectedResponse { message_id: 0 });
            }
            if path.remote != self.path.remote {
                return Err(PeerMisbehaved::WrongDirection);
            }
            let step = self.init.handle(self.path, datagram, &parsed, rng);
            return self.after_init(now, step, rng);
        }
        if header.spi_i != self.init.spi() {
            return Err(PeerMisbehaved::WrongSpi);
        }
        // A forged answer can have the true one's SPI: which of them this belongs to is known by its keys.
        let mut result = Err(match self.tracks.is_empty() {
            true => PeerMisbehaved::UnexpectedResponse { message_id: header.message_id },
            false => PeerMisbehaved::WrongSpi,
        });
        for at in 0..self.tracks.len() {
            if self.tracks.get(at).is_some_and(|track| track.spis.responder == header.spi_r) {
                result = self.handle_auth(now, at, (datagram, &parsed), rng);
                if !matches!(result, Err(PeerMisbehaved::NotAuthentic { .. })) {
                    break;
                }
            }
        }
        result
    }

    /// Ends the attempt from our side. A gateway that may have made an IKE_SA already is told once.
    pub fn abort(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        self.over = true;
        if let Some(mut completing) = self.completing.take() {
            completing.close(now, rng);
            self.transmits.extend(std::iter::from_fn(|| completing.poll_transmit()));
        }
        for track in std::mem::take(&mut self.tracks) {
            self.say_goodbye(track, rng);
        }
    }

    fn after_init(
        &mut self,
        now: Instant,
        step: InitStep,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        match step {
            InitStep::Ignore(misbehaved) => return Err(misbehaved),
            InitStep::Note(error) => self.noted = Some(error),
            InitStep::Again(message) => {
                self.transmits.push_back(Transmit { path: self.path, message });
                if self.soliciting.is_some() {
                    let mut soliciting = Outstanding::new(now, 0, Vec::new(), RetransmitPolicy::INITIAL);
                    soliciting.give_up_by(self.deadline);
                    self.soliciting = Some(soliciting);
                }
            }
            InitStep::Redirected(to) => self.redirect = Some(to),
            InitStep::Answered(negotiated) => {
                let held = self.held.iter().any(|held| held.response == negotiated.response);
                if held || self.tried.contains(&negotiated.response) {
                    return Ok(());
                }
                if self.held.len() + self.tried.len() >= MAX_ANSWERS {
                    return Err(PeerMisbehaved::UnexpectedResponse { message_id: 0 });
                }
                let mut offered = Some(negotiated);
                for track in &mut self.tracks {
                    offered = offered.and_then(|negotiated| track.auth.offer_twin(negotiated));
                }
                let Some(negotiated) = offered else { return Ok(()) };
                self.first_answer.get_or_insert(now);
                self.soliciting = None;
                self.held.push_back(negotiated);
                if self.released && self.tracks.is_empty() {
                    self.begin_next(now, rng);
                }
            }
        }
        Ok(())
    }

    fn handle_auth(
        &mut self,
        now: Instant,
        at: usize,
        (datagram, parsed): (&[u8], &ParsedMessage),
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        let header = parsed.header;
        let awaited = self.tracks.get(at).map(|track| track.outstanding.message_id);
        if awaited != Some(header.message_id) {
            return Err(PeerMisbehaved::UnexpectedResponse { message_id: header.message_id });
        }
        self.note_plain_error(parsed);
        let Track { auth, spis, path: track_path, believed, outstanding } = self.tracks.remove(at);
        let (proven, has_signed) = (auth.is_proven(), auth.has_signed());
        let keep = |auth, outstanding| Track { auth, spis, path: track_path, believed, outstanding };
        // The answer proves who sent it first, not who sent it here: the gateway is where it was asked.
        match auth.handle(&self.config, now, track_path, datagram, parsed, rng) {
            AuthStep::Ignore { state, misbehaved } => {
                self.tracks.insert(at, keep(state, outstanding));
                return Err(misbehaved);
            }
            AuthStep::Wait(state) => {
                self.spoken = true;
                self.tracks.insert(at, keep(state, outstanding));
            }
            AuthStep::Next { state, request } => {
                self.spoken = true;
                // Only a gateway that has proved itself asks for more: the other answers are not needed.
                self.held.clear();
                self.tracks.clear();
                let message_id = outstanding.message_id.saturating_add(1);
                let next = outstanding_auth(now, message_id, request);
                self.tracks.push(keep(state, next));
                self.send_track(0);
            }
            AuthStep::Established(established) => {
                for other in std::mem::take(&mut self.tracks) {
                    self.say_goodbye(other, rng);
                }
                self.held.clear();
                if established.sa.children().is_empty() {
                    self.completing = Some(Completing::begin(established, now, rng));
                    self.complete(now, rng);
                } else {
                    self.over = true;
                    self.outcome = Some(Ok(established));
                }
            }
            AuthStep::Failed { state, error } => {
                self.spoken = true;
                // Perhaps the only thing wrong is that we signed another form of the request than was answered.
                let proven = proven || state.as_ref().is_some_and(|state| state.is_proven());
                let doubtful = has_signed && error == HandshakeError::AuthenticationFailed;
                if let Some(state) = state {
                    self.say_goodbye(keep(state, outstanding), rng);
                }
                let vouched = proven || matches!(error, HandshakeError::Redirected(_));
                self.refused = Some(error);
                if vouched && !doubtful {
                    self.end();
                } else {
                    self.after_refusal(now, believed, doubtful, rng);
                }
            }
        }
        Ok(())
    }

    /// Looks at what came of the wish for a CHILD_SA.
    fn complete(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let Some(completing) = self.completing.take() else { return };
        let (completion, transmits) = completing.step(now, rng);
        self.transmits.extend(transmits);
        match completion {
            Completion::Waiting(completing) => self.completing = Some(completing),
            Completion::Done(established) => {
                self.over = true;
                self.outcome = Some(Ok(established));
            }
            Completion::Failed(error) => {
                self.refused = Some(error);
                self.end();
            }
        }
    }

    /// One answer led nowhere: what else is there?
    fn after_refusal(&mut self, now: Instant, believed: Believed, doubtful: bool, rng: &mut dyn CryptoRng) {
        if !self.tracks.is_empty() {
            return;
        }
        if !self.held.is_empty() {
            self.begin_next(now, rng);
            return;
        }
        if doubtful && self.init.narrow(believed) {
            self.solicit_alone(now);
            return;
        }
        let until = self.first_answer.map(|answered| answered + LINGER).filter(|until| now < *until);
        self.linger = until;
        self.end_if_nothing_is_left();
    }

    /// An answer in the clear to IKE_AUTH proves nothing, but is better than silence as an explanation.
    fn note_plain_error(&mut self, parsed: &ParsedMessage) {
        if parsed.encrypted.is_some() || parsed.header.exchange != ExchangeType::IkeAuth {
            return;
        }
        for payload in &parsed.payloads {
            if let Payload::Notify(notify) = payload
                && notify.ty.is_error()
            {
                self.noted = Some(HandshakeError::Refused(notify.ty));
            }
        }
    }

    /// IKE_AUTH on the next answer that was not tried.
    fn begin_next(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let Some(negotiated) = self.held.pop_front() else { return };
        self.linger = None;
        self.tried.push(negotiated.response.clone());
        let (spis, path, believed) = (negotiated.spis, negotiated.path, negotiated.believed);
        match AuthSent::begin(*negotiated, &self.config, rng) {
            Ok((mut auth, request)) => {
                let others = std::mem::take(&mut self.held).into_iter();
                self.held = others.filter_map(|other| auth.offer_twin(other)).collect();
                let outstanding = outstanding_auth(now, 1, request);
                self.tracks.push(Track { auth: Box::new(auth), spis, path, believed, outstanding });
                self.send_track(self.tracks.len() - 1);
            }
            Err(error) => {
                self.refused = Some(error);
                self.end();
            }
        }
    }

    /// Nobody has spoken under protection for a while: perhaps the answer was not the gateway's.
    fn hedge(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if self.held.is_empty() {
            if now < self.deadline {
                self.solicit();
            }
        } else {
            self.begin_next(now, rng);
        }
    }

    fn solicit(&mut self) {
        let path = self.path;
        let requests = self.init.requests().into_iter();
        self.transmits.extend(requests.map(|message| Transmit { path, message }));
    }

    fn solicit_alone(&mut self, now: Instant) {
        self.held.clear();
        let mut soliciting = Outstanding::new(now, 0, Vec::new(), RetransmitPolicy::INITIAL);
        soliciting.give_up_by(now + ALONE);
        self.soliciting = Some(soliciting);
        self.solicit();
    }

    fn send_track(&mut self, at: usize) {
        let Some(track) = self.tracks.get(at) else { return };
        let path = track.path;
        let datagrams = track.outstanding.datagrams().iter().cloned();
        self.transmits.extend(datagrams.map(|message| Transmit { path, message }));
    }

    fn say_goodbye(&mut self, track: Track, rng: &mut dyn CryptoRng) {
        let path = track.path;
        let message_id = track.outstanding.message_id.saturating_add(1);
        let datagrams = track.auth.goodbye(message_id, path, rng);
        self.transmits.extend(datagrams.into_iter().map(|message| Transmit { path, message }));
    }

    fn end_if_nothing_is_left(&mut self) {
        let going_on = !self.tracks.is_empty() || self.soliciting.is_some() || self.linger.is_some();
        let waiting = !self.released && !self.held.is_empty();
        if !going_on && !waiting {
            self.end();
        }
    }

    fn end(&mut self) {
        self.over = true;
        self.soliciting = None;
        self.linger = None;
        self.tracks.clear();
        let error = self.refused.take().or_else(|| self.noted.take());
        let silence = HandshakeError::NoAnswer { after_init: self.first_answer.is_some() };
        self.outcome = Some(Err(error.unwrap_or(silence)));
    }
}

/// A request of IKE_AUTH on its way.
fn outstanding_auth(now: Instant, message_id: u32, request: Sealed) -> Outstanding {
    Outstanding::new(now, message_id, request.datagrams, RetransmitPolicy::AUTH)
        .cut_smaller(CUT_SMALLER, request.smaller)
}
