//! `ropewalk-app`: the window and the tray. Everything is in the library, so that it can be tested.

// No console window beside ours on Windows.
#![cfg_attr(not(debug_assertions), windows_subsystem = "windows")]

fn main() -> anyhow::Result<()> {
    ropewalk_app::run()
}
