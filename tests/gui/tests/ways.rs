//! What the window and the report say of the three further ways: the lease of DHCP over IPsec, routing over IIPtran, and the
//! group of a multi-point SA.

use std::future::Future;

use anyhow::{Result, ensure};
use ropewalk_e2e::{AuthKind, Client, Credentials, DhcpSite, Offer, ProfileText, Reference, in_lab};
use ropewalk_gui_tests::{Desktop, PATIENCE, Window, eventually};
use ropewalk_lab::{
    Lab, Site, SiteOptions,
    site::{GATEWAY_V4, SERVER_V4},
};

/// Opens the window for this client, clicks Connect, looks, clicks again.
fn with_window<F: Future<Output = Result<()>>>(
    lab: &Lab,
    client: &Client,
    looks: impl FnOnce(Window, Desktop) -> F,
) -> Result<()> {
    let desktop = Desktop::start(lab)?;
    let socket = lab.dir().join("client/run/helper.sock");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let window = Window::open(&desktop, &socket).await?;
        window.wait_for_state("disconnected").await?;
        window.click("main-button").await?;
        window.wait_for_state("connected").await?;
        looks(window, desktop).await
    })?;
    client.disconnect()
}

/// What the report bundle says of all connections.
fn report(client: &Client) -> Result<String> {
    Ok(client.cli(&["report"])?.success()?.stdout)
}

#[test]
fn the_window_shows_until_when_the_lease_lasts_and_whose_it_is() -> Result<()> {
    in_lab(|lab| {
        let site = DhcpSite::new(lab, &[SERVER_V4], "")?;
        let _kea = site.start_kea("kea", &DhcpSite::kea(10, 600, None))?;
        let client = Client::start(&site.site.client)?;
        client.import(&site.profile())?;
        with_window(lab, &client, async |window, desktop| {
            let said = window.text("lease").await?;
            ensure!(said.contains(&SERVER_V4.to_string()), "the server: {said}");
            ensure!(said.contains(':'), "the time: {said}");
            ensure!(window.text("address").await?.contains("10.77.99.100"));
            window.screenshot(&desktop, "ways-1-lease").await?;
            let report = report(&client)?;
            ensure!(
                report.contains("\"lease\":{\"server\":\"address-"),
                "without the address itself: {report}"
            );
            window.close().await
        })
    })
}

#[test]
fn the_window_shows_that_the_routing_table_decides_and_the_group() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let offer = Offer {
            options: format!(
                "unique = false\n\n[multi_point_sa]\n\n[[link]]\nclient = \"{}\"\ndevice = \"toclient\"\n\
                 addresses = [\"10.255.1.0/31\"]\n",
                credentials.client_id
            ),
            ..Offer::new(AuthKind::Psk)
        };
        let _gateway = Reference::start(&site.gateway, &offer, &credentials)?;
        let client = Client::start(&site.client)?;
        let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
        profile.tunnel = "mode = \"iiptran\"\ninterface = \"togateway\"\n".to_owned();
        client.import(&profile)?;
        with_window(lab, &client, async |window, desktop| {
            ensure!(window.text("routed").await?.contains("IIPtran"));
            ensure!(window.text("address").await?.contains("10.255.1.1"));
            window.screenshot(&desktop, "ways-2-iiptran").await?;
            let report = report(&client)?;
            ensure!(report.contains("togateway"), "{report}");
            window.close().await
        })?;

        let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
        profile.timing = "\n[multi_point_sa]\nenabled = true\n\
             routes = [{ prefix = \"10.88.0.0/24\", endpoint = \"192.0.2.77\" }]\n"
            .to_owned();
        client.cli(&["remove", "lab"])?.success()?;
        client.import(&profile)?;
        with_window(lab, &client, async |window, desktop| {
            eventually("a group in use", PATIENCE, async || {
                Ok((window.attribute("group", "data-state").await?.as_deref() == Some("in-use"))
                    .then_some(()))
            })
            .await?;
            let said = window.text("group").await?;
            ensure!(said.contains("10.88.0.0/24"), "{said}");
            window.screenshot(&desktop, "ways-3-group").await?;
            let report = report(&client)?;
            ensure!(report.contains("\"group\":{\"state\":\"in-use\""), "{report}");
            ensure!(!report.contains("192.0.2.77"), "without the address itself: {report}");
            window.close().await
        })
    })
}
