//! Proposals: what a profile allows, what is offered for it, and what was agreed (RFC 7296 sections 2.7 and 3.3).
//!
//! A profile writes proposals in strongSwan's syntax (`aes256gcm16-prfsha384-x25519`); [`IkeProposal`] and
//! [`EspProposal`] are read from that with [`str::parse`]. [`ike_offer`] and [`esp_offer`] turn them into the wire's
//! proposals, [`select_ike`] and [`select_esp`] are the responder's choice, [`validate_ike_answer`] and
//! [`validate_esp_answer`] check what a responder chose. Algorithms are IANA numbers throughout.
//!
//! Sequence numbers: unless a proposal says `esn` or `noesn`, both are offered, extended ones first, as RFC 4303 section
//! 2.2.1 prefers them; an end that has none chooses the other.

mod names;
mod parse;
mod select;

use crate::wire::sa::{Proposal, Protocol, Transform, TransformType, transform_id};

pub use names::{cipher_name, group_name, integ_name, prf_name};
pub use parse::{ProposalError, parse_esp_list, parse_ike_list};
pub use select::{ChildExchange, select_esp, select_ike, validate_esp_answer, validate_ike_answer};

/// A cipher and the length of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cipher {
    /// Number of the ENCR transform.
    pub id: u16,
    /// Key length in bits; `None` for ciphers with one length only.
    pub key_bits: Option<u16>,
}

impl Cipher {
    /// Whether it authenticates as well, and so goes without an INTEG transform.
    pub fn is_aead(self) -> bool {
        is_aead(self.id)
    }
}

/// What is acceptable for an IKE_SA: one of each list. Its ciphers are all AEADs and then there is no integrity
/// algorithm, or none is and there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IkeProposal {
    ciphers: Vec<Cipher>,
    integ: Vec<u16>,
    prf: Vec<u16>,
    groups: Vec<u16>,
}

/// What is acceptable for a CHILD_SA: one of each list that is not empty. Ciphers and integrity as in [`IkeProposal`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EspProposal {
    ciphers: Vec<Cipher>,
    integ: Vec<u16>,
    groups: Vec<u16>,
    esn: Vec<u16>,
}

/// What was agreed for an IKE_SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChosenIke {
    /// ENCR.
    pub encr: u16,
    /// Key length of ENCR in bits; `None` when the cipher has only one.
    pub key_bits: Option<u16>,
    /// INTEG; `None` with an AEAD.
    pub integ: Option<u16>,
    /// PRF.
    pub prf: u16,
    /// Key exchange method.
    pub group: u16,
}

/// What was agreed for a CHILD_SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChosenEsp {
    /// ENCR.
    pub encr: u16,
    /// Key length of ENCR in bits; `None` when the cipher has only one.
    pub key_bits: Option<u16>,
    /// INTEG; `None` with an AEAD.
    pub integ: Option<u16>,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Key exchange method of a CREATE_CHILD_SA exchange with perfect forward secrecy.
    pub group: Option<u16>,
}

/// What is offered for an IKE_SA when the profile says nothing: AEADs first, then AES-CBC with HMAC.
pub fn default_ike_proposals() -> Vec<IkeProposal> {
    use transform_id as id;
    let prf = vec![id::PRF_HMAC_SHA2_384, id::PRF_HMAC_SHA2_256, id::PRF_HMAC_SHA2_512];
    let groups = vec![
        id::GROUP_X25519,
        id::GROUP_ECP_384,
        id::GROUP_ECP_256,
        id::GROUP_MODP_3072,
        id::GROUP_MODP_4096,
        id::GROUP_MODP_2048,
    ];
    let aead =
        IkeProposal { ciphers: aead_ciphers(), integ: Vec::new(), prf: prf.clone(), groups: groups.clone() };
    let classic = IkeProposal { ciphers: cbc_ciphers(), integ: hmacs(), prf, groups };
    vec![aead, classic]
}

/// What is offered for a CHILD_SA when the profile says nothing: AEADs first, then AES-CBC with HMAC; no perfect forward
/// secrecy of its own, which a gateway may not want.
pub fn default_esp_proposals() -> Vec<EspProposal> {
    let esn = both_esn();
    let aead =
        EspProposal { ciphers: aead_ciphers(), integ: Vec::new(), groups: Vec::new(), esn: esn.clone() };
    let classic = EspProposal { ciphers: cbc_ciphers(), integ: hmacs(), groups: Vec::new(), esn };
    vec![aead, classic]
}

/// The proposals of an IKE_SA_INIT request, without SPIs.
pub fn ike_offer(configured: &[IkeProposal]) -> Vec<Proposal> {
    numbered(configured.iter().map(|proposal| proposal.to_wire(Vec::new())))
}

