//! The user's secrets in the desktop's keyring (Secret Service, Keychain, Credential Manager): one entry per profile,
//! service [`SERVICE`], user name the profile's name, the value a JSON object of what a login is asked for.
//!
//! Nothing is stored unless the user said so, and everything here is optional: without a keyring, or with a locked
//! one, connecting works as before and the user is asked.

use std::time::Duration;

use ropewalk_ipc::Credentials;
use thiserror::Error;
use zeroize::Zeroizing;

/// The `service` attribute of our entries.
pub const SERVICE: &str = "ropewalk";

/// A locked keyring asks the user to unlock it, which takes as long as people do.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the keyring could not be used.
#[derive(Debug, Error)]
pub enum KeyringError {
    /// There is none, or it stays locked.
    #[error("the desktop's keyring is locked or not there")]
    NoAccess,
    /// It holds something that is not ours.
    #[error("the keyring's entry for this profile cannot be read")]
    Unreadable,
    /// Anything else it says.
    #[error("the desktop's keyring failed: {0}")]
    Other(String),
    /// It did not answer.
    #[error("the desktop's keyring did not answer")]
    Timeout,
}

impl From<::keyring::Error> for KeyringError {
    fn from(error: ::keyring::Error) -> Self {
        match error {
            ::keyring::Error::NoStorageAccess(_) | ::keyring::Error::NoDefaultStore => Self::NoAccess,
            ::keyring::Error::BadEncoding(_) => Self::Unreadable,
            // The crate's own enum may grow.
            other => Self::Other(other.to_string()),
        }
    }
}

/// True when there is a keyring to store something in.
pub async fn available() -> bool {
    off_thread(|| {
        let status = ::keyring::Entry::store_status();
        if let Err(error) = status {
            tracing::debug!(%error, "no keyring");
        }
        Ok(status.is_ok())
    })
    .await
    .unwrap_or(false)
}

/// What is stored for a profile.
///
/// # Errors
/// When the keyring cannot be read. Nothing stored is not an error.
pub async fn load(profile: &str) -> Result<Option<Credentials>, KeyringError> {
    let profile = profile.to_owned();
    off_thread(move || match ::keyring::Entry::new(SERVICE, &profile)?.get_password() {
        Ok(text) => {
            let text = Zeroizing::new(text);
            serde_json::from_str(&text).map(Some).map_err(|_| KeyringError::Unreadable)
        }
        Err(::keyring::Error::NoEntry) => Ok(None),
        Err(error) => Err(error.into()),
    })
    .await
}

/// Stores what a login needs.
///
/// # Errors
/// When the keyring cannot be written.
pub async fn store(profile: &str, credentials: Credentials) -> Result<(), KeyringError> {
    let profile = profile.to_owned();
    off_thread(move || {
        let text = serde_json::to_string(&credentials).map_err(|_| KeyringError::Unreadable)?;
        let text = Zeroizing::new(text);
        Ok(::keyring::Entry::new(SERVICE, &profile)?.set_password(&text)?)
    })
    .await
}

/// Forgets what is stored for a profile.
///
/// # Errors
/// When the keyring cannot be written. Nothing stored is not an error.
pub async fn forget(profile: &str) -> Result<(), KeyringError> {
    let profile = profile.to_owned();
    off_thread(move || match ::keyring::Entry::new(SERVICE, &profile)?.delete_credential() {
        Ok(()) | Err(::keyring::Error::NoEntry) => Ok(()),
        Err(error) => Err(error.into()),
    })
    .await
}

/// The keyring's calls block, so they get a thread of their own.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyringError> + Send + 'static,
) -> Result<T, KeyringError> {
    match tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(KeyringError::Other(error.to_string())),
        Err(_) => Err(KeyringError::Timeout),
    }
}
