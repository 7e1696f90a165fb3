//! The gateway's TOML file.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use ipnet::IpNet;
use ropewalk_gateway::leases::gateway_address;
use ropewalk_gateway::{Childless, CookiePolicy, Link, Psk, RedirectAt, Settings, User};
use ropewalk_ike::auth::{ClientCertificate, TrustAnchors};
use ropewalk_ike::exchange::crash::TokenMaker;
use ropewalk_ike::exchange::lifetime::Lifetimes;
use ropewalk_ike::proposal::{parse_esp_list, parse_ike_list};
use ropewalk_ike::wire::keep_old_ike_sa::DEFAULT_NOTIFY_TYPE;
use ropewalk_ike::wire::{GatewayName, Identification};
use ropewalk_net::far_end;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::group::MultiPointSa;

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    identity: String,
    certificate: Option<Pem>,
    private_key: Option<Pem>,
    #[serde(default)]
    ca: Vec<Pem>,
    #[serde(default)]
    certificates: Certificates,
    #[serde(default)]
    psk: Vec<PskEntry>,
    #[serde(default)]
    user: Vec<UserEntry>,
    #[serde(default)]
    ike: Vec<String>,
    #[serde(default)]
    esp: Vec<String>,
    /// Inner addresses for clients.
    pub pools: Vec<IpNet>,
    #[serde(default)]
    dns: Vec<IpAddr>,
    #[serde(default)]
    domains: Vec<String>,
    traffic: Vec<IpNet>,
    /// Where to listen.
    #[serde(default)]
    pub listen: Listen,
    /// The TUN device.
    #[serde(default)]
    pub tunnel: Tunnel,
    #[serde(default)]
    mobike: Mobike,
    multi_point_sa: Option<MultiPointSa>,
    /// Neighbours of ours, each with an interface of its own (RFC 3884).
    #[serde(default)]
    pub link: Vec<LinkEntry>,
    /// Clients get their inner addresses by DHCP (RFC 3456).
    pub dhcp: Option<Dhcp>,
    #[serde(default)]
    options: Options,
    /// Folder of the key log.
    pub key_log: Option<PathBuf>,
}

/// PEM text, or the path of a file with it.
#[derive(Deserialize)]
#[serde(transparent)]
struct Pem(String);

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Certificates {
    allow: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PskEntry {
    identity: Option<String>,
    secret: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserEntry {
    name: String,
    password: String,
}

/// An interface that leads to one client, for a routing daemon to use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkEntry {
    /// The client's name: its identity, or the user's name with EAP.
    pub client: String,
    /// The interface's name.
    pub device: String,
    /// Our ends of the link; the client has the other address of each prefix.
    pub addresses: Vec<IpNet>,
}

impl LinkEntry {
    fn link(&self) -> anyhow::Result<Link> {
        let far = self.addresses.iter().map(|near| {
            let end = far_end(near).and_then(|far| IpNet::new(far, near.prefix_len()).ok());
            end.with_context(|| {
                format!("link.addresses: {near} has no one other end; use /31 or /30, /127 or /126")
            })
        });
        Ok(Link { client: self.client.clone(), addresses: far.collect::<anyhow::Result<_>>()? })
    }
}

/// Where to listen.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// The port of plain IKE.
    pub port: u16,
    /// The port of IKE and ESP with NAT traversal.
    pub nat_t_port: u16,
}

impl Default for Listen {
    fn default() -> Self {
        Self { addresses: vec![[0; 4].into(), [0; 16].into()], port: 500, nat_t_port: 4500 }
    }
}

/// The TUN device.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tunnel {
    /// Its name.
    pub device: String,
    /// The largest inner packet.
    pub mtu: u16,
    /// Use segmentation offloads.
    pub offloads: bool,
    /// Switch on the system's forwarding.
    pub forward: bool,
}

impl Default for Tunnel {
    fn default() -> Self {
        Self { device: "rwgw%d".to_owned(), mtu: 1400, offloads: true, forward: true }
    }
}

/// What clients that move are told and allowed.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Mobike {
    addresses: Vec<IpAddr>,
    return_routability: bool,
    refused: Vec<IpNet>,
}

impl Default for Mobike {
    fn default() -> Self {
        Self { addresses: Vec::new(), return_routability: true, refused: Vec::new() }
    }
}

