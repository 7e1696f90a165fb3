//! Profiles: what a user or an administrator says about one VPN connection.
//!
//! A profile is one TOML file ([`Profile::from_toml`]), described by a published JSON Schema
//! ([`json_schema`]). Foreign formats are turned into the same model by [`import`], which never drops
//! anything in silence: a known key that cannot be honoured is an error, an unknown one is a warning.
//!
//! [`Profile`] holds no secret. Pre-shared keys, passwords and private keys found in a file come apart as
//! [`Secrets`], which the caller puts into its secret store.

mod bundle;
mod error;
mod import;
mod json;
mod limits;
mod model;
mod native;
mod preview;
mod reference;
mod secret;
mod sswan;
mod validate;

pub use bundle::open_bundle;
pub use error::ProfileError;
pub use import::{Format, Import, detect, import};
pub use limits::{unsupported, without_effect};
pub use model::{
    Address, AddressSource, Auth, Crypto, Dns, Gateway, Method, MultiPointRoute, MultiPointSa, Paths, Policy,
    Profile, Timing, Tunnel, TunnelMode, UseMetered,
};
pub use native::{Parsed, json_schema};
pub use preview::Preview;
pub use reference::reference_markdown;
pub use secret::{Secret, Secrets};
pub use validate::{MAX_NAME_LENGTH, ProposalKind, check_name, check_proposal_tokens};
