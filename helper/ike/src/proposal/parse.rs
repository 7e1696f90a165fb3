//! strongSwan's syntax for proposals: words joined by hyphens, proposals by commas.

use std::str::FromStr;

use super::names::{Algorithm, algorithm, supported, word};
use super::{
    ChosenEsp, ChosenIke, Cipher, EspProposal, IkeProposal, both_esn, default_esp_proposals,
    default_ike_proposals,
};
use crate::wire::sa::transform_id as id;

/// Stands for the proposals used when a profile says nothing.
const DEFAULT: &str = "default";

/// Why a proposal cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposalError {
    /// A word that is no algorithm, or one that is not supported.
    #[error("`{word}` in proposal `{proposal}` is not supported; known are {}", supported())]
    UnknownWord {
        /// The proposal.
        proposal: String,
        /// The word.
        word: String,
    },
    /// A word that has no meaning for this kind of proposal.
    #[error("`{word}` has no place in the {kind} proposal `{proposal}`")]
    Misplaced {
        /// The proposal.
        proposal: String,
        /// The word.
        word: String,
        /// IKE or ESP.
        kind: &'static str,
    },
    /// Something that every such proposal needs is missing.
    #[error("proposal `{proposal}` lacks {what}")]
    Missing {
        /// The proposal.
        proposal: String,
        /// What is missing, with an example.
        what: &'static str,
    },
    /// AEAD and other ciphers in one proposal.
    #[error(
        "proposal `{proposal}` mixes ciphers that authenticate (GCM, ChaCha20-Poly1305) with ciphers that need an \
         integrity algorithm; write two proposals"
    )]
    MixedCiphers {
        /// The proposal.
        proposal: String,
    },
}

/// Reads the IKE proposals of a profile: each string is one or, with commas, several; `default` stands for the usual
/// ones, and so does an empty list.
///
/// # Errors
/// One of them cannot be read.
pub fn parse_ike_list<S: AsRef<str>>(list: &[S]) -> Result<Vec<IkeProposal>, ProposalError> {
    parse_list(list, default_ike_proposals)
}

/// Reads the ESP proposals of a profile, as [`parse_ike_list`] does.
///
/// # Errors
/// One of them cannot be read.
pub fn parse_esp_list<S: AsRef<str>>(list: &[S]) -> Result<Vec<EspProposal>, ProposalError> {
    parse_list(list, default_esp_proposals)
}

impl FromStr for IkeProposal {
    type Err = ProposalError;

    fn from_str(proposal: &str) -> Result<Self, ProposalError> {
        let mut words = Words::read(proposal)?;
        if let Some(esn) = words.esn.first() {
            return Err(misplaced(proposal, Algorithm::Esn(*esn), "IKE"));
        }
        if words.prf.is_empty() {
            words.prf = words.integ.iter().filter_map(|integ| prf_like(*integ)).collect();
        }
        if words.prf.is_empty() {
            let what = "a pseudorandom function (for example prfsha256)";
            return Err(ProposalError::Missing { proposal: proposal.to_owned(), what });
        }
        if words.groups.is_empty() {
            let what = "a key exchange method (for example x25519)";
            return Err(ProposalError::Missing { proposal: proposal.to_owned(), what });
        }
        let integ = words.integrity(proposal)?;
        Ok(IkeProposal { ciphers: words.ciphers, integ, prf: words.prf, groups: words.groups })
    }
}

impl FromStr for EspProposal {
    type Err = ProposalError;

    fn from_str(proposal: &str) -> Result<Self, ProposalError> {
        let words = Words::read(proposal)?;
        if let Some(prf) = words.prf.first() {
            return Err(misplaced(proposal, Algorithm::Prf(*prf), "ESP"));
        }
        let integ = words.integrity(proposal)?;
        let esn = if words.esn.is_empty() { both_esn() } else { words.esn };
        Ok(EspProposal { ciphers: words.ciphers, integ, groups: words.groups, esn })
    }
}

impl std::fmt::Display for IkeProposal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ciphers = self.ciphers.iter().copied().map(Algorithm::Cipher);
        let integ = self.integ.iter().copied().map(Algorithm::Integ);
        let prf = self.prf.iter().copied().map(Algorithm::Prf);
        let groups = self.groups.iter().copied().map(Algorithm::Group);
        write_words(f, ciphers.chain(integ).chain(prf).chain(groups))
    }
}

impl std::fmt::Display for EspProposal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ciphers = self.ciphers.iter().copied().map(Algorithm::Cipher);
        let integ = self.integ.iter().copied().map(Algorithm::Integ);
        let groups = self.groups.iter().copied().map(Algorithm::Group);
        // Both kinds of sequence numbers is what a proposal that names none means.
        let esn: &[u16] = if self.esn == both_esn() { &[] } else { &self.esn };
        let esn = esn.iter().copied().map(Algorithm::Esn);
        write_words(f, ciphers.chain(integ).chain(groups).chain(esn))
    }
}

