//! CREATE_CHILD_SA: a further CHILD_SA, or one in the place of another (RFC 7296 section 1.3).
//!
//! What a rekey means for the CHILD_SAs that are there is told in [`super::rekey_child`]; that of the IKE_SA is another
//! exchange of the same type, in [`super::rekey_ike`].

use rand_core::CryptoRng;

use super::Path;
use super::child::{ChildOffer, ChildSa, Mode, derive, random_spi};
use super::dhcp_sa;
use super::rekey_child::Rival;
use super::renewal::MAX_CHILDREN;
use super::sa::{IkeSa, Task, error_answer};
use super::transport;
use crate::crypto::{DhGroup, KeyPair};
use crate::error::PeerMisbehaved;
use crate::proposal::{ChildExchange, EspProposal, select_esp};
use crate::time::Instant;
use crate::wire::{
    ConfigType, Configuration, KeyExchange, Nonce, Notify, NotifyType, Payload, Proposal, Protocol,
    SecurityAssociation, TrafficSelectors, TransformType, find_notify,
};

/// Octets of our nonces.
pub(super) const NONCE_LEN: usize = 32;

/// What CHILD_SAs of an IKE_SA may be, whoever asks for them.
#[derive(Clone, Debug)]
pub struct ChildPolicy {
    /// Acceptable proposals.
    pub proposals: Vec<EspProposal>,
    /// Our side.
    pub ts_local: TrafficSelectors,
    /// The peer's side.
    pub ts_remote: TrafficSelectors,
    /// Their mode. In transport mode the selectors are the addresses in use, whatever stands above.
    pub mode: Mode,
    /// Beside those there may be CHILD_SAs for DHCP ([`super::dhcp_sa`]).
    pub dhcp: bool,
}

/// What a CHILD_SA is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Beside those that are there.
    Further,
    /// To take the place of the one with this SPI of ours.
    Rekey(u32),
    /// The same, when the peer does not know that one any more.
    InsteadOf(u32),
    /// To take the place of all, which are of no use between the addresses that are in use now.
    AfterMove,
}

/// A CHILD_SA that we are asking for.
#[derive(Debug)]
pub struct PendingChild {
    pub(super) purpose: Purpose,
    /// The peer's rekey of the same CHILD_SA, when both began one.
    pub(super) rival: Option<Rival>,
    offer: ChildOffer,
    nonce: Vec<u8>,
    key: Option<KeyPair>,
    retried: bool,
    /// Inner addresses that are asked for with it.
    pub(super) inner: Option<Configuration>,
}

impl PendingChild {
    /// Asks for what `policy` allows; the first group of its first proposal gives a key exchange of its own.
    pub fn new(policy: &ChildPolicy, rng: &mut dyn CryptoRng) -> Self {
        let ts_i = policy.ts_local.clone();
        let mut offer = ChildOffer::with_groups(&policy.proposals, ts_i, policy.ts_remote.clone(), rng);
        offer.mode = policy.mode;
        let first = offer.proposals.first().and_then(|first| first.of_type(TransformType::Group).next());
        let group = first.and_then(|transform| DhGroup::from_iana(transform.id));
        let key = group.map(|group| KeyPair::generate(group, rng));
        let mut nonce = vec![0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        Self { purpose: Purpose::Further, rival: None, offer, nonce, key, retried: false, inner: None }
    }

    pub(super) fn with_purpose(self, purpose: Purpose) -> Self {
        Self { purpose, ..self }
    }

    /// It is asked for by this path: in transport mode that is what it is between.
    pub(super) fn goes_out_by(&mut self, path: Path) {
        if self.offer.mode == Mode::Transport {
            self.offer.put_between(path);
        }
    }

    pub(super) fn is_for_dhcp(&self) -> bool {
        dhcp_sa::concerns(&self.offer.ts_i, &self.offer.ts_r)
            || dhcp_sa::concerns(&self.offer.ts_r, &self.offer.ts_i)
    }

    pub(super) fn nonce(&self) -> &[u8] {
        &self.nonce
    }

    /// Whether it is to take the place of this CHILD_SA.
    pub(super) fn is_about(&self, spi_in: u32) -> bool {
        match self.purpose {
            Purpose::Further | Purpose::AfterMove => false,
            Purpose::Rekey(old) | Purpose::InsteadOf(old) => old == spi_in,
        }
    }

    fn offers_group(&self, wanted: u16) -> Option<DhGroup> {
        let mut offered =
            self.offer.proposals.iter().flat_map(|proposal| proposal.of_type(TransformType::Group));
        DhGroup::from_iana(wanted).filter(|_| offered.any(|transform| transform.id == wanted))
    }
}

/// A peer's request for a CHILD_SA, its payloads sorted out.
struct Request<'a> {
    proposals: &'a [Proposal],
    nonce: &'a [u8],
    ke: Option<&'a KeyExchange>,
    ts_i: &'a TrafficSelectors,
    ts_r: &'a TrafficSelectors,
    mode: Mode,
    rekeyed_spi: Option<u32>,
    inner: Option<&'a Configuration>,
}

