//! Kea's DHCPv4 server in a namespace.

use std::{fs, net::Ipv4Addr, time::Duration};

use serde_json::{Value, json};

use crate::{
    error::{Context, Result},
    netns::Namespace,
    process::Process,
};

/// What it serves.
#[derive(Debug, Clone)]
pub struct KeaConfig {
    /// The interface that requests come in by.
    pub interface: String,
    /// The subnet of the clients, such as `10.40.0.0/24`.
    pub subnet: String,
    /// First and last address to give.
    pub pool: (Ipv4Addr, Ipv4Addr),
    /// Seconds.
    pub lifetime: u32,
    /// Seconds after which clients renew, and after which they ask any server; `None`: their own choice.
    pub timers: Option<(u32, u32)>,
    /// An address that belongs to another client, by its hardware address.
    pub reserved: Option<(String, Ipv4Addr)>,
    /// Options by Kea's names, such as `("routers", "10.40.0.1")`.
    pub options: Vec<(String, String)>,
}

/// A running Kea.
#[derive(Debug)]
pub struct Kea {
    process: Process,
}

impl Kea {
    /// Starts it.
    ///
    /// # Errors
    /// When `kea-dhcp4` is missing or does not start.
    pub fn start(namespace: &Namespace, name: &str, config: &KeaConfig) -> Result<Self> {
        let dir = namespace.lab().dir().join(name);
        fs::create_dir_all(&dir).context(|| format!("make {}", dir.display()))?;
        let options: Vec<_> =
            config.options.iter().map(|(name, data)| json!({ "name": name, "data": data })).collect();
        let reserved = config.reserved.iter();
        let reservations: Vec<_> =
            reserved.map(|(mac, address)| json!({ "hw-address": mac, "ip-address": address })).collect();
        let mut text = json!({ "Dhcp4": {
            // Requests come from a relay: no raw socket is wanted.
            "interfaces-config": { "interfaces": [config.interface], "dhcp-socket-type": "udp" },
            "lease-database": { "type": "memfile", "persist": false },
            "authoritative": true,
            "valid-lifetime": config.lifetime,
            "subnet4": [{
                "id": 1,
                "subnet": config.subnet,
                "pools": [{ "pool": format!("{} - {}", config.pool.0, config.pool.1) }],
                "option-data": options,
                "reservations": reservations,
            }],
            "loggers": [{
                "name": "kea-dhcp4",
                "output_options": [{ "output": "stdout" }],
                "severity": "DEBUG",
                "debuglevel": 40,
            }],
        }});
        if let Some((renew, rebind)) = config.timers
            && let Some(top) = text.get_mut("Dhcp4").and_then(Value::as_object_mut)
        {
            top.insert("renew-timer".to_owned(), renew.into());
            top.insert("rebind-timer".to_owned(), rebind.into());
        }
        let file = dir.join("kea.json");
        fs::write(&file, text.to_string()).context(|| format!("write {}", file.display()))?;
        let mut command = namespace.command("kea-dhcp4");
        command.arg("-c").arg(&file);
        command.env("KEA_PIDFILE_DIR", &dir).env("KEA_LOCKFILE_DIR", &dir);
        let mut process = Process::start(&mut command, &namespace.log_path(name))?;
        process.wait_for_log("DHCP4_STARTED", Duration::from_secs(20))?;
        Ok(Self { process })
    }

    /// Waits until its log has this.
    ///
    /// # Errors
    /// When that does not come.
    pub fn wait_for_log(&mut self, text: &str, limit: Duration) -> Result<()> {
        self.process.wait_for_log(text, limit)
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}
