//! What strongSwan is told: `swanctl.conf` and the files beside it, for the gateway that tests connect to and for the client
//! that benchmarks compare with.

use std::fmt::Write as _;

use crate::pki::Credential;

/// Every suite that the client knows, as a gateway that takes them all would offer them.
pub const ALL_IKE_PROPOSALS: &str = "aes256gcm16-prfsha384-x25519,aes128gcm16-prfsha256-x25519-ecp256,\
     chacha20poly1305-prfsha256-x25519,aes256-sha256-modp2048-modp3072-modp4096,\
     aes256-sha384-ecp384,aes256-sha512-modp4096,aes128-sha256-ecp256-modp2048";

/// Every ESP suite that the client knows.
pub const ALL_ESP_PROPOSALS: &str =
    "aes256gcm16,aes128gcm16,chacha20poly1305,aes256-sha256,aes128-sha256,aes256-sha384,aes256-sha512";

/// What a strongSwan instance is told: the text of `swanctl.conf` and the files beside it.
#[derive(Debug, Clone, Default)]
pub struct SwanConfig {
    /// `swanctl.conf`.
    pub text: String,
    /// Folder (`x509`, `x509ca`, `private`), file name, PEM.
    pub files: Vec<(&'static str, String, String)>,
    /// Further lines of `strongswan.conf`, in the daemon's section.
    pub daemon: String,
}

/// What a gateway thinks of IKE_AUTH without a CHILD_SA (RFC 6023).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Childless {
    /// strongSwan's default: a client may. (The reference gateway's is never.)
    Allow,
    /// No client may.
    Never,
    /// Every client must.
    Force,
}

/// What the gateway offers. `None` and empty leave a thing out.
#[derive(Debug, Clone)]
pub struct SwanGateway {
    /// IKE proposals in strongSwan's syntax.
    pub ike: String,
    /// ESP proposals in strongSwan's syntax.
    pub esp: String,
    /// Address pools, such as `10.77.99.0/24`.
    pub pools: Vec<String>,
    /// DNS servers handed out with each pool (of that pool's family).
    pub dns: Vec<std::net::IpAddr>,
    /// What may be reached through it.
    pub traffic: Vec<String>,
    /// Pre-shared keys: the client's identity and the key. The gateway calls itself `psk.gw.test`.
    pub psk: Vec<(String, String)>,
    /// Users for EAP-MSCHAPv2: name and password. The gateway calls itself `eap.gw.test`.
    pub users: Vec<(String, String)>,
    /// Gateway certificate for `eap.gw.test`.
    pub eap: Option<Credential>,
    /// Gateway certificate for `ecdsa.gw.test`, clients by certificate.
    pub ecdsa: Option<Credential>,
    /// Gateway certificate for `rsa.gw.test`, clients by certificate.
    pub rsa: Option<Credential>,
    /// PEM of the roots and intermediates.
    pub authorities: Vec<String>,
    /// Seconds of silence after which it asks whether the client is alive; 0 never.
    pub dpd: u32,
    /// IKE_AUTH without a CHILD_SA (RFC 6023).
    pub childless: Childless,
    /// Seconds that a login holds, told to clients as AUTH_LIFETIME (RFC 4478); 0 for ever.
    pub reauth: u32,
    /// It speaks IKE fragmentation (RFC 7383).
    pub fragmentation: bool,
    /// The EAP method that users log in with.
    pub eap_method: &'static str,
}

impl Default for SwanGateway {
    fn default() -> Self {
        Self {
            ike: ALL_IKE_PROPOSALS.to_owned(),
            esp: ALL_ESP_PROPOSALS.to_owned(),
            pools: Vec::new(),
            dns: Vec::new(),
            traffic: Vec::new(),
            psk: Vec::new(),
            users: Vec::new(),
            eap: None,
            ecdsa: None,
            rsa: None,
            authorities: Vec::new(),
            dpd: 0,
            childless: Childless::Allow,
            reauth: 0,
            fragmentation: true,
            eap_method: "eap-mschapv2",
        }
    }
}

impl SwanGateway {
    /// As strongSwan reads it.
    #[must_use]
    pub fn config(&self) -> SwanConfig {
        let mut config = SwanConfig::default();
        let mut connections = String::new();
        if !self.psk.is_empty() {
            connections += &self.connection("psk", "auth = psk", "auth = psk");
        }
        for (name, credential) in [("ecdsa", &self.ecdsa), ("rsa", &self.rsa), ("eap", &self.eap)] {
            let Some(credential) = credential else { continue };
            config.files.push(("x509", format!("{name}.pem"), credential.certificate.clone()));
            config.files.push(("private", format!("{name}.pem"), credential.private_key.clone()));
            let remote = if name == "eap" {
                format!("auth = {}\n   eap_id = %any", self.eap_method)
            } else {
                "auth = pubkey".to_owned()
            };
            connections += &self.connection(name, &format!("auth = pubkey\n   certs = {name}.pem"), &remote);
        }
        for (number, pem) in self.authorities.iter().enumerate() {
            config.files.push(("x509ca", format!("ca{number}.pem"), pem.clone()));
        }
        let mut pools = String::new();
        for (number, addresses) in self.pools.iter().enumerate() {
            let six = addresses.contains(':');
            let dns: Vec<_> =
                self.dns.iter().filter(|server| server.is_ipv6() == six).map(ToString::to_string).collect();
            let dns = if dns.is_empty() { String::new() } else { format!("\n  dns = {}", dns.join(",")) };
            let _ = write!(pools, " pool{number} {{\n  addrs = {addresses}{dns}\n }}\n");
        }
        let mut secrets = String::new();
        // With the gateway's own identity in the list strongSwan would take the key for every client.
        for (number, (id, secret)) in self.psk.iter().enumerate() {
            let _ = write!(secrets, " ike-{number} {{\n  id = {id}\n  secret = \"{secret}\"\n }}\n");
        }
        for (number, (user, password)) in self.users.iter().enumerate() {
            let _ = write!(secrets, " eap-{number} {{\n  id = {user}\n  secret = \"{password}\"\n }}\n");
        }
        config.text =
            format!("connections {{\n{connections}}}\npools {{\n{pools}}}\nsecrets {{\n{secrets}}}\n");
        config
    }

