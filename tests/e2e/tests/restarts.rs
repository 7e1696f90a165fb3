//! Hints in the clear that a gateway has forgotten the client (RFC 7296 sections 1.5 and 2.21.4): they speed up the question
//! whether it lives, and decide nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{
    AuthKind, Client, Credentials, Gateway, GatewayKind, Offer, PATIENCE, ProfileText, StateLog, in_lab,
};
use ropewalk_lab::{
    Lab, Relay, Site, SiteOptions,
    site::{GATEWAY_V4, ROUTER_V4, SERVER_V4},
};

/// Notify numbers (RFC 7296 section 3.10.1).
const INVALID_IKE_SPI: u16 = 4;
const INVALID_SPI: u16 = 11;
const RESPONSE: u8 = 0x20;
const INITIATOR: u8 = 0x08;

/// A gateway without a word for the client: quiet checks are far away.
const QUIET: &str = "dpd = 300\n";

/// An INFORMATIONAL message in the clear with one notify, as anybody can write it.
fn in_the_clear(spis: [u64; 2], flags: u8, notify: u16, data: &[u8]) -> Result<Vec<u8>> {
    let length = u16::try_from(8 + data.len())?;
    let mut message = Vec::new();
    message.extend(spis.iter().flat_map(|spi| spi.to_be_bytes()));
    message.extend([41, 0x20, 37, flags, 0, 0, 0, 0]);
    message.extend((28 + u32::from(length)).to_be_bytes());
    message.extend([0, 0]);
    message.extend(length.to_be_bytes());
    message.extend([0, 0]);
    message.extend(notify.to_be_bytes());
    message.extend(data);
    Ok(message)
}

#[test]
fn forged_hints_cost_one_question_and_change_nothing() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let gateway =
            Gateway::start(GatewayKind::StrongSwan, &site, &Offer::new(AuthKind::Psk), &credentials)?;
        let relay = Relay::start(&site.router, ROUTER_V4.into(), GATEWAY_V4.into(), &[500, 4500], 5)?;
        let client = Client::start(&site.client)?;
        let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &ROUTER_V4.to_string());
        profile.timing = QUIET.to_owned();
        client.connect(&profile, None)?;
        let hex = |pointer: &str| -> Result<u64> {
            let value = client.status_at(pointer)?;
            Ok(u64::from_str_radix(value.as_str().context("a string")?, 16)?)
        };
        let spis = [hex("/ike/0/spi_i")?, hex("/ike/0/spi_r")?];
        let esp = u32::try_from(hex("/children/0/spi_out")?)?.to_be_bytes();
        let marked = |message: Vec<u8>| [vec![0; 4], message].concat();
        let forged = [
            marked(in_the_clear(spis, RESPONSE, INVALID_IKE_SPI, &[])?),
            marked(in_the_clear([0, 0], INITIATOR, INVALID_SPI, &esp)?),
        ];
        let states = StateLog::watch(&client, "states")?;
        let (asked, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        // Every datagram of the client, the check's own included, is answered by a lie ahead of the truth.
        relay.forge(Box::new({
            let (asked, answered) = (Arc::clone(&asked), Arc::clone(&answered));
            move |datagram| {
                if datagram.get(..4) == Some(&[0; 4]) {
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                let number = answered.fetch_add(1, Ordering::Relaxed);
                forged.get(number % 2).cloned()
            }
        }));
        for _ in 0..8 {
            ensure!(site.client.ping(&SERVER_V4.to_string(), 3)?, "ping under forged hints");
            thread::sleep(Duration::from_millis(200));
        }
        let (asked, answered) = (asked.load(Ordering::Relaxed), answered.load(Ordering::Relaxed));
        ensure!(answered >= 24, "{answered} lies were told");
        ensure!((1..=3).contains(&asked), "one question in five seconds: {asked}");
        ensure!(states.states()? == ["connected"], "{:?}", states.states()?);
        ensure!(hex("/ike/0/spi_i")? == spis[0], "another IKE_SA");
        ensure!(gateway.sessions()? == 1);
        client.disconnect()
    })
}

/// Kills strongSwan under a quiet connection and starts it again; how long after that the state said so, and how long until
/// the connection was back. With `hint`, somebody says in the clear that the IKE_SA is unknown.
fn restarted(lab: &Lab, hint: bool) -> Result<(Duration, Duration)> {
    let site = Site::new(lab, SiteOptions { nat: false, v6: false, v4: true })?;
    let credentials = Credentials::new(AuthKind::Psk)?;
    let mut gateway =
        Gateway::start(GatewayKind::StrongSwan, &site, &Offer::new(AuthKind::Psk), &credentials)?;
    let client = Client::start(&site.client)?;
    let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
    profile.timing = QUIET.to_owned();
    client.connect(&profile, None)?;
    let spi = client.status_at("/ike/0/spi_i")?;
    let states = StateLog::watch(&client, "states")?;
    gateway.restart()?;
    let began = Instant::now();
    if !hint {
        // Nobody asks, nobody sends: nothing is known.
        thread::sleep(Duration::from_secs(6));
        ensure!(states.states()? == ["connected"], "{:?}", states.states()?);
        return Ok((began.elapsed(), began.elapsed()));
    }
    let number = |value: &serde_json::Value| -> Result<u64> {
        Ok(u64::from_str_radix(value.as_str().context("a string")?, 16)?)
    };
    let spis = [number(&spi)?, number(&client.status_at("/ike/0/spi_r")?)?];
    let local = client.status_at("/paths/0/local")?;
    let local: std::net::SocketAddr = local.as_str().context("a string")?.parse()?;
    let message = [vec![0; 4], in_the_clear(spis, RESPONSE, INVALID_IKE_SPI, &[])?].concat();
    // The router says it in the gateway's name.
    site.router.ip("addr add 198.51.100.2/32 dev lo")?;
    let liar = site.router.bind_udp((GATEWAY_V4, 4500).into())?;
    let sent = liar.send_to(&message, local);
    drop(liar);
    site.router.ip("addr del 198.51.100.2/32 dev lo")?;
    sent.context("say it")?;
    states.reaches("reconnecting", "", PATIENCE)?;
    let noticed = began.elapsed();
    states.reaches("connected", "", Duration::from_secs(40))?;
    ensure!(client.status_at("/ike/0/spi_i")? != spi, "the old IKE_SA is dead");
    ensure!(site.client.ping(&SERVER_V4.to_string(), 2)?, "ping after");
    let back = began.elapsed();
    client.disconnect()?;
    Ok((noticed, back))
}

#[test]
fn a_true_hint_after_a_restart_is_found_true_long_before_the_next_check() -> Result<()> {
    let mut with = (Duration::ZERO, Duration::ZERO);
    in_lab(|lab| {
        with = restarted(lab, true)?;
        Ok(())
    })?;
    eprintln!("with a hint noticed after {:?} and back after {:?}", with.0, with.1);
    ensure!(with.0 < Duration::from_secs(6), "{with:?}");
    in_lab(|lab| restarted(lab, false).map(|_| ()))
}
