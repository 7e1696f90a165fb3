//! Messages and packets that are larger than the path: IKE_AUTH with large certificates (RFC 7383), and what a narrow path
//! does to the traffic inside.

use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ropewalk_e2e::{
    AuthKind, Client, Credentials, Gateway, GatewayKind, Offer, ProfileText, StateLog, in_lab,
};
use ropewalk_lab::{Namespace, Site, SiteOptions, download, site::GATEWAY_V4, until, upload};

/// Exit code for a gateway that does not answer.
const UNREACHABLE: i32 = 6;

/// Enough for a hundred full segments each way, little enough for a slow machine.
const OCTETS: u64 = 300_000;

/// A transfer over a path that has to be measured meanwhile is done by then.
const HEALED: Duration = Duration::from_secs(20);

fn site(lab: &ropewalk_lab::Lab) -> Result<Site> {
    // Without NAT, for that puts fragments together on the way.
    Ok(Site::new(lab, SiteOptions { nat: false, v6: false, v4: true })?)
}

/// The way between router and gateway carries `mtu` octets.
fn narrow(site: &Site, mtu: u32) -> Result<()> {
    site.router.ip(&format!("link set outside mtu {mtu}"))?;
    Ok(site.gateway.ip(&format!("link set eth0 mtu {mtu}"))?)
}

/// Fragments of IP vanish, as in many home routers and carriers' NATs.
fn swallow_fragments(site: &Site) -> Result<()> {
    Ok(site.router.nft(
        "table ip pieces {\n chain pre {\n  type filter hook prerouting priority -450;\n  \
         ip frag-off & 0x3fff != 0 drop\n }\n}\n",
    )?)
}

#[test]
fn large_certificates_pass_a_narrow_path_that_swallows_ip_fragments() -> Result<()> {
    in_lab(|lab| {
        let site = site(lab)?;
        narrow(&site, 1280)?;
        swallow_fragments(&site)?;
        let credentials = Credentials::large()?;
        let offer = Offer::new(AuthKind::Rsa);
        let gateway = Gateway::start(GatewayKind::StrongSwan, &site, &offer, &credentials)?;
        let client = Client::start(&site.client)?;
        let profile = ProfileText::new(AuthKind::Rsa, &credentials, &GATEWAY_V4.to_string());
        client.connect(&profile, None)?;
        ensure!(client.status_at("/features/fragmentation")? == true);
        ensure!(site.client.ping("10.77.50.2", 2)?, "ping");
        let Gateway::StrongSwan(swan) = &gateway else { return Ok(()) };
        let log = swan.log();
        ensure!(log.contains("received fragment #3 of"), "IKE_AUTH came in less than three pieces");
        client.disconnect()
    })
}

#[test]
fn without_ike_fragmentation_the_lost_pieces_are_named() -> Result<()> {
    in_lab(|lab| {
        let site = site(lab)?;
        swallow_fragments(&site)?;
        let credentials = Credentials::large()?;
        let offer = Offer { fragmentation: false, ..Offer::new(AuthKind::Rsa) };
        let _gateway = Gateway::start(GatewayKind::StrongSwan, &site, &offer, &credentials)?;
        let client = Client::start(&site.client)?;
        let profile = ProfileText::new(AuthKind::Rsa, &credentials, &GATEWAY_V4.to_string());
        client.expect_refusal(&profile, None, UNREACHABLE, "cuts in pieces", Duration::from_secs(50))?;
        let hint = client.status_at("/error/hint")?.to_string();
        ensure!(hint.contains("RFC 7383") && hint.contains("smaller certificates"), "{hint}");
        Ok(())
    })
}

