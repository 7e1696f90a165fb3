//! The inner address by DHCP over IPsec (RFC 3456): the built client, the reference gateway as relay, and a real Kea behind it.

#![allow(clippy::indexing_slicing, reason = "a message that is not there is a failed test")]

use std::{net::Ipv4Addr, os::unix::fs::PermissionsExt, time::Duration};

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{
    Client, ClientOptions, DhcpSeen, DhcpSite, FIRST_LEASE, PATIENCE, dhcp_in, dhcp_profile, in_lab,
};
use ropewalk_lab::{
    Capture, Dnsmasq, DnsmasqConfig, Kea,
    site::{GATEWAY_V4, SERVER_V4},
    until,
};
use serde_json::json;

/// A second server's place, in a network of its own behind the gateway.
const SECOND_SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 51, 2);

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const ACK: u8 = 5;
const RELEASE: u8 = 7;

fn address_of(client: &Client) -> Result<String> {
    let address = client.status_at("/addresses/0")?;
    Ok(address.as_str().context("an address")?.to_owned())
}

/// Waits until the lease ends later than it did.
fn wait_for_renewal(client: &Client, before: &serde_json::Value) -> Result<()> {
    until("the lease is renewed", PATIENCE, || {
        let now = client.status_at("/lease/until").ok()?;
        (now.is_string() && now != *before).then_some(())
    })?;
    Ok(())
}

fn leased(last: u8) -> String {
    let [a, b, c, _] = FIRST_LEASE.octets();
    format!("{a}.{b}.{c}.{last}/32")
}

/// Lease, renewal and release; what is in the ESP is read by tshark.
#[test]
fn a_lease_is_got_used_renewed_and_given_back_as_wireshark_sees() -> Result<()> {
    in_lab(|lab| {
        let site = DhcpSite::new(lab, &[SERVER_V4], "")?;
        let mut kea = site.start_kea("kea", &DhcpSite::kea(10, 40, Some((3, 30))))?;
        let client = Client::start(&site.site.client)?;
        let capture = Capture::start(&site.site.client, "eth0", "dhcp")?;
        client.connect(&site.profile(), None)?;
        let status = client.status()?;
        ensure!(status["addresses"] == json!([leased(100)]), "{status}");
        ensure!(status["lease"]["server"] == SERVER_V4.to_string(), "{status}");
        ensure!(status["lease"]["search"] == json!(["corp.test"]), "{status}");
        ensure!(status["dns"]["servers"] == json!([SERVER_V4.to_string()]), "{status}");
        ensure!(status["dns"]["domains"] == json!([]), "{status}");
        // The server's default route is all that the gateway grants.
        ensure!(status["routes"] == json!(["10.77.0.0/16", "10.77.99.0/24"]), "{status}");
        ensure!(site.site.client.ping(&SERVER_V4.to_string(), 3)?, "ping");
        let words = client.cli(&["status"])?.success()?.stdout;
        ensure!(words.contains("Lease") && words.contains("from 10.77.50.2"), "{words}");
        let resolv = std::fs::read_to_string(site.site.client.resolv_conf_path())?;
        ensure!(resolv.contains("search corp.test"), "{resolv}");

        let until = client.status_at("/lease/until")?;
        wait_for_renewal(&client, &until)?;
        ensure!(site.site.client.ping(&SERVER_V4.to_string(), 1)?, "ping after the renewal");
        client.disconnect()?;
        kea.wait_for_log("DHCP4_RELEASE", PATIENCE)?;
        let seen = dhcp_in(lab, &client, &capture.finish()?)?;
        check_flow(&seen, &mac_of(&site.site.client)?)
    })
}

fn mac_of(namespace: &ropewalk_lab::Namespace) -> Result<String> {
    let shown = namespace.ip_show(&["link", "show", "dev", "eth0"])?;
    let mac = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
    Ok(mac.with_context(|| format!("a MAC address: {shown}"))?.replace(':', ""))
}

