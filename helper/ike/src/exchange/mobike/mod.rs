//! MOBIKE (RFC 4555): an IKE_SA whose ends move.
//!
//! The client decides ([`moving`]): it tests paths, and moves by UPDATE_SA_ADDRESSES. The gateway follows ([`following`]):
//! only an authenticated UPDATE_SA_ADDRESSES moves what it sends, and only once the client has shown by COOKIE2 that it
//! receives at the new address. Here is what both have in common: the notifies, the addresses that the peer has besides,
//! and how the peer sees us.
//!
//! The owner of an [`IkeSa`] opens sockets and decides which way to go; it learns by [`super::sa::SaEvent`] what came of it.
//! [`IkeSa::path`] is where requests of IKE go; CHILD_SAs move when [`super::sa::SaEvent::PathChanged`] says so.

mod esp_path;
mod following;
pub(super) mod held;
mod moving;

pub use following::MovePolicy;

use std::net::IpAddr;

use rand_core::CryptoRng;

use super::nat::{NatSituation, detection_hash, forced_encapsulation_hash};
use super::retransmit::RetransmitPolicy;
use super::sa::{CloseReason, IkeSa, SaEvent, Task};
use super::{Path, Transmit};
use crate::error::PeerMisbehaved;
use crate::time::Instant;
use crate::wire::{Notify, NotifyType, Payload, find_notify};

/// Octets of the COOKIE2 that we send; section 4.2.5 wants 8 to 64.
const COOKIE_LEN: usize = 16;
/// Addresses of a peer that are remembered at most.
const MAX_ADDRESSES: usize = 32;

/// What an IKE_SA knows about moving; the IKE_SA that takes its place inherits it.
#[derive(Clone, Debug, Default)]
pub struct Mobility {
    /// We began the first IKE_SA, so we decide which addresses are used, whoever rekeyed it since (section 1.3).
    decides: bool,
    policy: MovePolicy,
    /// Our addresses to tell the peer of; `None` tells nothing.
    own: Option<Vec<IpAddr>>,
    /// The addresses that the peer has besides.
    peer: Vec<IpAddr>,
    /// The peer's last NAT_DETECTION_DESTINATION_IP: how it sees us.
    seen_as: Option<Vec<u8>>,
    /// An UPDATE_SA_ADDRESSES must go out as soon as the window allows.
    update_pending: bool,
    /// One is under way.
    updating: bool,
    /// The peer's new address must be checked as soon as the window allows.
    pub(super) check_pending: bool,
    /// One is under way.
    checking: bool,
    /// Requests go another way than the CHILD_SAs, until the client moves over.
    strayed: bool,
    /// The peer has just answered UPDATE_SA_ADDRESSES.
    pub(super) moved: bool,
}

impl Mobility {
    /// For the client, from the answer that granted the CHILD_SA. `own` are its addresses to tell of, if any; `seen_as` is the
    /// NAT_DETECTION_DESTINATION_IP of IKE_SA_INIT.
    #[must_use]
    pub fn of_initiator(own: Option<Vec<IpAddr>>, answer: &[Payload], seen_as: Option<Vec<u8>>) -> Self {
        Self { decides: true, own, peer: listed_addresses(answer), seen_as, ..Self::default() }
    }

    /// For the gateway, from the addresses that the client's request listed. `own` are its addresses.
    #[must_use]
    pub fn of_responder(policy: MovePolicy, own: Vec<IpAddr>, peer: Vec<IpAddr>) -> Self {
        Self { policy, own: Some(own), peer, ..Self::default() }
    }

    /// The same when it has taken its place: all that is to be done is its business. A move still takes this one along, for
    /// the peer may not have heard yet that it was replaced.
    pub fn hand_over(&mut self) -> Self {
        let heir = self.inherited();
        (self.update_pending, self.check_pending, self.own) = (false, false, None);
        heir
    }

    /// For the IKE_SA that takes the place of this one. How the peer sees us is asked anew: the hash is over the SPIs. What was
    /// under way is begun anew, for its answer comes to the old one.
    #[must_use]
    pub fn inherited(&self) -> Self {
        Self {
            seen_as: None,
            update_pending: self.update_pending || self.updating,
            updating: false,
            check_pending: self.check_pending || self.checking,
            checking: false,
            ..self.clone()
        }
    }
}

