//! What can be wrong with what a peer sends: one variant for each kind, so that each has a test that provokes it.
//!
//! [`WireError`] is about octets that are no IKEv2 message (RFC 7296 section 3); [`PeerMisbehaved`] is about well-formed
//! messages that break a rule of the protocol. Both know the notify that answers them where the standard has one.

use crate::crypto::CryptoError;
use crate::multi_point::put::PutError;
use crate::wire::header::ExchangeType;
use crate::wire::notify::NotifyType;
use crate::wire::sa::TransformType;

/// Octets that cannot be read as an IKEv2 message or payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The data ends inside a field.
    #[error("{what} ends too early")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// The header's length field and the datagram's length differ.
    #[error("the header says {stated} octets, the datagram has {actual}")]
    LengthMismatch {
        /// What the header says.
        stated: u32,
        /// What arrived.
        actual: usize,
    },
    /// The major version is not 2.
    #[error("IKE major version {major} is not spoken here")]
    UnsupportedMajorVersion {
        /// What the header says.
        major: u8,
    },
    /// The initiator's SPI is zero, which RFC 7296 section 3.1 forbids.
    #[error("the initiator's SPI is zero")]
    InitiatorSpiZero,
    /// A length field that cannot be right.
    #[error("{what} has an impossible length of {length}")]
    BadLength {
        /// Whose length.
        what: &'static str,
        /// The length found.
        length: usize,
    },
    /// A field with a value the standard does not allow.
    #[error("{what} is malformed")]
    Malformed {
        /// Which structure.
        what: &'static str,
    },
    /// More elements than any honest peer sends.
    #[error("more than {limit} of {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are accepted.
        limit: usize,
    },
    /// A payload of unknown type with the critical bit set (RFC 7296 section 2.5).
    #[error("unknown critical payload {payload_type}")]
    UnsupportedCriticalPayload {
        /// Its type.
        payload_type: u8,
    },
    /// Something follows the Encrypted payload, which must be the last one (RFC 7296 section 3.14).
    #[error("something follows the Encrypted payload")]
    AfterEncrypted,
    /// An Encrypted payload where none may be: inside another one.
    #[error("an Encrypted payload inside an Encrypted payload")]
    NestedEncrypted,
    /// Octets after the last payload.
    #[error("octets after the last payload")]
    TrailingOctets,
}

impl WireError {
    /// The error notify that answers it, and its data (RFC 7296 section 3.10.1).
    pub fn answer(&self) -> (NotifyType, Vec<u8>) {
        match self {
            WireError::UnsupportedMajorVersion { .. } => (NotifyType::InvalidMajorVersion, Vec::new()),
            WireError::UnsupportedCriticalPayload { payload_type } => {
                (NotifyType::UnsupportedCriticalPayload, vec![*payload_type])
            }
            WireError::Truncated { .. }
            | WireError::LengthMismatch { .. }
            | WireError::InitiatorSpiZero
            | WireError::BadLength { .. }
            | WireError::Malformed { .. }
            | WireError::TooMany { .. }
            | WireError::AfterEncrypted
            | WireError::NestedEncrypted
            | WireError::TrailingOctets => (NotifyType::InvalidSyntax, Vec::new()),
        }
    }
}

