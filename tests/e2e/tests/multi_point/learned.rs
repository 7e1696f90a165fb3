//! Routes to other members that BIRD learns by BGP on the inner network, with the configuration of the user guide.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::in_lab;
use ropewalk_lab::{Bird, Namespace, until};
use serde_json::Value;

use crate::meeting::{Entry, Meeting, PLAIN};

const GUIDE: &str = include_str!("../../../../docs/multi-point-sa.md");
/// BGP's own timers, on a busy machine.
const SOON: Duration = Duration::from_secs(30);
const LEARNS: &str = "learn_routes = [\"10.88.0.0/24\", \"fd88::/64\"]\n";

/// A configuration of the guide: the first is a member's, the second the reflector's.
fn of_the_guide(number: usize) -> Result<&'static str> {
    let block = GUIDE.split("```bird\n").nth(number).context("no such block in the guide")?;
    block.split("```").next().context("the block does not end")
}

/// A member's, with its own addresses.
fn of_member(number: usize, outer: (&str, &str)) -> Result<String> {
    let text = of_the_guide(1)?.replace("10.88.0.2", &Meeting::inner(number));
    let text = text.replace("fd88::2/", &format!("{}/", Meeting::inner6(number)));
    Ok(text.replace("192.0.2.11", outer.0).replace("2001:db8::11", outer.1))
}

fn straight(number: usize) -> Result<String> {
    of_member(number, (&Meeting::outer(number), &Meeting::outer6(number)))
}

/// The networks that a client has learned to be behind this address.
fn learned(meeting: &Meeting, by: usize, outer: &str) -> Option<Vec<String>> {
    let endpoint = meeting.endpoint(by, outer).ok()??;
    let networks = endpoint.get("learned")?.as_array()?.iter();
    Some(networks.filter_map(Value::as_str).map(str::to_owned).collect())
}

/// A client learns that an inner address is at an outer one.
fn learns(meeting: &Meeting, by: usize, inner: &str, outer: &str) -> Result<()> {
    let network = format!("{inner}/{}", if inner.contains(':') { 128 } else { 32 });
    Ok(until(&format!("{network} at {outer}"), SOON, || {
        learned(meeting, by, outer)?.contains(&network).then_some(())
    })?)
}

fn members(lab: &ropewalk_lab::Lab, count: usize) -> Result<(Meeting, Bird)> {
    let mut meeting = Meeting::new(lab, "")?;
    for _ in 0..count {
        meeting.join(Entry { more: LEARNS, ..PLAIN })?;
    }
    let reflector = Bird::start(&meeting.gateway_place, of_the_guide(2)?)?;
    Ok((meeting, reflector))
}

fn place(meeting: &Meeting, number: usize) -> Result<&Namespace> {
    Ok(meeting.client(number)?.namespace())
}

#[test]
fn routes_learned_by_bgp_lead_directly_to_members_until_they_are_withdrawn() -> Result<()> {
    in_lab(|lab| {
        let (meeting, _reflector) = members(lab, 4)?;
        let _first = Bird::start(place(&meeting, 1)?, &straight(1)?)?;
        let second = Bird::start(place(&meeting, 2)?, &straight(2)?)?;
        // The last two are at addresses of the other family: the IPv4 one stands behind the prefix of RFC 6052.
        let crossed = |number| {
            of_member(number, (&Meeting::outer6(number), &format!("64:ff9b::{}", Meeting::outer(number))))
        };
        let _third = Bird::start(place(&meeting, 3)?, &crossed(3)?)?;
        let _fourth = Bird::start(place(&meeting, 4)?, &crossed(4)?)?;
        for (by, to, outer, back) in [
            (1, Meeting::inner(2), Meeting::outer(2), (2, Meeting::inner(1), Meeting::outer(1))),
            (1, Meeting::inner6(2), Meeting::outer6(2), (2, Meeting::inner6(1), Meeting::outer6(1))),
            (3, Meeting::inner(4), Meeting::outer6(4), (4, Meeting::inner(3), Meeting::outer6(3))),
            (3, Meeting::inner6(4), Meeting::outer(4), (4, Meeting::inner6(3), Meeting::outer(3))),
        ] {
            learns(&meeting, by, &to, &outer)?;
            learns(&meeting, back.0, &back.1, &back.2)?;
            meeting.talk_directly(by, &to, 50)?;
            ensure!(meeting.way(by, &outer)? == "direct", "{to} at {outer}");
        }
        let text = meeting.client(1)?.cli(&["status"])?.success()?.stdout;
        ensure!(text.contains("10.88.0.3/32 (learned) at 10.80.2.2 directly"), "{text}");

        // Withdrawn, it is reached through the gateway, with nothing lost.
        second.stop()?;
        until("the withdrawal", SOON, || {
            meeting.endpoint(1, &Meeting::outer(2)).ok()?.is_none().then_some(())
        })?;
        let before = meeting.through_gateway()?;
        ensure!(meeting.pings(1, 2, 50)? == 50);
        ensure!(meeting.through_gateway()? - before >= 50);
        meeting.talk_directly(3, &Meeting::inner(4), 50)
    })
}

