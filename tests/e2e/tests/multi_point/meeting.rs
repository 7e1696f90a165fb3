//! A gateway and clients, each in a network of its own at one router; inside and outside there is IPv4 and IPv6.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{AuthKind, Client, ClientOptions, Credentials, Offer, PATIENCE, ProfileText, Reference};
use ropewalk_lab::{Childless, Lab, Namespace, until};
use serde_json::Value;

const GATEWAY: &str = "198.18.9.2";

/// All of it. Clients have numbers, from 1 on, in the order of their coming.
pub struct Meeting {
    pub router: Namespace,
    pub gateway: Reference,
    pub gateway_place: Namespace,
    credentials: Credentials,
    pub clients: Vec<Client>,
    /// NAT routers, which nothing else here holds.
    pub nats: Vec<Namespace>,
}

/// How a client comes in.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// The clients that it has routes to, by the outer address of the same family for inner IPv4.
    pub routes: &'a [usize],
    /// Further lines of `[multi_point_sa]`.
    pub more: &'a str,
    /// It sits behind a NAT router.
    pub behind_nat: bool,
    /// Where it takes the gateway to be.
    pub gateway: Option<IpAddr>,
    /// Further environment of its helper.
    pub environment: &'a [(String, std::path::PathBuf)],
}

/// Comes in with nothing special.
pub const PLAIN: Entry<'static> =
    Entry { routes: &[], more: "", behind_nat: false, gateway: None, environment: &[] };

/// With routes to these clients.
pub const fn knowing(routes: &[usize]) -> Entry<'_> {
    Entry { routes, ..PLAIN }
}

impl Meeting {
    pub fn new(lab: &Lab, group: &str) -> Result<Self> {
        Self::with(lab, group, Childless::Allow)
    }

    /// With a gateway that makes CHILD_SAs in the login, or after it.
    pub fn with(lab: &Lab, group: &str, childless: Childless) -> Result<Self> {
        let router = lab.namespace("router")?;
        router.forward()?;
        let place = lab.namespace("gateway")?;
        router.link("gw", &place, "eth0")?;
        router.address("gw", &["198.18.9.1/24", "fd98:9::1/64 nodad"])?;
        place.address("eth0", &[&format!("{GATEWAY}/24"), "fd98:9::2/64 nodad"])?;
        place.ip("route add default via 198.18.9.1\nroute add default via fd98:9::1")?;
        place.forward()?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let pools = vec!["10.88.0.0/24".to_owned(), "fd88::/64".to_owned()];
        let offer = Offer {
            traffic: pools.clone(),
            pools,
            dns: Vec::new(),
            childless,
            options: format!("unique = false\n\n[multi_point_sa]\n{group}"),
            ..Offer::new(AuthKind::Psk)
        };
        let gateway = Reference::start(&place, &offer, &credentials)?;
        Ok(Self { router, gateway, gateway_place: place, credentials, clients: Vec::new(), nats: Vec::new() })
    }

    /// The outer address of the client of this number.
    pub fn outer(number: usize) -> String {
        format!("10.80.{number}.2")
    }

    /// Its IPv6 one.
    pub fn outer6(number: usize) -> String {
        format!("fd80:{number}::2")
    }

    /// The inner address that it gets, since clients come in by their numbers.
    pub fn inner(number: usize) -> String {
        format!("10.88.0.{}", number + 1)
    }

    /// Its IPv6 one.
    pub fn inner6(number: usize) -> String {
        format!("fd88::{:x}", number + 1)
    }

    /// The next client's place in the network: alone behind the router, or behind a NAT.
    fn place(&mut self, behind_nat: bool) -> Result<Namespace> {
        let number = self.clients.len() + 1;
        let (outside, place) = (format!("net{number}"), self.router.lab().namespace(&format!("c{number}"))?);
        let (router, router6) = (format!("10.80.{number}.1"), format!("fd80:{number}::1"));
        let default = format!("route add default via {router}\nroute add default via {router6}");
        let addresses = [format!("{}/24", Self::outer(number)), format!("{}/64 nodad", Self::outer6(number))];
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let near = if behind_nat {
            let nat = self.router.lab().namespace(&format!("nat{number}"))?;
            self.router.link(&outside, &nat, "out")?;
            nat.forward()?;
            nat.masquerade("out")?;
            nat.address("out", &addresses)?;
            nat.link("in", &place, "eth0")?;
            nat.address("in", &["192.168.7.1/24"])?;
            place.address("eth0", &["192.168.7.2/24"])?;
            place.ip("route add default via 192.168.7.1")?;
            self.nats.push(nat.clone());
            nat
        } else {
            self.router.link(&outside, &place, "eth0")?;
            place.address("eth0", &addresses)?;
            place.clone()
        };
        self.router.address(&outside, &[&format!("{router}/24"), &format!("{router6}/64 nodad")])?;
        near.ip(&default)?;
        Ok(place)
    }

