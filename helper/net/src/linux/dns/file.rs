//! `/etc/resolv.conf` itself, when nobody rules it.
//!
//! The original (file or symbolic link) is copied beside the journal before anything is changed, and put back with its
//! bytes, mode and owner. The file is replaced by rename; where it is bind-mounted, as in network namespaces, it is
//! written in place. Whoever changes the file in the meantime is respected: on the way back nothing is overwritten
//! that is not our own text, and while the tunnel is up the new text becomes the original (see [`prepare`]).

use std::fmt::Write as _;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Want, nameservers, search_domains, searches};
use crate::linux::journal;
use crate::{DnsManager, NetError};

const HEADER: &str = "# Written by Ropewalk while a tunnel is up; the original comes back when it ends.\n";

/// More than this is no resolver configuration.
const LIMIT: u64 = 1 << 20;

/// What we wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileRecord {
    /// Texts of ours that may be in the file: the last is what shall be there, an earlier one what was.
    written: Vec<String>,
    /// There was no file at all.
    was_absent: bool,
}

impl FileRecord {
    /// Whether the file is our work: one of our texts, or the beginning of one when writing in place was cut short.
    pub(super) fn is_ours(&self, path: &Path) -> bool {
        match Original::read(path) {
            Ok(Original::File { bytes, .. }) => {
                !bytes.is_empty() && self.written.iter().any(|w| w.as_bytes().starts_with(&bytes))
            }
            Ok(Original::Link { .. } | Original::Absent) | Err(_) => false,
        }
    }
}

/// What stands at a path.
#[derive(Debug, PartialEq, Eq)]
enum Original {
    File { bytes: Vec<u8>, mode: u32, owner: (u32, u32) },
    Link { target: PathBuf },
    Absent,
}

/// Saves the original, unless what is there is our own text, and composes the new one.
pub(super) fn prepare(
    path: &Path,
    backup: &Path,
    old: Option<&FileRecord>,
    wants: &[Want],
) -> Result<FileRecord, NetError> {
    let (was_absent, mut written) = match old.filter(|record| record.is_ours(path)) {
        Some(record) => (record.was_absent, record.written.clone()),
        None => {
            let original = Original::read(path)?;
            original.write(backup)?;
            (original == Original::Absent, Vec::new())
        }
    };
    let original = if was_absent { String::new() } else { text_behind(backup, path) };
    written.push(compose(wants, &original));
    Ok(FileRecord { written, was_absent })
}

/// Writes the text.
pub(super) fn perform(path: &Path, record: &mut FileRecord) -> Result<(), NetError> {
    let Some(text) = record.written.last().cloned() else { return Ok(()) };
    let unchanged = matches!(Original::read(path)?, Original::File { bytes, .. } if bytes == text.as_bytes());
    if !unchanged {
        let file = Original::File { bytes: text.clone().into_bytes(), mode: 0o644, owner: (0, 0) };
        file.write(path)?;
    }
    record.written = vec![text];
    Ok(())
}

/// Puts the original back, if what is there is ours.
pub(super) fn undo(path: &Path, backup: &Path, record: &FileRecord) -> Result<(), NetError> {
    if record.is_ours(path) {
        let original = if record.was_absent { Original::Absent } else { Original::read(backup)? };
        if original == Original::Absent && !record.was_absent {
            return Err(failed(format!("the saved original {} is missing", backup.display())));
        }
        original.write(path)?;
    } else {
        tracing::info!(path = %path.display(), "name servers were changed by somebody else: left alone");
    }
    Original::Absent.write(backup)
}

/// The same without a record: our header tells our work.
pub(super) fn undo_by_header(path: &Path, backup: &Path) -> Result<bool, NetError> {
    let ours =
        matches!(Original::read(path)?, Original::File { bytes, .. } if bytes.starts_with(HEADER.as_bytes()));
    let original = Original::read(backup)?;
    if !ours || original == Original::Absent {
        return Ok(false);
    }
    original.write(path)?;
    Original::Absent.write(backup)?;
    Ok(true)
}

/// The text of all tunnels together. With a tunnel for all names nobody else is asked; when all tunnels are for some
/// domains only, which this file cannot express, their servers stand before the original ones. The resolver takes the
/// first three.
fn compose(wants: &[Want], original: &str) -> String {
    let (full, split): (Vec<&Want>, Vec<&Want>) = wants.iter().partition(|w| w.config.domains.is_empty());
    let mut servers: Vec<String> = Vec::new();
    let mut search: Vec<String> = Vec::new();
    for want in full.iter().chain(&split) {
        servers.extend(want.config.servers.iter().map(ToString::to_string));
        search.extend(search_domains(&want.config).map(str::to_owned));
    }
    let mut options = String::new();
    if full.is_empty() {
        servers.extend(nameservers(original).iter().map(ToString::to_string));
        search.extend(searches(original));
        for line in original.lines().filter(|line| line.starts_with("options")) {
            let _ = writeln!(options, "{line}");
        }
    }
    let mut text = HEADER.to_owned();
    for server in first_of_each(servers) {
        let _ = writeln!(text, "nameserver {server}");
    }
    let search = first_of_each(search);
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    text + &options
}

