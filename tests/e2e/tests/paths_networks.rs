//! Several paths at once over the networks that people have: three at a time, two that hand out the same addresses, IPv6 with
//! privacy addresses, and a gateway with two addresses (figure 3 of the draft). Each network has a NAT and a relay of its own.

#![allow(clippy::indexing_slicing, reason = "a path that is not there is a failed test")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{Flow, GatewayKind, Outcome, PATIENCE, PathSeen, Pings, Plan, Several, in_lab};
use ropewalk_lab::{
    Conditions, Lease, Site, download,
    site::{GATEWAY_V4, GATEWAY_V6},
    upload,
};

/// A silent path is left within a second of the first lost data; the rest is for a machine that is busy.
const SILENCE: Duration = Duration::from_millis(1500);
/// What is left at once may take this long on a machine that is busy.
const AT_ONCE: Duration = Duration::from_millis(300);
/// Failed paths are asked every two seconds and have to answer three times.
const TRUSTED_AGAIN: Duration = Duration::from_secs(20);
const MEGABYTE: u64 = 1_000_000;

fn told(what: &str, outcome: &Outcome) {
    println!("{what}: {} of {} pings lost, none for {:?}", outcome.lost, outcome.sent, outcome.longest);
}

fn interfaces(paths: &[PathSeen]) -> BTreeSet<&str> {
    paths.iter().filter(|path| path.works()).map(|path| path.interface.as_str()).collect()
}

#[test]
fn three_networks_carry_three_strands_and_any_two_may_fail() -> Result<()> {
    in_lab(|lab| {
        let up = Several::up(lab, &Plan::new(GatewayKind::Reference, 3, "failover"))?;
        for (uplink, (delay, loss)) in up.uplinks.iter().zip([(5, 0.0), (12, 0.0), (30, 0.005)]) {
            uplink.set(Conditions { delay: Duration::from_millis(delay), loss, ..Conditions::default() });
        }
        up.settles(&["eth0"], &["wlan0", "wwan0"])?;
        ensure!(up.client.status_at("/features/keep_old_ike_sa")? == true);
        ensure!(up.client.status_at("/alone")?.is_null());
        let listed = up.client.cli(&["paths"])?.success()?.stdout;
        ensure!(["eth0", "wlan0", "wwan0"].iter().all(|name| listed.contains(name)), "{listed}");
        let flow = Flow::open(&up.site)?;
        let pings = Pings::start(&up.site.client, Site::transfer_v4())?;
        thread::sleep(Duration::from_secs(1));

        // Wherever it carries, that network falls silent; then the next one loses its carrier; one is left.
        let mark = pings.mark();
        up.uplink("eth0")?.darken();
        up.wait("another path", PATIENCE, |paths| {
            paths[0].state == "active" && paths[0].interface != "eth0"
        })?;
        let second = up.carrying()?.interface;
        thread::sleep(Duration::from_secs(1));
        let silent = pings.since(mark);
        told("the first of three falls silent", &silent);
        ensure!(silent.longest <= SILENCE, "{silent:?}");

        let mark = pings.mark();
        up.uplink(&second)?.carrier(false)?;
        up.wait("the third path", PATIENCE, |paths| {
            paths[0].state == "active" && paths[0].interface != "eth0" && paths[0].interface != second
        })?;
        thread::sleep(Duration::from_secs(1));
        let gone = pings.since(mark);
        told("the second one loses its carrier", &gone);
        ensure!(gone.longest <= AT_ONCE, "{gone:?}");

        up.uplink("eth0")?.lighten();
        up.uplink(&second)?.carrier(true)?;
        up.all_work(3, TRUSTED_AGAIN)?;
        ensure!(interfaces(&up.paths()?) == BTreeSet::from(["eth0", "wlan0", "wwan0"]));
        pings.stop()?;
        flow.close()?;
        up.never_fell()?;
        up.client.disconnect()
    })
}

