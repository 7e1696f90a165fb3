//! A computer that sleeps: logind says so, and the helper stands still meanwhile.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ropewalk_e2e::{
    AuthKind, Client, ClientOptions, Credentials, Gateway, GatewayKind, Logind, Offer, PATIENCE, ProfileText,
    StateLog, in_lab,
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
