//! How an attempt ends: with an IKE_SA or with a reason.

use std::net::IpAddr;
use std::time::Duration;

use crate::auth::PkiError;
use crate::auth::SignatureError;
use crate::crypto::{CryptoError, IkeKeys};
use crate::eap::{EapError, EapFailure};
use crate::error::PeerMisbehaved;
use crate::exchange::child::Mode;
use crate::exchange::sa::IkeSa;
use crate::wire::{Attribute, Configuration, GatewayName, NotifyType};

/// What the Configuration payload granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InnerConfig {
    /// Inner addresses; an IPv4 one is a host address, an IPv6 one has the prefix length that the gateway gave.
    pub addresses: Vec<(IpAddr, u8)>,
    /// DNS servers inside the tunnel.
    pub dns_servers: Vec<IpAddr>,
    /// Names that those servers answer for (RFC 8598); empty means all.
    pub dns_domains: Vec<String>,
    /// The prefix length that INTERNAL_IP4_NETMASK stands for: that of a link, where there is one.
    pub link_prefix: Option<u8>,
    /// Networks behind the gateway, as a hint for routes.
    pub subnets: Vec<(IpAddr, u8)>,
}

impl InnerConfig {
    /// Reads a CFG_REPLY; attributes without a value grant nothing.
    #[must_use]
    pub fn from_reply(reply: &Configuration) -> Self {
        let mut inner = Self::default();
        for attribute in &reply.attributes {
            match attribute {
                Attribute::InternalIp4Address(Some(address)) => inner.addresses.push(((*address).into(), 32)),
                Attribute::Ip6Address(Some((address, prefix))) => {
                    inner.addresses.push(((*address).into(), *prefix));
                }
                Attribute::Ip4Dns(Some(server)) => inner.dns_servers.push((*server).into()),
                Attribute::Ip6Dns(Some(server)) => inner.dns_servers.push((*server).into()),
                Attribute::Ip4Subnet(Some((network, mask))) => {
                    let prefix = u32::from(*mask).leading_ones();
                    inner.subnets.push(((*network).into(), u8::try_from(prefix).unwrap_or(32)));
                }
                Attribute::Ip4Netmask(mask) => {
                    let mask = mask.map(u32::from).filter(|mask| mask.leading_ones() == mask.count_ones());
                    inner.link_prefix = mask.and_then(|mask| u8::try_from(mask.count_ones()).ok());
                }
                Attribute::Ip6Subnet(Some((network, prefix))) => {
                    inner.subnets.push(((*network).into(), *prefix))
                }
                Attribute::InternalDnsDomain(domain) if !domain.is_empty() => {
                    inner.dns_domains.push(domain.clone());
                }
                Attribute::InternalIp4Address(None)
                | Attribute::Ip6Address(None)
                | Attribute::Ip4Dns(None)
                | Attribute::Ip6Dns(None)
                | Attribute::Ip4Subnet(None)
                | Attribute::Ip6Subnet(None)
                | Attribute::InternalDnsDomain(_)
                | Attribute::ApplicationVersion(_)
                | Attribute::Other { .. } => {}
            }
        }
        inner
    }
}

/// A successful attempt.
#[derive(Debug)]
pub struct Established {
    /// The IKE_SA with its first CHILD_SA.
    pub sa: IkeSa,
    /// What the gateway configured.
    pub inner: InnerConfig,
    /// The keys, for a key log that an administrator switched on.
    pub keys: IkeKeys,
    /// How long the gateway lets this authentication hold (RFC 4478).
    pub auth_lifetime: Option<Duration>,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The configuration holds no proposal, or one of a group that cannot be used.
    #[error("there is nothing to propose to the gateway")]
    NothingToPropose,
    /// Nobody answered in time.
    #[error("the gateway does not answer")]
    NoAnswer {
        /// The first exchange was answered, a later one was not.
        after_init: bool,
    },
    /// The gateway exists, but nobody answered a message that is too large for every path and could not be cut.
    #[error("the gateway does not answer to a message of {octets} octets")]
    LargeUnanswered {
        /// Its size.
        octets: usize,
    },
    /// The gateway accepts none of our proposals for the IKE_SA.
    #[error("the gateway accepts none of the proposals")]
    NoProposalChosen,
    /// The gateway refused the first exchange with another error.
    #[error("the gateway refused: {0}")]
    Refused(NotifyType),
    /// The gateway does not know NAT traversal, without which ESP in UDP is not allowed.
    #[error("the gateway does not support NAT traversal")]
    NoNatTraversal,
    /// The gateway did not accept who we are or how we prove it.
    #[error("the gateway refused our authentication")]
    AuthenticationFailed,
    /// The EAP method ended with a failure.
    #[error("the gateway refused the user: {0:?}")]
    EapRefused(EapFailure),
    /// The gateway's EAP messages make no sense, or it did not prove to know the password.
    #[error("EAP failed: {0}")]
    Eap(EapError),
    /// After EAP the gateway did not prove that it holds the method's key.
    #[error("the gateway does not hold the key of the EAP method")]
    EapProof,
    /// The pre-shared keys of both ends differ, so the gateway's proof does not verify.
    #[error("the gateway's proof does not verify with the pre-shared key")]
    PskMismatch,
    /// The gateway says to be somebody else than expected.
    #[error("the gateway is {found}, not {expected}")]
    WrongIdentity {
        /// Who was expected.
        expected: String,
        /// Who it says to be.
        found: String,
    },
    /// The gateway's certificate is not acceptable.
    #[error("the gateway's certificate is not acceptable: {0}")]
    Certificate(PkiError),
    /// The gateway's signature does not verify.
    #[error("the gateway's signature does not verify: {0}")]
    Signature(SignatureError),
    /// Our own signature cannot be made.
    #[error("we cannot sign: {0}")]
    OurSignature(SignatureError),
    /// The IKE_SA came up, its CHILD_SA did not; USE_TRANSPORT_MODE when that was asked for and tunnel mode given.
    #[error("the gateway refused the tunnel: {0}")]
    ChildRefused(NotifyType),
    /// The gateway has proved itself and sends us to another one (RFC 5685).
    #[error("the gateway sends its clients to {0}")]
    Redirected(GatewayName),
    /// The gateway ended the IKE_SA before it carried anything.
    #[error("the gateway ended the connection at once")]
    Closed,
    /// The gateway broke a rule in a message that it authenticated.
    #[error(transparent)]
    Misbehaved(#[from] PeerMisbehaved),
    /// Key derivation or encryption failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

impl HandshakeError {
    /// The refusal of a CHILD_SA in this mode. A gateway that does not agree to transport mode looks for the outer addresses
    /// among the inner ones, and does not find them.
    #[must_use]
    pub(super) fn refusal_of(mode: Mode, notify: NotifyType) -> Self {
        match (mode, notify) {
            (Mode::Transport, NotifyType::TsUnacceptable) => Self::ChildRefused(NotifyType::UseTransportMode),
            (Mode::Transport | Mode::Tunnel, notify) => Self::ChildRefused(notify),
        }
    }
}