/// Two networks with the same subnet and the same router's address; each drops what comes from an address that it did not
/// hand out.
fn same_subnet(first: &str, second: &str) -> Result<()> {
    in_lab(|lab| {
        let mut plan = Plan::new(GatewayKind::Reference, 0, "balance");
        let (clients, routers, via) = ([[first], [second]], ["192.168.1.1/24"], ["192.168.1.1"]);
        for ((interface, metric), client) in [("eth0", 100), ("wlan0", 600)].into_iter().zip(&clients) {
            plan.uplinks.push((interface, Lease { router: &routers, client, via: &via, metric }));
        }
        let up = Several::up(lab, &plan)?;
        for (uplink, client) in up.uplinks.iter().zip(&clients) {
            let own = client[0].split('/').next().context("an address")?;
            uplink.router.nft(&format!(
                "table ip snooping {{\n chain strangers {{\n type filter hook prerouting priority raw;\n \
                 iifname \"inside\" ip saddr != {own} drop\n }}\n}}\n"
            ))?;
        }
        up.settles(&["eth0", "wlan0"], &[])?;
        for (path, client) in up.paths()?.iter().zip(&clients) {
            let own = client[0].split('/').next().context("an address")?;
            ensure!(path.local.starts_with(&format!("{own}:")), "{path:?} is not from {own}");
        }
        // Many flows, so that both carry some; what a network has carried its relay has counted.
        for _ in 0..8 {
            upload(&up.site.client, Site::transfer_v4(), MEGABYTE / 8, PATIENCE)?;
            download(&up.site.client, Site::transfer_v4(), MEGABYTE / 8, PATIENCE)?;
        }
        for uplink in &up.uplinks {
            let passed = uplink.relays[0].passed();
            println!("{} has carried {passed:?}", uplink.interface);
            ensure!(passed.up > 50 && passed.down > 50, "{} has carried {passed:?}", uplink.interface);
        }
        // And each alone.
        for (gone, left) in [(0, 1), (1, 0)] {
            let pings = Pings::start(&up.site.client, Site::transfer_v4())?;
            thread::sleep(Duration::from_millis(300));
            let mark = pings.mark();
            up.uplinks[gone].carrier(false)?;
            up.settles(&[&up.uplinks[left].interface], &[])?;
            thread::sleep(Duration::from_secs(1));
            let outcome = pings.since(mark);
            told(&format!("{} goes", up.uplinks[gone].interface), &outcome);
            ensure!(outcome.longest <= AT_ONCE, "{outcome:?}");
            download(&up.site.client, Site::transfer_v4(), MEGABYTE, PATIENCE)?;
            up.uplinks[gone].carrier(true)?;
            up.settles(&["eth0", "wlan0"], &[])?;
            pings.stop()?;
        }
        up.never_fell()?;
        up.client.disconnect()
    })
}

#[test]
fn two_networks_with_the_same_subnet_both_carry() -> Result<()> {
    same_subnet("192.168.1.23/24", "192.168.1.57/24")
}

#[test]
fn two_networks_that_hand_out_the_same_address_both_carry() -> Result<()> {
    same_subnet("192.168.1.23/24", "192.168.1.23/24")
}

/// The privacy addresses of an interface that new connections may use.
fn privacy_addresses(up: &Several, interface: &str) -> Result<Vec<String>> {
    let shown = up.site.client.ip_show(&[
        "-6",
        "-o",
        "addr",
        "show",
        "dev",
        interface,
        "temporary",
        "-deprecated",
    ])?;
    let addresses = shown.lines().filter_map(|line| line.split_whitespace().nth(3));
    Ok(addresses.filter_map(|net| net.split('/').next()).map(str::to_owned).collect())
}

#[test]
fn ipv6_paths_use_privacy_addresses_and_outlive_them() -> Result<()> {
    in_lab(|lab| {
        let mut plan = Plan::new(GatewayKind::Reference, 0, "failover");
        plan.kernel = vec![("net.ipv6.conf.default.use_tempaddr", "2")];
        plan.gateways = vec![GATEWAY_V6.into()];
        let lease = |router, client, via, metric| Lease { router, client, via, metric };
        plan.uplinks = vec![
            ("eth0", lease(&["fd77:1::1/64"], &["fd77:1::2/64 mngtmpaddr"], &["fd77:1::1"], 100)),
            ("wlan0", lease(&["fd77:2::1/64"], &["fd77:2::2/64 mngtmpaddr"], &["fd77:2::1"], 600)),
        ];
        let up = Several::up(lab, &plan)?;
        up.settles(&["eth0"], &["wlan0"])?;
        let is_from = |path: &PathSeen, address: &str| path.local.starts_with(&format!("[{address}]:"));
        for path in up.paths()? {
            let own = privacy_addresses(&up, &path.interface)?;
            ensure!(own.len() == 1 && is_from(&path, &own[0]), "{path:?} is not from {own:?}");
        }
        let flow = Flow::open(&up.site)?;
        let pings = Pings::start(&up.site.client, Site::transfer_v4())?;
        // First of the path that carries, then, with the other one carrying by then, of that, and of one that stands by.
        for interface in ["eth0", "wlan0", "eth0"] {
            let old = privacy_addresses(&up, interface)?;
            let old = old.first().context("a privacy address")?;
            let before = up.carrying()?.interface;
            let mark = pings.mark();
            up.site
                .client
                .ip(&format!("addr change {old}/64 dev {interface} preferred_lft 0 valid_lft 600"))?;
            up.wait("another privacy address", PATIENCE, |_| {
                privacy_addresses(&up, interface).is_ok_and(|now| now.len() == 1 && now[0] != *old)
            })?;
            thread::sleep(Duration::from_secs(1));
            let deprecated = pings.since(mark);
            told(&format!("{interface} ({before} carries): {old} is deprecated"), &deprecated);
            ensure!(deprecated.lost == 0, "{deprecated:?}");

            let mark = pings.mark();
            up.site.client.ip(&format!("addr del {old}/64 dev {interface}"))?;
            let new = privacy_addresses(&up, interface)?;
            let new = new.first().context("a new privacy address")?;
            up.wait("a path from the new address", PATIENCE, |paths| {
                paths.len() == 2 && paths.iter().any(|path| path.works() && is_from(path, new))
            })?;
            thread::sleep(Duration::from_secs(1));
            let gone = pings.since(mark);
            told(&format!("{interface} ({before} carries): {old} is gone"), &gone);
            ensure!(gone.longest <= AT_ONCE, "{gone:?}");
        }
        pings.stop()?;
        flow.close()?;
        up.never_fell()?;
        up.client.disconnect()
    })
}

