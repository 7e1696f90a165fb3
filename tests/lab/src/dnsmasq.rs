//! dnsmasq in a namespace: the DNS server behind the gateway, and the DHCP server of a network.

use std::{fs, net::IpAddr, time::Duration};

use crate::{
    error::{Context, Result},
    netns::Namespace,
    process::{Process, until},
};

/// A running dnsmasq.
#[derive(Debug)]
pub struct Dnsmasq {
    process: Process,
}

/// What it serves.
#[derive(Debug, Clone, Default)]
pub struct DnsmasqConfig {
    /// Names and their addresses.
    pub names: Vec<(String, IpAddr)>,
    /// DHCP ranges in its own syntax, such as `10.1.0.100,10.1.0.200,255.255.255.0,1h`.
    pub dhcp_ranges: Vec<String>,
    /// DHCP options in its own syntax, such as `option:mtu,1300`.
    pub dhcp_options: Vec<String>,
}

impl Dnsmasq {
    /// Starts it on every address of the namespace. It knows no upstream: other names are answered with NXDOMAIN.
    ///
    /// # Errors
    /// When dnsmasq is missing or does not start.
    pub fn start(namespace: &Namespace, config: &DnsmasqConfig) -> Result<Self> {
        Self::start_named(namespace, "dnsmasq", config)
    }

    /// The same with a name of its own, for a second one in a laboratory.
    ///
    /// # Errors
    /// When dnsmasq is missing or does not start.
    pub fn start_named(namespace: &Namespace, name: &str, config: &DnsmasqConfig) -> Result<Self> {
        let dir = namespace.lab().dir().join(name);
        fs::create_dir_all(&dir).context(|| format!("make {}", dir.display()))?;
        let mut text = format!(
            "no-resolv\nno-hosts\nno-daemon\nkeep-in-foreground\nuser=root\ngroup=root\npid-file={0}/pid\n\
             dhcp-leasefile={0}/leases\nlog-queries\nlog-dhcp\nlog-facility=-\nbind-dynamic\n",
            dir.display()
        );
        for (name, address) in &config.names {
            text += &format!("host-record={name},{address}\n");
        }
        for range in &config.dhcp_ranges {
            text += &format!("dhcp-range={range}\ndhcp-authoritative\n");
        }
        for option in &config.dhcp_options {
            text += &format!("dhcp-option={option}\n");
        }
        let file = dir.join("dnsmasq.conf");
        fs::write(&file, text).context(|| format!("write {}", file.display()))?;
        let option = format!("--conf-file={}", file.display());
        let mut process = namespace.spawn("dnsmasq", &[&option], name)?;
        process.wait_for_log("started", Duration::from_secs(10))?;
        Ok(Self { process })
    }

    /// Whether a question for `name` came in (from anyone).
    ///
    /// # Errors
    /// When it did not within `limit`.
    pub fn wait_for_question(&self, name: &str, limit: Duration) -> Result<()> {
        until(&format!("a DNS question for {name}"), limit, || {
            self.process.log().contains(&format!("] {name} ")).then_some(())
        })
    }

    /// Its log: every question and lease.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}