/// What MOBIKE wants from the peer: INFORMATIONAL, each with a COOKIE2 of its own.
#[derive(Debug)]
pub(super) enum MobikeTask {
    /// UPDATE_SA_ADDRESSES: use the addresses that this comes by.
    Update { cookie: Vec<u8> },
    /// Does this path work? Nothing moves.
    TestPath { path: Path, cookie: Vec<u8> },
    /// Does the peer receive at its new address?
    CheckRoutability { cookie: Vec<u8> },
    /// The addresses that we have changed.
    Announce { cookie: Vec<u8> },
}

impl MobikeTask {
    /// How long it is repeated, when not as long as others.
    pub(super) fn patience(&self) -> Option<RetransmitPolicy> {
        match self {
            Self::Update { .. } => Some(RetransmitPolicy::MOVE),
            Self::TestPath { .. } => Some(RetransmitPolicy::TEST),
            Self::CheckRoutability { .. } => Some(RetransmitPolicy::CHECK),
            Self::Announce { .. } => None,
        }
    }

    fn cookie(&self) -> &[u8] {
        match self {
            Self::Update { cookie }
            | Self::TestPath { cookie, .. }
            | Self::CheckRoutability { cookie }
            | Self::Announce { cookie } => cookie,
        }
    }
}

/// How the request that was answered travelled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Travelled {
    /// Where it went last.
    pub(super) path: Path,
    /// It went by more than one path, so that the answer does not tell which one works (section 3.7).
    pub(super) rerouted: bool,
    /// Where the answer came by.
    pub(super) answer: Path,
}

impl Travelled {
    /// Whether the answer shows that its path works.
    fn proves_path(&self) -> bool {
        !self.rerouted && self.answer.link == self.path.link
    }
}

/// ADDITIONAL_IP4_ADDRESS and ADDITIONAL_IP6_ADDRESS for IKE_AUTH (section 3.4): all of ours but the one in use.
#[must_use]
pub fn additional_addresses(own: &[IpAddr], in_use: IpAddr) -> Vec<Payload> {
    let others = own.iter().filter(|address| **address != in_use);
    others.map(|address| Payload::Notify(Notify::additional_address(*address))).collect()
}

/// The addresses that a message lists, as far as anybody can be reached there.
#[must_use]
pub fn listed_addresses(payloads: &[Payload]) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for payload in payloads {
        let Payload::Notify(notify) = payload else { continue };
        let Some(address) = notify.address() else { continue };
        let usable = !address.is_unspecified() && !address.is_multicast() && !address.is_loopback();
        if usable && !found.contains(&address) && found.len() < MAX_ADDRESSES {
            found.push(address);
        }
    }
    found
}

impl IkeSa {
    /// The addresses that the peer has besides the one in use, as it told.
    #[must_use]
    pub fn peer_addresses(&self) -> &[IpAddr] {
        &self.mobility.peer
    }

    /// Whether the peer can be moved: both ends speak MOBIKE, and we decide.
    #[must_use]
    pub fn can_move(&self) -> bool {
        self.features().mobike && self.mobility.decides
    }

    /// Whether a peer's request may be repeated for long, because its sender may be on the move (section 3.11).
    pub(super) fn is_patient(&self) -> bool {
        self.features().mobike && !self.mobility.decides
    }

    /// Sends the request under way again, and from now on, by another path; with a new time to live if one is given. A path that
    /// it tested is told as failed: the answer, whichever way it comes, tells nothing of it any more.
    pub(super) fn reroute(&mut self, now: Instant, path: Path, policy: Option<RetransmitPolicy>) {
        let Some(in_flight) = &mut self.in_flight else { return };
        if let Task::Mobike(MobikeTask::TestPath { path: tested, .. }) = &in_flight.task
            && !in_flight.rerouted
            && *tested != path
        {
            self.events.push_back(SaEvent::PathFailed(*tested));
        }
        in_flight.rerouted |= in_flight.path != path;
        in_flight.path = path;
        in_flight.outstanding.restart(now, policy);
        let again = in_flight.outstanding.datagrams().iter().cloned();
        self.transmits.extend(again.map(|message| Transmit { path, message }));
    }

    /// Puts before all other tasks what must go out first.
    pub(super) fn queue_mobike(&mut self) {
        if !self.features().mobike || self.tasks.iter().any(|task| matches!(task, Task::DeleteIke)) {
            return;
        }
        if std::mem::take(&mut self.mobility.update_pending) {
            self.tasks.push_front(Task::Mobike(MobikeTask::Update { cookie: Vec::new() }));
        }
        if std::mem::take(&mut self.mobility.check_pending) {
            self.tasks.push_front(Task::Mobike(MobikeTask::CheckRoutability { cookie: Vec::new() }));
        }
    }

