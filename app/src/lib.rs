//! The window and the tray.

/// Runs the program until it is quit.
///
/// # Errors
/// When the window system cannot be reached.
pub fn run() -> anyhow::Result<()> {
    tauri::Builder::default()
        .plugin(tauri_plugin_single_instance::init(|_app, _args, _dir| {}))
        .plugin(tauri_plugin_dialog::init())
        .run(tauri::generate_context!())?;
    let _ = keyring::Entry::store_status();
    Ok(())
}
