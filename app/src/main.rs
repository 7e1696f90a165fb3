//! `ropewalk-app`: the window and the tray.

fn main() -> anyhow::Result<()> {
    ropewalk_app::run()
}
