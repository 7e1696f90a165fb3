//! What the program keeps between runs: the profile chosen last, and for which profiles the keyring has something
//! (so that the keyring is not opened, and perhaps asked to be unlocked, for the others). No secret is in it.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The profile chosen last.
    pub selected: Option<String>,
    /// Profiles with something in the keyring.
    pub remembered: BTreeSet<String>,
}

impl Memory {
    /// Reads the file. One that is not there or not readable is an empty memory: nothing depends on it.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        let Ok(text) = std::fs::read(path) else { return Self::default() };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(%error, path = %path.display(), "starting with an empty memory");
            Self::default()
        })
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// When the folder cannot be made or the file not be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(&fresh, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_rubbish_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper/window.json");
        assert_eq!(Memory::load(&path), Memory::default());
        let memory =
            Memory { selected: Some("Lab".to_owned()), remembered: BTreeSet::from(["Lab".to_owned()]) };
        memory.save(&path).unwrap();
        assert_eq!(Memory::load(&path), memory);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Memory::load(&path), Memory::default());
    }
}
