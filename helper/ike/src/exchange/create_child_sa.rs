//! CREATE_CHILD_SA: a further CHILD_SA, and the peer's wish to replace one (RFC 7296 section 1.3).

use rand_core::CryptoRng;

use super::child::{ChildOffer, ChildSa, Mode, derive, random_spi};
use super::sa::{IkeSa, SaEvent, Task, error_answer};
use crate::crypto::{DhGroup, KeyPair};
use crate::error::PeerMisbehaved;
use crate::proposal::{ChildExchange, EspProposal, select_esp};
use crate::wire::{
    KeyExchange, Nonce, Notify, NotifyType, Payload, Proposal, Protocol, SecurityAssociation,
    TrafficSelectors, TransformType, find_notify,
};

/// Octets of our nonces.
const NONCE_LEN: usize = 32;

/// What CHILD_SAs of an IKE_SA may be, whoever asks for them.
#[derive(Clone, Debug)]
pub struct ChildPolicy {
    /// Acceptable proposals.
    pub proposals: Vec<EspProposal>,
    /// Our side.
    pub ts_local: TrafficSelectors,
    /// The peer's side.
    pub ts_remote: TrafficSelectors,
}

/// A CHILD_SA that we are asking for.
#[derive(Debug)]
pub struct PendingChild {
    offer: ChildOffer,
    nonce: Vec<u8>,
    key: Option<KeyPair>,
    retried: bool,
}

