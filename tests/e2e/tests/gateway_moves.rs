//! A gateway whose own address changes (RFC 4555 section 3.6): it tells its clients from the new one, and they move over.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use ropewalk_e2e::{
    AuthKind, Client, Credentials, Flow, Offer, PATIENCE, ProfileText, Reference, StateLog, in_lab,
};
use ropewalk_lab::{Site, SiteOptions, site::GATEWAY_V4, until};

#[test]
fn a_client_follows_its_gateway_to_another_address_and_tcp_goes_on() -> Result<()> {
    in_lab(|lab| {
        // A NAT would let nothing through from an address that nobody asked.
        let site = Site::new(lab, SiteOptions { nat: false, v6: false, v4: true })?;
        let new: IpAddr = "198.51.100.3".parse()?;
        site.gateway.address("eth0", &["198.51.100.3/24"])?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let offer = Offer {
            listen: vec![GATEWAY_V4.into(), new],
            outer: vec![GATEWAY_V4.into()],
            ..Offer::new(AuthKind::Psk)
        };
        let gateway = Reference::start(&site.gateway, &offer, &credentials)?;
        let client = Client::start(&site.client)?;
        client.connect(&ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string()), None)?;
        let (spi, inner) = (client.status_at("/ike/0/spi_i")?, client.status_at("/addresses")?);
        let states = StateLog::watch(&client, "states")?;
        let flow = Flow::open(&site)?;

        // What stays as it was moves nobody.
        let answer = gateway.control(&format!("addresses {GATEWAY_V4} {new}"))?;
        ensure!(answer["told"] == 1, "{answer}");
        flow.goes_on(PATIENCE)?;
        ensure!(client.status_at("/gateway/address")? == GATEWAY_V4.to_string(), "it moved without need");

        gateway.control(&format!("addresses {new}"))?;
        until("the client at the new address", PATIENCE, || {
            client.status_at("/gateway/address").is_ok_and(|at| at == new.to_string()).then_some(())
        })?;
        // Nothing goes by the old one any more.
        site.router.nft(&format!(
            "table ip gone {{\n chain through {{\n  type filter hook forward priority 0;\n  ip daddr {GATEWAY_V4} drop\n  \
             ip saddr {GATEWAY_V4} drop\n }}\n}}\n"
        ))?;
        flow.goes_on(PATIENCE)?;
        ensure!(site.client.ping("10.77.50.2", 2)?, "ping after");
        ensure!(client.status_at("/ike/0/spi_i")? == spi, "another IKE_SA");
        ensure!(client.status_at("/addresses")? == inner, "another inner address");
        ensure!(states.states()? == ["connected"], "{:?}", states.states()?);
        ensure!(gateway.sessions()? == 1);
        let longest = flow.close()?;
        ensure!(longest < Duration::from_secs(3), "TCP stood still for {longest:?}");
        client.disconnect()
    })
}
