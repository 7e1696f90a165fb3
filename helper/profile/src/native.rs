//! The native format: TOML, one file a profile (`version = 1`), and its JSON Schema.
//!
//! What is written in a file differs from [`Profile`] in two places: secrets may stand in `[auth]` (they come
//! apart as [`Secrets`]), and the gateway may have `address` or `addresses`.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};

use crate::model::{
    Address, Auth, Crypto, Dns, Gateway, Method, MultiPointSa, Paths, Profile, Timing, Tunnel,
};
use crate::{ProfileError, Secret, Secrets};

/// The only version of the format so far.
const VERSION: u32 = 1;

/// A profile and the secrets that stood in its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The profile.
    pub profile: Profile,
    /// The secrets that were in the same file.
    pub secrets: Secrets,
}

impl Profile {
    /// Reads and checks a native profile.
    ///
    /// # Errors
    /// Says which key is wrong, on which line, and what is allowed.
    pub fn from_toml(text: &str) -> Result<Parsed, ProfileError> {
        check_version(text)?;
        let file: ProfileFile = toml::from_str(text).map_err(|error| explain(text, &error))?;
        let parsed = file.into_parsed().map_err(|error| with_line(text, error))?;
        parsed.profile.check(&parsed.secrets).map_err(|error| with_line(text, error))?;
        Ok(parsed)
    }

    /// Writes the profile in the native format; there are no secrets in it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        // Serialising plain structs of strings, numbers and lists into TOML has no way to fail; if a later
        // field makes it fail, the reader sees the reason instead of half a profile.
        toml::to_string_pretty(&ProfileFile::from_profile(self))
            .unwrap_or_else(|error| format!("# {error}\n"))
    }
}

/// The JSON Schema of the native format, as pretty JSON (`docs/profile.schema.json`).
#[must_use]
pub fn json_schema() -> String {
    let schema = schemars::schema_for!(ProfileFile);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

/// The file as written. Comments here become the descriptions in the schema.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Ropewalk profile")]
pub(crate) struct ProfileFile {
    /// Version of the format; 1.
    #[schemars(range(min = 1, max = 1))]
    version: u32,
    /// Name that the user sees and that commands take.
    name: String,
    /// Who to connect to.
    gateway: GatewayFile,
    /// How the client proves who it is.
    auth: AuthFile,
    /// Which algorithms to offer, in the order of preference.
    #[serde(default)]
    crypto: Crypto,
    /// Where the inner address comes from.
    #[serde(default)]
    address: Address,
    /// What goes through the tunnel.
    #[serde(default)]
    tunnel: Tunnel,
    /// Who resolves names while connected.
    #[serde(default)]
    dns: Dns,
    /// Timers, in seconds; 0 turns one off.
    #[serde(default)]
    timing: Timing,
    /// Several interfaces in one connection.
    #[serde(default)]
    paths: Paths,
    /// Direct SAs to other endpoints.
    #[serde(default)]
    multi_point_sa: MultiPointSa,
}

/// `[gateway]` as written: either `address` or `addresses`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatewayFile {
    /// Host name or IP address of the gateway; this or `addresses` is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// Several host names or IP addresses of the same gateway, tried in this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<String>>,
    /// UDP port of the first message, 1 to 65535.
    #[serde(default = "ike_port")]
    #[schemars(range(min = 1))]
    port: u16,
    /// What the gateway's certificate must prove; default: the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    /// CA certificates, PEM; default: the system's trust store. With a shared key (`psk`): the gateway proves itself by certificate; default: by the key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ca: Vec<String>,
}

/// `[auth]` as written: with secrets, which import moves to the secret store.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuthFile {
    /// `psk`, `certificate`, `eap-mschapv2`, `eap-tls`, `eap-ttls`, `eap-peap` or `eap-md5`.
    method: Method,
    /// The client's IKE identity; default: the certificate's subject, else the user, else its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    /// The EAP user name; default: asked for when connecting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// The client's certificate, PEM, end entity first, then intermediates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    /// Secret: the pre-shared key, as text, or `0x` and hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    psk: Option<Secret>,
    /// Secret: the password of the EAP user; default: asked for when connecting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<Secret>,
    /// Secret: the certificate's private key, PEM, not encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    private_key: Option<Secret>,
    /// Secret: a PKCS#12 bundle, base64, with certificate and private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pkcs12: Option<Secret>,
    /// Secret: the password of `pkcs12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pkcs12_password: Option<Secret>,
}

fn ike_port() -> u16 {
    500
}

