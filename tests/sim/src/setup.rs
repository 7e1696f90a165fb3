//! Matching configurations of both ends.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use ropewalk_dhcp::{ClientConfig, ClientIdentifier, HardwareAddress};
use ropewalk_gateway::{CookiePolicy, Psk, Settings, User};
use ropewalk_ike::auth::{ClientCertificate, TrustAnchors};
use ropewalk_ike::exchange::child::Mode;
use ropewalk_ike::exchange::config::{AddressRequest, GatewayIdentity, InitiatorConfig, LocalAuth};
use ropewalk_ike::exchange::lifetime::Lifetimes;
use ropewalk_ike::proposal::{IkeProposal, default_esp_proposals, default_ike_proposals};
use ropewalk_ike::time::UnixTime;
use ropewalk_ike::wire::keep_old_ike_sa::DEFAULT_NOTIFY_TYPE;
use ropewalk_ike::wire::{Identification, TrafficSelector, TrafficSelectors};
use ropewalk_session::{DhcpConfig, Endpoint, PathsConfig, SessionConfig};
use zeroize::Zeroizing;

use crate::network::below;

/// 15 January 2027: the certificates in `testdata` are valid then.
pub const WALL_CLOCK: UnixTime = UnixTime(1_800_000_000);
/// The gateway's outer address.
pub const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
/// Its IPv6 address.
pub const GATEWAY_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
/// The client's own IPv6 address.
pub const CLIENT_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x20));
/// The client's own address.
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 20));

macro_rules! testdata {
    ($name:literal) => {
        include_str!(concat!("../testdata/", $name))
    };
}

/// How the client proves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Pre-shared key, both.
    Psk,
    /// ECDSA certificates, both.
    Ecdsa,
    /// RSA certificates, both.
    Rsa,
    /// EAP-MSCHAPv2, the gateway with an ECDSA certificate.
    Eap,
}

/// Both configurations.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The client's.
    pub client: SessionConfig,
    /// The gateway's.
    pub gateway: Settings,
    /// Whether a NAT hides the client.
    pub nat: bool,
}

impl Setup {
    /// Configurations with which the client gets in.
    ///
    /// # Panics
    /// When the fixed test data cannot be read.
    #[must_use]
    pub fn new(auth: Auth) -> Self {
        let identity = Identification::fqdn("gateway.sim.test");
        let mut gateway = Settings::new(identity.clone());
        gateway.pools = nets(&["10.99.0.0/24", "fd99::/64"]);
        gateway.traffic = nets(&["10.50.0.0/16", "fd50::/48"]);
        gateway.dns = vec![IpAddr::from([10, 50, 0, 53])];
        gateway.domains = vec!["corp.test".to_owned()];
        gateway.dpd = Some(Duration::from_secs(30));
        match auth {
            Auth::Psk => gateway.psks.push(Psk {
                identity: Some(Identification::rfc822("client@sim.test")),
                secret: Zeroizing::new(b"a shared secret".to_vec()),
            }),
            Auth::Ecdsa | Auth::Rsa => {
                gateway.certificate = Some(gateway_certificate(auth));
                gateway.client_authorities = root();
            }
            Auth::Eap => {
                gateway.certificate = Some(gateway_certificate(Auth::Ecdsa));
                gateway.users.push(User::new("alice", "correct horse"));
            }
        }
        let everything = TrafficSelectors::new(vec![TrafficSelector::any_v4(), TrafficSelector::any_v6()]);
        let initiator = InitiatorConfig {
            ike_proposals: default_ike_proposals(),
            esp_proposals: default_esp_proposals(),
            local_id: Identification::rfc822("client@sim.test"),
            auth: local_auth(auth),
            gateway: GatewayIdentity {
                expected: identity,
                announce: true,
                trust_anchors: if auth == Auth::Psk { TrustAnchors::default() } else { root() },
            },
            request: AddressRequest { ipv4: Some(None), ipv6: Some(None) },
            mode: Mode::Tunnel,
            ts_i: everything.clone(),
            ts_r: everything,
            mobike: true,
            keep_old: Some(DEFAULT_NOTIFY_TYPE),
            keep_old_in_auth: false,
            multi_point_sa: None,
            initial_contact: true,
            redirected_from: None,
            own_addresses: None,
            dpd: Some(Duration::from_secs(20)),
            lifetimes: Lifetimes::default(),
            wall_clock: WALL_CLOCK,
        };
        let gateways = vec![Endpoint { host: "gateway.sim.test".to_owned(), port: 500 }];
        let client = SessionConfig {
            gateways,
            initiator,
            identity_from_address: false,
            reauth: None,
            dhcp: None,
            paths: PathsConfig::default(),
            can_ask: false,
            log_keys: false,
        };
        Self { client, gateway, nat: true }
    }

