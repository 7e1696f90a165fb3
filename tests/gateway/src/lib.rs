//! The reference gateway: the responder's half of IKEv2, many clients, without I/O.
//!
//! What both roles share after authentication is `ropewalk-ike`'s; what only a gateway does is here, and never linked into
//! the helper. It exists for tests, for `make demo`, and for what no third-party gateway speaks.
//!
//! - [`responder`]: the responder's half of the initial exchanges.
//! - [`gateway`]: many clients, one clock; datagrams in, datagrams and events out.
//! - [`leases`]: inner addresses.
//! - `up`: a client with all its IKE_SAs; `carriage`: which of its paths it is sent to by.
//! - [`group`]: the SA of a group of clients (multi-point SA).
//! - [`dhcp_relay`]: DHCP between clients in tunnels and a server on the LAN; no client is offered it yet.
//! - [`settings`]: what its owner decides.
//! - [`stray`]: messages that belong to no client; [`limit`]: moderation for their answers.
//!
//! The binary `ropewalk-gateway` puts sockets, a TUN device and a TOML file around it.

mod carriage;
pub mod dhcp_relay;
pub mod gateway;
pub mod group;
mod inner;
pub mod leases;
pub mod limit;
pub mod responder;
pub mod settings;
pub mod stray;
mod up;

pub use carriage::{Carriage, Share};
pub use gateway::{ClientId, ClientInfo, Gateway, GatewayEvent, PathInfo};
pub use group::GroupSettings;
pub use settings::{Childless, CookiePolicy, Link, Psk, RedirectAt, Settings, User};