impl ProfileFile {
    fn into_parsed(self) -> Result<Parsed, ProfileError> {
        let addresses = match (self.gateway.address, self.gateway.addresses) {
            (Some(address), None) => vec![address],
            (None, Some(addresses)) => addresses,
            (None, None) => {
                return Err(ProfileError::key("gateway.address", "required: a host name or an IP address"));
            }
            (Some(_), Some(_)) => {
                return Err(ProfileError::key(
                    "gateway.addresses",
                    "write either `address` or `addresses`, not both",
                ));
            }
        };
        let profile = Profile {
            name: self.name,
            gateway: Gateway {
                addresses,
                port: self.gateway.port,
                identity: self.gateway.identity,
                ca: self.gateway.ca,
            },
            auth: Auth {
                method: self.auth.method,
                identity: self.auth.identity,
                user: self.auth.user,
                certificate: self.auth.certificate,
            },
            crypto: self.crypto,
            address: self.address,
            tunnel: self.tunnel,
            dns: self.dns,
            timing: self.timing,
            paths: self.paths,
            multi_point_sa: self.multi_point_sa,
        };
        let secrets = Secrets {
            psk: self.auth.psk,
            password: self.auth.password,
            private_key: self.auth.private_key,
            pkcs12: self.auth.pkcs12,
            pkcs12_password: self.auth.pkcs12_password,
        };
        Ok(Parsed { profile, secrets })
    }

    fn from_profile(profile: &Profile) -> Self {
        let (address, addresses) = match profile.gateway.addresses.as_slice() {
            [only] => (Some(only.clone()), None),
            several => (None, Some(several.to_vec())),
        };
        Self {
            version: VERSION,
            name: profile.name.clone(),
            gateway: GatewayFile {
                address,
                addresses,
                port: profile.gateway.port,
                identity: profile.gateway.identity.clone(),
                ca: profile.gateway.ca.clone(),
            },
            auth: AuthFile {
                method: profile.auth.method,
                identity: profile.auth.identity.clone(),
                user: profile.auth.user.clone(),
                certificate: profile.auth.certificate.clone(),
                psk: None,
                password: None,
                private_key: None,
                pkcs12: None,
                pkcs12_password: None,
            },
            crypto: profile.crypto.clone(),
            address: profile.address.clone(),
            tunnel: profile.tunnel.clone(),
            dns: profile.dns.clone(),
            timing: profile.timing.clone(),
            paths: profile.paths.clone(),
            multi_point_sa: profile.multi_point_sa.clone(),
        }
    }
}

/// A profile of a later version is told so before its new keys are called unknown.
fn check_version(text: &str) -> Result<(), ProfileError> {
    #[derive(Deserialize)]
    struct Version {
        version: Option<i64>,
    }
    let found: Version = toml::from_str(text).map_err(|error| explain(text, &error))?;
    match found.version {
        Some(version) if version == i64::from(VERSION) => Ok(()),
        Some(version) => Err(with_line(
            text,
            ProfileError::key(
                "version",
                format!("{version} is not known to this program; it reads version {VERSION}"),
            ),
        )),
        None => Err(ProfileError::key("version", format!("required: `version = {VERSION}`"))),
    }
}

/// Turns the parser's error into one that names the key and the line.
fn explain(text: &str, error: &toml::de::Error) -> ProfileError {
    let line = error.span().map(|span| line_of(text, span.start));
    let message = one_line(error.message());
    let key = error.span().and_then(|span| key_at(text, &span));
    let message = without_value(key.as_deref(), message);
    match key {
        Some(key) => ProfileError::Key { key, line, problem: message },
        None => ProfileError::Syntax { line, message },
    }
}

/// Adds the line of the key to an error found after parsing.
fn with_line(text: &str, error: ProfileError) -> ProfileError {
    match error {
        ProfileError::Key { key, line: None, problem } => {
            let line = DeTable::parse(text).ok().and_then(|table| find(table.get_ref(), &key));
            ProfileError::Key { line: line.map(|offset| line_of(text, offset)), key, problem }
        }
        other => other,
    }
}

/// Serde's words on a value of the wrong type repeat it, and it may be a secret that lacks its quotes.
fn without_value(key: Option<&str>, message: String) -> String {
    let may_be_secret = key.is_none_or(|key| key.starts_with("auth"));
    let expected = message.rsplit_once(", expected ").map(|(_, expected)| expected.to_owned());
    match expected.filter(|_| may_be_secret && message.starts_with("invalid ")) {
        Some(expected) => format!("must be {expected}; texts and numbers of a secret are written in quotes"),
        None => message,
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// Offset of the key with this dotted path, or of the innermost table on the way that exists.
fn find(table: &DeTable<'_>, path: &str) -> Option<usize> {
    let (head, rest) = path.split_once('.').map_or((path, None), |(head, rest)| (head, Some(rest)));
    let (key, value) = table.iter().find(|(key, _)| key.get_ref() == head)?;
    let here = key.span().start;
    match (rest, value.get_ref()) {
        (Some(rest), DeValue::Table(inner)) => Some(find(inner, rest).unwrap_or(here)),
        _ => Some(here),
    }
}

/// Dotted path of the innermost key whose name or value covers the span.
fn key_at(text: &str, span: &Range<usize>) -> Option<String> {
    fn walk(table: &DeTable<'_>, at: usize, path: &str) -> Option<String> {
        for (key, value) in table {
            let name =
                if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
            if let DeValue::Table(inner) = value.get_ref()
                && let Some(found) = walk(inner, at, &name)
            {
                return Some(found);
            }
            if key.span().contains(&at) || value.span().contains(&at) {
                return Some(name);
            }
        }
        None
    }
    let table = DeTable::parse(text).ok()?;
    walk(table.get_ref(), span.start, "")
}
