//! What does not connect: each case ends with the contract's exit code and a plain sentence, within its time.

use std::time::Duration;

use anyhow::{Result, ensure};
use ropewalk_e2e::{
    AuthKind, BOTH, Client, Credentials, Gateway, GatewayKind, NetworkState, Offer, ProfileText, in_lab,
};
use ropewalk_lab::{
    Authority, KeyKind, Site, SiteOptions, Validity, answer_with,
    site::{GATEWAY_V4, NOBODY_V4},
};

/// Exit codes of the contract.
const AUTHENTICATION: i32 = 5;
const UNREACHABLE: i32 = 6;
const NO_PROPOSAL: i32 = 7;
const PROFILE: i32 = 8;

/// Limit for a refusal that the gateway states itself.
const STATED: Duration = Duration::from_secs(10);
/// Limit for giving up on what may be forged, or on silence.
const GIVEN_UP: Duration = Duration::from_secs(45);

/// Expects the same refusal from both gateways and a network as before.
fn refused(
    kind: AuthKind,
    change: impl Fn(&mut ProfileText, &mut Offer, &mut Credentials) -> Result<Option<String>>,
    code: i32,
    word: &str,
    limit: Duration,
) -> Result<()> {
    for which in BOTH {
        in_lab(|lab| {
            let site = Site::new(lab, SiteOptions::default())?;
            let mut credentials = Credentials::new(kind)?;
            let mut offer = Offer::new(kind);
            let mut profile = ProfileText::new(kind, &credentials, &GATEWAY_V4.to_string());
            let password = change(&mut profile, &mut offer, &mut credentials)?;
            let gateway = Gateway::start(which, &site, &offer, &credentials)?;
            let before = NetworkState::of(&site.client)?;
            let client = Client::start(&site.client)?;
            client.expect_refusal(&profile, password.as_deref(), code, word, limit)?;
            ensure!(gateway.sessions()? == 0, "{which:?} has a session");
            before.assert_restored(&site.client)
        })?;
    }
    Ok(())
}

#[test]
fn a_wrong_password_is_an_authentication_failure() -> Result<()> {
    let change =
        |_: &mut ProfileText, _: &mut Offer, _: &mut Credentials| Ok(Some("not the password".to_owned()));
    refused(AuthKind::EapMschapv2, change, AUTHENTICATION, "password", STATED)
}

#[test]
fn a_wrong_pre_shared_key_is_an_authentication_failure() -> Result<()> {
    let change = |profile: &mut ProfileText, _: &mut Offer, _: &mut Credentials| {
        profile.auth = profile.auth.replace("correct horse", "wrong horse");
        Ok(None)
    };
    refused(AuthKind::Psk, change, AUTHENTICATION, "refused", STATED)
}

#[test]
fn a_gateway_that_proves_another_name_is_refused() -> Result<()> {
    let change = |profile: &mut ProfileText, _: &mut Offer, credentials: &mut Credentials| {
        profile.identity = "other.gw.test".to_owned();
        Ok(Some(credentials.password.clone()))
    };
    refused(AuthKind::EapMschapv2, change, AUTHENTICATION, "", STATED)
}

#[test]
fn a_gateway_of_an_unknown_authority_is_refused() -> Result<()> {
    let change = |profile: &mut ProfileText, _: &mut Offer, credentials: &mut Credentials| {
        profile.ca = vec![Authority::root("Somebody Else", KeyKind::P256)?.certificate().to_owned()];
        Ok(Some(credentials.password.clone()))
    };
    refused(AuthKind::EapMschapv2, change, AUTHENTICATION, "certificate", STATED)
}

#[test]
fn a_gateway_with_an_expired_certificate_is_refused() -> Result<()> {
    let change = |profile: &mut ProfileText, _: &mut Offer, credentials: &mut Credentials| {
        *credentials =
            Credentials::with_gateway_certificate(AuthKind::Ecdsa, "ecdsa.gw.test", Validity::Expired)?;
        *profile = ProfileText::new(AuthKind::Ecdsa, credentials, &GATEWAY_V4.to_string());
        Ok(None)
    };
    refused(AuthKind::Ecdsa, change, AUTHENTICATION, "certificate", STATED)
}

#[test]
fn a_client_certificate_of_an_unknown_authority_is_an_authentication_failure() -> Result<()> {
    let change = |profile: &mut ProfileText, _: &mut Offer, credentials: &mut Credentials| {
        let stranger = Credentials::new(AuthKind::Ecdsa)?;
        *profile = ProfileText::new(AuthKind::Ecdsa, &stranger, &GATEWAY_V4.to_string());
        profile.ca = vec![credentials.root.clone()];
        Ok(None)
    };
    refused(AuthKind::Ecdsa, change, AUTHENTICATION, "", STATED)
}

