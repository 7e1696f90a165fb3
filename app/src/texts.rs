//! The tray's texts. The window's translation table is the only one: its pages hand over what the tray needs, in the
//! language shown. English is built in, for the time before and for starting without a window.

use std::collections::HashMap;

const ENGLISH: [(&str, &str); 15] = [
    ("app.name", "Ropewalk"),
    ("state.disconnected", "Not connected"),
    ("state.connecting", "Connecting"),
    ("state.connected", "Connected"),
    ("state.reconnecting", "Reconnecting"),
    ("state.disconnecting", "Disconnecting"),
    ("state.blocked", "Blocked"),
    ("state.failed", "Failed"),
    ("tray.paths", "{count} paths"),
    ("tray.absent", "Service not running"),
    ("action.connect", "Connect"),
    ("action.cancel", "Cancel"),
    ("action.disconnect", "Disconnect"),
    ("tray.open", "Open Ropewalk"),
    ("tray.quit", "Quit"),
];

/// Texts by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts(HashMap<String, String>);

impl Texts {
    /// The texts of a language.
    #[must_use]
    pub fn new(texts: HashMap<String, String>) -> Self {
        Self(texts)
    }

    /// One text; English, when the language has none, and the key itself as a last resort.
    #[must_use]
    pub fn get<'a>(&'a self, key: &'a str) -> &'a str {
        self.0
            .get(key)
            .map(String::as_str)
            .unwrap_or_else(|| ENGLISH.iter().find(|(known, _)| *known == key).map_or(key, |(_, text)| text))
    }
}
