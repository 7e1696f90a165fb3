//! Errors as they cross the boundary: a stable code, one sentence, one hint.

use std::fmt;

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Kind of an error; each is one exit code of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// Anything that has no code of its own. Exit code 1.
    Failed,
    /// The command or request makes no sense. Exit code 2.
    Usage,
    /// The helper does not run or does not answer. Exit code 3.
    HelperUnreachable,
    /// The helper does not allow it. Exit code 4.
    NotAuthorised,
    /// One side could not prove who it is. Exit code 5.
    AuthFailed,
    /// The gateway does not answer, or not in time. Exit code 6.
    GatewayUnreachable,
    /// The gateway accepts none of the offered algorithms. Exit code 7.
    NoProposal,
    /// The profile is wrong or asks for what is not supported. Exit code 8.
    ProfileRefused,
}

impl ErrorCode {
    /// The exit code of the command line.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::HelperUnreachable => 3,
            Self::NotAuthorised => 4,
            Self::AuthFailed => 5,
            Self::GatewayUnreachable => 6,
            Self::NoProposal => 7,
            Self::ProfileRefused => 8,
        }
    }

    /// The code as written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::HelperUnreachable => "helper-unreachable",
            Self::NotAuthorised => "not-authorised",
            Self::AuthFailed => "auth-failed",
            Self::GatewayUnreachable => "gateway-unreachable",
            Self::NoProposal => "no-proposal",
            Self::ProfileRefused => "profile-refused",
        }
    }
}

/// An error for a person: what failed and why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ErrorInfo {
    /// Stable code.
    pub code: ErrorCode,
    /// What failed and why, one sentence of plain words.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl ErrorInfo {
    /// An error with its hint.
    pub fn new(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for ErrorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hint.is_empty() {
            write!(f, "{}", self.message)
        } else {
            write!(f, "{}; {}", self.message, self.hint)
        }
    }
}

impl std::error::Error for ErrorInfo {}
