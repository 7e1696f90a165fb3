//! A group's SA, handed out on an established IKE_SA (draft-yamaya-ipsecme-mpsa, section 3.1).
//!
//! ```text
//! gateway -> endpoint   HDR, SK {N(MPSA_PUT)}
//! gateway <- endpoint   HDR, SK {}
//! ```
//!
//! Only an endpoint that announced multi-point SA in IKE_SA_INIT, and was answered with the same, listens to it; anybody else
//! ignores the notify as one that it does not know (RFC 7296 section 3.10.1). Nothing is negotiated, so an offer that is
//! refused here is answered as if it were taken, and the owner hears why it is not.

use rand_core::CryptoRng;

use super::Role;
use super::sa::{IkeSa, SaEvent, Task};
use crate::error::PeerMisbehaved;
use crate::multi_point::group_sa::{GroupPolicy, GroupSa, Refusal};
use crate::multi_point::put::{MPSA_PUT, MpsaPut};
use crate::time::Instant;
use crate::wire::{Delete, Notify, NotifyType, Payload};

/// What the owner has to know of a group's SA.
#[derive(Debug)]
pub enum GroupEvent {
    /// The gateway hands out one.
    HandedOut(Box<GroupSa>),
    /// It handed out one that is not used.
    Refused(Refusal),
    /// It deletes an SA that is none of the CHILD_SAs: one of the group, if there is one with this SPI.
    Deleted {
        /// The SPI.
        spi: u32,
    },
}

/// Whether the sender of an IKE_SA_INIT message knows multi-point SA (section 3.2.1).
#[must_use]
pub fn announced(payloads: &[Payload]) -> bool {
    payloads.iter().any(|payload| matches!(payload, Payload::VendorId(id) if id.is_multi_point_sa()))
}

impl IkeSa {
    /// Takes SAs of a group from now on: both ends announced multi-point SA.
    pub fn take_group_sas(&mut self, policy: GroupPolicy) {
        self.group = Some(policy);
    }

    /// Hands a group's SA out; there is no answer but that it arrived.
    pub fn hand_out(&mut self, now: Instant, put: &MpsaPut, rng: &mut dyn CryptoRng) {
        self.tasks.push_back(Task::Inform(vec![Payload::Notify(put.notify())]));
        self.start_next(now, rng);
    }

    /// Takes a group's SA back before its lifetime is over.
    pub fn take_back(&mut self, now: Instant, spi: u32, rng: &mut dyn CryptoRng) {
        self.tasks.push_back(Task::Inform(vec![Payload::Delete(Delete::esp(vec![spi]))]));
        self.start_next(now, rng);
    }

    /// What the gateway hands out in an INFORMATIONAL request.
    ///
    /// # Errors
    /// A malformed notify, which is answered with INVALID_SYNTAX and installs nothing.
    pub(super) fn receive_group_sa(&mut self, payloads: &[Payload]) -> Result<(), PeerMisbehaved> {
        let Some(policy) = self.group.filter(|_| self.role == Role::Initiator) else { return Ok(()) };
        let mut offers = payloads.iter().filter_map(|payload| match payload {
            Payload::Notify(notify) if notify.ty == NotifyType::from(MPSA_PUT) => Some(notify),
            _ => None,
        });
        let Some(offer) = offers.next() else { return Ok(()) };
        let put = MpsaPut::parse(offer)?;
        // The draft has no name for a group: which of two a packet belongs to could not be said.
        let judged = if offers.next().is_some() {
            Err(Refusal::SeveralGroups)
        } else {
            self.judge_group_sa(&put, policy)
        };
        let event = judged.map_or_else(GroupEvent::Refused, |sa| GroupEvent::HandedOut(Box::new(sa)));
        self.events.push_back(SaEvent::Group(event));
        Ok(())
    }

    fn judge_group_sa(&self, put: &MpsaPut, policy: GroupPolicy) -> Result<GroupSa, Refusal> {
        if self.children.iter().any(|child| child.spi_in == put.spi) {
            return Err(Refusal::SpiInUse { spi: put.spi });
        }
        GroupSa::accept(put, policy)
    }

    /// The gateway deletes an SA that is none of the CHILD_SAs: that of a group, which its owner knows by the SPI.
    pub(super) fn delete_group_sa(&mut self, spi: u32) {
        if self.group.is_some() && self.role == Role::Initiator {
            self.events.push_back(SaEvent::Group(GroupEvent::Deleted { spi }));
        }
    }

    /// The answer to a malformed offer.
    pub(super) fn malformed_offer(error: &PeerMisbehaved) -> Option<Payload> {
        let malformed = matches!(error, PeerMisbehaved::GroupSa(_));
        malformed.then(|| Payload::Notify(Notify::status(NotifyType::InvalidSyntax)))
    }
}
