//! What stands between a profile and its gateway: dead addresses, dead gateways, an IKE_AUTH without a CHILD_SA.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{
    AuthKind, BOTH, Childless, Client, Credentials, Gateway, GatewayKind, Offer, ProfileText, in_lab,
};
use ropewalk_lab::{
    Site, SiteOptions,
    site::{GATEWAY_V4, NOBODY_V4, SERVER_V4},
};

/// Much less than the ten seconds that a silent address is given, and enough for a machine with other things to do.
const SOON: Duration = Duration::from_secs(6);

/// Connects to `address`, which may be several, and says how long it took.
fn connect(site: &Site, address: &str) -> Result<Duration> {
    let credentials = Credentials::new(AuthKind::Psk)?;
    let _gateway = Gateway::start(GatewayKind::StrongSwan, site, &Offer::new(AuthKind::Psk), &credentials)?;
    let client = Client::start(&site.client)?;
    let profile = ProfileText::new(AuthKind::Psk, &credentials, address);
    let elapsed = client.connect(&profile, None)?.elapsed;
    ensure!(site.client.ping(&SERVER_V4.to_string(), 2)?, "the tunnel carries nothing");
    eprintln!("{address}: connect took {elapsed:?}");
    client.disconnect()?;
    Ok(elapsed)
}

/// Packets to this address vanish without an error.
fn swallow(site: &Site, address: &str) -> Result<()> {
    let family = if address.contains(':') { "ip6" } else { "ip" };
    let rule = format!("add rule inet swallow to {family} daddr {address} drop");
    let table =
        "add table inet swallow\nadd chain inet swallow to { type filter hook forward priority -10; }";
    Ok(site.router.nft(&format!("{table}\n{rule}"))?)
}

#[test]
fn with_the_first_of_two_gateways_dead_the_second_is_connected_to() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        swallow(&site, &NOBODY_V4.to_string())?;
        let elapsed = connect(&site, &format!("{NOBODY_V4},{GATEWAY_V4}"))?;
        ensure!(elapsed < SOON, "it took {elapsed:?}");
        ensure!(elapsed >= Duration::from_secs(1), "the dead gateway was not tried first: {elapsed:?}");
        Ok(())
    })
}

#[test]
fn a_name_with_a_dead_ipv6_address_connects_by_ipv4_at_once() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        let dead = "2001:db8:64::99";
        swallow(&site, dead)?;
        let hosts = site.client.resolv_conf_path().with_file_name("hosts");
        let text = format!("127.0.0.1 localhost\n{dead} vpn.gw.test\n{GATEWAY_V4} vpn.gw.test\n");
        std::fs::write(&hosts, text).with_context(|| format!("write {}", hosts.display()))?;
        let elapsed = connect(&site, "vpn.gw.test")?;
        ensure!(elapsed < Duration::from_secs(3), "it took {elapsed:?}");
        Ok(())
    })
}

#[test]
fn a_gateway_that_wants_ike_auth_without_a_child_sa_gets_it() -> Result<()> {
    for which in BOTH {
        in_lab(|lab| {
            let site = Site::new(lab, SiteOptions::default())?;
            let credentials = Credentials::new(AuthKind::Ecdsa)?;
            let offer = Offer { childless: Childless::Force, ..Offer::new(AuthKind::Ecdsa) };
            let _gateway = Gateway::start(which, &site, &offer, &credentials)?;
            let client = Client::start(&site.client)?;
            let profile = ProfileText::new(AuthKind::Ecdsa, &credentials, &GATEWAY_V4.to_string());
            client.connect(&profile, None)?;
            ensure!(site.client.ping(&SERVER_V4.to_string(), 2)?, "{which:?}: the tunnel carries nothing");
            client.disconnect()
        })?;
    }
    Ok(())
}
