//! What the desktop around us offers: is there a panel that shows tray icons? Without one a hidden window could not be
//! brought back, so then closing it quits.

use std::sync::atomic::{AtomicBool, Ordering};

use tauri::AppHandle;

static TRAY_HOST: AtomicBool = AtomicBool::new(cfg!(not(target_os = "linux")));

/// True while something shows tray icons. Always on Windows and macOS.
#[must_use]
pub fn has_tray_host() -> bool {
    TRAY_HOST.load(Ordering::Relaxed)
}

/// Watches for a panel with StatusNotifier support on the session bus, where panels come and go. When the last one
/// goes while the window is hidden, the window is shown again: nothing else could bring it back.
#[cfg(target_os = "linux")]
pub fn watch_tray_host(app: &AppHandle) {
    const WATCHER: &str = "org.kde.StatusNotifierWatcher";
    let app = app.clone();
    // Never unwatched: it is wanted for the life of the program.
    let _watch = gio::bus_watch_name(
        gio::BusType::Session,
        WATCHER,
        gio::BusNameWatcherFlags::NONE,
        |_bus, _name, _owner| TRAY_HOST.store(true, Ordering::Relaxed),
        move |_bus, _name| {
            let had = TRAY_HOST.swap(false, Ordering::Relaxed);
            if had {
                crate::window::show(&app);
            }
        },
    );
}

/// Nothing to watch: there is always one.
#[cfg(not(target_os = "linux"))]
pub fn watch_tray_host(_app: &AppHandle) {}
