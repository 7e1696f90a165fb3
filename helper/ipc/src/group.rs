//! The group of a connection with a multi-point SA, as `ropewalk status --json` shows it.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::Totals;

/// Where the group's SA stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, TS)]
#[serde(rename_all = "kebab-case")]
pub enum GroupState {
    /// The gateway has not handed one out yet.
    #[default]
    Waiting,
    /// It is sent and received with.
    InUse,
    /// The gateway handed one out that is not used; `reason` says why.
    Refused,
    /// The gateway knows nothing of groups.
    NotOffered,
}

impl GroupState {
    /// The state as written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::InUse => "in-use",
            Self::Refused => "refused",
            Self::NotOffered => "not-offered",
        }
    }
}

/// The group that a connection belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, TS)]
#[serde(default)]
pub struct GroupStatus {
    /// Where its SA stands.
    pub state: GroupState,
    /// What is wrong with the last SA that the gateway handed out, or why there is none.
    pub reason: Option<String>,
    /// SPI of the SA that is sent with, 8 hexadecimal digits.
    pub spi: Option<String>,
    /// Its algorithms, e.g. `aes256-sha256`.
    pub suite: Option<String>,
    /// Whether replayed packets are noticed. Never for a group: its members count for themselves (RFC 4303 section 3.4.3).
    pub replay_protection: bool,
    /// The other members that there are routes to.
    pub endpoints: Vec<EndpointStatus>,
    /// Learned routes that are not used, each with the reason; the first sixteen.
    pub ignored_routes: Vec<String>,
    /// Traffic between members that did not go through the gateway.
    pub totals: Totals,
}

/// How an endpoint of the group is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, TS)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointWay {
    /// Directly, and it answers.
    Direct,
    /// Directly; nothing has come from it yet.
    Untried,
    /// Through the gateway: it does not answer, or there is no SA.
    #[default]
    Gateway,
}

impl EndpointWay {
    /// The way as written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Untried => "untried",
            Self::Gateway => "gateway",
        }
    }
}

/// Another member of the group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, TS)]
#[serde(default)]
pub struct EndpointStatus {
    /// Its outer address.
    pub address: String,
    /// Networks behind it that the profile lists.
    pub networks: Vec<String>,
    /// Networks behind it that a routing daemon learned.
    pub learned: Vec<String>,
    /// How it is reached.
    pub way: EndpointWay,
    /// Inner octets sent to it directly.
    #[ts(type = "number")]
    pub bytes_out: u64,
    /// Packets sent to it directly.
    #[ts(type = "number")]
    pub packets_out: u64,
}