/// How a request is refused: a notify, its data, and what the peer did wrong, if anything.
pub(super) struct Refusal(pub(super) NotifyType, pub(super) Vec<u8>, pub(super) Option<PeerMisbehaved>);

impl Refusal {
    /// A refusal that says all by its type, of a request that is in order.
    pub(super) fn plain(notify: NotifyType) -> Self {
        Self(notify, Vec::new(), None)
    }
}

/// The answer to a request, and what was wrong with the request.
type Answer = (Vec<Payload>, Result<(), PeerMisbehaved>);

impl IkeSa {
    pub(super) fn create_child_request(pending: &PendingChild) -> Vec<Payload> {
        let mut payloads = pending.offer.payloads();
        // SA, Ni, [KEi], TSi, TSr: nonce and key go behind the SA.
        let at = payloads.iter().position(|payload| matches!(payload, Payload::Sa(_))).map_or(0, |at| at + 1);
        let mut between = vec![Payload::Nonce(Nonce { data: pending.nonce.clone() })];
        if let Some(key) = &pending.key {
            let data = key.public().to_vec();
            between.push(Payload::Ke(KeyExchange { group: key.group().iana(), data }));
        }
        payloads.splice(at..at, between);
        let before = payloads.iter().position(|payload| matches!(payload, Payload::Sa(_))).unwrap_or(0);
        payloads.splice(before..before, pending.inner.clone().map(Payload::Cp));
        if let Purpose::Rekey(old) = pending.purpose {
            payloads.insert(0, Payload::Notify(Notify::rekey_esp(old)));
        }
        payloads
    }

    pub(super) fn finish_create_child(
        &mut self,
        now: Instant,
        mut pending: PendingChild,
        payloads: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        self.fatal_notify(payloads)?;
        if let Some(notify) = find_notify(payloads, NotifyType::InvalidKePayload) {
            let wanted = notify.data_u16().unwrap_or(0);
            let Some(group) = pending.offers_group(wanted) else {
                self.child_refused(now, &pending, NotifyType::InvalidKePayload, rng);
                return Err(PeerMisbehaved::GroupNotOffered { group: wanted });
            };
            if pending.retried {
                self.child_refused(now, &pending, NotifyType::InvalidKePayload, rng);
                return Err(PeerMisbehaved::InvalidKeLoop);
            }
            pending.retried = true;
            pending.key = Some(KeyPair::generate(group, rng));
            self.tasks.push_front(Task::CreateChild(Box::new(pending)));
            return Ok(());
        }
        let refused = payloads.iter().find_map(|payload| match payload {
            Payload::Notify(notify) if notify.ty.is_error() => Some(notify.ty),
            _ => None,
        });
        if let Some(notify) = refused {
            self.child_refused(now, &pending, notify, rng);
            return Ok(());
        }
        let spi_in = pending.offer.spi_in;
        match self.accept_child(&pending, payloads) {
            Ok((child, nonce_r)) => {
                if pending.inner.is_some() {
                    self.take_inner(&child, payloads);
                }
                self.child_agreed(now, &pending, child, &nonce_r);
                Ok(())
            }
            Err(misbehaved) => {
                // The peer believes in a CHILD_SA that we cannot use.
                let declined = misbehaved == PeerMisbehaved::WrongMode;
                let refusal = if declined { NotifyType::UseTransportMode } else { NotifyType::InvalidSyntax };
                self.child_refused(now, &pending, refusal, rng);
                if declined {
                    // Another mode than was asked for is to be deleted (section 1.3.1).
                    self.tasks.push_back(Task::Inform(vec![Self::delete_payload(&[spi_in])]));
                }
                tracing::warn!(spi_in, %misbehaved, "the answer to our CHILD_SA request cannot be used");
                Err(misbehaved)
            }
        }
    }