fn check_flow(seen: &[DhcpSeen], mac: &str) -> Result<()> {
    let kinds: Vec<u8> = seen.iter().map(|message| message.kind).collect();
    ensure!(kinds.len() >= 7, "{seen:#?}");
    ensure!(kinds[..6] == [DISCOVER, OFFER, REQUEST, ACK, REQUEST, ACK], "{seen:#?}");
    ensure!(kinds.last() == Some(&RELEASE), "{seen:#?}");
    for message in seen {
        ensure!(message.htype == "0x1f", "htype 31: {message:?}");
        ensure!(message.chaddr == mac, "chaddr is the interface's: {message:?}");
        ensure!(message.flags == "0x0000", "no broadcast flag: {message:?}");
    }
    let ours = |message: &&DhcpSeen| matches!(message.kind, DISCOVER | REQUEST | RELEASE);
    let identifier = format!("0x1f{mac}");
    for message in seen.iter().filter(ours) {
        ensure!(message.identifier == identifier, "option 61: {message:?}");
    }
    let way = |message: &DhcpSeen| (message.way.0.clone(), message.way.1.clone());
    let broadcast = ("0.0.0.0".to_owned(), "255.255.255.255".to_owned());
    let (address, server) = (FIRST_LEASE.to_string(), SERVER_V4.to_string());
    ensure!(way(&seen[0]) == broadcast && way(&seen[2]) == broadcast, "{seen:#?}");
    ensure!(seen[2].requested == address && seen[2].ciaddr == "0.0.0.0", "{:?}", seen[2]);
    // By the DHCP SA from the relay, until the address is there.
    ensure!(way(&seen[1]) == ("10.77.99.1".to_owned(), address.clone()), "{:?}", seen[1]);
    ensure!(seen[0].spi == seen[2].spi && seen[1].spi == seen[3].spi, "one DHCP SA: {seen:#?}");
    // Then by the VPN's SA, with the server itself.
    let unicast = (address.clone(), server.clone());
    ensure!(
        way(&seen[4]) == unicast && seen[4].ciaddr == address && seen[4].requested.is_empty(),
        "{:?}",
        seen[4]
    );
    ensure!(way(&seen[5]) == (server, address.clone()), "{:?}", seen[5]);
    ensure!(seen[4].spi != seen[0].spi && seen[5].spi != seen[1].spi, "another SA: {seen:#?}");
    let release = seen.last().context("a message")?;
    ensure!(way(release) == unicast && release.ciaddr == address, "{release:?}");
    ensure!(release.spi == seen[4].spi, "{release:?}");
    Ok(())
}

/// The server that lent the address is gone; another one, which hears of the client for the first time, extends it.
#[test]
fn another_server_extends_the_lease_when_its_own_is_gone() -> Result<()> {
    in_lab(|lab| {
        let site = DhcpSite::new(lab, &[SERVER_V4, SECOND_SERVER], "")?;
        let second = lab.namespace("server2")?;
        site.site.gateway.link("lan1", &second, "eth0")?;
        site.site.gateway.address("lan1", &["10.77.51.1/24"])?;
        second.address("eth0", &[&format!("{SECOND_SERVER}/24")])?;
        second.ip("route add default via 10.77.51.1")?;
        let kea = site.start_kea("kea", &DhcpSite::kea(10, 60, Some((2, 5))))?;
        let client = Client::start(&site.site.client)?;
        let capture = Capture::start(&site.site.client, "eth0", "rebind")?;
        client.connect(&site.profile(), None)?;
        let address = address_of(&client)?;
        drop(kea);
        let range = "10.77.99.100,10.77.99.150,255.255.255.0,2m".to_owned();
        let config = DnsmasqConfig { dhcp_ranges: vec![range], ..DnsmasqConfig::default() };
        let dnsmasq = Dnsmasq::start_named(&second, "dnsmasq2", &config)?;
        until("the second server's lease", PATIENCE, || {
            let server = client.status_at("/lease/server").ok()?;
            (server == SECOND_SERVER.to_string()).then_some(())
        })?;
        ensure!(address_of(&client)? == address, "the same address: {}", dnsmasq.log());
        ensure!(client.state()? == "connected");
        ensure!(site.site.client.ping(&SERVER_V4.to_string(), 2)?, "ping");
        client.disconnect()?;
        let seen = dhcp_in(lab, &client, &capture.finish()?)?;
        let rebinding = seen.iter().find(|message| {
            message.kind == REQUEST
                && message.way.1 == "255.255.255.255"
                && message.ciaddr == FIRST_LEASE.to_string()
        });
        let rebinding = rebinding.with_context(|| format!("a REQUEST to all servers: {seen:#?}"))?;
        ensure!(
            rebinding.way.0 == FIRST_LEASE.to_string() && rebinding.requested.is_empty(),
            "{rebinding:?}"
        );
        let first = seen.first().context("a message")?;
        ensure!(rebinding.spi != first.spi, "by a DHCP SA opened for that: {seen:#?}");
        Ok(())
    })
}

