//! Several paths at once, with the built programs: two uplinks of a client, each behind a NAT, and what a user notices when one
//! of them fails. What is measured is printed.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use ropewalk_e2e::{
    AuthKind, Client, Credentials, Flow, Gateway, GatewayKind, Offer, Outcome, PATIENCE, Pings, ProfileText,
    StateLog, in_lab,
};
use ropewalk_lab::{Lab, Site, SiteOptions, download, site::GATEWAY_V4, until, upload};
use serde_json::Value;

/// A silent path is left within a second of the first lost data; the rest is for a machine that is busy.
const SILENCE: Duration = Duration::from_millis(1500);
/// Pings that are on their way when the carrier goes, and one more.
const AT_ONCE: usize = 2;
/// And for a machine that is busy: what it takes two programs to have a turn each.
const SLACK: usize = 15;

/// Pings after it is over belong to it, too.
const AFTER: Duration = Duration::from_secs(1);

/// A client with two uplinks, `eth0` and `wlan0`, connected.
struct Up {
    client: Client,
    gateway: Gateway,
    site: Site,
    states: StateLog,
}

fn up(lab: &Lab, which: GatewayKind, policy: &str) -> Result<Up> {
    let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
    site.router.link("cafe", &site.client, "wlan0")?;
    site.router.address("cafe", &["10.77.2.1/24"])?;
    site.client.address("wlan0", &["10.77.2.2/24"])?;
    site.client.ip("route add default via 10.77.2.1 dev wlan0 metric 600")?;
    let credentials = Credentials::new(AuthKind::Psk)?;
    let gateway = Gateway::start(which, &site, &Offer::new(AuthKind::Psk), &credentials)?;
    let client = Client::start(&site.client)?;
    let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
    profile.timing = format!("dpd = 30\n\n[paths]\npolicy = \"{policy}\"\n");
    client.connect(&profile, None)?;
    let states = StateLog::watch(&client, "states")?;
    Ok(Up { client, gateway, site, states })
}

impl Up {
    fn paths(&self) -> Result<Vec<(String, String)>> {
        let text =
            |path: &Value, key: &str| path.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let paths = self.client.status_at("/paths")?;
        let paths = paths.as_array().context("paths are a list")?;
        Ok(paths.iter().map(|path| (text(path, "interface"), text(path, "state"))).collect())
    }

    /// Waits until these are the interfaces that carry, and those that stand by.
    fn settles(&self, active: &[&str], standby: &[&str]) -> Result<()> {
        let mut wanted: Vec<(String, String)> = Vec::new();
        for (interfaces, state) in [(active, "active"), (standby, "standby")] {
            wanted.extend(interfaces.iter().map(|name| ((*name).to_owned(), state.to_owned())));
        }
        wanted.sort();
        let settled = until("the paths to settle", PATIENCE, || {
            let mut paths = self.paths().ok()?;
            paths.retain(|(_, state)| state == "active" || state == "standby");
            paths.sort();
            (paths == wanted).then_some(())
        });
        ensure!(settled.is_ok(), "wanted {wanted:?}, there is {:?}", self.client.status_at("/paths")?);
        Ok(())
    }

    /// Nothing that goes by this port of the router passes any more, and its carrier stays.
    fn darken(&self, port: &str) -> Result<()> {
        self.site.router.nft(&format!(
            "table inet dark {{\n chain gone {{\n type filter hook prerouting priority raw;\n iifname \"{port}\" drop\n }}\n \
             chain never {{\n type filter hook postrouting priority 300;\n oifname \"{port}\" drop\n }}\n}}\n"
        ))?;
        Ok(())
    }

    fn lighten(&self) -> Result<()> {
        Ok(self.site.router.nft("delete table inet dark\n")?)
    }
}

fn told(what: &str, outcome: &Outcome) {
    println!("{what}: {} of {} pings lost, none for {:?}", outcome.lost, outcome.sent, outcome.longest);
}

