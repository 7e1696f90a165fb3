//! A site whose clients get their inner addresses by DHCP, and what Wireshark reads of that.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use ropewalk_lab::{
    Kea, KeaConfig, Lab, Site, SiteOptions,
    site::{GATEWAY_V4, POOL_V4, SERVER_V4},
    tshark,
};

use crate::{AuthKind, Client, Credentials, Offer, ProfileText, Reference};

/// The first address that the server gives.
pub const FIRST_LEASE: Ipv4Addr = Ipv4Addr::new(10, 77, 99, 100);

/// The usual network with the reference gateway as DHCP relay; the server is the test's.
#[derive(Debug)]
pub struct DhcpSite {
    /// The network.
    pub site: Site,
    /// The gateway.
    pub gateway: Reference,
    /// How clients log in.
    pub credentials: Credentials,
}

impl DhcpSite {
    /// Builds it; the relay knows these servers.
    ///
    /// # Errors
    /// When a part cannot be made.
    pub fn new(lab: &Lab, servers: &[Ipv4Addr], more: &str) -> Result<Self> {
        let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let servers: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
        let offer = Offer {
            traffic: vec!["10.77.0.0/16".to_owned()],
            pools: vec![POOL_V4.to_owned()],
            dns: Vec::new(),
            options: format!("{more}\n[dhcp]\nservers = [{}]\n", servers.join(", ")),
            ..Offer::new(AuthKind::Psk)
        };
        let gateway = Reference::start(&site.gateway, &offer, &credentials)?;
        Ok(Self { site, gateway, credentials })
    }

    /// What Kea at the server's place serves: so many addresses, for so many seconds, renewed and asked of any server after
    /// these.
    #[must_use]
    pub fn kea(addresses: u8, lifetime: u32, timers: Option<(u32, u32)>) -> KeaConfig {
        let last = Ipv4Addr::from(u32::from(FIRST_LEASE) + u32::from(addresses) - 1);
        let options = [
            ("routers", "10.77.99.1".to_owned()),
            ("domain-name-servers", SERVER_V4.to_string()),
            ("domain-name", "corp.test".to_owned()),
        ];
        KeaConfig {
            interface: "eth0".to_owned(),
            subnet: POOL_V4.to_owned(),
            pool: (FIRST_LEASE, last),
            lifetime,
            timers,
            reserved: None,
            options: options.map(|(name, data)| (name.to_owned(), data)).to_vec(),
        }
    }

    /// Starts Kea at the server's place.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_kea(&self, name: &str, config: &KeaConfig) -> Result<Kea> {
        Ok(Kea::start(&self.site.server, name, config)?)
    }

    /// The profile of its clients.
    #[must_use]
    pub fn profile(&self) -> ProfileText {
        dhcp_profile(&self.credentials, &GATEWAY_V4.to_string())
    }
}

/// A profile with `address.source = "dhcp"`.
#[must_use]
pub fn dhcp_profile(credentials: &Credentials, gateway: &str) -> ProfileText {
    let mut profile = ProfileText::new(AuthKind::Psk, credentials, gateway);
    profile.ike = Some("aes256gcm16-prfsha384-x25519".to_owned());
    profile.timing = "dpd = 5\n\n[address]\nsource = \"dhcp\"\n".to_owned();
    profile
}

/// One DHCP message as tshark reads it inside the decrypted ESP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpSeen {
    /// Its kind: 1 DISCOVER, 2 OFFER, 3 REQUEST, 4 DECLINE, 5 ACK, 6 NAK, 7 RELEASE.
    pub kind: u8,
    /// Inner source and destination.
    pub way: (String, String),
    /// `htype`.
    pub htype: String,
    /// `chaddr`, six octets in hexadecimal digits.
    pub chaddr: String,
    /// Option 61: hardware type as tshark writes it, and address.
    pub identifier: String,
    /// Option 50.
    pub requested: String,
    /// `ciaddr`.
    pub ciaddr: String,
    /// The flags.
    pub flags: String,
    /// The SPI of the ESP that it was in.
    pub spi: String,
}

/// The DHCP messages in a capture of the outside.
///
/// # Errors
/// When tshark refuses.
pub fn dhcp_in(lab: &Lab, client: &Client, capture: &Path) -> Result<Vec<DhcpSeen>> {
    let home = home_with_keys(lab, client)?;
    let mut arguments =
        vec!["-o", "esp.enable_encryption_decode:TRUE", "-Y", "dhcp", "-T", "fields", "-E", "separator=/t"];
    for field in [
        "dhcp.option.dhcp",
        "ip.src",
        "ip.dst",
        "dhcp.hw.type",
        "dhcp.hw.addr",
        "dhcp.client_hardware_address",
        "dhcp.option.requested_ip_address",
        "dhcp.ip.client",
        "dhcp.flags",
        "esp.spi",
    ] {
        arguments.extend(["-e", field]);
    }
    let printed = tshark(capture, &home, &arguments)?;
    let seen = printed.lines().map(|line| {
        // Of a packet in a packet both are told, and the hardware type stands in option 61, too.
        let mut fields =
            line.split('\t').map(|field| field.split(',').map(str::to_owned).collect::<Vec<_>>());
        let mut next = || fields.next().unwrap_or_default();
        let inner = |found: Vec<String>| found.last().cloned().unwrap_or_default();
        let kind = inner(next()).parse().with_context(|| format!("a DHCP message: {line}"))?;
        let way = (inner(next()), inner(next()));
        let (htypes, chaddr) = (next(), inner(next()));
        let identifier = [htypes.get(1).cloned().unwrap_or_default(), inner(next())].concat();
        Ok(DhcpSeen {
            kind,
            way,
            htype: htypes.first().cloned().unwrap_or_default(),
            // The field has room for 16 octets.
            chaddr: chaddr.get(..12).unwrap_or_default().to_owned(),
            identifier,
            requested: inner(next()),
            ciaddr: inner(next()),
            flags: inner(next()),
            spi: inner(next()),
        })
    });
    seen.collect()
}

/// tshark reads both tables of a key log from its own configuration folder.
///
/// # Errors
/// When there is no key log.
pub fn home_with_keys(lab: &Lab, client: &Client) -> Result<PathBuf> {
    let home = lab.dir().join("tshark");
    let tables = home.join("wireshark");
    std::fs::create_dir_all(&tables)?;
    for table in ["ikev2_decryption_table", "esp_sa"] {
        let from = client.key_log().join(table);
        std::fs::copy(&from, tables.join(table))
            .with_context(|| format!("the key log {}", from.display()))?;
    }
    Ok(home)
}
