//! Several paths in the real window: each a strand with its numbers, the one that carries told, the policy a choice, and the
//! tray counting them.

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{AuthKind, Client, Credentials, Gateway, GatewayKind, Offer, Pings, ProfileText, in_lab};
use ropewalk_gui_tests::{Desktop, PATIENCE, Panel, Window, eventually};
use ropewalk_lab::{Site, SiteOptions, site::GATEWAY_V4};
use serde_json::Value;

/// Every strand of the picture: its interface, its state, and what is written beside it.
const STRANDS: &str = "return [...document.querySelectorAll('[data-testid=path]')].map((path) => \
     [path.dataset.interface, path.dataset.state, path.querySelector('[data-testid=path-numbers]').textContent])";

async fn strands(window: &Window) -> Result<Vec<[String; 3]>> {
    let all = window.script(STRANDS).await?;
    let all = all.as_array().context("strands are a list")?;
    let text =
        |strand: &Value, at: usize| strand.get(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(all.iter().map(|strand| [0, 1, 2].map(|at| text(strand, at))).collect())
}

/// Waits until these are the interfaces and states of the strands.
async fn shows(window: &Window, wanted: &[(&str, &str)]) -> Result<Vec<[String; 3]>> {
    let what = format!("the strands {wanted:?}");
    eventually(&what, PATIENCE, async || {
        let all = strands(window).await?;
        let same = all.len() == wanted.len()
            && wanted
                .iter()
                .all(|(name, state)| all.iter().any(|strand| strand[0] == *name && strand[1] == *state));
        Ok(same.then_some(all))
    })
    .await
}

#[test]
fn the_window_shows_each_path_and_which_one_carries_and_sets_the_policy() -> Result<()> {
    in_lab(|lab| {
        let desktop = Desktop::start(lab)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let panel = Panel::start(desktop.bus_address()).await?;
            let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
            site.router.link("cafe", &site.client, "wlan0")?;
            site.router.address("cafe", &["10.77.2.1/24"])?;
            site.client.address("wlan0", &["10.77.2.2/24"])?;
            site.client.ip("route add default via 10.77.2.1 dev wlan0 metric 600")?;
            let credentials = Credentials::new(AuthKind::Psk)?;
            let offer = Offer::new(AuthKind::Psk);
            let _gateway = Gateway::start(GatewayKind::Reference, &site, &offer, &credentials)?;
            let client = Client::start(&site.client)?;
            client.import(&ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string()))?;

            let window = Window::open(&desktop, &site.lab.dir().join("client/run/helper.sock")).await?;
            window.wait_for_state("disconnected").await?;
            window.click("main-button").await?;
            window.wait_for_state("connected").await?;
            shows(&window, &[("eth0", "active"), ("wlan0", "standby")]).await?;
            panel
                .wait("a tray that counts", |tray| tray.entry("Connected: lab, 2 paths").is_some())
                .await?;

            // The numbers live: round trip, and what goes over it now.
            let pings = Pings::start(&site.client, Site::transfer_v4())?;
            eventually("numbers that move", PATIENCE, async || {
                let all = strands(&window).await?;
                let carries = all.iter().find(|strand| strand[1] == "active");
                Ok(carries.is_some_and(|strand| strand[2].contains("ms") && strand[2].contains("kB/s")).then_some(()))
            })
            .await?;
            window.screenshot(&desktop, "strands-1-failover").await?;

            // The choice of what they are for.
            window
                .script(
                    "const choice = document.querySelector('[data-testid=policy]'); choice.value = 'balance'; \
                     choice.dispatchEvent(new Event('change', { bubbles: true }))",
                )
                .await?;
            shows(&window, &[("eth0", "active"), ("wlan0", "active")]).await?;
            ensure!(client.status_at("/policy")? == "balance");
            client.cli(&["policy", "failover"])?.success()?;
            eventually("the choice to follow", PATIENCE, async || {
                let choice = window.script("return document.querySelector('[data-testid=policy]').value").await?;
                Ok((choice == "failover").then_some(()))
            })
            .await?;
            shows(&window, &[("eth0", "active"), ("wlan0", "standby")]).await?;

            // The cable is pulled.
            site.router.ip("link set home down")?;
            shows(&window, &[("wlan0", "active")]).await?;
            window.screenshot(&desktop, "strands-2-one-left").await?;
            ensure!(window.text("state").await? == "Connected");
            site.router.ip("link set home up")?;
            site.router.address("home", &["10.77.1.1/24"]).ok();
            site.client.ip("route replace default via 10.77.1.1 dev eth0").ok();
            shows(&window, &[("wlan0", "active"), ("eth0", "standby")]).await?;
            window.screenshot(&desktop, "strands-3-back").await?;
            pings.stop()?;
            window.click("main-button").await?;
            window.wait_for_state("disconnected").await?;
            window.close().await
        })
    })
}
