//! strongSwan's profile for Android: UTF-8 JSON, MIME type `application/vnd.strongswan.profile`.

use crate::{Import, ProfileError};

/// Reads a `.sswan` file.
pub(crate) fn import(_text: &str) -> Result<Import, ProfileError> {
    Err(ProfileError::UnsupportedFormat { format: "strongSwan profile (.sswan)".to_owned() })
}
