//! What the policy *balance* brings, over two links that the relays make narrow. What is measured is printed.

#![allow(clippy::indexing_slicing, reason = "a round that is not there is a failed test")]

use std::{thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use ropewalk_e2e::{GatewayKind, Load, Pings, Plan, Several, Standstill, in_lab, order};
use ropewalk_lab::{Capture, Conditions, Lab, Site};

/// Of each link, each way.
const MEGABITS: u64 = 100;
const FLOWS: usize = 16;
/// Rounds of one path and two, each way; the median counts.
const ROUNDS: usize = 3;
/// Until connections have found out what there is, and the shares what each path can carry.
const WARM: Duration = Duration::from_millis(1000);
const MEASURED: Duration = Duration::from_millis(2000);
const CAPTURED: Duration = Duration::from_millis(1500);
/// What began before flows were spread, or as briefly after that, stays on its path until it pauses.
const PAUSE: Duration = Duration::from_millis(700);
/// A machine that stands still for so long says nothing of the order: half of the shortest pause after which a flow may change
/// its way.
const STILL: Duration = Duration::from_millis(250);
const TURNS: usize = 4;

/// The name of the tunnel's device.
fn device(up: &Several) -> Result<String> {
    let shown = up.site.client.ip_show(&["-o", "link", "show", "type", "tun"])?;
    let name = shown.split(':').nth(1).context("the tunnel's device")?;
    Ok(name.trim().to_owned())
}

/// How many packets came after a later one of their flow: of a full load in this direction, and of pings in eight flows.
fn overtaken(lab: &Lab, up: &Several, name: &str, down: bool) -> Result<usize> {
    let pings = (0..8).map(|_| Pings::start(&up.site.client, Site::transfer_v4()));
    let pings = pings.collect::<Result<Vec<Pings>>>()?;
    let load = Load::start(&up.site, FLOWS, down)?;
    thread::sleep(WARM);
    let capture = if down {
        Capture::tcp(&up.site.client, &device(up)?, name)?
    } else {
        Capture::tcp(&up.site.server, "eth0", name)?
    };
    thread::sleep(CAPTURED);
    let file = capture.finish()?;
    load.stop()?;
    let order = order(&file, lab.dir())?;
    ensure!(order.flows >= FLOWS, "{order:?}");
    let overtaken: usize = pings.iter().map(Pings::overtaken).sum();
    let sent: usize = pings.iter().map(Pings::mark).sum();
    println!(
        "{name}: {} of {} packets in {} flows and {overtaken} of {sent} pings in 8 flows were overtaken {:#?}",
        order.overtaken.len(),
        order.packets,
        order.flows,
        order.overtaken
    );
    pings.into_iter().try_for_each(Pings::stop)?;
    Ok(order.overtaken.len() + overtaken)
}

/// No packet is overtaken, measured while the machine had a turn for everybody: a flow whose sender had none for longer than
/// flows pause may take another way while the relay of the first one, which had none either, still holds a packet.
fn keeps_order(lab: &Lab, up: &Several, name: &str, down: bool) -> Result<()> {
    for turn in 0..TURNS {
        let watch = Standstill::watch();
        let overtaken = overtaken(lab, up, &format!("{name}-{turn}"), down)?;
        if overtaken == 0 {
            return Ok(());
        }
        let still = watch.longest();
        ensure!(
            still > STILL,
            "{name}: {overtaken} overtaken, and the machine stood still for {still:?} at most"
        );
        println!("{name}: void, for the machine stood still for {still:?}");
    }
    bail!("{name}: the machine stood still in each of {TURNS} measurements")
}

#[test]
fn balanced_paths_carry_nearly_twice_as_much_and_keep_the_order_within_flows() -> Result<()> {
    in_lab(|lab| {
        let up = Several::up(lab, &Plan::new(GatewayKind::Reference, 2, "failover"))?;
        up.settles(&["eth0"], &["wlan0"])?;
        let narrow = Conditions {
            rate: MEGABITS * 1_000_000 / 8,
            delay: Duration::from_millis(2),
            ..Conditions::default()
        };
        up.uplinks.iter().for_each(|uplink| uplink.set(narrow));
        let speed = |down: bool| -> Result<f64> {
            let load = Load::start(&up.site, FLOWS, down)?;
            thread::sleep(WARM);
            let speed = load.megabits(MEASURED);
            load.stop()?;
            Ok(speed)
        };
        let mut ratios: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            up.client.cli(&["policy", "failover"])?.success()?;
            thread::sleep(Duration::from_millis(300));
            let one = [speed(false)?, speed(true)?];
            up.client.cli(&["policy", "balance"])?.success()?;
            up.settles(&["eth0", "wlan0"], &[])?;
            thread::sleep(PAUSE);
            let two = [speed(false)?, speed(true)?];
            for (way, name) in ["up", "down"].iter().enumerate() {
                let ratio = two[way] / one[way];
                println!(
                    "{name}: one path {:.0} Mbit/s, two {:.0} Mbit/s, {ratio:.2} times",
                    one[way], two[way]
                );
                ratios[way].push(ratio);
            }
        }
        println!("{}", up.client.cli(&["paths"])?.stdout);

        // The order, of every packet at its receiver, in windows of their own: capturing costs time.
        up.one_queue()?;
        for (name, down) in [("up", false), ("down", true)] {
            keeps_order(lab, &up, name, down)?;
        }

        for (way, ratios) in ["up", "down"].iter().zip(&mut ratios) {
            ratios.sort_unstable_by(f64::total_cmp);
            let median = ratios[ROUNDS / 2];
            println!("{way}: two paths carry {median:.2} times what one does (median)");
            ensure!(median >= 1.8, "{way}: {ratios:?}");
        }
        up.never_fell()?;
        up.client.disconnect()
    })
}
