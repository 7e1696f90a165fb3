//! The privileged service: start-up, the socket, who may do what, the store of profiles, and the connections.
//!
//! A click's way through here: [`server`] takes the frame, [`service`] decides what it means, [`authorise`]
//! asks whether the caller may, [`store`] has the profile, [`engine`] runs the connection and [`state`] tells
//! everyone who watches.

pub mod authorise;
pub mod clock;
pub mod connection;
pub mod engine;
pub mod log;
pub mod neighbours;
pub mod platform;
pub mod proposals;
pub mod report;
pub mod server;
pub mod service;
pub mod sleep;
pub mod state;
pub mod store;