    fn connection(&self, name: &str, local: &str, remote: &str) -> String {
        let pools: Vec<_> = (0..self.pools.len()).map(|number| format!("pool{number}")).collect();
        let pools = if pools.is_empty() { String::new() } else { format!("  pools = {}\n", pools.join(",")) };
        let whole = if self.fragmentation { "" } else { "  fragmentation = no\n" };
        let childless = match self.childless {
            Childless::Allow => "",
            Childless::Never => "  childless = never\n",
            Childless::Force => "  childless = force\n",
        };
        let reauth = match self.reauth {
            0 => String::new(),
            seconds => format!(
                "  reauth_time = {seconds}s\n  rekey_time = 0s\n  over_time = 30s\n  rand_time = 2s\n"
            ),
        };
        let dpd = if self.dpd == 0 { String::new() } else { format!("  dpd_delay = {}s\n", self.dpd) };
        format!(
            " {name} {{\n  version = 2\n  proposals = {}\n{pools}{dpd}{childless}{whole}{reauth}  local {{\n   id = {name}.gw.test\n   {local}\n  }}\n  \
             remote {{\n   {remote}\n  }}\n  children {{\n   net {{\n    local_ts = {}\n    esp_proposals = {}\n   }}\n  }}\n }}\n",
            self.ike,
            self.traffic.join(","),
            self.esp,
        )
    }
}

/// How a strongSwan client proves who it is.
#[derive(Debug, Clone)]
pub enum SwanAuth {
    /// A pre-shared key.
    Psk {
        /// Its identity.
        id: String,
        /// The key.
        secret: String,
    },
    /// EAP-MSCHAPv2.
    Eap {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A certificate.
    Certificate {
        /// Its identity, one of the certificate's names.
        id: String,
        /// The certificate and key.
        credential: Credential,
    },
}

/// strongSwan as a client: one connection `peer` with one child `net`.
#[derive(Debug, Clone)]
pub struct SwanClient {
    /// The gateway's address.
    pub gateway: std::net::IpAddr,
    /// What the gateway must call itself.
    pub gateway_id: String,
    /// Who the client is.
    pub auth: SwanAuth,
    /// IKE proposals in strongSwan's syntax.
    pub ike: String,
    /// ESP proposals in strongSwan's syntax.
    pub esp: String,
    /// What it wants to reach, such as `0.0.0.0/0`.
    pub traffic: Vec<String>,
    /// PEM of the roots it trusts.
    pub authorities: Vec<String>,
}

impl SwanClient {
    /// As strongSwan reads it.
    #[must_use]
    pub fn config(&self) -> SwanConfig {
        let mut config = SwanConfig::default();
        let (local, remote, secret) = match &self.auth {
            SwanAuth::Psk { id, secret } => (
                format!("auth = psk\n   id = {id}"),
                "auth = psk",
                format!(" ike-0 {{\n  secret = \"{secret}\"\n }}\n"),
            ),
            SwanAuth::Eap { user, password } => (
                format!("auth = eap-mschapv2\n   id = {user}\n   eap_id = {user}"),
                "auth = pubkey",
                format!(" eap-0 {{\n  id = {user}\n  secret = \"{password}\"\n }}\n"),
            ),
            SwanAuth::Certificate { id, credential } => {
                config.files.push(("x509", "client.pem".to_owned(), credential.certificate.clone()));
                config.files.push(("private", "client.pem".to_owned(), credential.private_key.clone()));
                (
                    format!("auth = pubkey\n   certs = client.pem\n   id = {id}"),
                    "auth = pubkey",
                    String::new(),
                )
            }
        };
        for (number, pem) in self.authorities.iter().enumerate() {
            config.files.push(("x509ca", format!("ca{number}.pem"), pem.clone()));
        }
        let six = self.traffic.iter().any(|prefix| prefix.contains(':'));
        let four = self.traffic.iter().any(|prefix| prefix.contains('.'));
        let addresses = match (four, six) {
            (true, true) => "0.0.0.0,::",
            (false, true) => "::",
            (_, false) => "0.0.0.0",
        };
        config.text = format!(
            "connections {{\n peer {{\n  version = 2\n  proposals = {}\n  remote_addrs = {}\n  vips = {addresses}\n  \
             encap = yes\n  local {{\n   {local}\n  }}\n  remote {{\n   {remote}\n   id = {}\n  }}\n  children {{\n   net {{\n    \
             remote_ts = {}\n    esp_proposals = {}\n   }}\n  }}\n }}\n}}\nsecrets {{\n{secret}}}\n",
            self.ike,
            self.gateway,
            self.gateway_id,
            self.traffic.join(","),
            self.esp,
        );
        config
    }
}
