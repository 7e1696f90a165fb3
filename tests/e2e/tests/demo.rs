//! The demo without a window does what it says and leaves nothing behind.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::Programs;
use ropewalk_lab::run;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

#[test]
fn the_headless_demo_reaches_the_page_through_the_tunnel_and_ends_by_itself() -> Result<()> {
    let programs = Programs::find()?;
    for name in ["ropewalk", "ropewalk-helper", "ropewalk-gateway", "ropewalk-page"] {
        programs.path(name)?;
    }
    let mut command = Command::new(format!("{ROOT}/scripts/demo.sh"));
    command.arg("--headless").env("ROPEWALK_BIN_DIR", programs.dir()).current_dir(ROOT);
    let finished = run(&mut command, &[], Duration::from_secs(120))?.success()?;
    ensure!(finished.stdout.contains("You reached the page behind the gateway"), "{finished:?}");
    ensure!(finished.stdout.contains("3 received"), "three pings: {finished:?}");
    ensure!(finished.stdout.contains("now by way of the phone"), "the cable was pulled: {finished:?}");
    let received =
        finished.stdout.split("200 packets transmitted, ").nth(1).and_then(|rest| rest.split(' ').next());
    let received: u32 = received.context("the pings under the pulled cable")?.parse()?;
    ensure!(received >= 195, "the pulled cable cost {} pings: {finished:?}", 200 - received);
    let left = run(Command::new("ip").args(["netns", "list"]), &[], Duration::from_secs(10))?.success()?;
    let own = format!(
        "rwdemo{}-",
        finished.stdout.lines().find_map(|line| line.strip_prefix("demo: run ")).unwrap_or("?")
    );
    ensure!(!left.stdout.contains(&own), "namespaces are left: {}", left.stdout);
    Ok(())
}

#[test]
fn the_demo_with_a_window_says_what_to_do_without_a_display() -> Result<()> {
    let mut command = Command::new(format!("{ROOT}/scripts/demo.sh"));
    command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY").current_dir(ROOT);
    let finished = run(&mut command, &[], Duration::from_secs(20))?;
    ensure!(finished.code == 1 && finished.stderr.contains("make demo-headless"), "{finished:?}");
    Ok(())
}
