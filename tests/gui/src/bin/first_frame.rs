//! Measures how long the window takes from the start of its process to its first usable frame: the program is started on a
//! desktop of its own several times, and logs when its pages have painted the first state.
//!
//! `ropewalk-first-frame [RUNS]` prints each run's milliseconds, and their median on a line of its own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ropewalk_gui_tests::{Desktop, PATIENCE, app_program};
use ropewalk_lab::{Lab, Process};

fn main() -> Result<()> {
    let runs: usize = match std::env::args().nth(1) {
        Some(runs) => runs.parse().context("usage: ropewalk-first-frame [RUNS]")?,
        None => 7,
    };
    ensure!(runs > 0, "nothing to measure");
    let lab = Lab::new()?;
    let desktop = Desktop::start(&lab)?;
    let mut times = Vec::new();
    for run in 0..runs {
        let mut command = desktop.command(app_program()?);
        // Nobody listens there: what is measured is the window, not the helper.
        command.env("ROPEWALK_SOCKET", desktop.path("nobody.sock"));
        let mut app = Process::start(&mut command, &desktop.path(&format!("first-frame-{run}.log")))?;
        app.wait_for_log("first frame", PATIENCE)?;
        let log = app.log();
        app.terminate_group(Duration::from_secs(10))?;
        let time = milliseconds(&log).with_context(|| format!("no time in {log:?}"))?;
        println!("first usable frame, run {}: {time} ms", run + 1);
        times.push(time);
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).context("no run")?;
    println!("first usable frame, median of {runs}: {median} ms");
    Ok(())
}

/// The number in `… first frame milliseconds=412`.
fn milliseconds(log: &str) -> Option<u64> {
    let line = log.lines().find(|line| line.contains("first frame"))?;
    let digits: String =
        line.rsplit_once("milliseconds=")?.1.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
