//! DNS and routes: names behind the gateway while connected, full and split tunnel, and everything as before afterwards.

use anyhow::{Result, ensure};
use ropewalk_e2e::{
    AuthKind, BOTH, Client, Credentials, Gateway, GatewayKind, NetworkState, Offer, PATIENCE, ProfileText,
    in_lab,
};
use ropewalk_lab::{
    Capture, Site, SiteOptions,
    site::{BEYOND_GATEWAY, DIRECT, GATEWAY_V4, INTRANET, RESOLV_CONF},
    tshark,
};

#[test]
fn names_behind_the_gateway_are_found_while_connected_and_dns_is_put_back() -> Result<()> {
    for which in BOTH {
        in_lab(|lab| {
            let site = Site::new(lab, SiteOptions::default())?;
            let credentials = Credentials::new(AuthKind::Psk)?;
            let _gateway = Gateway::start(which, &site, &Offer::new(AuthKind::Psk), &credentials)?;
            let client = Client::start(&site.client)?;
            client.connect(&ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string()), None)?;
            let found = site.client.run("getent", &["ahosts", INTRANET], PATIENCE)?;
            ensure!(found.code == 0 && found.stdout.contains("10.77.50.2"), "{found:?}");
            site.dns.wait_for_question(INTRANET, PATIENCE)?;
            client.disconnect()?;
            let restored = std::fs::read_to_string(site.client.resolv_conf_path())?;
            ensure!(restored == RESOLV_CONF, "resolv.conf is now {restored:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn dns_is_put_back_after_a_kill() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let _gateway =
            Gateway::start(GatewayKind::StrongSwan, &site, &Offer::new(AuthKind::Psk), &credentials)?;
        let mut client = Client::start(&site.client)?;
        client.connect(&ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string()), None)?;
        client.kill_helper()?;
        let left = std::fs::read_to_string(site.client.resolv_conf_path())?;
        ensure!(left != RESOLV_CONF, "a kill leaves the file changed, or this test proves nothing");
        client.start_helper()?;
        let restored = std::fs::read_to_string(site.client.resolv_conf_path())?;
        ensure!(restored == RESOLV_CONF, "resolv.conf is now {restored:?}");
        Ok(())
    })
}

#[test]
fn a_full_tunnel_takes_everything_and_does_not_loop() -> Result<()> {
    for which in BOTH {
        in_lab(|lab| {
            let site = Site::new(lab, SiteOptions::default())?;
            let credentials = Credentials::new(AuthKind::Psk)?;
            let _gateway =
                Gateway::start(which, &site, &Offer::new(AuthKind::Psk).everything(), &credentials)?;
            let before = NetworkState::of(&site.client)?;
            let client = Client::start(&site.client)?;
            ensure!(site.client.ping(&DIRECT.to_string(), 1)?, "direct before");
            client.connect(&ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string()), None)?;
            let capture = Capture::start(&site.router, "home", "home")?;
            ensure!(site.client.ping(&BEYOND_GATEWAY.to_string(), 2)?, "the internet through the gateway");
            ensure!(site.client.ping("fd77:50::2", 2)?, "IPv6 through the gateway");
            ensure!(!site.client.ping(&DIRECT.to_string(), 1)?, "nothing goes past the tunnel");
            let outside = tshark(&capture.finish()?, lab.dir(), &["-T", "fields", "-e", "ip.dst"])?;
            let own = [GATEWAY_V4.to_string(), "10.77.1.2".to_owned()];
            for destination in
                outside.lines().flat_map(|line| line.split(',')).filter(|address| !address.is_empty())
            {
                ensure!(
                    own.iter().any(|address| address == destination),
                    "seen outside the tunnel: {destination}"
                );
            }
            client.disconnect()?;
            ensure!(site.client.ping(&DIRECT.to_string(), 1)?, "direct afterwards");
            before.assert_restored(&site.client)
        })?;
    }
    Ok(())
}

#[test]
fn a_split_tunnel_takes_only_its_own_networks() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let offer = Offer::new(AuthKind::Psk).everything();
        let _gateway = Gateway::start(GatewayKind::StrongSwan, &site, &offer, &credentials)?;
        let client = Client::start(&site.client)?;
        let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
        profile.tunnel = "routes = [\"10.77.50.0/24\"]\n".to_owned();
        client.connect(&profile, None)?;
        ensure!(site.client.ping("10.77.50.2", 1)?, "inside");
        ensure!(site.client.ping(&DIRECT.to_string(), 1)?, "past the tunnel");
        ensure!(!site.client.ping(&BEYOND_GATEWAY.to_string(), 1)?, "not through the gateway");
        client.disconnect()
    })
}

#[test]
fn excluded_networks_go_past_a_full_tunnel() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let offer = Offer::new(AuthKind::Psk).everything();
        let _gateway = Gateway::start(GatewayKind::StrongSwan, &site, &offer, &credentials)?;
        let client = Client::start(&site.client)?;
        let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
        profile.tunnel = "exclude = [\"192.0.2.0/24\"]\n".to_owned();
        client.connect(&profile, None)?;
        ensure!(site.client.ping(&BEYOND_GATEWAY.to_string(), 1)?, "through the gateway");
        ensure!(site.client.ping(&DIRECT.to_string(), 1)?, "the excluded network is reached directly");
        client.disconnect()
    })
}
