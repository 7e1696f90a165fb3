//! Rekeying the IKE_SA: a new one with new keys and Message IDs from zero inherits the CHILD_SAs, and who began the
//! exchange deletes the old one (RFC 7296 sections 1.3.2, 2.8, 2.18 and 2.25.2).
//!
//! The new IKE_SA is a value of its own, a [`Successor`], which the owner puts in the old one's place; the old one is kept
//! only until its DELETE is answered. Making an IKE_SA ([`IkeSa::begin_heir`]) and handing the CHILD_SAs over
//! ([`IkeSa::hand_over`]) are two steps, so that an exchange that adds an IKE_SA and leaves the old one in place needs only
//! the first.
//!
//! When both ends rekey at once and both notice, the new IKE_SA that was made with the lowest of the four nonces is
//! redundant: who asked for it deletes it, and the other one inherits (section 2.8.2).

use rand_core::CryptoRng;

use super::create_child_sa::{NONCE_LEN, Refusal, agree, find_ke, missing};
use super::keep_old::was_kept;
use super::protect::Protection;
use super::retransmit::ResponseWindow;
use super::sa::{CloseReason, IkeSa, SaEvent, SaParams, Task};
use super::{IkeSpis, Role};
use crate::crypto::keys::KeyInputs;
use crate::crypto::{DhGroup, IkeCipher, IkeKeys, KeyPair, Prf};
use crate::error::PeerMisbehaved;
use crate::proposal::{ChosenIke, IkeProposal, ike_rekey_offer, select_ike, validate_ike_answer};
use crate::time::Instant;
use crate::wire::keep_old_ike_sa::KeepOldCode;
use crate::wire::{
    KeepOldIkeSa, KeyExchange, Nonce, NotifyType, Payload, Proposal, SecurityAssociation, TransformType,
    find_notify,
};

/// A new IKE_SA, made by rekeying another.
#[derive(Debug)]
pub struct Successor {
    /// It.
    pub sa: IkeSa,
    /// Its keys, for a key log that an administrator switched on.
    pub keys: IkeKeys,
}

/// What the peer made while we were rekeying, too.
#[derive(Debug)]
struct Rival {
    heir: Box<Successor>,
    /// The lower of its two nonces.
    lowest: Vec<u8>,
}

/// An IKE_SA that we are asking for.
#[derive(Debug)]
pub(super) struct PendingIke {
    spi: u64,
    offer: Vec<Proposal>,
    nonce: Vec<u8>,
    key: KeyPair,
    retried: bool,
    rival: Option<Rival>,
    /// Asks that this one be kept beside the new one, by a notify of this number.
    pub(super) keep: Option<u16>,
}

/// What both ends agreed on for a new IKE_SA.
struct Agreed<'a> {
    sa_role: Role,
    spis: IkeSpis,
    suite: ChosenIke,
    nonces: (&'a [u8], &'a [u8]),
    shared_secret: &'a [u8],
}

/// A new IKE_SA that the peer asked for.
pub(super) struct Answered {
    pub(super) heir: Box<Successor>,
    /// The lower of its two nonces.
    lowest: Vec<u8>,
    /// SA, Nr, KEr.
    pub(super) answer: Vec<Payload>,
}

impl PendingIke {
    /// Asks for an IKE_SA like `sa`, with the same key exchange method where it is still allowed.
    pub(super) fn new(sa: &IkeSa, rng: &mut dyn CryptoRng) -> Option<Self> {
        Self::of(&sa.renewal.ike_proposals, sa.suite.group, rng)
    }

    /// Asks for one of these, with this key exchange method where it is among them.
    pub(super) fn of(proposals: &[IkeProposal], usual: u16, rng: &mut dyn CryptoRng) -> Option<Self> {
        let spi = random_ike_spi(rng);
        let offer = ike_rekey_offer(proposals, spi);
        let offered = || offer.iter().flat_map(|proposal| proposal.of_type(TransformType::Group));
        let group = offered().find(|group| group.id == usual).or_else(|| offered().next());
        let group = DhGroup::from_iana(group?.id)?;
        let key = KeyPair::generate(group, rng);
        Some(Self { spi, nonce: fresh_nonce(rng), key, retried: false, rival: None, offer, keep: None })
    }

    /// [N(KEEP_OLD_IKE_SA)], SA, Ni, KEi.
    pub(super) fn request(&self) -> Vec<Payload> {
        let ke = KeyExchange { group: self.key.group().iana(), data: self.key.public().to_vec() };
        let mut request = vec![
            Payload::Sa(SecurityAssociation { proposals: self.offer.clone() }),
            Payload::Nonce(Nonce { data: self.nonce.clone() }),
            Payload::Ke(ke),
        ];
        if let Some(number) = self.keep {
            request.insert(0, Payload::Notify(KeepOldIkeSa::request().notify(number)));
        }
        request
    }

