//! KEEP_OLD_IKE_SA: a further IKE_SA beside one that stands, without another authentication
//! (draft-mglt-ipsecme-keep-old-ike-sa-00).
//!
//! It is the CREATE_CHILD_SA exchange that rekeys the IKE_SA ([`super::rekey_ike`]) with a notify before the SA payload
//! that asks for the old one to be kept. When the answer says so, there are two: the new one inherits who the peer is, what
//! it can do and where it is, and has SPIs, keys, Message IDs, renewals and a life of its own; CHILD_SAs stay with the
//! IKE_SA that made them. An answer without the notify, or with code 1, was an ordinary rekey, and is treated as one. Either
//! end may ask. When both ask at once, both results are kept, for nothing of the old one changes hands.
//!
//! The client says which path carries by a notify of our own ([`crate::wire::switch_notify`]); what that means for a
//! connection of several IKE_SAs is up to their owner, who has them all.

use rand_core::CryptoRng;

use super::Role;
use super::config::InitiatorConfig;
use super::create_child_sa::{PendingChild, Refusal};
use super::rekey_ike::{Answered, PendingIke, Successor};
use super::sa::{IkeSa, SaEvent, Task};
use crate::error::PeerMisbehaved;
use crate::time::Instant;
use crate::wire::keep_old_ike_sa::KeepOldCode;
use crate::wire::switch_notify::switch_notify_type;
use crate::wire::{KeepOldIkeSa, Notify, NotifyType, Payload, SwitchNotice, find_notify};

/// What an IKE_SA knows of the extension besides what the peer can do.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeepOld {
    /// The number of the notify.
    number: Option<u16>,
    /// The owner takes further IKE_SAs.
    room: bool,
}

impl KeepOld {
    pub(super) fn new(number: Option<u16>) -> Self {
        Self { number, room: true }
    }

    pub(super) fn number(&self) -> Option<u16> {
        self.number
    }
}

/// A message of IKE_AUTH in two parts: what is about the first IKE_SA, and what asks for a further one or grants it, from its
/// notify on (appendix B.5 of the draft). Only there does the order of payloads matter: two SA payloads are told apart by it.
#[must_use]
pub fn split_shortened(payloads: &[Payload], number: Option<u16>) -> (&[Payload], &[Payload]) {
    let Some(number) = number.map(NotifyType::from) else { return (payloads, &[]) };
    let is_it = |payload: &Payload| matches!(payload, Payload::Notify(notify) if notify.ty == number);
    let at = payloads.iter().position(is_it).unwrap_or(payloads.len());
    payloads.split_at_checked(at).unwrap_or((payloads, &[]))
}

/// What asks for a further IKE_SA in IKE_AUTH, if that is wanted.
pub(super) fn shortened_request(
    config: &InitiatorConfig,
    group: u16,
    rng: &mut dyn CryptoRng,
) -> Option<PendingIke> {
    let number = config.keep_old.filter(|_| config.keep_old_in_auth)?;
    let mut pending = PendingIke::of(&config.ike_proposals, group, rng)?;
    pending.keep = Some(number);
    Some(pending)
}

/// Whether the answer in `payloads` says that the old IKE_SA is kept.
pub(super) fn was_kept(payloads: &[Payload], number: u16) -> bool {
    read(payloads, number).is_some_and(|said| !said.request && said.code == KeepOldCode::Keep)
}

/// The notify, when it is as section 5 says; one that is not is as good as none.
fn read(payloads: &[Payload], number: u16) -> Option<KeepOldIkeSa> {
    let notify = find_own_notify(payloads, number)?;
    let said = KeepOldIkeSa::parse(&notify.data);
    said.inspect_err(|wire| tracing::debug!(%wire, "KEEP_OLD_IKE_SA is not in order and ignored")).ok()
}

/// A notify of a number of ours, which is about no SA by its SPI.
pub(super) fn find_own_notify(payloads: &[Payload], number: impl Into<NotifyType>) -> Option<&Notify> {
    find_notify(payloads, number.into()).filter(|notify| notify.protocol == 0 && notify.spi.is_empty())
}

