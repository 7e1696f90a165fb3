//! An implementation that is not ours reads our bytes: tshark decrypts a captured run with the helper's key log.

#![allow(clippy::indexing_slicing, reason = "a message that is not there is a failed test")]

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{
    AuthKind, Client, Credentials, Gateway, GatewayKind, Offer, PATIENCE, ProfileText, home_with_keys, in_lab,
};
use ropewalk_lab::{Capture, Lab, Site, SiteOptions, site::GATEWAY_V4, tshark, until};

fn decrypt(lab: &Lab, which: GatewayKind, ike: &str, esp: &str) -> Result<()> {
    let site = Site::new(lab, SiteOptions::default())?;
    let credentials = Credentials::new(AuthKind::EapMschapv2)?;
    let _gateway = Gateway::start(which, &site, &Offer::new(AuthKind::EapMschapv2), &credentials)?;
    let client = Client::start(&site.client)?;
    let mut profile = ProfileText::new(AuthKind::EapMschapv2, &credentials, &GATEWAY_V4.to_string());
    profile.ike = Some(ike.to_owned());
    profile.esp = Some(esp.to_owned());
    let capture = Capture::start(&site.client, "eth0", "run")?;
    client.connect(&profile, credentials.password_for(AuthKind::EapMschapv2))?;
    ensure!(site.client.ping("10.77.50.2", 3)?, "ping");
    client.disconnect()?;
    let file = capture.finish()?;

    let home = home_with_keys(lab, &client)?;
    let esp_options =
        ["-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE"];

    let mut verbose = vec!["-V", "-Y", "isakmp"];
    verbose.extend(esp_options);
    let ike_seen = tshark(&file, &home, &verbose)?;
    for expected in
        ["Decrypted", "eap.gw.test", "Identification - Initiator", "Configuration", "Delete", "bob"]
    {
        ensure!(ike_seen.contains(expected), "{expected:?} is not in what tshark read:\n{ike_seen}");
    }
    ensure!(!ike_seen.contains("[incorrect"), "an integrity check failed:\n{ike_seen}");

    let mut fields = vec!["-Y", "icmp", "-T", "fields", "-e", "ip.src", "-e", "ip.dst", "-e", "icmp.type"];
    fields.extend(esp_options);
    let inner = tshark(&file, &home, &fields)?;
    let requests = inner.lines().filter(|line| line.contains("10.77.50.2") && line.ends_with("\t8")).count();
    let replies = inner.lines().filter(|line| line.contains("10.77.50.2") && line.ends_with("\t0")).count();
    ensure!(requests >= 3 && replies >= 3, "echo requests and replies inside ESP: {inner}");
    Ok(())
}

/// One IKE message as tshark reads it.
#[derive(Debug)]
struct Seen {
    source: String,
    spi_i: String,
    exchange: String,
    /// Without proposals and transforms, which are payloads of their own to tshark.
    payloads: Vec<String>,
    notifies: Vec<String>,
    data: Vec<String>,
}

impl Seen {
    fn of(line: &str) -> Self {
        let mut fields = line.split('\t');
        let mut next = || fields.next().unwrap_or_default().to_owned();
        let list = |text: String| -> Vec<String> {
            text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let (source, spi_i, exchange) = (next(), next(), next());
        let (mut payloads, notifies, data) = (list(next()), list(next()), list(next()));
        payloads.retain(|ty| ty != "2" && ty != "3");
        Self { source, spi_i, exchange, payloads, notifies, data }
    }
}

const CREATE_CHILD_SA: &str = "36";

/// Appendix B of the KEEP_OLD_IKE_SA draft between the built programs: two uplinks, one login.
#[test]
fn tshark_reads_the_message_flow_of_keep_old_ike_sa() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
        site.router.link("cafe", &site.client, "wlan0")?;
        site.router.address("cafe", &["10.77.2.1/24"])?;
        site.client.address("wlan0", &["10.77.2.2/24"])?;
        site.client.ip("route add default via 10.77.2.1 dev wlan0 metric 600")?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let _gateway =
            Gateway::start(GatewayKind::Reference, &site, &Offer::new(AuthKind::Psk), &credentials)?;
        let client = Client::start(&site.client)?;
        let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
        profile.ike = Some("aes256gcm16-prfsha384-x25519".to_owned());
        let capture = Capture::start(&site.client, "any", "paths")?;
        client.connect(&profile, None)?;
        until("a second path", PATIENCE, || {
            let paths = client.status_at("/paths").ok()?;
            let second = paths.as_array()?.iter().find(|path| path["interface"] == "wlan0")?;
            (second["state"] == "standby").then_some(())
        })?;
        client.disconnect()?;
        let file = capture.finish()?;

