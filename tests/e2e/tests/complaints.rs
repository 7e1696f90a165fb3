//! What users of VPN clients complain of most, provoked: each time the status says what is wrong, why, and what to change.
//!
//! Of the fifteen complaints these are the ones that have something to say. The others are about what must simply work, and
//! are shown where that is: DNS and split tunnels (4, 5, 13, 14) in `names_and_routes.rs` and `connect.rs`, sleep (6) in
//! `sleep.rs`, roaming and dead tunnels (7, 15) in `roaming.rs`, large messages and small paths (2, 3) in `large.rs`, blocked
//! UDP and login pages (15) in `networks.rs`. What only has an exit code to tell is in `refuse.rs`.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{
    AuthKind, BootClock, Childless, Client, ClientOptions, Credentials, Gateway, GatewayKind, Offer,
    PATIENCE, ProfileText, StateLog, in_lab,
};
use ropewalk_lab::{
    Authority, KeyKind, Lab, Site, SiteOptions, Validity,
    site::{GATEWAY_V4, SERVER_V4},
    until,
};
use serde_json::Value;

/// A gateway and a client with a profile for it, before anything is tried.
struct Case {
    client: Client,
    profile: ProfileText,
    site: Site,
    _gateway: Gateway,
}

impl Case {
    fn new(
        lab: &Lab,
        kind: AuthKind,
        credentials: &Credentials,
        change: impl FnOnce(&mut ProfileText, &mut Offer),
    ) -> Result<Self> {
        Self::with(GatewayKind::StrongSwan, lab, kind, credentials, change)
    }

    fn with(
        which: GatewayKind,
        lab: &Lab,
        kind: AuthKind,
        credentials: &Credentials,
        change: impl FnOnce(&mut ProfileText, &mut Offer),
    ) -> Result<Self> {
        Self::started(which, lab, (kind, credentials), ClientOptions::default(), change)
    }

    fn started(
        which: GatewayKind,
        lab: &Lab,
        (kind, credentials): (AuthKind, &Credentials),
        options: ClientOptions,
        change: impl FnOnce(&mut ProfileText, &mut Offer),
    ) -> Result<Self> {
        let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
        let mut offer = Offer::new(kind);
        let mut profile = ProfileText::new(kind, credentials, &GATEWAY_V4.to_string());
        change(&mut profile, &mut offer);
        let gateway = Gateway::start(which, &site, &offer, credentials)?;
        let client = Client::start_with(&site.client, options)?;
        Ok(Self { client, profile, site, _gateway: gateway })
    }

    /// Tries to connect and gives what the status says of the failure.
    fn failure(&self, password: Option<&str>) -> Result<Told> {
        self.client.import(&self.profile)?;
        let finished = self.client.try_connect(&self.profile.name, password, 45)?;
        ensure!(finished.code != 0, "it connected");
        ensure!(self.client.state()? == "failed", "the state is {}", self.client.state()?);
        let told = Told(self.client.status_at("/error")?);
        // What the command line printed is the same.
        ensure!(finished.stderr.contains(told.text("message")?), "{finished:?} is not {told:?}");
        Ok(told)
    }

    fn connects(&self) -> Result<()> {
        self.client.connect(&self.profile, None)?;
        ensure!(self.client.status_at("/error")? == Value::Null, "{:?}", self.client.status_at("/error")?);
        ensure!(self.site.client.ping(&SERVER_V4.to_string(), 2)?, "the tunnel carries nothing");
        Ok(())
    }
}

/// The error of a status.
#[derive(Debug)]
struct Told(Value);

impl Told {
    fn text(&self, key: &str) -> Result<&str> {
        self.0.get(key).and_then(Value::as_str).with_context(|| format!("no {key} in {}", self.0))
    }

    fn says(&self, code: &str, message: &[&str], hint: &[&str]) -> Result<()> {
        ensure!(self.text("code")? == code, "not {code}: {self:?}");
        for (key, words) in [("message", message), ("hint", hint)] {
            let text = self.text(key)?;
            for word in words {
                ensure!(text.contains(word), "{word:?} is not in the {key}: {self:?}");
            }
        }
        Ok(())
    }

    /// The proposal that the hint puts between quotation marks.
    fn suggestion(&self) -> Result<String> {
        let hint = self.text("hint")?;
        Ok(hint.split('"').nth(1).with_context(|| format!("nothing to copy in {hint:?}"))?.to_owned())
    }
}

#[test]
fn complaint_1_policy_match_error_names_both_sides_and_the_line_that_leads_in() -> Result<()> {
    in_lab(|lab| {
        let credentials = Credentials::new(AuthKind::Psk)?;
        let mut case = Case::new(lab, AuthKind::Psk, &credentials, |profile, offer| {
            profile.ike = Some("aes256gcm16-prfsha384-x25519".to_owned());
            offer.ike = Some("aes128-sha256-modp2048".to_owned());
        })?;
        let told = case.failure(None)?;
        let message =
            ["198.51.100.2", "aes256gcm16-prfsha384-x25519", "It would take aes128-sha256", "modp2048"];
        told.says("no-proposal", &message, &["ike = [\"aes128", "[crypto]", "administrator"])?;
        // Whoever does what it says is in.
        case.profile.ike = Some(told.suggestion()?);
        case.connects()
    })
}