/// A server gives the address to somebody else and refuses the rebinding: nothing is sent from the old address, and another one is
/// got. (A refusal of the renewal, from the leased address, would be a broadcast on the server's own network.)
#[test]
fn a_refused_renewal_brings_another_address() -> Result<()> {
    in_lab(|lab| {
        let site = DhcpSite::new(lab, &[SERVER_V4], "")?;
        let kea = site.start_kea("kea", &DhcpSite::kea(10, 60, Some((2, 5))))?;
        let client = Client::start(&site.site.client)?;
        client.connect(&site.profile(), None)?;
        ensure!(address_of(&client)? == leased(100), "{}", client.status()?);
        drop(kea);
        let mut config = DhcpSite::kea(10, 60, Some((20, 50)));
        config.reserved = Some(("02:00:00:00:00:99".to_owned(), FIRST_LEASE));
        let mut kea = site.start_kea("kea2", &config)?;
        kea.wait_for_log("DHCPNAK", PATIENCE)?;
        until("another address", PATIENCE, || {
            let status = client.status().ok()?;
            (status["state"] == "connected" && status["addresses"] == json!([leased(101)])).then_some(())
        })?;
        ensure!(site.site.client.ping(&SERVER_V4.to_string(), 2)?, "ping");
        let addresses = site.site.client.ip_show(&["-4", "address", "show"])?;
        ensure!(!addresses.contains("10.77.99.100"), "{addresses}");
        client.disconnect()
    })
}

#[test]
fn a_silent_server_is_told_of_and_nothing_is_left() -> Result<()> {
    in_lab(|lab| {
        let site = DhcpSite::new(lab, &[SERVER_V4], "")?;
        let client = Client::start(&site.site.client)?;
        client.expect_refusal(&site.profile(), None, 1, "no dhcp server", Duration::from_secs(25))?;
        ensure!(site.gateway.sessions()? == 0, "{}", site.gateway.log());
        let links = site.site.client.ip_show(&["link", "show"])?;
        ensure!(!links.contains("ropewalk"), "{links}");
        // There is one: the next try succeeds.
        let _kea = site.start_kea("kea", &DhcpSite::kea(10, 600, None))?;
        client.try_connect("lab", None, 30)?.success()?;
        client.disconnect()
    })
}

