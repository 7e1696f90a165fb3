//! strongSwan in a namespace, as the gateway that tests connect to and as the client that benchmarks compare with.
//!
//! It runs as `charon-systemd` with `kernel-libipsec` (ESP in user space over a TUN device), because the kernels of test
//! machines may have no ESP. Each instance has its own configuration, log and control socket. The programs are copied into
//! the laboratory's folder first: where AppArmor confines them, it does so by path and would hide our files from them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    error::{Context, LabError, Result},
    netns::Namespace,
    process::{Finished, Process, read_lossy, run, until},
    swan_config::SwanConfig,
};

const PLUGINS: &str = "random nonce openssl! curve25519 pem pkcs1 pkcs8 x509 revocation constraints pubkey hmac kdf gcm \
     chapoly sha2 sha1 aes md5 kernel-libipsec! kernel-netlink socket-default! vici! updown eap-identity! eap-mschapv2! eap-md5!";

/// Limit for one `swanctl` call that does not wait for the network.
const CONTROL_LIMIT: Duration = Duration::from_secs(20);

/// Limit for its start.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running strongSwan.
#[derive(Debug)]
pub struct Swan {
    namespace: Namespace,
    process: Option<Process>,
    dir: PathBuf,
    name: String,
}

impl Swan {
    /// Starts it in a namespace and loads the configuration. `name` is unique in the laboratory.
    ///
    /// # Errors
    /// When strongSwan or one of its plugins is missing, or it refuses the configuration.
    pub fn start(namespace: &Namespace, name: &str, config: &SwanConfig) -> Result<Self> {
        let dir = namespace.lab().dir().join(name);
        for folder in [
            "", "x509", "x509ca", "x509ocsp", "x509aa", "x509ac", "x509crl", "pubkey", "private", "rsa",
            "ecdsa", "bliss", "pkcs8", "pkcs12",
        ] {
            let folder = dir.join("swanctl").join(folder);
            fs::create_dir_all(&folder).context(|| format!("make {}", folder.display()))?;
        }
        for program in ["charon-systemd", "swanctl"] {
            copy_program(program, &dir)?;
        }
        let mut swan = Self { namespace: namespace.clone(), process: None, dir, name: name.to_owned() };
        swan.write("strongswan.conf", &swan.daemon_config(&config.daemon))?;
        swan.write("swanctl/swanctl.conf", &config.text)?;
        for (folder, file, pem) in &config.files {
            swan.write(&format!("swanctl/{folder}/{file}"), pem)?;
        }
        swan.launch()?;
        Ok(swan)
    }

    /// Kills it without a word to its peers and starts it again with the same configuration.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.launch()
    }

    /// Kills it without a word to its peers.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Runs `swanctl` against this instance, to its end.
    ///
    /// # Errors
    /// When it cannot be started or takes more than `limit`; a status other than zero is not an error.
    pub fn control(&self, arguments: &[&str], limit: Duration) -> Result<Finished> {
        let mut command = Command::new(self.dir.join("swanctl-program"));
        command.args(arguments).args(["--uri", &self.socket()]);
        command
            .env("SWANCTL_DIR", self.dir.join("swanctl"))
            .env("STRONGSWAN_CONF", self.dir.join("strongswan.conf"));
        run(&mut command, &[], limit)
    }

    /// Brings up a connection's child as a client.
    ///
    /// # Errors
    /// When it does not come up; the log says why.
    pub fn initiate(&self, child: &str, limit: Duration) -> Result<Finished> {
        let seconds = limit.as_secs().to_string();
        self.control(&["--initiate", "--child", child, "--timeout", &seconds], limit + CONTROL_LIMIT)?
            .success()
    }

    /// Ends every IKE_SA of a connection, telling the peer.
    ///
    /// # Errors
    /// When `swanctl` fails.
    pub fn terminate(&self, connection: &str) -> Result<()> {
        self.control(&["--terminate", "--ike", connection, "--timeout", "5"], CONTROL_LIMIT)?
            .success()
            .map(|_| ())
    }

    /// The list of SAs as `swanctl` prints it.
    ///
    /// # Errors
    /// When `swanctl` fails.
    pub fn list_sas(&self) -> Result<String> {
        Ok(self.control(&["--list-sas"], CONTROL_LIMIT)?.success()?.stdout)
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        read_lossy(&self.log_path())
    }

    /// Resident memory in octets.
    #[must_use]
    pub fn resident_memory(&self) -> Option<u64> {
        self.process.as_ref().and_then(|process| resident_memory(process.pid()))
    }

    fn launch(&mut self) -> Result<()> {
        let _ = fs::remove_file(self.dir.join("vici"));
        let mut command = self.namespace.command(self.dir.join("charon-systemd-program"));
        command.env("STRONGSWAN_CONF", self.dir.join("strongswan.conf"));
        let mut process = Process::start(&mut command, &self.dir.join("output.log"))?;
        // The socket file exists a moment before it is listened on.
        let ready = until(&format!("an answer of {}", self.name), START_LIMIT, || {
            let alive = process.is_running().unwrap_or(false);
            let answers = self.control(&["--stats"], CONTROL_LIMIT).is_ok_and(|finished| finished.code == 0);
            (answers || !alive).then_some(answers)
        })?;
        if !ready {
            return Err(LabError::Content {
                path: self.log_path(),
                problem: format!(
                    "strongSwan ended at its start (is a plugin missing? run `make setup`): {}",
                    self.log()
                ),
            });
        }
        self.process = Some(process);
        self.control(&["--load-all", "--noprompt"], CONTROL_LIMIT)?.success().map(|_| ())
    }

    fn daemon_config(&self, further: &str) -> String {
        format!(
            "charon-systemd {{\n load = {PLUGINS}\n{further} filelog {{\n  log {{\n   path = {}\n   default = 1\n   ike = 2\n   \
             cfg = 1\n   time_format = %H:%M:%S\n   flush_line = yes\n  }}\n }}\n plugins {{\n  vici {{\n   socket = {}\n  }}\n  \
             kernel-libipsec {{\n   allow_peer_ts = yes\n  }}\n }}\n}}\nswanctl {{\n load = random pem pkcs1 pkcs8 x509 openssl\n}}\n",
            self.log_path().display(),
            self.socket(),
        )
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.dir.join(file);
        fs::write(&path, text).context(|| format!("write {}", path.display()))
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("charon.log")
    }

    fn socket(&self) -> String {
        format!("unix://{}", self.dir.join("vici").display())
    }
}

/// Resident memory of a process in octets, from `/proc`.
#[must_use]
pub fn resident_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

fn copy_program(program: &str, dir: &Path) -> Result<()> {
    let from = Path::new("/usr/sbin").join(program);
    let to = dir.join(format!("{program}-program"));
    fs::copy(&from, &to)
        .context(|| format!("copy {} (is strongSwan installed? run `make setup`)", from.display()))?;
    fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).context(|| format!("chmod {}", to.display()))
}
