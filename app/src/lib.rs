//! The window and the tray of Ropewalk: an unprivileged program that shows what the helper does, and steers it.
//!
//! [`model`] holds what is known, without any I/O; [`link`] keeps the connection to the helper and feeds it;
//! [`deeds`] is what a click does, from the window (`commands`) and the tray ([`tray`]) alike. After every change
//! [`shared`] hands the new [`view`] to the window's pages and to the tray. Secrets go to the helper or, when the user
//! says so, to the desktop's keyring ([`keyring`]); never to a file, and never back to the pages.

pub mod clock;
mod commands;
pub mod deeds;
pub mod desktop;
pub mod imports;
pub mod keyring;
pub mod link;
pub mod memory;
pub mod model;
pub mod shared;
pub mod texts;
pub mod tray;
pub mod view;
pub mod window;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use tauri::{Manager as _, RunEvent};

use shared::Shared;

/// Starts without showing the window (the tray alone), as at login.
const HIDDEN: &str = "--hidden";

/// Runs the program until it is quit.
///
/// # Errors
/// When the window system cannot be reached.
pub fn run() -> anyhow::Result<()> {
    clock::start();
    desktop::prepare_web_view();
    let filter = tracing_subscriber::EnvFilter::try_from_env("ROPEWALK_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,ropewalk_app=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();

    let app = tauri::Builder::default()
        .plugin(tauri_plugin_single_instance::init(|app, arguments, _folder| {
            // Somebody started us again, perhaps with a file: this is the instance that answers.
            window::show(app);
            if let Some(shared) = app.try_state::<Arc<Shared>>() {
                deeds::open_files(&shared, files_of(arguments));
            }
        }))
        .plugin(tauri_plugin_dialog::init())
        .invoke_handler(tauri::generate_handler![
            commands::view,
            commands::first_frame,
            commands::set_texts,
            commands::select,
            commands::connect,
            commands::disconnect,
            commands::set_policy,
            commands::remove,
            commands::forget,
            commands::import_pick,
            commands::import_save,
            commands::import_cancel,
            commands::answer,
            commands::answer_cancel,
            commands::dismiss,
            commands::refresh,
        ])
        .setup(|app| {
            clock::mark("set-up begins");
            let handle = app.handle().clone();
            let memory = app.path().app_config_dir().ok().map(|folder| folder.join("window.json"));
            let shared = Arc::new(Shared::new(handle.clone(), memory));
            app.manage(Arc::clone(&shared));
            // The window first: it is what the user waits for.
            if !std::env::args().any(|argument| argument == HIDDEN) {
                window::open(&handle)?;
            }
            clock::mark("window is open");
            tauri::async_runtime::spawn(link::keep(Arc::clone(&shared), ropewalk_ipc::default_socket()));
            tauri::async_runtime::spawn(link::count(Arc::clone(&shared)));
            deeds::open_files(&shared, files_of(std::env::args().collect()));
            desktop::watch_tray_host(&handle);
            tray::create(&handle);
            shared.publish();
            clock::mark("set-up is done");
            Ok(())
        })
        .build(tauri::generate_context!())
        .context("cannot open a window; is there a display?")?;
    app.run(|app, event| {
        if let RunEvent::ExitRequested { code: None, api, .. } = event
            && desktop::has_tray_host()
        {
            // The last window is gone, the tray goes on. Quit in its menu ends with a code.
            api.prevent_exit();
            tracing::debug!(windows = app.webview_windows().len(), "staying in the tray");
        }
    });
    Ok(())
}

fn files_of(arguments: Vec<String>) -> Vec<PathBuf> {
    arguments.into_iter().skip(1).filter(|argument| !argument.starts_with('-')).map(PathBuf::from).collect()
}
