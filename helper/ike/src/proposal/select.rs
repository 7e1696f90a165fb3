//! Agreeing on one proposal: the responder's choice, and the initiator's check of it (RFC 7296 section 2.7).

use super::{ChosenEsp, ChosenIke, EspProposal, IkeProposal, is_aead};
use crate::crypto::DhGroup;
use crate::error::PeerMisbehaved;
use crate::wire::sa::{Proposal, Protocol, Transform, TransformType, transform_id};

/// In which exchange a CHILD_SA is made: it decides what a key exchange transform means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildExchange {
    /// IKE_AUTH has no key exchange; groups in an offer are passed over.
    IkeAuth,
    /// CREATE_CHILD_SA, with the group of the request's KE payload if it has one: preferred when it is acceptable.
    CreateChildSa {
        /// That group.
        ke_group: Option<u16>,
    },
}

/// The responder's choice for an IKE_SA: the first of `configured` that agrees with anything offered, and of each type the
/// first algorithm configured. `ke_group` is the group of the request's KE payload; it is taken when acceptable, to
/// spare a round of INVALID_KE_PAYLOAD. The answer's SPI is left empty for the caller. `None`: NO_PROPOSAL_CHOSEN.
pub fn select_ike(
    offered: &[Proposal],
    configured: &[IkeProposal],
    ke_group: Option<u16>,
) -> Option<(ChosenIke, Proposal)> {
    for ours in configured.iter().map(|ours| ours.to_wire(Vec::new())) {
        for theirs in offered.iter().filter(|theirs| theirs.protocol == Protocol::Ike) {
            let Some(transforms) = agree(&ours, theirs, |theirs| pick_group(&ours, theirs, ke_group)) else {
                continue;
            };
            let answer = answer_to(theirs, transforms);
            if let Some(chosen) = chosen_ike(&answer) {
                return Some((chosen, answer));
            }
        }
    }
    None
}

/// The responder's choice for a CHILD_SA, as [`select_ike`]; the peer's SPI is in the proposal that has the answer's
/// number. When nothing configured names a group but the peer insists on one, a supported one is accepted: more
/// secrecy than asked for is no reason to lose the tunnel at a rekey.
pub fn select_esp(
    offered: &[Proposal],
    configured: &[EspProposal],
    exchange: ChildExchange,
) -> Option<(ChosenEsp, Proposal)> {
    for ours in configured.iter().map(|ours| ours.to_wire(Vec::new(), true)) {
        for theirs in offered.iter().filter(|theirs| theirs.protocol == Protocol::Esp) {
            if theirs.esp_spi().is_none() {
                continue;
            }
            let agreed = agree(&ours, theirs, |theirs| match exchange {
                ChildExchange::IkeAuth => Some(None),
                ChildExchange::CreateChildSa { ke_group } => pick_child_group(&ours, theirs, ke_group),
            });
            let Some(transforms) = agreed else { continue };
            let answer = answer_to(theirs, transforms);
            if let Some(chosen) = chosen_esp(&answer) {
                return Some((chosen, answer));
            }
        }
    }
    None
}

/// The initiator's check of a responder's choice for an IKE_SA: one transform of each type offered, and nothing that was
/// not offered.
///
/// # Errors
/// The answer breaks that rule, or its SPI is not of the offer's size.
pub fn validate_ike_answer(answer: &Proposal, offered: &[Proposal]) -> Result<ChosenIke, PeerMisbehaved> {
    let offer = validate(answer, offered)?;
    if !offer.spi.is_empty() && answer.ike_spi().is_none() || offer.spi.is_empty() && !answer.spi.is_empty() {
        return Err(PeerMisbehaved::AnswerSpi);
    }
    chosen_ike(answer)
        .ok_or(PeerMisbehaved::AnswerTransformMissing { transform_type: first_missing(answer, IKE_TYPES) })
}

