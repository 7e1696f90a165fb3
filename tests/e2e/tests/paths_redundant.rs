//! What the policy *redundant* brings, over two lossy links. What is measured is printed.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use ropewalk_e2e::{GatewayKind, PATIENCE, Pings, Plan, Several, in_lab};
use ropewalk_lab::{Conditions, Site, until};

#[test]
fn redundant_paths_lose_only_what_both_lose() -> Result<()> {
    // The share that vanishes, each way on each path, of everything, and how many pings tell.
    const LOSS: f64 = 0.1;
    const PINGS: usize = 5000;
    const FEWER: usize = 1000;
    const BETWEEN: Duration = Duration::from_millis(2);
    in_lab(|lab| {
        let up = Several::up(lab, &Plan::new(GatewayKind::Reference, 2, "redundant"))?;
        up.all_work(2, PATIENCE)?;
        up.uplinks.iter().for_each(|uplink| uplink.set(Conditions { loss: LOSS, ..Conditions::default() }));
        let share = |policy: &str, count: usize| -> Result<f64> {
            up.client.cli(&["policy", policy])?.success()?;
            thread::sleep(Duration::from_secs(1));
            let pings = Pings::every(&up.site.client, Site::transfer_v4(), BETWEEN)?;
            until("the pings", Duration::from_secs(90), || (pings.mark() >= count).then_some(()))?;
            let outcome = pings.since(0);
            println!(
                "{policy}: {} of {} pings lost, none for {:?}",
                outcome.lost, outcome.sent, outcome.longest
            );
            pings.stop()?;
            Ok(outcome.lost as f64 / outcome.sent as f64)
        };
        let (one, two) = (share("failover", FEWER)?, share("redundant", PINGS)?);
        println!("one path loses {:.1} %, two lose {:.1} %", one * 100.0, two * 100.0);
        println!("{}", up.client.cli(&["paths"])?.stdout);
        ensure!(one > 0.15, "the loss is not there: {one}");
        ensure!(two <= 0.03, "{two}");
        up.never_fell()?;
        up.client.disconnect()
    })
}
