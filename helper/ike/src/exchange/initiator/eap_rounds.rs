//! The EAP rounds inside IKE_AUTH (RFC 7296 section 2.16).

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::outcome::HandshakeError;
use crate::eap::{EapClient, EapError, EapStep};
use crate::error::PeerMisbehaved;
use crate::wire::{EapMessage, Payload};

/// More rounds than any method takes; MSCHAPv2 needs four with an identity and one retry.
const MAX_ROUNDS: u8 = 20;

/// An EAP conversation under way.
pub struct EapRounds {
    client: EapClient,
    rounds: u8,
}

/// What a round did.
pub enum RoundStep {
    /// Go on.
    Reply {
        /// The conversation.
        rounds: EapRounds,
        /// What to send.
        answer: EapMessage,
    },
    /// The method is done, and both sides hold its key.
    Success {
        /// The Master Session Key.
        msk: Zeroizing<[u8; 64]>,
    },
}

impl EapRounds {
    /// A conversation for this user.
    #[must_use]
    pub fn new(identity: &str, user: &str, password: &str) -> Self {
        Self { client: EapClient::new(identity, user, password), rounds: 0 }
    }

    /// Takes an answer of the gateway, which must hold exactly one EAP payload.
    ///
    /// # Errors
    /// The method failed, or the gateway broke its rules.
    pub fn handle(
        mut self,
        payloads: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> Result<RoundStep, HandshakeError> {
        let mut packets = payloads.iter().filter_map(|payload| match payload {
            Payload::Eap(packet) => Some(packet),
            _ => None,
        });
        let (Some(packet), None) = (packets.next(), packets.next()) else {
            return Err(PeerMisbehaved::EapOutOfPlace.into());
        };
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return Err(PeerMisbehaved::EapOutOfPlace.into());
        }
        match self.client.handle(&packet.data, rng) {
            Ok(EapStep::Reply(data)) => Ok(RoundStep::Reply { rounds: self, answer: EapMessage { data } }),
            Ok(EapStep::Success { msk }) => Ok(RoundStep::Success { msk }),
            Ok(EapStep::Failure(failure)) => Err(HandshakeError::EapRefused(failure)),
            Err(error) => Err(eap_error(error)),
        }
    }
}

fn eap_error(error: EapError) -> HandshakeError {
    HandshakeError::Eap(error)
}
