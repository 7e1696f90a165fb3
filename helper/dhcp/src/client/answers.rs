//! What a server's answer does in each state.

use std::time::Duration;

use rand_core::CryptoRng;
use ropewalk_ike::time::Instant;

use super::{Client, Event, FIRST_WAIT, Held, LONGEST_WAIT, Retry, State, Why};
use crate::lease::Lease;
use crate::message::{Answer, DhcpError, Kind, Sender};

impl Client {
    /// Takes the payload of a UDP datagram that came to port 68 out of one of the SAs.
    ///
    /// # Errors
    /// Why it was dropped, for the log: nothing changed.
    pub fn handle_message(
        &mut self,
        now: Instant,
        octets: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), DhcpError> {
        let identifier = self.config.identifier.octets(&self.config.hardware);
        let sender = Sender { hardware: &self.config.hardware, identifier: &identifier, host_name: None };
        let answer = Answer::parse(octets, self.xid, sender)?;
        match answer.kind {
            Kind::Offer => self.offered(now, &answer, rng),
            Kind::Ack => self.granted(&answer),
            Kind::Nak => self.refused(now, &answer, rng),
        }
    }

    fn offered(&mut self, now: Instant, answer: &Answer, rng: &mut dyn CryptoRng) -> Result<(), DhcpError> {
        let State::Selecting(_) = self.state else {
            return Err(DhcpError::Unexpected(answer.kind.name()));
        };
        // Any server that the gateway lets through will do: the first is taken.
        let offer = answer.lease()?;
        self.state = State::Requesting { offer, retry: Retry { sent: 0, at: now }, asked: now };
        self.handle_timeout(now, rng);
        Ok(())
    }

    fn granted(&mut self, answer: &Answer) -> Result<(), DhcpError> {
        let unexpected = DhcpError::Unexpected(answer.kind.name());
        match &self.state {
            State::Informing { .. } => {
                self.events.push_back(Event::Informed(Box::new(answer.settings())));
                self.state = State::Informed;
                Ok(())
            }
            State::Requesting { offer, asked, .. } => {
                let lease = answer.lease()?;
                if lease.server != offer.server || lease.address != offer.address {
                    return Err(unexpected);
                }
                self.probe(Held { lease, since: *asked });
                Ok(())
            }
            State::Rebooting { lease: remembered, asked, .. } => {
                let lease = answer.lease()?;
                if lease.address != remembered.address {
                    return Err(unexpected);
                }
                self.probe(Held { lease, since: *asked });
                Ok(())
            }
            State::Renewing { held, asked, .. } | State::Rebinding { held, asked, .. } => {
                let lease = answer.lease()?;
                if lease.address != held.lease.address {
                    return Err(unexpected);
                }
                self.events.push_back(Event::Renewed(Box::new(lease.clone())));
                self.state = State::Bound(Held { lease, since: *asked });
                Ok(())
            }
            State::Stopped
            | State::Init { .. }
            | State::Selecting(_)
            | State::Probing(_)
            | State::Bound(_)
            | State::Informed => Err(unexpected),
        }
    }

    fn refused(&mut self, now: Instant, answer: &Answer, rng: &mut dyn CryptoRng) -> Result<(), DhcpError> {
        let lost = match &self.state {
            State::Requesting { .. } | State::Rebooting { .. } => None,
            State::Renewing { held, .. } | State::Rebinding { held, .. } => Some(held.lease.address),
            State::Stopped
            | State::Init { .. }
            | State::Selecting(_)
            | State::Probing(_)
            | State::Bound(_)
            | State::Informing { .. }
            | State::Informed => return Err(DhcpError::Unexpected(answer.kind.name())),
        };
        tracing::info!(said = answer.text(), "the DHCP server refuses the address");
        if let Some(address) = lost {
            self.events.push_back(Event::Lost { address, why: Why::Refused });
        }
        // At once the first time; a server that refuses everything is not asked in a loop.
        let wait = match self.setbacks {
            0 => Duration::ZERO,
            more => FIRST_WAIT.saturating_mul(1 << more.min(8)).min(LONGEST_WAIT),
        };
        self.setbacks += 1;
        self.state = State::Init { at: now + wait };
        self.handle_timeout(now, rng);
        Ok(())
    }

    fn probe(&mut self, held: Held) {
        let Lease { address, server, .. } = held.lease;
        tracing::debug!(%address, %server, "address granted, not yet probed");
        self.events.push_back(Event::Probe(address));
        self.state = State::Probing(held);
    }
}
