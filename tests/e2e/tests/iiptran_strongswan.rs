//! What an implementation that is not ours makes of the negotiation of transport mode for IP in IP (RFC 7296 sections 1.3.1
//! and 2.23.1), as the gateway and as the client, behind a NAT and not.
//!
//! It goes as far as strongSwan's daemon goes here: notify, proposal and selectors are agreed on. Its packet handling in user
//! space (kernel-libipsec, which the machines of these tests need) then refuses the SA with "unsupported mode", so no
//! packet is carried.

use std::time::Duration;

use anyhow::{Result, ensure};
use ropewalk_e2e::{
    AuthKind, Client, Credentials, Gateway, GatewayKind, Offer, PATIENCE, ProfileText, in_lab,
};
use ropewalk_lab::{Lab, Site, SiteOptions, Swan, SwanConfig, site::GATEWAY_V4, until};

/// What libipsec says of a CHILD_SA that everybody else agreed on.
const AS_FAR_AS_IT_GOES: &str = "IPsec SA: unsupported mode";
const SOON: Duration = Duration::from_secs(10);

fn site(lab: &Lab, nat: bool) -> Result<(Site, Credentials)> {
    let site = Site::new(lab, SiteOptions { nat, v6: false, ..SiteOptions::default() })?;
    Ok((site, Credentials::new(AuthKind::Psk)?))
}

/// A connection of strongSwan's between these ends, for IP in IP.
fn config(credentials: &Credentials, ends: &str, mode: &str) -> SwanConfig {
    let text = format!(
        "connections {{\n peer {{\n  version = 2\n  proposals = aes256gcm16-prfsha384-x25519\n{ends}  children {{\n   net {{\n    \
         local_ts = dynamic[4],dynamic[41]\n    remote_ts = dynamic[4],dynamic[41]\n    esp_proposals = aes256gcm16\n    \
         mode = {mode}\n   }}\n  }}\n }}\n}}\nsecrets {{\n ike-0 {{\n  id = {}\n  secret = \"{}\"\n }}\n}}\n",
        credentials.client_id, credentials.psk
    );
    SwanConfig { text, ..SwanConfig::default() }
}

/// The client asks strongSwan for transport mode; `childless` is what strongSwan thinks of a CHILD_SA after the login.
fn ask(nat: bool, mode: &str, childless: &str, word: &str) -> Result<()> {
    in_lab(|lab| {
        let (site, credentials) = site(lab, nat)?;
        let ends = format!(
            "  childless = {childless}\n  local {{\n   auth = psk\n   id = psk.gw.test\n  }}\n  remote {{\n   auth = psk\n  }}\n"
        );
        let swan = Swan::start(&site.gateway, "swan", &config(&credentials, &ends, mode))?;
        let client = Client::start(&site.client)?;
        let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
        profile.tunnel = "mode = \"iiptran\"\n".to_owned();
        profile.timing = "\n[address]\nsource = \"static\"\nstatic = [\"10.255.1.1/31\"]\n".to_owned();
        client.expect_refusal(&profile, None, 7, word, SOON)?;
        let log = swan.log();
        let exchange = if childless == "never" { "IKE_AUTH request 1" } else { "CREATE_CHILD_SA request 2" };
        let request = log.lines().find(|line| line.contains("parsed") && line.contains(exchange));
        ensure!(request.is_some_and(|line| line.contains("N(USE_TRANSP)")), "{exchange}: {log}");
        ensure!(log.contains("IKE_SA peer[1] established"), "{log}");
        // With a NAT the client's selector is an address that strongSwan never saw: it put the NAT's in its place, for
        // else it would have said TS_UNACCEPT, as it does in tunnel mode.
        ensure!(log.contains(AS_FAR_AS_IT_GOES) == (mode == "transport"), "{log}");
        ensure!(log.contains("N(TS_UNACCEPT)") == (mode == "tunnel"), "{log}");
        Ok(())
    })
}

#[test]
fn strongswan_as_the_gateway_takes_mode_and_selectors_in_either_exchange_with_a_nat_and_without() -> Result<()>
{
    for nat in [true, false] {
        for childless in ["never", "allow"] {
            ask(nat, "transport", childless, "transport mode")?;
        }
    }
    Ok(())
}

#[test]
fn strongswan_that_is_set_to_tunnel_mode_is_told_from_one_without_a_common_algorithm() -> Result<()> {
    for childless in ["never", "allow"] {
        ask(true, "tunnel", childless, "does not agree to transport mode")?;
    }
    Ok(())
}

#[test]
fn strongswan_as_the_client_takes_what_the_reference_gateway_answers() -> Result<()> {
    for nat in [true, false] {
        in_lab(|lab| {
            let (site, credentials) = site(lab, nat)?;
            let link = format!(
                "\n[[link]]\nclient = \"{}\"\ndevice = \"swan0\"\naddresses = [\"10.255.1.0/31\"]\n",
                credentials.client_id
            );
            let offer = Offer { options: link, ..Offer::new(AuthKind::Psk) };
            let gateway = Gateway::start(GatewayKind::Reference, &site, &offer, &credentials)?;
            let ends = format!(
                "  remote_addrs = {GATEWAY_V4}\n  encap = yes\n  local {{\n   auth = psk\n   id = {}\n  }}\n  \
                 remote {{\n   auth = psk\n   id = psk.gw.test\n  }}\n",
                credentials.client_id
            );
            let swan = Swan::start(&site.client, "swan", &config(&credentials, &ends, "transport"))?;
            ensure!(swan.initiate("net", PATIENCE).is_err(), "libipsec has learned transport mode");
            let log = swan.log();
            for expected in [
                "IKE_AUTH response 1 [ IDr AUTH N(USE_TRANSP) SA TSi TSr",
                "received USE_TRANSPORT_MODE notify",
                "selected proposal: ESP:AES_GCM_16_256",
                AS_FAR_AS_IT_GOES,
            ] {
                ensure!(log.contains(expected), "{expected:?} is not in {log}");
            }
            ensure!(
                !log.contains("TS_UNACCEPT") && !log.contains("no acceptable traffic selectors"),
                "{log}"
            );
            // It takes the CHILD_SA back, and keeps the IKE_SA.
            until("the CHILD_SA to go", PATIENCE, || {
                log.contains("sending DELETE for ESP CHILD_SA").then_some(())
            })?;
            ensure!(gateway.sessions()? == 1);
            Ok(())
        })?;
    }
    Ok(())
}