#[test]
fn complaint_1_the_same_for_the_tunnels_own_algorithms() -> Result<()> {
    in_lab(|lab| {
        let credentials = Credentials::new(AuthKind::Psk)?;
        let case = Case::new(lab, AuthKind::Psk, &credentials, |profile, offer| {
            profile.esp = Some("aes256gcm16".to_owned());
            offer.esp = Some("aes128-sha256".to_owned());
        })?;
        case.failure(None)?.says("no-proposal", &["for the tunnel", "aes256gcm16"], &["crypto.esp"])
    })
}

#[test]
fn complaint_8_a_pfs_mismatch_is_told_at_connect_time_by_a_gateway_that_makes_the_tunnel_after_the_login()
-> Result<()> {
    // strongSwan allows IKE_AUTH without a CHILD_SA (RFC 6023), so the first one has a key exchange of its own already.
    in_lab(|lab| {
        let credentials = Credentials::new(AuthKind::Psk)?;
        let mut case = Case::new(lab, AuthKind::Psk, &credentials, |profile, offer| {
            profile.ike = Some("aes256gcm16-prfsha384-x25519".to_owned());
            profile.esp = Some("aes256gcm16".to_owned());
            offer.esp = Some("aes256gcm16-x25519".to_owned());
        })?;
        let told = case.failure(None)?;
        told.says("no-proposal", &["for the tunnel"], &["PFS", "esp = [\"aes256gcm16-x25519\"]"])?;
        case.profile.esp = Some(told.suggestion()?);
        case.connects()?;
        case.client.disconnect()
    })
}

#[test]
fn complaint_8_a_pfs_mismatch_that_shows_only_at_the_first_rekey_is_told_and_nothing_drops() -> Result<()> {
    in_lab(|lab| {
        let credentials = Credentials::new(AuthKind::Psk)?;
        let mut case = Case::new(lab, AuthKind::Psk, &credentials, |profile, offer| {
            profile.esp = Some("aes256gcm16".to_owned());
            profile.timing = "child_rekey = 10\n".to_owned();
            offer.esp = Some("aes256gcm16-x25519".to_owned());
            offer.childless = Childless::Never;
        })?;
        case.connects()?;
        let states = StateLog::watch(&case.client, "states")?;
        until("the mismatch to be told", PATIENCE, || {
            case.client.status_at("/error/code").is_ok_and(|code| code == "no-proposal").then_some(())
        })?;
        let told = Told(case.client.status_at("/error")?);
        let message = ["refuses to renew", "aes256gcm16", "logs in anew"];
        told.says("no-proposal", &message, &["PFS", "esp = [\"aes256gcm16-", "[crypto]"])?;
        ensure!(case.site.client.ping(&SERVER_V4.to_string(), 3)?, "the connection dropped");
        ensure!(states.states()? == ["connected"], "{:?}", states.states()?);
        case.client.disconnect()?;
        // Whoever does what it says has a connection that is renewed without a login.
        case.profile.esp = Some(told.suggestion()?);
        case.connects()?;
        let (ike, child) =
            (case.client.status_at("/ike/0/spi_i")?, case.client.status_at("/children/0/spi_in")?);
        until("a renewal", PATIENCE, || {
            case.client.status_at("/children/0/spi_in").is_ok_and(|now| now != child).then_some(())
        })?;
        ensure!(case.client.status_at("/ike/0/spi_i")? == ike, "another login");
        ensure!(case.client.status_at("/error")? == Value::Null);
        case.client.disconnect()
    })
}

#[test]
fn complaint_9_another_name_than_expected_is_told_with_both_names() -> Result<()> {
    for kind in [AuthKind::Psk, AuthKind::Ecdsa] {
        for which in [GatewayKind::Reference, GatewayKind::StrongSwan] {
            in_lab(|lab| {
                let credentials = Credentials::new(kind)?;
                let case = Case::with(which, lab, kind, &credentials, |profile, _| {
                    profile.identity = "vpn.other.test".to_owned();
                })?;
                let told = case.failure(None)?;
                match which {
                    GatewayKind::Reference => {
                        let names = ["vpn.other.test", kind.gateway_identity()];
                        told.says("auth-failed", &names, &["gateway.identity"])
                    }
                    // It refuses a name that is not its own before it tells its own.
                    GatewayKind::StrongSwan => {
                        told.says("auth-failed", &["refused our authentication"], &["identity asked for"])
                    }
                }
            })?;
        }
    }
    Ok(())
}

#[test]
fn complaint_9_a_certificate_for_another_name_is_told_with_both_names() -> Result<()> {
    in_lab(|lab| {
        let kind = AuthKind::Ecdsa;
        let credentials = Credentials::with_gateway_certificate(kind, "www.corp.test", Validity::Now)?;
        let case = Case::new(lab, kind, &credentials, |_, _| {})?;
        let told = case.failure(None)?;
        told.says("auth-failed", &["ecdsa.gw.test", "www.corp.test"], &["gateway.identity"])
    })
}

