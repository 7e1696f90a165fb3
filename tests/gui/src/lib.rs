//! Tests of the window as a user meets it: the built program on a desktop of its own (a display, a session bus, a panel
//! with a tray, a keyring), with real clicks, against the real helper and a gateway in a laboratory.
//!
//! The library is the desktop: [`Desktop`] starts it, [`Panel`] is the tray's other end on D-Bus, [`Window`] drives the
//! window by WebDriver. The tests are in `tests/`. They use the programs that `cargo build --workspace --all-targets`
//! left (or those in `ROPEWALK_BIN_DIR`), and leave screenshots in `tests/out/gui` (or `ROPEWALK_GUI_OUT`).

mod desktop;
mod panel;
mod window;

pub use desktop::{Desktop, app_program};
pub use panel::{MenuEntry, Panel, TrayItem};
pub use window::Window;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Patience for one thing that takes a second or two on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// Asks again and again until there is an answer.
///
/// # Errors
/// When there is none in time: the last refusal, or `what`.
pub async fn eventually<T>(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        let answer = ask().await;
        if let Ok(Some(value)) = answer {
            return Ok(value);
        }
        if started.elapsed() > limit {
            match answer {
                Err(error) => return Err(error.context(format!("{what} did not happen in {limit:?}"))),
                Ok(_) => bail!("{what} did not happen in {limit:?}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