/// The initiator's check of a responder's choice for a CHILD_SA. An answer that says nothing about sequence numbers means
/// the ordinary ones, if these were offered.
///
/// # Errors
/// The answer breaks the rule of [`validate_ike_answer`], or has no SPI.
pub fn validate_esp_answer(answer: &Proposal, offered: &[Proposal]) -> Result<ChosenEsp, PeerMisbehaved> {
    validate(answer, offered)?;
    if answer.esp_spi().is_none() {
        return Err(PeerMisbehaved::AnswerSpi);
    }
    chosen_esp(answer)
        .ok_or(PeerMisbehaved::AnswerTransformMissing { transform_type: first_missing(answer, ESP_TYPES) })
}

const IKE_TYPES: &[TransformType] =
    &[TransformType::Encr, TransformType::Prf, TransformType::Integ, TransformType::Group];
const ESP_TYPES: &[TransformType] = &[TransformType::Encr, TransformType::Integ];

/// Whether an INTEG transform has nothing to say: none, or one that is called so.
fn is_no_integrity(transform: &Transform) -> bool {
    transform.ty == TransformType::Integ && transform.id == transform_id::AUTH_NONE
}

/// One transform of each type that both have, or `None`. The group is the business of `group`, which says `Some(None)`
/// for no group.
fn agree(
    ours: &Proposal,
    theirs: &Proposal,
    group: impl Fn(&Proposal) -> Option<Option<Transform>>,
) -> Option<Vec<Transform>> {
    // A proposal with a type that is not known is not understood (RFC 7296 section 3.3.6).
    if theirs.transforms.iter().any(|transform| matches!(transform.ty, TransformType::Other(_))) {
        return None;
    }
    let encr = pick(ours, theirs, TransformType::Encr)?;
    let mut agreed = vec![encr];
    if !is_aead(encr.id) {
        agreed.push(pick(ours, theirs, TransformType::Integ)?);
    }
    let has = |proposal: &Proposal, ty| proposal.of_type(ty).next().is_some();
    match (has(ours, TransformType::Prf), has(theirs, TransformType::Prf)) {
        (true, true) => agreed.push(pick(ours, theirs, TransformType::Prf)?),
        (false, false) => {}
        (true, false) | (false, true) => return None,
    }
    agreed.extend(group(theirs)?);
    if has(theirs, TransformType::Esn) {
        agreed.push(pick(ours, theirs, TransformType::Esn)?);
    } else if has(ours, TransformType::Esn)
        && !ours.of_type(TransformType::Esn).any(|esn| esn.id == transform_id::ESN_NO)
    {
        return None;
    }
    Some(agreed)
}

/// The first of our transforms of a type that they offer.
fn pick(ours: &Proposal, theirs: &Proposal, ty: TransformType) -> Option<Transform> {
    ours.of_type(ty).find(|own| theirs.transforms.contains(own)).copied()
}

fn pick_group(ours: &Proposal, theirs: &Proposal, ke_group: Option<u16>) -> Option<Option<Transform>> {
    let preferred = ke_group.map(|group| Transform::new(TransformType::Group, group));
    let preferred =
        preferred.filter(|group| ours.transforms.contains(group) && theirs.transforms.contains(group));
    preferred.or_else(|| pick(ours, theirs, TransformType::Group)).map(Some)
}

fn pick_child_group(ours: &Proposal, theirs: &Proposal, ke_group: Option<u16>) -> Option<Option<Transform>> {
    let mut offered = theirs.of_type(TransformType::Group).peekable();
    if ours.of_type(TransformType::Group).next().is_some() {
        return pick_group(ours, theirs, ke_group);
    }
    if offered.peek().is_none() {
        return Some(None);
    }
    let groups: Vec<Transform> = offered.copied().collect();
    if let Some(none) = groups.iter().find(|group| group.id == transform_id::GROUP_NONE) {
        return Some(Some(*none));
    }
    let usable = |group: &&Transform| DhGroup::from_iana(group.id).is_some() && is_plain(group);
    let preferred = groups.iter().filter(usable).find(|group| Some(group.id) == ke_group);
    preferred.or_else(|| groups.iter().find(usable)).copied().map(Some)
}