#[test]
fn complaint_9_a_certificate_out_of_its_time_is_told_with_its_date_and_the_clock_of_this_computer()
-> Result<()> {
    let year = std::process::Command::new("date").args(["-u", "+%Y-"]).output()?;
    let year = String::from_utf8(year.stdout)?.trim().to_owned();
    for (validity, word) in [(Validity::Expired, "expired on"), (Validity::NotYet, "not valid before")] {
        in_lab(|lab| {
            let kind = AuthKind::Ecdsa;
            let credentials = Credentials::with_gateway_certificate(kind, "ecdsa.gw.test", validity)?;
            let case = Case::new(lab, kind, &credentials, |_, _| {})?;
            let told = case.failure(None)?;
            told.says(
                "auth-failed",
                &[word, "the clock of this computer says"],
                &["clock", "administrator"],
            )?;
            let dates = told.text("message")?.matches(&year).count();
            ensure!(dates >= 1, "no date in {told:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn complaint_9_a_wrong_clock_of_this_computer_is_told_with_what_it_says() -> Result<()> {
    const YEAR: i64 = 365 * 24 * 3600;
    for (years, word) in [(-8, "not valid before"), (40, "expired on")] {
        in_lab(|lab| {
            let kind = AuthKind::EapMschapv2;
            let credentials = Credentials::new(kind)?;
            let options = ClientOptions {
                environment: BootClock::new(lab)?.wrong_by(years * YEAR),
                ..ClientOptions::default()
            };
            let case = Case::started(GatewayKind::StrongSwan, lab, (kind, &credentials), options, |_, _| {})?;
            let told = case.failure(credentials.password_for(kind))?;
            told.says("auth-failed", &[word, "the clock of this computer says"], &["clock"])?;
            // A clock before this program was made is known to be wrong; one that is ahead could be right.
            ensure!(told.text("hint")?.contains("is wrong: set it") == (years < 0), "{told:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn complaint_9_an_unknown_authority_is_named_with_the_key_that_would_trust_it() -> Result<()> {
    in_lab(|lab| {
        let kind = AuthKind::Ecdsa;
        let credentials = Credentials::new(kind)?;
        let other = Authority::root("Somebody Else", KeyKind::P256)?.certificate().to_owned();
        let case = Case::new(lab, kind, &credentials, |profile, _| profile.ca = vec![other])?;
        let told = case.failure(None)?;
        told.says("auth-failed", &["Corp", "not a CA that this profile trusts"], &["gateway.ca", "vouches"])
    })
}

#[test]
fn complaint_12_a_refused_login_is_the_users_to_mend_and_never_shows_the_password() -> Result<()> {
    in_lab(|lab| {
        let kind = AuthKind::EapMschapv2;
        let credentials = Credentials::new(kind)?;
        let case = Case::new(lab, kind, &credentials, |_, _| {})?;
        let told = case.failure(Some("Wr0ng-Passw0rd"))?;
        told.says("auth-failed", &["refused the user name or password"], &["again", "locked"])?;
        ensure!(!case.client.helper_log().contains("Wr0ng-Passw0rd"), "the password is in the log");
        Ok(())
    })
}

#[test]
fn complaint_12_another_way_to_log_in_than_this_client_has_is_named() -> Result<()> {
    in_lab(|lab| {
        let kind = AuthKind::EapMschapv2;
        let credentials = Credentials::new(kind)?;
        let case = Case::new(lab, kind, &credentials, |_, offer| offer.eap_method = "eap-md5")?;
        let told = case.failure(credentials.password_for(kind))?;
        told.says("auth-failed", &["wants", "EAP-MD5", "EAP-MSCHAPv2"], &["administrator", "certificate"])
    })
}

#[test]
fn complaint_15_an_idle_tunnel_outlives_a_nat_that_forgets_quickly() -> Result<()> {
    in_lab(|lab| {
        let credentials = Credentials::new(AuthKind::Psk)?;
        let case = Case::new(lab, AuthKind::Psk, &credentials, |profile, _| {
            profile.timing = "nat_keepalive = 5\ndpd = 300\n".to_owned();
        })?;
        for timeout in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
            case.site.router.sysctl(&format!("net.netfilter.{timeout}"), "8")?;
        }
        case.connects()?;
        let inner = case.client.status_at("/addresses/0")?;
        let inner = inner.as_str().and_then(|net| net.split('/').next()).context("an address")?.to_owned();
        thread::sleep(Duration::from_secs(17));
        // From the other side: only the NAT's memory leads there.
        ensure!(case.site.server.ping(&inner, 1)?, "the NAT has forgotten the client");
        ensure!(case.client.state()? == "connected");
        case.client.disconnect()
    })
}

#[test]
fn complaint_15_a_machine_without_a_gateway_is_told_from_silence() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let client = Client::start(&site.client)?;
        let profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
        client.import(&profile)?;
        client.try_connect("lab", None, 45)?;
        let told = Told(client.status_at("/error")?);
        told.says(
            "gateway-unreachable",
            &["is there, but no gateway answers"],
            &["gateway.address", "service"],
        )
    })
}
