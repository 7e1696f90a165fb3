//! Who is reached directly, who is not, and that coming, going and moving change nothing for the others.

use std::time::Duration;

use anyhow::{Result, ensure};
use ropewalk_e2e::{PATIENCE, in_lab};
use ropewalk_lab::{Childless, until};

use crate::meeting::{Entry, Meeting, PLAIN, knowing};

#[test]
fn clients_with_routes_to_each_other_do_not_need_the_gateway_to_talk() -> Result<()> {
    in_lab(|lab| {
        let mut meeting = Meeting::new(lab, "")?;
        meeting.join(knowing(&[2, 3, 4]))?;
        meeting.join(knowing(&[1, 3, 4]))?;
        meeting.join(knowing(&[1, 2, 4]))?;
        ensure!(meeting.client(1)?.status_at("/features/multi_point_sa")? == true);
        ensure!(meeting.way(1, &Meeting::outer(2))? == "untried");
        meeting.count("wire", &Meeting::outer(1), &Meeting::outer(2))?;
        meeting.talk_directly(1, &Meeting::inner(2), 300)?;
        meeting.talk_directly(2, &Meeting::inner(1), 300)?;
        meeting.talk_directly(3, &Meeting::inner(2), 100)?;
        let counted = meeting.counted("wire")?;
        ensure!(counted >= 600, "{counted} of 600 packets took the direct way");
        ensure!(meeting.way(1, &Meeting::outer(2))? == "direct");
        let text = meeting.client(1)?.cli(&["status"])?.success()?.stdout;
        for words in ["Group", "not checked for replayed packets", "10.88.0.3/32 at 10.80.2.2 directly"] {
            ensure!(text.contains(words), "{words:?} is not in {text}");
        }
        let received = meeting.client(1)?.status_at("/totals/packets_in")?;
        ensure!(received.as_u64() >= Some(600), "what members send counts in the connection: {received}");

        // One whose route was listed beforehand joins, another one leaves, and nothing changes for the others.
        let logs = [1, 2].map(|number| meeting.client(number).map(|client| client.helper_log().len()));
        meeting.join(knowing(&[1, 2]))?;
        meeting.talk_directly(4, &Meeting::inner(1), 100)?;
        meeting.talk_directly(2, &Meeting::inner(4), 100)?;
        meeting.client(3)?.disconnect()?;
        meeting.talk_directly(1, &Meeting::inner(2), 100)?;
        for (number, log) in [1, 2].into_iter().zip(logs) {
            let news = meeting.client(number)?.helper_log().split_off(log?);
            ensure!(!news.contains("group"), "client {number} was told something: {news}");
        }

        // With the connection the membership ends.
        let gone = meeting.client(3)?.namespace().run("ss", &["-uln"], PATIENCE)?.success()?.stdout;
        ensure!(!gone.contains(":4500"), "the port is still open: {gone}");
        Ok(())
    })
}

#[test]
fn inside_and_outside_may_be_ipv4_and_ipv6_in_all_combinations() -> Result<()> {
    in_lab(|lab| {
        let mut meeting = Meeting::new(lab, "")?;
        let (two, three) = (2, 3);
        let to = |prefix: String, endpoint: String| {
            format!("{{ prefix = \"{prefix}\", endpoint = \"{endpoint}\" }}")
        };
        let crossed = |number| {
            [
                to(format!("{}/32", Meeting::inner(number)), Meeting::outer6(number)),
                to(format!("{}/128", Meeting::inner6(number)), Meeting::outer(number)),
            ]
        };
        let straight = |number| {
            [
                to(format!("{}/32", Meeting::inner(number)), Meeting::outer(number)),
                to(format!("{}/128", Meeting::inner6(number)), Meeting::outer6(number)),
            ]
        };
        let list = |routes: &[[String; 2]]| format!("routes = [{}]\n", routes.concat().join(", "));
        let more = list(&[crossed(two), straight(three)]);
        meeting.join(Entry { more: &more, ..PLAIN })?;
        meeting.join(Entry { more: &list(&[crossed(1)]), ..PLAIN })?;
        meeting.join(Entry { more: &list(&[straight(1)]), ..PLAIN })?;
        for (name, outer, inner) in [
            ("four_in_six", Meeting::outer6(two), Meeting::inner(two)),
            ("six_in_four", Meeting::outer(two), Meeting::inner6(two)),
            ("four_in_four", Meeting::outer(three), Meeting::inner(three)),
            ("six_in_six", Meeting::outer6(three), Meeting::inner6(three)),
        ] {
            let ours = if outer.contains(':') { Meeting::outer6(1) } else { Meeting::outer(1) };
            meeting.count(name, &ours, &outer)?;
            meeting.talk_directly(1, &inner, 50)?;
            let counted = meeting.counted(name)?;
            ensure!(counted >= 50, "{name}: {counted} of 50 packets on the wire");
        }
        Ok(())
    })
}

#[test]
fn an_sa_of_the_group_that_comes_before_the_child_sa_is_used_once_that_is_there() -> Result<()> {
    in_lab(|lab| {
        let mut meeting = Meeting::with(lab, "", Childless::Force)?;
        meeting.join(knowing(&[2]))?;
        meeting.join(knowing(&[1]))?;
        meeting.talk_directly(1, &Meeting::inner(2), 50)?;
        meeting.talk_directly(2, &Meeting::inner(1), 50)
    })
}