#[test]
fn a_narrow_path_that_says_so_is_fitted_into_and_large_transfers_go_on() -> Result<()> {
    for mtu in [1400, 1350] {
        in_lab(|lab| {
            let site = site(lab)?;
            narrow(&site, mtu)?;
            let credentials = Credentials::new(AuthKind::Psk)?;
            let offer = Offer::new(AuthKind::Psk);
            let _gateway = Gateway::start(GatewayKind::StrongSwan, &site, &offer, &credentials)?;
            let client = Client::start(&site.client)?;
            client.connect(&ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string()), None)?;
            upload(&site.client, Site::transfer_v4(), OCTETS, Duration::from_secs(20))?;
            download(&site.client, Site::transfer_v4(), OCTETS, Duration::from_secs(20))?;
            let inner = client.status_at("/mtu")?.as_u64().unwrap_or_default();
            ensure!((1280..u64::from(mtu) - 40).contains(&inner), "path {mtu}, inside {inner}");
            client.disconnect()
        })?;
    }
    Ok(())
}

/// From now on the way carries `mtu` octets, both ways, and says not a word of it.
fn swallow(site: &Site, mtu: u32) -> Result<()> {
    site.router.ip(&format!("link set outside mtu {mtu}"))?;
    site.router.nft(
        "table ip hole {}\nflush table ip hole\ntable ip hole {\n chain out {\n  type filter hook output priority 0;\n  \
         icmp type destination-unreachable drop\n }\n}\n",
    )?;
    Ok(())
}

/// What the status says of the largest packet inside.
fn inner_mtu(client: &Client) -> Result<u64> {
    client.status_at("/mtu")?.as_u64().context("an MTU")
}

/// Both ways, by both families.
fn carries_everything(client: &Namespace) -> Result<()> {
    for server in [Site::transfer_v4(), Site::transfer_v6()] {
        upload(client, server, OCTETS, HEALED).with_context(|| format!("to {server}"))?;
        download(client, server, OCTETS, HEALED).with_context(|| format!("from {server}"))?;
    }
    Ok(())
}

#[test]
fn complaint_2_a_path_that_silently_drops_large_packets_is_noticed_and_carries_everything() -> Result<()> {
    for (kind, fragmentation, mtu) in
        [(AuthKind::Rsa, true, 1380), (AuthKind::Psk, true, 1420), (AuthKind::Psk, false, 1400)]
    {
        in_lab(|lab| {
            let site = site(lab)?;
            swallow(&site, mtu)?;
            let credentials =
                if kind == AuthKind::Rsa { Credentials::large()? } else { Credentials::new(kind)? };
            let offer = Offer { fragmentation, ..Offer::new(kind) };
            let _gateway = Gateway::start(GatewayKind::StrongSwan, &site, &offer, &credentials)?;
            let client = Client::start(&site.client)?;
            client.connect(&ProfileText::new(kind, &credentials, &GATEWAY_V4.to_string()), None)?;
            // At once, before anything can be known.
            carries_everything(&site.client)?;
            ensure!(client.status_at("/error")?.is_null(), "{:?}", client.status_at("/error")?);
            // ESP with AES-GCM takes 62 octets beside the packet; the search ends within 16 of the truth.
            let fits = u64::from(mtu) - 62;
            until("the path to be measured", HEALED, || {
                inner_mtu(&client).is_ok_and(|inner| (fits - 20..=fits).contains(&inner)).then_some(())
            })
            .with_context(|| format!("path {mtu}, inside {:?}", inner_mtu(&client)))?;
            ensure!(client.helper_log().contains("swallows or refuses larger packets"), "it is in the log");
            // What the system sends without asking about sizes is told so.
            let fits = (inner_mtu(&client)? - 28).to_string();
            let ping = ["-c", "1", "-W", "5", "-M", "do", "-s", &fits, "10.77.50.2"];
            ensure!(site.client.run("ping", &ping, HEALED)?.code == 0, "a packet of the MTU does not pass");
            client.disconnect()
        })?;
    }
    Ok(())
}

