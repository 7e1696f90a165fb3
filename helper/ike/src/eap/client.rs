//! The client's EAP state machine with EAP-MSCHAPv2 as its one method.
//!
//! ```text
//! Idle --challenge--> Responded --success, authenticator right--> Verified --EAP-Success--> Ended, MSK
//!                         |                                                                   ^
//!                         +--failure--> Refused --EAP-Failure---------------------------------+
//! ```
//!
//! EAP-Success counts in `Verified` only, and only there is an MSK.

use std::fmt;

use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

use super::EapError;
use super::mschapv2::{self, Run};
use super::packet::{
    EapCode, EapPacket, Mschapv2Message, TYPE_IDENTITY, TYPE_MSCHAPV2, TYPE_NAK, TYPE_NOTIFICATION,
};
use crate::crypto::constant_time_eq;

/// What to do after a packet from the server.
#[derive(Debug)]
pub enum EapStep {
    /// Send this EAP packet.
    Reply(Vec<u8>),
    /// EAP-Success after a finished method.
    Success {
        /// The master session key: the shared secret of the AUTH payloads.
        msk: Zeroizing<[u8; 64]>,
    },
    /// EAP-Failure: the server refused.
    Failure(EapFailure),
}

/// Why the server refused, as far as it said.
#[derive(Clone, Debug, Default, Error, PartialEq, Eq)]
#[error("{}", self.sentence())]
pub struct EapFailure {
    /// The error code of MS-CHAPv2 (RFC 2759 section 6), when there was one.
    pub code: Option<u32>,
    /// The server's message for the user, when there was one; control characters are gone.
    pub message: Option<String>,
    /// The type of the method that the server wanted and this client does not speak, when that was how it went.
    pub wanted: Option<u8>,
}

impl EapFailure {
    const fn sentence(&self) -> &'static str {
        if self.wanted.is_some() {
            return "the gateway wants another way to log in";
        }
        match self.code {
            Some(646) => "this account may not log in at this time of day",
            Some(647) => "this account is disabled",
            Some(648) => "the password has expired",
            Some(649) => "this account may not use the VPN",
            _ => "the gateway refused the user name or password",
        }
    }
}

/// The peer's (client's) side of EAP with EAP-MSCHAPv2. `Debug` shows no secret.
pub struct EapClient {
    identity: Vec<u8>,
    user: Vec<u8>,
    nt_hash: Zeroizing<[u8; 16]>,
    state: State,
    requests: u32,
    /// The method that was declined last.
    declined: Option<u8>,
}

enum State {
    Idle,
    Responded { nt_response: [u8; 24], authenticator_response: [u8; 20] },
    Verified { msk: Zeroizing<[u8; 64]> },
    Refused(EapFailure),
    Ended,
}

/// Requests a server may send in one authentication. EAP-MSCHAPv2 needs three; the rest is room for Notifications and
/// for methods that are declined.
const MAX_REQUESTS: u32 = 20;

impl fmt::Debug for EapClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Idle => "Idle",
            State::Responded { .. } => "Responded",
            State::Verified { .. } => "Verified",
            State::Refused(_) => "Refused",
            State::Ended => "Ended",
        };
        f.debug_struct("EapClient").field("state", &state).finish_non_exhaustive()
    }
}

impl EapClient {
    /// `identity` answers EAP-Identity; `user` (with or without "DOMAIN\") and `password` answer the challenge.
    #[must_use]
    pub fn new(identity: &str, user: &str, password: &str) -> Self {
        Self {
            identity: identity.as_bytes().to_vec(),
            user: user.as_bytes().to_vec(),
            nt_hash: mschapv2::nt_password_hash(password),
            state: State::Idle,
            requests: 0,
            declined: None,
        }
    }

    /// Handles one EAP packet (the body of an EAP payload).
    ///
    /// # Errors
    /// When the server breaks the protocol or cannot prove that it knows the password: the connection must end. After
    /// an error every further packet is one too.
    pub fn handle(&mut self, packet: &[u8], rng: &mut dyn CryptoRng) -> Result<EapStep, EapError> {
        // Whatever goes wrong below leaves the machine ended.
        let state = std::mem::replace(&mut self.state, State::Ended);
        if matches!(state, State::Ended) {
            return Err(EapError::AfterEnd);
        }
        let packet = EapPacket::parse(packet)?;
        match packet.code {
            EapCode::Request => {
                self.requests += 1;
                if self.requests > MAX_REQUESTS {
                    return Err(EapError::TooManyRequests);
                }
                let (kind, data) = packet.method.ok_or(EapError::Malformed)?;
                self.request(state, packet.identifier, kind, data, rng)
            }
            EapCode::Response => Err(EapError::UnexpectedCode(2)),
            EapCode::Success => match state {
                State::Verified { msk } => Ok(EapStep::Success { msk }),
                State::Idle | State::Responded { .. } | State::Refused(_) | State::Ended => {
                    Err(EapError::SuccessTooEarly)
                }
            },
            EapCode::Failure => match state {
                State::Refused(failure) => Ok(EapStep::Failure(failure)),
                // No password was asked for: it ended with the method.
                State::Idle => {
                    Ok(EapStep::Failure(EapFailure { wanted: self.declined, ..EapFailure::default() }))
                }
                State::Responded { .. } | State::Verified { .. } | State::Ended => {
                    Ok(EapStep::Failure(EapFailure::default()))
                }
            },
        }
    }

