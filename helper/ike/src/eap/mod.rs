//! EAP inside IKE_AUTH (RFC 3748, RFC 7296 section 2.16).
//!
//! [`EapClient`] is the peer's side with EAP-MSCHAPv2: it answers Identity, Notification and Nak, and gives the MSK
//! only after the server has proved that it knows the password too.

use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

/// What the state machine does after a packet from the server.
#[derive(Debug)]
pub enum EapStep {
    /// Send this EAP packet.
    Reply(Vec<u8>),
    /// EAP-Success after a finished method.
    Success {
        /// The master session key, 64 octets: the shared secret of the AUTH payloads.
        msk: Zeroizing<[u8; 64]>,
    },
    /// EAP-Failure: the server refused.
    Failure(EapFailure),
}

/// Why the server refused, as far as it said.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the gateway refused the user name or password")]
pub struct EapFailure {
    /// The error code of MSCHAPv2's failure packet (691 is a wrong user name or password), when there was one.
    pub code: Option<u32>,
    /// The server's message for the user, when there was one.
    pub message: Option<String>,
}

/// What a server did wrong.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EapError {
    /// Placeholder list, filled in below.
    #[error("malformed EAP packet")]
    Malformed,
}

/// The peer's (client's) side of EAP with EAP-MSCHAPv2.
pub struct EapClient {
    _private: (),
}

impl EapClient {
    /// `identity` answers EAP-Identity, `user` and `password` answer the challenge.
    #[must_use]
    pub fn new(_identity: &str, _user: &str, _password: &str) -> Self {
        todo!()
    }

    /// Handles one EAP packet (the body of an EAP payload).
    ///
    /// # Errors
    /// When the server breaks the protocol or cannot prove that it knows the password: the connection must end.
    pub fn handle(&mut self, _packet: &[u8], _rng: &mut dyn CryptoRng) -> Result<EapStep, EapError> {
        todo!()
    }
}
