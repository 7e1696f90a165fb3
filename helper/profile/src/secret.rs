//! Secrets: strings that are wiped when dropped and that never show in a log.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A string that is wiped from memory when dropped and whose `Debug` prints nothing of it.
#[derive(
    Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop, schemars::JsonSchema, ts_rs::TS,
)]
#[serde(transparent)]
#[schemars(transparent)]
#[ts(type = "string")]
pub struct Secret(String);

impl Secret {
    /// Wraps a string; the caller's own copies are the caller's to wipe.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The secret itself. Do not log it, do not copy it further than needed.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True when there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What a profile needs to log in and must not be shown: kept apart from the profile, in a file of its own.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// Pre-shared key, as text, or `0x` and hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psk: Option<Secret>,
    /// Password of the EAP user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Private key of the certificate, PEM (PKCS#8, SEC1 or PKCS#1), not encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<Secret>,
    /// A PKCS#12 bundle (base64) that is not opened yet because its password is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pkcs12: Option<Secret>,
    /// The password of `pkcs12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pkcs12_password: Option<Secret>,
}

impl Secrets {
    /// True when there is no secret at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// The bytes of the pre-shared key: `0x…` is hexadecimal (as in strongSwan), everything else is the text.
    #[must_use]
    pub fn psk_bytes(&self) -> Option<zeroize::Zeroizing<Vec<u8>>> {
        let text = self.psk.as_ref()?.expose();
        let bytes = text.strip_prefix("0x").and_then(from_hex).unwrap_or_else(|| text.as_bytes().to_vec());
        Some(zeroize::Zeroizing::new(bytes))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets")
            .field("psk", &self.psk.is_some())
            .field("password", &self.password.is_some())
            .field("private_key", &self.private_key.is_some())
            .field("pkcs12", &self.pkcs12.is_some())
            .finish_non_exhaustive()
    }
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    if digits.is_empty() || !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_nothing_of_a_secret() {
        let secrets = Secrets { psk: Some("hunter2".into()), ..Secrets::default() };
        let shown = format!("{secrets:?} {:?}", secrets.psk);
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_hexadecimal_psk_is_its_bytes_and_a_text_one_its_text() {
        let psk = |text: &str| {
            Secrets { psk: Some(text.into()), ..Secrets::default() }.psk_bytes().unwrap().to_vec()
        };
        assert_eq!(psk("0x00fF"), vec![0, 255]);
        assert_eq!(psk("0xzz"), b"0xzz");
        assert_eq!(psk("words"), b"words");
    }

    #[test]
    fn a_long_psk_is_taken_whole() {
        let text: String = (b' '..=b'~').map(char::from).collect();
        let secrets = Secrets { psk: Some(text.as_str().into()), ..Secrets::default() };
        assert_eq!(secrets.psk_bytes().unwrap().as_slice(), text.as_bytes());
    }
}