    /// The next client comes in.
    pub fn join(&mut self, entry: Entry<'_>) -> Result<()> {
        let place = self.place(entry.behind_nat)?;
        let number = self.clients.len() + 1;
        let options = ClientOptions {
            folder: format!("client{number}"),
            environment: entry.environment.to_vec(),
            ..ClientOptions::default()
        };
        let client = Client::start_with(&place, options)?;
        let gateway = entry.gateway.map_or_else(|| GATEWAY.to_owned(), |address| address.to_string());
        let mut profile = ProfileText::new(AuthKind::Psk, &self.credentials, &gateway);
        let listed = entry.routes.iter().map(|other| {
            format!("{{ prefix = \"{}/32\", endpoint = \"{}\" }}", Self::inner(*other), Self::outer(*other))
        });
        let listed: Vec<_> = listed.collect();
        let routes = format!("routes = [{}]\n", listed.join(", "));
        let routes =
            if entry.more.contains("routes = ") && listed.is_empty() { String::new() } else { routes };
        profile.timing = format!("\n[multi_point_sa]\nenabled = true\n{}{routes}", entry.more);
        client.connect(&profile, None)?;
        for (at, inner) in [format!("{}/32", Self::inner(number)), format!("{}/128", Self::inner6(number))]
            .into_iter()
            .enumerate()
        {
            let got = client.status_at(&format!("/addresses/{at}"))?;
            ensure!(got == inner, "client {number} got {got}, not {inner}");
        }
        self.clients.push(client);
        self.is_member(number)
    }

    pub fn client(&self, number: usize) -> Result<&Client> {
        self.clients.get(number - 1).context("no such client")
    }

    /// The client of this number has the group's SA, if it takes it at all.
    fn is_member(&self, number: usize) -> Result<()> {
        let client = self.client(number)?;
        Ok(until("the group's SA, or that it is refused", PATIENCE, || {
            let state = client.status_at("/group/state").ok()?;
            (state == "in-use" || state == "refused").then_some(())
        })?)
    }

    /// How a client reaches the endpoint of this outer address.
    pub fn way(&self, from: usize, outer: &str) -> Result<String> {
        let endpoint = self.endpoint(from, outer)?.with_context(|| format!("{outer} is not known"))?;
        Ok(endpoint.get("way").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// What a client's status says of the endpoint of this outer address.
    pub fn endpoint(&self, from: usize, outer: &str) -> Result<Option<Value>> {
        let endpoints = self.client(from)?.status_at("/group/endpoints")?;
        let endpoints = endpoints.as_array().context("no endpoints")?;
        Ok(endpoints.iter().find(|endpoint| endpoint.get("address").is_some_and(|it| it == outer)).cloned())
    }

    /// Packets that went through the gateway's tunnels so far.
    pub fn through_gateway(&self) -> Result<u64> {
        let stats = self.gateway.control("stats")?;
        stats.get("tx_packets").and_then(Value::as_u64).context("no tx_packets")
    }

    /// Pings from one client to another, a hundred a second: how many were answered.
    pub fn pings(&self, from: usize, to: usize, count: u32) -> Result<u32> {
        self.pings_to(from, &Self::inner(to), count)
    }

    /// The same to an address.
    pub fn pings_to(&self, from: usize, to: &str, count: u32) -> Result<u32> {
        let count = count.to_string();
        let arguments = ["-n", "-q", "-i", "0.01", "-W", "2", "-c", &count, to];
        let finished = self.client(from)?.namespace().run("ping", &arguments, Duration::from_secs(60))?;
        let received = finished.stdout.split(" received").next().and_then(|head| head.rsplit(' ').next());
        received.and_then(|number| number.parse().ok()).with_context(|| format!("ping: {finished:?}"))
    }

    /// Pings one address from a client, and expects all answered and none of them at the gateway.
    pub fn talk_directly(&self, from: usize, to: &str, count: u32) -> Result<()> {
        let before = self.through_gateway()?;
        let answered = self.pings_to(from, to, count)?;
        ensure!(answered == count, "{from} to {to}: {answered} of {count} answered");
        let passed = self.through_gateway()? - before;
        ensure!(passed < 10, "{from} to {to}: {passed} of {} packets passed the gateway", 2 * count);
        Ok(())
    }

    /// Counts ESP in UDP between two outer addresses at the router, from now on.
    pub fn count(&self, name: &str, from: &str, to: &str) -> Result<()> {
        let family = if from.contains(':') { "ip6" } else { "ip" };
        Ok(self.router.nft(&format!(
            "table inet {name} {{ chain forward {{ type filter hook forward priority 0; \
             {family} saddr {from} {family} daddr {to} udp dport 4500 counter; }}; }}"
        ))?)
    }

    /// What [`Self::count`] of this name has seen.
    pub fn counted(&self, name: &str) -> Result<u64> {
        let list = self.router.run("nft", &["list", "table", "inet", name], PATIENCE)?.success()?.stdout;
        let number = list.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
        number.and_then(|number| number.parse().ok()).with_context(|| format!("no counter in {list}"))
    }
}
