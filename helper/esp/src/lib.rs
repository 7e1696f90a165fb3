//! ESP (RFC 4303), one packet at a time: seal, open, replay window. No I/O, no clock, no allocation per packet.
//!
//! What stands on the wire inside the UDP datagram (RFC 3948) is
//!
//! ```text
//! SPI (4) | sequence number (4) | IV | inner packet | padding | pad length (1) | next header (1) | ICV
//!                                     '----------------- encrypted ----------------------------'
//! ```
//!
//! [`EspSuite`] names an algorithm set by the IANA numbers IKE negotiated. [`OutboundSa`] seals: it has keys but no
//! counter, so that one SA may be handed from path to path while its [`SequenceCounter`] stays with the SPI.
//! [`InboundSa`] opens in place and owns the replay window, hence `&mut self`: one thread, one owner.
//! [`classify`] tells ESP, IKE and keepalives apart on UDP 4500.
//!
//! Whether the payload is tunnel mode or the transport mode of IPIP is only the next-header value: both look the same
//! here.

mod cipher;
mod encap;
mod error;
mod inbound;
mod outbound;
mod replay;
mod suite;

pub use encap::{Encapsulated, KEEPALIVE, NON_ESP_MARKER, classify};
pub use error::{KeyError, OpenError, SealError, SuiteError};
pub use inbound::{InboundSa, Opened};
pub use outbound::{OutboundSa, SequenceCounter};
pub use replay::{REPLAY_WINDOW, ReplayWindow};
pub use suite::{AesKey, CbcIntegrity, EspSuite};

/// Next header of an IPv4 packet inside (tunnel mode, or IPIP in transport mode).
pub const NEXT_HEADER_IPV4: u8 = 4;
/// Next header of an IPv6 packet inside.
pub const NEXT_HEADER_IPV6: u8 = 41;
/// Next header of a dummy packet (RFC 4303 2.6): sent for traffic flow confidentiality, discarded on receipt.
pub const NEXT_HEADER_DUMMY: u8 = 59;

/// SPI and sequence number.
pub const ESP_HEADER_LEN: usize = 8;