    fn offers_group(&self, wanted: u16) -> Option<DhGroup> {
        let mut offered = self.offer.iter().flat_map(|proposal| proposal.of_type(TransformType::Group));
        DhGroup::from_iana(wanted).filter(|_| offered.any(|transform| transform.id == wanted))
    }
}

impl IkeSa {
    /// The peer's answer to our request for a new IKE_SA.
    pub(super) fn finish_rekey_ike(
        &mut self,
        now: Instant,
        mut pending: PendingIke,
        payloads: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        self.fatal_notify(payloads)?;
        if let Some(notify) = find_notify(payloads, NotifyType::InvalidKePayload) {
            let wanted = notify.data_u16().unwrap_or(0);
            let Some(group) = pending.offers_group(wanted).filter(|_| !pending.retried) else {
                self.ike_refused(now, pending, NotifyType::InvalidKePayload, rng);
                return Err(PeerMisbehaved::GroupNotOffered { group: wanted });
            };
            pending.retried = true;
            pending.key = KeyPair::generate(group, rng);
            self.tasks.push_front(Task::RekeyIke(Box::new(pending)));
            return Ok(());
        }
        let refused = payloads.iter().find_map(|payload| match payload {
            Payload::Notify(notify) if notify.ty.is_error() => Some(notify.ty),
            _ => None,
        });
        if let Some(notify) = refused {
            self.ike_refused(now, pending, notify, rng);
            return Ok(());
        }
        match self.accept_heir(now, &pending, payloads) {
            Ok((heir, _)) if pending.keep.is_some_and(|number| was_kept(payloads, number)) => {
                self.keep_agreed(now, pending.rival.map(|rival| rival.heir), heir);
                Ok(())
            }
            Ok((mut heir, nonce_r)) => {
                if pending.keep.is_some() {
                    heir.sa.features.keep_old = Some(false);
                }
                self.ike_agreed(now, pending, heir, &nonce_r, rng);
                Ok(())
            }
            Err(misbehaved) => {
                self.ike_refused(now, pending, NotifyType::InvalidSyntax, rng);
                Err(misbehaved)
            }
        }
    }

