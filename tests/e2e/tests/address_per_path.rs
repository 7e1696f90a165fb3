//! An inner address of its own for each path, with the built programs: what has an address goes by its path, new flows take the
//! path that carries, and a connection that lost its path goes on when that is back.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{
    AuthKind, Client, Credentials, Flow, Gateway, GatewayKind, Offer, PATIENCE, Pings, ProfileText, in_lab,
};
use ropewalk_lab::{Lab, Site, SiteOptions, site::GATEWAY_V4, until};
use serde_json::Value;

/// What the path of this interface has sent and received.
fn octets(client: &Client, interface: &str) -> Result<u64> {
    let paths = client.status_at("/paths")?;
    let paths = paths.as_array().context("paths are a list")?;
    let path = paths.iter().find(|path| path.get("interface").and_then(Value::as_str) == Some(interface));
    let path = path.with_context(|| format!("there is no path by {interface}"))?;
    let count = |key: &str| path.get(key).and_then(Value::as_u64).unwrap_or_default();
    Ok(count("bytes_in") + count("bytes_out"))
}

fn addresses(client: &Client) -> Result<Vec<String>> {
    let all = client.status_at("/addresses")?;
    let all = all.as_array().context("addresses are a list")?;
    let all = all.iter().filter_map(Value::as_str).filter(|address| !address.contains(':'));
    Ok(all.map(|address| address.trim_end_matches("/32").to_owned()).collect())
}

/// Waits for this many IPv4 addresses, and returns them.
fn have(client: &Client, count: usize) -> Result<Vec<String>> {
    Ok(until("the inner addresses", PATIENCE, || addresses(client).ok().filter(|all| all.len() == count))?)
}

/// A megabyte's worth of datagrams from this inner address, echoed.
fn talk(site: &Site, from: &str) -> Result<()> {
    let (from, echo): (SocketAddr, SocketAddr) = (format!("{from}:0").parse()?, Site::transfer_v4());
    let socket = site.client.bind_udp(from)?;
    socket.connect(echo)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut back = [0; 2000];
    for _ in 0..100 {
        socket.send(&[7; 1000])?;
        ensure!(socket.recv(&mut back).context("an echo")? == 1000);
    }
    Ok(())
}

/// A client with a network and another one in reach, and a profile with an address for each path.
struct Ends {
    client: Client,
    _gateway: Gateway,
    profile: ProfileText,
    site: Site,
}

fn ends(lab: &Lab) -> Result<Ends> {
    let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
    site.router.link("cafe", &site.client, "wlan0")?;
    site.router.address("cafe", &["10.77.2.1/24"])?;
    let credentials = Credentials::new(AuthKind::Psk)?;
    let offer = Offer::new(AuthKind::Psk);
    let _gateway = Gateway::start(GatewayKind::Reference, &site, &offer, &credentials)?;
    let client = Client::start(&site.client)?;
    let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
    profile.timing = "dpd = 30\n\n[paths]\naddress_per_path = true\n".to_owned();
    Ok(Ends { client, _gateway, profile, site })
}

/// The client is in the other network from now on, too.
fn join_cafe(site: &Site) -> Result<()> {
    site.client.address("wlan0", &["10.77.2.2/24"])?;
    Ok(site.client.ip("route add default via 10.77.2.1 dev wlan0 metric 600")?)
}

#[test]
fn what_has_an_address_goes_by_its_path_and_waits_for_it() -> Result<()> {
    in_lab(|lab| {
        let Ends { client, _gateway, profile, site } = ends(lab)?;
        join_cafe(&site)?;
        client.connect(&profile, None)?;
        let both = have(&client, 2)?;
        let [first, second] = both.as_slice() else { unreachable!("there are two") };

        // Each goes by its own, both ways.
        for (from, by, not_by) in [(first, "eth0", "wlan0"), (second, "wlan0", "eth0")] {
            let (before, other) = (octets(&client, by)?, octets(&client, not_by)?);
            talk(&site, from)?;
            let (by, not_by) = (octets(&client, by)? - before, octets(&client, not_by)? - other);
            ensure!(by > 200_000 && not_by < 20_000, "from {from}: {by} by its path, {not_by} by the other");
        }
        // What names no address takes that of the path that carries.
        let before = octets(&client, "eth0")?;
        let flow = Flow::open(&site)?;
        let pings = Pings::start(&site.client, Site::transfer_v4())?;
        thread::sleep(Duration::from_secs(1));
        pings.stop()?;
        ensure!(octets(&client, "eth0")? > before + 10_000);

        // The policy is the one there is.
        let refused = client.cli(&["policy", "balance"])?;
        ensure!(refused.code == 1 && refused.stderr.contains("address_per_path"), "{refused:?}");

        // The carrier goes, and the address with it: new flows go by the other one at once.
        let went = Instant::now();
        site.router.ip("link set home down")?;
        let left = have(&client, 1)?;
        ensure!(left == [second.clone()], "{left:?} of {both:?}");
        println!("the address was gone after {:?}", went.elapsed());
        talk(&site, second)?;
        let pings = Pings::start(&site.client, Site::transfer_v4())?;
        thread::sleep(Duration::from_secs(1));
        let outcome = pings.since(0);
        ensure!(outcome.lost <= 2, "{outcome:?}");
        pings.stop()?;

        // It is back, with the same address, and the connection that waited goes on.
        site.router.ip("link set home up")?;
        site.router.address("home", &["10.77.1.1/24"]).ok();
        site.client.ip("route replace default via 10.77.1.1 dev eth0").ok();
        let back = have(&client, 2)?;
        ensure!(back == [second.clone(), first.clone()], "{back:?} after {both:?}");
        flow.goes_on(PATIENCE)?;
        println!("the connection stood still for {:?}", flow.close()?);
        ensure!(
            client.status_at("/ike")?.as_array().is_some_and(|ike| ike.len() == 2),
            "both IKE_SAs are told"
        );
        client.disconnect()
    })
}

#[test]
fn a_connection_that_cannot_be_configured_any_more_leaves_nothing_behind() -> Result<()> {
    in_lab(|lab| {
        let Ends { client, _gateway, profile, site } = ends(lab)?;
        site.router.link("house", &site.client, "lan0")?;
        let system = || -> Result<[String; 3]> {
            let rules = |family| site.client.ip_show(&[family, "rule"]);
            Ok([rules("-4")?, rules("-6")?, std::fs::read_to_string(site.client.resolv_conf_path())?])
        };
        let before = system()?;
        client.connect(&profile, None)?;
        have(&client, 1)?;
        ensure!(system()? != before, "the tunnel has rules and name servers");

        // A network that holds the inner address, and then one that gets another inner address for its path.
        site.client.address("lan0", &["10.77.99.100/25"])?;
        join_cafe(&site)?;
        let failed = || client.status_at("/state").ok().filter(|state| state == "failed");
        until("the connection to fail", PATIENCE, failed)?;
        until("all of it to be gone", PATIENCE, || system().ok().filter(|after| *after == before))?;
        Ok(())
    })
}