/// The DHCP relay.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dhcp {
    /// The servers on the LAN: each is sent everything.
    pub servers: Vec<Ipv4Addr>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    cookie: Cookie,
    fragmentation: bool,
    mobike: bool,
    /// Several IKE_SAs for one client (KEEP_OLD_IKE_SA).
    keep_old: bool,
    /// The number of its notify.
    keep_old_notify: u16,
    /// It may be asked for in IKE_AUTH (appendix B.5 of the draft).
    keep_old_in_ike_auth: bool,
    force_encapsulation: bool,
    unique: bool,
    dpd: u64,
    ike_rekey: u64,
    child_rekey: u64,
    child_rekey_bytes: u64,
    auth_lifetime: u64,
    childless: Allowance,
    /// Makes crash tokens (RFC 6290) that hold over restarts.
    crash_secret: Option<String>,
    redirect: Option<Redirection>,
}

/// What is thought of IKE_AUTH without a CHILD_SA.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Allowance {
    Never,
    Allow,
    Force,
}

/// Where new clients are sent, and when.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Redirection {
    at: Moment,
    to: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Moment {
    Init,
    Auth,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cookie: Cookie::Load,
            fragmentation: true,
            mobike: true,
            keep_old: true,
            keep_old_notify: DEFAULT_NOTIFY_TYPE,
            keep_old_in_ike_auth: false,
            force_encapsulation: false,
            unique: true,
            dpd: 60,
            ike_rekey: 0,
            child_rekey: 0,
            child_rekey_bytes: 0,
            auth_lifetime: 0,
            childless: Allowance::Never,
            crash_secret: None,
            redirect: None,
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Cookie {
    Load,
    Always,
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or is not what it should be.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Does not speak KEEP_OLD_IKE_SA, whatever the file says.
    pub fn without_keep_old(&mut self) {
        self.options.keep_old = false;
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        ensure!(!config.pools.is_empty(), "pools: there are no addresses for clients");
        ensure!(!config.traffic.is_empty(), "traffic: there is nothing that clients may reach");
        ensure!(!config.listen.addresses.is_empty(), "listen.addresses: there is nowhere to listen");
        let number = config.options.keep_old_notify;
        ensure!(number > 40960, "options.keep_old_notify: not a private-use number of a status notify");
        Ok(config)
    }

    /// What the gateway needs of it.
    ///
    /// # Errors
    /// Something in it cannot be used.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let identity: Identification = self.identity.parse().context("identity")?;
        let mut settings = Settings::new(identity);
        settings.certificate = match (&self.certificate, &self.private_key) {
            (Some(certificate), Some(key)) => {
                let (certificate, key) = (certificate.text("certificate")?, key.text("private_key")?);
                let read = ClientCertificate::from_pem(&certificate, &key);
                Some(Arc::new(read.context("certificate and private_key")?))
            }
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => anyhow::bail!("certificate and private_key go together"),
        };
        if self.certificates.allow {
            ensure!(!self.ca.is_empty(), "certificates.allow needs ca");
            for ca in &self.ca {
                settings.client_authorities.extend(TrustAnchors::from_pem(&ca.text("ca")?).context("ca")?);
            }
        }
        for entry in &self.psk {
            let identity = entry.identity.as_deref().map(str::parse).transpose().context("psk.identity")?;
            settings.psks.push(Psk { identity, secret: Zeroizing::new(entry.secret.as_bytes().to_vec()) });
        }
        settings.users = self.user.iter().map(|user| User::new(&user.name, &user.password)).collect();
        ensure!(settings.users.is_empty() || settings.certificate.is_some(), "users need a certificate");
        if !self.ike.is_empty() {
            settings.ike_proposals = parse_ike_list(&self.ike).context("ike")?;
        }
        if !self.esp.is_empty() {
            settings.esp_proposals = parse_esp_list(&self.esp).context("esp")?;
        }
        settings.pools.clone_from(&self.pools);
        if let Some(dhcp) = &self.dhcp {
            ensure!(!dhcp.servers.is_empty(), "dhcp.servers: there is no server to relay to");
            let relay = self.pools.iter().filter_map(gateway_address).find_map(|address| match address {
                IpAddr::V4(v4) => Some(v4),
                IpAddr::V6(_) => None,
            });
            ensure!(
                relay.is_some(),
                "dhcp: pools has no IPv4 network, whose first address the relay would have"
            );
            settings.dhcp = relay;
        }
        settings.dns.clone_from(&self.dns);
        settings.domains.clone_from(&self.domains);
        settings.traffic.clone_from(&self.traffic);
        if matches!(self.options.cookie, Cookie::Always) {
            settings.cookies = CookiePolicy::Always;
        }
        settings.fragmentation = self.options.fragmentation;
        settings.mobike = self.options.mobike;
        settings.keep_old = self.options.keep_old.then_some(self.options.keep_old_notify);
        settings.keep_old_in_auth = self.options.keep_old_in_ike_auth;
        settings.addresses.clone_from(&self.mobike.addresses);
        settings.return_routability = self.mobike.return_routability;
        settings.refused_moves.clone_from(&self.mobike.refused);
        settings.force_encapsulation = self.options.force_encapsulation;
        settings.unique = self.options.unique;
        settings.dpd = (self.options.dpd > 0).then(|| Duration::from_secs(self.options.dpd));
        let seconds = |seconds: u64| (seconds > 0).then(|| Duration::from_secs(seconds));
        let (ike, child) = (seconds(self.options.ike_rekey), seconds(self.options.child_rekey));
        let bytes = self.options.child_rekey_bytes;
        settings.lifetimes = Lifetimes { ike, child, child_octets: (bytes > 0).then_some(bytes) };
        settings.auth_lifetime = seconds(self.options.auth_lifetime);
        settings.childless = match self.options.childless {
            Allowance::Never => Childless::Never,
            Allowance::Allow => Childless::Allow,
            Allowance::Force => Childless::Force,
        };
        settings.crash_tokens =
            self.options.crash_secret.as_deref().map(|secret| TokenMaker::new(secret.as_bytes()));
        settings.redirect = self.options.redirect.as_ref().map(|redirect| {
            let at = match redirect.at {
                Moment::Init => RedirectAt::Init,
                Moment::Auth => RedirectAt::Auth,
            };
            (at, gateway_name(&redirect.to))
        });
        settings.group = self.multi_point_sa.as_ref().map(MultiPointSa::settings).transpose()?;
        settings.links = self.link.iter().map(LinkEntry::link).collect::<anyhow::Result<_>>()?;
        settings.log_keys = self.key_log.is_some();
        Ok(settings)
    }
}

