//! The state of one connection, exactly as `ropewalk status --json` prints it.

use ropewalk_profile::Policy;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{ErrorInfo, GroupStatus};

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, TS)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing is up and nothing is wanted.
    #[default]
    Disconnected,
    /// The first login is under way.
    Connecting,
    /// The tunnel carries traffic.
    Connected,
    /// The tunnel was up, is not, and is being brought back.
    Reconnecting,
    /// The tunnel is being taken down.
    Disconnecting,
    /// No tunnel, and the kill switch lets no traffic leave.
    Blocked,
    /// The attempt ended with an error and is not repeated.
    Failed,
}

impl State {
    /// The state as written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::Disconnecting => "disconnecting",
            Self::Blocked => "blocked",
            Self::Failed => "failed",
        }
    }

    /// True while there is a connection, or one is being made or unmade.
    #[must_use]
    pub fn is_active(self) -> bool {
        match self {
            Self::Connecting | Self::Connected | Self::Reconnecting | Self::Disconnecting | Self::Blocked => {
                true
            }
            Self::Disconnected | Self::Failed => false,
        }
    }
}

/// The state of one connection. Every key is always there; what is not known is `null`, empty or zero.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, TS)]
#[serde(default)]
pub struct Status {
    /// Where the connection stands.
    pub state: State,
    /// Name of the profile; `null` when there is none, or when it is another user's.
    pub profile: Option<String>,
    /// When `state` began, RFC 3339 in UTC.
    pub since: String,
    /// The gateway talked to.
    pub gateway: GatewayStatus,
    /// Inner addresses with prefix length.
    pub addresses: Vec<String>,
    /// DNS set up for this connection.
    pub dns: DnsStatus,
    /// Networks routed into the tunnel.
    pub routes: Vec<String>,
    /// Inner MTU in octets.
    pub mtu: Option<u32>,
    /// The lease of the inner address, when that comes by DHCP and is held.
    pub lease: Option<LeaseStatus>,
    /// The IKE_SAs, the carrying one first.
    pub ike: Vec<IkeSa>,
    /// The CHILD_SAs, the sending one first.
    pub children: Vec<ChildSa>,
    /// The paths: interface and gateway address.
    pub paths: Vec<PathStatus>,
    /// Why there is one path and no more, in words; `null` when there are several, or none.
    pub alone: Option<String>,
    /// The group of a connection with a multi-point SA; `null` when the profile wants none.
    pub group: Option<GroupStatus>,
    /// What was negotiated.
    pub features: Features,
    /// Why the connection failed, why it is being brought back, or what is wrong with it while it stands.
    pub error: Option<ErrorInfo>,
    /// Traffic of the whole connection, over all rekeys and reconnects.
    pub totals: Totals,
    /// What several paths are used for.
    pub policy: Policy,
    /// True when the connection is the asking user's own; others' details are not shown.
    pub owned: bool,
}

impl Status {
    /// What other users may see: that there is a tunnel, and nothing of it.
    #[must_use]
    pub fn redacted(&self) -> Self {
        Self { state: self.state, since: self.since.clone(), owned: false, ..Self::default() }
    }

    /// The same status with every counter and measurement at zero, to tell a change of state from a tick.
    #[must_use]
    pub fn without_counters(&self) -> Self {
        let mut copy = self.clone();
        copy.totals = Totals::default();
        for child in &mut copy.children {
            (child.bytes_in, child.bytes_out, child.packets_in, child.packets_out) = (0, 0, 0, 0);
        }
        for path in &mut copy.paths {
            (path.bytes_in, path.bytes_out, path.rtt_ms, path.loss) = (0, 0, None, 0.0);
        }
        if let Some(group) = &mut copy.group {
            group.totals = Totals::default();
            for endpoint in &mut group.endpoints {
                (endpoint.bytes_out, endpoint.packets_out) = (0, 0);
            }
        }
        copy
    }

    /// The counters of this status.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        Traffic {
            profile: self.profile.clone(),
            owned: self.owned,
            totals: self.totals,
            children: self.children.clone(),
            paths: self.paths.clone(),
        }
    }
}

/// The gateway as seen from here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, TS)]
#[serde(default)]
pub struct GatewayStatus {
    /// Its outer address, without the port.
    pub address: Option<String>,
    /// What it proved to be.
    pub identity: Option<String>,
}

/// DNS set up for a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, TS)]
#[serde(default)]
pub struct DnsStatus {
    /// Addresses of the servers.
    pub servers: Vec<String>,
    /// Domains of split DNS; empty: all names.
    pub domains: Vec<String>,
}

