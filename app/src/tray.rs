//! The tray: an icon per state, the state in words, and a menu that is enough for daily use.
//!
//! On Linux a tray icon has no tooltip (libayatana-appindicator exports none), so the state also stands in its title
//! and in the menu's first line.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use ropewalk_ipc::{PathState, PathStatus, State};
use tauri::image::Image;
use tauri::menu::{CheckMenuItem, Menu, MenuEvent, MenuItem, PredefinedMenuItem};
use tauri::tray::{MouseButton, MouseButtonState, TrayIcon, TrayIconBuilder, TrayIconEvent};
use tauri::{AppHandle, Manager as _, Wry, include_image};

use crate::shared::Shared;
use crate::texts::Texts;
use crate::view::{AppView, Helper};
use crate::{deeds, window};

const STATUS: &str = "status";
const DEED: &str = "deed";
const OPEN: &str = "open";
const QUIT: &str = "quit";
const PROFILE: &str = "profile/";

/// What the tray shows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TrayView {
    icon: Icon,
    /// "Ropewalk: Connected"
    title: String,
    /// "Connected: Example Corp"
    line: String,
    /// Each profile, and whether it is the one shown.
    profiles: Vec<(String, bool)>,
    /// Text of Connect or Disconnect, and whether it can be chosen.
    deed: (String, bool),
    open: String,
    quit: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Icon {
    Disconnected,
    Connecting,
    Connected,
    Reconnecting,
    Blocked,
    Failed,
}

struct Parts {
    icon: TrayIcon<Wry>,
    items: Option<Items>,
    shown: Option<TrayView>,
}

struct Items {
    status: MenuItem<Wry>,
    profiles: Vec<CheckMenuItem<Wry>>,
    deed: MenuItem<Wry>,
}

/// The tray of the program; empty when the desktop's library for it is not there.
#[derive(Default)]
struct Tray(Mutex<Option<Parts>>);

/// Makes the tray's icon; [`show`] fills it. Without the library for it (on Linux it is loaded at run time) the
/// program works without a tray.
pub fn create(app: &AppHandle) {
    app.manage(Tray::default());
    // The library's binding panics when it finds none.
    let made = std::panic::catch_unwind(AssertUnwindSafe(|| {
        TrayIconBuilder::with_id("ropewalk")
            .icon(picture(Icon::Disconnected))
            .icon_as_template(cfg!(target_os = "macos"))
            .show_menu_on_left_click(cfg!(not(target_os = "windows")))
            .on_menu_event(|app, event| on_menu(app, &event))
            .on_tray_icon_event(|tray, event| {
                if let TrayIconEvent::Click {
                    button: MouseButton::Left,
                    button_state: MouseButtonState::Up,
                    ..
                } = event
                    && cfg!(target_os = "windows")
                {
                    window::show(tray.app_handle());
                }
            })
            .build(app)
    }));
    match made {
        Ok(Ok(icon)) => {
            let tray = app.state::<Tray>();
            *tray.0.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Parts { icon, items: None, shown: None });
            if let Some(shared) = app.try_state::<Arc<Shared>>() {
                show(app, &shared.read(crate::model::Model::view), &shared.texts());
            }
        }
        Ok(Err(error)) => tracing::warn!(%error, "no tray icon"),
        Err(_) => tracing::warn!("no tray icon: libayatana-appindicator3 is missing"),
    }
}

/// Shows the state. From any thread; the work is done on the main one, where menus live.
pub fn show(app: &AppHandle, view: &AppView, texts: &Texts) {
    let wanted = tray_view(view, texts);
    let handle = app.clone();
    let scheduled = app.run_on_main_thread(move || {
        let Some(tray) = handle.try_state::<Tray>() else { return };
        let mut parts = tray.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(parts) = parts.as_mut() else { return };
        if parts.shown.as_ref() == Some(&wanted) {
            return;
        }
        if let Err(error) = fill(&handle, parts, &wanted) {
            tracing::warn!(%error, "the tray does not show the state");
        }
        parts.shown = Some(wanted);
    });
    if let Err(error) = scheduled {
        tracing::debug!(%error, "the tray does not show the state");
    }
}