/// Two homes behind one carrier's NAT, each client with the same private address there; and then a third client, for whom nothing
/// is left.
#[test]
fn two_clients_with_one_private_address_behind_one_nat_and_a_third_with_an_empty_pool() -> Result<()> {
    in_lab(|lab| {
        let more = "\n[[psk]]\nidentity = \"bob@corp.test\"\nsecret = \"correct horse battery\"\n";
        let site = DhcpSite::new(lab, &[SERVER_V4], more)?;
        let kea = site.start_kea("kea", &DhcpSite::kea(2, 600, None))?;
        let home = lab.namespace("home2")?;
        site.site.router.link("cgn", &home, "out")?;
        site.site.router.address("cgn", &["100.64.2.1/24"])?;
        home.address("out", &["100.64.2.2/24"])?;
        home.ip("route add default via 100.64.2.1")?;
        home.forward()?;
        home.masquerade("out")?;
        let place = lab.namespace("client2")?;
        home.link("in", &place, "eth0")?;
        home.address("in", &["10.77.1.1/24"])?;
        place.address("eth0", &["10.77.1.2/24"])?;
        place.ip("route add default via 10.77.1.1")?;

        let first = Client::start(&site.site.client)?;
        let options = ClientOptions { folder: "client2".to_owned(), ..ClientOptions::default() };
        let second = Client::start_with(&place, options)?;
        let profile = site.profile();
        let mut other = profile.clone();
        other.auth = other.auth.replace("alice@corp.test", "bob@corp.test");
        first.import(&profile)?;
        second.import(&other)?;
        let (one, two) = std::thread::scope(|scope| {
            let one = scope.spawn(|| first.try_connect("lab", None, 30));
            let two = scope.spawn(|| second.try_connect("lab", None, 30));
            (one.join(), two.join())
        });
        for finished in [one, two] {
            finished.map_err(|_| anyhow::anyhow!("a thread panicked"))??.success()?;
        }
        let mut addresses = vec![address_of(&first)?, address_of(&second)?];
        addresses.sort();
        ensure!(addresses == [leased(100), leased(101)], "{addresses:?}\n{}", kea.log());
        for namespace in [&site.site.client, &place] {
            ensure!(namespace.ping(&SERVER_V4.to_string(), 3)?, "ping");
        }

        let place = lab.namespace("client3")?;
        site.site.router.link("home3", &place, "eth0")?;
        site.site.router.address("home3", &["10.77.3.1/24"])?;
        place.address("eth0", &["10.77.3.2/24"])?;
        place.ip("route add default via 10.77.3.1")?;
        let options = ClientOptions { folder: "client3".to_owned(), ..ClientOptions::default() };
        let third = Client::start_with(&place, options)?;
        // The identity of the first one would put that one out.
        let mut last = dhcp_profile(&site.credentials, &GATEWAY_V4.to_string());
        last.auth = last.auth.replace("alice@corp.test", "bob@corp.test");
        second.disconnect()?;
        first.disconnect()?;
        let config = DhcpSite::kea(1, 600, None);
        drop(kea);
        let kea = site.start_kea("kea2", &config)?;
        first.try_connect("lab", None, 30)?.success()?;
        third.expect_refusal(&last, None, 1, "address left", Duration::from_secs(25))?;
        ensure!(kea.log().contains("ALLOC_ENGINE_V4_ALLOC_FAIL"), "the pool is empty:\n{}", kea.log());
        ensure!(first.state()? == "connected");
        first.disconnect()
    })
}

/// The helper is killed and starts again: it asks for the lease that it had, and is the same client to the server.
#[test]
fn after_a_restart_the_old_lease_is_asked_for_first() -> Result<()> {
    in_lab(|lab| {
        let site = DhcpSite::new(lab, &[SERVER_V4], "")?;
        let kea = site.start_kea("kea", &DhcpSite::kea(10, 600, None))?;
        let mut client = Client::start(&site.site.client)?;
        client.connect(&site.profile(), None)?;
        let address = address_of(&client)?;
        let folder = client.state_dir().join("leases");
        let files: Vec<_> = std::fs::read_dir(&folder)?.collect::<Result<_, _>>()?;
        ensure!(files.len() == 1, "{files:?}");
        let mode = |path: &std::path::Path| {
            Ok::<_, std::io::Error>(std::fs::metadata(path)?.permissions().mode() & 0o777)
        };
        ensure!(
            mode(&files[0].path())? == 0o600 && mode(&folder)? == 0o700,
            "the lease is nobody else's business"
        );

        client.kill_helper()?;
        let before = kea.log().len();
        client.start_helper()?;
        let capture = Capture::start(&site.site.client, "eth0", "reboot")?;
        client.try_connect("lab", None, 30)?.success()?;
        ensure!(address_of(&client)? == address, "{}", client.status()?);
        ensure!(site.site.client.ping(&SERVER_V4.to_string(), 2)?, "ping");
        let log = kea.log();
        let since = log.get(before..).unwrap_or_default();
        ensure!(since.contains("DHCP4_INIT_REBOOT") && !since.contains("DHCP4_LEASE_ADVERT"), "{since}");
        let seen = dhcp_in(lab, &client, &capture.finish()?)?;
        let kinds: Vec<u8> = seen.iter().map(|message| message.kind).collect();
        ensure!(kinds == [REQUEST, ACK], "{seen:#?}");
        ensure!(seen[0].requested == FIRST_LEASE.to_string() && seen[0].ciaddr == "0.0.0.0", "{:?}", seen[0]);
        client.disconnect()?;
        client.cli(&["remove", "lab"])?.success()?;
        ensure!(
            std::fs::read_dir(&folder)?.next().is_none(),
            "nothing is kept for a profile that is not there"
        );
        Ok(())
    })
}

