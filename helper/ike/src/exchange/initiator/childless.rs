//! An IKE_SA that came up without a CHILD_SA (RFC 6023): CREATE_CHILD_SA follows, and only then the attempt has succeeded.

use rand_core::CryptoRng;

use super::outcome::{Established, HandshakeError};
use crate::error::PeerMisbehaved;
use crate::exchange::create_child_sa::PendingChild;
use crate::exchange::sa::{CloseReason, SaEvent};
use crate::exchange::{Path, Transmit};
use crate::time::Instant;

/// The CHILD_SA is asked for.
pub struct Completing {
    established: Box<Established>,
}

/// What came of it.
pub enum Completion {
    /// Not yet anything.
    Waiting(Completing),
    /// It is there.
    Done(Box<Established>),
    /// The gateway does not give one.
    Failed(HandshakeError),
}

impl Completing {
    /// Asks for the CHILD_SA.
    pub fn begin(mut established: Box<Established>, now: Instant, rng: &mut dyn CryptoRng) -> Self {
        let pending = PendingChild::new(&established.sa.policy, rng);
        established.sa.create_child(now, pending, rng);
        Self { established }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.established.sa.poll_transmit()
    }

    /// When the clock is to be looked at.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.established.sa.poll_timeout()
    }

    /// Acts on the clock.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        self.established.sa.handle_timeout(now, rng);
    }

    /// Takes a datagram.
    ///
    /// # Errors
    /// What was wrong with it.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        path: Path,
        datagram: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        self.established.sa.handle_datagram(now, path, datagram, rng)
    }

    /// Gives the IKE_SA up; the farewell is the last thing to send.
    pub fn close(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        self.established.sa.close(now, rng);
    }

    /// Looks at what happened.
    pub fn step(mut self, now: Instant, rng: &mut dyn CryptoRng) -> (Completion, Vec<Transmit>) {
        let (mut failed, mut kept) = (None, Vec::new());
        while let Some(event) = self.established.sa.poll_event() {
            match event {
                SaEvent::ChildRefused(notify) => {
                    let mode = self.established.sa.mode();
                    failed = Some(HandshakeError::refusal_of(mode, notify));
                }
                SaEvent::Redirected(to) => failed = Some(HandshakeError::Redirected(to)),
                SaEvent::Closed(CloseReason::PeerDead) => {
                    failed.get_or_insert(HandshakeError::NoAnswer { after_init: true });
                }
                SaEvent::Closed(_) => {
                    failed.get_or_insert(HandshakeError::Closed);
                }
                // For whoever owns the IKE_SA once it is complete.
                event @ (SaEvent::Group(_) | SaEvent::Kept(_)) => kept.push(event),
                // The CHILD_SA is found in the IKE_SA, and there is nothing to move yet.
                SaEvent::ChildUp { .. }
                | SaEvent::ChildCarries { .. }
                | SaEvent::ChildDown { .. }
                | SaEvent::RekeyRefused(_)
                | SaEvent::IkeRekeyRefused(_)
                | SaEvent::AuthLifetime(_)
                | SaEvent::Rekeyed(_)
                | SaEvent::Redundant(_)
                | SaEvent::KeepRefused(_)
                | SaEvent::SwitchAsked(_)
                | SaEvent::SwitchAnswered { .. }
                | SaEvent::PathChanged(_)
                | SaEvent::PathWorks(_)
                | SaEvent::PathFailed(_)
                | SaEvent::Probed { .. }
                | SaEvent::Reported(_)
                | SaEvent::InnerGranted(_)
                | SaEvent::SizeTested { .. }
                | SaEvent::MoveRefused(_)
                | SaEvent::PeerAddresses => {}
            }
        }
        self.established.sa.events.extend(kept);
        if let Some(error) = failed {
            if !self.established.sa.is_closed() {
                self.close(now, rng);
            }
            let farewell = std::iter::from_fn(|| self.poll_transmit()).collect();
            return (Completion::Failed(error), farewell);
        }
        let transmits = std::iter::from_fn(|| self.poll_transmit()).collect();
        let Some(child) = self.established.sa.children().first() else {
            return (Completion::Waiting(self), transmits);
        };
        let (ts_local, ts_remote) = (child.ts_local.clone(), child.ts_remote.clone());
        let policy = &mut self.established.sa.policy;
        (policy.ts_local, policy.ts_remote) = (ts_local, ts_remote);
        (Completion::Done(self.established), transmits)
    }
}
