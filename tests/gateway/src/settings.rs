//! What the owner of a gateway decides: who it is, whom it lets in, and what they get.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use ropewalk_ike::auth::{ClientCertificate, TrustAnchors};
use ropewalk_ike::eap::mschapv2::nt_password_hash;
use ropewalk_ike::exchange::crash::TokenMaker;
use ropewalk_ike::exchange::lifetime::Lifetimes;
use ropewalk_ike::exchange::mobike::MovePolicy;
use ropewalk_ike::proposal::{EspProposal, IkeProposal, default_esp_proposals, default_ike_proposals};
use ropewalk_ike::wire::keep_old_ike_sa::DEFAULT_NOTIFY_TYPE;
use ropewalk_ike::wire::{GatewayName, Identification, TrafficSelector, TrafficSelectors};
use zeroize::Zeroizing;

use crate::group::GroupSettings;

/// A pre-shared key and whose it is.
#[derive(Clone)]
pub struct Psk {
    /// The client's identity; `None` for a key that any client may use.
    pub identity: Option<Identification>,
    /// The key.
    pub secret: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Psk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Psk").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Somebody who may log in with EAP-MSCHAPv2.
#[derive(Clone)]
pub struct User {
    /// The name, as the client sends it in MSCHAPv2.
    pub name: String,
    pub(crate) nt_hash: Zeroizing<[u8; 16]>,
}

impl User {
    /// A user with this password.
    #[must_use]
    pub fn new(name: impl Into<String>, password: &str) -> Self {
        Self { name: name.into(), nt_hash: nt_password_hash(password) }
    }
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

/// When an IKE_SA_INIT request must bring a cookie (RFC 7296 section 2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookiePolicy {
    /// Each one.
    Always,
    /// While at least so many IKE_SAs are half open.
    UnderLoad(usize),
}

/// When clients that can be sent elsewhere are (RFC 5685).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectAt {
    /// In the answer to IKE_SA_INIT.
    Init,
    /// In the answer to IKE_AUTH, once they have proved themselves.
    Auth,
    /// In the first answer to IKE_AUTH: those with EAP by the name that they give, before its rounds.
    Name,
}

/// What is thought of IKE_AUTH without a CHILD_SA (RFC 6023).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Childless {
    /// It is not known.
    Never,
    /// It is accepted.
    Allow,
    /// Nothing else is.
    Force,
}

/// A neighbour of ours over an interface of its own (RFC 3884).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The client's name: its identity, or with EAP the user's name.
    pub client: String,
    /// The client's ends of the link, with the link's prefix.
    pub addresses: Vec<IpNet>,
}