#[test]
fn who_has_no_route_or_does_not_answer_is_reached_through_the_gateway() -> Result<()> {
    in_lab(|lab| {
        let mut meeting = Meeting::new(lab, "")?;
        meeting.join(knowing(&[2]))?;
        meeting.join(knowing(&[1]))?;
        meeting.join(knowing(&[1]))?;
        // The first has no route to the third.
        let before = meeting.through_gateway()?;
        ensure!(meeting.pings(1, 3, 50)? >= 49, "no route");
        ensure!(meeting.through_gateway()? - before >= 50);
        ensure!(meeting.pings(1, 2, 50)? == 50);
        // From now on packets between the first two are lost outside.
        meeting.router.nft(
            "table inet cut { chain forward { type filter hook forward priority 0; \
             ip saddr 10.80.1.2 ip daddr 10.80.2.2 drop; ip saddr 10.80.2.2 ip daddr 10.80.1.2 drop; }; }",
        )?;
        let answered = meeting.pings(1, 2, 600)?;
        ensure!(
            answered >= 250,
            "{answered} of 600: it takes a second to notice, and some for a busy machine"
        );
        ensure!(meeting.pings(1, 2, 100)? == 100, "the way through the gateway stays");
        ensure!(meeting.way(1, &Meeting::outer(2))? == "gateway");
        Ok(())
    })
}

#[test]
fn a_listed_endpoint_behind_a_nat_is_reached_through_the_gateway_until_it_opens_a_way() -> Result<()> {
    in_lab(|lab| {
        let mut meeting = Meeting::new(lab, "")?;
        let behind_nat = Entry { behind_nat: true, ..PLAIN };
        meeting.join(knowing(&[2, 3, 4]))?;
        meeting.join(behind_nat)?;
        meeting.join(behind_nat)?;
        meeting.join(Entry { routes: &[1], ..behind_nat })?;
        let silent =
            "table inet closed { chain input { type filter hook input priority 0; iifname \"out\" drop; }; }";
        meeting.nats.iter().skip(1).try_for_each(|nat| nat.nft(silent))?;

        // The second sends nothing directly. Its NAT router says that there is nobody: no packet but the first is lost.
        let answered = meeting.pings(1, 2, 100)?;
        ensure!(answered >= 98, "{answered} of 100 with a NAT router that says so");
        ensure!(meeting.way(1, &Meeting::outer(2))? == "gateway");

        // Nor does the third, and its NAT router says nothing at all: it takes a second.
        let answered = meeting.pings(1, 3, 400)?;
        ensure!(answered >= 200, "{answered} of 400: it takes a second, and some for a busy machine");
        ensure!(meeting.pings(1, 3, 100)? == 100, "the way through the gateway stays");
        ensure!(meeting.way(1, &Meeting::outer(3))? == "gateway");

        // The fourth sends to the first, and what its NAT router lets out opens the way back.
        meeting.pings(4, 1, 20)?;
        until("the direct way", PATIENCE, || {
            (meeting.way(1, &Meeting::outer(4)).ok()? == "direct").then_some(())
        })?;
        meeting.talk_directly(4, &Meeting::inner(1), 100)?;
        meeting.talk_directly(1, &Meeting::inner(4), 100)
    })
}

#[test]
fn a_client_that_moves_stays_a_member_and_is_reached_through_the_gateway() -> Result<()> {
    in_lab(|lab| {
        let mut meeting = Meeting::new(lab, "")?;
        meeting.join(knowing(&[2]))?;
        meeting.join(knowing(&[1]))?;
        meeting.talk_directly(2, &Meeting::inner(1), 50)?;
        let spi = meeting.client(1)?.status_at("/group/spi")?;
        meeting.client(1)?.namespace().ip(
            "addr del 10.80.1.2/24 dev eth0\naddr add 10.80.1.7/24 dev eth0\nroute replace default via 10.80.1.1",
        )?;
        until("the move", PATIENCE, || {
            let local = meeting.client(1).ok()?.status_at("/paths/0/local").ok()?;
            let state = meeting.client(1).ok()?.state().ok()?;
            (local.as_str()?.starts_with("10.80.1.7:") && state == "connected").then_some(())
        })?;
        // It goes on with the same SA, also directly; but whoever has it listed at the old address finds out that nobody is
        // there, and then both take the way through the gateway.
        meeting.count("moved", "10.80.1.7", &Meeting::outer(2))?;
        let answered = meeting.pings(2, 1, 600)?;
        ensure!(answered >= 250, "{answered} of 600 after the move");
        let counted = meeting.counted("moved")?;
        ensure!(counted > 0, "nothing took the direct way from the new address");
        ensure!(meeting.way(2, &Meeting::outer(1))? == "gateway");
        ensure!(meeting.pings(2, 1, 100)? == 100);
        ensure!(meeting.pings(1, 2, 100)? == 100);
        ensure!(meeting.client(1)?.status_at("/group/spi")? == spi);
        let handed_out = meeting.client(1)?.helper_log().matches("handed out an SA of the group").count();
        ensure!(handed_out == 1, "it was handed {handed_out} SAs");
        // Back home it is found again, before the detour of a minute is over: it answers at the listed address.
        meeting.client(1)?.namespace().ip(
            "addr del 10.80.1.7/24 dev eth0\naddr add 10.80.1.2/24 dev eth0\nroute replace default via 10.80.1.1",
        )?;
        until("the direct way again", Duration::from_secs(20), || {
            meeting.pings(1, 2, 5).ok()?;
            (meeting.way(2, &Meeting::outer(1)).ok()? == "direct").then_some(())
        })?;
        Ok(())
    })
}