fn first_of_each(mut items: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    items.retain(|item| seen.insert(item.clone()));
    items
}

/// The text of the saved original; a saved link is followed from where it stood.
fn text_behind(backup: &Path, place: &Path) -> String {
    super::Seen::read(backup, place).text
}

impl Original {
    fn read(path: &Path) -> Result<Self, NetError> {
        let failed = |e| NetError::io(format!("reading {}", path.display()), e);
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Original::Absent),
            Err(e) => return Err(failed(e)),
        };
        if metadata.is_symlink() {
            return Ok(Original::Link { target: fs::read_link(path).map_err(failed)? });
        }
        if !metadata.is_file() || metadata.len() > LIMIT {
            return Err(self::failed(format!("{} is no ordinary file", path.display())));
        }
        let bytes = fs::read(path).map_err(failed)?;
        Ok(Original::File { bytes, mode: metadata.mode() & 0o7777, owner: (metadata.uid(), metadata.gid()) })
    }

    fn write(&self, path: &Path) -> Result<(), NetError> {
        let failed = |e| NetError::io(format!("writing {}", path.display()), e);
        if let Original::File { bytes, .. } = self
            && is_mounted(path)
        {
            return write_in_place(path, bytes).map_err(failed);
        }
        let mut temporary = path.as_os_str().to_owned();
        // Its own for each process: helpers in several network namespaces may share the folder.
        temporary.push(format!(".ropewalk-{}", std::process::id()));
        let temporary = PathBuf::from(temporary);
        remove(&temporary).map_err(failed)?;
        let made = match self {
            Original::Absent => {
                remove(path).map_err(failed)?;
                return journal::sync_folder_of(path).map_err(failed);
            }
            Original::Link { target } => std::os::unix::fs::symlink(target, &temporary),
            Original::File { bytes, mode, owner } => write_new(&temporary, bytes, *mode, *owner),
        };
        let renamed = made.and_then(|()| fs::rename(&temporary, path));
        match (renamed, self) {
            (Ok(()), _) => journal::sync_folder_of(path).map_err(failed),
            (Err(e), Original::File { bytes, .. }) if e.raw_os_error() == Some(libc::EBUSY) => {
                // Something is mounted there, so it cannot be renamed over.
                remove(&temporary).map_err(failed)?;
                write_in_place(path, bytes).map_err(failed)
            }
            (Err(e), _) => {
                let _ = remove(&temporary);
                Err(failed(e))
            }
        }
    }
}

fn write_new(path: &Path, bytes: &[u8], mode: u32, owner: (u32, u32)) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Whether something is mounted at this path, as in a network namespace: then it cannot be renamed over.
fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == path))
}