fn is_plain(transform: &Transform) -> bool {
    transform.key_length.is_none() && !transform.unknown_attributes
}

fn answer_to(theirs: &Proposal, transforms: Vec<Transform>) -> Proposal {
    Proposal { number: theirs.number, protocol: theirs.protocol, spi: Vec::new(), transforms }
}

/// Checks an answer against the offer it belongs to.
fn validate<'a>(answer: &Proposal, offered: &'a [Proposal]) -> Result<&'a Proposal, PeerMisbehaved> {
    let number = answer.number;
    let offer = offered.iter().find(|offer| offer.number == number && offer.protocol == answer.protocol);
    let Some(offer) = offer else {
        return Err(PeerMisbehaved::AnswerProposalNotOffered { number });
    };
    let aead = answer.of_type(TransformType::Encr).any(|encr| is_aead(encr.id));
    let has = |proposal: &Proposal, ty| proposal.of_type(ty).next().is_some();
    for transform in &answer.transforms {
        let transform_type = transform.ty;
        if answer.of_type(transform_type).count() > 1 {
            return Err(PeerMisbehaved::AnswerTransformRepeated { transform_type });
        }
        let says_none = (aead && is_no_integrity(transform))
            || (transform_type == TransformType::Group
                && transform.id == transform_id::GROUP_NONE
                && !has(offer, TransformType::Group));
        if !says_none && !offer.transforms.contains(transform) {
            return Err(PeerMisbehaved::AnswerTransformNotOffered { transform_type, id: transform.id });
        }
    }
    for transform_type in offer.transforms.iter().map(|transform| transform.ty) {
        let may_lack = transform_type == TransformType::Esn
            && offer.of_type(TransformType::Esn).any(|esn| esn.id == transform_id::ESN_NO);
        if !may_lack && !has(answer, transform_type) {
            return Err(PeerMisbehaved::AnswerTransformMissing { transform_type });
        }
    }
    Ok(offer)
}

fn one(proposal: &Proposal, ty: TransformType) -> Option<&Transform> {
    proposal.of_type(ty).next()
}

/// The first of these types that an answer lacks; INTEG is not lacking with an AEAD.
fn first_missing(answer: &Proposal, types: &[TransformType]) -> TransformType {
    let missing = types.iter().find(|ty| one(answer, **ty).is_none_or(is_no_integrity));
    missing.copied().unwrap_or(TransformType::Encr)
}

/// INTEG as it belongs to the cipher: `Some(None)` with an AEAD, `None` when it is missing without one.
fn integrity(encr: &Transform, proposal: &Proposal) -> Option<Option<u16>> {
    let integ = one(proposal, TransformType::Integ).filter(|integ| !is_no_integrity(integ));
    match (is_aead(encr.id), integ) {
        (true, None) => Some(None),
        (false, Some(integ)) => Some(Some(integ.id)),
        (true, Some(_)) | (false, None) => None,
    }
}

fn chosen_ike(proposal: &Proposal) -> Option<ChosenIke> {
    let encr = one(proposal, TransformType::Encr)?;
    Some(ChosenIke {
        encr: encr.id,
        key_bits: encr.key_length,
        integ: integrity(encr, proposal)?,
        prf: one(proposal, TransformType::Prf)?.id,
        group: one(proposal, TransformType::Group)?.id,
    })
}

fn chosen_esp(proposal: &Proposal) -> Option<ChosenEsp> {
    let encr = one(proposal, TransformType::Encr)?;
    let group = one(proposal, TransformType::Group).map(|group| group.id);
    Some(ChosenEsp {
        encr: encr.id,
        key_bits: encr.key_length,
        integ: integrity(encr, proposal)?,
        esn: one(proposal, TransformType::Esn).is_some_and(|esn| esn.id == transform_id::ESN_YES),
        group: group.filter(|group| *group != transform_id::GROUP_NONE),
    })
}
