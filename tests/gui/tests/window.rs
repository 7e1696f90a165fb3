//! The window, the tray and the keyring, with the real helper and the reference gateway, through NAT.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{AuthKind, Client, Credentials, Gateway, GatewayKind, Offer, ProfileText, in_lab};
use ropewalk_gui_tests::{Desktop, PATIENCE, Panel, Window, eventually};
use ropewalk_lab::{
    Lab, Site, SiteOptions,
    site::{GATEWAY_V4, SERVER_V4},
};

/// One window at a time: each starts several web processes, and what is slow here looks like what is broken.
static TURN: Mutex<()> = Mutex::new(());

/// A network with a gateway, and a helper in the client's namespace.
struct Vpn {
    client: Client,
    credentials: Credentials,
    profile: ProfileText,
    kind: AuthKind,
    _gateway: Gateway,
    site: Site,
}

impl Vpn {
    fn start(lab: &Lab, kind: AuthKind) -> Result<Self> {
        let site = Site::new(lab, SiteOptions::default())?;
        let credentials = Credentials::new(kind)?;
        // ROPEWALK_GUI_GATEWAY=strongswan asks a gateway that is not ours.
        let which = match std::env::var("ROPEWALK_GUI_GATEWAY").as_deref() {
            Ok("strongswan") => GatewayKind::StrongSwan,
            _ => GatewayKind::Reference,
        };
        let gateway = Gateway::start(which, &site, &Offer::new(kind), &credentials)?;
        let client = Client::start(&site.client)?;
        let profile = ProfileText::new(kind, &credentials, &GATEWAY_V4.to_string());
        Ok(Self { client, credentials, profile, kind, _gateway: gateway, site })
    }

    fn password(&self) -> Result<&str> {
        self.credentials.password_for(self.kind).context("this kind has no password")
    }

    fn socket(&self) -> PathBuf {
        self.site.lab.dir().join("client/run/helper.sock")
    }

    /// A ping from the client to the server behind the gateway.
    fn ping(&self) -> Result<bool> {
        Ok(self.site.client.ping(&SERVER_V4.to_string(), 1)?)
    }
}

/// Runs a test's body in a laboratory, on a desktop with a panel.
fn on_desktop(body: impl AsyncFnOnce(&Lab, Desktop, Panel) -> Result<()>) -> Result<()> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    in_lab(|lab| {
        let desktop = Desktop::start(lab)?;
        let window_log = desktop.path("window.log");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let result = runtime.block_on(async {
            let panel = Panel::start(desktop.bus_address()).await?;
            body(lab, desktop, panel).await
        });
        if result.is_err() {
            eprintln!("---- window.log\n{}", std::fs::read_to_string(window_log).unwrap_or_default());
        }
        result
    })
}

#[test]
fn a_click_brings_the_tunnel_up_and_a_second_click_ends_it() -> Result<()> {
    on_desktop(async |lab, desktop, panel| {
        let vpn = Vpn::start(lab, AuthKind::Psk)?;
        vpn.client.import(&vpn.profile)?;
        ensure!(!vpn.ping()?, "the server must not be reachable without a tunnel");

        let window = Window::open(&desktop, &vpn.socket()).await?;
        window.wait_for_state("disconnected").await?;
        let apart = panel.wait("a tray that says so", |tray| tray.label == "Ropewalk: Not connected").await?;
        ensure!(window.text("main-button").await? == "Connect");
        window.screenshot(&desktop, "1-not-connected").await?;

        window.click("main-button").await?;
        window.wait_for_state("connected").await?;
        ensure!(window.text("state").await? == "Connected");
        ensure!(window.text("main-button").await? == "Disconnect");
        ensure!(window.text("gateway").await? == GATEWAY_V4.to_string());
        let address = window.text("address").await?;
        ensure!(address.starts_with("10.77.99."), "the inner address is shown as {address:?}");
        ensure!(vpn.ping()?, "ping through the tunnel");
        ensure!(vpn.client.state()? == "connected", "the command line sees another state");

        let up = panel.wait("a tray that says so", |tray| tray.label == "Ropewalk: Connected").await?;
        ensure!(up.icon != apart.icon, "the icon is the same as when not connected");
        ensure!(up.entry("Connected: lab").is_some_and(|line| !line.enabled), "{:?}", up.menu);
        ensure!(up.entry("lab").is_some_and(|profile| profile.ticked), "{:?}", up.menu);
        for label in ["Disconnect", "Open Ropewalk", "Quit"] {
            ensure!(up.entry(label).is_some_and(|entry| entry.enabled), "no {label:?} in {:?}", up.menu);
        }

        for _ in 0..3 {
            ensure!(vpn.ping()?);
        }
        eventually("bytes counted in the window", PATIENCE, async || {
            let bytes = window.attribute("bytes-in", "data-bytes").await?.unwrap_or_default();
            Ok(bytes.parse::<u64>().is_ok_and(|bytes| bytes >= 84).then_some(()))
        })
        .await?;
        window.screenshot(&desktop, "2-connected").await?;

        window.click("main-button").await?;
        window.wait_for_state("disconnected").await?;
        ensure!(!vpn.ping()?, "the server answers after the end");
        panel.wait("a tray that says so", |tray| tray.icon == apart.icon).await?;
        window.close().await
    })
}

