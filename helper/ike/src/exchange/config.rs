//! What the owner of a connection decides before the first message: identities, credentials, proposals, what to ask for.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::child::Mode;
use super::lifetime::Lifetimes;
use crate::auth::credential::ClientCertificate;
use crate::auth::pki::TrustAnchors;
use crate::multi_point::group_sa::GroupPolicy;
use crate::proposal::{EspProposal, IkeProposal};
use crate::time::UnixTime;
use crate::wire::{GatewayName, Identification, TrafficSelectors};

/// How we prove who we are.
#[derive(Clone)]
pub enum LocalAuth {
    /// With a pre-shared key, which proves the gateway as well unless [`GatewayIdentity::trust_anchors`] are given.
    Psk(Zeroizing<Vec<u8>>),
    /// With a certificate and its private key.
    Certificate(Arc<ClientCertificate>),
    /// With EAP-MSCHAPv2, once the gateway has proved itself by certificate.
    EapMschapv2 {
        /// What an EAP-Request/Identity is answered with.
        identity: String,
        /// The user's name in MSCHAPv2.
        user: String,
        /// The password.
        password: Zeroizing<String>,
    },
}

impl fmt::Debug for LocalAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Psk(_) => "Psk(..)",
            Self::Certificate(_) => "Certificate(..)",
            Self::EapMschapv2 { .. } => "EapMschapv2(..)",
        })
    }
}

/// What the gateway must prove.
#[derive(Clone, Debug)]
pub struct GatewayIdentity {
    /// Who it must be.
    pub expected: Identification,
    /// Whether the request names it (IDr), so that a gateway with several identities chooses this one.
    pub announce: bool,
    /// The authorities its chain must lead to. With a pre-shared key, none: the gateway proves itself by that key, too.
    pub trust_anchors: TrustAnchors,
}

/// What the Configuration payload asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressRequest {
    /// Ask for an IPv4 address; with the one held before, so that it may be given again.
    pub ipv4: Option<Option<Ipv4Addr>>,
    /// The same for IPv6.
    pub ipv6: Option<Option<Ipv6Addr>>,
}

/// Everything the initial exchanges need.
#[derive(Clone, Debug)]
pub struct InitiatorConfig {
    /// Proposals for the IKE_SA, the preferred one first.
    pub ike_proposals: Vec<IkeProposal>,
    /// Proposals for CHILD_SAs.
    pub esp_proposals: Vec<EspProposal>,
    /// Who we say we are.
    pub local_id: Identification,
    /// How we prove it.
    pub auth: LocalAuth,
    /// Whom we want to talk to.
    pub gateway: GatewayIdentity,
    /// The inner addresses to ask for.
    pub request: AddressRequest,
    /// The mode of CHILD_SAs. In transport mode they are for IP in IP between the outer addresses (RFC 3884), and the
    /// selectors below are not looked at.
    pub mode: Mode,
    /// Our side's traffic selectors to propose.
    pub ts_i: TrafficSelectors,
    /// The gateway's side.
    pub ts_r: TrafficSelectors,
    /// Offer MOBIKE.
    pub mobike: bool,
    /// The number of the KEEP_OLD_IKE_SA notify, with which further IKE_SAs are made; `None` does not speak it.
    pub keep_old: Option<u16>,
    /// Ask for a further IKE_SA in IKE_AUTH already (appendix B.5 of the draft). Only for a gateway that is known to understand it:
    /// another one may refuse the whole request.
    pub keep_old_in_auth: bool,
    /// Our addresses to tell a MOBIKE gateway of (RFC 4555 section 3.4); `None` tells nothing.
    pub own_addresses: Option<Vec<IpAddr>>,
    /// Announce multi-point SA, and what of a group's SA is taken (draft-yamaya-ipsecme-mpsa).
    pub multi_point_sa: Option<GroupPolicy>,
    /// There is no other IKE_SA between these two identities (INITIAL_CONTACT, RFC 7296 section 2.4).
    pub initial_contact: bool,
    /// The gateway that sent us to this one (RFC 5685).
    pub redirected_from: Option<GatewayName>,
    /// Silence after which the gateway's liveness is checked.
    pub dpd: Option<Duration>,
    /// When the IKE_SA and its CHILD_SAs are renewed.
    pub lifetimes: Lifetimes,
    /// The wall clock now, for certificates.
    pub wall_clock: UnixTime,
}

impl InitiatorConfig {
    /// The key that the gateway has to prove itself with, when it is not to do so by certificate.
    #[must_use]
    pub fn shared_secret(&self) -> Option<&[u8]> {
        match &self.auth {
            LocalAuth::Psk(secret) if self.gateway.trust_anchors.is_empty() => Some(secret.as_slice()),
            LocalAuth::Psk(_) | LocalAuth::Certificate(_) | LocalAuth::EapMschapv2 { .. } => None,
        }
    }
}
