//! The DHCPv4 client that gets the inner address over IPsec (RFC 2131, RFC 3456), without I/O.
//!
//! The client takes messages and time, and hands out messages, each with the SA that it belongs to ([`Carrier`]), and
//! [`Event`]s. Setting up the SAs, carrying UDP and configuring the interface is the caller's work; so is probing whether
//! an address is in use, which the client asks for before it holds an address.
//!
//! - [`Client`]: the state machine.
//! - [`Lease`]: what a server granted, and what of it is kept over a restart.
//! - [`hardware`]: which `chaddr` and client identifier this machine uses.
//! - [`policy`]: which of the server's routes are followed.
//! - [`packet`]: the IPv4 and UDP headers around a message.
//! - `message`: messages built and read, with `dhcproto` as codec.

mod client;
pub mod hardware;
mod lease;
mod message;
pub mod packet;
pub mod policy;

pub use client::{CLIENT_PORT, Carrier, Client, ClientConfig, Event, SERVER_PORT, Transmit, Why};
pub use hardware::{ClientIdentifier, HardwareAddress};
pub use lease::{Lease, Settings};
pub use message::DhcpError;