    /// The request of a task, and where it goes.
    pub(super) fn mobike_request(
        &mut self,
        task: &mut MobikeTask,
        rng: &mut dyn CryptoRng,
    ) -> (Path, Vec<Payload>) {
        let mut fresh = vec![0; COOKIE_LEN];
        rng.fill_bytes(&mut fresh);
        let mut path = self.path;
        let mut payloads = Vec::new();
        match task {
            MobikeTask::Update { cookie } => {
                self.mobility.updating = true;
                cookie.clone_from(&fresh);
                payloads.push(Payload::Notify(Notify::status(NotifyType::UpdateSaAddresses)));
                payloads.extend(self.nat_detection(path));
                payloads.extend(self.own_addresses());
            }
            MobikeTask::TestPath { path: wanted, cookie } => {
                cookie.clone_from(&fresh);
                path = *wanted;
            }
            MobikeTask::CheckRoutability { cookie } => {
                self.mobility.checking = true;
                cookie.clone_from(&fresh);
            }
            MobikeTask::Announce { cookie } => {
                cookie.clone_from(&fresh);
                payloads.extend(self.own_addresses());
            }
        }
        payloads.push(Payload::Notify(Notify::new(NotifyType::Cookie2, fresh)));
        (path, payloads)
    }

    /// Takes the answer to a task.
    pub(super) fn finish_mobike(
        &mut self,
        task: MobikeTask,
        travelled: Travelled,
        payloads: &[Payload],
    ) -> Result<(), PeerMisbehaved> {
        self.fatal_notify(payloads)?;
        self.check_cookie(task.cookie(), payloads)?;
        match task {
            MobikeTask::Update { .. } => {
                self.mobility.updating = false;
                self.finish_update(travelled, payloads);
            }
            MobikeTask::TestPath { path, .. } => self.finish_test(path, travelled),
            MobikeTask::CheckRoutability { .. } => {
                self.mobility.checking = false;
                self.finish_check(travelled);
            }
            MobikeTask::Announce { .. } => {}
        }
        Ok(())
    }

    /// A COOKIE2 that comes back changed, or not at all, ends the IKE_SA (section 3.7). An answer that refuses need not
    /// bring it (section 3.5).
    fn check_cookie(&mut self, sent: &[u8], payloads: &[Payload]) -> Result<(), PeerMisbehaved> {
        let refuses = [NotifyType::UnacceptableAddresses, NotifyType::UnexpectedNatDetected];
        match find_notify(payloads, NotifyType::Cookie2) {
            Some(came) if came.data == sent => Ok(()),
            None if refuses.iter().any(|ty| find_notify(payloads, *ty).is_some()) => Ok(()),
            Some(_) | None => {
                self.finish(CloseReason::CookieMismatch);
                Err(PeerMisbehaved::CookieMismatch)
            }
        }
    }

    /// NAT_DETECTION_SOURCE_IP and NAT_DETECTION_DESTINATION_IP for a message by this path. A client has no raw ESP, so its
    /// source hash always asks for encapsulation.
    fn nat_detection(&self, path: Path) -> [Payload; 2] {
        let spis = self.spis();
        let source = if self.mobility.decides || self.mobility.policy.always_encapsulate {
            forced_encapsulation_hash(spis)
        } else {
            detection_hash(spis, path.local)
        };
        let hashes = [
            (NotifyType::NatDetectionSourceIp, source),
            (NotifyType::NatDetectionDestinationIp, detection_hash(spis, path.remote)),
        ];
        hashes.map(|(ty, hash)| Payload::Notify(Notify::new(ty, hash.to_vec())))
    }

    /// The complete list of our other addresses (section 3.6), if we tell of any.
    fn own_addresses(&self) -> Vec<Payload> {
        let Some(own) = &self.mobility.own else { return Vec::new() };
        let others = additional_addresses(own, self.path.local.ip());
        if others.is_empty() {
            vec![Payload::Notify(Notify::status(NotifyType::NoAdditionalAddresses))]
        } else {
            others
        }
    }

    /// Judges where NATs are from a message that came by this path, if it tells.
    fn judge_nat(&mut self, path: Path, payloads: &[Payload]) {
        if let Some(nat) = NatSituation::of_message(self.spis(), path, payloads) {
            self.nat = nat;
        }
    }
}
