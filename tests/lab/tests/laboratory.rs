//! The laboratory itself: what the end-to-end tests take for granted, proven with strongSwan at both ends.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ropewalk_lab::{
    Authority, Capture, Conditions, KeyKind, Lab, PAGE, Purpose, Relay, Request, Site, SiteOptions, Swan,
    SwanAuth, SwanClient, SwanGateway, TWENTY_MEGABYTES, Validity, download, fetch_page, run,
    site::{
        GATEWAY_V4, GATEWAY_V6, INTRANET, LAN_V4, LAN_V6, OUTSIDE_V4, POOL_V4, POOL_V6, ROUTER_V4, SERVER_V4,
        SERVER_V6,
    },
    sweep, tshark, udp_echo, upload,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test body in a laboratory and prints the logs when it fails.
fn in_lab(body: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let lab = Lab::new()?;
    let result = body(&lab);
    if result.is_err() {
        eprintln!("{}", lab.logs(60));
    }
    result
}

fn gateway() -> SwanGateway {
    SwanGateway {
        pools: vec![POOL_V4.to_owned(), POOL_V6.to_owned()],
        dns: vec![SERVER_V4.into(), SERVER_V6.into()],
        traffic: vec![LAN_V4.to_owned(), LAN_V6.to_owned()],
        psk: vec![("alice@corp.test".to_owned(), "correct horse battery".to_owned())],
        ..SwanGateway::default()
    }
}

fn psk_client(gateway: IpAddr) -> SwanClient {
    SwanClient {
        gateway,
        gateway_id: "psk.gw.test".to_owned(),
        auth: SwanAuth::Psk { id: "alice@corp.test".to_owned(), secret: "correct horse battery".to_owned() },
        ike: "aes256gcm16-prfsha384-x25519".to_owned(),
        esp: "aes256gcm16".to_owned(),
        traffic: vec![LAN_V4.to_owned(), LAN_V6.to_owned()],
        authorities: Vec::new(),
    }
}

#[test]
fn strongswan_connects_to_strongswan_through_nat_and_carries_both_families() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        ensure!(!site.client.ping("10.77.50.2", 1)?, "the server must not be reachable without a tunnel");
        let gateway = Swan::start(&site.gateway, "gateway", &gateway().config())?;
        let capture = Capture::start(&site.gateway, "eth0", "outside")?;
        let client = Swan::start(&site.client, "client", &psk_client(GATEWAY_V4.into()).config())?;
        let took = client.initiate("net", PATIENCE)?.elapsed;
        eprintln!("strongSwan to strongSwan: connected in {took:?}");

        ensure!(site.client.ping("10.77.50.2", 3)?, "ping over IPv4");
        ensure!(site.client.ping("fd77:50::2", 3)?, "ping over IPv6");
        for server in [Site::transfer_v4(), Site::transfer_v6()] {
            let up = upload(&site.client, server, TWENTY_MEGABYTES, PATIENCE)?;
            let down = download(&site.client, server, TWENTY_MEGABYTES, PATIENCE)?;
            eprintln!("{server}: up {:.0} Mbit/s, down {:.0} Mbit/s", up.megabits(), down.megabits());
            ensure!(udp_echo(&site.client, server, 1200, PATIENCE)?, "UDP echo from {server}");
            ensure!(fetch_page(&site.client, server, PATIENCE)? == PAGE);
        }
        let seen = gateway.list_sas()?;
        ensure!(seen.contains(&OUTSIDE_V4.to_string()), "the gateway sees the router's address: {seen}");
        ensure!(gateway.resident_memory().is_some_and(|octets| octets > 1 << 20));

        client.terminate("peer")?;
        ensure!(!site.client.ping("10.77.50.2", 1)?, "no answer after the end");
        let packets = tshark(&capture.finish()?, lab.dir(), &["-T", "fields", "-e", "frame.protocols"])?;
        ensure!(
            packets.contains("isakmp") && packets.contains("udpencap:esp"),
            "IKE and ESP in UDP were captured"
        );
        Ok(())
    })
}

