//! The record of what is changed, written before it is changed.
//!
//! `STATE_DIR/net-journal.json` (0600) is replaced atomically: temporary file, fsync, rename, fsync of the folder. A
//! helper that starts finds in it what a killed one left. The bytes of a `resolv.conf` that was replaced lie beside
//! it, in `resolv.conf.original`.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::dns::DnsRecord;
use super::plan::Plan;
use super::sysctl;
use crate::{NetError, TunnelConfig};

const FORMAT: u32 = 1;

/// Everything that is changed at the moment, or about to be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Journal {
    format: u32,
    /// After a reboot the kernel has forgotten, but files have not.
    pub boot_id: String,
    /// By device name.
    pub tunnels: BTreeMap<String, TunnelRecord>,
    pub dns: DnsRecord,
    pub sysctls: Vec<sysctl::Changed>,
}

/// One tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct TunnelRecord {
    pub slot: u32,
    pub config: TunnelConfig,
    /// What the kernel holds; two while a tunnel moves from one to the other.
    pub plans: Vec<Plan>,
    /// Undoing it has failed on the way: what of the plans still stands is not known.
    #[serde(default)]
    pub torn: bool,
}

impl TunnelRecord {
    /// Whether the kernel holds all of it, for this device.
    pub fn stands(&self, index: u32) -> bool {
        !self.torn && self.config.device.index == index
    }
}

/// The journal's file.
#[derive(Clone, Debug)]
pub(super) struct JournalFile {
    folder: PathBuf,
}

impl JournalFile {
    /// Makes the folder when there is none.
    pub(super) fn open(folder: &Path) -> Result<Self, NetError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| NetError::io(format!("creating {}", folder.display()), e))?;
        Ok(JournalFile { folder: folder.to_owned() })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.join("net-journal.json")
    }

    /// Where the original `resolv.conf` is kept.
    pub(super) fn backup_path(&self) -> PathBuf {
        self.folder.join("resolv.conf.original")
    }

    /// What the file says; an empty journal of this boot when there is none.
    pub(super) fn load(&self) -> Result<Journal, NetError> {
        let path = self.path();
        let unusable = |reason: String| NetError::Journal { path: path.clone(), reason };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Journal::of_this_boot()),
            Err(e) => return Err(unusable(e.to_string())),
        };
        let journal: Journal = serde_json::from_slice(&bytes).map_err(|e| unusable(e.to_string()))?;
        if journal.format != FORMAT {
            return Err(unusable(format!("format {} is not {FORMAT}", journal.format)));
        }
        Ok(journal)
    }

    /// Replaces the file, on disk before this returns; removes it when there is nothing to record. What outlives a loss
    /// of power needs this: the name servers in a file.
    pub(super) fn save(&self, journal: &Journal) -> Result<(), NetError> {
        self.write(journal, Durability::PowerLoss)
    }

    /// As [`Self::save`], but survives no more than the end of this process: devices, routes and rules go with the power, and
    /// waiting for the disk is what a connection would otherwise spend its time on.
    pub(super) fn save_for_this_boot(&self, journal: &Journal) -> Result<(), NetError> {
        self.write(journal, Durability::ProcessEnd)
    }

    fn write(&self, journal: &Journal, durability: Durability) -> Result<(), NetError> {
        let path = self.path();
        if journal.is_empty() {
            return match fs::remove_file(&path) {
                Ok(()) => Ok(()),
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
                Err(e) => Err(NetError::io(format!("removing {}", path.display()), e)),
            };
        }
        let bytes = serde_json::to_vec(journal)
            .map_err(|e| NetError::Journal { path: path.clone(), reason: e.to_string() })?;
        replace(&path, &bytes, 0o600, durability)
    }

    /// Puts an unusable journal aside for inspection.
    pub(super) fn put_aside(&self) -> Result<(), NetError> {
        let path = self.path();
        let aside = path.with_extension("json.unreadable");
        fs::rename(&path, &aside).map_err(|e| NetError::io(format!("putting {} aside", path.display()), e))
    }
}

impl Journal {
    pub(super) fn of_this_boot() -> Self {
        Journal { format: FORMAT, boot_id: boot_id(), ..Journal::default() }
    }

    pub(super) fn is_of_this_boot(&self) -> bool {
        self.boot_id == boot_id()
    }

    fn is_empty(&self) -> bool {
        self.tunnels.is_empty() && self.sysctls.is_empty() && self.dns == DnsRecord::default()
    }
}

/// What a written file must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// The end of this process, however it ends.
    ProcessEnd,
    /// The end of everything: on disk before the call returns.
    PowerLoss,
}

/// Replaces a file by rename.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> Result<(), NetError> {
    let failed = |e| NetError::io(format!("writing {}", path.display()), e);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".ropewalk-new");
    let temporary = PathBuf::from(temporary);
    // A leftover of a killed helper; create_new below then refuses links that others may have put there.
    if let Err(e) = fs::remove_file(&temporary)
        && e.kind() != ErrorKind::NotFound
    {
        return Err(failed(e));
    }
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| {
            // The process's umask must not decide who can read this.
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
            file.write_all(bytes)?;
            if durability == Durability::PowerLoss { file.sync_all() } else { Ok(()) }
        })
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(e) = written {
        let _ = fs::remove_file(&temporary);
        return Err(failed(e));
    }
    match durability {
        Durability::PowerLoss => sync_folder_of(path).map_err(failed),
        Durability::ProcessEnd => Ok(()),
    }
}

/// Makes a rename in that folder durable.
pub(super) fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::DeviceRef;

    fn with_a_tunnel() -> Journal {
        let config = TunnelConfig::new(DeviceRef { name: "ropewalk0".into(), index: 3 });
        let record = TunnelRecord { slot: 0, config, plans: vec![Plan::default()], torn: false };
        let mut journal = Journal::of_this_boot();
        journal.tunnels.insert("ropewalk0".into(), record);
        journal
    }

    #[test]
    fn what_is_saved_is_loaded_and_only_root_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = JournalFile::open(&folder.path().join("state")).unwrap();
        let journal = with_a_tunnel();
        file.save(&journal).unwrap();
        assert_eq!(file.load().unwrap(), journal);
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(folder.path().join("state")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn an_empty_journal_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = JournalFile::open(folder.path()).unwrap();
        file.save(&with_a_tunnel()).unwrap();
        file.save(&Journal::of_this_boot()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(file.load().unwrap(), Journal::of_this_boot());
    }

    #[test]
    fn garbage_and_other_formats_are_named_errors() {
        let folder = tempfile::tempdir().unwrap();
        let file = JournalFile::open(folder.path()).unwrap();
        let other = Journal { format: 99, ..with_a_tunnel() };
        for bytes in [b"".to_vec(), b"{".to_vec(), vec![0xff; 40], serde_json::to_vec(&other).unwrap()] {
            fs::write(file.path(), bytes).unwrap();
            assert!(matches!(file.load(), Err(NetError::Journal { .. })));
        }
        file.put_aside().unwrap();
        assert_eq!(file.load().unwrap(), Journal::of_this_boot());
    }
}
