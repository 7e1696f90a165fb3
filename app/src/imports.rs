//! Files on their way to becoming profiles: read here with the user's rights, looked at, and sent to the helper as
//! bytes when the user says so. The bytes may hold secrets, so the pages get the preview only.

use std::io::Read as _;
use std::path::Path;

use ropewalk_ipc::{Blob, ErrorCode, ErrorInfo, Preview};
use ropewalk_profile::Format;

use crate::view::ImportView;

/// No profile is larger: certificates and keys are a few KiB each. Keeps a file chosen by mistake out of memory.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// A file that has been read and is looked at.
#[derive(Debug, Clone)]
pub struct PendingImport {
    /// The file's content.
    pub data: Blob,
    /// What the pages show of it.
    pub view: ImportView,
}

/// Reads a file and works out what the profile in it will do. `number` tells this file from the next.
///
/// # Errors
/// When the file cannot be read, or is no profile: with cause and what to do.
pub fn read(path: &Path, number: u32) -> Result<PendingImport, ErrorInfo> {
    let file = path
        .file_name()
        .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    let refused = |message: String, hint: &str| {
        Err(ErrorInfo::new(ErrorCode::ProfileRefused, message, hint.to_owned()))
    };
    let mut data = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut data));
    if let Err(error) = read {
        return refused(format!("{file} cannot be read: {error}"), "Choose a file that you may read.");
    }
    if data.len() as u64 > MAX_FILE {
        return refused(format!("{file} is too large to be a profile"), "Choose a profile file.");
    }
    look_at(data, file, number)
}

fn look_at(data: Vec<u8>, file: String, number: u32) -> Result<PendingImport, ErrorInfo> {
    let data = Blob::new(data);
    let import = ropewalk_profile::import(data.as_bytes()).map_err(|error| {
        let hint = "Ask whoever gave you the file for one that this version can read.";
        ErrorInfo::new(ErrorCode::ProfileRefused, format!("{file}: {error}"), hint)
    })?;
    let format = match import.format {
        Format::Native => "Ropewalk (TOML)",
        Format::Sswan => "strongSwan (.sswan)",
        Format::Mobileconfig => "Apple (.mobileconfig)",
        Format::ProfileXml => "Windows (ProfileXML)",
        Format::NetworkManager => "NetworkManager",
    };
    let preview = Preview::of(&import.profile, &import.secrets);
    let mut warnings = import.warnings;
    warnings.extend(preview.unsupported.clone());
    let view = ImportView { number, file, format: format.to_owned(), preview, warnings };
    Ok(PendingImport { data, view })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "version = 1\nname = \"Lab\"\n[gateway]\naddress = \"203.0.113.7\"\n\
                           [auth]\nmethod = \"psk\"\npsk = \"swordfish\"\n";

    #[test]
    fn a_preview_says_what_the_profile_does_and_keeps_its_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lab.toml");
        std::fs::write(&path, PROFILE).unwrap();
        let import = read(&path, 1).unwrap();
        assert_eq!(import.view.preview.name, "Lab");
        assert_eq!(import.view.file, "lab.toml");
        let told = serde_json::to_string(&import.view).unwrap();
        assert!(!told.contains("swordfish"), "{told}");
        assert!(!format!("{import:?}").contains("swordfish"));
    }

    #[test]
    fn what_is_no_profile_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("holiday.jpg");
        std::fs::write(&path, [0xff, 0xd8, 0xff, 0xe0]).unwrap();
        let error = read(&path, 1).unwrap_err();
        assert_eq!(error.code, ErrorCode::ProfileRefused);
        assert!(error.message.contains("holiday.jpg") && !error.hint.is_empty(), "{error}");
        assert!(read(&folder.path().join("nowhere"), 1).is_err());
    }

    #[test]
    fn a_huge_file_is_not_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(read(&path, 1).unwrap_err().message.contains("too large"));
    }
}
