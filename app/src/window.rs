//! The window itself: opened, shown again, hidden when closed (while a tray can bring it back), and files dropped on it.

use std::sync::Arc;

use tauri::webview::PageLoadEvent;
use tauri::window::Color;
use tauri::{
    AppHandle, DragDropEvent, Emitter as _, Manager as _, Theme, WebviewUrl, WebviewWindow,
    WebviewWindowBuilder, WindowEvent,
};

use crate::shared::Shared;
use crate::{clock, deeds, desktop, link};

const LABEL: &str = "main";
/// Right at this width by design; the pages' styles are tested with it.
const NARROWEST: f64 = 360.0;

/// The window, if it is open (it may be hidden).
#[must_use]
pub fn get(app: &AppHandle) -> Option<WebviewWindow> {
    app.get_webview_window(LABEL)
}

/// Opens the window.
///
/// # Errors
/// When the window system refuses.
pub fn open(app: &AppHandle) -> tauri::Result<WebviewWindow> {
    let window = WebviewWindowBuilder::new(app, LABEL, WebviewUrl::default())
        .title("Ropewalk")
        .inner_size(1000.0, 700.0)
        .min_inner_size(NARROWEST, 480.0)
        .on_page_load(|_, load| match load.event() {
            PageLoadEvent::Started => clock::mark("the page starts to load"),
            PageLoadEvent::Finished => clock::mark("the page is loaded"),
        })
        .build()?;
    // The pages' own ground, so that nothing flashes before they are there.
    let dark = window.theme().is_ok_and(|theme| theme == Theme::Dark);
    let ground = if dark { Color(0x0a, 0x16, 0x21, 0xff) } else { Color(0xf3, 0xf1, 0xec, 0xff) };
    if let Err(error) = window.set_background_color(Some(ground)) {
        tracing::debug!(%error, "no background colour");
    }
    let handle = app.clone();
    window.on_window_event(move |event| on_event(&handle, event));
    Ok(window)
}

/// Brings the window to the front, opening it if need be. From any thread.
pub fn show(app: &AppHandle) {
    let handle = app.clone();
    let scheduled = app.run_on_main_thread(move || {
        let shown = match get(&handle) {
            Some(window) => {
                window.show().and_then(|()| window.unminimize()).and_then(|()| window.set_focus())
            }
            None => open(&handle).map(|_| ()),
        };
        if let Err(error) = shown {
            tracing::warn!(%error, "cannot show the window");
        }
    });
    if let Err(error) = scheduled {
        tracing::warn!(%error, "cannot show the window");
    }
}

fn on_event(app: &AppHandle, event: &WindowEvent) {
    match event {
        WindowEvent::CloseRequested { api, .. } => {
            if desktop::has_tray_host()
                && let Some(window) = get(app)
                && window.hide().is_ok()
            {
                api.prevent_close();
            }
        }
        WindowEvent::Focused(true) => {
            if let Some(shared) = app.try_state::<Arc<Shared>>() {
                tauri::async_runtime::spawn(link::list(Arc::clone(&shared)));
            }
        }
        WindowEvent::DragDrop(drag) => on_drag(app, drag),
        // Tauri's enum may grow; nothing else concerns us.
        _ => {}
    }
}

fn on_drag(app: &AppHandle, drag: &DragDropEvent) {
    let over = match drag {
        DragDropEvent::Enter { .. } => true,
        DragDropEvent::Drop { paths, .. } => {
            if let Some(shared) = app.try_state::<Arc<Shared>>() {
                deeds::open_files(&shared, paths.clone());
            }
            false
        }
        DragDropEvent::Leave => false,
        // `Over` comes many times a second and says nothing new.
        _ => return,
    };
    if let Err(error) = app.emit("drag", over) {
        tracing::debug!(%error, "the window was not told of a drag");
    }
}
