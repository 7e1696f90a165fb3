//! The path manager: which of several paths carries what, without I/O.
//!
//! A path is an IKE_SA with its CHILD_SA on one interface towards one gateway address. The manager is told of carrier, of
//! data that was sent and received, and of answers to its probes; it hands out probes to send and, when something changes,
//! an [`Assignment`]. What it never does: promote a path without evidence that it works, or leave one that shows no
//! distress.
//!
//! - [`Manager`]: all paths, the policy, the choice.
//! - [`Track`]: one path: its round trip time, its loss, whether it is alive.
//! - [`Shares`]: which flow takes which path when they share the load.

mod loss;
mod manager;
mod shares;
mod track;

pub use loss::Direction;
pub use manager::{Assignment, Manager, PathView, Policy, UseMetered};
pub use shares::Shares;
pub use track::{Health, Probe, RoundTrip, Track};

/// The caller's name for a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u32);