    fn accept_child(
        &self,
        pending: &PendingChild,
        payloads: &[Payload],
    ) -> Result<(ChildSa, Vec<u8>), PeerMisbehaved> {
        let (suite, _) = pending.offer.choice(payloads)?;
        let nonce = payloads.iter().find_map(|payload| match payload {
            Payload::Nonce(nonce) => Some(nonce.data.as_slice()),
            _ => None,
        });
        let nonce = nonce.ok_or(PeerMisbehaved::MissingPayload { what: "the Nonce payload" })?;
        let shared_secret = match (&pending.key, suite.group) {
            (_, None) => None,
            (Some(key), Some(group)) if key.group().iana() == group => {
                let ke =
                    find_ke(payloads).ok_or(PeerMisbehaved::MissingPayload { what: "the KE payload" })?;
                if ke.group != group {
                    return Err(PeerMisbehaved::WrongGroup { found: ke.group, expected: group });
                }
                Some(key.agree(&ke.data).map_err(|error| PeerMisbehaved::KeyExchange { error })?)
            }
            (Some(_) | None, Some(group)) => return Err(PeerMisbehaved::GroupNotOffered { group }),
        };
        let shared_secret = shared_secret.as_ref().map(|secret| secret.as_slice());
        let nonces = (pending.nonce.as_slice(), nonce);
        let child = pending.offer.accept(payloads, self.nat, self.prf, &self.sk_d, shared_secret, nonces)?;
        Ok((child, nonce.to_vec()))
    }