impl IkeSa {
    /// Asks for a further IKE_SA beside this one. The outcome is [`SaEvent::Kept`]; or [`SaEvent::Rekeyed`] when the peer
    /// does not know the extension, or knows it and does not keep this one; or [`SaEvent::KeepRefused`]. Nothing is asked, and
    /// the answer is `false`, when the peer is known not to keep, or this IKE_SA is about to go.
    pub fn add_ike_sa(&mut self, now: Instant, rng: &mut dyn CryptoRng) -> bool {
        let Some(number) = self.keep_old.number else { return false };
        if self.features.keep_old == Some(false) || self.is_closing() || self.is_closed() {
            return false;
        }
        let Some(mut pending) = PendingIke::new(self, rng) else { return false };
        pending.keep = Some(number);
        self.tasks.push_back(Task::RekeyIke(Box::new(pending)));
        self.start_next(now, rng);
        true
    }

    /// Whether the owner takes further IKE_SAs that the peer asks for; else they are refused with NO_ADDITIONAL_SAS.
    pub fn set_room(&mut self, room: bool) {
        self.keep_old.room = room;
    }

    /// Asks for a CHILD_SA as the connection's first one, as on an IKE_SA that was added. The outcome is
    /// [`SaEvent::ChildUp`] or [`SaEvent::ChildRefused`].
    pub fn create_child_alike(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let child = PendingChild::new(&self.policy, rng);
        self.create_child(now, child, rng);
    }

    /// Tells the gateway how the path of this IKE_SA is to be used; what was said of it and is not on its way yet is
    /// forgotten. The outcome is [`SaEvent::SwitchAnswered`].
    pub fn announce_switch(&mut self, now: Instant, notice: SwitchNotice, rng: &mut dyn CryptoRng) {
        if self.keep_old.number.is_some() {
            self.tasks.retain(|task| !matches!(task, Task::Switch(_)));
            self.tasks.push_front(Task::Switch(notice));
            self.start_next(now, rng);
        }
    }

    /// Whether an answer that is awaited may put another IKE_SA in the place of this one.
    pub(super) fn may_be_replaced(&self) -> bool {
        let keeps = self.features.keep_old == Some(true);
        self.has_task(|task| matches!(task, Task::RekeyIke(pending) if pending.keep.is_none() || !keeps))
    }

    /// What the peer's request to rekey this IKE_SA says of the old one, if it says anything. A code without meaning asks
    /// for nothing in particular, so it is told that the old one is not kept.
    pub(super) fn keep_wish(&self, payloads: &[Payload]) -> Option<KeepOldCode> {
        let said = read(payloads, self.keep_old.number?)?;
        said.request.then_some(said.code)
    }

    /// The notify for an answer.
    pub(super) fn keep_notify(&self, said: KeepOldIkeSa) -> Option<Payload> {
        self.keep_old.number.map(|number| Payload::Notify(said.notify(number)))
    }

