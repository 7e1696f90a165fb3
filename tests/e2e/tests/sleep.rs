//! A computer that sleeps: logind says so, or the clocks alone, and the helper stands still meanwhile.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ropewalk_e2e::{
    AuthKind, BootClock, Client, ClientOptions, Credentials, Gateway, GatewayKind, Logind, Offer, PATIENCE,
    ProfileText, StateLog, in_lab,
};
use ropewalk_lab::{Lab, Site, SiteOptions, site::GATEWAY_V4, until};

struct Up {
    client: Client,
    gateway: Gateway,
    site: Site,
    logind: Logind,
    states: StateLog,
    spi: serde_json::Value,
}

fn up(lab: &Lab) -> Result<Up> {
    let logind = Logind::start(lab)?;
    let site = Site::new(lab, SiteOptions::default())?;
    let credentials = Credentials::new(AuthKind::Psk)?;
    let gateway = Gateway::start(GatewayKind::StrongSwan, &site, &Offer::new(AuthKind::Psk), &credentials)?;
    let options = ClientOptions { bus: Some(logind.bus()), ..ClientOptions::default() };
    let client = Client::start_with(&site.client, options)?;
    client.connect(&ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string()), None)?;
    let states = StateLog::watch(&client, "states")?;
    let spi = client.status_at("/ike/0/spi_i")?;
    ensure!(site.client.ping("10.77.50.2", 1)?, "ping before");
    Ok(Up { client, gateway, site, logind, states, spi })
}

impl Up {
    fn stop_and_go(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.client.helper_pid()?)?);
        kill(pid, signal).context("signal the helper")
    }

    /// Says that the computer is about to sleep, waits for the lock as logind does, and stops the helper.
    fn fall_asleep(&mut self) -> Result<()> {
        let (_, before) = self.logind.locks();
        self.logind.announce_sleep()?;
        until("the inhibitor lock", PATIENCE, || (self.logind.locks().1 > before).then_some(()))?;
        self.stop_and_go(Signal::SIGSTOP)
    }

    fn wake_up(&mut self) -> Result<()> {
        self.stop_and_go(Signal::SIGCONT)?;
        self.logind.announce_waking()
    }
}

#[test]
fn before_a_sleep_nothing_claims_to_be_connected_and_after_a_short_one_the_gateway_is_asked() -> Result<()> {
    in_lab(|lab| {
        let mut up = up(lab)?;
        ensure!(up.logind.locks() == (1, 0), "{:?}", up.logind.locks());
        up.fall_asleep()?;
        // What is shown while it sleeps was said before.
        up.states.reaches("reconnecting", "sleep", PATIENCE)?;
        thread::sleep(Duration::from_secs(3));
        up.wake_up()?;
        up.states.reaches("connected", "", Duration::from_secs(6))?;
        ensure!(up.client.status_at("/ike/0/spi_i")? == up.spi, "the connection still stands");
        ensure!(up.site.client.ping("10.77.50.2", 1)?, "ping after");
        ensure!(
            up.states.states()? == ["connected", "reconnecting", "connected"],
            "{:?}",
            up.states.states()?
        );
        until("the lock for the next sleep", PATIENCE, || (up.logind.locks().0 == 2).then_some(()))?;
        up.client.disconnect()
    })
}

#[test]
fn a_gateway_that_was_restarted_meanwhile_is_never_shown_as_connected() -> Result<()> {
    in_lab(|lab| {
        let mut up = up(lab)?;
        up.fall_asleep()?;
        up.gateway.restart()?;
        up.wake_up()?;
        up.states.reaches("connected", "", Duration::from_secs(20))?;
        ensure!(up.client.status_at("/ike/0/spi_i")? != up.spi, "the old IKE_SA is dead");
        // Once it slept, no status said "connected" with the IKE_SA that the gateway had forgotten.
        let all = up.states.all()?;
        let asleep = all.iter().position(|status| status["state"] == "reconnecting").context("it slept")?;
        let lie = |status: &serde_json::Value| {
            status["state"] == "connected" && status.pointer("/ike/0/spi_i") == Some(&up.spi)
        };
        ensure!(!all.iter().skip(asleep).any(lie), "connected while dead");
        ensure!(up.site.client.ping("10.77.50.2", 2)?, "ping after");
        up.client.disconnect()
    })
}