    fn request(
        &mut self,
        state: State,
        identifier: u8,
        kind: u8,
        data: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<EapStep, EapError> {
        match (kind, state) {
            (TYPE_IDENTITY, State::Idle) => {
                self.state = State::Idle;
                Ok(EapStep::Reply(EapPacket::response(identifier, TYPE_IDENTITY, &self.identity).emit()))
            }
            (TYPE_NOTIFICATION, state) => {
                self.state = state;
                Ok(EapStep::Reply(EapPacket::response(identifier, TYPE_NOTIFICATION, &[]).emit()))
            }
            (TYPE_MSCHAPV2, state) => {
                let message = Mschapv2Message::parse(EapCode::Request, data)?;
                self.method(state, identifier, message, rng)
            }
            (TYPE_NAK, _) => Err(EapError::UnexpectedType(kind)),
            (_, State::Idle) => {
                self.state = State::Idle;
                self.declined = Some(kind);
                Ok(EapStep::Reply(EapPacket::response(identifier, TYPE_NAK, &[TYPE_MSCHAPV2]).emit()))
            }
            (_, State::Responded { .. } | State::Verified { .. } | State::Refused(_) | State::Ended) => {
                Err(EapError::UnexpectedType(kind))
            }
        }
    }

    fn method(
        &mut self,
        state: State,
        identifier: u8,
        message: Mschapv2Message,
        rng: &mut dyn CryptoRng,
    ) -> Result<EapStep, EapError> {
        match (message, state) {
            (Mschapv2Message::Challenge { id, challenge, name: _ }, State::Idle) => {
                let mut peer_challenge = [0; 16];
                rng.fill_bytes(&mut peer_challenge);
                let run = Run {
                    authenticator_challenge: &challenge,
                    peer_challenge: &peer_challenge,
                    user: &self.user,
                };
                let nt_response = run.nt_response(&self.nt_hash);
                let authenticator_response = run.authenticator_response(&self.nt_hash, &nt_response);
                self.state = State::Responded { nt_response, authenticator_response };
                let response =
                    Mschapv2Message::Response { id, peer_challenge, nt_response, name: self.user.clone() };
                Ok(EapStep::Reply(response.emit(identifier)))
            }
            (
                Mschapv2Message::SuccessRequest { id: _, message },
                State::Responded { nt_response, authenticator_response },
            ) => {
                let received = authenticator_of(&message).ok_or(EapError::ServerNotAuthenticated)?;
                if !constant_time_eq(&received, &authenticator_response) {
                    return Err(EapError::ServerNotAuthenticated);
                }
                self.state = State::Verified { msk: mschapv2::msk(&self.nt_hash, &nt_response) };
                Ok(EapStep::Reply(Mschapv2Message::SuccessResponse.emit(identifier)))
            }
            (Mschapv2Message::FailureRequest { id: _, message }, State::Responded { .. }) => {
                self.state = State::Refused(failure_of(&message));
                Ok(EapStep::Reply(Mschapv2Message::FailureResponse.emit(identifier)))
            }
            (Mschapv2Message::Challenge { .. }, _) => Err(EapError::UnexpectedMessage(1)),
            (Mschapv2Message::SuccessRequest { .. } | Mschapv2Message::SuccessResponse, _) => {
                Err(EapError::UnexpectedMessage(3))
            }
            (Mschapv2Message::FailureRequest { .. } | Mschapv2Message::FailureResponse, _) => {
                Err(EapError::UnexpectedMessage(4))
            }
            (Mschapv2Message::Response { .. }, _) => Err(EapError::UnexpectedMessage(2)),
        }
    }
}

/// The 20 octets of "S=<40 hex digits>" at the front of a success message.
fn authenticator_of(message: &[u8]) -> Option<[u8; 20]> {
    let digits = message.strip_prefix(b"S=")?.get(..40)?;
    let mut octets = [0; 20];
    for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *octet = hex_digit(*high)? << 4 | hex_digit(*low)?;
    }
    Some(octets)
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The code and the text of "E=691 R=0 C=... V=3 M=Authentication failed". The message is the rest after "M=".
fn failure_of(message: &[u8]) -> EapFailure {
    let text = String::from_utf8_lossy(message);
    let (fields, message) = match text.split_once("M=") {
        Some((fields, message)) => (fields, Some(message)),
        None => (text.as_ref(), None),
    };
    let code = fields.split_ascii_whitespace().find_map(|field| field.strip_prefix("E=")?.parse().ok());
    let message = message.map(|text| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>());
    EapFailure { code, message: message.filter(|text| !text.is_empty()), wanted: None }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
