//! Multi-point SA, the endpoint's side (draft-yamaya-ipsecme-mpsa): one SA for a whole group, which the gateway hands out.
//!
//! - [`put`]: the notify that brings it, to its octets and back.
//! - [`group_sa`]: what of it is accepted, and its keys.
//! - [`rollover`]: from one SA of the group to the next without losing a packet.
//!
//! Every member knows the keys of every other: ESP then proves that a member sent a packet, not which, and the sequence
//! numbers of many senders cannot be held against one replay window (RFC 4303 section 3.4.3).

pub mod group_sa;
pub mod put;
pub mod rollover;
