//! IKEv2 without I/O (RFC 7296).
//!
//! The crate takes time, randomness and datagrams as arguments and hands out what to do: datagrams to send, timers to
//! set and events to act on. It never opens a socket, reads a clock or asks the operating system for anything, so that
//! a whole connection, both ends, runs in a test in microseconds and the same seed gives the same bytes.
//!
//! - [`wire`]: the messages and payloads, parse and emit side by side, one file a payload.
//! - [`crypto`]: suites, key derivation, the Encrypted payload, key agreement.
//! - [`auth`]: pre-shared keys, signatures, certificates and identities.
//! - [`eap`]: EAP and EAP-MSCHAPv2 inside IKE_AUTH.
//! - [`exchange`]: the exchanges, from both ends.
//! - [`multi_point`]: the SA that a group shares, as an endpoint has it; no exchange uses it yet.
//! - [`keylog`]: key log lines for Wireshark.
//! - [`proposal`]: what a profile allows, what is offered for it, what was agreed.
//! - [`error`]: what can be wrong with what a peer sends.
//! - [`time`]: the monotonic and the wall clock.

pub mod auth;
pub mod crypto;
pub mod eap;
pub mod error;
pub mod exchange;
pub mod keylog;
pub mod multi_point;
pub mod proposal;
pub mod time;
pub mod wire;