#[test]
fn no_common_ike_proposal_is_reported_after_a_bounded_time() -> Result<()> {
    let change = |profile: &mut ProfileText, offer: &mut Offer, _: &mut Credentials| {
        profile.ike = Some("aes256gcm16-prfsha384-x25519".to_owned());
        offer.ike = Some("aes128-sha256-modp2048".to_owned());
        Ok(None)
    };
    refused(AuthKind::Psk, change, NO_PROPOSAL, "algorithms", GIVEN_UP)
}

#[test]
fn no_common_esp_proposal_is_reported() -> Result<()> {
    let change = |profile: &mut ProfileText, offer: &mut Offer, _: &mut Credentials| {
        profile.esp = Some("aes256gcm16".to_owned());
        offer.esp = Some("aes128-sha256".to_owned());
        Ok(None)
    };
    refused(AuthKind::Psk, change, NO_PROPOSAL, "algorithms", STATED)
}

#[test]
fn a_gateway_that_is_not_there_is_unreachable() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        let before = NetworkState::of(&site.client)?;
        let client = Client::start(&site.client)?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let profile = ProfileText::new(AuthKind::Psk, &credentials, &NOBODY_V4.to_string());
        client.expect_refusal(&profile, None, UNREACHABLE, "answer", GIVEN_UP)?;
        // The user's own limit counts too.
        let finished = client.try_connect("lab", None, 3)?;
        ensure!(finished.code == UNREACHABLE && finished.elapsed < Duration::from_secs(6), "{finished:?}");
        before.assert_restored(&site.client)
    })
}

#[test]
fn a_name_that_does_not_exist_is_unreachable() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        let _dns = ropewalk_lab::Dnsmasq::start_named(
            &site.router,
            "home",
            &ropewalk_lab::DnsmasqConfig::default(),
        )?;
        site.client.resolv_conf("nameserver 10.77.1.1\n")?;
        let client = Client::start(&site.client)?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let profile = ProfileText::new(AuthKind::Psk, &credentials, "nowhere.example.test");
        client.expect_refusal(&profile, None, UNREACHABLE, "nowhere.example.test", GIVEN_UP)
    })
}

#[test]
fn a_gateway_that_answers_garbage_is_unreachable() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        // Each request gets noise, its own bytes back, the same cut short, and the same with a false length.
        let _false = answer_with(&site.gateway, GATEWAY_V4.into(), &[500, 4500], |request| {
            let noise: Vec<u8> =
                (0..300u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
            let half = request.get(..request.len() / 2).unwrap_or_default().to_vec();
            let mut long = request.to_vec();
            for octet in long.iter_mut().skip(24).take(4) {
                *octet = 0xff;
            }
            vec![noise, request.to_vec(), half, long, Vec::new()]
        })?;
        let client = Client::start(&site.client)?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
        client.expect_refusal(&profile, None, UNREACHABLE, "answer", GIVEN_UP)
    })
}

#[test]
fn a_profile_with_an_unknown_key_is_refused_with_its_name() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        let client = Client::start(&site.client)?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
        profile.tunnel = "kill_swich = true\n".to_owned();
        let file = lab.dir().join("typo.toml");
        std::fs::write(&file, profile.text())?;
        let finished = client.cli(&["import", &file.display().to_string()])?;
        ensure!(finished.code == PROFILE, "{finished:?}");
        ensure!(finished.stderr.contains("kill_swich"), "{finished:?}");
        ensure!(!finished.stderr.contains("correct horse"), "a secret is printed");
        Ok(())
    })
}

#[test]
fn without_a_helper_the_command_line_says_how_to_get_one() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        let mut client = Client::start(&site.client)?;
        client.terminate_helper()?;
        let finished = client.cli(&["status"])?;
        ensure!(finished.code == 3 && finished.stderr.trim().lines().count() == 1, "{finished:?}");
        let finished = client.cli(&["connect"])?;
        ensure!(finished.code == 2, "usage: {finished:?}");
        Ok(())
    })
}

#[test]
fn strongswan_lets_nobody_in_with_an_unknown_identity() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let _gateway =
            Gateway::start(GatewayKind::StrongSwan, &site, &Offer::new(AuthKind::Psk), &credentials)?;
        let client = Client::start(&site.client)?;
        let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
        profile.auth = profile.auth.replace("alice@corp.test", "mallory@corp.test");
        client.expect_refusal(&profile, None, AUTHENTICATION, "", STATED)
    })
}
