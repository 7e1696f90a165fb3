//! The networks of a client with several: each has a router of its own, which is a NAT, and in it a relay that makes it as
//! good or bad as wanted.
//!
//! ```text
//!  client             router of the network              router of the site      gateway
//!  interface ----- inside [relay, masquerade] outside ---- up1, up2, ... --------- 198.51.100.2
//! ```
//!
//! The relay is transparent: what the client sends to a gateway's ports 500 and 4500 is redirected to it, so that the client
//! knows nothing but the gateway's address. Each gateway address has a relay of its own, so that each way can go alone.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::{
    error::Result,
    netns::Namespace,
    relay::{Conditions, Relay},
    site::Site,
};

/// The ports of a gateway.
const PORTS: [u16; 2] = [500, 4500];
/// Where the relays listen: each gateway address takes this many ports more.
const FIRST_PORT: u16 = 20_000;
const APART: u16 = 5_000;

/// What a network hands out to the client. Several may hand out the same.
#[derive(Debug, Clone, Copy)]
pub struct Lease<'a> {
    /// The router's addresses, with their prefix lengths.
    pub router: &'a [&'a str],
    /// The client's addresses, with their prefix lengths.
    pub client: &'a [&'a str],
    /// The routers that the client's default routes go by.
    pub via: &'a [&'a str],
    /// The metric of these routes.
    pub metric: u32,
}

/// A network of the client.
#[derive(Debug)]
pub struct Uplink {
    /// The client's interface.
    pub interface: String,
    /// The router.
    pub router: Namespace,
    /// One for each gateway address.
    pub relays: Vec<Relay>,
    client: Namespace,
    routes: String,
}

impl Uplink {
    /// Joins a client to a new network that leads to these gateway addresses. `number` is one that no other network of the
    /// site has.
    ///
    /// # Errors
    /// When a part cannot be made.
    pub fn new(
        site: &Site,
        client: &Namespace,
        (number, interface): (u8, &str),
        lease: &Lease,
        gateways: &[IpAddr],
    ) -> Result<Self> {
        let router = site.lab.namespace(&format!("net{number}"))?;
        router.link("inside", client, interface)?;
        let port = format!("up{number}");
        site.router.link(&port, &router, "outside")?;
        site.router.address(&port, &[&format!("100.64.{number}.1/24"), &format!("fd64:{number}::1/64")])?;
        router.address("outside", &[&format!("100.64.{number}.2/24"), &format!("fd64:{number}::2/64")])?;
        router
            .ip(&format!("route add default via 100.64.{number}.1\nroute add ::/0 via fd64:{number}::1"))?;
        router.address("inside", lease.router)?;
        router.forward()?;
        client.address(interface, lease.client)?;
        let routes = lease.via.iter().map(|via| {
            let all = if via.contains(':') { "::/0" } else { "default" };
            format!("route add {all} via {via} dev {interface} metric {}\n", lease.metric)
        });
        let routes: String = routes.collect();
        client.ip(&routes)?;
        let (mut relays, mut redirections) = (Vec::new(), String::new());
        for (gateway, first) in gateways.iter().zip((FIRST_PORT..).step_by(usize::from(APART))) {
            let any: IpAddr = if gateway.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
            let pairs =
                PORTS.map(|port| (SocketAddr::new(any, first + port), SocketAddr::new(*gateway, port)));
            relays.push(Relay::between(&router, &pairs, u64::from(number) * 1000 + u64::from(first))?);
            let family = if gateway.is_ipv4() { "ip" } else { "ip6" };
            for port in PORTS {
                redirections += &format!(
                    "iifname \"inside\" {family} daddr {gateway} udp dport {port} redirect to :{}\n ",
                    first + port
                );
            }
        }
        router.nft(&format!(
            "table inet lab_relay {{\n chain pre {{\n type nat hook prerouting priority dstnat;\n {redirections}}}\n}}\n"
        ))?;
        router.masquerade("outside")?;
        Ok(Self { interface: interface.to_owned(), router, relays, client: client.clone(), routes })
    }

    /// The network's carrier goes or comes, as when a cable is pulled. The client's addresses and routes stay as they are; those
    /// that the kernel has taken away are there again with the carrier.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn carrier(&self, up: bool) -> Result<()> {
        if up {
            self.router.ip("link set inside up")?;
            for route in self.routes.lines() {
                // It may well be there.
                let _ = self.client.ip(route);
            }
            Ok(())
        } else {
            self.router.ip("link set inside down")
        }
    }

    /// The client gets another address here; its default route stays.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn renumber(&self, old: &str, new: &str) -> Result<()> {
        let interface = &self.interface;
        // A second address of a subnet would go with the first one.
        self.client.ip(&format!("addr del {old} dev {interface}\naddr add {new} dev {interface}"))?;
        for route in self.routes.lines() {
            let _ = self.client.ip(route);
        }
        Ok(())
    }

    /// Changes the network from now on, towards every gateway address.
    pub fn set(&self, conditions: Conditions) {
        self.relays.iter().for_each(|relay| relay.set(conditions));
    }

    /// A good network again, but for its delay.
    pub fn good(&self, delay: Duration) {
        self.set(Conditions { delay, ..Conditions::default() });
    }

    /// Nothing passes any more; the carrier stays.
    pub fn darken(&self) {
        for relay in &self.relays {
            relay.set(Conditions { dark: true, ..relay.conditions() });
        }
    }

    /// What [`Self::darken`] did is over.
    pub fn lighten(&self) {
        for relay in &self.relays {
            relay.set(Conditions { dark: false, ..relay.conditions() });
        }
    }
}