/// Everything that is configured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who the gateway says it is.
    pub identity: Identification,
    /// Its certificate and key; needed for clients that authenticate by certificate or EAP.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Pre-shared keys; the first one that fits a client's identity counts.
    pub psks: Vec<Psk>,
    /// EAP users.
    pub users: Vec<User>,
    /// The authorities of clients' certificates; with none no client may use one.
    pub client_authorities: TrustAnchors,
    /// Proposals for the IKE_SA, the preferred one first.
    pub ike_proposals: Vec<IkeProposal>,
    /// Proposals for CHILD_SAs, the preferred one first.
    pub esp_proposals: Vec<EspProposal>,
    /// Inner addresses for clients come from these; the first host of each is the gateway's own.
    pub pools: Vec<IpNet>,
    /// Clients get their inner addresses from a DHCP server, to which this address of ours relays (RFC 3456); none from the
    /// pools then.
    pub dhcp: Option<Ipv4Addr>,
    /// DNS servers to tell clients of.
    pub dns: Vec<IpAddr>,
    /// Names that those servers answer for; none means all (RFC 8598).
    pub domains: Vec<String>,
    /// Networks that clients may reach.
    pub traffic: Vec<IpNet>,
    /// When cookies are asked for.
    pub cookies: CookiePolicy,
    /// Speak IKE fragmentation (RFC 7383).
    pub fragmentation: bool,
    /// Announce MOBIKE (RFC 4555).
    pub mobike: bool,
    /// The number of the KEEP_OLD_IKE_SA notify, with which a client has several IKE_SAs; `None` does not speak it.
    pub keep_old: Option<u16>,
    /// Grant a further IKE_SA in IKE_AUTH already (appendix B.5 of the draft).
    pub keep_old_in_auth: bool,
    /// A further IKE_SA gets inner addresses of its own when it asks for them.
    pub address_per_path: bool,
    /// Our outer addresses, to tell clients that speak MOBIKE of.
    pub addresses: Vec<IpAddr>,
    /// A client that moved is sent to only once it has shown that it receives there.
    pub return_routability: bool,
    /// Outer addresses to which no client may move.
    pub refused_moves: Vec<IpNet>,
    /// Send new clients to another gateway.
    pub redirect: Option<(RedirectAt, GatewayName)>,
    /// IKE_AUTH without a CHILD_SA.
    pub childless: Childless,
    /// Makes tokens that show after a restart that an IKE_SA is gone (RFC 6290).
    pub crash_tokens: Option<TokenMaker>,
    /// Clients that know multi-point SA form a group with an SA like this (draft-yamaya-ipsecme-mpsa).
    pub group: Option<GroupSettings>,
    /// Clients that get transport mode for IP in IP when they ask for it (RFC 3884).
    pub links: Vec<Link>,
    /// Refuse every CREATE_CHILD_SA, as a minimal implementation may (RFC 7296 section 4).
    pub minimal: bool,
    /// Prove ourselves by certificate also to clients with a pre-shared key.
    pub certificate_to_all: bool,
    /// Claim to be behind a NAT, so that every client encapsulates ESP in UDP.
    pub force_encapsulation: bool,
    /// Silence after which a client's liveness is checked.
    pub dpd: Option<Duration>,
    /// When the gateway renews IKE_SAs and CHILD_SAs.
    pub lifetimes: Lifetimes,
    /// How long a login holds (RFC 4478); clients are told, and who does not log in anew is out. `None`: for ever.
    pub auth_lifetime: Option<Duration>,
    /// Half-open IKE_SAs at most; further requests are dropped.
    pub half_open_limit: usize,
    /// How long a client may take for its authentication.
    pub half_open_timeout: Duration,
    /// A client's new IKE_SA ends its older ones.
    pub unique: bool,
    /// Hand out keys for a key log.
    pub log_keys: bool,
}

impl Settings {
    /// A gateway of this identity that lets nobody in yet, with the usual algorithms and limits.
    #[must_use]
    pub fn new(identity: Identification) -> Self {
        Self {
            identity,
            certificate: None,
            psks: Vec::new(),
            users: Vec::new(),
            client_authorities: TrustAnchors::default(),
            ike_proposals: default_ike_proposals(),
            esp_proposals: default_esp_proposals(),
            pools: Vec::new(),
            dhcp: None,
            dns: Vec::new(),
            domains: Vec::new(),
            traffic: Vec::new(),
            cookies: CookiePolicy::UnderLoad(64),
            fragmentation: true,
            mobike: true,
            keep_old: Some(DEFAULT_NOTIFY_TYPE),
            keep_old_in_auth: false,
            address_per_path: true,
            addresses: Vec::new(),
            return_routability: true,
            refused_moves: Vec::new(),
            redirect: None,
            childless: Childless::Never,
            crash_tokens: None,
            group: None,
            links: Vec::new(),
            minimal: false,
            certificate_to_all: false,
            force_encapsulation: false,
            dpd: Some(Duration::from_secs(60)),
            lifetimes: Lifetimes::default(),
            auth_lifetime: None,
            half_open_limit: 1024,
            half_open_timeout: Duration::from_secs(30),
            unique: true,
            log_keys: false,
        }
    }

    pub(crate) fn move_policy(&self) -> MovePolicy {
        MovePolicy {
            return_routability: self.return_routability,
            refused: self.refused_moves.iter().map(|net| net.network()..=net.broadcast()).collect(),
            always_encapsulate: self.force_encapsulation,
        }
    }

    /// The key of the client with this identity.
    pub(crate) fn psk_of(&self, identity: &Identification) -> Option<&[u8]> {
        let fits = |psk: &&Psk| psk.identity.as_ref().is_none_or(|known| known == identity);
        self.psks.iter().find(fits).map(|psk| psk.secret.as_slice())
    }

    /// The link of the client of this name.
    pub(crate) fn link_of(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.client == name)
    }

    /// What clients may reach, as selectors.
    pub(crate) fn traffic_selectors(&self) -> TrafficSelectors {
        let of = |net: &IpNet| TrafficSelector::from_prefix(net.network(), net.prefix_len());
        TrafficSelectors::new(self.traffic.iter().map(of).collect())
    }
}
