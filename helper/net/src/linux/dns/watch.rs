//! Notices that somebody else touched name resolution: the file, or a manager that came or went.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::{Bus, network_manager, resolved};

/// Editors and managers write a file in several steps.
const SETTLE: Duration = Duration::from_millis(200);

/// How long to wait for a bus that is not there, or went.
const RETRY: Duration = Duration::from_secs(30);

/// Raises the counter when the file, or what it leads to, changes. Runs until dropped.
pub(in crate::linux) async fn file(path: PathBuf, counter: watch::Sender<u64>) {
    let Ok(inotify) = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC) else { return };
    // SAFETY: `Watched` owns the descriptor, never replaces it, and lives inside the `AsyncFd`.
    let registered = unsafe { AsyncFd::register_with_interest(Watched(inotify), Interest::READABLE) };
    let Ok(inotify) = registered else { return };
    loop {
        observe(&inotify.get_ref().0, &path);
        let Ok(mut ready) = inotify.readable().await else { return };
        let events = inotify.get_ref().0.read_events();
        ready.clear_ready();
        let name = path.file_name();
        // Events of a file itself carry no name.
        if events.is_ok_and(|all| all.iter().any(|e| e.name.is_none() || e.name.as_deref() == name)) {
            tokio::time::sleep(SETTLE).await;
            let _ = inotify.get_ref().0.read_events();
            counter.send_modify(|count| *count += 1);
        }
    }
}

/// Raises the counter when resolved or NetworkManager starts or ends. Runs until dropped.
pub(in crate::linux) async fn services(bus: Arc<Bus>, counter: watch::Sender<u64>) {
    loop {
        if let Err(error) = owners(&bus, &counter).await {
            tracing::debug!(%error, "not watching the system bus");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn owners(bus: &Bus, counter: &watch::Sender<u64>) -> zbus::Result<()> {
    let connection = bus.connect().await?;
    let proxy = zbus::fdo::DBusProxy::new(&connection).await?;
    let mut changes = proxy.receive_name_owner_changed().await?;
    while let Some(change) = changes.next().await {
        let Ok(change) = change.args() else { continue };
        if [resolved::SERVICE, network_manager::SERVICE].contains(&change.name().as_str()) {
            tokio::time::sleep(SETTLE).await;
            counter.send_modify(|count| *count += 1);
        }
    }
    Ok(())
}

/// The folder tells of renames; the file itself is watched too, since it may be mounted there from elsewhere, or be a
/// link. Watches of what was replaced fall away, so they are set again each time.
fn observe(inotify: &Inotify, path: &Path) {
    let flags = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE;
    if let Some(folder) = path.parent() {
        let _ = inotify.add_watch(folder, flags);
    }
    let _ = inotify.add_watch(path, AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVE_SELF);
}

#[derive(Debug)]
struct Watched(Inotify);

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for Watched {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&self.0.as_fd())
    }
}
