//! A client with several networks and a gateway that does not know KEEP_OLD_IKE_SA: strongSwan's answer to it is an ordinary
//! rekey. There is one path, which roams by MOBIKE and lives through every renewal, and the status says why.

#![allow(clippy::indexing_slicing, reason = "a path that is not there is a failed test")]

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use ropewalk_e2e::{Flow, GatewayKind, Outcome, PATIENCE, Pings, Plan, Several, in_lab};
use ropewalk_lab::{Site, until};
use serde_json::Value;

const IKE: &str = "/ike/0/spi_i";
const CHILD: &str = "/children/0/spi_in";
/// What a move may cost on a machine that is busy.
const MOVE: Duration = Duration::from_secs(2);

/// One path by this network, and the reason.
fn is_alone_on(up: &Several, interface: &str) -> Result<()> {
    up.settles(&[interface], &[])?;
    ensure!(up.paths()?.len() == 1, "{:?}", up.paths()?);
    let alone = up.client.status_at("/alone")?;
    ensure!(alone.as_str().is_some_and(|why| why.contains("KEEP_OLD_IKE_SA")), "{alone}");
    ensure!(up.client.status_at("/features/keep_old_ike_sa")? == false);
    ensure!(up.client.state()? == "connected");
    Ok(())
}

fn changes(up: &Several, pointer: &str, before: &Value, limit: Duration) -> Result<()> {
    Ok(until(&format!("another {pointer}"), limit, || {
        up.client.status_at(pointer).is_ok_and(|now| now != *before).then_some(())
    })?)
}

fn told(what: &str, outcome: &Outcome) {
    println!("{what}: {} of {} pings lost, none for {:?}", outcome.lost, outcome.sent, outcome.longest);
}

/// The network in use goes; the connection moves to the other one.
fn roams(up: &Several, pings: &Pings, flow: &Flow, from: &str, to: &str) -> Result<()> {
    let ike = up.client.status_at(IKE)?;
    let mark = pings.mark();
    up.uplink(from)?.carrier(false)?;
    up.settles(&[to], &[])?;
    flow.goes_on(PATIENCE)?;
    thread::sleep(Duration::from_millis(500));
    let moved = pings.since(mark);
    told(&format!("from {from} to {to} by MOBIKE alone"), &moved);
    ensure!(moved.longest <= MOVE, "{moved:?}");
    ensure!(up.client.status_at(IKE)? == ike, "another IKE_SA");
    Ok(())
}

#[test]
fn one_path_roams_and_lives_through_the_renewals_of_both_sides() -> Result<()> {
    in_lab(|lab| {
        let mut plan = Plan::new(GatewayKind::StrongSwan, 2, "failover");
        plan.timing = "dpd = 30\nchild_rekey = 10\nike_rekey = 14\n".to_owned();
        let up = Several::up(lab, &plan)?;
        is_alone_on(&up, "eth0")?;
        let said = up.client.cli(&["status"])?.success()?.stdout;
        ensure!(said.contains("KEEP_OLD_IKE_SA"), "{said}");
        let flow = Flow::open(&up.site)?;
        let pings = Pings::start(&up.site.client, Site::transfer_v4())?;
        let before = pings.mark();

        // Ours, which come by themselves, and the gateway's.
        let (ike, child) = (up.client.status_at(IKE)?, up.client.status_at(CHILD)?);
        changes(&up, CHILD, &child, PATIENCE)?;
        changes(&up, IKE, &ike, PATIENCE)?;
        is_alone_on(&up, "eth0")?;
        let ropewalk_e2e::Gateway::StrongSwan(swan) = &up.gateway else { return Ok(()) };
        for (what, name, pointer) in [("--child", "net", CHILD), ("--ike", "psk", IKE)] {
            let before = up.client.status_at(pointer)?;
            swan.control(&["--rekey", what, name], PATIENCE)?.success()?;
            changes(&up, pointer, &before, PATIENCE)?;
        }
        is_alone_on(&up, "eth0")?;
        let renewed = pings.since(before);
        told("four renewals", &renewed);
        ensure!(renewed.lost == 0, "{renewed:?}");

        // A renewal is no reason to forget that there is only one path, nor how to move it.
        roams(&up, &pings, &flow, "eth0", "wlan0")?;
        is_alone_on(&up, "wlan0")?;
        let ike = up.client.status_at(IKE)?;
        changes(&up, IKE, &ike, PATIENCE)?;
        is_alone_on(&up, "wlan0")?;

        // The network that the system likes better is back: the connection follows.
        let mark = pings.mark();
        up.uplink("eth0")?.carrier(true)?;
        is_alone_on(&up, "eth0")?;
        let back = pings.since(mark);
        told("back to eth0", &back);
        ensure!(back.lost <= 1, "{back:?}");
        pings.stop()?;
        flow.close()?;
        up.never_fell()?;
        up.client.disconnect()
    })
}

#[test]
fn a_new_login_asks_again_is_refused_again_and_keeps_the_inner_address() -> Result<()> {
    in_lab(|lab| {
        let mut plan = Plan::new(GatewayKind::StrongSwan, 2, "failover");
        // Long enough for everything below to be done between the first new login and the second.
        plan.offer.reauth = 24;
        let up = Several::up(lab, &plan)?;
        is_alone_on(&up, "eth0")?;
        let pings = Pings::start(&up.site.client, Site::transfer_v4())?;
        let flow = Flow::open(&up.site)?;
        let (inner, ike) = (up.client.status_at("/addresses")?, up.client.status_at(IKE)?);
        let mark = pings.mark();
        changes(&up, IKE, &ike, PATIENCE)?;
        thread::sleep(Duration::from_millis(500));
        let renewed = pings.since(mark);
        told("a new login", &renewed);
        ensure!(renewed.lost == 0, "{renewed:?}");
        ensure!(up.client.status_at("/addresses")? == inner, "another inner address");
        is_alone_on(&up, "eth0")?;
        roams(&up, &pings, &flow, "eth0", "wlan0")?;
        is_alone_on(&up, "wlan0")?;
        ensure!(up.states.states()? == ["connected"], "{:?}", up.states.states()?);

        // strongSwan's pool keeps an address with the place that it was given to: from another one, the next login would get
        // another address while the old one stands. Both are ended then, and the address is asked for again.
        let (mark, ike) = (pings.mark(), up.client.status_at(IKE)?);
        changes(&up, IKE, &ike, PATIENCE)?;
        flow.goes_on(PATIENCE)?;
        is_alone_on(&up, "wlan0")?;
        let renewed = pings.since(mark);
        told("a new login after a move", &renewed);
        ensure!(renewed.longest <= MOVE, "{renewed:?}");
        ensure!(up.client.status_at("/addresses")? == inner, "another inner address");
        pings.stop()?;
        flow.close()?;
        up.client.disconnect()
    })
}