#[test]
fn complaint_2_a_hole_that_opens_under_an_upload_is_noticed_and_the_upload_goes_on() -> Result<()> {
    in_lab(|lab| {
        let site = site(lab)?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let offer = Offer::new(AuthKind::Psk);
        let _gateway = Gateway::start(GatewayKind::StrongSwan, &site, &offer, &credentials)?;
        let client = Client::start(&site.client)?;
        client.connect(&ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string()), None)?;
        until("the whole path", HEALED, || {
            inner_mtu(&client).is_ok_and(|inner| inner == 1400).then_some(())
        })?;
        thread::sleep(Duration::from_secs(10));
        let states = StateLog::watch(&client, "states")?;
        // Slower than the way: it goes on for some seconds whatever happens.
        let namespace = site.client.clone();
        let upload = thread::spawn(move || -> Result<Duration> {
            let mut stream = namespace.connect_tcp(Site::transfer_v4(), HEALED)?;
            stream.set_write_timeout(Some(HEALED))?;
            stream.write_all(b"UP 10000000 7\n")?;
            let (chunk, mut longest) = (vec![7; 20_000], Duration::ZERO);
            for _ in 0..300 {
                let began = Instant::now();
                stream.write_all(&chunk)?;
                longest = longest.max(began.elapsed());
                thread::sleep(Duration::from_millis(20));
            }
            Ok(longest)
        });
        thread::sleep(Duration::from_secs(1));
        swallow(&site, 1400)?;
        let Ok(stall) = upload.join() else { bail!("the upload panicked") };
        let stall = stall?;
        eprintln!("the upload stood still for {stall:?} at most");
        let inner = inner_mtu(&client)?;
        ensure!((1318..=1338).contains(&inner), "inside {inner}");
        ensure!(states.states()? == ["connected"], "{:?}", states.states()?);
        carries_everything(&site.client)?;
        client.disconnect()
    })
}

#[test]
fn a_path_below_what_ipv6_needs_is_told_and_what_can_pass_passes() -> Result<()> {
    for (mtu, ipv6) in [(1200, true), (1000, false), (600, false)] {
        in_lab(|lab| {
            let site = site(lab)?;
            swallow(&site, mtu)?;
            let credentials = Credentials::new(AuthKind::Psk)?;
            let mut offer = Offer::new(AuthKind::Psk);
            if !ipv6 {
                offer.pools.retain(|pool| !pool.contains(':'));
                offer.traffic.retain(|network| !network.contains(':'));
            }
            let _gateway = Gateway::start(GatewayKind::StrongSwan, &site, &offer, &credentials)?;
            let client = Client::start(&site.client)?;
            let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
            // The first message cannot be cut in pieces: with all that is offered by default it is larger than 600 octets.
            profile.ike = Some("aes256gcm16-prfsha384-x25519".to_owned());
            profile.esp = Some("aes256gcm16".to_owned());
            client.connect(&profile, None)?;
            let fits = u64::from(mtu) - 62;
            until("the path to be measured", HEALED, || {
                inner_mtu(&client).is_ok_and(|inner| (fits - 20..=fits).contains(&inner)).then_some(())
            })
            .with_context(|| format!("path {mtu}, inside {:?}", inner_mtu(&client)))?;
            let told = client.status_at("/error/message")?.to_string();
            ensure!(told.contains("fit through the tunnel") && told.contains("IPv6 needs") == ipv6, "{told}");
            ensure!(client.state()? == "connected");
            upload(&site.client, Site::transfer_v4(), OCTETS, HEALED)?;
            download(&site.client, Site::transfer_v4(), OCTETS, HEALED)?;
            if ipv6 {
                upload(&site.client, Site::transfer_v6(), OCTETS, HEALED)?;
                download(&site.client, Site::transfer_v6(), OCTETS, HEALED)?;
            }
            client.disconnect()
        })
        .with_context(|| format!("path of {mtu}"))?;
    }
    Ok(())
}

#[test]
fn a_profile_with_an_mtu_of_its_own_is_left_alone() -> Result<()> {
    in_lab(|lab| {
        let site = site(lab)?;
        swallow(&site, 1380)?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let _gateway =
            Gateway::start(GatewayKind::StrongSwan, &site, &Offer::new(AuthKind::Psk), &credentials)?;
        let client = Client::start(&site.client)?;
        let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
        profile.tunnel = "mtu = 1300\n".to_owned();
        client.connect(&profile, None)?;
        carries_everything(&site.client)?;
        ensure!(inner_mtu(&client)? == 1300);
        client.disconnect()
    })
}
