//! Bad and hostile networks: loss, reordering, forged answers, garbage between good datagrams.

use std::time::Duration;

use anyhow::{Result, ensure};
use ropewalk_e2e::{
    AuthKind, Client, Credentials, Gateway, GatewayKind, Offer, PATIENCE, ProfileText, in_lab,
};
use ropewalk_lab::{
    Conditions, Relay, Site, SiteOptions, download,
    site::{GATEWAY_V4, ROUTER_V4},
    upload,
};

/// Runs a body with a client whose gateway is reached through a relay on the router.
fn through_a_relay(
    kind: AuthKind,
    body: impl FnOnce(&Site, &Relay, &Client, &ProfileText, &Credentials) -> Result<()>,
) -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        let credentials = Credentials::new(kind)?;
        let _gateway = Gateway::start(GatewayKind::StrongSwan, &site, &Offer::new(kind), &credentials)?;
        let relay = Relay::start(&site.router, ROUTER_V4.into(), GATEWAY_V4.into(), &[500, 4500], 77)?;
        let client = Client::start(&site.client)?;
        let profile = ProfileText::new(kind, &credentials, &ROUTER_V4.to_string());
        body(&site, &relay, &client, &profile, &credentials)
    })
}

#[test]
fn loss_doubling_and_reordering_delay_a_login_but_do_not_break_it() -> Result<()> {
    through_a_relay(AuthKind::EapMschapv2, |site, relay, client, profile, credentials| {
        relay.set(Conditions {
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(40),
            loss: 0.2,
            duplicate: 0.3,
            ..Conditions::default()
        });
        client.import(profile)?;
        let finished = client.try_connect("lab", Some(&credentials.password), 60)?;
        ensure!(finished.code == 0, "{finished:?}");
        relay.set(Conditions { jitter: Duration::from_millis(3), loss: 0.002, ..Conditions::default() });
        upload(&site.client, Site::transfer_v4(), 1_000_000, Duration::from_secs(60))?;
        download(&site.client, Site::transfer_v4(), 1_000_000, Duration::from_secs(60))?;
        relay.set(Conditions::default());
        client.disconnect()
    })
}

#[test]
fn a_forged_error_ahead_of_the_true_answer_does_not_end_the_attempt() -> Result<()> {
    through_a_relay(AuthKind::Psk, |site, relay, client, profile, _| {
        relay.forge(Box::new(|request| forged_notify(request, 14))); // NO_PROPOSAL_CHOSEN
        client.connect(profile, None)?;
        ensure!(site.client.ping("10.77.50.2", 2)?);
        client.disconnect()
    })
}

#[test]
fn garbage_between_good_datagrams_is_ignored() -> Result<()> {
    through_a_relay(AuthKind::Psk, |site, relay, client, profile, _| {
        // Before each answer: the client's own datagram back to it, with its last octets turned.
        relay.forge(Box::new(|request| {
            let mut copy = request.to_vec();
            copy.iter_mut().rev().take(9).for_each(|octet| *octet ^= 0x5a);
            Some(copy)
        }));
        client.connect(profile, None)?;
        ensure!(site.client.ping("10.77.50.2", 2)?);
        upload(&site.client, Site::transfer_v4(), 500_000, PATIENCE)?;
        client.disconnect()
    })
}

#[test]
fn a_network_that_goes_dark_is_seen_and_the_connection_comes_back_with_it() -> Result<()> {
    through_a_relay(AuthKind::Psk, |site, relay, client, profile, _| {
        let mut profile = profile.clone();
        profile.timing = "dpd = 2\n".to_owned();
        client.connect(&profile, None)?;
        relay.set(Conditions { dark: true, ..Conditions::default() });
        client.wait_for_state("reconnecting", Duration::from_secs(90))?;
        relay.set(Conditions::default());
        client.wait_for_state("connected", Duration::from_secs(90))?;
        ensure!(site.client.ping("10.77.50.2", 3)?);
        client.disconnect()
    })
}

/// An IKE_SA_INIT response to `request` with one error notify, as anyone on the way could write it (RFC 7296 section 3.1 and
/// 3.10), when `request` is an IKE_SA_INIT request.
fn forged_notify(request: &[u8], notify: u16) -> Option<Vec<u8>> {
    const IKE_SA_INIT: u8 = 34;
    const RESPONSE: u8 = 0x20;
    if request.len() < 28 || request.get(18) != Some(&IKE_SA_INIT) {
        return None;
    }
    let mut answer = request.get(..28)?.to_vec();
    for octet in answer.get_mut(8..16)? {
        *octet = 0; // no responder SPI: no state was made
    }
    *answer.get_mut(16)? = 41; // next payload: Notify
    *answer.get_mut(19)? = RESPONSE;
    answer.get_mut(24..28)?.copy_from_slice(&36u32.to_be_bytes());
    answer.extend([0, 0, 0, 8, 0, 0]); // no next payload, length 8, no protocol, no SPI
    answer.extend(notify.to_be_bytes());
    Some(answer)
}