#[test]
fn the_tray_alone_is_enough_and_the_connection_outlives_the_window() -> Result<()> {
    on_desktop(async |lab, desktop, panel| {
        let vpn = Vpn::start(lab, AuthKind::Psk)?;
        vpn.client.import(&vpn.profile)?;
        let window = Window::open(&desktop, &vpn.socket()).await?;
        window.wait_for_state("disconnected").await?;

        panel.choose("Connect").await?;
        window.wait_for_state("connected").await?;
        ensure!(vpn.ping()?);
        panel.choose("Disconnect").await?;
        window.wait_for_state("disconnected").await?;

        // A profile's own entry connects to it.
        panel.choose("lab").await?;
        panel.wait("connected", |tray| tray.label == "Ropewalk: Connected").await?;
        ensure!(vpn.ping()?);

        panel.choose("Quit").await?;
        eventually("the tray item to go", PATIENCE, async || Ok(panel.item().await.is_err().then_some(())))
            .await?;
        ensure!(vpn.ping()?, "the connection ended with the window");
        ensure!(vpn.client.state()? == "connected");

        // A new window finds it.
        let window = Window::open(&desktop, &vpn.socket()).await?;
        window.wait_for_state("connected").await?;
        window.click("main-button").await?;
        window.wait_for_state("disconnected").await?;
        window.close().await
    })
}

#[test]
fn a_password_is_asked_for_and_remembered_only_when_the_user_says_so() -> Result<()> {
    on_desktop(async |lab, mut desktop, _panel| {
        desktop.unlock_keyring()?;
        let vpn = Vpn::start(lab, AuthKind::EapMschapv2)?;
        vpn.client.import(&vpn.profile)?;
        let window = Window::open(&desktop, &vpn.socket()).await?;
        window.wait_for_state("disconnected").await?;

        // Once without: nothing is stored.
        window.click("main-button").await?;
        ensure!(window.text("known-user").await? == vpn.credentials.user);
        window.type_into("password", vpn.password()?).await?;
        window.screenshot(&desktop, "3-password").await?;
        window.click("password-submit").await?;
        window.wait_for_state("connected").await?;
        ensure!(vpn.ping()?);
        ensure!(desktop.secret_of("lab")?.is_none(), "a password was stored that nobody asked to store");
        window.click("main-button").await?;
        window.wait_for_state("disconnected").await?;

        // Once with: it is in the keyring, and the next login asks nothing.
        window.click("main-button").await?;
        window.type_into("password", vpn.password()?).await?;
        window.click("remember").await?;
        window.click("password-submit").await?;
        window.wait_for_state("connected").await?;
        let stored = eventually("a stored password", PATIENCE, async || desktop.secret_of("lab")).await?;
        ensure!(stored.contains(vpn.password()?), "something else was stored");
        window.click("main-button").await?;
        window.wait_for_state("disconnected").await?;
        window.click("main-button").await?;
        window.wait_for_state("connected").await?;
        ensure!(!window.has("password-dialog").await?, "it was asked for although it is remembered");
        window.click("main-button").await?;
        window.wait_for_state("disconnected").await?;

        // And forgotten again.
        window.click("profile-menu").await?;
        window.click("profile-forget").await?;
        eventually("the keyring to forget", PATIENCE, async || {
            Ok(desktop.secret_of("lab")?.is_none().then_some(()))
        })
        .await?;
        window.close().await
    })
}

#[test]
fn a_wrong_password_is_a_failure_with_cause_and_what_to_do() -> Result<()> {
    on_desktop(async |lab, desktop, panel| {
        let vpn = Vpn::start(lab, AuthKind::EapMschapv2)?;
        vpn.client.import(&vpn.profile)?;
        let window = Window::open(&desktop, &vpn.socket()).await?;
        window.wait_for_state("disconnected").await?;
        window.click("main-button").await?;
        // There is no keyring on this desktop: then there is nothing to remember it in, and no error either.
        ensure!(
            !window.find("remember").await?.is_enabled().await?,
            "remembering is offered without a keyring"
        );
        window.type_into("password", "not the password").await?;
        window.click("password-submit").await?;
        // The helper may ask again first; giving up is the user's choice.
        eventually("a failure or another question", PATIENCE, async || {
            let failed = window.attribute("state", "data-state").await?.as_deref() == Some("failed");
            Ok((failed || window.has("password-again").await?).then_some(()))
        })
        .await?;
        if window.has("password-again").await? {
            window.screenshot(&desktop, "4-wrong-password").await?;
            window.click("password-cancel").await?;
        }
        panel.wait("a tray that says so", |tray| tray.label == "Ropewalk: Failed").await?;
        ensure!(!window.text("cause").await?.is_empty() && !window.text("hint").await?.is_empty());
        window.screenshot(&desktop, "5-failed").await?;
        ensure!(!vpn.ping()?);
        window.close().await
    })
}