#[test]
fn strongswan_authenticates_by_eap_and_by_both_kinds_of_certificates() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        let root = Authority::root("Root", KeyKind::P384)?;
        let intermediate = root.intermediate("Intermediate", KeyKind::P256)?;
        let issue = |name: &str, key, purpose| {
            intermediate.issue(&Request { name, alternative: &[name], key, purpose, validity: Validity::Now })
        };
        let offer = SwanGateway {
            users: vec![("bob".to_owned(), "p4ssword".to_owned())],
            eap: Some(issue("eap.gw.test", KeyKind::P256, Purpose::Gateway)?),
            ecdsa: Some(issue("ecdsa.gw.test", KeyKind::P384, Purpose::Gateway)?),
            rsa: Some(issue("rsa.gw.test", KeyKind::Rsa(2048), Purpose::Gateway)?),
            authorities: vec![root.certificate().to_owned(), intermediate.certificate().to_owned()],
            ..gateway()
        };
        let _gateway = Swan::start(&site.gateway, "gateway", &offer.config())?;
        let certificate = |name: &str, key| -> Result<SwanAuth> {
            Ok(SwanAuth::Certificate { id: name.to_owned(), credential: issue(name, key, Purpose::Client)? })
        };
        let cases = [
            ("eap", SwanAuth::Eap { user: "bob".to_owned(), password: "p4ssword".to_owned() }),
            ("ecdsa", certificate("alice@corp.test", KeyKind::P256)?),
            ("rsa", certificate("carol@corp.test", KeyKind::Rsa(3072))?),
        ];
        for (name, auth) in cases {
            let config = SwanClient {
                gateway_id: format!("{name}.gw.test"),
                auth,
                authorities: vec![root.certificate().to_owned(), intermediate.certificate().to_owned()],
                ..psk_client(GATEWAY_V6.into())
            };
            let client = Swan::start(&site.client, &format!("client-{name}"), &config.config())?;
            client.initiate("net", PATIENCE).with_context(|| name.to_owned())?;
            ensure!(site.client.ping("10.77.50.2", 2)?, "{name}: ping, over an IPv6 network");
            client.terminate("peer")?;
        }
        let wrong = SwanClient {
            gateway_id: "eap.gw.test".to_owned(),
            auth: SwanAuth::Eap { user: "bob".to_owned(), password: "wrong".to_owned() },
            authorities: vec![root.certificate().to_owned(), intermediate.certificate().to_owned()],
            ..psk_client(GATEWAY_V4.into())
        };
        let client = Swan::start(&site.client, "client-wrong", &wrong.config())?;
        ensure!(client.initiate("net", PATIENCE).is_err(), "a wrong password is refused");
        Ok(())
    })
}

#[test]
fn names_behind_the_gateway_are_served_there_only() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        site.server.resolv_conf("nameserver 127.0.0.1\n")?;
        let found = site.server.run("getent", &["hosts", INTRANET], PATIENCE)?;
        ensure!(found.code == 0 && found.stdout.contains("10.77.50.2"), "{found:?}");
        site.dns.wait_for_question(INTRANET, PATIENCE)?;
        let config = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        ensure!(!config.contains("10.77.1.53"), "the machine's own resolv.conf is untouched");
        let inside = site.client.run("cat", &["/etc/resolv.conf"], PATIENCE)?;
        ensure!(inside.stdout.contains("10.77.1.53"), "the client has its own: {inside:?}");
        Ok(())
    })
}

#[test]
fn the_relay_delays_loses_and_goes_dark() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        let port = 8080;
        let relay = Relay::start(&site.router, ROUTER_V4.into(), GATEWAY_V4.into(), &[port], 1)?;
        let _echo = ropewalk_lab::TransferServer::start(&site.gateway, port)?;
        let target = SocketAddr::new(ROUTER_V4.into(), port);
        let short = Duration::from_millis(400);
        ensure!(udp_echo(&site.client, target, 900, short)?, "a good network");

        relay.set(Conditions { delay: Duration::from_millis(60), ..Conditions::default() });
        let started = Instant::now();
        ensure!(udp_echo(&site.client, target, 900, short)?);
        ensure!(started.elapsed() >= Duration::from_millis(120), "both ways are delayed");

        relay.set(Conditions { loss: 0.5, ..Conditions::default() });
        let arrived =
            (0..24).filter(|_| udp_echo(&site.client, target, 900, short / 8).unwrap_or(false)).count();
        ensure!((1..20).contains(&arrived), "half is lost each way, {arrived} of 24 came back");

        relay.set(Conditions { dark: true, ..Conditions::default() });
        ensure!(!udp_echo(&site.client, target, 900, short)?, "dark");
        Ok(())
    })
}

#[test]
fn leftovers_of_a_killed_run_are_swept_and_live_ones_are_not() -> Result<()> {
    let lab = Lab::new()?;
    let live = lab.namespace("live")?;
    // A run that was killed: its lock file without the lock, its namespace, its folder, a process inside.
    let prefix = "rw0x0";
    let name = format!("{prefix}-left");
    let dir = std::env::temp_dir().join(format!("{prefix}-folder"));
    std::fs::create_dir_all(&dir)?;
    run(Command::new("ip").args(["netns", "add", &name]), &[], PATIENCE)?.success()?;
    let mut inside = Command::new("ip").args(["netns", "exec", &name, "sleep", "600"]).spawn()?;
    std::fs::create_dir_all("/run/ropewalk-lab")?;
    // `ip` has to enter the namespace before the process can be found in it.
    std::thread::sleep(Duration::from_millis(300));
    // Whole at once: another test of this run may sweep at any time.
    let unlocked = Path::new("/run").join(format!("{prefix}-lock"));
    std::fs::write(&unlocked, dir.as_os_str().as_encoded_bytes())?;
    std::fs::rename(&unlocked, Path::new("/run/ropewalk-lab").join(prefix))?;

    sweep()?;
    ensure!(!Path::new("/run/netns").join(&name).exists(), "the namespace is gone");
    ensure!(!dir.exists(), "the folder is gone");
    ensure!(inside.wait()?.code().is_none(), "the process was killed");
    ensure!(Path::new("/run/netns").join(live.name()).exists(), "a live run is left alone");
    Ok(())
}
