//! An implementation that is not ours reads our bytes: tshark decrypts a captured run with the helper's key log.

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{AuthKind, Client, Credentials, Gateway, GatewayKind, Offer, ProfileText, in_lab};
use ropewalk_lab::{Capture, Lab, Site, SiteOptions, site::GATEWAY_V4, tshark};

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

    // tshark reads both tables from its own configuration folder.
    let home = lab.dir().join("tshark");
    let tables = home.join("wireshark");
    std::fs::create_dir_all(&tables)?;
    for table in ["ikev2_decryption_table", "esp_sa"] {
        let from = client.key_log().join(table);
        std::fs::copy(&from, tables.join(table))
            .with_context(|| format!("the key log {}", from.display()))?;
    }
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
