//! A laboratory: one run's namespaces and files under one unique prefix, all of it gone at its end.
//!
//! Each run holds a lock on a file named after its prefix. A run that was killed leaves the file without the lock, and the
//! next run that starts sweeps what it left: processes, namespaces, `/etc/netns` folders and its folder of files.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    error::{Context, LabError, Result},
    netns::Namespace,
    process::{read_lossy, run},
};

/// Where the lock files of running laboratories are.
const LOCKS: &str = "/run/ropewalk-lab";

/// Locked by whoever sweeps or makes a lock file.
const SWEEPING: &str = "/run/ropewalk-lab.sweeping";

/// Limit of one administrative command; they take milliseconds, but a loaded machine may stall.
pub(crate) const ADMIN_LIMIT: Duration = Duration::from_secs(30);

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// One run's laboratory. Clones share it; the last one to go tears everything down.
#[derive(Debug, Clone)]
pub struct Lab {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    prefix: String,
    dir: PathBuf,
    lock_path: PathBuf,
    _lock: Flock<File>,
}

impl Lab {
    /// Opens a laboratory and sweeps what killed runs have left.
    ///
    /// # Errors
    /// When not root, or a needed tool is missing.
    pub fn new() -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::Io {
                what: "network namespaces need root: run the tests as root or with sudo".to_owned(),
                source: std::io::Error::from(std::io::ErrorKind::PermissionDenied),
            });
        }
        fs::create_dir_all(LOCKS).context(|| format!("make {LOCKS}"))?;
        let sweeping = alone()?;
        sweep_alone()?;
        let prefix = format!(
            "rw{}x{}",
            base32(u64::from(std::process::id())),
            base32(COUNTER.fetch_add(1, Ordering::Relaxed))
        );
        let lock_path = Path::new(LOCKS).join(&prefix);
        let file = File::create(&lock_path).context(|| format!("make {}", lock_path.display()))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| std::io::Error::from(errno))
            .context(|| format!("lock {}", lock_path.display()))?;
        let dir = tempfile::Builder::new()
            .prefix(&format!("{prefix}-"))
            .tempdir()
            .context(|| "make the laboratory's folder".to_owned())?
            .keep();
        fs::write(&lock_path, dir.as_os_str().as_encoded_bytes())
            .context(|| format!("write {}", lock_path.display()))?;
        drop(sweeping);
        Ok(Self { inner: Arc::new(Inner { prefix, dir, lock_path, _lock: lock }) })
    }

    /// Makes a namespace with its loopback up. `role` is a short word, unique in this laboratory.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn namespace(&self, role: &str) -> Result<Namespace> {
        Namespace::create(self, format!("{}-{role}", self.inner.prefix))
    }

    /// The folder of this run's files: configurations, keys, logs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// What all names of this run begin with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.inner.prefix
    }

    /// The end of every log of this run, to be printed when a test fails.
    #[must_use]
    pub fn logs(&self, lines: usize) -> String {
        let mut text = String::new();
        let mut paths: Vec<_> = logs_below(&self.inner.dir);
        paths.sort();
        for path in paths {
            let log = read_lossy(&path);
            let all: Vec<&str> = log.lines().collect();
            let tail = all.get(all.len().saturating_sub(lines)..).unwrap_or_default();
            let name = path.strip_prefix(&self.inner.dir).unwrap_or(&path);
            text.push_str(&format!(
                "---- {} (last {} lines)\n{}\n",
                name.display(),
                tail.len(),
                tail.join("\n")
            ));
        }
        text
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if std::env::var_os("ROPEWALK_LAB_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.dir);
        }
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Removes what runs that are no longer alive have left.
///
/// # Errors
/// When the lock files cannot be listed. What cannot be removed is logged and left.
pub fn sweep() -> Result<()> {
    let _sweeping = alone()?;
    sweep_alone()
}

/// Waits until no other run, or thread of this one, sweeps or makes its lock file.
fn alone() -> Result<Flock<File>> {
    let file = File::create(SWEEPING).context(|| format!("make {SWEEPING}"))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| std::io::Error::from(errno))
        .context(|| format!("lock {SWEEPING}"))
}

/// With [`alone`]'s lock held: a lock file that is not locked is then a dead run's, and is whole.
fn sweep_alone() -> Result<()> {
    let entries = match fs::read_dir(LOCKS) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(LabError::Io { what: format!("list {LOCKS}"), source }),
    };
    for entry in entries.flatten() {
        let Ok(file) = File::open(entry.path()) else { continue };
        // A live run holds the lock.
        let Ok(_lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
        let prefix = entry.file_name().to_string_lossy().into_owned();
        let content = read_lossy(&entry.path());
        tracing::info!(prefix, "sweeping what a killed run has left");
        for name in namespaces_with(&prefix) {
            remove_namespace(&name);
        }
        let dir = Path::new(content.trim());
        if dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{prefix}-"))) {
            let _ = fs::remove_dir_all(dir);
        }
        let _ = fs::remove_file(entry.path());
    }
    Ok(())
}

/// Ends every process in a namespace and removes it with its `/etc/netns` folder. Best effort: it runs in `Drop`.
pub(crate) fn remove_namespace(name: &str) {
    if let Ok(finished) = run(Command::new("ip").args(["netns", "pids", name]), &[], ADMIN_LIMIT) {
        for pid in finished.stdout.split_whitespace().filter_map(|word| word.parse::<i32>().ok()) {
            // A thread of this very process may still be inside; it ends by itself.
            if u32::try_from(pid).is_ok_and(|pid| pid != std::process::id()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
    if let Err(error) = run(Command::new("ip").args(["netns", "del", name]), &[], ADMIN_LIMIT)
        .and_then(super::process::Finished::success)
    {
        tracing::warn!(name, %error, "namespace not removed");
    }
    let _ = fs::remove_dir_all(Path::new("/etc/netns").join(name));
}

fn namespaces_with(prefix: &str) -> Vec<String> {
    let start = format!("{prefix}-");
    let Ok(entries) = fs::read_dir("/run/netns") else { return Vec::new() };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&start))
        .collect()
}

fn logs_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(logs_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "log") {
            found.push(path);
        }
    }
    found
}

/// Digits 0-9 and a-v, so that `x` can separate two numbers.
fn base32(mut number: u64) -> String {
    const DIGITS: [char; 32] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j',
        'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's', 't', 'u', 'v',
    ];
    let mut digits = Vec::new();
    loop {
        if let Some(digit) = DIGITS.get(usize::try_from(number % 32).unwrap_or_default()) {
            digits.push(*digit);
        }
        number /= 32;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}
