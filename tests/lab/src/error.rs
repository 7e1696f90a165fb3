//! What can go wrong while a laboratory is built or used.

use std::{io, path::PathBuf, time::Duration};

/// Every failure of the laboratory names the step it happened in.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A program could not be started; it is most likely not installed.
    #[error("cannot start `{program}`: {source} (run `make setup`, and be root)")]
    Start {
        /// The program's name.
        program: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A program ended with a status other than zero.
    #[error("`{command}` failed with {status}: {output}")]
    Command {
        /// The whole command line.
        command: String,
        /// The exit status in words.
        status: String,
        /// What it printed.
        output: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {limit:?}{detail}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// What is known about why, such as the end of a log.
        detail: String,
    },
    /// A file or socket operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A certificate could not be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A key file did not hold what it should.
    #[error("{path}: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// What came back over the network is not what was sent.
    #[error("transfer: {0}")]
    Transfer(String),
}

/// Shorthand for results of this crate.
pub type Result<T, E = LabError> = std::result::Result<T, E>;

/// Adds to an I/O error what was being done.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| LabError::Io { what: what(), source })
    }
}
