//! The profile as the rest of the program sees it: every default filled in, no secret inside.
//!
//! Field names, defaults and units are the published profile format (`docs/profile-reference.md`); the text
//! of that reference is generated from the comments here.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use ts_rs::TS;

/// One VPN connection, checked, without its secrets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Profile {
    /// Name that the user sees and that commands take.
    pub name: String,
    /// Who to connect to.
    pub gateway: Gateway,
    /// How both sides prove who they are.
    pub auth: Auth,
    /// Which algorithms to offer.
    pub crypto: Crypto,
    /// Where the inner address comes from.
    pub address: Address,
    /// What goes through the tunnel.
    pub tunnel: Tunnel,
    /// Who resolves names.
    pub dns: Dns,
    /// Timers.
    pub timing: Timing,
    /// Several interfaces in one connection.
    pub paths: Paths,
    /// Direct SAs to other endpoints.
    pub multi_point_sa: MultiPointSa,
}

/// The gateway: where it is and what it must prove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gateway {
    /// Host names or addresses, tried in this order; never empty.
    pub addresses: Vec<String>,
    /// UDP port of the first message.
    pub port: u16,
    /// What its certificate (or its identity payload, with a pre-shared key) must prove; `None`: the address.
    pub identity: Option<String>,
    /// CA certificates, PEM; empty: the system's trust store. With a pre-shared key, empty: the gateway proves itself by that.
    pub ca: Vec<String>,
}

impl Gateway {
    /// The first address, for showing.
    #[must_use]
    pub fn address(&self) -> &str {
        self.addresses.first().map_or("", String::as_str)
    }

    /// The identity that the gateway must prove: the configured one, else its first address.
    #[must_use]
    pub fn expected_identity(&self) -> &str {
        self.identity.as_deref().unwrap_or_else(|| self.address())
    }
}

/// How the client proves who it is. Secrets are in [`crate::Secrets`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Auth {
    /// The method.
    pub method: Method,
    /// The client's IKE identity; `None`: the certificate's subject, else the user, else its address.
    pub identity: Option<String>,
    /// The EAP user name; `None`: asked for when connecting.
    pub user: Option<String>,
    /// The client's certificate, PEM, end entity first, then intermediates.
    pub certificate: Option<String>,
}

/// How the client logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A key that both sides know.
    Psk,
    /// A certificate and its private key.
    Certificate,
    /// User and password by MSCHAPv2 (RFC 2759) in EAP; the gateway proves itself by certificate.
    EapMschapv2,
    /// A certificate by TLS in EAP (RFC 5216).
    EapTls,
    /// User and password inside a TLS tunnel in EAP (RFC 5281).
    EapTtls,
    /// User and password inside PEAP.
    EapPeap,
    /// User and password by MD5 challenge; weak.
    EapMd5,
}

impl Method {
    /// The name as written in a profile.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Psk => "psk",
            Self::Certificate => "certificate",
            Self::EapMschapv2 => "eap-mschapv2",
            Self::EapTls => "eap-tls",
            Self::EapTtls => "eap-ttls",
            Self::EapPeap => "eap-peap",
            Self::EapMd5 => "eap-md5",
        }
    }

    /// True when the method takes a user name and a password.
    #[must_use]
    pub fn uses_password(self) -> bool {
        match self {
            Self::EapMschapv2 | Self::EapTtls | Self::EapPeap | Self::EapMd5 => true,
            Self::Psk | Self::Certificate | Self::EapTls => false,
        }
    }

    /// True when the method takes a certificate with its private key.
    #[must_use]
    pub fn uses_certificate(self) -> bool {
        match self {
            Self::Certificate | Self::EapTls => true,
            Self::Psk | Self::EapMschapv2 | Self::EapTtls | Self::EapPeap | Self::EapMd5 => false,
        }
    }
}

/// Which algorithms to offer, in the order of preference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Crypto {
    /// Proposals for the IKE_SA in strongSwan syntax, e.g. `aes256gcm16-prfsha384-x25519`.
    pub ike: Vec<String>,
    /// Proposals for the CHILD_SAs in strongSwan syntax, e.g. `aes256gcm16`; a group asks for perfect forward
    /// secrecy at rekeying.
    pub esp: Vec<String>,
}

impl Default for Crypto {
    fn default() -> Self {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Self {
            ike: owned(&[
                "aes256gcm16-prfsha384-x25519",
                "aes256gcm16-aes128gcm16-chacha20poly1305-prfsha512-prfsha384-prfsha256-x25519-ecp384-ecp256-modp4096-modp3072-modp2048",
                "aes256-aes128-sha512-sha384-sha256-prfsha512-prfsha384-prfsha256-x25519-ecp384-ecp256-modp4096-modp3072-modp2048",
            ]),
            esp: owned(&[
                "aes256gcm16",
                "aes256gcm16-aes128gcm16-chacha20poly1305",
                "aes256-aes128-sha512-sha384-sha256",
            ]),
        }
    }
}

/// Where the inner address comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Address {
    /// `config-payload`: the gateway assigns it; `dhcp`: by DHCP through the tunnel (RFC 3456); `static`: as
    /// written in `static`.
    pub source: AddressSource,
    /// Inner addresses with prefix length, e.g. `["10.20.0.5/24"]`; only with `source = "static"`.
    #[serde(rename = "static")]
    #[schemars(with = "Vec<String>")]
    pub fixed: Vec<IpNet>,
}

