//! Rekeying a CHILD_SA, begun by us or by the peer, or by both at once (RFC 7296 sections 1.3.3, 2.8 and 2.25.1).
//!
//! When both ends rekey the same CHILD_SA at once and both notice, there are two new ones. The one that was made with the
//! lowest of the four nonces is redundant, and who asked for it deletes it; the other end deletes the old one. An end
//! that had finished before the other's request came has the old one under deletion: it answers TEMPORARY_FAILURE, or
//! CHILD_SA_NOT_FOUND when it is gone, and then the other end's attempt is void.

use rand_core::CryptoRng;

use super::child::ChildSa;
use super::create_child_sa::{PendingChild, Purpose};
use super::sa::{IkeSa, SaEvent, Task};
use crate::time::Instant;
use crate::wire::NotifyType;

/// The peer's rekey of the CHILD_SA that we are rekeying ourselves.
#[derive(Debug)]
pub(super) struct Rival {
    /// Our SPI of what the peer made.
    pub(super) spi_in: u32,
    /// The lower of its two nonces.
    pub(super) lowest: Vec<u8>,
}

impl IkeSa {
    /// Whether what this asks for is still of use when its turn comes.
    pub(super) fn is_wanted(&mut self, pending: &PendingChild) -> bool {
        match pending.purpose {
            Purpose::Further | Purpose::AfterMove => true,
            Purpose::Rekey(old) | Purpose::InsteadOf(old) => {
                self.renewal.life(old).is_some_and(|life| life.successor.is_none())
            }
        }
    }

    /// The peer made `new` in the place of `old`.
    pub(super) fn peer_rekeyed(&mut self, now: Instant, old: u32, new: u32, lowest: &[u8]) {
        self.succeed_child(now, old, new);
        let Some(in_flight) = &mut self.in_flight else { return };
        if let Task::CreateChild(pending) = &mut in_flight.task
            && pending.is_about(old)
        {
            tracing::debug!(old, new, "both ends rekey the same CHILD_SA");
            pending.rival = Some(Rival { spi_in: new, lowest: lowest.to_vec() });
        }
    }

    /// The peer agreed to what we asked for.
    pub(super) fn child_agreed(
        &mut self,
        now: Instant,
        pending: &PendingChild,
        child: ChildSa,
        nonce_r: &[u8],
    ) {
        let new = child.spi_in;
        let old = match pending.purpose {
            Purpose::Further => {
                self.add_child(now, child, None, false);
                self.carry(new);
                return;
            }
            Purpose::AfterMove => {
                let old = self.carrying();
                self.add_child(now, child, old, false);
                self.replace_all(now, new);
                return;
            }
            Purpose::Rekey(old) | Purpose::InsteadOf(old) => old,
        };
        self.add_child(now, child, Some(old), false);
        let rival = pending.rival.as_ref().filter(|rival| self.renewal.life(rival.spi_in).is_some());
        if let Some(rival) = rival {
            let lowest = pending.nonce().min(nonce_r);
            if lowest < rival.lowest.as_slice() {
                tracing::debug!(old, new, "our new CHILD_SA is redundant");
                self.tasks.push_back(Task::DeleteChildren(vec![new]));
                return;
            }
            // The peer deletes its own one; if it does not, we do in a while.
            if let Some(life) = self.renewal.life(rival.spi_in) {
                life.redundant = true;
                life.limits.succeeded(now);
            }
        }
        self.succeed_child(now, old, new);
        self.carry(new);
        match pending.purpose {
            Purpose::InsteadOf(_) => self.remove_child(now, old),
            Purpose::Further | Purpose::AfterMove | Purpose::Rekey(_) => {
                self.tasks.push_back(Task::DeleteChildren(vec![old]));
            }
        }
    }

    /// The peer refused what we asked for.
    pub(super) fn child_refused(
        &mut self,
        now: Instant,
        pending: &PendingChild,
        notify: NotifyType,
        rng: &mut dyn CryptoRng,
    ) {
        let old = match pending.purpose {
            Purpose::AfterMove if notify == NotifyType::TemporaryFailure => {
                self.renew_after_move_again(now);
                self.put_off(now, rng);
                return;
            }
            Purpose::Further | Purpose::AfterMove => {
                self.events.push_back(SaEvent::ChildRefused(notify));
                return;
            }
            Purpose::InsteadOf(old) => {
                self.events.push_back(SaEvent::ChildRefused(notify));
                self.remove_child(now, old);
                return;
            }
            Purpose::Rekey(old) => old,
        };
        if pending.rival.is_some() {
            // The peer had finished its own rekey before it saw ours: that one counts.
            return;
        }
        match notify {
            NotifyType::TemporaryFailure => {}
            NotifyType::ChildSaNotFound => {
                // The peer has lost it, and we have no use for half of one (section 2.25).
                self.queue_child(old, Purpose::InsteadOf(old), rng);
                return;
            }
            refused => self.events.push_back(SaEvent::RekeyRefused(refused)),
        }
        let (refused, chance) = (notify != NotifyType::TemporaryFailure, rng.next_u32());
        if let Some(life) = self.renewal.life(old) {
            life.limits.retry(now, refused, chance);
        }
        if !refused {
            self.put_off(now, rng);
        }
    }
}
