//! What a profile comes down to, for the session.

use std::time::Duration;

use ipnet::Ipv4Net;
use ropewalk_dhcp::{ClientConfig, Lease};
use ropewalk_ike::exchange::config::InitiatorConfig;
use ropewalk_ike::time::UnixTime;
use ropewalk_paths::{Policy, UseMetered};

/// Where a gateway is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name, or an address in text.
    pub host: String,
    /// The UDP port of IKE_SA_INIT.
    pub port: u16,
}

/// Several paths at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathsConfig {
    /// More than one path is wanted, where the gateway can.
    pub multipath: bool,
    /// What they are used for.
    pub policy: Policy,
    /// Names of the interfaces to use; empty: whichever leads outside.
    pub interfaces: Vec<String>,
    /// Whether metered links are used.
    pub use_metered: UseMetered,
    /// Each path is to have an inner address of its own.
    pub address_per_path: bool,
}

/// The inner address by DHCP (RFC 3456).
#[derive(Clone, Debug)]
pub struct DhcpConfig {
    /// Who we are to a DHCP server.
    pub client: ClientConfig,
    /// The lease that was held last, and when it ends: asked for first.
    pub remembered: Option<(Lease, UnixTime)>,
    /// The networks that the profile lets into the tunnel; none means all that the gateway grants.
    pub allowed: Vec<Ipv4Net>,
}

/// A session's configuration.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The gateway's names or addresses, tried in this order.
    pub gateways: Vec<Endpoint>,
    /// What the initial exchanges need. With EAP and an empty password the session asks for one first.
    pub initiator: InitiatorConfig,
    /// Say to be the address that the gateway is reached from, instead of `initiator.local_id`.
    pub identity_from_address: bool,
    /// After this the client logs in anew; `None`: only when the gateway asks.
    pub reauth: Option<Duration>,
    /// Get the inner address by DHCP. `initiator.ts_i` and `ts_r` are then those of the CHILD_SA that the leased address gets.
    pub dhcp: Option<DhcpConfig>,
    /// What is done with several networks.
    pub paths: PathsConfig,
    /// Somebody can be asked for a credential.
    pub can_ask: bool,
    /// Hand out keys for a key log.
    pub log_keys: bool,
}
