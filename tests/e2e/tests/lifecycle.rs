//! How connections end and come back: disconnects from either side, a restarted gateway, a helper that ends or is killed.

use std::time::Duration;

use anyhow::{Result, ensure};
use ropewalk_e2e::{
    AuthKind, BOTH, Client, Credentials, Gateway, GatewayKind, NetworkState, Offer, PATIENCE, ProfileText,
    in_lab,
};
use ropewalk_lab::{
    Lab, Site, SiteOptions,
    site::{GATEWAY_V4, SERVER_V4},
    until,
};

/// A connection that stands.
struct Up {
    client: Client,
    gateway: Gateway,
    site: Site,
    before: NetworkState,
}

fn up(lab: &Lab, which: GatewayKind, kind: AuthKind, timing: &str) -> Result<Up> {
    let site = Site::new(lab, SiteOptions::default())?;
    let credentials = Credentials::new(kind)?;
    let gateway = Gateway::start(which, &site, &Offer::new(kind), &credentials)?;
    let before = NetworkState::of(&site.client)?;
    let client = Client::start(&site.client)?;
    let mut profile = ProfileText::new(kind, &credentials, &GATEWAY_V4.to_string());
    profile.timing = timing.to_owned();
    client.connect(&profile, credentials.password_for(kind))?;
    ensure!(site.client.ping("10.77.50.2", 1)?, "ping before");
    Ok(Up { client, gateway, site, before })
}

#[test]
fn the_clients_disconnect_is_told_to_the_gateway_and_leaves_nothing() -> Result<()> {
    for which in BOTH {
        in_lab(|lab| {
            let up = up(lab, which, AuthKind::Psk, "")?;
            up.client.disconnect()?;
            until("the gateway to forget the client", PATIENCE, || {
                up.gateway.sessions().is_ok_and(|sessions| sessions == 0).then_some(())
            })?;
            up.before.assert_restored(&up.site.client)?;
            // And once more, with the same helper.
            ensure!(up.client.try_connect("lab", None, 20)?.code == 0, "a second connection");
            ensure!(up.site.client.ping("10.77.50.2", 1)?, "ping over the second connection");
            up.client.disconnect()
        })?;
    }
    Ok(())
}

#[test]
fn the_gateways_disconnect_is_seen_and_the_connection_brought_back() -> Result<()> {
    for which in BOTH {
        in_lab(|lab| {
            let mut up = up(lab, which, AuthKind::Psk, "")?;
            let first = up.client.status_at("/ike/0/spi_i")?;
            up.gateway.disconnect_clients(AuthKind::Psk)?;
            until("another IKE_SA", Duration::from_secs(40), || {
                let now = up.client.status_at("/ike/0/spi_i").ok()?;
                (now != first && up.client.state().ok()? == "connected").then_some(())
            })?;
            ensure!(up.site.client.ping("10.77.50.2", 3)?, "ping over the connection that came back");
            up.client.disconnect()?;
            up.before.assert_restored(&up.site.client)
        })?;
    }
    Ok(())
}

#[test]
fn with_the_window_gone_and_the_gateway_restarted_an_eap_connection_comes_back_without_a_prompt() -> Result<()>
{
    for which in BOTH {
        in_lab(|lab| {
            let mut up = up(lab, which, AuthKind::EapMschapv2, "dpd = 2\n")?;
            // The one who could be asked for the password goes away.
            let mut watcher = up.client.cli_in_background(&["watch", "--json"], "watch")?;
            watcher.wait_for_log("connected", PATIENCE)?;
            watcher.kill()?;
            let first = up.client.status_at("/ike/0/spi_i")?;
            up.gateway.restart()?;
            until("the connection to come back", Duration::from_secs(90), || {
                let now = up.client.status_at("/ike/0/spi_i").ok()?;
                (now != first && up.client.state().ok()? == "connected").then_some(())
            })?;
            ensure!(up.site.client.ping("10.77.50.2", 3)?, "ping over the connection that came back");
            ensure!(up.gateway.sessions()? == 1);
            up.client.disconnect()?;
            up.before.assert_restored(&up.site.client)
        })?;
    }
    Ok(())
}

#[test]
fn a_helper_that_is_told_to_end_undoes_everything_and_tells_the_gateway() -> Result<()> {
    in_lab(|lab| {
        let mut up = up(lab, GatewayKind::StrongSwan, AuthKind::Psk, "")?;
        ensure!(up.client.terminate_helper()? == 0, "exit code");
        up.before.assert_restored(&up.site.client)?;
        until("the gateway to forget the client", PATIENCE, || {
            up.gateway.sessions().is_ok_and(|sessions| sessions == 0).then_some(())
        })?;
        Ok(())
    })
}

#[test]
fn what_a_killed_helper_left_is_swept_by_the_next() -> Result<()> {
    in_lab(|lab| {
        let mut up = up(lab, GatewayKind::StrongSwan, AuthKind::Psk, "")?;
        up.client.kill_helper()?;
        let left = NetworkState::of(&up.site.client)?;
        ensure!(left != up.before, "a kill leaves something, or this test proves nothing");
        up.client.start_helper()?;
        up.before.assert_restored(&up.site.client)?;
        ensure!(up.client.state()? == "disconnected");
        ensure!(up.client.try_connect("lab", None, 20)?.code == 0, "the profile is still there");
        ensure!(up.site.client.ping("10.77.50.2", 1)?, "ping after the sweep");
        up.client.disconnect()
    })
}

#[test]
fn closing_the_command_line_does_not_end_the_connection() -> Result<()> {
    in_lab(|lab| {
        let up = up(lab, GatewayKind::StrongSwan, AuthKind::Psk, "")?;
        let mut watchers = Vec::new();
        for number in 0..5 {
            watchers.push(up.client.cli_in_background(&["watch", "--json"], &format!("watch{number}"))?);
        }
        for watcher in &mut watchers {
            watcher.wait_for_log("connected", PATIENCE)?;
            watcher.kill()?;
        }
        ensure!(up.client.state()? == "connected");
        ensure!(up.site.client.ping(&SERVER_V4.to_string(), 1)?);
        up.client.disconnect()
    })
}

#[test]
fn a_connection_attempt_can_be_called_off() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        let before = NetworkState::of(&site.client)?;
        let client = Client::start(&site.client)?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        client.import(&ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string()))?;
        let mut attempt = client.cli_in_background(&["connect", "lab", "--wait", "60"], "attempt")?;
        client.wait_for_state("connecting", PATIENCE)?;
        client.disconnect()?;
        ensure!(attempt.wait(PATIENCE)? != 0, "the attempt did not succeed");
        before.assert_restored(&site.client)
    })
}

#[test]
fn secrets_and_state_are_for_root_only() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    in_lab(|lab| {
        let up = up(lab, GatewayKind::StrongSwan, AuthKind::Psk, "")?;
        let mode = std::fs::metadata(up.client.state_dir())?.permissions().mode() & 0o777;
        ensure!(mode == 0o700, "the state folder has mode {mode:o}");
        let mut folders = vec![up.client.state_dir()];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)?.flatten() {
                let mode = entry.metadata()?.permissions().mode() & 0o777;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else if entry.file_name() == "resolv.conf.original" {
                    // Everybody's to read where it comes from, and its mode is part of what is put back.
                } else {
                    files += 1;
                    ensure!(mode == 0o600, "{} has mode {mode:o}", entry.path().display());
                }
            }
        }
        ensure!(files > 0, "the profile is stored somewhere");
        ensure!(!up.client.helper_log().contains("correct horse"), "a secret is in the log");
        up.client.disconnect()
    })
}