impl ChosenIke {
    /// The suite in a profile's own syntax, such as `aes256gcm16-prfsha384-x25519`.
    #[must_use]
    pub fn syntax(&self) -> String {
        let cipher = Algorithm::Cipher(Cipher { id: self.encr, key_bits: self.key_bits });
        let integ = self.integ.filter(|id| *id != 0).map(Algorithm::Integ);
        let rest = [Algorithm::Prf(self.prf), Algorithm::Group(self.group)];
        joined(std::iter::once(cipher).chain(integ).chain(rest))
    }
}

impl ChosenEsp {
    /// The suite in a profile's own syntax, such as `aes256gcm16` or `aes128-sha256-x25519-esn`.
    #[must_use]
    pub fn syntax(&self) -> String {
        let cipher = Algorithm::Cipher(Cipher { id: self.encr, key_bits: self.key_bits });
        let integ = self.integ.filter(|id| *id != 0).map(Algorithm::Integ);
        let group = self.group.filter(|id| *id != 0).map(Algorithm::Group);
        let esn = self.esn.then_some(Algorithm::Esn(id::ESN_YES));
        joined(std::iter::once(cipher).chain(integ).chain(group).chain(esn))
    }
}

fn joined(algorithms: impl Iterator<Item = Algorithm>) -> String {
    algorithms.filter_map(word).collect::<Vec<_>>().join("-")
}

fn parse_list<S: AsRef<str>, P: FromStr<Err = ProposalError>>(
    list: &[S],
    default: fn() -> Vec<P>,
) -> Result<Vec<P>, ProposalError> {
    if list.is_empty() {
        return Ok(default());
    }
    let mut proposals = Vec::new();
    for one in list.iter().flat_map(|entry| entry.as_ref().split(',')) {
        if one.trim() == DEFAULT {
            proposals.extend(default());
        } else {
            proposals.push(one.parse()?);
        }
    }
    Ok(proposals)
}

/// The words of a proposal, sorted by what they are for, each once and in the order written.
#[derive(Default)]
struct Words {
    ciphers: Vec<Cipher>,
    integ: Vec<u16>,
    prf: Vec<u16>,
    groups: Vec<u16>,
    esn: Vec<u16>,
}

impl Words {
    fn read(proposal: &str) -> Result<Self, ProposalError> {
        let mut words = Words::default();
        for word in proposal.trim().to_ascii_lowercase().split('-') {
            match algorithm(word) {
                Some(Algorithm::Cipher(cipher)) => push_new(&mut words.ciphers, cipher),
                Some(Algorithm::Integ(integ)) => push_new(&mut words.integ, integ),
                Some(Algorithm::Prf(prf)) => push_new(&mut words.prf, prf),
                Some(Algorithm::Group(group)) => push_new(&mut words.groups, group),
                Some(Algorithm::Esn(esn)) => push_new(&mut words.esn, esn),
                None => {
                    let (proposal, word) = (proposal.to_owned(), word.to_owned());
                    return Err(ProposalError::UnknownWord { proposal, word });
                }
            }
        }
        if words.ciphers.is_empty() {
            let what = "a cipher (for example aes256gcm16)";
            return Err(ProposalError::Missing { proposal: proposal.to_owned(), what });
        }
        Ok(words)
    }

    /// The integrity algorithms to offer. With AEADs there are none: one that is written only says which PRF is meant.
    fn integrity(&self, proposal: &str) -> Result<Vec<u16>, ProposalError> {
        let aeads = self.ciphers.iter().filter(|cipher| cipher.is_aead()).count();
        if aeads == self.ciphers.len() {
            return Ok(Vec::new());
        }
        if aeads > 0 {
            return Err(ProposalError::MixedCiphers { proposal: proposal.to_owned() });
        }
        if self.integ.is_empty() {
            let what = "an integrity algorithm (for example sha256)";
            return Err(ProposalError::Missing { proposal: proposal.to_owned(), what });
        }
        Ok(self.integ.clone())
    }
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn misplaced(proposal: &str, algorithm: Algorithm, kind: &'static str) -> ProposalError {
    let word = word(algorithm).unwrap_or_default().to_owned();
    ProposalError::Misplaced { proposal: proposal.to_owned(), word, kind }
}

/// The PRF made of the same hash, which is meant when a proposal names none.
fn prf_like(integ: u16) -> Option<u16> {
    match integ {
        id::AUTH_HMAC_SHA2_256_128 => Some(id::PRF_HMAC_SHA2_256),
        id::AUTH_HMAC_SHA2_384_192 => Some(id::PRF_HMAC_SHA2_384),
        id::AUTH_HMAC_SHA2_512_256 => Some(id::PRF_HMAC_SHA2_512),
        _ => None,
    }
}

fn write_words(
    f: &mut std::fmt::Formatter<'_>,
    algorithms: impl Iterator<Item = Algorithm>,
) -> std::fmt::Result {
    let words: Vec<&str> = algorithms.filter_map(word).collect();
    f.write_str(&words.join("-"))
}