impl PendingChild {
    /// Asks for what `policy` allows; the first group of its first proposal gives a key exchange of its own.
    pub fn new(policy: &ChildPolicy, rng: &mut dyn CryptoRng) -> Self {
        let ts_i = policy.ts_local.clone();
        let offer = ChildOffer::with_groups(&policy.proposals, ts_i, policy.ts_remote.clone(), rng);
        let first = offer.proposals.first().and_then(|first| first.of_type(TransformType::Group).next());
        let group = first.and_then(|transform| DhGroup::from_iana(transform.id));
        let key = group.map(|group| KeyPair::generate(group, rng));
        let mut nonce = vec![0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        Self { offer, nonce, key, retried: false }
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
}

/// How a request is refused: a notify, its data, and what the peer did wrong, if anything.
struct Refusal(NotifyType, Vec<u8>, Option<PeerMisbehaved>);

impl IkeSa {
    pub(super) fn create_child_request(
        &mut self,
        pending: &mut PendingChild,
        _rng: &mut dyn CryptoRng,
    ) -> Vec<Payload> {
        let mut payloads = pending.offer.payloads();
        // SA, Ni, [KEi], TSi, TSr: nonce and key go behind the SA.
        let at = payloads.iter().position(|payload| matches!(payload, Payload::Sa(_))).map_or(0, |at| at + 1);
        let mut between = vec![Payload::Nonce(Nonce { data: pending.nonce.clone() })];
        if let Some(key) = &pending.key {
            let data = key.public().to_vec();
            between.push(Payload::Ke(KeyExchange { group: key.group().iana(), data }));
        }
        payloads.splice(at..at, between);
        payloads
    }

    pub(super) fn finish_create_child(
        &mut self,
        mut pending: PendingChild,
        payloads: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        self.fatal_notify(payloads)?;
        if let Some(notify) = find_notify(payloads, NotifyType::InvalidKePayload) {
            let wanted = notify.data_u16().unwrap_or(0);
            let Some(group) = pending.offers_group(wanted) else {
                self.events.push_back(SaEvent::ChildRefused(NotifyType::InvalidKePayload));
                return Err(PeerMisbehaved::GroupNotOffered { group: wanted });
            };
            if pending.retried {
                self.events.push_back(SaEvent::ChildRefused(NotifyType::InvalidKePayload));
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
            self.events.push_back(SaEvent::ChildRefused(notify));
            return Ok(());
        }
        let spi_in = pending.offer.spi_in;
        match self.accept_child(&pending, payloads) {
            Ok(child) => {
                self.children.push(child.clone());
                self.events.push_back(SaEvent::ChildUp { child: Box::new(child), replaces: None });
                Ok(())
            }
            Err(misbehaved) => {
                // The peer believes in a CHILD_SA that we cannot use.
                self.events.push_back(SaEvent::ChildRefused(NotifyType::InvalidSyntax));
                tracing::warn!(spi_in, %misbehaved, "the answer to our CHILD_SA request cannot be used");
                Err(misbehaved)
            }
        }
    }

    fn accept_child(&self, pending: &PendingChild, payloads: &[Payload]) -> Result<ChildSa, PeerMisbehaved> {
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
        pending.offer.accept(payloads, self.prf, &self.sk_d, shared_secret, nonces)
    }

    /// Answers the peer's CREATE_CHILD_SA request: the answer, and what was wrong with the request.
    pub(super) fn answer_create_child_sa(
        &mut self,
        payloads: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> (Vec<Payload>, Result<(), PeerMisbehaved>) {
        let request = match Request::sort(payloads) {
            Ok(request) => request,
            Err(Refusal(notify, data, misbehaved)) => {
                return (error_answer(notify, data), misbehaved.map_or(Ok(()), Err));
            }
        };
        match self.make_child(&request, rng) {
            Ok((child, answer)) => {
                let replaces = request.rekeyed_spi.and_then(|spi_out| self.spi_in_of(spi_out));
                self.children.push(child.clone());
                self.events.push_back(SaEvent::ChildUp { child: Box::new(child), replaces });
                (answer, Ok(()))
            }
            Err(Refusal(notify, data, misbehaved)) => {
                (error_answer(notify, data), misbehaved.map_or(Ok(()), Err))
            }
        }
    }

    fn spi_in_of(&self, spi_out: u32) -> Option<u32> {
        self.children.iter().find(|child| child.spi_out == spi_out).map(|child| child.spi_in)
    }

    fn make_child(
        &self,
        request: &Request<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<(ChildSa, Vec<Payload>), Refusal> {
        if let Some(spi) = request.rekeyed_spi
            && self.spi_in_of(spi).is_none()
        {
            return Err(Refusal(NotifyType::ChildSaNotFound, Vec::new(), None));
        }
        if request.mode == Mode::Transport {
            // Not policy here: the peer then gets tunnel mode or nothing (RFC 7296 section 1.3.1).
            return Err(Refusal(NotifyType::NoProposalChosen, Vec::new(), None));
        }
        let spi_in = random_spi(rng);
        let exchange = ChildExchange::CreateChildSa { ke_group: request.ke.map(|ke| ke.group) };
        let Some((suite, mut proposal)) = select_esp(request.proposals, &self.policy.proposals, exchange)
        else {
            return Err(Refusal(NotifyType::NoProposalChosen, Vec::new(), None));
        };
        let ts_local = request.ts_r.narrow(&self.policy.ts_local);
        let ts_remote = request.ts_i.narrow(&self.policy.ts_remote);
        if ts_local.selectors.is_empty() || ts_remote.selectors.is_empty() {
            return Err(Refusal(NotifyType::TsUnacceptable, Vec::new(), None));
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
            return Err(Refusal(NotifyType::NoProposalChosen, Vec::new(), None));
        };
        proposal.spi = spi_in.to_be_bytes().to_vec();
        let mut answer = vec![
            Payload::Sa(SecurityAssociation { proposals: vec![proposal] }),
            Payload::Nonce(Nonce { data: nonce }),
        ];
        answer.extend(
            key.map(|key| {
                Payload::Ke(KeyExchange { group: key.group().iana(), data: key.public().to_vec() })
            }),
        );
        answer.extend([Payload::TsI(ts_remote.clone()), Payload::TsR(ts_local.clone())]);
        let (keys_in, keys_out) = ChildSa::split_keys(keys, false);
        let mode = request.mode;
        Ok((ChildSa { spi_in, spi_out, suite, keys_in, keys_out, mode, ts_local, ts_remote }, answer))
    }
}

impl<'a> Request<'a> {
    fn sort(payloads: &'a [Payload]) -> Result<Self, Refusal> {
        let (mut sa, mut nonce, mut ke, mut ts_i, mut ts_r) = (None, None, None, None, None);
        let (mut mode, mut rekeyed_spi) = (Mode::Tunnel, None);
        for payload in payloads {
            match payload {
                Payload::Sa(found) => sa = Some(found),
                Payload::Nonce(found) => nonce = Some(found.data.as_slice()),
                Payload::Ke(found) => ke = Some(found),
                Payload::TsI(found) => ts_i = Some(found),
                Payload::TsR(found) => ts_r = Some(found),
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
        if sa.proposals.first().is_some_and(|proposal| proposal.protocol == Protocol::Ike) {
            // The IKE_SA cannot be rekeyed yet: the peer keeps the old one and may ask again (RFC 7296 section 2.25).
            return Err(Refusal(NotifyType::TemporaryFailure, Vec::new(), None));
        }
        Ok(Self {
            proposals: &sa.proposals,
            nonce: nonce.ok_or_else(|| missing("the Nonce payload"))?,
            ke,
            ts_i: ts_i.ok_or_else(|| missing("the TSi payload"))?,
            ts_r: ts_r.ok_or_else(|| missing("the TSr payload"))?,
            mode,
            rekeyed_spi,
        })
    }
}

fn rekeyed(notify: &Notify) -> Result<u32, Refusal> {
    let esp = notify.protocol == u8::from(Protocol::Esp);
    notify.esp_spi().filter(|_| esp).ok_or_else(|| {
        let misbehaved = PeerMisbehaved::RekeyProtocol { protocol: notify.protocol };
        Refusal(NotifyType::InvalidSyntax, Vec::new(), Some(misbehaved))
    })
}

fn missing(what: &'static str) -> Refusal {
    Refusal(NotifyType::InvalidSyntax, Vec::new(), Some(PeerMisbehaved::MissingPayload { what }))
}

fn find_ke(payloads: &[Payload]) -> Option<&KeyExchange> {
    payloads.iter().find_map(|payload| match payload {
        Payload::Ke(ke) => Some(ke),
        _ => None,
    })
}

type SharedSecret = zeroize::Zeroizing<Vec<u8>>;

fn agree(
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
