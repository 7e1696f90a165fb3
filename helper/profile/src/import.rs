//! The way of a foreign file into a profile: first what it is, then the importer of that format.

use crate::limits::without_effect;
use crate::{Profile, ProfileError, Secrets, sswan};

/// A file's format, as found by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The native TOML.
    Native,
    /// strongSwan's JSON for Android (`.sswan`).
    Sswan,
    /// Apple's configuration profile (`.mobileconfig`), plain, binary or signed.
    Mobileconfig,
    /// Windows' ProfileXML.
    ProfileXml,
    /// NetworkManager's keyfile.
    NetworkManager,
}

/// What came out of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// What the file was.
    pub format: Format,
    /// The profile, checked.
    pub profile: Profile,
    /// The secrets that were in the file.
    pub secrets: Secrets,
    /// Keys that nobody knows, and the like: to be shown before saving.
    pub warnings: Vec<String>,
}

/// Reads a profile in any known format.
///
/// # Errors
/// Names the key and the place; a file of no known format says what was found instead.
pub fn import(data: &[u8]) -> Result<Import, ProfileError> {
    let mut import = read(data)?;
    import.warnings.extend(without_effect(&import.profile));
    Ok(import)
}

fn read(data: &[u8]) -> Result<Import, ProfileError> {
    match detect(data)? {
        Format::Native => {
            let text = text_of(data)?;
            let parsed = Profile::from_toml(text)?;
            Ok(Import {
                format: Format::Native,
                profile: parsed.profile,
                secrets: parsed.secrets,
                warnings: Vec::new(),
            })
        }
        Format::Sswan => sswan::import(text_of(data)?),
        Format::Mobileconfig => unsupported("Apple configuration profile (.mobileconfig)"),
        Format::ProfileXml => unsupported("Windows ProfileXML"),
        Format::NetworkManager => unsupported("NetworkManager keyfile"),
    }
}

/// Finds out what a file is by looking at its content; the file's name plays no part.
///
/// # Errors
/// Says what was found when it is of no known format.
pub fn detect(data: &[u8]) -> Result<Format, ProfileError> {
    if data.is_empty() {
        return Err(ProfileError::NotAProfile { found: "the file is empty".to_owned() });
    }
    if data.starts_with(b"bplist") {
        return Ok(Format::Mobileconfig);
    }
    let Ok(text) = std::str::from_utf8(data) else { return detect_binary(data) };
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with('{') {
        return Ok(Format::Sswan);
    }
    if text.starts_with('<') {
        let lower = text.to_ascii_lowercase();
        if lower.contains("<vpnprofile") {
            return Ok(Format::ProfileXml);
        }
        if lower.contains("<plist") {
            return Ok(Format::Mobileconfig);
        }
        return Err(ProfileError::NotAProfile {
            found: "XML that is neither a plist nor a VPNProfile".to_owned(),
        });
    }
    if text.contains("service-type=org.freedesktop.NetworkManager") || text.starts_with("[connection]") {
        return Ok(Format::NetworkManager);
    }
    if text.starts_with("-----BEGIN ") {
        return Err(ProfileError::NotAProfile { found: "a certificate or key in PEM".to_owned() });
    }
    Ok(Format::Native)
}

fn detect_binary(data: &[u8]) -> Result<Format, ProfileError> {
    // A signed .mobileconfig is DER: SEQUENCE, then the object identifier of CMS signed data.
    const SIGNED_DATA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
    let head = data.get(..data.len().min(32)).unwrap_or(data);
    if head.windows(SIGNED_DATA.len()).any(|window| window == SIGNED_DATA) {
        return Ok(Format::Mobileconfig);
    }
    let found =
        if data.first() == Some(&0x30) { "DER (a PKCS#12 bundle or a certificate)" } else { "binary data" };
    Err(ProfileError::NotAProfile { found: found.to_owned() })
}

fn text_of(data: &[u8]) -> Result<&str, ProfileError> {
    std::str::from_utf8(data)
        .map(|text| text.trim_start_matches('\u{feff}'))
        .map_err(|_| ProfileError::NotAProfile { found: "text that is not UTF-8".to_owned() })
}

fn unsupported(format: &str) -> Result<Import, ProfileError> {
    Err(ProfileError::UnsupportedFormat { format: format.to_owned() })
}
