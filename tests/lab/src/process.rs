//! Programs that the laboratory runs: to their end with a time limit ([`run`]), or in the background ([`Process`]).

use std::{
    fs::File,
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::error::{Context, LabError, Result};

/// How often a background condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// What a program that ran to its end left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Exit code, or 128 + signal number, as a shell reports it.
    pub code: i32,
    /// Standard output, lossily as UTF-8.
    pub stdout: String,
    /// Standard error, lossily as UTF-8.
    pub stderr: String,
    /// From start to end.
    pub elapsed: Duration,
    command: String,
}

impl Finished {
    /// Itself when the code is zero.
    ///
    /// # Errors
    /// [`LabError::Command`] with all output otherwise.
    pub fn success(self) -> Result<Self> {
        if self.code == 0 {
            return Ok(self);
        }
        Err(LabError::Command {
            command: self.command,
            status: format!("exit code {}", self.code),
            output: format!("{}{}", self.stdout, self.stderr),
        })
    }
}

/// Runs a program to its end, feeding it `input`, and kills it after `limit`.
///
/// # Errors
/// When the program cannot be started or does not end in time. A status other than zero is not an error here.
pub fn run(command: &mut Command, input: &[u8], limit: Duration) -> Result<Finished> {
    let described = describe(command);
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| start_error(command, source))?;
    let mut stdin = child.stdin.take();
    let input = input.to_vec();
    // Each pipe has its own thread, so that none can fill up and block the program.
    let writer = thread::spawn(move || {
        if let Some(pipe) = stdin.as_mut() {
            // A program that does not read its input is its own business.
            let _ = pipe.write_all(&input);
        }
    });
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = match wait(&mut child, limit)? {
        Some(status) => status,
        None => {
            let _ = child.kill();
            let _ = child.wait();
            let output = format!("{}{}", collect(stdout), collect(stderr));
            return Err(LabError::Timeout {
                what: format!("the end of `{described}`"),
                limit,
                detail: format!("; it printed: {output}"),
            });
        }
    };
    let _ = writer.join();
    Ok(Finished {
        code: code_of(status),
        stdout: collect(stdout),
        stderr: collect(stderr),
        elapsed: started.elapsed(),
        command: described,
    })
}

/// A program in the background; it is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with its output (both kinds) appended to `log`, in a process group of its own.
    ///
    /// # Errors
    /// When the program or the log cannot be opened.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .context(|| format!("open the log {}", log.display()))?;
        let err = out.try_clone().context(|| "duplicate the log".to_owned())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .map_err(|source| start_error(command, source))?;
        Ok(Self { child, name, log: log.to_owned(), ended: None })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        read_lossy(&self.log)
    }

    /// Whether it has not ended yet.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn is_running(&mut self) -> Result<bool> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().context(|| format!("look at {}", self.name))?;
        }
        Ok(self.ended.is_none())
    }

    /// Waits until `pattern` stands in the log.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the log when it does not come, or when the program ends before.
    pub fn wait_for_log(&mut self, pattern: &str, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            if self.log().contains(pattern) {
                return Ok(());
            }
            if Instant::now() > end || !self.is_running()? {
                return Err(LabError::Timeout {
                    what: format!("`{pattern}` in the log of {}", self.name),
                    limit,
                    detail: format!("; the log: {}", self.log()),
                });
            }
            thread::sleep(POLL);
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // The child is not reaped before `ended` is set, so the id cannot have been given to another process.
        if !self.is_running()? {
            return Err(LabError::Io {
                what: format!("signal {}", self.name),
                source: std::io::Error::from(std::io::ErrorKind::NotFound),
            });
        }
        kill(pid_of(&self.child), signal)
            .map_err(std::io::Error::from)
            .context(|| format!("signal {}", self.name))
    }

    /// Waits for the end and gives the exit code (128 + signal number when killed).
    ///
    /// # Errors
    /// [`LabError::Timeout`] when it goes on.
    pub fn wait(&mut self, limit: Duration) -> Result<i32> {
        if let Some(status) = self.ended {
            return Ok(code_of(status));
        }
        let Some(status) = wait(&mut self.child, limit)? else {
            return Err(LabError::Timeout {
                what: format!("the end of {}", self.name),
                limit,
                detail: format!("; the log: {}", self.log()),
            });
        };
        self.ended = Some(status);
        Ok(code_of(status))
    }

    /// Asks it to end (SIGTERM) and waits for that.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn terminate(&mut self, limit: Duration) -> Result<i32> {
        if self.is_running()? {
            self.signal(Signal::SIGTERM)?;
        }
        self.wait(limit)
    }

    /// Asks it and everything it started to end (SIGTERM to its process group), for programs that start others.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn terminate_group(&mut self, limit: Duration) -> Result<i32> {
        if self.is_running()? {
            killpg(pid_of(&self.child), Signal::SIGTERM)
                .map_err(std::io::Error::from)
                .context(|| format!("signal the group of {}", self.name))?;
        }
        self.wait(limit)
    }

    /// Ends it without asking (SIGKILL).
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill(&mut self) -> Result<()> {
        if self.is_running()? {
            self.signal(Signal::SIGKILL)?;
        }
        self.wait(Duration::from_secs(5)).map(|_| ())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running().unwrap_or(false) {
            let _ = killpg(pid_of(&self.child), Signal::SIGKILL);
        }
        let _ = self.kill();
    }
}

/// Waits until `condition` gives a value.
///
/// # Errors
/// [`LabError::Timeout`] naming `what` when it never does.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if Instant::now() > end {
            return Err(LabError::Timeout { what: what.to_owned(), limit, detail: String::new() });
        }
        thread::sleep(POLL);
    }
}

/// A file's text, lossily; nothing when it cannot be read.
pub(crate) fn read_lossy(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().context(|| "wait for a program".to_owned())? {
            return Ok(Some(status));
        }
        if Instant::now() > end {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn code_of(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn collect(reader: thread::JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}

fn start_error(command: &Command, source: std::io::Error) -> LabError {
    LabError::Start { program: command.get_program().to_string_lossy().into_owned(), source }
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}
