//! From one SA of the group to the next, and which SAs are taken at all.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{BootClock, PATIENCE, in_lab};
use ropewalk_lab::{Conditions, Lab, Relay, until};

use crate::meeting::{Entry, Meeting, PLAIN, knowing};

/// Pings at a hundred a second while the gateway renews the group's SA twice; none may be lost.
fn two_rollovers_under_traffic(meeting: &Meeting) -> Result<()> {
    ensure!(meeting.pings(1, 2, 20)? == 20);
    let before = meeting.through_gateway()?;
    let answered = thread::scope(|scope| {
        let pings = scope.spawn(|| meeting.pings(1, 2, 1000));
        for _ in 0..2 {
            thread::sleep(Duration::from_millis(1500));
            ensure!(meeting.gateway.control("group renew")? == serde_json::json!({ "endpoints": 2 }));
        }
        pings.join().map_err(|_| anyhow::anyhow!("the pings ended early"))?
    })?;
    ensure!(answered == 1000, "{answered} of 1000");
    let passed = meeting.through_gateway()? - before;
    ensure!(passed < 30, "{passed} of 2,000 packets passed the gateway");
    for number in 1..=2 {
        let handed_out =
            meeting.client(number)?.helper_log().matches("handed out an SA of the group").count();
        ensure!(handed_out == 3, "client {number} was handed {handed_out} SAs");
    }
    Ok(())
}

#[test]
fn a_rollover_under_traffic_loses_nothing() -> Result<()> {
    in_lab(|lab| {
        let mut meeting = Meeting::new(lab, "rollover1 = 2\nrollover2 = 4\n")?;
        meeting.join(knowing(&[2]))?;
        meeting.join(knowing(&[1]))?;
        two_rollovers_under_traffic(&meeting)
    })
}

/// All times of MPSA_PUT begin with its arrival. So of two clocks that differ by a second nothing is to be seen, which the
/// first client's shows; what makes a difference is a client that begins to count a second later, as one does whose clock
/// was put back by a second in between, or who was told a second later. That is the second client.
#[test]
fn a_rollover_loses_nothing_when_the_endpoints_clocks_are_a_second_apart() -> Result<()> {
    in_lab(|lab| {
        let mut meeting = Meeting::new(lab, "rollover1 = 2\nrollover2 = 4\n")?;
        let clock = BootClock::new(lab)?;
        clock.set_ahead(Duration::from_secs(1))?;
        meeting.join(Entry { routes: &[2], environment: &clock.environment(), ..PLAIN })?;
        let here = "10.80.2.1".parse()?;
        // The address is the router's once the second client is there, so it is given to it beforehand.
        meeting.router.address("lo", &["10.80.2.1/32"])?;
        let relay = Relay::start(&meeting.router, here, "198.18.9.2".parse()?, &[500, 4500], 1)?;
        meeting.join(Entry { routes: &[1], gateway: Some(here), ..PLAIN })?;
        relay.set(Conditions { delay: Duration::from_secs(1), ..Conditions::default() });
        two_rollovers_under_traffic(&meeting)?;
        let told = handed_out_times(&meeting)?;
        for (first, second) in told[0].iter().zip(&told[1]).skip(1) {
            let apart = second - first;
            ensure!((0.9..1.9).contains(&apart), "the second was told {apart} s after the first");
        }
        Ok(())
    })
}

/// When each of the two clients was handed SAs, in seconds of the day, by their logs.
fn handed_out_times(meeting: &Meeting) -> Result<[Vec<f64>; 2]> {
    let of = |number| -> Result<Vec<f64>> {
        let log = meeting.client(number)?.helper_log();
        let lines = log.lines().filter(|line| line.contains("handed out an SA of the group"));
        lines.map(|line| seconds_of_day(line).with_context(|| format!("no time in {line:?}"))).collect()
    };
    Ok([of(1)?, of(2)?])
}

/// Of `2026-11-28T13:34:15.123456Z ...`.
fn seconds_of_day(line: &str) -> Option<f64> {
    let time = line.split('T').nth(1)?.split('Z').next()?;
    let mut parts = time.split(':').map(|part| part.parse::<f64>().ok());
    Some(parts.next()?? * 3600.0 + parts.next()?? * 60.0 + parts.next()??)
}

#[test]
fn sha1_is_taken_only_when_the_profile_says_so() -> Result<()> {
    for (more, expected) in [("", false), ("allow_sha1 = true\n", true)] {
        in_lab(|lab| is_taken(lab, "integrity = \"sha1\"\n", more, expected, "HMAC-SHA1"))?;
    }
    Ok(())
}

#[test]
fn a_counter_mode_is_never_taken() -> Result<()> {
    in_lab(|lab| {
        is_taken(lab, "encryption = \"aes256gcm16\"\n", "allow_sha1 = true\n", false, "repeat nonces")
    })
}

fn is_taken(lab: &Lab, group: &str, more: &str, expected: bool, reason: &str) -> Result<()> {
    let mut meeting = Meeting::new(lab, group)?;
    meeting.join(Entry { routes: &[2], more, ..PLAIN })?;
    meeting.join(Entry { routes: &[1], more, ..PLAIN })?;
    for client in &meeting.clients {
        let word = if expected { "handed out an SA of the group" } else { "is not used" };
        until(word, PATIENCE, || client.helper_log().contains(word).then_some(()))?;
        let group = client.status_at("/group")?;
        let state = if expected { "in-use" } else { "refused" };
        ensure!(group.get("state").is_some_and(|it| it == state), "{group}");
        if !expected {
            ensure!(group.to_string().contains(reason), "the reason is not in {group}");
            let text = client.cli(&["status"])?.success()?.stdout;
            ensure!(text.contains(reason), "the reason is not in {text}");
        }
        let report = client.cli(&["report"])?.success()?.stdout;
        ensure!(!expected || report.contains("not checked for replay"), "no warning in the report");
    }
    let before = meeting.through_gateway()?;
    ensure!(meeting.pings(1, 2, 50)? == 50);
    let passed = meeting.through_gateway()? - before;
    ensure!((passed < 10) == expected, "{group}{more}: {passed} packets passed the gateway");
    Ok(())
}