    /// Answers the peer's CREATE_CHILD_SA request.
    pub(super) fn answer_create_child_sa(
        &mut self,
        now: Instant,
        payloads: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> Answer {
        let answered = if self.renewal.minimal {
            Err(Refusal::plain(NotifyType::NoAdditionalSas))
        } else if asks_for_ike_sa(payloads) {
            self.answer_rekey_ike(now, payloads, rng)
        } else {
            Request::sort(payloads).and_then(|request| self.answer_create_child(now, &request, rng))
        };
        match answered {
            Ok(answer) => (answer, Ok(())),
            Err(Refusal(notify, data, misbehaved)) => {
                (error_answer(notify, data), misbehaved.map_or(Ok(()), Err))
            }
        }
    }

    fn answer_create_child(
        &mut self,
        now: Instant,
        request: &Request<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<Payload>, Refusal> {
        // RFC 7296 section 2.25.2; what belongs to an IKE_SA that is about to go would be lost with it.
        if self.is_closing() || self.may_be_replaced() {
            return Err(Refusal::plain(NotifyType::TemporaryFailure));
        }
        let old = match request.rekeyed_spi {
            None => None,
            Some(spi_out) => {
                let old = self.spi_in_of(spi_out);
                Some(old.ok_or_else(|| Refusal::plain(NotifyType::ChildSaNotFound))?)
            }
        };
        if old.is_some_and(|old| self.is_closing_child(old)) {
            return Err(Refusal::plain(NotifyType::TemporaryFailure));
        }
        if self.children.len() >= MAX_CHILDREN {
            return Err(Refusal::plain(NotifyType::NoAdditionalSas));
        }
        let granted = self.grant_inner(now, request.inner)?;
        let (child, nonce, mut answer) = self.make_child(request, rng)?;
        answer.splice(0..0, granted);
        let new = child.spi_in;
        self.add_child(now, child, old, true);
        if let Some(old) = old {
            self.peer_rekeyed(now, old, new, request.nonce.min(&nonce));
        }
        self.carry_if_moved(new);
        Ok(answer)
    }

    fn spi_in_of(&self, spi_out: u32) -> Option<u32> {
        self.children.iter().find(|child| child.spi_out == spi_out).map(|child| child.spi_in)
    }

    fn make_child(
        &self,
        request: &Request<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<(ChildSa, Vec<u8>, Vec<Payload>), Refusal> {
        if request.mode != self.policy.mode {
            // Not policy here: the peer then gets nothing (RFC 7296 section 1.3.1).
            return Err(Refusal::plain(NotifyType::NoProposalChosen));
        }
        let spi_in = random_spi(rng);
        let exchange = ChildExchange::CreateChildSa { ke_group: request.ke.map(|ke| ke.group) };
        let Some((suite, mut proposal)) = select_esp(request.proposals, &self.policy.proposals, exchange)
        else {
            return Err(Refusal::plain(NotifyType::NoProposalChosen));
        };
        let unacceptable = || Refusal::plain(NotifyType::TsUnacceptable);
        let (ts_local, ts_remote) = match request.mode {
            Mode::Tunnel => self.admitted(request.ts_r, request.ts_i),
            Mode::Transport => {
                transport::agreed(request.ts_r, request.ts_i, self.nat, self.path).ok_or_else(unacceptable)?
            }
        };
        if ts_local.selectors.is_empty() || ts_remote.selectors.is_empty() {
            return Err(unacceptable());
        }
        let mut nonce = vec![0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        let (key, shared_secret) = match suite.group {
            None => (None, None),
            Some(group) => {
                let (key, secret) = agree(group, request.ke, rng)?;
                (Some(key), Some(secret))
            }
        };
        let shared_secret = shared_secret.as_ref().map(|secret| secret.as_slice());
        let keys = derive(&suite, self.prf, &self.sk_d, shared_secret, (request.nonce, &nonce))
            .map_err(|misbehaved| Refusal(NotifyType::NoProposalChosen, Vec::new(), Some(misbehaved)))?;
        let offered = request.proposals.iter().find(|offered| offered.number == proposal.number);
        let Some(spi_out) = offered.and_then(Proposal::esp_spi) else {
            return Err(Refusal::plain(NotifyType::NoProposalChosen));
        };
        proposal.spi = spi_in.to_be_bytes().to_vec();
        let mut answer = request.mode.payloads();
        answer.extend([
            Payload::Sa(SecurityAssociation { proposals: vec![proposal] }),
            Payload::Nonce(Nonce { data: nonce.clone() }),
        ]);
        answer.extend(
            key.map(|key| {
                Payload::Ke(KeyExchange { group: key.group().iana(), data: key.public().to_vec() })
            }),
        );
        answer.extend([Payload::TsI(ts_remote.clone()), Payload::TsR(ts_local.clone())]);
        let (keys_in, keys_out) = ChildSa::split_keys(keys, false);
        let mode = request.mode;
        let child = ChildSa { spi_in, spi_out, suite, keys_in, keys_out, mode, ts_local, ts_remote };
        Ok((child, nonce, answer))
    }
}

impl<'a> Request<'a> {
    fn sort(payloads: &'a [Payload]) -> Result<Self, Refusal> {
        let (mut sa, mut nonce, mut ke, mut ts_i, mut ts_r) = (None, None, None, None, None);
        let (mut mode, mut rekeyed_spi, mut inner) = (Mode::Tunnel, None, None);
        for payload in payloads {
            match payload {
                Payload::Sa(found) => sa = Some(found),
                Payload::Nonce(found) => nonce = Some(found.data.as_slice()),
                Payload::Ke(found) => ke = Some(found),
                Payload::TsI(found) => ts_i = Some(found),
                Payload::TsR(found) => ts_r = Some(found),
                Payload::Cp(found) if found.ty == ConfigType::Request => inner = Some(found),
                Payload::Notify(notify) if notify.ty == NotifyType::UseTransportMode => {
                    mode = Mode::Transport
                }
                Payload::Notify(notify) if notify.ty == NotifyType::RekeySa => {
                    rekeyed_spi = Some(rekeyed(notify)?);
                }
                _ => {}
            }
        }
        let sa = sa.ok_or_else(|| missing("the SA payload"))?;
        Ok(Self {
            proposals: &sa.proposals,
            nonce: nonce.ok_or_else(|| missing("the Nonce payload"))?,
            ke,
            ts_i: ts_i.ok_or_else(|| missing("the TSi payload"))?,
            ts_r: ts_r.ok_or_else(|| missing("the TSr payload"))?,
            mode,
            rekeyed_spi,
            inner,
        })
    }
}

fn asks_for_ike_sa(payloads: &[Payload]) -> bool {
    let is_ike = |sa: &SecurityAssociation| {
        sa.proposals.first().is_some_and(|proposal| proposal.protocol == Protocol::Ike)
    };
    payloads.iter().any(|payload| matches!(payload, Payload::Sa(sa) if is_ike(sa)))
}

fn rekeyed(notify: &Notify) -> Result<u32, Refusal> {
    let esp = notify.protocol == u8::from(Protocol::Esp);
    notify.esp_spi().filter(|_| esp).ok_or_else(|| {
        let misbehaved = PeerMisbehaved::RekeyProtocol { protocol: notify.protocol };
        Refusal(NotifyType::InvalidSyntax, Vec::new(), Some(misbehaved))
    })
}

pub(super) fn missing(what: &'static str) -> Refusal {
    Refusal(NotifyType::InvalidSyntax, Vec::new(), Some(PeerMisbehaved::MissingPayload { what }))
}

pub(super) fn find_ke(payloads: &[Payload]) -> Option<&KeyExchange> {
    payloads.iter().find_map(|payload| match payload {
        Payload::Ke(ke) => Some(ke),
        _ => None,
    })
}

pub(super) type SharedSecret = zeroize::Zeroizing<Vec<u8>>;

pub(super) fn agree(
    group: u16,
    ke: Option<&KeyExchange>,
    rng: &mut dyn CryptoRng,
) -> Result<(KeyPair, SharedSecret), Refusal> {
    let wants = || Refusal(NotifyType::InvalidKePayload, group.to_be_bytes().to_vec(), None);
    let ke = ke.filter(|ke| ke.group == group).ok_or_else(wants)?;
    let group = DhGroup::from_iana(group).ok_or_else(wants)?;
    let key = KeyPair::generate(group, rng);
    let secret = key.agree(&ke.data).map_err(|error| {
        Refusal(NotifyType::InvalidSyntax, Vec::new(), Some(PeerMisbehaved::KeyExchange { error }))
    })?;
    Ok((key, secret))
}