    /// Answers the peer's request for a new IKE_SA.
    pub(super) fn answer_rekey_ike(
        &mut self,
        now: Instant,
        payloads: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<Payload>, Refusal> {
        let wish = self.keep_wish(payloads);
        if wish == Some(KeepOldCode::Keep) {
            return self.answer_keep(now, payloads, rng);
        }
        let busy = self.in_flight.as_ref().is_some_and(|in_flight| match &in_flight.task {
            // What a move comes to belongs to the IKE_SA that it was asked on.
            Task::DeleteChildren(_) | Task::CreateChild(_) | Task::DeleteIke | Task::Mobike(_) => true,
            Task::RekeyIke(pending) => pending.rival.is_some(),
            Task::Liveness | Task::Inform(_) | Task::Switch(_) | Task::Size(_) => false,
        });
        if busy || self.is_closing() {
            return Err(Refusal::plain(NotifyType::TemporaryFailure));
        }
        let Answered { heir, lowest, mut answer } = self.agree_to_heir(now, payloads, rng)?;
        if wish.is_some() {
            answer.splice(0..0, self.keep_notify(KeepOldIkeSa::old_unused()));
        }
        match self.in_flight.as_mut().map(|in_flight| &mut in_flight.task) {
            Some(Task::RekeyIke(pending)) => {
                tracing::debug!("both ends rekey the IKE_SA");
                pending.rival = Some(Rival { heir, lowest });
            }
            _ => {
                self.hand_over(heir);
                self.renewal.ike.succeeded(now);
            }
        }
        Ok(answer)
    }

    /// Makes the new IKE_SA that the peer asks for.
    pub(super) fn agree_to_heir(
        &self,
        now: Instant,
        payloads: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> Result<Answered, Refusal> {
        let (mut sa, mut nonce_i) = (None, None);
        for payload in payloads {
            match payload {
                Payload::Sa(found) => sa = Some(found),
                Payload::Nonce(found) => nonce_i = Some(found.data.as_slice()),
                _ => {}
            }
        }
        let sa = sa.ok_or_else(|| missing("the SA payload"))?;
        let nonce_i = nonce_i.ok_or_else(|| missing("the Nonce payload"))?;
        let ke = find_ke(payloads);
        let chosen = select_ike(&sa.proposals, &self.renewal.ike_proposals, ke.map(|ke| ke.group));
        let (suite, mut proposal) = chosen.ok_or_else(|| Refusal::plain(NotifyType::NoProposalChosen))?;
        let offered = sa.proposals.iter().find(|offered| offered.number == proposal.number);
        let initiator = offered.and_then(Proposal::ike_spi).ok_or_else(|| missing("the new SPI"))?;
        let (key, shared_secret) = agree(suite.group, ke, rng)?;
        let (responder, nonce_r) = (random_ike_spi(rng), fresh_nonce(rng));
        proposal.spi = responder.to_be_bytes().to_vec();
        let agreed = Agreed {
            sa_role: Role::Responder,
            spis: IkeSpis { initiator, responder },
            suite,
            nonces: (nonce_i, &nonce_r),
            shared_secret: &shared_secret,
        };
        let heir = self
            .begin_heir(now, &agreed)
            .map_err(|misbehaved| Refusal(NotifyType::NoProposalChosen, Vec::new(), Some(misbehaved)))?;
        let lowest = nonce_i.min(&nonce_r).to_vec();
        let mut answer = vec![
            Payload::Sa(SecurityAssociation { proposals: vec![proposal] }),
            Payload::Nonce(Nonce { data: nonce_r }),
            Payload::Ke(KeyExchange { group: suite.group, data: key.public().to_vec() }),
        ];
        answer.extend(heir.sa.own_token());
        Ok(Answered { heir, lowest, answer })
    }

    /// The peer deleted the IKE_SA, or is gone from it: when it had rekeyed it, that is what counts now.
    pub(super) fn settle_rekey_before_end(&mut self, reason: CloseReason) {
        match reason {
            CloseReason::DeletedByPeer | CloseReason::PeerDead => {}
            CloseReason::Deleted
            | CloseReason::Fatal(_)
            | CloseReason::CookieMismatch
            | CloseReason::PeerRestarted
            | CloseReason::Expired => return,
        }
        let Some(in_flight) = &mut self.in_flight else { return };
        if let Task::RekeyIke(pending) = &mut in_flight.task
            && let Some(rival) = pending.rival.take()
        {
            self.hand_over(rival.heir);
        }
    }

    /// Makes the new IKE_SA; it has no CHILD_SA yet.
    fn begin_heir(&self, now: Instant, agreed: &Agreed<'_>) -> Result<Box<Successor>, PeerMisbehaved> {
        let unusable = PeerMisbehaved::MissingPayload { what: "a usable suite" };
        let suite = agreed.suite;
        let cipher = IkeCipher::from_iana(suite.encr, suite.key_bits, suite.integ);
        let Some((cipher, prf)) = cipher.zip(Prf::from_iana(suite.prf)) else { return Err(unusable) };
        let inputs = KeyInputs {
            nonce_i: agreed.nonces.0,
            nonce_r: agreed.nonces.1,
            spi_i: agreed.spis.initiator.to_be_bytes(),
            spi_r: agreed.spis.responder.to_be_bytes(),
        };
        let keys = IkeKeys::rekeyed(self.prf, &self.sk_d, prf, cipher, &inputs, agreed.shared_secret);
        let keys = keys.map_err(|_| unusable.clone())?;
        let protection = Protection::new(cipher, &keys, agreed.sa_role).map_err(|_| unusable)?;
        let params = SaParams {
            role: agreed.sa_role,
            spis: agreed.spis,
            path: self.path,
            suite,
            prf,
            sk_d: keys.sk_d.clone(),
            protection,
            next_request: 0,
            window: ResponseWindow::starting_at(0),
            features: self.features,
            peer_id: self.peer_id.clone(),
            nat: self.nat,
            ike_proposals: self.renewal.ike_proposals.clone(),
            lifetimes: self.renewal.lifetimes,
            policy: self.policy.clone(),
            child: None,
            dpd: self.dpd,
            mobility: self.mobility.inherited(),
            keep_old: self.keep_old.number(),
        };
        let mut sa = Self::new(now, params);
        (sa.role, sa.group) = (self.role, self.group);
        sa.token_maker.clone_from(&self.token_maker);
        sa.renewal.minimal = self.renewal.minimal;
        Ok(Box::new(Successor { sa, keys }))
    }

    /// The new IKE_SA inherits; the owner is told.
    pub(super) fn hand_over(&mut self, mut heir: Box<Successor>) {
        tracing::debug!(old = ?self.spis, new = ?heir.sa.spis(), "the IKE_SA is rekeyed");
        (heir.sa.path, heir.sa.nat) = (self.path, self.nat);
        heir.sa.mobility = self.mobility.hand_over();
        self.bequeath(&mut heir.sa);
        self.events.push_back(SaEvent::Rekeyed(heir));
    }

    pub(super) fn accept_heir(
        &self,
        now: Instant,
        pending: &PendingIke,
        payloads: &[Payload],
    ) -> Result<(Box<Successor>, Vec<u8>), PeerMisbehaved> {
        let (mut sa, mut nonce) = (None, None);
        for payload in payloads {
            match payload {
                Payload::Sa(found) => sa = Some(found),
                Payload::Nonce(found) => nonce = Some(found.data.as_slice()),
                _ => {}
            }
        }
        let sa = sa.ok_or(PeerMisbehaved::MissingPayload { what: "the SA payload" })?;
        let nonce = nonce.ok_or(PeerMisbehaved::MissingPayload { what: "the Nonce payload" })?;
        let ke = find_ke(payloads).ok_or(PeerMisbehaved::MissingPayload { what: "the KE payload" })?;
        let [proposal] = sa.proposals.as_slice() else {
            return Err(PeerMisbehaved::AnswerProposalCount { count: sa.proposals.len() });
        };
        let suite = validate_ike_answer(proposal, &pending.offer)?;
        let responder = proposal.ike_spi().ok_or(PeerMisbehaved::AnswerSpi)?;
        let expected = pending.key.group().iana();
        if suite.group != expected || ke.group != expected {
            return Err(PeerMisbehaved::WrongGroup { found: ke.group, expected });
        }
        let shared_secret =
            pending.key.agree(&ke.data).map_err(|error| PeerMisbehaved::KeyExchange { error })?;
        let agreed = Agreed {
            sa_role: Role::Initiator,
            spis: IkeSpis { initiator: pending.spi, responder },
            suite,
            nonces: (&pending.nonce, nonce),
            shared_secret: &shared_secret,
        };
        let mut heir = self.begin_heir(now, &agreed)?;
        heir.sa.take_token(payloads);
        Ok((heir, nonce.to_vec()))
    }

    fn ike_agreed(
        &mut self,
        now: Instant,
        pending: PendingIke,
        mut ours: Box<Successor>,
        nonce_r: &[u8],
        rng: &mut dyn CryptoRng,
    ) {
        let lowest = pending.nonce.as_slice().min(nonce_r);
        match pending.rival {
            Some(rival) if lowest < rival.lowest.as_slice() => {
                let Successor { sa: mut redundant, .. } = *ours;
                redundant.renewal.succeeded = true;
                redundant.dpd = None;
                redundant.close(now, rng);
                self.events.push_back(SaEvent::Redundant(Box::new(redundant)));
                // The peer deletes this one.
                self.hand_over(rival.heir);
                self.renewal.ike.succeeded(now);
            }
            rival => {
                if let Some(Rival { heir, .. }) = rival {
                    let Successor { sa: mut redundant, .. } = *heir;
                    redundant.renewal.succeeded = true;
                    redundant.renewal.ike.succeeded(now);
                    redundant.dpd = None;
                    self.events.push_back(SaEvent::Redundant(Box::new(redundant)));
                }
                ours.sa.queue_token();
                self.hand_over(ours);
                self.renewal.ike.succeeded(now);
                self.tasks.push_back(Task::DeleteIke);
            }
        }
    }

    fn ike_refused(
        &mut self,
        now: Instant,
        pending: PendingIke,
        notify: NotifyType,
        rng: &mut dyn CryptoRng,
    ) {
        if let Some(rival) = pending.rival {
            // The peer had finished its own rekey before it saw ours: that one counts.
            // What this one did not get is told while its owner still listens to it.
            self.note_keep_refused(pending.keep, notify);
            self.hand_over(rival.heir);
            self.renewal.ike.succeeded(now);
            return;
        }
        if pending.keep.is_some() {
            self.note_keep_refused(pending.keep, notify);
            return;
        }
        let refused = notify != NotifyType::TemporaryFailure;
        if refused {
            self.events.push_back(SaEvent::IkeRekeyRefused(notify));
        }
        self.renewal.ike.retry(now, refused, rng.next_u32());
        if !refused {
            self.put_off(now, rng);
        }
    }
}

fn random_ike_spi(rng: &mut dyn CryptoRng) -> u64 {
    std::iter::repeat_with(|| rng.next_u64()).find(|spi| *spi != 0).unwrap_or(1)
}

fn fresh_nonce(rng: &mut dyn CryptoRng) -> Vec<u8> {
    let mut nonce = vec![0; NONCE_LEN];
    rng.fill_bytes(&mut nonce);
    nonce
}
