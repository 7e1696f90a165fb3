//! The reference gateway in a namespace.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use ropewalk_lab::{Childless, Namespace, Process};
use serde_json::Value;

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
        let config = namespace.lab().dir().join(format!("{}.toml", namespace.name()));
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
        self.kill()?;
        self.launch()
    }

    /// Kills it without a word to its clients.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => Ok(process.kill()?),
            None => Ok(()),
        }
    }

    /// Starts it (again).
    ///
    /// # Errors
    /// When it does not come up.
    pub fn launch(&mut self) -> Result<()> {
        let mut command = self.namespace.command(self.programs.path("ropewalk-gateway")?);
        command.arg("--config").arg(&self.config).arg("--control").arg(self.control_socket());
        command.args(["--log", "debug"]);
        self.starts += 1;
        let log = self.namespace.log_path(&format!("reference{}", self.starts));
        let mut process = Process::start(&mut command, &log)?;
        process.wait_for_log("listening", PATIENCE)?;
        self.process = Some(process);
        Ok(())
    }

    /// One line to its control socket, and the answer.
    ///
    /// # Errors
    /// When it does not answer, or with an error.
    pub fn control(&self, line: &str) -> Result<Value> {
        let mut stream =
            UnixStream::connect(self.control_socket()).context("the gateway's control socket")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        writeln!(stream, "{line}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let answer: Value = serde_json::from_str(&answer).with_context(|| format!("{line}: {answer:?}"))?;
        ensure!(answer.get("error").is_none(), "{line}: {answer}");
        Ok(answer)
    }

    /// Its log so far (of the running one).
    #[must_use]
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// How many clients have connected and not gone, by its log.
    ///
    /// # Errors
    /// Never; the signature is strongSwan's.
    pub fn sessions(&self) -> Result<usize> {
        let log = self.log();
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

    fn control_socket(&self) -> PathBuf {
        self.config.with_extension("sock")
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
    if !offer.listen.is_empty() {
        let listen: Vec<_> = offer.listen.iter().map(ToString::to_string).collect();
        text += &format!("\n[listen]\naddresses = [{}]\n", list(&listen));
    }
    text += "\n[options]\n";
    if let Some(dpd) = offer.dpd {
        text += &format!("dpd = {dpd}\n");
    }
    if offer.childless == Childless::Force {
        text += "childless = \"force\"\n";
    }
    text + &offer.options
}
