//! From a profile to what the session needs.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use ropewalk_ike::auth::{ClientCertificate, TrustAnchors};
use ropewalk_ike::exchange::child::Mode;
use ropewalk_ike::exchange::config::{AddressRequest, GatewayIdentity, InitiatorConfig, LocalAuth};
use ropewalk_ike::exchange::lifetime::Lifetimes;
use ropewalk_ike::multi_point::group_sa::GroupPolicy;
use ropewalk_ike::proposal::{parse_esp_list, parse_ike_list};
use ropewalk_ike::wire::{Identification, TrafficSelector, TrafficSelectors};
use ropewalk_ipc::{ErrorCode, ErrorInfo};
use ropewalk_profile::{AddressSource, Method, Policy, Profile, Secrets, TunnelMode, UseMetered};
use ropewalk_session::{Endpoint, PathsConfig, SessionConfig};
use zeroize::Zeroizing;

use crate::clock;
use crate::engine::CredentialSource;

/// What the session needs to know of a profile.
///
/// # Errors
/// The profile names something that cannot be used, or lacks a secret that cannot be asked for.
pub fn session_config(
    profile: &Profile,
    secrets: &Secrets,
    credentials: &CredentialSource,
    log_keys: bool,
) -> Result<SessionConfig, ErrorInfo> {
    let auth = local_auth(profile, secrets)?;
    let local_id = local_identity(profile, &auth)?;
    let fixed: Vec<IpAddr> = match profile.address.source {
        AddressSource::Static => profile.address.fixed.iter().map(IpNet::addr).collect(),
        AddressSource::ConfigPayload | AddressSource::Dhcp => Vec::new(),
    };
    let (request, ts_i) = if profile.address.source == AddressSource::Dhcp {
        (AddressRequest::default(), vec![TrafficSelector::any_v4()])
    } else if fixed.is_empty() {
        let any = vec![TrafficSelector::any_v4(), TrafficSelector::any_v6()];
        (AddressRequest { ipv4: Some(None), ipv6: Some(None) }, any)
    } else {
        (AddressRequest::default(), fixed.into_iter().map(TrafficSelector::host).collect())
    };
    let initiator = InitiatorConfig {
        ike_proposals: parse_ike_list(&profile.crypto.ike).map_err(|error| refused("crypto.ike", &error))?,
        esp_proposals: parse_esp_list(&profile.crypto.esp).map_err(|error| refused("crypto.esp", &error))?,
        local_id,
        gateway: GatewayIdentity {
            expected: identification("gateway.identity", profile.gateway.expected_identity())?,
            announce: profile.gateway.identity.is_some(),
            trust_anchors: trust_anchors(profile)?,
        },
        auth,
        request,
        mode: match profile.tunnel.mode {
            TunnelMode::Tunnel => Mode::Tunnel,
            TunnelMode::IipTran => Mode::Transport,
        },
        ts_i: TrafficSelectors::new(ts_i),
        ts_r: TrafficSelectors::new(vec![TrafficSelector::any_v4(), TrafficSelector::any_v6()]),
        mobike: profile.paths.mobike,
        keep_old: multipath(profile).then_some(profile.paths.keep_old_ike_sa_notify),
        keep_old_in_auth: profile.paths.in_ike_auth && multipath(profile),
        // A user's name or a shared key may be in use on another machine, which the gateway would put out (RFC 7296
        // section 2.4); a certificate's key is taken for one machine's.
        multi_point_sa: profile
            .multi_point_sa
            .enabled
            .then_some(GroupPolicy { allow_sha1: profile.multi_point_sa.allow_sha1 }),
        initial_contact: profile.auth.method == Method::Certificate,
        redirected_from: None,
        // What is behind a NAT is of no use to the gateway, and the user's networks are nobody's business.
        own_addresses: None,
        dpd: (profile.timing.dpd > 0).then(|| Duration::from_secs(profile.timing.dpd.into())),
        lifetimes: lifetimes(profile),
        wall_clock: clock::wall(),
    };
    let gateways = profile.gateway.addresses.iter();
    let gateways = gateways.map(|host| Endpoint { host: host.clone(), port: profile.gateway.port });
    Ok(SessionConfig {
        gateways: gateways.collect(),
        identity_from_address: profile.auth.method == Method::Psk && profile.auth.identity.is_none(),
        initiator,
        dhcp: None,
        reauth: (profile.timing.reauth > 0).then(|| Duration::from_secs(profile.timing.reauth.into())),
        paths: paths(profile),
        can_ask: credentials.can_ask(),
        log_keys,
    })
}

/// A CHILD_SA in transport mode is bound to the addresses of one path.
fn multipath(profile: &Profile) -> bool {
    profile.paths.multipath && profile.tunnel.mode == TunnelMode::Tunnel
}

/// The IPv4 networks that the profile lets into the tunnel; none means all.
#[must_use]
pub fn allowed_v4(profile: &Profile) -> Vec<Ipv4Net> {
    let v4 = |route: &IpNet| if let IpNet::V4(v4) = route { Some(*v4) } else { None };
    profile.tunnel.routes.iter().filter_map(v4).collect()
}

