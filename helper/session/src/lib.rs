//! One whole connection without I/O.
//!
//! A [`Session`] is what a user means by "connected to work": it collects what a login needs, finds the gateway, runs
//! the initial exchanges, keeps the IKE_SA alive, and when that is lost sets up another, until the user disconnects.
//! It drives [`ropewalk_ike`] and hands out [`Command`]s; whoever owns it moves datagrams, watches the clock, and makes
//! the commands true in the operating system.
//!
//! - [`config`]: what a profile comes down to.
//! - [`command`]: what the session wants done.
//! - [`session`]: the states and what moves between them.
//! - [`backoff`]: how long to wait before the next try.
//! - [`explain`]: what went wrong, in words for a person.

pub mod backoff;
pub mod command;
pub mod config;
pub mod explain;
pub mod session;

pub use command::{Command, CredentialReason, InnerSettings};
pub use config::{Endpoint, SessionConfig};
pub use explain::{Cause, Explanation, Unreached};
pub use session::{IkeInfo, Phase, Session, Snapshot};