    /// The client gets its inner address by DHCP, through the gateway's relay.
    ///
    /// # Panics
    /// Never: the test's hardware address is one.
    #[must_use]
    pub fn with_dhcp(mut self) -> Self {
        let hardware = HardwareAddress::from_octets(&[2, 0, 0, 0, 0, 1]);
        let hardware = hardware.unwrap_or_else(|| panic!("a hardware address"));
        let identifier = ClientIdentifier::Hardware;
        let client = ClientConfig { hardware, identifier, host_name: None, remembered: None };
        self.client.dhcp = Some(DhcpConfig { client, remembered: None, allowed: Vec::new() });
        self.gateway.dhcp = Some(Ipv4Addr::new(10, 99, 0, 1));
        self
    }

    /// Configurations that depend on the seed: mostly a pre-shared key; suites, cookies, fragmentation and NAT vary.
    ///
    /// # Panics
    /// When the fixed test data cannot be read.
    #[must_use]
    pub fn of_seed(rng: &mut ChaCha20Rng) -> Self {
        let auth = match below(rng, 20) {
            0 => Auth::Ecdsa,
            1 => Auth::Rsa,
            2 | 3 => Auth::Eap,
            _ => Auth::Psk,
        };
        let mut setup = Self::new(auth);
        setup.nat = below(rng, 2) == 0;
        setup.gateway.fragmentation = below(rng, 4) != 0;
        setup.gateway.mobike = below(rng, 2) == 0;
        if below(rng, 4) == 0 {
            setup.gateway.cookies = CookiePolicy::Always;
        }
        let suites = [
            "aes256gcm16-prfsha384-x25519",
            "aes128gcm16-prfsha256-x25519",
            "chacha20poly1305-prfsha512-x25519",
            "aes256-sha256-x25519",
            "aes128-sha512-ecp256",
            "aes256gcm16-prfsha256-ecp256",
        ];
        let picked = usize::try_from(below(rng, 8)).unwrap_or(usize::MAX);
        if let Some(suite) = suites.get(picked) {
            setup.gateway.ike_proposals = vec![ike(suite)];
        }
        setup
    }
}

/// The proposal that this text stands for.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn ike(text: &str) -> IkeProposal {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The authority that both ends trust.
///
/// # Panics
/// When the fixed test data cannot be read.
#[must_use]
pub fn root() -> TrustAnchors {
    TrustAnchors::from_pem(testdata!("root.pem")).unwrap_or_else(|error| panic!("root.pem: {error}"))
}

/// An authority that nobody's certificate comes from.
///
/// # Panics
/// When the fixed test data cannot be read.
#[must_use]
pub fn other_root() -> TrustAnchors {
    TrustAnchors::from_pem(testdata!("other.pem")).unwrap_or_else(|error| panic!("other.pem: {error}"))
}

fn local_auth(auth: Auth) -> LocalAuth {
    match auth {
        Auth::Psk => LocalAuth::Psk(Zeroizing::new(b"a shared secret".to_vec())),
        Auth::Ecdsa => LocalAuth::Certificate(certificate(
            testdata!("client-ecdsa.pem"),
            testdata!("client-ecdsa-key.pem"),
        )),
        Auth::Rsa => {
            LocalAuth::Certificate(certificate(testdata!("client-rsa.pem"), testdata!("client-rsa-key.pem")))
        }
        Auth::Eap => LocalAuth::EapMschapv2 {
            identity: "alice".to_owned(),
            user: "alice".to_owned(),
            password: Zeroizing::new("correct horse".to_owned()),
        },
    }
}

fn gateway_certificate(auth: Auth) -> Arc<ClientCertificate> {
    if auth == Auth::Rsa {
        certificate(testdata!("gateway-rsa.pem"), testdata!("gateway-rsa-key.pem"))
    } else {
        certificate(testdata!("gateway-ecdsa.pem"), testdata!("gateway-ecdsa-key.pem"))
    }
}

fn certificate(chain: &str, key: &str) -> Arc<ClientCertificate> {
    let read = ClientCertificate::from_pem(chain, key);
    Arc::new(read.unwrap_or_else(|error| panic!("test data: {error}")))
}

fn nets(list: &[&str]) -> Vec<ipnet::IpNet> {
    list.iter().map(|net| net.parse().unwrap_or_else(|error| panic!("{net}: {error}"))).collect()
}