/// The gateway is killed and comes back: the lease is the connection's, not the gateway's.
#[test]
fn a_gateway_that_restarts_costs_no_lease() -> Result<()> {
    in_lab(|lab| {
        let mut site = DhcpSite::new(lab, &[SERVER_V4], "")?;
        let kea = site.start_kea("kea", &DhcpSite::kea(10, 600, None))?;
        let client = Client::start(&site.site.client)?;
        client.connect(&site.profile(), None)?;
        let before = kea.log().len();
        site.gateway.restart()?;
        until("the connection is lost and back", Duration::from_secs(40), || {
            // What is sent shows the client that the gateway does not know it any more.
            let _ = site.site.client.ping(&SERVER_V4.to_string(), 1);
            let log = site.gateway.log();
            (log.contains("client connected") && client.state().is_ok_and(|state| state == "connected"))
                .then_some(())
        })?;
        ensure!(address_of(&client)? == leased(100), "{}", client.status()?);
        ensure!(site.site.client.ping(&SERVER_V4.to_string(), 2)?, "ping");
        let log = kea.log();
        let since = log.get(before..).unwrap_or_default();
        let reboot = since.contains("DHCP4_INIT_REBOOT") && !since.contains("DHCP4_LEASE_ADVERT");
        ensure!(reboot, "REQUEST alone:\n{since}");
        client.disconnect()
    })
}

/// This machine has the address that the server gives, on another interface.
#[test]
fn an_address_in_use_is_declined_and_another_one_taken() -> Result<()> {
    in_lab(|lab| {
        let site = DhcpSite::new(lab, &[SERVER_V4], "")?;
        let mut kea: Kea = site.start_kea("kea", &DhcpSite::kea(10, 600, None))?;
        site.site.client.ip("link add own0 type bridge\nlink set own0 up")?;
        site.site.client.address("own0", &[&format!("{FIRST_LEASE}/32")])?;
        let client = Client::start(&site.site.client)?;
        let capture = Capture::start(&site.site.client, "eth0", "decline")?;
        client.connect(&site.profile(), None)?;
        ensure!(address_of(&client)? == leased(101), "{}", client.status()?);
        kea.wait_for_log("DHCP4_DECLINE_LEASE", PATIENCE)?;
        ensure!(site.site.client.ping(&SERVER_V4.to_string(), 2)?, "ping");
        let seen = dhcp_in(lab, &client, &capture.finish()?)?;
        let decline = seen.iter().find(|message| message.kind == DECLINE).context("a DECLINE")?;
        ensure!(decline.requested == FIRST_LEASE.to_string() && decline.ciaddr == "0.0.0.0", "{decline:?}");
        ensure!(decline.way == ("0.0.0.0".to_owned(), "255.255.255.255".to_owned()), "{decline:?}");
        ensure!(decline.spi == seen[0].spi, "by the DHCP SA: {seen:#?}");
        client.disconnect()
    })
}