fn tray_view(view: &AppView, texts: &Texts) -> TrayView {
    let running = view.helper == Helper::Running || view.helper == Helper::Starting;
    let state = view.status.state;
    let name = view.status.profile.clone().or_else(|| view.selected.clone());
    let words = if running { texts.get(state_key(state)) } else { texts.get("tray.absent") };
    let deed = match state {
        State::Disconnected | State::Failed => ("action.connect", name.is_some()),
        State::Connecting | State::Reconnecting => ("action.cancel", true),
        State::Connected | State::Blocked => ("action.disconnect", true),
        State::Disconnecting => ("action.disconnect", false),
    };
    TrayView {
        icon: if running { icon_of(state) } else { Icon::Failed },
        title: format!("{}: {words}", texts.get("app.name")),
        line: match &name {
            Some(name) if running => format!("{words}: {name}{}", paths_line(view, texts)),
            Some(_) | None => words.to_owned(),
        },
        profiles: view
            .profiles
            .iter()
            .map(|profile| {
                let name = profile.summary.name.clone();
                let shown = state.is_active() && view.status.profile.as_ref() == Some(&name);
                (name, shown)
            })
            .collect(),
        deed: (texts.get(deed.0).to_owned(), deed.1 && view.helper == Helper::Running),
        open: texts.get("tray.open").to_owned(),
        quit: texts.get("tray.quit").to_owned(),
    }
}

/// How many paths work, when the connection has several.
fn paths_line(view: &AppView, texts: &Texts) -> String {
    let works = |path: &&PathStatus| matches!(path.state, PathState::Active | PathState::Standby);
    let count = view.status.paths.iter().filter(works).count();
    if view.status.state != State::Connected || view.status.paths.len() < 2 {
        return String::new();
    }
    format!(", {}", texts.get("tray.paths").replace("{count}", &count.to_string()))
}

fn fill(app: &AppHandle, parts: &mut Parts, wanted: &TrayView) -> tauri::Result<()> {
    let names = |view: &TrayView| -> Vec<String> {
        view.profiles
            .iter()
            .map(|(name, _)| name.clone())
            .chain([view.open.clone(), view.quit.clone()])
            .collect()
    };
    let before = parts.shown.as_ref();
    if before.map(|view| view.icon) != Some(wanted.icon) {
        parts.icon.set_icon(Some(picture(wanted.icon)))?;
        #[cfg(target_os = "macos")]
        parts.icon.set_icon_as_template(true)?;
    }
    if cfg!(target_os = "linux") {
        parts.icon.set_title(Some(&wanted.title))?;
    } else {
        parts.icon.set_tooltip(Some(&wanted.title))?;
    }
    // The menu is made anew only when it has other entries: an open menu would close under the pointer.
    match &parts.items {
        Some(items) if before.map(names) == Some(names(wanted)) => {
            items.status.set_text(&wanted.line)?;
            for (item, (_, shown)) in items.profiles.iter().zip(&wanted.profiles) {
                item.set_checked(*shown)?;
            }
            items.deed.set_text(&wanted.deed.0)?;
            items.deed.set_enabled(wanted.deed.1)?;
        }
        Some(_) | None => {
            let (menu, items) = menu(app, wanted)?;
            parts.icon.set_menu(Some(menu))?;
            parts.items = Some(items);
        }
    }
    Ok(())
}

fn menu(app: &AppHandle, wanted: &TrayView) -> tauri::Result<(Menu<Wry>, Items)> {
    let menu = Menu::new(app)?;
    let status = MenuItem::with_id(app, STATUS, &wanted.line, false, None::<&str>)?;
    menu.append(&status)?;
    menu.append(&PredefinedMenuItem::separator(app)?)?;
    let mut profiles = Vec::new();
    for (name, shown) in &wanted.profiles {
        let id = format!("{PROFILE}{name}");
        // Names are shown as they are: "&" would mark the next letter as the entry's shortcut.
        let item = CheckMenuItem::with_id(app, id, name.replace('&', "&&"), true, *shown, None::<&str>)?;
        menu.append(&item)?;
        profiles.push(item);
    }
    if !profiles.is_empty() {
        menu.append(&PredefinedMenuItem::separator(app)?)?;
    }
    let deed = MenuItem::with_id(app, DEED, &wanted.deed.0, wanted.deed.1, None::<&str>)?;
    menu.append(&deed)?;
    menu.append(&MenuItem::with_id(app, OPEN, &wanted.open, true, None::<&str>)?)?;
    menu.append(&MenuItem::with_id(app, QUIT, &wanted.quit, true, None::<&str>)?)?;
    Ok((menu, Items { status, profiles, deed }))
}

