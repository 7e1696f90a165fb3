//! INFORMATIONAL: deletion, liveness and news (RFC 7296 sections 1.4 and 2.4).

use rand_core::CryptoRng;

use super::Path;
use super::Role;
use super::lifetime::auth_lifetime;
use super::sa::{CloseReason, IkeSa, SaEvent, Task};
use crate::error::PeerMisbehaved;
use crate::time::Instant;
use crate::wire::{Delete, Notify, NotifyType, Payload, Protocol, Redirect, find_notify};

impl IkeSa {
    /// Answers the peer's INFORMATIONAL request: the answer, and what was wrong with the request.
    pub(super) fn answer_informational(
        &mut self,
        now: Instant,
        path: Path,
        payloads: &[Payload],
    ) -> (Vec<Payload>, Result<(), PeerMisbehaved>) {
        let mut deleted = Vec::new();
        let mut outcome = Ok(());
        for payload in payloads {
            if let Payload::Delete(delete) = payload {
                match delete.protocol {
                    Protocol::Ike => {
                        self.finish(CloseReason::DeletedByPeer);
                        return (Vec::new(), Ok(()));
                    }
                    Protocol::Esp => self.delete_for_peer(now, &delete.spis, &mut deleted),
                    Protocol::Ah | Protocol::Other(_) => {
                        outcome = Err(PeerMisbehaved::DeleteProtocol { protocol: delete.protocol.into() });
                    }
                }
            }
        }
        if outcome.is_ok() {
            outcome = self.fatal_notify(payloads);
        }
        self.take_token(payloads);
        if let Some(lifetime) = auth_lifetime(payloads) {
            self.events.push_back(SaEvent::AuthLifetime(lifetime));
        }
        if outcome.is_ok() && self.role == Role::Initiator {
            outcome = self.follow_redirect(payloads);
        }
        let mut answer = self.answer_mobike(now, path, payloads);
        answer.extend(self.answer_switch(payloads));
        answer.extend(self.answer_report(payloads));
        if outcome.is_ok() {
            outcome = self.receive_group_sa(payloads);
        }
        answer.extend(outcome.as_ref().err().and_then(Self::malformed_offer));
        if !deleted.is_empty() {
            answer.push(Payload::Delete(Delete::esp(deleted)));
        }
        (answer, outcome)
    }

    /// Tells the peer that it sends ESP for an SPI that is not known here (section 2.21.4).
    pub fn tell_invalid_spi(&mut self, now: Instant, spi: u32, rng: &mut dyn CryptoRng) {
        let notify = Notify::new(NotifyType::InvalidSpi, spi.to_be_bytes().to_vec());
        self.tasks.push_back(Task::Inform(vec![Payload::Notify(notify)]));
        self.start_next(now, rng);
    }

    /// A gateway that sends us elsewhere (RFC 5685 section 5).
    fn follow_redirect(&mut self, payloads: &[Payload]) -> Result<(), PeerMisbehaved> {
        if let Some(notify) = find_notify(payloads, NotifyType::Redirect) {
            let redirect = Redirect::parse(&notify.data)?;
            self.events.push_back(SaEvent::Redirected(redirect.to));
        }
        Ok(())
    }

    /// The peer names its own inbound SPIs, which are our outbound ones; the answer names ours, except for those that
    /// we are deleting ourselves at this moment (RFC 7296 section 1.4.1).
    fn delete_for_peer(&mut self, now: Instant, spis: &[u32], deleted: &mut Vec<u32>) {
        for spi_out in spis {
            let found = self.children.iter().find(|child| child.spi_out == *spi_out);
            let Some(spi_in) = found.map(|child| child.spi_in) else {
                self.delete_group_sa(*spi_out);
                continue;
            };
            if !self.is_deleting_child(spi_in) {
                deleted.push(spi_in);
            }
            self.remove_child(now, spi_in);
        }
    }

    /// The Delete payload for CHILD_SAs, by our inbound SPIs.
    pub(super) fn delete_payload(spis: &[u32]) -> Payload {
        Payload::Delete(Delete::esp(spis.to_vec()))
    }
}