/// The lease of an inner address.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, TS)]
#[serde(default)]
pub struct LeaseStatus {
    /// The DHCP server that granted it.
    pub server: String,
    /// When it ends unless it is renewed before, RFC 3339 in UTC; `null`: never.
    pub until: Option<String>,
    /// Domains that names are completed with.
    pub search: Vec<String>,
    /// Time servers that the DHCP server names.
    pub ntp: Vec<String>,
    /// WINS servers that the DHCP server names.
    pub wins: Vec<String>,
    /// Routes that the DHCP server wanted and that are not followed, each with the reason.
    pub refused_routes: Vec<String>,
}

/// One IKE_SA.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, TS)]
#[serde(default)]
pub struct IkeSa {
    /// Initiator's SPI, 16 hexadecimal digits.
    pub spi_i: String,
    /// Responder's SPI, 16 hexadecimal digits.
    pub spi_r: String,
    /// Negotiated algorithms in strongSwan syntax, e.g. `aes256gcm16-prfsha384-x25519`.
    pub suite: String,
    /// When it was established, RFC 3339 in UTC.
    pub established: String,
    /// True when a NAT is on the way.
    pub nat: bool,
}

/// One pair of ESP SAs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, TS)]
#[serde(default)]
pub struct ChildSa {
    /// SPI of what comes in, 8 hexadecimal digits.
    pub spi_in: String,
    /// SPI of what goes out, 8 hexadecimal digits.
    pub spi_out: String,
    /// `tunnel` or `transport`.
    pub mode: String,
    /// Negotiated algorithms, e.g. `aes256gcm16`.
    pub suite: String,
    /// Inner octets received.
    #[ts(type = "number")]
    pub bytes_in: u64,
    /// Inner octets sent.
    #[ts(type = "number")]
    pub bytes_out: u64,
    /// Packets received.
    #[ts(type = "number")]
    pub packets_in: u64,
    /// Packets sent.
    #[ts(type = "number")]
    pub packets_out: u64,
}

/// What a path does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, TS)]
#[serde(rename_all = "kebab-case")]
pub enum PathState {
    /// Carries traffic.
    Active,
    /// Works and waits.
    Standby,
    /// Is being tried.
    #[default]
    Probing,
    /// Does not work.
    Failed,
}

impl PathState {
    /// The state as written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Probing => "probing",
            Self::Failed => "failed",
        }
    }
}

/// What an interface is, as far as people tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceKind {
    /// Wired.
    Ethernet,
    /// Wireless LAN.
    Wifi,
    /// A mobile modem.
    Mobile,
    /// Anything else that leads outside: a bridge, another VPN.
    #[default]
    Other,
}

/// One way to the gateway.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, TS)]
#[serde(default)]
pub struct PathStatus {
    /// Name of the interface.
    pub interface: String,
    /// What it is.
    pub kind: InterfaceKind,
    /// Its use is paid for by amount, as far as the system knows.
    pub metered: bool,
    /// Local outer address and port.
    pub local: String,
    /// The gateway's address and port.
    pub remote: String,
    /// What the path does.
    pub state: PathState,
    /// Smoothed round-trip time in milliseconds, when measured.
    pub rtt_ms: Option<f64>,
    /// Share of lost probes, 0 to 1.
    pub loss: f64,
    /// Octets received.
    #[ts(type = "number")]
    pub bytes_in: u64,
    /// Octets sent.
    #[ts(type = "number")]
    pub bytes_out: u64,
    /// Initiator's SPI of the IKE_SA on this path, 16 hexadecimal digits.
    pub spi_i: String,
}

/// What was negotiated.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, TS)]
#[serde(default)]
pub struct Features {
    /// MOBIKE (RFC 4555).
    pub mobike: bool,
    /// KEEP_OLD_IKE_SA.
    pub keep_old_ike_sa: bool,
    /// Multi-point SA.
    pub multi_point_sa: bool,
    /// IKE fragmentation (RFC 7383).
    pub fragmentation: bool,
    /// Post-quantum pre-shared key (RFC 8784).
    pub ppk: bool,
    /// Key exchange of the IKE_SA, e.g. `x25519`.
    pub key_exchange: Option<String>,
}

/// Traffic of a whole connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, TS)]
#[serde(default)]
pub struct Totals {
    /// Inner octets received.
    #[ts(type = "number")]
    pub bytes_in: u64,
    /// Inner octets sent.
    #[ts(type = "number")]
    pub bytes_out: u64,
    /// Packets received.
    #[ts(type = "number")]
    pub packets_in: u64,
    /// Packets sent.
    #[ts(type = "number")]
    pub packets_out: u64,
}

/// Counters of one connection; pushed to watchers about once a second while they change.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, TS)]
#[serde(default)]
pub struct Traffic {
    /// Name of the profile.
    pub profile: Option<String>,
    /// True when the connection is the asking user's own.
    pub owned: bool,
    /// Traffic of the whole connection.
    pub totals: Totals,
    /// The CHILD_SAs with their counters.
    pub children: Vec<ChildSa>,
    /// The paths with their counters and measurements.
    pub paths: Vec<PathStatus>,
}
