//! Multi-point SA (draft-yamaya-ipsecme-mpsa) between built clients: they talk to each other directly, with an SA that the
//! reference gateway hands out, and by way of the gateway where that does not work.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{
    AuthKind, Client, ClientOptions, Credentials, Offer, PATIENCE, ProfileText, Reference, in_lab,
};
use ropewalk_lab::{Lab, Namespace, until};
use serde_json::Value;

const GATEWAY: &str = "198.18.9.2";

/// A gateway and clients, each in a network of its own at one router.
struct Meeting {
    router: Namespace,
    gateway: Reference,
    credentials: Credentials,
    clients: Vec<Client>,
    /// Namespaces that nothing else here holds.
    places: Vec<Namespace>,
}

impl Meeting {
    fn new(lab: &Lab, group: &str) -> Result<Self> {
        let router = lab.namespace("router")?;
        router.forward()?;
        let place = lab.namespace("gateway")?;
        router.link("gw", &place, "eth0")?;
        router.address("gw", &["198.18.9.1/24"])?;
        place.address("eth0", &[&format!("{GATEWAY}/24")])?;
        place.ip("route add default via 198.18.9.1")?;
        place.forward()?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let offer = Offer {
            traffic: vec!["10.88.0.0/24".to_owned()],
            pools: vec!["10.88.0.0/24".to_owned()],
            dns: Vec::new(),
            options: format!("unique = false\n\n[multi_point_sa]\n{group}"),
            ..Offer::new(AuthKind::Psk)
        };
        let gateway = Reference::start(&place, &offer, &credentials)?;
        Ok(Self { router, gateway, credentials, clients: Vec::new(), places: vec![place] })
    }

    /// The outer address of the client of this number.
    fn outer(number: usize) -> String {
        format!("10.80.{number}.2")
    }

    /// The inner address that it gets, since clients come in by their numbers.
    fn inner(number: usize) -> String {
        format!("10.88.0.{}", number + 1)
    }

    /// The next client's place in the network: alone behind the router, or behind a NAT.
    fn place(&mut self, behind_nat: bool) -> Result<Namespace> {
        let number = self.clients.len() + 1;
        let (outside, place) = (format!("net{number}"), self.router.lab().namespace(&format!("c{number}"))?);
        let (router, address) = (format!("10.80.{number}.1"), Self::outer(number));
        if behind_nat {
            let nat = self.router.lab().namespace(&format!("nat{number}"))?;
            self.router.link(&outside, &nat, "out")?;
            nat.address("out", &[&format!("{address}/24")])?;
            nat.ip(&format!("route add default via {router}"))?;
            nat.forward()?;
            nat.masquerade("out")?;
            nat.link("in", &place, "eth0")?;
            nat.address("in", &["192.168.7.1/24"])?;
            place.address("eth0", &["192.168.7.2/24"])?;
            place.ip("route add default via 192.168.7.1")?;
            self.places.push(nat);
        } else {
            self.router.link(&outside, &place, "eth0")?;
            place.address("eth0", &[&format!("{address}/24")])?;
            place.ip(&format!("route add default via {router}"))?;
        }
        self.router.address(&outside, &[&format!("{router}/24")])?;
        Ok(place)
    }

    /// The next client comes in; it knows routes to the clients of these numbers.
    fn join(&mut self, routes: &[usize], more: &str, behind_nat: bool) -> Result<()> {
        let place = self.place(behind_nat)?;
        let number = self.clients.len() + 1;
        let options = ClientOptions { folder: format!("client{number}"), ..ClientOptions::default() };
        let client = Client::start_with(&place, options)?;
        let mut profile = ProfileText::new(AuthKind::Psk, &self.credentials, GATEWAY);
        let listed = routes.iter().map(|other| {
            format!("{{ prefix = \"{}/32\", endpoint = \"{}\" }}", Self::inner(*other), Self::outer(*other))
        });
        let listed: Vec<_> = listed.collect();
        profile.timing =
            format!("\n[multi_point_sa]\nenabled = true\n{more}routes = [{}]\n", listed.join(", "));
        client.connect(&profile, None)?;
        let inner = client.status_at("/addresses/0")?;
        ensure!(inner == format!("{}/32", Self::inner(number)), "client {number} got {inner}");
        self.clients.push(client);
        Ok(())
    }

    fn client(&self, number: usize) -> Result<&Client> {
        self.clients.get(number - 1).context("no such client")
    }

    /// The client of this number has the group's SA.
    fn is_member(&self, number: usize) -> Result<()> {
        let client = self.client(number)?;
        Ok(until("the port of the group", PATIENCE, || {
            let bound = client.namespace().run("ss", &["-uln"], PATIENCE).ok()?;
            bound.stdout.contains(":4500").then_some(())
        })?)
    }

