//! The product in a namespace: a helper of its own and the command line that talks to it.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use ropewalk_lab::{Finished, Namespace, Process, run, until};
use serde_json::Value;

use crate::{PATIENCE, profile::ProfileText, programs::Programs};

/// A helper in a namespace, with its own folders.
#[derive(Debug)]
pub struct Client {
    namespace: Namespace,
    programs: Programs,
    dir: PathBuf,
    helper: Option<Process>,
    options: ClientOptions,
    starts: u32,
}

/// How the helper is started.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The log filter.
    pub log: String,
    /// Write a key log.
    pub key_log: bool,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// The system bus; none by default.
    pub bus: Option<PathBuf>,
    /// The name of its folder, for a laboratory with several clients.
    pub folder: String,
    /// Further environment.
    pub environment: Vec<(String, PathBuf)>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            log: "debug".to_owned(),
            key_log: true,
            arguments: Vec::new(),
            bus: None,
            folder: "client".to_owned(),
            environment: Vec::new(),
        }
    }
}

impl Client {
    /// Starts a helper and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        Self::start_with(namespace, ClientOptions::default())
    }

    /// The same with other options.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start_with(namespace: &Namespace, options: ClientOptions) -> Result<Self> {
        let dir = namespace.lab().dir().join(&options.folder);
        for folder in ["run", "state", "config", "keylog"] {
            fs::create_dir_all(dir.join(folder)).with_context(|| format!("make {folder}"))?;
        }
        let mut client = Self {
            namespace: namespace.clone(),
            programs: Programs::find()?,
            dir,
            helper: None,
            options,
            starts: 0,
        };
        client.start_helper()?;
        Ok(client)
    }

    /// Starts the helper (again).
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start_helper(&mut self) -> Result<()> {
        let bus = self.options.bus.clone().unwrap_or_else(|| self.dir.join("no-bus"));
        let mut command = self.namespace.command(self.programs.path("ropewalk-helper")?);
        command
            .arg("--no-polkit")
            .arg("--runtime-dir")
            .arg(self.dir.join("run"))
            .arg("--state-dir")
            .arg(self.dir.join("state"))
            .arg("--config-dir")
            .arg(self.dir.join("config"))
            .args(["--log", &self.options.log])
            .args(&self.options.arguments)
            // The machine's own resolved and NetworkManager must not hear of a namespace's tunnel: the file is used.
            .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", bus.display()))
            .envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        if self.options.key_log {
            command.arg("--key-log").arg(self.key_log());
        }
        self.starts += 1;
        let log = self.namespace.log_path(&format!("helper{}", self.starts));
        let mut helper = Process::start(&mut command, &log)?;
        let ready = until("an answer of the helper", PATIENCE, || {
            let alive = helper.is_running().unwrap_or(false);
            let answers = self.cli(&["profiles"]).is_ok_and(|finished| finished.code == 0);
            (answers || !alive).then_some(answers)
        })?;
        ensure!(ready, "the helper ended at its start: {}", helper.log());
        self.helper = Some(helper);
        Ok(())
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Where the helper writes its key log.
    #[must_use]
    pub fn key_log(&self) -> PathBuf {
        self.dir.join("keylog")
    }

    /// Where the helper keeps its state.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Runs the command line to its end.
    ///
    /// # Errors
    /// When it cannot be started or hangs; a code other than zero is not an error.
    pub fn cli(&self, arguments: &[&str]) -> Result<Finished> {
        self.cli_with_input(arguments, "", Duration::from_secs(90))
    }

    /// Runs the command line to its end with something on its standard input.
    ///
    /// # Errors
    /// When it cannot be started or hangs; a code other than zero is not an error.
    pub fn cli_with_input(&self, arguments: &[&str], input: &str, limit: Duration) -> Result<Finished> {
        Ok(run(&mut self.cli_command(arguments)?, input.as_bytes(), limit)?)
    }

    /// Starts the command line in the background, such as `watch`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn cli_in_background(&self, arguments: &[&str], log: &str) -> Result<Process> {
        Ok(Process::start(&mut self.cli_command(arguments)?, &self.namespace.log_path(log))?)
    }

    /// Imports a profile and gives the name that was printed.
    ///
    /// # Errors
    /// When it is refused.
    pub fn import(&self, profile: &ProfileText) -> Result<String> {
        let file = self.dir.join(format!("{}.toml", profile.name));
        fs::write(&file, profile.text()).context("write the profile")?;
        let finished = self.cli(&["import", &file.display().to_string()])?.success()?;
        let name = finished.stdout.trim().to_owned();
        ensure!(name == profile.name, "import printed {name:?}");
        Ok(name)
    }

    /// Imports and connects; fails unless that succeeds.
    ///
    /// # Errors
    /// When it does not connect.
    pub fn connect(&self, profile: &ProfileText, password: Option<&str>) -> Result<Finished> {
        self.import(profile)?;
        Ok(self.try_connect(&profile.name, password, 30)?.success()?)
    }

    /// `ropewalk connect NAME --wait SECONDS`, with the password on standard input when there is one.
    ///
    /// # Errors
    /// When the command cannot be started or does not keep its own time limit.
    pub fn try_connect(&self, name: &str, password: Option<&str>, wait: u64) -> Result<Finished> {
        let wait_text = wait.to_string();
        let mut arguments = vec!["connect", name, "--wait", &wait_text];
        if password.is_some() {
            arguments.push("--password-stdin");
        }
        let input = password.map(|password| format!("{password}\n")).unwrap_or_default();
        self.cli_with_input(&arguments, &input, Duration::from_secs(wait + 10))
    }

    /// Expects the attempt to fail with `code`, one plain line on stderr with `word` in it, within `limit`.
    ///
    /// # Errors
    /// When it ends in any other way.
    pub fn expect_refusal(
        &self,
        profile: &ProfileText,
        password: Option<&str>,
        code: i32,
        word: &str,
        limit: Duration,
    ) -> Result<()> {
        self.import(profile)?;
        let started = Instant::now();
        let finished = self.try_connect(&profile.name, password, limit.as_secs() + 20)?;
        let took = started.elapsed();
        ensure!(finished.code == code, "expected exit code {code}: {finished:?}");
        ensure!(took <= limit, "it took {took:?}, the limit is {limit:?}");
        let lines: Vec<_> = finished.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        ensure!(lines.len() == 1, "one line of plain words, not {lines:?}");
        let sentence = finished.stderr.to_lowercase();
        ensure!(sentence.contains(word), "{word:?} is not in {sentence:?}");
        for secret in password.into_iter().chain(["p4ssword", "correct horse battery"]) {
            ensure!(!finished.stderr.contains(secret), "a secret is printed: {sentence}");
        }
        let state = self.state()?;
        ensure!(state != "connected" && state != "connecting", "the state is {state} after a failure");
        Ok(())
    }

    /// `ropewalk status --json`.
    ///
    /// # Errors
    /// When the helper does not answer with an object.
    pub fn status(&self) -> Result<Value> {
        let finished = self.cli(&["status", "--json"])?.success()?;
        serde_json::from_str(&finished.stdout).with_context(|| format!("status: {}", finished.stdout))
    }

    /// The state in it.
    ///
    /// # Errors
    /// When the helper does not answer.
    pub fn state(&self) -> Result<String> {
        let status = self.status()?;
        let Some(state) = status.get("state").and_then(Value::as_str) else { bail!("no state in {status}") };
        Ok(state.to_owned())
    }

    /// Waits for a state.
    ///
    /// # Errors
    /// When it does not come.
    pub fn wait_for_state(&self, state: &str, limit: Duration) -> Result<()> {
        let what = format!("the state {state}");
        Ok(until(&what, limit, || self.state().is_ok_and(|now| now == state).then_some(()))?)
    }

    /// A value of the status by its JSON pointer, such as `/ike/0/spi_i`.
    ///
    /// # Errors
    /// When there is none.
    pub fn status_at(&self, pointer: &str) -> Result<Value> {
        let status = self.status()?;
        status.pointer(pointer).cloned().with_context(|| format!("no {pointer} in {status}"))
    }

    /// `ropewalk disconnect`.
    ///
    /// # Errors
    /// When it fails.
    pub fn disconnect(&self) -> Result<()> {
        self.cli(&["disconnect", "--wait", "10"])?.success()?;
        let state = self.state()?;
        ensure!(state == "disconnected", "the state is {state} after disconnect");
        Ok(())
    }

    /// Asks the helper to end (SIGTERM) and gives its exit code.
    ///
    /// # Errors
    /// When it does not end.
    pub fn terminate_helper(&mut self) -> Result<i32> {
        let mut helper = self.helper.take().context("the helper is not running")?;
        Ok(helper.terminate(PATIENCE)?)
    }

    /// Kills the helper (SIGKILL).
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill_helper(&mut self) -> Result<()> {
        let mut helper = self.helper.take().context("the helper is not running")?;
        helper.signal(Signal::SIGKILL)?;
        helper.wait(PATIENCE)?;
        Ok(())
    }

    /// The helper's process id.
    ///
    /// # Errors
    /// When it is not running.
    pub fn helper_pid(&self) -> Result<u32> {
        Ok(self.helper.as_ref().context("the helper is not running")?.pid())
    }

    /// The helper's log so far (of the running one).
    #[must_use]
    pub fn helper_log(&self) -> String {
        self.helper.as_ref().map(Process::log).unwrap_or_default()
    }

    fn cli_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(self.programs.path("ropewalk")?);
        command.args(arguments).env("ROPEWALK_SOCKET", self.dir.join("run/helper.sock"));
        Ok(command)
    }
}