#[test]
fn two_networks_and_two_gateway_addresses_make_four_paths_and_each_may_be_killed() -> Result<()> {
    let second = Ipv4Addr::new(198, 51, 100, 3);
    let gateways: [IpAddr; 2] = [GATEWAY_V4.into(), second.into()];
    in_lab(|lab| {
        let mut plan = Plan::new(GatewayKind::Reference, 2, "failover");
        plan.gateways = gateways.to_vec();
        (plan.offer.outer, plan.offer.listen) = (gateways.to_vec(), gateways.to_vec());
        let up = Several::up(lab, &plan)?;
        up.all_work(4, PATIENCE)?;
        let ways = |paths: &[PathSeen]| {
            let ways = paths.iter().map(|path| (path.interface.clone(), path.remote.clone()));
            ways.collect::<BTreeSet<_>>()
        };
        let all = ways(&up.paths()?);
        println!("four paths: {all:?}");
        let both = ["eth0", "wlan0"];
        let wanted = both.iter().flat_map(|interface| {
            gateways.iter().map(|gateway| ((*interface).to_owned(), format!("{gateway}:4500")))
        });
        ensure!(all == wanted.collect(), "{all:?}");
        let spis: BTreeSet<String> = up.paths()?.into_iter().map(|path| path.spi_i).collect();
        ensure!(spis.len() == 4, "four IKE_SAs: {spis:?}");

        let flow = Flow::open(&up.site)?;
        let pings = Pings::start(&up.site.client, Site::transfer_v4())?;
        thread::sleep(Duration::from_millis(500));
        // Each that carries dies, until one is left; then all come back. Twice, so that each has been killed.
        let mut killed = BTreeSet::new();
        while killed.len() < 4 {
            let mut dead = Vec::new();
            for _ in 0..3 {
                let carrying = up.carrying()?;
                let at =
                    gateways.iter().position(|gateway| carrying.remote.starts_with(&format!("{gateway}:")));
                let relay = &up.uplink(&carrying.interface)?.relays[at.context("a known gateway")?];
                let mark = pings.mark();
                relay.set(Conditions { dark: true, ..Conditions::default() });
                dead.push(relay);
                up.wait("another path", PATIENCE, |paths| {
                    let same = |path: &PathSeen| path.spi_i == carrying.spi_i;
                    paths.iter().any(|path| path.state == "active" && !same(path))
                })?;
                thread::sleep(Duration::from_millis(500));
                let outcome = pings.since(mark);
                told(&format!("{} to {} dies", carrying.interface, carrying.remote), &outcome);
                ensure!(outcome.longest <= SILENCE, "{outcome:?}");
                killed.insert((carrying.interface, carrying.remote));
            }
            dead.iter().for_each(|relay| relay.set(Conditions::default()));
            up.all_work(4, TRUSTED_AGAIN)?;
        }
        ensure!(killed == all && ways(&up.paths()?) == all);
        pings.stop()?;
        let longest = flow.close()?;
        println!("TCP stood still for {longest:?} at most");
        up.never_fell()?;
        up.client.disconnect()
    })
}