fn paths(profile: &Profile) -> PathsConfig {
    let paths = &profile.paths;
    PathsConfig {
        multipath: multipath(profile),
        policy: policy(paths.policy),
        interfaces: paths.interfaces.clone(),
        use_metered: match paths.use_metered {
            UseMetered::Standby => ropewalk_session::UseMetered::Standby,
            UseMetered::Yes => ropewalk_session::UseMetered::Yes,
            UseMetered::No => ropewalk_session::UseMetered::No,
        },
        address_per_path: paths.address_per_path,
    }
}

/// What several paths are used for, as the session knows it.
pub fn policy(policy: Policy) -> ropewalk_session::Policy {
    match policy {
        Policy::Failover => ropewalk_session::Policy::Failover,
        Policy::Balance => ropewalk_session::Policy::Balance,
        Policy::Redundant => ropewalk_session::Policy::Redundant,
    }
}

fn lifetimes(profile: &Profile) -> Lifetimes {
    let timing = &profile.timing;
    let seconds = |seconds: u32| (seconds > 0).then(|| Duration::from_secs(seconds.into()));
    Lifetimes {
        ike: seconds(timing.ike_rekey),
        child: seconds(timing.child_rekey),
        child_octets: (timing.child_rekey_bytes > 0).then_some(timing.child_rekey_bytes),
    }
}

fn local_auth(profile: &Profile, secrets: &Secrets) -> Result<LocalAuth, ErrorInfo> {
    match profile.auth.method {
        Method::Psk => {
            let psk = secrets.psk_bytes().ok_or_else(|| missing("auth.psk"))?;
            Ok(LocalAuth::Psk(psk))
        }
        Method::Certificate => {
            let certificate =
                profile.auth.certificate.as_deref().ok_or_else(|| missing("auth.certificate"))?;
            let key = secrets.private_key.as_ref().ok_or_else(|| missing("auth.private_key"))?;
            let own = ClientCertificate::from_pem(certificate, key.expose())
                .map_err(|error| refused("auth.certificate", &error))?;
            own.check_validity(clock::wall()).map_err(|error| refused("auth.certificate", &error))?;
            Ok(LocalAuth::Certificate(Arc::new(own)))
        }
        Method::EapMschapv2 => {
            let user = profile.auth.user.clone().unwrap_or_default();
            let password = secrets.password.as_ref().map(|secret| secret.expose().to_owned());
            Ok(LocalAuth::EapMschapv2 {
                identity: profile.auth.identity.clone().unwrap_or_else(|| user.clone()),
                user,
                password: Zeroizing::new(password.unwrap_or_default()),
            })
        }
        Method::EapTls | Method::EapTtls | Method::EapPeap | Method::EapMd5 => Err(ErrorInfo::new(
            ErrorCode::ProfileRefused,
            format!("the login method {} is not supported yet", profile.auth.method.as_str()),
            "use psk, certificate or eap-mschapv2",
        )),
    }
}

fn local_identity(profile: &Profile, auth: &LocalAuth) -> Result<Identification, ErrorInfo> {
    if let Some(text) = &profile.auth.identity {
        return identification("auth.identity", text);
    }
    match auth {
        LocalAuth::Certificate(own) => Ok(Identification::distinguished_name(own.subject_der().to_vec())),
        LocalAuth::EapMschapv2 { user, .. } if !user.is_empty() => identification("auth.user", user),
        // Nobody's name: the gateway learns the user's from EAP.
        LocalAuth::EapMschapv2 { .. } => Ok(Identification::fqdn("ropewalk")),
        // Replaced by the address that the gateway is reached from, which is known when there is a path.
        LocalAuth::Psk(_) => Ok(Identification::address(Ipv4Addr::UNSPECIFIED.into())),
    }
}

fn identification(key: &str, text: &str) -> Result<Identification, ErrorInfo> {
    text.parse::<Identification>().map_err(|error| refused(key, &error))
}

fn trust_anchors(profile: &Profile) -> Result<TrustAnchors, ErrorInfo> {
    if profile.auth.method == Method::Psk && profile.gateway.ca.is_empty() {
        // The gateway proves itself by the key as well.
        return Ok(TrustAnchors::default());
    }
    if profile.gateway.ca.is_empty() {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "part of the system's trust store cannot be read");
        }
        return Ok(TrustAnchors::from_der_lenient(found.certs.into_iter().map(|cert| cert.to_vec())));
    }
    TrustAnchors::from_pem(&profile.gateway.ca.join("\n")).map_err(|error| refused("gateway.ca", &error))
}

fn refused(key: &str, error: &dyn std::fmt::Display) -> ErrorInfo {
    ErrorInfo::new(
        ErrorCode::ProfileRefused,
        format!("{key} in the profile cannot be used: {error}"),
        "correct the profile and import it again",
    )
}

fn missing(key: &str) -> ErrorInfo {
    ErrorInfo::new(
        ErrorCode::ProfileRefused,
        format!("the profile lacks {key}"),
        "add it to the profile and import it again",
    )
}
