//! Whether a certificate proves an identity (RFC 4945 section 3.1, RFC 5280 sections 4.2.1.6 and 7).
//!
//! A name, an address and a mailbox are looked for in the subjectAltName only; a DN is compared with the subject. A
//! common name proves nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use super::pki::PkiError;

/// ID_IPV4_ADDR.
const IPV4_ADDR: u8 = 1;
/// ID_FQDN.
const FQDN: u8 = 2;
/// ID_RFC822_ADDR.
const RFC822_ADDR: u8 = 3;
/// ID_IPV6_ADDR.
const IPV6_ADDR: u8 = 5;
/// ID_DER_ASN1_DN.
const DER_ASN1_DN: u8 = 9;

/// An identity as the ID payload carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRef<'a> {
    /// ID type: 1 IPv4, 2 FQDN, 3 RFC822, 5 IPv6, 9 DER_ASN1_DN, 11 KEY_ID.
    pub id_type: u8,
    /// Identification Data.
    pub data: &'a [u8],
}

impl IdRef<'_> {
    /// The identity as text, for people; nothing in it can control a terminal or a log.
    #[must_use]
    pub fn text(&self) -> String {
        let address = match self.id_type {
            IPV4_ADDR => <[u8; 4]>::try_from(self.data).ok().map(|octets| Ipv4Addr::from(octets).to_string()),
            IPV6_ADDR => {
                <[u8; 16]>::try_from(self.data).ok().map(|octets| Ipv6Addr::from(octets).to_string())
            }
            DER_ASN1_DN => X509Name::from_der(self.data).ok().map(|(_, name)| printable(&name.to_string())),
            _ => None,
        };
        address.unwrap_or_else(|| printable(&String::from_utf8_lossy(self.data)))
    }
}

/// Whether a certificate (DER) proves an identity: by a subjectAltName, or by its subject for a DN.
///
/// # Errors
/// [`PkiError::IdentityMismatch`] names both; [`PkiError::Malformed`] when the certificate cannot be read.
pub fn check_identity(certificate: &[u8], expected: IdRef<'_>) -> Result<(), PkiError> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| PkiError::Malformed)?;
    let alternatives = match certificate.subject_alternative_name() {
        Ok(extension) => extension.map(|e| e.value.general_names.as_slice()).unwrap_or_default(),
        Err(_) => return Err(PkiError::Malformed),
    };
    let proved = match expected.id_type {
        IPV4_ADDR | IPV6_ADDR => {
            let wanted_len = if expected.id_type == IPV4_ADDR { 4 } else { 16 };
            expected.data.len() == wanted_len
                && alternatives
                    .iter()
                    .any(|n| matches!(n, GeneralName::IPAddress(ip) if *ip == expected.data))
        }
        FQDN => std::str::from_utf8(expected.data).is_ok_and(|wanted| {
            alternatives.iter().any(|n| matches!(n, GeneralName::DNSName(dns) if dns_matches(dns, wanted)))
        }),
        RFC822_ADDR => std::str::from_utf8(expected.data).is_ok_and(|wanted| {
            alternatives.iter().any(|n| matches!(n, GeneralName::RFC822Name(m) if mailbox_matches(m, wanted)))
        }),
        DER_ASN1_DN => {
            let subject = certificate.subject();
            subject.as_raw() == expected.data
                || X509Name::from_der(expected.data)
                    .is_ok_and(|(rest, wanted)| rest.is_empty() && names_match(subject, &wanted))
        }
        _ => false,
    };
    if proved {
        return Ok(());
    }
    let mut found: Vec<String> = alternatives.iter().filter_map(alternative_text).collect();
    let subject = printable(&certificate.subject().to_string());
    if found.is_empty() || expected.id_type == DER_ASN1_DN {
        found.insert(0, subject);
    }
    Err(PkiError::IdentityMismatch { expected: expected.text(), found: found.join(", ") })
}

