//! strongSwan as the client of the reference gateway: an independent implementation confirms the responder's half.

use anyhow::{Result, ensure};
use ropewalk_e2e::{AuthKind, Credentials, Gateway, GatewayKind, Offer, PATIENCE, in_lab};
use ropewalk_lab::{
    Lab, Site, SiteOptions, Swan, SwanAuth, SwanClient, download,
    site::{GATEWAY_V4, LAN_V4, LAN_V6},
    until, upload,
};

const MEGABYTE: u64 = 1_000_000;

/// A gateway and a strongSwan client that is not connected yet; it wants everything by these suites.
fn both(lab: &Lab, kind: AuthKind, ike: &str, esp: &str) -> Result<(Site, Gateway, Swan)> {
    let site = Site::new(lab, SiteOptions::default())?;
    let credentials = Credentials::new(kind)?;
    let gateway = Gateway::start(GatewayKind::Reference, &site, &Offer::new(kind), &credentials)?;
    let auth = match kind {
        AuthKind::Psk => SwanAuth::Psk { id: credentials.client_id.clone(), secret: credentials.psk.clone() },
        AuthKind::EapMschapv2 => {
            SwanAuth::Eap { user: credentials.user.clone(), password: credentials.password.clone() }
        }
        AuthKind::Ecdsa | AuthKind::Rsa => SwanAuth::Certificate {
            id: credentials.client_id.clone(),
            credential: credentials.client.clone(),
        },
    };
    let client = SwanClient {
        gateway: GATEWAY_V4.into(),
        gateway_id: kind.gateway_identity().to_owned(),
        auth,
        ike: ike.to_owned(),
        esp: esp.to_owned(),
        traffic: vec![LAN_V4.to_owned(), LAN_V6.to_owned()],
        authorities: vec![credentials.root.clone(), credentials.intermediate],
    };
    let swan = Swan::start(&site.client, "swan-client", &client.config())?;
    Ok((site, gateway, swan))
}

fn carries(site: &Site) -> Result<()> {
    ensure!(site.client.ping("10.77.50.2", 2)?, "ping");
    for server in [Site::transfer_v4(), Site::transfer_v6()] {
        upload(&site.client, server, MEGABYTE, PATIENCE)?;
        download(&site.client, server, MEGABYTE, PATIENCE)?;
    }
    Ok(())
}

fn gets_in(kind: AuthKind, ike: &str, esp: &str) -> Result<()> {
    in_lab(|lab| {
        let (site, gateway, swan) = both(lab, kind, ike, esp)?;
        swan.initiate("net", PATIENCE)?;
        ensure!(gateway.sessions()? == 1, "{}", swan.log());
        carries(&site)?;
        swan.terminate("peer")?;
        until("the gateway to forget the client", PATIENCE, || {
            gateway.sessions().is_ok_and(|sessions| sessions == 0).then_some(())
        })?;
        Ok(())
    })
}

#[test]
fn with_a_pre_shared_key() -> Result<()> {
    gets_in(AuthKind::Psk, "aes256gcm16-prfsha384-x25519", "aes256gcm16")
}

#[test]
fn with_an_ecdsa_certificate() -> Result<()> {
    gets_in(AuthKind::Ecdsa, "aes128gcm16-prfsha256-ecp256", "aes128gcm16")
}

#[test]
fn with_an_rsa_certificate() -> Result<()> {
    gets_in(AuthKind::Rsa, "aes256-sha256-modp3072", "aes256-sha256")
}

#[test]
fn with_eap_mschapv2() -> Result<()> {
    gets_in(AuthKind::EapMschapv2, "chacha20poly1305-prfsha512-ecp384", "chacha20poly1305")
}

#[test]
fn the_client_may_replace_its_child_sa_and_the_gateway_may_end_it_all() -> Result<()> {
    in_lab(|lab| {
        let esp = "aes256gcm16-x25519";
        let (site, mut gateway, swan) = both(lab, AuthKind::Psk, "aes256gcm16-prfsha384-x25519", esp)?;
        swan.initiate("net", PATIENCE)?;
        carries(&site)?;
        let before = swan.list_sas()?;
        swan.control(&["--rekey", "--child", "net"], PATIENCE)?.success()?;
        until("another CHILD_SA", PATIENCE, || {
            let now = swan.list_sas().ok()?;
            let spi = |list: &str| Some(list.split_once("in  ")?.1.get(..8)?.to_owned());
            (spi(&now)? != spi(&before)?).then_some(())
        })?;
        carries(&site)?;
        gateway.disconnect_clients(AuthKind::Psk)?;
        until("the client to hear of it", PATIENCE, || {
            swan.list_sas().is_ok_and(|list| !list.contains("ESTABLISHED")).then_some(())
        })?;
        Ok(())
    })
}
