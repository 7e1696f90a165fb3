//! What the desktop around us offers: is there a panel that shows tray icons? Without one a hidden window could not be
//! brought back, so then closing it quits.

use std::sync::atomic::{AtomicBool, Ordering};

use tauri::AppHandle;

static TRAY_HOST: AtomicBool = AtomicBool::new(cfg!(not(target_os = "linux")));

/// Has the web view draw with the processor rather than the graphics card. Our pages are small; where there is no
/// card (a virtual machine, a remote desktop), starting up its emulation takes seconds before the first frame, and where
/// there is one it is not worth its memory. Whoever has set a variable knows better. Call it first of all.
#[cfg(target_os = "linux")]
pub fn prepare_web_view() {
    let mut variables = vec!["WEBKIT_SKIA_ENABLE_CPU_RENDERING"];
    // Without this renderer nothing of the card is touched at all, but WebDriver's screenshots never come: so not when
    // the window is driven by tests.
    if std::env::var_os("TAURI_WEBVIEW_AUTOMATION").is_none() {
        variables.push("WEBKIT_DISABLE_DMABUF_RENDERER");
    }
    for variable in variables {
        if std::env::var_os(variable).is_none() {
            // SAFETY: nothing else has run yet, so no other thread reads or writes the environment.
            unsafe { std::env::set_var(variable, "1") };
        }
    }
}

/// Nothing to prepare.
#[cfg(not(target_os = "linux"))]
pub fn prepare_web_view() {}

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