/// Everything that is spoken here: to learn what a gateway would take that takes nothing of a profile's.
#[must_use]
pub fn every_ike_proposal() -> Vec<IkeProposal> {
    const GROUPS: &str = "x25519-ecp256-ecp384-modp2048-modp3072-modp4096";
    const PRFS: &str = "prfsha256-prfsha384-prfsha512";
    let aead = format!("aes256gcm16-aes128gcm16-chacha20poly1305-{PRFS}-{GROUPS}");
    let others = format!("aes256-aes128-sha256-sha384-sha512-{PRFS}-{GROUPS}");
    [aead, others].iter().filter_map(|text| text.parse().ok()).collect()
}

/// The proposals of a request that rekeys an IKE_SA, each with the new SPI.
pub fn ike_rekey_offer(configured: &[IkeProposal], spi: u64) -> Vec<Proposal> {
    numbered(configured.iter().map(|proposal| proposal.to_wire(spi.to_be_bytes().to_vec())))
}

/// The proposals for a CHILD_SA, each with our inbound SPI. In IKE_AUTH there is no key exchange, so no groups are
/// offered there.
pub fn esp_offer(configured: &[EspProposal], spi: u32, with_groups: bool) -> Vec<Proposal> {
    let spi = spi.to_be_bytes().to_vec();
    numbered(configured.iter().map(|proposal| proposal.to_wire(spi.clone(), with_groups)))
}

impl IkeProposal {
    /// The key exchange methods, the preferred one first.
    pub fn groups(&self) -> &[u16] {
        &self.groups
    }

    fn to_wire(&self, spi: Vec<u8>) -> Proposal {
        let mut transforms = cipher_transforms(&self.ciphers);
        transforms.extend(of_type(TransformType::Integ, &self.integ));
        transforms.extend(of_type(TransformType::Prf, &self.prf));
        transforms.extend(of_type(TransformType::Group, &self.groups));
        Proposal { number: 1, protocol: Protocol::Ike, spi, transforms }
    }
}

impl EspProposal {
    /// The key exchange methods for CREATE_CHILD_SA, the preferred one first; empty without perfect forward secrecy.
    pub fn groups(&self) -> &[u16] {
        &self.groups
    }

    fn to_wire(&self, spi: Vec<u8>, with_groups: bool) -> Proposal {
        let mut transforms = cipher_transforms(&self.ciphers);
        transforms.extend(of_type(TransformType::Integ, &self.integ));
        if with_groups {
            transforms.extend(of_type(TransformType::Group, &self.groups));
        }
        transforms.extend(of_type(TransformType::Esn, &self.esn));
        Proposal { number: 1, protocol: Protocol::Esp, spi, transforms }
    }
}

impl std::fmt::Display for ChosenIke {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&cipher_name(Cipher { id: self.encr, key_bits: self.key_bits }))?;
        if let Some(integ) = self.integ {
            write!(f, " + {}", integ_name(integ))?;
        }
        write!(f, " / {} / {}", prf_name(self.prf), group_name(self.group))
    }
}

impl std::fmt::Display for ChosenEsp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&cipher_name(Cipher { id: self.encr, key_bits: self.key_bits }))?;
        if let Some(integ) = self.integ {
            write!(f, " + {}", integ_name(integ))?;
        }
        if let Some(group) = self.group {
            write!(f, " / {}", group_name(group))?;
        }
        if self.esn { f.write_str(" / ESN") } else { Ok(()) }
    }
}

fn is_aead(encr: u16) -> bool {
    matches!(encr, transform_id::ENCR_AES_GCM_16 | transform_id::ENCR_CHACHA20_POLY1305)
}

fn numbered(proposals: impl Iterator<Item = Proposal>) -> Vec<Proposal> {
    (1..=u8::MAX).zip(proposals).map(|(number, proposal)| Proposal { number, ..proposal }).collect()
}

fn cipher_transforms(ciphers: &[Cipher]) -> Vec<Transform> {
    ciphers.iter().map(|cipher| Transform::cipher(cipher.id, cipher.key_bits)).collect()
}

fn of_type(ty: TransformType, ids: &[u16]) -> impl Iterator<Item = Transform> {
    ids.iter().map(move |id| Transform::new(ty, *id))
}

fn aead_ciphers() -> Vec<Cipher> {
    vec![
        Cipher { id: transform_id::ENCR_AES_GCM_16, key_bits: Some(256) },
        Cipher { id: transform_id::ENCR_AES_GCM_16, key_bits: Some(128) },
        Cipher { id: transform_id::ENCR_CHACHA20_POLY1305, key_bits: None },
    ]
}

fn cbc_ciphers() -> Vec<Cipher> {
    [256, 128].map(|bits| Cipher { id: transform_id::ENCR_AES_CBC, key_bits: Some(bits) }).to_vec()
}

fn hmacs() -> Vec<u16> {
    vec![
        transform_id::AUTH_HMAC_SHA2_256_128,
        transform_id::AUTH_HMAC_SHA2_384_192,
        transform_id::AUTH_HMAC_SHA2_512_256,
    ]
}

fn both_esn() -> Vec<u16> {
    vec![transform_id::ESN_YES, transform_id::ESN_NO]
}

#[cfg(test)]
mod tests;
