//! Why a profile is refused: always with the key, the place, and what would be allowed.

use thiserror::Error;

/// A profile, or a file to import, that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProfileError {
    /// The text is not TOML (or JSON) at all.
    #[error("{}{message}", at(*.line))]
    Syntax {
        /// Line, counted from 1, when known.
        line: Option<usize>,
        /// What the parser says.
        message: String,
    },
    /// A key that is missing, unknown, of the wrong kind or outside of what is allowed.
    #[error("{}`{key}`: {problem}", at(*.line))]
    Key {
        /// Dotted path of the key, as written in the file.
        key: String,
        /// Line, counted from 1, when known.
        line: Option<usize>,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// The file is of a known kind that cannot be imported yet.
    #[error("{format}: this format is not supported yet")]
    UnsupportedFormat {
        /// Name of the format.
        format: String,
    },
    /// The file is of no known kind, or holds no IKEv2 connection.
    #[error("this is not a VPN profile: {found}")]
    NotAProfile {
        /// What was found instead.
        found: String,
    },
    /// The profile asks for something that this version does not do.
    #[error("`{key}`: {what} is not supported by this version")]
    Unsupported {
        /// Dotted path of the key.
        key: String,
        /// What is asked for.
        what: String,
    },
    /// The PKCS#12 bundle does not open with this password.
    #[error("the password of the PKCS#12 bundle is wrong")]
    WrongPassword,
    /// The PKCS#12 bundle needs a password that was not given.
    #[error("the PKCS#12 bundle needs a password")]
    PasswordNeeded,
    /// The PKCS#12 bundle is damaged or uses an algorithm that is not supported.
    #[error("the PKCS#12 bundle cannot be read: {reason}")]
    Bundle {
        /// What is unsupported or damaged.
        reason: String,
    },
}

impl ProfileError {
    /// A problem with one key.
    pub(crate) fn key(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Key { key: key.into(), line: None, problem: problem.into() }
    }
}

fn at(line: Option<usize>) -> String {
    line.map(|line| format!("line {line}: ")).unwrap_or_default()
}