#[test]
fn both_uplinks_carry_a_strand_and_losing_one_is_hardly_noticed() -> Result<()> {
    in_lab(|lab| {
        let up = up(lab, GatewayKind::Reference, "failover")?;
        up.settles(&["eth0"], &["wlan0"])?;
        ensure!(up.client.status_at("/features/keep_old_ike_sa")? == true);
        ensure!(up.client.status_at("/alone")?.is_null());
        let listed = up.client.cli(&["paths"])?.success()?.stdout;
        ensure!(listed.contains("eth0") && listed.contains("wlan0"), "{listed}");
        let flow = Flow::open(&up.site)?;
        let pings = Pings::start(&up.site.client, Site::transfer_v4())?;
        thread::sleep(Duration::from_secs(1));

        // The carrier goes.
        let mark = pings.mark();
        up.site.router.ip("link set home down")?;
        up.settles(&["wlan0"], &[])?;
        thread::sleep(AFTER);
        let lost = pings.since(mark);
        told("carrier loss", &lost);
        ensure!(lost.lost <= AT_ONCE + SLACK, "{lost:?}");

        // It comes back: a strand of it stands by, and nothing moves.
        let mark = pings.mark();
        up.site.router.ip("link set home up")?;
        up.site.router.address("home", &["10.77.1.1/24"]).ok();
        up.site.client.ip("route replace default via 10.77.1.1 dev eth0").ok();
        up.settles(&["wlan0"], &["eth0"])?;
        thread::sleep(Duration::from_secs(3));
        let back = pings.since(mark);
        told("back again", &back);
        ensure!(back.lost <= AT_ONCE, "{back:?}");
        ensure!(up.paths()?.first().is_some_and(|(name, state)| name == "wlan0" && state == "active"));

        // Silence, with the carrier in place.
        let mark = pings.mark();
        let began = Instant::now();
        up.darken("cafe")?;
        until("the other path to carry", PATIENCE, || {
            let paths = up.paths().ok()?;
            paths.contains(&("eth0".to_owned(), "active".to_owned())).then_some(())
        })?;
        println!("shown after {:?}", began.elapsed());
        thread::sleep(AFTER);
        let silent = pings.since(mark);
        told("silent failure", &silent);
        ensure!(silent.longest <= SILENCE, "{silent:?}");
        up.lighten()?;
        up.settles(&["eth0"], &["wlan0"])?;

        pings.stop()?;
        let longest = flow.close()?;
        println!("TCP stood still for {longest:?} at most");
        ensure!(up.states.states()? == ["connected"], "{:?}", up.states.states()?);
        ensure!(up.gateway.sessions()? == 1);
        up.client.disconnect()
    })
}

#[test]
fn strongswan_gets_one_path_which_roams_and_the_status_says_why() -> Result<()> {
    in_lab(|lab| {
        let up = up(lab, GatewayKind::StrongSwan, "failover")?;
        until("the reason to be known", PATIENCE, || {
            let alone = up.client.status_at("/alone").ok()?;
            alone.as_str()?.contains("KEEP_OLD_IKE_SA").then_some(())
        })?;
        up.settles(&["eth0"], &[])?;
        ensure!(up.client.status_at("/features/keep_old_ike_sa")? == false);
        let flow = Flow::open(&up.site)?;
        let pings = Pings::start(&up.site.client, Site::transfer_v4())?;
        thread::sleep(Duration::from_millis(500));
        let mark = pings.mark();
        up.site.router.ip("link set home down")?;
        up.settles(&["wlan0"], &[])?;
        flow.goes_on(PATIENCE)?;
        thread::sleep(AFTER);
        told("carrier loss with MOBIKE alone", &pings.since(mark));
        pings.stop()?;
        flow.close()?;
        ensure!(up.gateway.sessions()? == 1);
        up.client.disconnect()
    })
}

#[test]
fn redundant_paths_lose_only_what_both_lose() -> Result<()> {
    // The share of a hundred that vanishes, each way on each path, and how many pings tell.
    const LOSS: u32 = 10;
    const PINGS: usize = 2500;
    const FEWER: usize = 800;
    in_lab(|lab| {
        let up = up(lab, GatewayKind::Reference, "redundant")?;
        until("both paths to be there", PATIENCE, || {
            let paths = up.paths().ok()?;
            let works = |(_, state): &(String, String)| state == "active" || state == "standby";
            (paths.len() == 2 && paths.iter().all(works)).then_some(())
        })?;
        // Of ESP only, so that nothing is judged by what happens to IKE: both have their ways of their own.
        let chains: String = ["home", "cafe"]
            .map(|port| {
                format!(
                    "iifname \"{port}\" udp dport 4500 @th,64,32 != 0 numgen random mod 100 < {LOSS} drop\n \
                     oifname \"{port}\" udp sport 4500 @th,64,32 != 0 numgen random mod 100 < {LOSS} drop\n "
                )
            })
            .concat();
        up.site.router.nft(&format!(
            "table inet lossy {{\n chain some {{\n type filter hook forward priority 0;\n {chains}}}\n}}\n"
        ))?;
        let share = |policy: &str, count: usize| -> Result<f64> {
            up.client.cli(&["policy", policy])?.success()?;
            thread::sleep(Duration::from_secs(1));
            let pings = Pings::start(&up.site.client, Site::transfer_v4())?;
            until("the pings", Duration::from_secs(60), || (pings.mark() >= count).then_some(()))?;
            let outcome = pings.since(0);
            told(policy, &outcome);
            pings.stop()?;
            Ok(outcome.lost as f64 / outcome.sent as f64)
        };
        let (one, two) = (share("failover", FEWER)?, share("redundant", PINGS)?);
        println!("one path loses {:.1} %, two lose {:.1} %", one * 100.0, two * 100.0);
        ensure!(one > 0.12, "the loss is not there: {one}");
        ensure!(two <= 0.03, "{two}");
        ensure!(up.states.states()? == ["connected"], "{:?}", up.states.states()?);
        up.client.disconnect()
    })
}