/// The names of a certificate's subjectAltName as (ID type, Identification Data), in its order: what its owner may put
/// into an ID payload besides the subject.
#[must_use]
pub fn alternative_names(certificate: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let mut names = Vec::new();
    for name in &extension.value.general_names {
        match name {
            GeneralName::DNSName(dns) => names.push((FQDN, dns.as_bytes().to_vec())),
            GeneralName::RFC822Name(mailbox) => names.push((RFC822_ADDR, mailbox.as_bytes().to_vec())),
            GeneralName::IPAddress(ip) if ip.len() == 4 => names.push((IPV4_ADDR, ip.to_vec())),
            GeneralName::IPAddress(ip) if ip.len() == 16 => names.push((IPV6_ADDR, ip.to_vec())),
            _ => {}
        }
    }
    names
}

/// The subject of a certificate (DER) as text, for people.
#[must_use]
pub fn subject_text(certificate: &[u8]) -> String {
    match X509Certificate::from_der(certificate) {
        Ok((_, certificate)) => {
            let text = printable(&certificate.subject().to_string());
            if text.is_empty() { "(no subject)".to_owned() } else { text }
        }
        Err(_) => "(unreadable certificate)".to_owned(),
    }
}

/// A dNSName of a certificate against the name that is wanted: equal without regard to case and a final dot, or a `*`
/// that stands for exactly the left-most label, with at least two labels after it.
fn dns_matches(presented: &str, wanted: &str) -> bool {
    let presented = presented.strip_suffix('.').unwrap_or(presented);
    let wanted = wanted.strip_suffix('.').unwrap_or(wanted);
    if wanted.is_empty() || wanted.contains('*') {
        return false;
    }
    if presented.eq_ignore_ascii_case(wanted) {
        return true;
    }
    let (Some(suffix), Some((label, rest))) = (presented.strip_prefix("*."), wanted.split_once('.')) else {
        return false;
    };
    !label.is_empty() && suffix.contains('.') && !suffix.contains('*') && suffix.eq_ignore_ascii_case(rest)
}

/// The local part is compared as it is, the domain without regard to case (RFC 5280 section 7.5).
fn mailbox_matches(presented: &str, wanted: &str) -> bool {
    match (presented.rsplit_once('@'), wanted.rsplit_once('@')) {
        (Some((local, domain)), Some((wanted_local, wanted_domain))) => {
            !local.is_empty() && local == wanted_local && domain.eq_ignore_ascii_case(wanted_domain)
        }
        _ => false,
    }
}

/// Compares two DNs attribute by attribute, whichever string types they use, without regard to ASCII case and
/// surplus white space (RFC 5280 section 7.1).
fn names_match(a: &X509Name<'_>, b: &X509Name<'_>) -> bool {
    let (a, b) = (dn_values(a), dn_values(b));
    a.is_some() && a == b
}

/// (attribute type, is the first of its RDN, folded value) of each attribute; `None` when one is not a string.
fn dn_values(name: &X509Name<'_>) -> Option<Vec<(String, bool, String)>> {
    let mut values = Vec::new();
    for rdn in name.iter_rdn() {
        for (index, attribute) in rdn.iter().enumerate() {
            let value = attribute.as_str().ok()?.to_ascii_lowercase();
            let folded = value.split_whitespace().collect::<Vec<_>>().join(" ");
            values.push((attribute.attr_type().to_id_string(), index == 0, folded));
        }
    }
    (!values.is_empty()).then_some(values)
}

fn alternative_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) => Some(printable(text)),
        GeneralName::IPAddress(octets) => match octets.len() {
            4 => Some(IdRef { id_type: IPV4_ADDR, data: octets }.text()),
            16 => Some(IdRef { id_type: IPV6_ADDR, data: octets }.text()),
            _ => None,
        },
        _ => None,
    }
}

/// Text of a peer's making, safe to show: control characters escaped, at most 200 characters.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == 200 {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
