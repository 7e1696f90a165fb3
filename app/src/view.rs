//! What the window's pages are told: one object, sent whole after every change, and the traffic once a second.
//!
//! The TypeScript types in `ui/src/lib/generated/app.ts` are made from these (those of the IPC, beside it, by its own
//! crate); the test at the end keeps them current.

use ropewalk_ipc::{CredentialField, CredentialReason, ErrorInfo, Preview, ProfileSummary, Status};
use serde::Serialize;
use ts_rs::TS;

/// Whether there is a helper to talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, TS)]
#[serde(rename_all = "kebab-case")]
pub enum Helper {
    /// Not known yet.
    #[default]
    Starting,
    /// It answers.
    Running,
    /// It does not answer.
    Absent,
    /// It refuses this user.
    Denied,
    /// It is of another version.
    OtherVersion,
}

/// Everything the window shows, but the traffic.
#[derive(Debug, Clone, PartialEq, Serialize, TS)]
pub struct AppView {
    /// Whether there is a helper to talk to.
    pub helper: Helper,
    /// Why there is none.
    pub helper_error: Option<ErrorInfo>,
    /// The profiles, in the helper's order.
    pub profiles: Vec<ProfileView>,
    /// The profile that the big button would connect.
    pub selected: Option<String>,
    /// The connection shown.
    pub status: Status,
    /// A question to the user.
    pub question: Option<QuestionView>,
    /// A profile about to be imported.
    pub import: Option<ImportView>,
    /// Something asked for that did not work.
    pub notice: Option<ErrorInfo>,
}

/// One profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct ProfileView {
    /// What the helper says of it.
    pub summary: ProfileSummary,
    /// True when the keyring holds its password.
    pub remembered: bool,
}

/// A question for credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct QuestionView {
    /// Number to answer with.
    #[ts(type = "number")]
    pub id: u64,
    /// Name of the profile.
    pub profile: String,
    /// What is asked for.
    pub fields: Vec<CredentialField>,
    /// Why.
    pub reason: CredentialReason,
    /// The user name known so far.
    pub user: Option<String>,
    /// True when there is a keyring to remember it in.
    pub can_remember: bool,
}

/// A profile about to be imported: what it will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, TS)]
pub struct ImportView {
    /// Changes with every file, so that the pages tell one from the next.
    pub number: u32,
    /// Name of the file, without its folder.
    pub file: String,
    /// What the file was read as.
    pub format: String,
    /// What the profile will do.
    pub preview: Preview,
    /// What nobody understands, and the like.
    pub warnings: Vec<String>,
}

/// Traffic of the connection shown.
#[derive(Debug, Clone, PartialEq, Serialize, TS)]
pub struct TrafficView {
    /// Name of the profile.
    pub profile: String,
    /// Octets received over the whole connection.
    #[ts(type = "number")]
    pub bytes_in: u64,
    /// Octets sent over the whole connection.
    #[ts(type = "number")]
    pub bytes_out: u64,
    /// Octets received in a second, of late.
    pub in_per_second: f64,
    /// Octets sent in a second, of late.
    pub out_per_second: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// With `ROPEWALK_UPDATE=1` in the environment the committed file is written anew.
    #[test]
    fn the_committed_typescript_types_are_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ui/src/lib/generated/app.ts");
        let expected = bindings();
        if std::env::var_os("ROPEWALK_UPDATE").is_some() {
            std::fs::write(&path, &expected).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(found, expected, "{} is stale: run this test with ROPEWALK_UPDATE=1", path.display());
    }

    fn bindings() -> String {
        let config = ts_rs::Config::new();
        let mut text = String::from(
            "// Written by app/src/view.rs from the Rust types. Do not edit.\n\nimport type {\n  CredentialField,\n  \
             CredentialReason,\n  ErrorInfo,\n  Preview,\n  ProfileSummary,\n  Status,\n} from \"./ipc\";\n",
        );
        macro_rules! declare {
            ($($type:ty),+ $(,)?) => {
                $( text.push_str(&format!("\nexport {}\n", <$type>::decl(&config))); )+
            };
        }
        declare!(Helper, AppView, ProfileView, QuestionView, ImportView, TrafficView);
        text
    }
}