#[test]
fn a_member_that_announces_what_it_must_not_draws_nothing_to_itself() -> Result<()> {
    in_lab(|lab| {
        let (meeting, reflector) = members(lab, 2)?;
        let _first = Bird::start(place(&meeting, 1)?, &straight(1)?)?;
        // The reflector lets members speak for themselves only: 10.88.0.1 is not the second one's.
        let more = "route 10.88.0.2/32 via \"ropewalk0\";\n    route 10.88.0.1/32 via \"ropewalk0\";";
        let greedy = straight(2)?.replacen(
            "route 10.88.0.3/32 via \"ropewalk0\";",
            &format!("route 10.88.0.3/32 via \"ropewalk0\";\n    {more}"),
            1,
        );
        ensure!(greedy.contains(more), "the configuration was not changed: {greedy}");
        let second = Bird::start(place(&meeting, 2)?, &greedy)?;
        learns(&meeting, 1, "10.88.0.3", &Meeting::outer(2))?;
        ensure!(learned(&meeting, 1, &Meeting::outer(2)) == Some(vec!["10.88.0.3/32".to_owned()]));
        let routes = reflector.ask("show route")?;
        ensure!(!routes.contains("10.88.0.1/32"), "the reflector took {routes}");
        drop(second);

        // And whatever comes to stand on the device is held against the profile, the gateway's grant and its address.
        let device = "dev ropewalk0 onlink table 88";
        place(&meeting, 1)?.ip(&format!(
            "route add 0.0.0.0/0 via 10.80.2.2 {device}\nroute add 198.18.9.0/24 via 10.80.2.2 {device}\n\
             route add 10.99.0.0/16 via 10.80.2.2 {device}\nroute add 10.88.0.7/32 via 198.18.9.2 {device}\n\
             route add 10.88.0.9/32 via 10.80.2.2 {device}"
        ))?;
        learns(&meeting, 1, "10.88.0.9", &Meeting::outer(2))?;
        until("what is not used", SOON, || {
            let ignored = meeting.client(1).ok()?.status_at("/group/ignored_routes").ok()?.to_string();
            let expected = [
                "0.0.0.0/0 via 10.80.2.2: it is not within multi_point_sa.learn_routes",
                "198.18.9.0/24 via 10.80.2.2: it is not within multi_point_sa.learn_routes",
                "10.99.0.0/16 via 10.80.2.2: it is not within multi_point_sa.learn_routes",
                "10.88.0.7/32 via 198.18.9.2: its next hop is the gateway",
            ];
            expected.iter().all(|words| ignored.contains(words)).then_some(())
        })?;
        ensure!(meeting.client(1)?.state()? == "connected");
        place(&meeting, 1)?.ip("route flush table 88")?;
        until("that they are gone", SOON, || {
            let none = meeting.client(1).ok()?.status_at("/group/endpoints").ok()?;
            none.as_array()?.is_empty().then_some(())
        })
        .map_err(Into::into)
    })
}
