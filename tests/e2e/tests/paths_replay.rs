//! Nobody but the client tells the gateway by which path to send: what passed on a path is played again later, unchanged and
//! forged, from its own place and from others, and the connection stays where it is.

#![allow(clippy::indexing_slicing, reason = "a path that is not there is a failed test")]

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use ropewalk_e2e::{GatewayKind, PATIENCE, Pings, Plan, Several, in_lab};
use ropewalk_lab::{Recorded, Site};

/// The delay of each network, each way.
const DELAY: Duration = Duration::from_millis(3);
/// Failed paths are asked every two seconds and have to answer three times.
const TRUSTED_AGAIN: Duration = Duration::from_secs(20);

/// Forgets what is carried by `from`: `to` carries from now on, and `from` stands by.
fn switch(up: &Several, from: &str, to: &str) -> Result<()> {
    up.uplink(from)?.darken();
    up.settles(&[to], &[])?;
    up.uplink(from)?.lighten();
    up.wait("both paths", TRUSTED_AGAIN, |paths| {
        paths.len() == 2 && paths[0].interface == to && paths.iter().all(|path| path.works())
    })
}

/// A sequence number far ahead of those in use, and a check value that cannot be right: a window that moved for it would lose
/// the packets to come.
fn with_a_newer_number(datagram: &Recorded) -> Recorded {
    let mut forged = datagram.clone();
    if let Some(number) = forged.bytes.get_mut(4..8) {
        number.copy_from_slice(&0x7000_0000_u32.to_be_bytes());
    }
    forged
}

/// Another octet at the end: a check value that is not right.
fn spoilt(datagram: &Recorded) -> Recorded {
    let mut forged = datagram.clone();
    if let Some(last) = forged.bytes.last_mut() {
        *last ^= 1;
    }
    forged
}

#[test]
fn what_is_played_again_late_neither_switches_the_path_nor_costs_a_packet() -> Result<()> {
    in_lab(|lab| {
        let up = Several::up(lab, &Plan::new(GatewayKind::Reference, 2, "failover"))?;
        up.uplinks.iter().for_each(|uplink| uplink.good(DELAY));
        up.settles(&["eth0"], &["wlan0"])?;
        let pings = Pings::start(&up.site.client, Site::transfer_v4())?;
        // Both paths have carried while they were recorded, and each of them was announced to the gateway meanwhile.
        up.uplinks.iter().for_each(|uplink| uplink.relays[0].record());
        thread::sleep(Duration::from_secs(1));
        switch(&up, "eth0", "wlan0")?;
        thread::sleep(Duration::from_secs(1));
        switch(&up, "wlan0", "eth0")?;
        let (here, there) = (&up.uplink("eth0")?.relays[0], &up.uplink("wlan0")?.relays[0]);
        let (new, old) = (here.recorded(), there.recorded());
        let ike = old.iter().filter(|datagram| !datagram.is_esp()).count();
        println!(
            "recorded {} datagrams on the old path ({ike} of IKE), {} on the new one",
            old.len(),
            new.len()
        );
        ensure!(ike > 10 && old.len() > ike + 100 && new.len() > 100, "there is too little to play again");

        let up_only = |all: &[Recorded]| all.iter().filter(|one| one.to_gateway).cloned().collect::<Vec<_>>();
        let esp = |all: &[Recorded]| all.iter().filter(|one| one.is_esp()).cloned().collect::<Vec<_>>();
        let floods: [(&str, &_, Vec<Recorded>); 6] = [
            ("the old path's, from there", there, old.clone()),
            ("the old path's, from the new one's address", here, up_only(&old)),
            ("the new path's, from the old one's address", there, up_only(&new)),
            ("with newer numbers", there, esp(&old).iter().map(with_a_newer_number).collect()),
            (
                "the new path's with newer numbers, from the old one's",
                there,
                up_only(&esp(&new)).iter().map(with_a_newer_number).collect(),
            ),
            ("spoilt, IKE too", there, old.iter().map(spoilt).collect()),
        ];
        for (what, relay, flood) in floods {
            let (mark, before, count) = (pings.mark(), there.passed(), flood.len());
            relay.play(flood);
            thread::sleep(Duration::from_millis(1200));
            let after = there.passed();
            let outcome = pings.since(mark);
            println!(
                "{what}: {count} played again; {} of {} pings lost, {} packets came by the old path",
                outcome.lost,
                outcome.sent,
                after.down - before.down
            );
            ensure!(after == before, "data by the old path: {before:?}, {after:?}");
            ensure!(outcome.lost == 0, "{outcome:?}");
            ensure!(up.carrying()?.interface == "eth0");
        }
        up.wait("both paths", PATIENCE, |paths| paths.iter().filter(|path| path.works()).count() == 2)?;
        pings.stop()?;
        up.never_fell()?;
        up.client.disconnect()
    })
}
