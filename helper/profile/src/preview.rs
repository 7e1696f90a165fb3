//! What a profile will do, in the few facts that a person decides on before saving it.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::model::{AddressSource, Method, Policy, Profile};
use crate::{Secrets, limits};

/// What a profile will do when it connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Preview {
    /// Name of the profile.
    pub name: String,
    /// Host names or addresses of the gateway.
    pub gateway: Vec<String>,
    /// What the gateway must prove.
    pub gateway_identity: String,
    /// True when the profile brings its own CA, false when the system's trust store decides.
    pub own_ca: bool,
    /// How the client logs in.
    pub method: Method,
    /// The user name, when the profile has one.
    pub user: Option<String>,
    /// The client's IKE identity, when the profile has one.
    pub identity: Option<String>,
    /// What will be asked for when connecting.
    pub asks_for: Vec<String>,
    /// Networks that go through the tunnel; empty: what the gateway grants.
    pub routes: Vec<String>,
    /// Networks that stay outside.
    pub exclude: Vec<String>,
    /// DNS servers; empty: the gateway's.
    pub dns_servers: Vec<String>,
    /// Domains of split DNS; empty: all names.
    pub dns_domains: Vec<String>,
    /// Where the inner address comes from.
    pub address_source: AddressSource,
    /// Blocks everything outside the tunnel.
    pub kill_switch: bool,
    /// Uses several paths when the gateway can.
    pub multipath: bool,
    /// What several paths are used for.
    pub policy: Policy,
    /// Why this version cannot connect with it, if it cannot.
    pub unsupported: Option<String>,
    /// Keys that have no effect in this version, one sentence each.
    pub without_effect: Vec<String>,
}

impl Preview {
    /// Sums up a profile; `secrets` are those known so far.
    #[must_use]
    pub fn of(profile: &Profile, secrets: &Secrets) -> Self {
        Self {
            name: profile.name.clone(),
            gateway: profile.gateway.addresses.clone(),
            gateway_identity: profile.gateway.expected_identity().to_owned(),
            own_ca: !profile.gateway.ca.is_empty(),
            method: profile.auth.method,
            user: profile.auth.user.clone(),
            identity: profile.auth.identity.clone(),
            asks_for: profile.missing(secrets).into_iter().map(str::to_owned).collect(),
            routes: profile.tunnel.routes.iter().map(ToString::to_string).collect(),
            exclude: profile.tunnel.exclude.iter().map(ToString::to_string).collect(),
            dns_servers: profile.dns.servers.iter().map(ToString::to_string).collect(),
            dns_domains: profile.dns.domains.clone(),
            address_source: profile.address.source,
            kill_switch: profile.tunnel.kill_switch,
            multipath: profile.paths.multipath,
            policy: profile.paths.policy,
            unsupported: limits::unsupported(profile).err().map(|error| error.to_string()),
            without_effect: limits::without_effect(profile),
        }
    }
}

impl Profile {
    /// What a login needs and neither the profile nor `secrets` has: `user`, `password`, `psk`,
    /// `certificate`, `private_key` or `pkcs12_password`.
    #[must_use]
    pub fn missing(&self, secrets: &Secrets) -> Vec<&'static str> {
        let mut missing = Vec::new();
        let method = self.auth.method;
        if method == Method::Psk && secrets.psk.is_none() {
            missing.push("psk");
        }
        if method.uses_password() {
            if self.auth.user.is_none() {
                missing.push("user");
            }
            if secrets.password.is_none() {
                missing.push("password");
            }
        }
        if method.uses_certificate() {
            match (&secrets.pkcs12, &secrets.pkcs12_password) {
                (Some(_), Some(_)) => {}
                (Some(_), None) => missing.push("pkcs12_password"),
                (None, _) => {
                    if self.auth.certificate.is_none() {
                        missing.push("certificate");
                    }
                    if secrets.private_key.is_none() {
                        missing.push("private_key");
                    }
                }
            }
        }
        missing
    }
}
