//! Messages and packets that are larger than the path: IKE_AUTH with large certificates (RFC 7383), and what a narrow path
//! does to the traffic inside.

use std::time::Duration;

use anyhow::{Result, ensure};
use ropewalk_e2e::{AuthKind, Client, Credentials, Gateway, GatewayKind, Offer, ProfileText, in_lab};
use ropewalk_lab::{Site, SiteOptions, download, site::GATEWAY_V4, upload};

/// Exit code for a gateway that does not answer.
const UNREACHABLE: i32 = 6;

/// Enough for a hundred full segments each way, little enough for a slow machine.
const OCTETS: u64 = 300_000;

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

#[test]
fn with_a_smaller_tunnel_mtu_a_path_that_silently_drops_large_packets_carries_everything() -> Result<()> {
    in_lab(|lab| {
        let site = site(lab)?;
        // Both ways, and not a word of it.
        site.router.ip("link set outside mtu 1380")?;
        site.router.nft(
            "table ip hole {\n chain out {\n  type filter hook output priority 0;\n  icmp type destination-unreachable drop\n }\n}\n",
        )?;
        let credentials = Credentials::large()?;
        let offer = Offer::new(AuthKind::Rsa);
        let _gateway = Gateway::start(GatewayKind::StrongSwan, &site, &offer, &credentials)?;
        let client = Client::start(&site.client)?;
        let mut profile = ProfileText::new(AuthKind::Rsa, &credentials, &GATEWAY_V4.to_string());
        client.connect(&profile, None)?;
        ensure!(site.client.ping("10.77.50.2", 2)?, "small packets pass");
        let patience = Duration::from_secs(3);
        ensure!(
            upload(&site.client, Site::transfer_v4(), OCTETS, patience).is_err(),
            "this is no black hole"
        );
        client.disconnect()?;
        profile.tunnel = "mtu = 1280\n".to_owned();
        client.connect(&profile, None)?;
        upload(&site.client, Site::transfer_v4(), OCTETS, Duration::from_secs(20))?;
        download(&site.client, Site::transfer_v4(), OCTETS, Duration::from_secs(20))?;
        client.disconnect()
    })
}
