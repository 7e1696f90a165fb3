//! IKEv2 messages and payloads (RFC 7296 section 3): parse and emit side by side, one file a payload.
//!
//! A datagram is parsed by [`Message::parse`]: the payloads in the clear are read, and where an Encrypted payload (SK or
//! SKF) stands, an [`EncryptedRef`] says which octets are its body and which are authenticated with it. Once decrypted,
//! the content goes through [`parse_payloads`]. The other way, [`emit_message`] writes a message in the clear, and
//! [`emit_payloads`] with [`encrypted::emit_prefix`] the parts of an encrypted one.
//!
//! Nothing here knows a state: what may stand in which message is decided by the exchanges. Every read is checked
//! and every repetition bounded, so any octets are either a message or a [`WireError`].

pub mod auth;
pub mod cert;
pub mod certreq;
pub mod cp;
pub mod delete;
pub mod eap;
pub mod encrypted;
pub mod fuzz;
pub mod header;
pub mod id;
pub mod id_text;
pub mod ke;
pub mod keep_old_ike_sa;
pub mod message;
pub mod nonce;
pub mod notify;
pub mod path_report;
pub mod payload;
pub(crate) mod reader;
pub mod redirect;
pub mod sa;
pub mod switch_notify;
pub mod ts;
pub mod vendor_id;

pub use crate::error::WireError;
pub use auth::{AuthMethod, Authentication};
pub use cert::{CertEncoding, Certificate};
pub use certreq::CertificateRequest;
pub use cp::{Attribute, ConfigType, Configuration};
pub use delete::Delete;
pub use eap::EapMessage;
pub use encrypted::{EncryptedKind, EncryptedRef};
pub use header::{ExchangeType, Flags, HEADER_LENGTH, Header};
pub use id::{IdType, Identification};
pub use id_text::IdTextError;
pub use ke::KeyExchange;
pub use keep_old_ike_sa::KeepOldIkeSa;
pub use message::{Message, ParsedMessage, emit_message};
pub use nonce::Nonce;
pub use notify::{Notify, NotifyType};
pub use path_report::PathReport;
pub use payload::{Payload, UnknownPayload, emit_payloads, find_notify, parse_payloads, payload_type};
pub use redirect::{GatewayName, Redirect};
pub use sa::{Proposal, Protocol, SecurityAssociation, Transform, TransformType, transform_id};
pub use switch_notify::SwitchNotice;
pub use ts::{TrafficSelector, TrafficSelectors};
pub use vendor_id::VendorId;

#[cfg(test)]
mod tests;