/// An address, or else a name.
#[must_use]
pub fn gateway_name(text: &str) -> GatewayName {
    text.parse().map_or_else(|_| GatewayName::Host(text.to_owned()), GatewayName::Address)
}

impl Pem {
    fn text(&self, what: &'static str) -> anyhow::Result<Zeroizing<String>> {
        if self.0.contains("-----BEGIN") {
            return Ok(Zeroizing::new(self.0.clone()));
        }
        let text = fs::read_to_string(&self.0).with_context(|| format!("{what}: read {}", self.0))?;
        Ok(Zeroizing::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "identity = \"gw.test\"\npools = [\"10.9.0.0/24\"]\ntraffic = [\"10.0.0.0/8\"]\n";

    #[test]
    fn the_least_is_enough_and_the_rest_has_defaults() {
        let config = Config::parse(LEAST).unwrap();
        assert_eq!((config.listen.port, config.listen.nat_t_port), (500, 4500));
        let settings = config.settings().unwrap();
        assert!(settings.fragmentation && settings.mobike && settings.unique);
        assert_eq!(settings.dpd, Some(Duration::from_secs(60)));
    }

    #[test]
    fn redirection_childless_and_crash_tokens_are_switched_on_by_name() {
        let text = "[options]\nchildless = \"force\"\ncrash_secret = \"s\"\n\
                    redirect = { at = \"auth\", to = \"192.0.2.1\" }\n";
        let settings = Config::parse(&format!("{LEAST}{text}")).unwrap().settings().unwrap();
        assert_eq!(settings.childless, Childless::Force);
        assert!(settings.crash_tokens.is_some());
        let to = GatewayName::Address([192, 0, 2, 1].into());
        assert_eq!(settings.redirect, Some((RedirectAt::Auth, to)));
        assert_eq!(gateway_name("gw2.example.com"), GatewayName::Host("gw2.example.com".to_owned()));
    }

    #[test]
    fn keep_old_ike_sa_has_a_number_and_a_switch() {
        let settings = |text: &str| Config::parse(&format!("{LEAST}{text}")).unwrap().settings().unwrap();
        assert_eq!(settings("").keep_old, Some(50213));
        assert_eq!(settings("[options]\nkeep_old_notify = 50999").keep_old, Some(50999));
        assert_eq!(settings("[options]\nkeep_old = false").keep_old, None);
        let mut config = Config::parse(LEAST).unwrap();
        config.without_keep_old();
        assert_eq!(config.settings().unwrap().keep_old, None);
    }

    #[test]
    fn a_link_has_two_ends_and_the_client_gets_the_other_one() {
        let link = |addresses: &str| {
            let text = format!("[[link]]\nclient = \"b\"\ndevice = \"b0\"\naddresses = {addresses}\n");
            Config::parse(&format!("{LEAST}{text}")).unwrap().settings()
        };
        let links = link("[\"10.255.0.0/31\", \"fd00::1/126\"]").unwrap().links;
        let far: Vec<String> = links.iter().flat_map(|link| &link.addresses).map(IpNet::to_string).collect();
        assert_eq!(far, ["10.255.0.1/31", "fd00::2/126"]);
        let error = link("[\"10.255.0.1/24\"]").unwrap_err();
        assert!(error.to_string().contains("/31"), "{error:#}");
    }

    #[test]
    fn the_relay_has_the_first_address_of_the_clients_network() {
        let settings =
            Config::parse(&format!("{LEAST}[dhcp]\nservers = [\"10.0.0.5\"]\n")).unwrap().settings().unwrap();
        assert_eq!(settings.dhcp, Some([10, 9, 0, 1].into()));
    }

    #[test]
    fn a_group_has_times_that_fit_together() {
        let parse =
            |text: &str| Config::parse(&format!("{LEAST}{text}")).and_then(|config| config.settings());
        assert!(parse("").unwrap().group.is_none());
        let group = parse("[multi_point_sa]\nintegrity = \"sha1\"\n").unwrap().group.unwrap();
        assert_eq!((group.prf, group.sk_d_len, group.integ), (2, 20, 2));
        assert_eq!(group.lifetime, Duration::from_secs(3600));
        for wrong in ["lifetime = 100", "rollover1 = 121", "renew_after = 3481"] {
            let error = parse(&format!("[multi_point_sa]\n{wrong}\n")).unwrap_err();
            assert!(error.to_string().contains("rollover2"), "{wrong}: {error:#}");
        }
    }

    #[test]
    fn the_example_in_the_readme_is_understood() {
        let readme = include_str!("../../README.md");
        let example = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let config = Config::parse(example).unwrap();
        let pem = |name: &str| Pem(format!("{}/../sim/testdata/{name}", env!("CARGO_MANIFEST_DIR")));
        let config = Config {
            certificate: Some(pem("gateway-ecdsa.pem")),
            private_key: Some(pem("gateway-ecdsa-key.pem")),
            ca: vec![pem("root.pem")],
            ..config
        };
        let settings = config.settings().unwrap();
        assert_eq!((settings.psks.len(), settings.users.len()), (2, 1));
        assert_eq!(settings.client_authorities.len(), 1);
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let wrong = |more: &str, expected: &str| {
            let parsed = Config::parse(&format!("{LEAST}{more}")).and_then(|config| config.settings());
            let error = format!("{:#}", parsed.err().unwrap());
            assert!(error.contains(expected), "{error}");
        };
        wrong("colour = \"red\"", "unknown field");
        wrong("ike = [\"rot13\"]", "ike");
        wrong("certificate = \"/nowhere\"", "go together");
        wrong("[[user]]\nname = \"a\"\npassword = \"b\"", "users need a certificate");
        wrong("[certificates]\nallow = true", "needs ca");
        wrong("[options]\nkeep_old_notify = 16404", "private-use");
        wrong("[dhcp]\nservers = []", "no server");
        wrong("[listen]\naddresses = []", "nowhere to listen");
    }
}
