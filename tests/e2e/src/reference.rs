//! The reference gateway in a namespace.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use ropewalk_lab::{Namespace, Process};

use crate::{
    PATIENCE,
    gateway::{AuthKind, Credentials, Offer},
    programs::Programs,
};

/// A running `ropewalk-gateway`.
#[derive(Debug)]
pub struct Reference {
    namespace: Namespace,
    programs: Programs,
    config: PathBuf,
    process: Option<Process>,
    starts: u32,
}

impl Reference {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(namespace: &Namespace, offer: &Offer, credentials: &Credentials) -> Result<Self> {
        let config = namespace.lab().dir().join("gateway.toml");
        fs::write(&config, config_text(offer, credentials)).context("write the gateway's configuration")?;
        let mut reference = Self {
            namespace: namespace.clone(),
            programs: Programs::find()?,
            config,
            process: None,
            starts: 0,
        };
        reference.launch()?;
        Ok(reference)
    }

    /// Kills it without a word to its clients and starts it again.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn restart(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        self.launch()
    }

    /// How many clients have connected and not gone, by its log.
    ///
    /// # Errors
    /// Never; the signature is strongSwan's.
    pub fn sessions(&self) -> Result<usize> {
        let log = self.process.as_ref().map(Process::log).unwrap_or_default();
        let up = log.matches("client connected").count();
        Ok(up.saturating_sub(log.matches("client gone").count()))
    }

    /// Ends every client's connection, telling them.
    ///
    /// # Errors
    /// When it is not running.
    pub fn disconnect_clients(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("the gateway is not running")?;
        Ok(process.signal(Signal::SIGUSR1)?)
    }

    fn launch(&mut self) -> Result<()> {
        let mut command = self.namespace.command(self.programs.path("ropewalk-gateway")?);
        command.arg("--config").arg(&self.config).args(["--log", "debug"]);
        self.starts += 1;
        let log = self.namespace.log_path(&format!("reference{}", self.starts));
        let mut process = Process::start(&mut command, &log)?;
        process.wait_for_log("listening", PATIENCE)?;
        self.process = Some(process);
        Ok(())
    }
}

/// Its TOML file.
fn config_text(offer: &Offer, credentials: &Credentials) -> String {
    let list = |items: &[String]| {
        let quoted: Vec<_> = items.iter().map(|item| format!("\"{item}\"")).collect();
        quoted.join(", ")
    };
    let dns: Vec<_> = offer.dns.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "identity = \"{}\"\npools = [{}]\ndns = [{}]\ntraffic = [{}]\n",
        offer.kind.gateway_identity(),
        list(&offer.pools),
        list(&dns),
        list(&offer.traffic),
    );
    if let Some(ike) = &offer.ike {
        text += &format!("ike = [\"{ike}\"]\n");
    }
    if let Some(esp) = &offer.esp {
        text += &format!("esp = [\"{esp}\"]\n");
    }
    if offer.kind != AuthKind::Psk {
        text += &format!(
            "certificate = '''\n{}{}'''\nprivate_key = '''\n{}'''\nca = ['''\n{}''']\n",
            credentials.gateway.certificate,
            credentials.intermediate,
            credentials.gateway.private_key,
            credentials.root
        );
    }
    match offer.kind {
        AuthKind::Psk => {
            text += &format!(
                "\n[[psk]]\nidentity = \"{}\"\nsecret = \"{}\"\n",
                credentials.client_id, credentials.psk
            );
        }
        AuthKind::EapMschapv2 => {
            text += &format!(
                "\n[[user]]\nname = \"{}\"\npassword = \"{}\"\n",
                credentials.user, credentials.password
            );
        }
        AuthKind::Ecdsa | AuthKind::Rsa => text += "\n[certificates]\nallow = true\n",
    }
    if !offer.outer.is_empty() {
        let outer: Vec<_> = offer.outer.iter().map(ToString::to_string).collect();
        text += &format!("\n[mobike]\naddresses = [{}]\n", list(&outer));
    }
    text += "\n[options]\n";
    if let Some(dpd) = offer.dpd {
        text += &format!("dpd = {dpd}\n");
    }
    if offer.childless {
        text += "childless = \"force\"\n";
    }
    text
}
