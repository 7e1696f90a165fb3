//! DHCP over IPsec with strongSwan as gateway: two CHILD_SA configurations and a DHCP server on its tunnel device.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{AuthKind, Client, Credentials, PATIENCE, dhcp_in, dhcp_profile, in_lab};
use ropewalk_lab::{
    Capture, Dnsmasq, DnsmasqConfig, Site, SiteOptions, Swan, SwanConfig,
    site::{GATEWAY_V4, SERVER_V4},
    until,
};

/// As docs/dhcp-over-ipsec.md has it.
fn config(credentials: &Credentials) -> SwanConfig {
    let text = format!(
        r#"connections {{
 psk {{
  version = 2
  proposals = aes256gcm16-prfsha384-x25519
  local {{
   id = psk.gw.test
   auth = psk
  }}
  remote {{
   auth = psk
  }}
  children {{
   dhcp {{
    local_ts = 0.0.0.0/0[udp/67]
    remote_ts = 0.0.0.0/0[udp/68]
    esp_proposals = aes256gcm16
   }}
   net {{
    local_ts = 10.77.50.0/24,10.77.99.1/32
    remote_ts = 10.77.99.0/24
    esp_proposals = aes256gcm16
   }}
  }}
 }}
}}
secrets {{
 ike-0 {{
  id = {}
  secret = "{}"
 }}
}}
"#,
        credentials.client_id, credentials.psk
    );
    // libipsec installs a route for every policy, whatever `install_routes` says, and the one of the DHCP SA is a default route into
    // the tunnel, which took charon's own packets with it. Behind the main table it does no harm.
    let daemon = " install_routes = no\n routing_table_prio = 40000\n".to_owned();
    SwanConfig { text, daemon, ..SwanConfig::default() }
}

#[test]
fn strongswan_carries_dhcp_to_a_server_on_its_tunnel_device() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let swan = Swan::start(&site.gateway, "gateway", &config(&credentials))?;
        // Its tunnel device is the clients' network.
        site.gateway.address("ipsec0", &["10.77.99.1/24"])?;
        site.gateway.ip("link set ipsec0 up")?;
        let range = "10.77.99.100,10.77.99.150,255.255.255.0,2m".to_owned();
        let options = ["option:T1,4", "option:router,10.77.99.1", "option:dns-server,10.77.50.2"];
        let options = options.map(str::to_owned).to_vec();
        let config =
            DnsmasqConfig { dhcp_ranges: vec![range], dhcp_options: options, ..DnsmasqConfig::default() };
        let dnsmasq = Dnsmasq::start_named(&site.gateway, "dhcp", &config)?;

        let client = Client::start(&site.client)?;
        let capture = Capture::start(&site.client, "eth0", "swan")?;
        client.import(&dhcp_profile(&credentials, &GATEWAY_V4.to_string()))?;
        let finished = client.try_connect("lab", None, 30)?;
        ensure!(finished.code == 0, "{finished:?}\n{}\n{}", dnsmasq.log(), swan.log());
        let status = client.status()?;
        let address = status["addresses"][0].as_str().context("an address")?.to_owned();
        ensure!(address.starts_with("10.77.99.1"), "{status}");
        ensure!(site.client.ping(&SERVER_V4.to_string(), 3)?, "ping\n{}", swan.log());
        let sas = swan.list_sas()?;
        ensure!(
            sas.contains(&format!("remote {address}")),
            "the leased address alone is the client's: {sas}"
        );

        // Renewed by the VPN's SA, with the server on the device.
        let until_then = client.status_at("/lease/until")?;
        until("the lease is renewed", PATIENCE, || {
            let now = client.status_at("/lease/until").ok()?;
            (now.is_string() && now != until_then).then_some(())
        })?;
        client.disconnect()?;
        until("the release", Duration::from_secs(5), || dnsmasq.log().contains("DHCPRELEASE").then_some(()))?;
        let seen = dhcp_in(lab, &client, &capture.finish()?)?;
        // dnsmasq pings an address for three seconds before it offers it, and is asked again meanwhile.
        let kinds = |wanted: &[u8]| -> Vec<u8> {
            seen.iter().map(|message| message.kind).filter(|kind| wanted.contains(kind)).collect()
        };
        let ours = kinds(&[1, 3, 7]);
        ensure!(
            ours.iter().filter(|kind| **kind == 1).count() >= 1 && ours.ends_with(&[3, 3, 7]),
            "{seen:#?}"
        );
        ensure!(kinds(&[5, 6]) == [5, 5] && !kinds(&[2]).is_empty(), "{seen:#?}");
        let (first, last) = (seen.first().context("a message")?, seen.last().context("a message")?);
        ensure!(
            first.spi != last.spi && last.way.1 == "10.77.99.1",
            "the release goes by the VPN's SA: {seen:#?}"
        );
        Ok(())
    })
}