    /// Answers the peer's request for a further IKE_SA. Nothing of this one changes, so it does not matter what is under way
    /// on it.
    pub(super) fn answer_keep(
        &mut self,
        now: Instant,
        payloads: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<Payload>, Refusal> {
        if self.is_closing() {
            return Err(Refusal::plain(NotifyType::TemporaryFailure));
        }
        if !self.keep_old.room {
            return Err(Refusal::plain(NotifyType::NoAdditionalSas));
        }
        let Answered { heir, mut answer, .. } = self.agree_to_heir(now, payloads, rng)?;
        answer.splice(0..0, self.keep_notify(KeepOldIkeSa::kept()));
        self.kept(heir);
        Ok(answer)
    }

    /// Answers the part of an IKE_AUTH request that asks for a further IKE_SA; what cannot be granted is passed over.
    pub fn answer_shortened(
        &self,
        now: Instant,
        asked: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> Option<(Box<Successor>, Vec<Payload>)> {
        if self.keep_wish(asked) != Some(KeepOldCode::Keep) {
            return None;
        }
        let Answered { heir, mut answer, .. } = self.agree_to_heir(now, asked, rng).ok()?;
        answer.splice(0..0, self.keep_notify(KeepOldIkeSa::kept()));
        Some((heir, answer))
    }

    /// Takes a further IKE_SA that was agreed on in IKE_AUTH.
    pub fn adopt(&mut self, heir: Box<Successor>) {
        self.kept(heir);
    }

    /// Takes the part of an IKE_AUTH answer that grants a further IKE_SA; without one there is none.
    pub(super) fn finish_shortened(&mut self, now: Instant, pending: &PendingIke, granted: &[Payload]) {
        if !pending.keep.is_some_and(|number| was_kept(granted, number)) {
            return;
        }
        match self.accept_heir(now, pending, granted) {
            Ok((heir, _)) => self.kept(heir),
            Err(misbehaved) => tracing::warn!(%misbehaved, "the further IKE_SA of IKE_AUTH cannot be used"),
        }
    }

    /// The peer keeps this one beside the new one. When it had rekeyed this one meanwhile, that counts as well.
    pub(super) fn keep_agreed(
        &mut self,
        now: Instant,
        rival: Option<Box<Successor>>,
        mut heir: Box<Successor>,
    ) {
        heir.sa.queue_token();
        self.kept(heir);
        if let Some(rival) = rival {
            self.hand_over(rival);
            self.renewal.ike.succeeded(now);
        }
    }

    /// The owner is told, once, that what it asked for did not come about.
    pub(super) fn note_keep_refused(&mut self, asked: Option<u16>, notify: NotifyType) {
        if asked.is_some() {
            self.events.push_back(SaEvent::KeepRefused(notify));
        }
    }

    /// This IKE_SA ends: what was asked for on it does not come about.
    pub(super) fn forget_keep_requests(&mut self) {
        let running = self.in_flight.as_ref().map(|in_flight| &in_flight.task);
        let asked = running.into_iter().chain(&self.tasks);
        let asked = asked.filter(|task| matches!(task, Task::RekeyIke(pending) if pending.keep.is_some()));
        let refused = asked.map(|_| SaEvent::KeepRefused(NotifyType::TemporaryFailure));
        self.events.extend(refused);
    }

    fn kept(&mut self, mut heir: Box<Successor>) {
        tracing::debug!(old = ?self.spis, new = ?heir.sa.spis(), "a further IKE_SA");
        self.features.keep_old = Some(true);
        heir.sa.features.keep_old = Some(true);
        // This one may have moved since the request.
        (heir.sa.path, heir.sa.nat) = (self.path, self.nat);
        heir.sa.mobility = self.mobility.inherited();
        self.take_along(&mut heir.sa);
        self.events.push_back(SaEvent::Kept(heir));
    }

    pub(super) fn switch_request(&self, notice: SwitchNotice) -> Vec<Payload> {
        let number = self.keep_old.number.map(switch_notify_type);
        number.map(|number| Payload::Notify(notice.notify(number))).into_iter().collect()
    }

    /// The gateway's answer: it knows what was said if it says the same.
    pub(super) fn finish_switch(
        &mut self,
        notice: SwitchNotice,
        payloads: &[Payload],
    ) -> Result<(), PeerMisbehaved> {
        self.fatal_notify(payloads)?;
        let understood = self.find_switch(payloads) == Some(notice);
        self.events.push_back(SaEvent::SwitchAnswered { counter: notice.counter, understood });
        Ok(())
    }

    /// The client's word on its path, which the answer repeats. A gateway has no say in it, and who has one path needs none.
    pub(super) fn answer_switch(&mut self, payloads: &[Payload]) -> Option<Payload> {
        let number = switch_notify_type(self.keep_old.number?);
        if self.role == Role::Initiator || self.features.keep_old != Some(true) {
            return None;
        }
        let notice = self.find_switch(payloads)?;
        self.events.push_back(SaEvent::SwitchAsked(notice));
        Some(Payload::Notify(notice.notify(number)))
    }

    fn find_switch(&self, payloads: &[Payload]) -> Option<SwitchNotice> {
        let number = switch_notify_type(self.keep_old.number?);
        SwitchNotice::parse(&find_own_notify(payloads, number)?.data).ok()
    }
}