#[test]
fn without_the_helper_the_window_says_how_to_start_it_and_goes_on_when_it_is_there() -> Result<()> {
    on_desktop(async |lab, desktop, panel| {
        let mut vpn = Vpn::start(lab, AuthKind::Psk)?;
        vpn.client.import(&vpn.profile)?;
        vpn.client.terminate_helper()?;
        let window = Window::open(&desktop, &vpn.socket()).await?;
        eventually("word of the missing helper", PATIENCE, async || {
            let helper = window.attribute("helper-notice", "data-helper").await?;
            Ok((helper.as_deref() == Some("absent")).then_some(()))
        })
        .await?;
        let notice = window.text("helper-notice").await?;
        ensure!(notice.contains("systemctl start ropewalk-helper"), "{notice}");
        panel.wait("a tray that says so", |tray| tray.label == "Ropewalk: Service not running").await?;
        window.screenshot(&desktop, "6-no-helper").await?;

        vpn.client.start_helper()?;
        window.wait_for_state("disconnected").await?;
        window.click("main-button").await?;
        window.wait_for_state("connected").await?;
        ensure!(vpn.ping()?);
        window.close().await
    })
}

#[test]
fn a_file_is_shown_before_it_is_saved() -> Result<()> {
    on_desktop(async |lab, desktop, _panel| {
        let vpn = Vpn::start(lab, AuthKind::Psk)?;
        let file = desktop.path("lab.toml");
        std::fs::write(&file, vpn.profile.text())?;
        // As a double click on the file does.
        let window = Window::open_with(&desktop, &vpn.socket(), &[&file.display().to_string()]).await?;
        ensure!(window.text("import-gateway").await? == GATEWAY_V4.to_string());
        ensure!(!window.words().await.contains(&vpn.credentials.psk), "the preview shows a secret");
        ensure!(
            !vpn.client.cli(&["profiles"])?.stdout.contains("lab"),
            "it was saved before it was looked at"
        );
        window.screenshot(&desktop, "7-preview").await?;
        window.click("import-save").await?;
        window.find("profile").await?;
        ensure!(vpn.client.cli(&["profiles"])?.stdout.contains("lab"));
        window.click("main-button").await?;
        window.wait_for_state("connected").await?;
        ensure!(vpn.ping()?);
        window.close().await
    })
}

#[test]
fn the_window_is_right_at_360_pixels_and_by_keyboard_alone() -> Result<()> {
    on_desktop(async |lab, desktop, _panel| {
        let vpn = Vpn::start(lab, AuthKind::Psk)?;
        vpn.client.import(&vpn.profile)?;
        let window = Window::open(&desktop, &vpn.socket()).await?;
        window.wait_for_state("disconnected").await?;
        // The button takes the Enter key like the mouse.
        window.type_into("main-button", "\u{e007}").await?;
        window.wait_for_state("connected").await?;
        ensure!(vpn.ping()?);

        window.click("settings").await?;
        window.click("theme-dark").await?;
        window.click("settings-close").await?;
        window.screenshot(&desktop, "8-dark").await?;
        window.resize(360, 700).await?;
        let stuck_out = eventually("a narrow window", PATIENCE, async || {
            let found = window
                .script(
                    "if (innerWidth > 360) return null; return [...document.querySelectorAll('body *')] \
                     .filter((e) => e.getBoundingClientRect().right > innerWidth + 1) \
                     .map((e) => e.tagName + '.' + e.className);",
                )
                .await?;
            Ok(found.as_array().cloned())
        })
        .await?;
        window.screenshot(&desktop, "9-narrow").await?;
        ensure!(stuck_out.is_empty(), "these stick out: {stuck_out:?}");
        window.close().await
    })
}

#[test]
fn closing_the_window_hides_it_and_the_tray_brings_it_back() -> Result<()> {
    on_desktop(async |_lab, desktop, panel| {
        let window = Window::open(&desktop, &desktop.path("nobody.sock")).await?;
        window.find("helper-notice").await?;
        let id =
            eventually("the window on the screen", PATIENCE, async || desktop.window_on_screen("Ropewalk"))
                .await?;
        desktop.ask_to_close(&id)?;
        eventually("the window to go", PATIENCE, async || {
            Ok(desktop.window_on_screen("Ropewalk")?.is_none().then_some(()))
        })
        .await?;
        panel.choose("Open Ropewalk").await?;
        eventually("the window to come back", PATIENCE, async || desktop.window_on_screen("Ropewalk"))
            .await?;
        window.find("helper-notice").await?;

        // Without a tray nothing could bring it back: then the program ends.
        panel.leave().await?;
        let id =
            eventually("the window on the screen", PATIENCE, async || desktop.window_on_screen("Ropewalk"))
                .await?;
        desktop.ask_to_close(&id)?;
        eventually("the program to end", PATIENCE, async || Ok(panel.item().await.is_err().then_some(())))
            .await?;
        Ok(())
    })
}
