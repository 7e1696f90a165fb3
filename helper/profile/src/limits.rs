//! What the format knows and this version of the client does not do yet: one list, so that nothing is
//! accepted and then left undone in silence. An entry goes away with the feature that fulfils it.

use crate::ProfileError;
use crate::model::{AddressSource, Method, Policy, Profile, TunnelMode};

/// Checks whether this version does everything the profile asks for.
///
/// # Errors
/// Names the first key that asks for more.
pub fn unsupported(profile: &Profile) -> Result<(), ProfileError> {
    let refuse =
        |key: &str, what: &str| Err(ProfileError::Unsupported { key: key.to_owned(), what: what.to_owned() });
    match profile.auth.method {
        Method::Psk | Method::Certificate | Method::EapMschapv2 => {}
        method @ (Method::EapTls | Method::EapTtls | Method::EapPeap | Method::EapMd5) => {
            return refuse("auth.method", &format!("\"{}\"", method.as_str()));
        }
    }
    match profile.address.source {
        AddressSource::ConfigPayload | AddressSource::Static => {}
        AddressSource::Dhcp => return refuse("address.source", "\"dhcp\""),
    }
    match profile.tunnel.mode {
        TunnelMode::Tunnel => {}
        TunnelMode::IipTran => return refuse("tunnel.mode", "\"iiptran\""),
    }
    match profile.paths.policy {
        Policy::Failover => {}
        policy @ (Policy::Balance | Policy::Redundant) => {
            return refuse("paths.policy", &format!("\"{}\"", policy.as_str()));
        }
    }
    if profile.multi_point_sa.enabled {
        return refuse("multi_point_sa.enabled", "the multi-point SA");
    }
    Ok(())
}