        let home = home_with_keys(lab, &client)?;
        let mut arguments = vec!["-Y", "isakmp && !icmp", "-T", "fields", "-E", "separator=/t"];
        for field in [
            "ip.src",
            "isakmp.ispi",
            "isakmp.exchangetype",
            "isakmp.typepayload",
            "isakmp.notify.msgtype",
            "isakmp.notify.data",
        ] {
            arguments.extend(["-e", field]);
        }
        let printed = tshark(&file, &home, &arguments)?;
        let seen: Vec<Seen> = printed.lines().map(Seen::of).collect();
        let (eth0, wlan0, gateway) = ("10.77.1.2", "10.77.2.2", GATEWAY_V4.to_string());

        // B.2: N(KEEP_OLD_IKE_SA), SA, Ni, KEi within the Encrypted payload, on the first IKE_SA; and the same in the answer.
        let keeps: Vec<&Seen> = seen.iter().filter(|message| message.notifies == ["50213"]).collect();
        ensure!(keeps.len() >= 2, "question and answer:\n{printed}");
        for (message, source, data) in [(keeps[0], eth0, "80000000"), (keeps[1], &gateway, "00000000")] {
            ensure!(message.source == source && message.exchange == CREATE_CHILD_SA, "{message:?}");
            ensure!(message.payloads == ["46", "41", "33", "40", "34"], "{message:?}");
            ensure!(message.data == [data], "{message:?}");
        }
        let old = &keeps[0].spi_i;
        ensure!(*old == keeps[1].spi_i, "{keeps:?}");
        // B.3: the CHILD_SA on an IKE_SA with SPIs of its own, still by the first interface.
        let child = seen.iter().find(|message| message.exchange == CREATE_CHILD_SA && message.spi_i != *old);
        let child = child.with_context(|| format!("a CHILD_SA on a new IKE_SA:\n{printed}"))?;
        ensure!(child.source == eth0, "{child:?}");
        ensure!(child.payloads.starts_with(&["46".into(), "33".into(), "40".into()]), "{child:?}");
        ensure!(child.payloads.ends_with(&["44".into(), "45".into()]), "{child:?}");
        // B.4: UPDATE_SA_ADDRESSES on it, by the other interface, answered with the COOKIE2 that was sent. The first IKE_SA has
        // one of its own, from where it is, once the client has learned how the NAT shows it.
        let is_update = |message: &Seen| message.notifies.first().is_some_and(|first| first == "16400");
        let mut on_first = seen.iter().filter(|message| is_update(message) && message.spi_i == *old);
        ensure!(
            on_first.all(|message| message.source == eth0),
            "the first IKE_SA stays where it is:\n{printed}"
        );
        let at = seen.iter().position(|message| is_update(message) && message.spi_i == child.spi_i);
        let at = at.with_context(|| format!("UPDATE_SA_ADDRESSES:\n{printed}"))?;
        let update = &seen[at];
        ensure!(update.source == wlan0, "{update:?}");
        ensure!(update.notifies == ["16400", "16388", "16389", "16401"], "{update:?}");
        let answer = seen.iter().skip(at + 1).find(|answer| {
            answer.source == gateway
                && answer.data.first().is_some_and(|data| Some(data) == update.data.last())
        });
        ensure!(answer.is_some_and(|answer| answer.spi_i == child.spi_i), "COOKIE2 comes back:\n{printed}");
        ensure!(seen.iter().all(|message| message.source != wlan0 || message.spi_i == child.spi_i));
        Ok(())
    })
}

#[test]
fn tshark_decrypts_a_run_against_strongswan_with_aes_gcm() -> Result<()> {
    in_lab(|lab| decrypt(lab, GatewayKind::StrongSwan, "aes256gcm16-prfsha384-x25519", "aes256gcm16"))
}

#[test]
fn tshark_decrypts_a_run_against_strongswan_with_aes_cbc() -> Result<()> {
    in_lab(|lab| decrypt(lab, GatewayKind::StrongSwan, "aes256-sha256-modp2048", "aes256-sha256"))
}

#[test]
fn tshark_decrypts_a_run_against_the_reference_gateway() -> Result<()> {
    in_lab(|lab| decrypt(lab, GatewayKind::Reference, "aes256gcm16-prfsha384-x25519", "aes256gcm16"))
}