#[test]
fn balanced_paths_carry_nearly_twice_as_much_and_keep_the_order_within_flows() -> Result<()> {
    const FLOWS: usize = 16;
    const OCTETS: u64 = 250_000;
    const TIME: Duration = Duration::from_secs(4);
    in_lab(|lab| {
        let up = up(lab, GatewayKind::Reference, "failover")?;
        up.settles(&["eth0"], &["wlan0"])?;
        for (namespace, interfaces) in
            [(&up.site.client, ["eth0", "wlan0"]), (&up.site.router, ["home", "cafe"])]
        {
            for interface in interfaces {
                let words = [
                    "qdisc", "add", "dev", interface, "root", "tbf", "rate", "100mbit", "burst", "64kb",
                    "limit", "400kb",
                ];
                namespace.run("tc", &words, PATIENCE)?.success()?;
            }
        }
        // What all flows together have carried when the time is over. Each goes on with another connection when it has
        // sent its octets, so that there are always as many.
        let speed = |down: bool, time: Duration| -> Result<f64> {
            let began = Instant::now();
            let carry = || -> Result<u64> {
                let transfer = if down { download } else { upload };
                let mut carried = 0;
                loop {
                    transfer(&up.site.client, Site::transfer_v4(), OCTETS, PATIENCE * 3)?;
                    if began.elapsed() > time {
                        return Ok(carried);
                    }
                    carried += OCTETS;
                }
            };
            let carried = thread::scope(|scope| {
                let flows: Vec<_> = (0..FLOWS).map(|_| scope.spawn(carry)).collect();
                let done =
                    flows.into_iter().map(|flow| flow.join().map_err(|_| anyhow!("a flow panicked"))?);
                done.sum::<Result<u64>>()
            })?;
            Ok(carried as f64 * 8.0 / 1e6 / time.as_secs_f64())
        };
        let one = [speed(false, TIME)?, speed(true, TIME)?];
        up.client.cli(&["policy", "balance"])?.success()?;
        up.settles(&["eth0", "wlan0"], &[])?;
        let ordered = (0..8).map(|_| Pings::start(&up.site.client, Site::transfer_v4()));
        let ordered = ordered.collect::<Result<Vec<Pings>>>()?;
        // What each can carry is measured while it does.
        speed(false, TIME / 2)?;
        let two = [speed(false, TIME)?, speed(true, TIME)?];
        for (way, one, two) in [("up", one[0], two[0]), ("down", one[1], two[1])] {
            println!("{way}: one path {one:.0} Mbit/s, two {two:.0} Mbit/s, {:.2} times", two / one);
        }
        let overtaken: usize = ordered.iter().map(Pings::overtaken).sum();
        let sent: usize = ordered.iter().map(Pings::mark).sum();
        println!("{overtaken} of {sent} in 8 flows were overtaken");
        println!("{}", up.client.cli(&["paths"])?.stdout);
        // Once in some runs a packet is overtaken while both links are full; spreading packets instead of flows would overtake
        // hundreds.
        ensure!(overtaken * 1000 <= sent, "{overtaken} of {sent} were overtaken");
        // Nearly twice on a machine that has nothing else to do.
        ensure!(two[0] >= one[0] * 1.5 && two[1] >= one[1] * 1.5, "{one:?} {two:?}");
        up.client.disconnect()
    })
}
