//! EAP inside IKE_AUTH (RFC 3748, RFC 7296 section 2.16).
//!
//! [`EapClient`] is the peer's side: it answers Identity and Notification, declines every method but EAP-MSCHAPv2, and
//! gives the MSK only after the server has proved that it knows the password too. [`packet`] and [`mschapv2`] hold what
//! both ends need; a server's state machine is a gateway's matter.

mod client;
pub mod mschapv2;
pub mod packet;

pub use client::{EapClient, EapFailure, EapStep};
pub use packet::{EapCode, EapPacket};

use thiserror::Error;

/// What a server did wrong. After any of these the connection must end.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum EapError {
    /// A packet is cut short or its lengths do not fit.
    #[error("the gateway sent a malformed EAP packet")]
    Malformed,
    /// A packet that only a client sends, or of an unknown code.
    #[error("the gateway sent an EAP packet of code {0}, which only a client may send")]
    UnexpectedCode(u8),
    /// A request of a type that makes no sense as a request or at this point.
    #[error("the gateway sent an EAP request of type {0} out of turn")]
    UnexpectedType(u8),
    /// An EAP-MSCHAPv2 request that does not belong to this point of the method.
    #[error("the gateway sent an EAP-MSCHAPv2 message (op code {0}) out of turn")]
    UnexpectedMessage(u8),
    /// The server does not know the password: its authenticator response is wrong.
    #[error("the gateway could not prove that it knows the password")]
    ServerNotAuthenticated,
    /// EAP-Success before the method has finished.
    #[error("the gateway claimed success before the authentication was finished")]
    SuccessTooEarly,
    /// More requests than any sensible authentication needs.
    #[error("the gateway asks without end")]
    TooManyRequests,
    /// A packet after EAP-Success or EAP-Failure.
    #[error("the gateway went on with EAP after its end")]
    AfterEnd,
}