/// A connection whose helper sees a boot clock that can jump, and no logind.
struct Jumping {
    client: Client,
    gateway: Gateway,
    site: Site,
    clock: BootClock,
    states: StateLog,
    spi: serde_json::Value,
    inner: serde_json::Value,
}

impl Jumping {
    fn new(lab: &Lab) -> Result<Self> {
        let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let offer = Offer::new(AuthKind::Psk);
        let gateway = Gateway::start(GatewayKind::StrongSwan, &site, &offer, &credentials)?;
        let clock = BootClock::new(lab)?;
        let options = ClientOptions { environment: clock.environment(), ..ClientOptions::default() };
        let client = Client::start_with(&site.client, options)?;
        client.connect(&ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string()), None)?;
        let states = StateLog::watch(&client, "states")?;
        let (spi, inner) = (client.status_at("/ike/0/spi_i")?, client.status_at("/addresses")?);
        ensure!(site.client.ping("10.77.50.2", 1)?, "ping before");
        Ok(Self { client, gateway, site, clock, states, spi, inner })
    }

    /// The helper stands still; when it goes on, its clock is so far ahead. How many statuses were shown before.
    fn sleep(&mut self, by: Duration, meanwhile: impl FnOnce(&mut Gateway) -> Result<()>) -> Result<usize> {
        let pid = Pid::from_raw(i32::try_from(self.client.helper_pid()?)?);
        kill(pid, Signal::SIGSTOP).context("stop the helper")?;
        meanwhile(&mut self.gateway)?;
        self.clock.set_ahead(by)?;
        let before = self.states.all()?.len();
        kill(pid, Signal::SIGCONT).context("let the helper go on")?;
        until("the sleep to be noticed", PATIENCE, || {
            self.client.helper_log().contains("the computer woke up").then_some(())
        })?;
        Ok(before)
    }
}

#[test]
fn a_clock_that_jumps_by_a_short_sleep_leads_to_a_question_and_the_connection_stays() -> Result<()> {
    in_lab(|lab| {
        let mut up = Jumping::new(lab)?;
        up.sleep(Duration::from_secs(300), |_| Ok(()))?;
        up.states.reaches("connected", "", PATIENCE)?;
        ensure!(up.site.client.ping("10.77.50.2", 2)?, "ping after");
        ensure!(up.client.status_at("/ike/0/spi_i")? == up.spi, "another IKE_SA");
        up.client.disconnect()
    })
}

#[test]
fn a_clock_that_jumps_by_a_night_sets_up_anew_and_never_shows_the_old_connection() -> Result<()> {
    for restarted in [false, true] {
        in_lab(|lab| {
            let mut up = Jumping::new(lab)?;
            let before =
                up.sleep(
                    Duration::from_secs(8 * 3600),
                    |gateway| {
                        if restarted { gateway.restart() } else { Ok(()) }
                    },
                )?;
            until("another IKE_SA", PATIENCE, || {
                let spi = up.client.status_at("/ike/0/spi_i").ok()?;
                (spi != up.spi && up.client.state().ok()? == "connected").then_some(())
            })?;
            let old = |status: &serde_json::Value| {
                status["state"] == "connected" && status.pointer("/ike/0/spi_i") == Some(&up.spi)
            };
            let all = up.states.all()?;
            ensure!(!all.iter().skip(before).any(old), "connected with what died in the night");
            let said = all.iter().skip(before).find_map(|status| status.pointer("/error/message")?.as_str());
            ensure!(said.is_some_and(|said| said.contains("slept")), "{said:?}");
            ensure!(up.client.status_at("/addresses")? == up.inner, "another inner address");
            ensure!(up.site.client.ping("10.77.50.2", 2)?, "ping after");
            ensure!(up.gateway.sessions()? == 1, "the old IKE_SA is gone");
            up.client.disconnect()
        })?;
    }
    Ok(())
}
