//! Two connections of one machine with the same certificate: neither tells the gateway that it is the only one, which would put
//! the other out (INITIAL_CONTACT, RFC 7296 section 2.4); alone, a client that lost its memory still says so.

use std::time::Duration;

use anyhow::{Result, ensure};
use ropewalk_e2e::{
    AuthKind, Client, Credentials, Gateway, GatewayKind, Offer, PATIENCE, ProfileText, in_lab,
};
use ropewalk_lab::{Site, SiteOptions, site::GATEWAY_V4, until};
use serde_json::Value;

fn states(client: &Client) -> Result<Vec<(String, String)>> {
    let all = client.cli(&["status", "--all", "--json"])?.success()?;
    let all: Vec<Value> = serde_json::from_str(&all.stdout)?;
    let text = |one: &Value, key: &str| one.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(all.iter().map(|one| (text(one, "profile"), text(one, "state"))).collect())
}

#[test]
fn two_connections_with_one_certificate_stand_beside_each_other() -> Result<()> {
    for which in [GatewayKind::StrongSwan, GatewayKind::Reference] {
        in_lab(|lab| {
            let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
            let kind = AuthKind::Ecdsa;
            let credentials = Credentials::new(kind)?;
            let offer = Offer { options: "unique = false\n".to_owned(), ..Offer::new(kind) };
            let gateway = Gateway::start(which, &site, &offer, &credentials)?;
            let mut client = Client::start(&site.client)?;
            let profile = |name: &str, routes: &str| {
                let mut profile = ProfileText::new(kind, &credentials, &GATEWAY_V4.to_string());
                profile.name = name.to_owned();
                profile.tunnel = format!("routes = [\"{routes}\"]\n");
                profile
            };
            let (one, two) = (profile("one", "10.77.50.0/25"), profile("two", "10.77.50.128/25"));
            client.connect(&one, None)?;
            client.connect(&two, None)?;
            std::thread::sleep(Duration::from_secs(2));
            let both =
                |state: &str| [("one".to_owned(), state.to_owned()), ("two".to_owned(), state.to_owned())];
            ensure!(states(&client)? == both("connected"), "{:?}", states(&client)?);
            ensure!(!client.helper_log().contains("reconnecting"), "one put the other out");
            ensure!(gateway.sessions()? == 2, "{} at the gateway", gateway.sessions()?);
            ensure!(site.client.ping("10.77.50.2", 1)?, "the first one carries");
            // After a crash the first one is alone, and what the gateway has of before goes.
            client.kill_helper()?;
            client.start_helper()?;
            client.connect(&one, None)?;
            until("the old ones to go", PATIENCE, || {
                gateway.sessions().is_ok_and(|sessions| sessions == 1).then_some(())
            })?;
            client.disconnect()
        })?;
    }
    Ok(())
}
