//! The tables of requirements.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// The tables, in the order of the page.
pub const FILES: [&str; 8] = [
    "rfc7296.toml",
    "rfc4555.toml",
    "rfc7383.toml",
    "rfc3948.toml",
    "rfc3884.toml",
    "rfc3456.toml",
    "keep-old-ike-sa.toml",
    "mpsa.toml",
];

/// One standard.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standard {
    /// The number of the RFC; a draft has none.
    pub rfc: Option<u16>,
    /// The name of the draft; an RFC has none.
    pub draft: Option<Draft>,
    /// Its title.
    pub title: String,
    /// What of it is in the table and what is not.
    pub scope: String,
    /// Its requirements, in the order of the text.
    #[serde(rename = "requirement")]
    pub requirements: Vec<Requirement>,
}

/// A draft that became no RFC.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// Its name.
    pub name: String,
    /// With which the ids of its requirements begin.
    pub prefix: String,
}

impl Standard {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> String {
        match (self.rfc, &self.draft) {
            (Some(rfc), _) => format!("RFC {rfc}"),
            (None, Some(draft)) => draft.name.clone(),
            (None, None) => self.title.clone(),
        }
    }

    fn prefix(&self) -> Result<String> {
        match (self.rfc, &self.draft) {
            (Some(rfc), None) => Ok(rfc.to_string()),
            (None, Some(draft)) => Ok(draft.prefix.clone()),
            (Some(_), Some(_)) | (None, None) => bail!("{}: one of rfc and draft", self.title),
        }
    }
}

/// One requirement. Exactly one of `tests`, `by_construction`, `not_applicable`, `declined` and `open` is there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Number of the RFC or prefix of the draft, section, and place within the section: `7296-2.1-3`.
    pub id: String,
    /// How strong it is.
    pub level: Level,
    /// Whom it binds.
    pub role: Role,
    /// What is demanded, in our own words.
    pub text: String,
    /// The tests that prove it, as `path/of/the/file.rs::name`.
    #[serde(default)]
    pub tests: Vec<String>,
    /// Why it cannot be otherwise, where no test could show it.
    pub by_construction: Option<String>,
    /// Why it does not bind us.
    pub not_applicable: Option<String>,
    /// Why it is not done on purpose.
    pub declined: Option<String>,
    /// What is missing: the behaviour, or a test of it.
    pub open: Option<String>,
}

/// How strong a requirement is (RFC 2119). REQUIRED and SHALL are MUST, RECOMMENDED is SHOULD.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Level {
    /// Without exception.
    #[serde(rename = "MUST")]
    Must,
    /// Never.
    #[serde(rename = "MUST NOT")]
    MustNot,
    /// Unless there is a good reason.
    #[serde(rename = "SHOULD")]
    Should,
    /// Not without a good reason.
    #[serde(rename = "SHOULD NOT")]
    ShouldNot,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Must => "MUST",
            Self::MustNot => "MUST NOT",
            Self::Should => "SHOULD",
            Self::ShouldNot => "SHOULD NOT",
        })
    }
}

/// Whom a requirement binds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Who begins the IKE_SA or the exchange.
    Initiator,
    /// Who answers.
    Responder,
    /// Both.
    Both,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
            Self::Both => "both",
        })
    }
}

/// Where a requirement stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// These tests prove it.
    Proven(&'a [String]),
    /// It cannot be otherwise, and why.
    ByConstruction(&'a str),
    /// It does not bind us, and why.
    NotApplicable(&'a str),
    /// It is not done on purpose, and why.
    Declined(&'a str),
    /// Something is missing, and what.
    Open(&'a str),
}

impl Requirement {
    /// The section of the standard: `2.1` of `7296-2.1-3`.
    #[must_use]
    pub fn section(&self) -> &str {
        self.id.split('-').nth(1).unwrap_or_default()
    }

    /// Where it stands.
    ///
    /// # Errors
    /// The entry says none or several of these things.
    pub fn standing(&self) -> Result<Standing<'_>> {
        let proven = (!self.tests.is_empty()).then_some(Standing::Proven(&self.tests));
        let reasons = [
            self.by_construction.as_deref().map(Standing::ByConstruction),
            self.not_applicable.as_deref().map(Standing::NotApplicable),
            self.declined.as_deref().map(Standing::Declined),
            self.open.as_deref().map(Standing::Open),
        ];
        let said: Vec<Standing<'_>> = proven.into_iter().chain(reasons.into_iter().flatten()).collect();
        match said.as_slice() {
            [standing] => Ok(*standing),
            _ => bail!("{}: one of tests, by_construction, not_applicable, declined and open", self.id),
        }
    }

    fn check_id(&self, prefix: &str) -> Result<()> {
        let parts: Vec<&str> = self.id.split('-').collect();
        let [number, section, place] = parts.as_slice() else {
            bail!("{}: an id is number-section-place", self.id);
        };
        // Appendices have letters.
        let part = |text: &str| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_alphanumeric());
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
        let well_formed = *number == prefix && digits(place) && section.split('.').all(part);
        ensure!(well_formed, "{}: an id is number-section-place", self.id);
        Ok(())
    }
}

/// Reads all tables below the repository's root.
///
/// # Errors
/// A file cannot be read, or an entry is not well formed.
pub fn read_all(root: &Path) -> Result<Vec<Standard>> {
    FILES.iter().map(|file| read(&root.join("docs/conformance").join(file))).collect()
}

fn read(path: &Path) -> Result<Standard> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let standard: Standard = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let prefix = standard.prefix().with_context(|| path.display().to_string())?;
    for requirement in &standard.requirements {
        requirement.check_id(&prefix)?;
        requirement.standing()?;
    }
    Ok(standard)
}