fn on_menu(app: &AppHandle, event: &MenuEvent) {
    let Some(shared) = app.try_state::<Arc<Shared>>() else { return };
    let shared = Arc::clone(&shared);
    match event.id().as_ref() {
        DEED => {
            let (active, name) =
                shared.read(|model| (model.shown().state.is_active(), model.selected().map(str::to_owned)));
            if active {
                tauri::async_runtime::spawn(deeds::disconnect(shared));
            } else if let Some(name) = name {
                tauri::async_runtime::spawn(deeds::connect(shared, name));
            }
        }
        OPEN => window::show(app),
        // The connection is the helper's: it stays.
        QUIT => app.exit(0),
        id => {
            if let Some(name) = id.strip_prefix(PROFILE) {
                let name = name.to_owned();
                // The click has moved the entry's mark; what is shown comes from the state again.
                if let Some(tray) = app.try_state::<Tray>()
                    && let Some(parts) = tray.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
                {
                    parts.shown = None;
                    parts.items = None;
                }
                let up = shared.read(|model| {
                    let status = model.shown();
                    status.state == State::Connected && status.profile.as_ref() == Some(&name)
                });
                if up {
                    show(app, &shared.read(crate::model::Model::view), &shared.texts());
                } else {
                    tauri::async_runtime::spawn(deeds::connect(shared, name));
                }
            }
        }
    }
}

fn state_key(state: State) -> &'static str {
    match state {
        State::Disconnected => "state.disconnected",
        State::Connecting => "state.connecting",
        State::Connected => "state.connected",
        State::Reconnecting => "state.reconnecting",
        State::Disconnecting => "state.disconnecting",
        State::Blocked => "state.blocked",
        State::Failed => "state.failed",
    }
}

fn icon_of(state: State) -> Icon {
    match state {
        State::Disconnected => Icon::Disconnected,
        State::Connecting => Icon::Connecting,
        State::Connected => Icon::Connected,
        State::Reconnecting | State::Disconnecting => Icon::Reconnecting,
        State::Blocked => Icon::Blocked,
        State::Failed => Icon::Failed,
    }
}

#[cfg(not(target_os = "macos"))]
fn picture(icon: Icon) -> Image<'static> {
    match icon {
        Icon::Disconnected => include_image!("../icons/tray/disconnected.png"),
        Icon::Connecting => include_image!("../icons/tray/connecting.png"),
        Icon::Connected => include_image!("../icons/tray/connected.png"),
        Icon::Reconnecting => include_image!("../icons/tray/reconnecting.png"),
        Icon::Blocked => include_image!("../icons/tray/blocked.png"),
        Icon::Failed => include_image!("../icons/tray/failed.png"),
    }
}

/// The menu bar colours shapes itself.
#[cfg(target_os = "macos")]
fn picture(icon: Icon) -> Image<'static> {
    match icon {
        Icon::Disconnected => include_image!("../icons/tray/disconnected-mono.png"),
        Icon::Connecting => include_image!("../icons/tray/connecting-mono.png"),
        Icon::Connected => include_image!("../icons/tray/connected-mono.png"),
        Icon::Reconnecting => include_image!("../icons/tray/reconnecting-mono.png"),
        Icon::Blocked => include_image!("../icons/tray/blocked-mono.png"),
        Icon::Failed => include_image!("../icons/tray/failed-mono.png"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use ropewalk_ipc::Status;

    #[test]
    fn the_tray_says_what_the_window_says() {
        let mut model = Model::default();
        model.online();
        model.set_status(Status {
            state: State::Connected,
            profile: Some("Lab".to_owned()),
            owned: true,
            ..Status::default()
        });
        let shown = tray_view(&model.view(), &Texts::default());
        assert_eq!(shown.icon, Icon::Connected);
        assert_eq!(shown.title, "Ropewalk: Connected");
        assert_eq!(shown.line, "Connected: Lab");
        assert_eq!(shown.deed, ("Disconnect".to_owned(), true));
    }

    #[test]
    fn the_tray_says_how_many_of_several_paths_work() {
        let mut model = Model::default();
        model.online();
        let path = |state| PathStatus { state, ..PathStatus::default() };
        let mut connected = Status {
            state: State::Connected,
            profile: Some("Lab".to_owned()),
            owned: true,
            paths: vec![path(PathState::Active), path(PathState::Standby), path(PathState::Failed)],
            ..Status::default()
        };
        model.set_status(connected.clone());
        assert_eq!(tray_view(&model.view(), &Texts::default()).line, "Connected: Lab, 2 paths");
        connected.paths.truncate(1);
        model.set_status(connected);
        assert_eq!(tray_view(&model.view(), &Texts::default()).line, "Connected: Lab");
    }

    #[test]
    fn without_the_helper_nothing_can_be_chosen_and_the_tray_says_why() {
        let mut model = Model::default();
        let error =
            ropewalk_ipc::ErrorInfo::new(ropewalk_ipc::ErrorCode::HelperUnreachable, "gone", "start it");
        model.offline(Helper::Absent, error);
        let shown = tray_view(&model.view(), &Texts::default());
        assert_eq!((shown.icon, shown.deed.1), (Icon::Failed, false));
        assert_eq!(shown.line, "Service not running");
    }
}
