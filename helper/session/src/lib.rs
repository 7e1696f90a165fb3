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
//! - [`uplink`]: the networks of the machine, and the paths of a connection over them.
//! - [`backoff`]: how long to wait before the next try.
//! - [`path_size`]: what a path carries, by questions.
//! - [`explain`]: what went wrong, in words for a person.

pub mod backoff;
pub mod command;
pub mod config;
pub mod explain;
pub mod path_size;
pub mod session;
pub mod uplink;

pub use command::{Carriage, Command, CredentialReason, InnerSettings, Lane};
pub use config::{DhcpConfig, Endpoint, PathsConfig, SessionConfig};
pub use explain::{Cause, Explanation, Unreached};
pub use path_size::{Bounds, PathSize};
pub use ropewalk_paths::{Health, PathId, Policy, UseMetered};
pub use session::{GroupInfo, IkeInfo, LeaseInfo, Phase, Session, Snapshot};
pub use uplink::{Alone, PathSnapshot, Traffic, Uplink};
