//! Gateways that send their clients elsewhere (RFC 5685), and a gateway that forgot them (RFC 6290): the built programs, and
//! two reference gateways, or strongSwan and one.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use ropewalk_e2e::{
    AuthKind, Client, Credentials, Gateway, GatewayKind, Offer, PATIENCE, ProfileText, Reference, SECOND_V4,
    StateLog, in_lab, second_gateway,
};
use ropewalk_lab::{
    Lab, Site, SiteOptions,
    site::{GATEWAY_V4, SERVER_V4},
    until,
};

/// Exit code for a failure that has none of its own.
const FAILED: i32 = 1;

/// Two gateways and a client that knows the first one only.
struct Pair {
    first: Reference,
    second: Reference,
    client: Client,
    profile: ProfileText,
    password: Option<String>,
    site: Site,
}

impl Pair {
    fn new(lab: &Lab, kind: AuthKind, first: &str, second: &str) -> Result<Self> {
        let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
        let namespace = second_gateway(&site)?;
        let credentials = Credentials::new(kind)?;
        let offer = |options: &str| Offer { options: options.to_owned(), ..Offer::new(kind) };
        let first = Reference::start(&site.gateway, &offer(first), &credentials)?;
        let second = Reference::start(&namespace, &offer(second), &credentials)?;
        let client = Client::start(&site.client)?;
        let profile = ProfileText::new(kind, &credentials, &GATEWAY_V4.to_string());
        let password = credentials.password_for(kind).map(str::to_owned);
        Ok(Self { first, second, client, profile, password, site })
    }

    fn connect(&self) -> Result<()> {
        self.client.connect(&self.profile, self.password.as_deref()).map(|_| ())
    }

    /// The state is "connected", the address shown is this gateway's, and packets go through it.
    fn stands_with(&self, gateway: std::net::Ipv4Addr) -> Result<()> {
        let address = || self.client.status_at("/gateway/address").is_ok_and(|at| at == gateway.to_string());
        let there =
            || (self.client.state().is_ok_and(|state| state == "connected") && address()).then_some(());
        until(&format!("a connection with {gateway}"), PATIENCE, there)?;
        ensure!(self.site.client.ping(&SERVER_V4.to_string(), 2)?, "the tunnel to {gateway} carries nothing");
        Ok(())
    }

    fn sessions(&self) -> Result<(usize, usize)> {
        Ok((self.first.sessions()?, self.second.sessions()?))
    }
}

fn redirect(at: &str, to: std::net::Ipv4Addr) -> String {
    format!("redirect = {{ at = \"{at}\", to = \"{to}\" }}\n")
}

#[test]
fn a_redirect_in_ike_sa_init_or_ike_auth_leads_to_the_other_gateway() -> Result<()> {
    for (at, kind) in [("init", AuthKind::Psk), ("auth", AuthKind::EapMschapv2)] {
        in_lab(|lab| {
            let pair = Pair::new(lab, kind, &redirect(at, SECOND_V4), "")?;
            pair.connect()?;
            pair.stands_with(SECOND_V4)?;
            ensure!(pair.sessions()? == (0, 1), "{at}: {:?}", pair.sessions()?);
            pair.client.disconnect()?;
            ensure!(pair.sessions()? == (0, 0), "{at}: {:?}", pair.sessions()?);
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn gateways_that_send_clients_to_each_other_are_given_up_and_named() -> Result<()> {
    in_lab(|lab| {
        let (there, back) = (redirect("init", SECOND_V4), redirect("init", GATEWAY_V4));
        let pair = Pair::new(lab, AuthKind::Psk, &there, &back)?;
        pair.client.expect_refusal(&pair.profile, None, FAILED, "to each other", Duration::from_secs(20))?;
        let followed = pair.client.helper_log().matches("the gateway sends us to another one").count();
        ensure!(followed == 5, "five redirections are followed, not {followed}");
        Ok(())
    })
}

#[test]
fn a_connected_client_follows_a_redirect_says_so_and_does_not_go_round_in_circles() -> Result<()> {
    in_lab(|lab| {
        let pair = Pair::new(lab, AuthKind::Psk, "", "")?;
        pair.connect()?;
        pair.stands_with(GATEWAY_V4)?;
        let states = StateLog::watch(&pair.client, "states")?;
        for round in 0..5 {
            let (from, to) =
                if round % 2 == 0 { (&pair.first, SECOND_V4) } else { (&pair.second, GATEWAY_V4) };
            let answer = from.control(&format!("redirect {to}"))?;
            ensure!(answer["redirected"] == 1, "{answer}");
            pair.stands_with(to)?;
        }
        ensure!(pair.sessions()? == (0, 1), "{:?}", pair.sessions()?);
        let changing = states.all()?.into_iter().find(|status| status["state"] == "reconnecting");
        let said = changing.and_then(|status| Some(status.pointer("/error/message")?.to_string()));
        ensure!(said.as_ref().is_some_and(|said| said.contains(&SECOND_V4.to_string())), "{said:?}");
        // RFC 5685 section 7: enough is enough.
        let spi = pair.client.status_at("/ike/0/spi_i")?;
        pair.second.control(&format!("redirect {GATEWAY_V4}"))?;
        until("the refusal to follow", PATIENCE, || {
            pair.client.helper_log().contains("to each other without end").then_some(())
        })?;
        pair.stands_with(SECOND_V4)?;
        ensure!(pair.client.status_at("/ike/0/spi_i")? == spi, "the connection was given up");
        pair.client.disconnect()
    })
}

#[test]
fn strongswan_sends_a_connected_client_to_another_gateway() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
        let namespace = second_gateway(&site)?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let offer = Offer::new(AuthKind::Psk);
        let first = Gateway::start(GatewayKind::StrongSwan, &site, &offer, &credentials)?;
        let second = Reference::start(&namespace, &offer, &credentials)?;
        let Gateway::StrongSwan(swan) = &first else { bail!("that is not strongSwan") };
        let client = Client::start(&site.client)?;
        client.connect(&ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string()), None)?;
        ensure!(client.status_at("/gateway/address")? == GATEWAY_V4.to_string());
        ensure!(second.sessions()? == 0);
        let told = ["--redirect", "--ike", "psk", "--gateway", &SECOND_V4.to_string()];
        let began = Instant::now();
        swan.control(&told, PATIENCE)?.success()?;
        until("a connection with the other gateway", PATIENCE, || {
            let there = client.status_at("/gateway/address").ok()? == SECOND_V4.to_string();
            (there && client.state().ok()? == "connected").then_some(())
        })?;
        println!("followed strongSwan's redirect in {:?}", began.elapsed());
        ensure!(site.client.ping(&SERVER_V4.to_string(), 2)?, "the tunnel carries nothing");
        ensure!(second.sessions()? == 1);
        until("strongSwan to be rid of it", PATIENCE, || {
            (!swan.list_sas().ok()?.contains("ESTABLISHED")).then_some(())
        })?;
        client.disconnect()
    })
}

