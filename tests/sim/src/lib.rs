//! Client and gateway in memory: the real [`ropewalk_session::Session`] against the real [`ropewalk_gateway::Gateway`] over
//! a network that loses, doubles and reorders, in virtual time.
//!
//! Everything random comes from one seed, so the same seed gives the same bytes; [`World::digest`] is taken over all of
//! them. A test that fails says with which seed.
//!
//! - [`bundle`]: one client with several IKE_SAs and one gateway, for a test that decides which of them does what.
//! - [`dhcp_server`]: addresses for clients, when these come by DHCP.
//! - [`duel`]: one client and one gateway message by message, for a test that knows the keys.
//! - [`network`]: datagrams in flight, faults, a NAT.
//! - [`client`]: a session and what its owner would do.
//! - [`pings`]: data through the tunnel, and when nothing came through.
//! - [`world`]: both ends, the network and the clock.
//! - [`setup`]: matching configurations of both ends.

#![allow(clippy::panic, reason = "a simulation that cannot be set up is a failed test")]

pub mod bundle;
pub mod client;
pub mod dhcp_server;
pub mod duel;
mod inner;
pub mod network;
pub mod pings;
pub mod setup;
pub mod world;

pub use client::{SimClient, SimUplink};
pub use network::{Faults, Network};
pub use setup::{Auth, Setup};
pub use world::World;
