//! What the format knows and this version of the client does not do yet: one list, so that nothing is
//! accepted and then left undone in silence. An entry goes away with the feature that fulfils it.

use crate::ProfileError;
use crate::model::{Method, Profile};

/// One thing that the format can ask for.
pub(crate) struct Limit {
    /// Dotted path of the key.
    pub(crate) key: &'static str,
    /// What is asked for, as written in a profile.
    pub(crate) what: &'static str,
    asked: fn(&Profile) -> bool,
}

/// Without these the connection would be another one than the profile describes: refused.
pub(crate) const REFUSED: &[Limit] = &[
    Limit { key: "auth.method", what: "\"eap-tls\"", asked: |p| p.auth.method == Method::EapTls },
    Limit { key: "auth.method", what: "\"eap-ttls\"", asked: |p| p.auth.method == Method::EapTtls },
    Limit { key: "auth.method", what: "\"eap-peap\"", asked: |p| p.auth.method == Method::EapPeap },
    Limit { key: "auth.method", what: "\"eap-md5\"", asked: |p| p.auth.method == Method::EapMd5 },
    Limit { key: "tunnel.kill_switch", what: "true", asked: |p| p.tunnel.kill_switch },
];

/// Without these the connection is the same, only less well kept: told at import and in the preview.
pub(crate) const WITHOUT_EFFECT: &[Limit] = &[];

/// Checks whether this version does everything the profile asks for.
///
/// # Errors
/// Names the first key that asks for more.
pub fn unsupported(profile: &Profile) -> Result<(), ProfileError> {
    match REFUSED.iter().find(|limit| (limit.asked)(profile)) {
        None => Ok(()),
        Some(limit) => {
            Err(ProfileError::Unsupported { key: limit.key.to_owned(), what: limit.what.to_owned() })
        }
    }
}

/// Keys of the profile that have no effect in this version, one sentence each.
#[must_use]
pub fn without_effect(profile: &Profile) -> Vec<String> {
    WITHOUT_EFFECT
        .iter()
        .filter(|limit| (limit.asked)(profile))
        .map(|limit| format!("`{}` has no effect in this version", limit.key))
        .collect()
}
