//! What is said over the socket, in both directions.
//!
//! The first frame of each side is a `hello` ([`Hello`]); its shape never changes, so that programs of different
//! versions can tell each other apart. Everything else may change with [`PROTOCOL`].

use base64::Engine as _;
use ropewalk_profile::{Method, Policy, Secret};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ts_rs::TS;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{ErrorInfo, Status, Traffic};

/// Version of the protocol; both ends must have the same.
pub const PROTOCOL: u32 = 1;

/// The first frame of each side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the protocol, [`PROTOCOL`].
    pub protocol: u32,
    /// Name of the program, for messages.
    pub program: String,
    /// Version of the program, for messages.
    pub version: String,
}

impl Hello {
    /// The hello of a program of this version.
    pub fn of(program: impl Into<String>) -> Self {
        Self { protocol: PROTOCOL, program: program.into(), version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// From a client to the helper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ClientMessage {
    /// The first frame.
    Hello(Hello),
    /// A request; several may be under way at once.
    Request {
        /// Number chosen by the client; the reply carries it.
        id: u64,
        /// What is asked for.
        request: Request,
    },
    /// The answer to a [`CredentialRequest`].
    Credentials {
        /// The request's number.
        id: u64,
        /// The values; `None`: the user cancelled.
        credentials: Option<Credentials>,
    },
}

/// From the helper to a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ServerMessage {
    /// The first frame.
    Hello(Hello),
    /// The connection is refused or broken off; nothing follows.
    Refused {
        /// Why.
        error: ErrorInfo,
    },
    /// The answer to a request.
    Reply {
        /// The request's number.
        id: u64,
        /// What came of it.
        result: Result<Reply, ErrorInfo>,
    },
    /// A change of state; only after [`Request::Watch`].
    Status(Box<Status>),
    /// Counters; only after [`Request::Watch`].
    Traffic(Box<Traffic>),
    /// The helper needs credentials to go on; answered with [`ClientMessage::Credentials`].
    CredentialRequest(CredentialRequest),
}

/// What a client may ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Saves a profile; answered with [`Reply::Imported`].
    Import {
        /// The file's content, in any known format.
        data: Blob,
        /// A name other than the one in the file.
        name: Option<String>,
        /// For all users of the machine, not for the caller alone.
        system: bool,
    },
    /// Lists the profiles the caller may use; answered with [`Reply::Profiles`].
    Profiles,
    /// Shows one profile without secrets; answered with [`Reply::Profile`].
    Show {
        /// Its name.
        name: String,
    },
    /// Removes one profile and its secrets; answered with [`Reply::Done`].
    Remove {
        /// Its name.
        name: String,
    },
    /// Connects; answered with [`Reply::Status`] when connected, or when accepted with `wait_seconds` zero.
    Connect {
        /// Name of the profile.
        name: String,
        /// User name, in place of the profile's.
        user: Option<String>,
        /// Password, in place of a stored one.
        password: Option<Secret>,
        /// How long the attempt may take; when the time is over the attempt is ended. 0: do not wait.
        wait_seconds: u32,
    },
    /// Disconnects; answered with [`Reply::Disconnected`] when everything is undone.
    Disconnect {
        /// Name of the profile; `None`: all connections of the caller.
        name: Option<String>,
        /// How long to wait for the gateway's answer and the clean-up.
        wait_seconds: u32,
    },
    /// The paths of the caller's connections; answered with [`Reply::Paths`].
    Paths,
    /// Sets what several paths are used for; answered with [`Reply::Done`].
    SetPolicy {
        /// The policy.
        policy: Policy,
    },
    /// The state of one connection, or of all; answered with [`Reply::Statuses`].
    Status {
        /// Name of the profile; `None`: the caller's most important one.
        name: Option<String>,
        /// Every connection of the machine (others' without details).
        all: bool,
    },
    /// From now on, push states and counters; answered with [`Reply::Done`], then the present states.
    Watch,
    /// A diagnostics bundle without secrets; answered with [`Reply::Report`].
    Report,
}

/// What comes of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "kebab-case")]
pub enum Reply {
    /// It is done; there is nothing to tell.
    Done,
    /// A profile was saved.
    Imported(Imported),
    /// The profiles.
    Profiles(Vec<ProfileSummary>),
    /// One profile.
    Profile(Box<ProfileShown>),
    /// One state.
    Status(Box<Status>),
    /// Names of the profiles that were disconnected.
    Disconnected(Vec<String>),
    /// Paths of connections.
    Paths(Vec<ProfilePaths>),
    /// States.
    Statuses(Vec<Status>),
    /// The text of a diagnostics bundle.
    Report(String),
}

/// A profile that was saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Imported {
    /// Its name.
    pub name: String,
    /// True when a profile of this name was there before.
    pub replaced: bool,
    /// What the file says that nobody understands, and the like.
    pub warnings: Vec<String>,
}

/// Where a profile comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "kebab-case")]
pub enum ProfileSource {
    /// The user's own.
    User,
    /// For all users of this machine.
    System,
    /// Handed out by the administrator in the configuration folder; cannot be changed or removed here.
    Managed,
}

impl ProfileSource {
    /// The source as written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::System => "system",
            Self::Managed => "managed",
        }
    }
}

/// One line of the list of profiles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ProfileSummary {
    /// Its name.
    pub name: String,
    /// The gateway's first address.
    pub gateway: String,
    /// How it logs in.
    pub method: Method,
    /// Its user name, when it has one.
    pub user: Option<String>,
    /// Where it comes from.
    pub source: ProfileSource,
    /// What a connect would have to be told: `user`, `password`, `psk`, `certificate`, `private_key`.
    pub missing: Vec<String>,
    /// Why the profile cannot be used, if it cannot.
    pub error: Option<ErrorInfo>,
}

/// One profile, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ProfileShown {
    /// The line of the list.
    pub summary: ProfileSummary,
    /// What it will do.
    pub preview: ropewalk_profile::Preview,
    /// The whole profile in the native format.
    pub toml: String,
}

/// The paths of one connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct ProfilePaths {
    /// Name of the profile.
    pub profile: String,
    /// What several paths are used for.
    pub policy: Policy,
    /// The paths.
    pub paths: Vec<crate::PathStatus>,
}

/// The helper asks the client that started something for what is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct CredentialRequest {
    /// Number to answer with.
    #[ts(type = "number")]
    pub id: u64,
    /// Name of the profile.
    pub profile: String,
    /// What is needed.
    pub fields: Vec<CredentialField>,
    /// Why it is asked.
    pub reason: CredentialReason,
    /// The user name known so far.
    pub user: Option<String>,
}

/// Something only the user knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialField {
    /// The user's name.
    User,
    /// The user's password.
    Password,
    /// The pre-shared key.
    Psk,
    /// The password of a PKCS#12 bundle.
    Pkcs12Password,
}

/// Why credentials are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialReason {
    /// They are not known.
    Missing,
    /// What was given was wrong.
    Wrong,
    /// The gateway wants a new one (a one-time password, or an expired one).
    Expired,
}

/// What the user answered; only the fields asked for are read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// The user's name.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// The pre-shared key.
    pub psk: Option<Secret>,
    /// The password of a PKCS#12 bundle.
    pub pkcs12_password: Option<Secret>,
}

/// Octets in JSON (base64). A file may hold secrets, so they are wiped and never shown.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Blob(Vec<u8>);

impl Blob {
    /// Wraps octets.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({} octets)", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = zeroize::Zeroizing::new(String::deserialize(deserializer)?);
        base64::engine::general_purpose::STANDARD
            .decode(text.as_bytes())
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}