    /// Packets that went through the gateway's tunnels so far.
    fn through_gateway(&self) -> Result<u64> {
        let stats = self.gateway.control("stats")?;
        stats.get("tx_packets").and_then(Value::as_u64).context("no tx_packets")
    }

    /// Pings from one client to another, a hundred a second: how many were answered.
    fn pings(&self, from: usize, to: usize, count: u32) -> Result<u32> {
        let (count, to) = (count.to_string(), Self::inner(to));
        let arguments = ["-n", "-q", "-i", "0.01", "-W", "2", "-c", &count, &to];
        let finished = self.client(from)?.namespace().run("ping", &arguments, Duration::from_secs(60))?;
        let received = finished.stdout.split(" received").next().and_then(|head| head.rsplit(' ').next());
        received.and_then(|number| number.parse().ok()).with_context(|| format!("ping: {finished:?}"))
    }
}

#[test]
fn clients_with_routes_to_each_other_do_not_need_the_gateway_to_talk() -> Result<()> {
    in_lab(|lab| {
        let mut meeting = Meeting::new(lab, "")?;
        meeting.join(&[2, 3], "", false)?;
        meeting.join(&[1, 3], "", false)?;
        (1..=2).try_for_each(|number| meeting.is_member(number))?;
        ensure!(meeting.client(1)?.status_at("/features/multi_point_sa")? == true);
        let before = meeting.through_gateway()?;
        ensure!(meeting.pings(1, 2, 300)? == 300);
        ensure!(meeting.pings(2, 1, 300)? == 300);
        let passed = meeting.through_gateway()? - before;
        ensure!(passed < 10, "{passed} of 1,200 packets passed the gateway");

        // One whose route was listed beforehand joins, and leaves again, and nothing changes for the others.
        let log = meeting.client(1)?.helper_log().len();
        meeting.join(&[1, 2], "", false)?;
        meeting.is_member(3)?;
        let before = meeting.through_gateway()?;
        ensure!(meeting.pings(3, 1, 100)? == 100);
        ensure!(meeting.pings(2, 3, 100)? == 100);
        let passed = meeting.through_gateway()? - before;
        ensure!(passed < 10, "{passed} of 400 packets passed the gateway");
        meeting.client(3)?.disconnect()?;
        ensure!(meeting.pings(1, 2, 100)? == 100);
        let news = meeting.client(1)?.helper_log().split_off(log);
        ensure!(!news.contains("group"), "the others were told something: {news}");

        // With the connection the membership ends.
        meeting.client(2)?.disconnect()?;
        let gone = meeting.client(2)?.namespace().run("ss", &["-uln"], PATIENCE)?.success()?.stdout;
        ensure!(!gone.contains(":4500"), "the port is still open: {gone}");
        Ok(())
    })
}

#[test]
fn who_has_no_route_or_does_not_answer_is_reached_through_the_gateway() -> Result<()> {
    in_lab(|lab| {
        let mut meeting = Meeting::new(lab, "")?;
        meeting.join(&[2], "", false)?;
        meeting.join(&[1], "", false)?;
        meeting.join(&[1], "", true)?;
        (1..=3).try_for_each(|number| meeting.is_member(number))?;
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
        Ok(())
    })
}

#[test]
fn a_rollover_under_traffic_loses_nothing() -> Result<()> {
    in_lab(|lab| {
        let mut meeting = Meeting::new(lab, "rollover1 = 2\nrollover2 = 4\n")?;
        meeting.join(&[2], "", false)?;
        meeting.join(&[1], "", false)?;
        (1..=2).try_for_each(|number| meeting.is_member(number))?;
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
    })
}

#[test]
fn sha1_is_taken_only_when_the_profile_says_so_and_a_counter_mode_never() -> Result<()> {
    for (group, more, expected) in [
        ("integrity = \"sha1\"\n", "", false),
        ("integrity = \"sha1\"\n", "allow_sha1 = true\n", true),
        ("encryption = \"aes256gcm16\"\n", "allow_sha1 = true\n", false),
    ] {
        in_lab(|lab| {
            let mut meeting = Meeting::new(lab, group)?;
            meeting.join(&[2], more, false)?;
            meeting.join(&[1], more, false)?;
            let word = if expected { "handed out an SA of the group" } else { "is not used" };
            for (at, client) in meeting.clients.iter().enumerate() {
                until(word, PATIENCE, || client.helper_log().contains(word).then_some(()))?;
                if expected {
                    meeting.is_member(at + 1)?;
                }
            }
            let before = meeting.through_gateway()?;
            ensure!(meeting.pings(1, 2, 50)? == 50);
            let passed = meeting.through_gateway()? - before;
            ensure!((passed < 10) == expected, "{group}{more}: {passed} packets passed the gateway");
            Ok(())
        })?;
    }
    Ok(())
}
