//! DHCP over IPsec with dnsmasq: what a server says configures the client, as far as the profile and the gateway allow.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{Client, DhcpSite, PATIENCE, in_lab};
use ropewalk_lab::{
    Dnsmasq, DnsmasqConfig, Lab, Namespace,
    site::{GATEWAY_V4, SERVER_V4},
    until,
};
use serde_json::json;

/// The DHCP server's place: the one behind the gateway has another dnsmasq for names.
const DHCP_SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 51, 2);

/// The site, the server, and the server's place, which goes when it is dropped.
fn site(lab: &Lab, options: &[&str]) -> Result<(DhcpSite, Dnsmasq, Namespace)> {
    let site = DhcpSite::new(lab, &[DHCP_SERVER], "")?;
    let place = lab.namespace("server2")?;
    site.site.gateway.link("lan1", &place, "eth0")?;
    site.site.gateway.address("lan1", &["10.77.51.1/24"])?;
    place.address("eth0", &[&format!("{DHCP_SERVER}/24")])?;
    place.ip("route add default via 10.77.51.1")?;
    let config = DnsmasqConfig {
        dhcp_ranges: vec!["10.77.99.100,10.77.99.150,255.255.255.0,2m".to_owned()],
        dhcp_options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..DnsmasqConfig::default()
    };
    let dnsmasq = Dnsmasq::start_named(&place, "dhcp", &config)?;
    Ok((site, dnsmasq, place))
}

#[test]
fn a_server_configures_the_client_and_draws_nothing_where_it_must_not_go() -> Result<()> {
    in_lab(|lab| {
        // What TunnelVision does (CVE-2024-3661), the other way round: the gateway's own network into the tunnel, and a network that
        // the gateway does not let us reach.
        let routes = "option:classless-static-route,10.77.50.0/24,10.77.99.1,198.51.100.0/24,10.77.99.1,192.0.2.0/24,10.77.99.1";
        let (site, dnsmasq, _place) = site(
            lab,
            &[
                routes,
                "option:dns-server,10.77.50.2",
                "option:domain-name,corp.test",
                "option:domain-search,a.corp.test,b.corp.test",
                "option:mtu,1290",
                "option:ntp-server,10.77.50.9",
                "option:netbios-ns,10.77.50.8",
            ],
        )?;
        let client = Client::start(&site.site.client)?;
        client.connect(&site.profile(), None)?;
        let status = client.status()?;
        ensure!(status["routes"] == json!(["10.77.50.0/24", "10.77.99.0/24"]), "{status}");
        ensure!(status["mtu"] == 1290, "{status}");
        let lease = &status["lease"];
        ensure!(lease["server"] == DHCP_SERVER.to_string(), "{status}");
        ensure!(lease["search"] == json!(["a.corp.test", "b.corp.test", "corp.test"]), "{status}");
        ensure!(lease["ntp"] == json!(["10.77.50.9"]) && lease["wins"] == json!(["10.77.50.8"]), "{status}");
        let refused = lease["refused_routes"].to_string();
        ensure!(refused.contains("198.51.100.0/24: it covers the gateway's own address"), "{status}");
        ensure!(
            refused.contains("192.0.2.0/24: it leaves what the profile and the gateway allow"),
            "{status}"
        );
        let way = |to: &str| site.site.client.ip_show(&["route", "get", to]);
        ensure!(way("10.77.50.2")?.contains("ropewalk"), "{}", way("10.77.50.2")?);
        for outside in [GATEWAY_V4.to_string(), "192.0.2.80".to_owned()] {
            ensure!(way(&outside)?.contains("dev eth0"), "{}", way(&outside)?);
        }
        let links = site.site.client.ip_show(&["link", "show"])?;
        ensure!(links.contains("mtu 1290"), "{links}");
        ensure!(site.site.client.ping(&SERVER_V4.to_string(), 3)?, "ping");

        // The connection's own end gives the address back; the next one gets it again.
        let address = status["addresses"].clone();
        client.disconnect()?;
        until("the release", PATIENCE, || dnsmasq.log().contains("DHCPRELEASE").then_some(()))?;
        client.try_connect("lab", None, 30)?.success()?;
        ensure!(client.status_at("/addresses")? == address, "{}", dnsmasq.log());
        client.disconnect()
    })
}

/// The profile's routes bound what the server may draw into the tunnel.
#[test]
fn a_profile_keeps_out_what_it_does_not_name() -> Result<()> {
    in_lab(|lab| {
        let (site, _dnsmasq, _place) = site(lab, &["option:router,10.77.99.1"])?;
        let client = Client::start(&site.site.client)?;
        let mut profile = site.profile();
        profile.tunnel = "routes = [\"10.77.50.0/25\"]\n".to_owned();
        client.connect(&profile, None)?;
        let status = client.status()?;
        let routes = status["routes"].as_array().context("routes")?;
        ensure!(routes.contains(&json!("10.77.50.0/25")), "{status}");
        ensure!(!routes.iter().any(|route| route == "0.0.0.0/0" || route == "10.77.0.0/16"), "{status}");
        client.disconnect()?;
        client.wait_for_state("disconnected", Duration::from_secs(1))
    })
}