/// Kills and restarts the gateway under a connection; how long after its return the client saw that it is gone, and how long
/// until the connection was back.
fn restarted(lab: &Lab, options: &str) -> Result<(Duration, Duration)> {
    let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
    let credentials = Credentials::new(AuthKind::Psk)?;
    let offer = Offer { options: options.to_owned(), ..Offer::new(AuthKind::Psk) };
    let mut gateway = Reference::start(&site.gateway, &offer, &credentials)?;
    let client = Client::start(&site.client)?;
    client.connect(&ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string()), None)?;
    let (spi, inner) = (client.status_at("/ike/0/spi_i")?, client.status_at("/addresses")?);
    let states = StateLog::watch(&client, "states")?;
    gateway.restart()?;
    let began = Instant::now();
    // One packet shows the gateway's new self that somebody believes in the old one.
    let _ping = site.client.spawn("ping", &["-c", "1", &SERVER_V4.to_string()], "ping")?;
    let so_far = |states: &StateLog, count| {
        until("the next state", PATIENCE, || (states.states().ok()?.len() >= count).then_some(()))
    };
    so_far(&states, 2)?;
    let noticed = began.elapsed();
    so_far(&states, 3)?;
    let back = began.elapsed();
    ensure!(client.status_at("/ike/0/spi_i")? != spi, "the old IKE_SA is dead");
    ensure!(client.status_at("/addresses")? == inner, "another inner address");
    ensure!(site.client.ping(&SERVER_V4.to_string(), 2)?, "ping after");
    ensure!(states.states()? == ["connected", "reconnecting", "connected"], "{:?}", states.states()?);
    let all = states.all()?;
    let gone = all.iter().position(|status| status["state"] == "reconnecting").unwrap_or_default();
    let lie = all
        .iter()
        .skip(gone)
        .find(|status| status["state"] == "connected" && status.pointer("/ike/0/spi_i") == Some(&spi));
    ensure!(lie.is_none(), "connected while dead: {lie:?}");
    client.disconnect()?;
    Ok((noticed, back))
}

#[test]
fn a_restarted_gateway_with_crash_tokens_is_noticed_at_once_and_connected_to_again() -> Result<()> {
    let token = "crash_secret = \"kept over restarts\"\n";
    let mut with = (Duration::ZERO, Duration::ZERO);
    in_lab(|lab| {
        with = restarted(lab, token)?;
        Ok(())
    })?;
    let mut without = (Duration::ZERO, Duration::ZERO);
    in_lab(|lab| {
        without = restarted(lab, "")?;
        Ok(())
    })?;
    eprintln!("noticed and back: with tokens {with:?}, without {without:?}");
    ensure!(with.0 * 2 < without.0, "noticed: with tokens {with:?}, without {without:?}");
    ensure!(with.1 * 4 < without.1, "back: with tokens {with:?}, without {without:?}");
    Ok(())
}