/// A rule of IKEv2 that the peer broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerMisbehaved {
    /// What it sent is no IKEv2 message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The answering SA payload does not hold exactly one proposal (RFC 7296 section 2.7).
    #[error("the peer's answer holds {count} proposals instead of one")]
    AnswerProposalCount {
        /// How many.
        count: usize,
    },
    /// The answering proposal has a number or protocol that was not offered.
    #[error("the peer chose proposal {number}, which was not offered")]
    AnswerProposalNotOffered {
        /// The number it gave.
        number: u8,
    },
    /// The answer has a transform that was not offered, or with another key length.
    #[error("the peer chose a transform that was not offered: {transform_type} {id}")]
    AnswerTransformNotOffered {
        /// Its type.
        transform_type: TransformType,
        /// Its number.
        id: u16,
    },
    /// The answer has two transforms of one type.
    #[error("the peer chose more than one transform of type {transform_type}")]
    AnswerTransformRepeated {
        /// The type.
        transform_type: TransformType,
    },
    /// The answer lacks a transform of a type that was offered.
    #[error("the peer chose no transform of type {transform_type}")]
    AnswerTransformMissing {
        /// The type.
        transform_type: TransformType,
    },
    /// The answering proposal has an SPI of a wrong size, or zero.
    #[error("the peer's proposal has an impossible SPI")]
    AnswerSpi,
    /// A message with SPIs of no IKE_SA here.
    #[error("the message belongs to another IKE_SA")]
    WrongSpi,
    /// A message whose initiator or response flag does not fit its sender.
    #[error("the message's flags are those of the other end")]
    WrongDirection,
    /// An exchange that is not allowed at this point.
    #[error("{exchange} is not allowed here")]
    WrongExchange {
        /// Which.
        exchange: ExchangeType,
    },
    /// A message in the clear where only an encrypted one may be.
    #[error("the message is not encrypted")]
    NotEncrypted,
    /// An encrypted message where none can be yet.
    #[error("an encrypted message came before there were keys")]
    EncryptedTooEarly,
    /// The Encrypted payload does not authenticate.
    #[error("the message is not authentic: {error}")]
    NotAuthentic {
        /// What failed.
        error: CryptoError,
    },
    /// A response that answers nothing we asked.
    #[error("a response with message id {message_id}, which nobody waits for")]
    UnexpectedResponse {
        /// Its Message ID.
        message_id: u32,
    },
    /// A request outside the window (RFC 7296 section 2.3).
    #[error("a request with message id {message_id}, which is outside the window")]
    OutsideWindow {
        /// Its Message ID.
        message_id: u32,
    },
    /// Our answer could not be sealed.
    #[error("the request cannot be answered")]
    CannotAnswer,
    /// A fragment's number is zero or beyond the total (RFC 7383 section 2.6).
    #[error("fragment {number} of {total}")]
    FragmentNumber {
        /// Its number.
        number: u16,
        /// The total.
        total: u16,
    },
    /// More fragments, or larger ones, than any honest message has.
    #[error("a message in {total} fragments is refused")]
    FragmentsTooMany {
        /// The total.
        total: u16,
    },
    /// INVALID_SYNTAX or AUTHENTICATION_FAILED inside the IKE_SA, which end it (RFC 7296 section 2.21.3).
    #[error("the peer ended the IKE_SA with {notify}")]
    FatalNotify {
        /// Which.
        notify: NotifyType,
    },
    /// A DELETE for a protocol that has no SAs here.
    #[error("a DELETE for protocol {protocol}")]
    DeleteProtocol {
        /// The protocol's number.
        protocol: u8,
    },
    /// The answer brought another COOKIE2 than was sent, or none (RFC 4555 section 3.7).
    #[error("the peer returned another COOKIE2 than it was sent")]
    CookieMismatch,
    /// A payload that the exchange needs is not there.
    #[error("the message lacks {what}")]
    MissingPayload {
        /// Which.
        what: &'static str,
    },
    /// The gateway asks for a cookie again and again (RFC 7296 section 2.6).
    #[error("the gateway asked for a cookie too often")]
    CookieLoop,
    /// The gateway asks for another group again and again (RFC 7296 section 1.2).
    #[error("the gateway asked for another group too often")]
    InvalidKeLoop,
    /// INVALID_KE_PAYLOAD names a group that was not offered.
    #[error("the peer wants group {group}, which was not offered")]
    GroupNotOffered {
        /// The group's number; zero when the notify holds none.
        group: u16,
    },
    /// The KE payload is of another group than the one negotiated.
    #[error("the key exchange is of group {found} where {expected} was negotiated")]
    WrongGroup {
        /// The group found.
        found: u16,
        /// The group negotiated.
        expected: u16,
    },
    /// A public value that no honest peer sends.
    #[error("the peer's key exchange value is refused: {error}")]
    KeyExchange {
        /// Why.
        error: CryptoError,
    },
    /// Traffic selectors that are empty or wider than what was proposed (RFC 7296 section 2.9).
    #[error("the peer's traffic selectors are not a subset of ours")]
    SelectorsNotNarrowed,
    /// Transport mode agreed to though not asked for, or the other way round.
    #[error("the peer answered with another mode")]
    WrongMode,
    /// A REDIRECT that does not show our nonce (RFC 5685 section 4).
    #[error("a REDIRECT that does not answer our request")]
    RedirectNonce,
    /// An EAP packet where none may be, or none where one must be.
    #[error("EAP at the wrong moment")]
    EapOutOfPlace,
    /// A group's SA that cannot be read (draft-yamaya-ipsecme-mpsa, section 3.2.2).
    #[error(transparent)]
    GroupSa(#[from] PutError),
    /// A REKEY_SA that names no CHILD_SA, or not ESP.
    #[error("REKEY_SA for protocol {protocol}")]
    RekeyProtocol {
        /// The protocol's number.
        protocol: u8,
    },
}