fn write_in_place(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

fn failed(reason: String) -> NetError {
    NetError::Dns { manager: DnsManager::ResolvConfFile, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DnsConfig;

    struct Place {
        _folder: tempfile::TempDir,
        path: PathBuf,
        backup: PathBuf,
    }

    fn place() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let backup = folder.path().join("original");
        Place { _folder: folder, path, backup }
    }

    fn want(servers: &[&str], domains: &[&str]) -> Want {
        Want {
            interface: "ropewalk0".into(),
            index: 3,
            config: DnsConfig {
                servers: servers.iter().map(|s| s.parse().unwrap()).collect(),
                domains: domains.iter().map(|d| (*d).to_owned()).collect(),
                search: Vec::new(),
            },
        }
    }

    fn write(place: &Place, old: Option<&FileRecord>, wants: &[Want]) -> FileRecord {
        let mut record = prepare(&place.path, &place.backup, old, wants).unwrap();
        perform(&place.path, &mut record).unwrap();
        record
    }

    #[test]
    fn bytes_and_mode_come_back() {
        let place = place();
        let bytes = b"# caf\xe9\nnameserver 192.0.2.1\n\n\n";
        fs::write(&place.path, bytes).unwrap();
        fs::set_permissions(&place.path, Permissions::from_mode(0o640)).unwrap();
        let before = Original::read(&place.path).unwrap();
        let record = write(&place, None, &[want(&["10.0.0.53"], &[])]);
        assert_eq!(fs::read_to_string(&place.path).unwrap(), format!("{HEADER}nameserver 10.0.0.53\n"));
        undo(&place.path, &place.backup, &record).unwrap();
        assert_eq!(Original::read(&place.path).unwrap(), before);
        assert!(!place.backup.exists());
    }

    #[test]
    fn a_link_comes_back_as_the_same_link_and_absence_as_absence() {
        let place = place();
        std::os::unix::fs::symlink("../run/nowhere/resolv.conf", &place.path).unwrap();
        let record = write(&place, None, &[want(&["10.0.0.53"], &[])]);
        assert!(fs::symlink_metadata(&place.path).unwrap().is_file());
        undo(&place.path, &place.backup, &record).unwrap();
        assert_eq!(fs::read_link(&place.path).unwrap(), Path::new("../run/nowhere/resolv.conf"));

        fs::remove_file(&place.path).unwrap();
        let record = write(&place, None, &[want(&["10.0.0.53"], &[])]);
        undo(&place.path, &place.backup, &record).unwrap();
        assert!(!place.path.exists());
    }

    #[test]
    fn what_somebody_else_wrote_meanwhile_is_not_overwritten() {
        let place = place();
        fs::write(&place.path, "nameserver 192.0.2.1\n").unwrap();
        let record = write(&place, None, &[want(&["10.0.0.53"], &[])]);
        fs::write(&place.path, "nameserver 198.51.100.1\n").unwrap();
        undo(&place.path, &place.backup, &record).unwrap();
        assert_eq!(fs::read_to_string(&place.path).unwrap(), "nameserver 198.51.100.1\n");
    }

    #[test]
    fn what_somebody_else_wrote_meanwhile_becomes_the_original_when_we_write_again() {
        let place = place();
        fs::write(&place.path, "nameserver 192.0.2.1\n").unwrap();
        let wants = [want(&["10.0.0.53"], &[])];
        let record = write(&place, None, &wants);
        fs::write(&place.path, "nameserver 198.51.100.1\n").unwrap();
        let record = write(&place, Some(&record), &wants);
        assert!(record.is_ours(&place.path));
        undo(&place.path, &place.backup, &record).unwrap();
        assert_eq!(fs::read_to_string(&place.path).unwrap(), "nameserver 198.51.100.1\n");
    }

    #[test]
    fn a_kill_between_journal_and_writing_is_undone_either_way() {
        let place = place();
        fs::write(&place.path, "nameserver 192.0.2.1\n").unwrap();
        let first = write(&place, None, &[want(&["10.0.0.53"], &[])]);
        let second = prepare(&place.path, &place.backup, Some(&first), &[want(&["10.0.0.54"], &[])]).unwrap();
        undo(&place.path, &place.backup, &second).unwrap();
        assert_eq!(fs::read_to_string(&place.path).unwrap(), "nameserver 192.0.2.1\n");

        let unwritten = prepare(&place.path, &place.backup, None, &[want(&["10.0.0.53"], &[])]).unwrap();
        undo(&place.path, &place.backup, &unwritten).unwrap();
        assert_eq!(fs::read_to_string(&place.path).unwrap(), "nameserver 192.0.2.1\n");
    }

    #[test]
    fn without_a_record_the_header_is_enough() {
        let place = place();
        fs::write(&place.path, "nameserver 192.0.2.1\n").unwrap();
        assert!(!undo_by_header(&place.path, &place.backup).unwrap());
        write(&place, None, &[want(&["10.0.0.53"], &[])]);
        assert!(undo_by_header(&place.path, &place.backup).unwrap());
        assert_eq!(fs::read_to_string(&place.path).unwrap(), "nameserver 192.0.2.1\n");
    }

    #[test]
    fn a_tunnel_for_all_names_hides_the_original_servers_and_one_for_some_domains_does_not() {
        let original = "domain old\nsearch home.arpa\nnameserver 192.0.2.1\noptions edns0\n";
        let full = compose(&[want(&["10.0.0.53", "fd00::53"], &[])], original);
        assert_eq!(full, format!("{HEADER}nameserver 10.0.0.53\nnameserver fd00::53\n"));
        let split = compose(&[want(&["10.0.0.53"], &["corp.example", "~lab.example"])], original);
        assert_eq!(
            split,
            format!(
                "{HEADER}nameserver 10.0.0.53\nnameserver 192.0.2.1\nsearch corp.example home.arpa\noptions edns0\n"
            )
        );
        let both = compose(&[want(&["10.1.0.53"], &["a.example"]), want(&["10.0.0.53"], &[])], original);
        assert_eq!(both, format!("{HEADER}nameserver 10.0.0.53\nnameserver 10.1.0.53\nsearch a.example\n"));
    }
}