/// Where the inner address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "kebab-case")]
pub enum AddressSource {
    /// The gateway assigns it in IKE_AUTH (RFC 7296 section 2.19).
    #[default]
    ConfigPayload,
    /// DHCP through the tunnel (RFC 3456).
    Dhcp,
    /// Written in the profile.
    Static,
}

/// What goes through the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tunnel {
    /// `tunnel`: ESP tunnel mode; `iiptran`: IP-in-IP in ESP transport mode (RFC 3884), an interface for routing
    /// protocols.
    pub mode: TunnelMode,
    /// Name of the tunnel device, at most 15 characters; empty: `ropewalk` and a number.
    pub interface: String,
    /// Networks that go through the tunnel; empty: what the gateway grants (its traffic selectors), with `iiptran` none
    /// but the link itself.
    #[schemars(with = "Vec<String>")]
    pub routes: Vec<IpNet>,
    /// Networks that do not go through the tunnel.
    #[schemars(with = "Vec<String>")]
    pub exclude: Vec<IpNet>,
    /// Blocks everything outside the tunnel, also while it is down.
    pub kill_switch: bool,
    /// Inner MTU in octets, 1280 to 9000; 0: found out by itself.
    pub mtu: u16,
}

/// How inner packets are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "kebab-case")]
pub enum TunnelMode {
    /// ESP tunnel mode (RFC 4303).
    #[default]
    Tunnel,
    /// IP-in-IP in ESP transport mode (RFC 3884).
    #[serde(rename = "iiptran")]
    IipTran,
}

/// Who resolves names while connected.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Addresses of DNS servers; empty: those that the gateway names.
    #[schemars(with = "Vec<String>")]
    pub servers: Vec<IpAddr>,
    /// Only names in these domains are asked there (split DNS); empty: all names.
    pub domains: Vec<String>,
}

/// Timers, in seconds; 0 turns one off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timing {
    /// Seconds of silence before a liveness check; 0: never.
    pub dpd: u32,
    /// Seconds between NAT keepalives when nothing else is sent; 0: never.
    pub nat_keepalive: u32,
    /// Seconds after which the IKE_SA is rekeyed; 0: never.
    pub ike_rekey: u32,
    /// Seconds after which a CHILD_SA is rekeyed; 0: never.
    pub child_rekey: u32,
    /// Octets after which a CHILD_SA is rekeyed; 0: no limit but the cipher's.
    pub child_rekey_bytes: u64,
    /// Seconds after which the client logs in anew; 0: only when the gateway asks (RFC 4478).
    pub reauth: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            dpd: 30,
            nat_keepalive: 20,
            ike_rekey: 14400,
            child_rekey: 3600,
            child_rekey_bytes: 0,
            reauth: 0,
        }
    }
}

/// Several interfaces in one connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// Uses KEEP_OLD_IKE_SA for several paths when the gateway knows it.
    pub multipath: bool,
    /// `failover`: one path carries, the others stand by; `balance`: flows are spread; `redundant`: small
    /// packets go on two.
    pub policy: Policy,
    /// Names of the interfaces to use; empty: every interface with a default route.
    pub interfaces: Vec<String>,
    /// Notify message type of KEEP_OLD_IKE_SA (a private-use number, 40960 to 65535).
    pub keep_old_ike_sa_notify: u16,
    /// Announces KEEP_OLD_IKE_SA in IKE_AUTH (the shortened form of the draft's appendix B.5).
    pub in_ike_auth: bool,
    /// Asks for an inner address of its own for each path; a flow then goes by the path whose address it has. With
    /// `policy = "failover"` and addresses from the gateway only.
    pub address_per_path: bool,
    /// `standby`: metered interfaces carry only when nothing else does; `yes`: like any other; `no`: never.
    pub use_metered: UseMetered,
    /// MOBIKE (RFC 4555): the connection survives a change of address.
    pub mobike: bool,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            multipath: true,
            policy: Policy::Failover,
            interfaces: Vec::new(),
            keep_old_ike_sa_notify: 50213,
            in_ike_auth: false,
            address_per_path: false,
            use_metered: UseMetered::Standby,
            mobike: true,
        }
    }
}

/// What several paths are used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// One path carries, the others stand by.
    #[default]
    Failover,
    /// Flows are spread over the paths.
    Balance,
    /// Small packets go on two paths.
    Redundant,
}

impl Policy {
    /// The name as written in a profile and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failover => "failover",
            Self::Balance => "balance",
            Self::Redundant => "redundant",
        }
    }
}

/// Whether metered interfaces are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UseMetered {
    /// Only when nothing else carries.
    #[default]
    Standby,
    /// Like any other.
    Yes,
    /// Never.
    No,
}

/// Direct SAs to other endpoints (multi-point SA).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MultiPointSa {
    /// Asks the gateway for a multi-point SA.
    pub enabled: bool,
    /// Accepts the draft's HMAC-SHA1.
    pub allow_sha1: bool,
    /// Which network is behind which endpoint.
    pub routes: Vec<MultiPointRoute>,
    /// Networks within which routes to endpoints may be learned, by a routing daemon that puts them on the tunnel's device
    /// with the endpoint's address as next hop; none by default. `routes` win over what is learned.
    #[schemars(with = "Vec<String>")]
    pub learn_routes: Vec<IpNet>,
}

/// A network behind another endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MultiPointRoute {
    /// The network, e.g. `10.30.2.0/24`.
    #[schemars(with = "String")]
    pub prefix: IpNet,
    /// The endpoint's address.
    #[schemars(with = "String")]
    pub endpoint: IpAddr,
}
