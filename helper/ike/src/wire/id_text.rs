//! Identities as text: how profiles write them, in strongSwan's manner, and how they are shown to people.
//!
//! The kind is guessed: an address, `user@host`, `C=CH, CN=name` (a distinguished name), else a domain name. A prefix
//! says it outright: `fqdn:`, `email:`, `ipv4:`, `ipv6:`, `asn1dn:`, `keyid:`; so do `@name` (a domain name), `@@name` (a
//! mail address) and `@#6b6579` (a key id in hexadecimal).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::auth::identity::IdRef;
use crate::wire::id::{IdType, Identification};

/// Why a text is no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdTextError {
    /// There is nothing.
    #[error("an identity is empty")]
    Empty,
    /// It stands for any identity, which proves nothing.
    #[error("`{text}` stands for any identity; write the one that is meant")]
    Any {
        /// The text.
        text: String,
    },
    /// Something else than an address behind `ipv4:` or `ipv6:`.
    #[error("`{text}` is not an address of this kind")]
    Address {
        /// The text.
        text: String,
    },
    /// Hexadecimal digits that are none, or an odd number of them.
    #[error("`{text}` is not a row of hexadecimal octets")]
    Hex {
        /// The text.
        text: String,
    },
    /// A part of a distinguished name that cannot be read.
    #[error(
        "`{part}` in the distinguished name `{text}` is not understood (known: C, ST, L, O, OU, CN, E, DC, UID, SN)"
    )]
    DistinguishedName {
        /// The text.
        text: String,
        /// The part.
        part: String,
    },
}

impl FromStr for Identification {
    type Err = IdTextError;

    fn from_str(text: &str) -> Result<Self, IdTextError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(IdTextError::Empty);
        }
        if matches!(text, "%any" | "%any6" | "*" | "@") {
            return Err(IdTextError::Any { text: text.to_owned() });
        }
        if let Some((prefix, rest)) = text.split_once(':')
            && let Some(ty) = kind_of_prefix(prefix)
        {
            return with_kind(ty, rest);
        }
        if let Some(digits) = text.strip_prefix("@#") {
            return Ok(Identification::key_id(hex(digits)?));
        }
        if let Some(mail) = text.strip_prefix("@@") {
            return Ok(Identification::rfc822(mail));
        }
        if let Some(name) = text.strip_prefix('@') {
            return Ok(Identification::fqdn(name));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Identification::address(address));
        }
        if looks_like_distinguished_name(text) {
            return Ok(Identification::distinguished_name(distinguished_name(text)?));
        }
        if text.contains('=') || (text.contains(':') && !text.contains('@')) {
            return Ok(Identification::key_id(text.as_bytes().to_vec()));
        }
        if text.contains('@') {
            return Ok(Identification::rfc822(text));
        }
        Ok(Identification::fqdn(text))
    }
}

impl std::fmt::Display for Identification {
    /// For people: without control characters, a key id that is not text in hexadecimal.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let readable = match self.ty {
            IdType::Ipv4Addr | IdType::Ipv6Addr | IdType::Fqdn | IdType::Rfc822Addr | IdType::DerAsn1Dn => {
                true
            }
            IdType::KeyId => {
                !self.data.is_empty() && self.data.iter().all(|octet| (0x20..0x7F).contains(octet))
            }
            IdType::DerAsn1Gn | IdType::Other(_) => false,
        };
        if readable {
            return f.write_str(&IdRef { id_type: self.ty.into(), data: &self.data }.text());
        }
        f.write_str("0x")?;
        self.data.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

fn kind_of_prefix(prefix: &str) -> Option<IdType> {
    match prefix.to_ascii_lowercase().as_str() {
        "ipv4" => Some(IdType::Ipv4Addr),
        "ipv6" => Some(IdType::Ipv6Addr),
        "fqdn" | "dns" => Some(IdType::Fqdn),
        "email" | "rfc822" | "userfqdn" => Some(IdType::Rfc822Addr),
        "asn1dn" | "dn" => Some(IdType::DerAsn1Dn),
        "keyid" => Some(IdType::KeyId),
        _ => None,
    }
}

/// An identity whose kind is said; `#` introduces its octets in hexadecimal.
fn with_kind(ty: IdType, text: &str) -> Result<Identification, IdTextError> {
    if text.is_empty() {
        return Err(IdTextError::Empty);
    }
    let no_address = || IdTextError::Address { text: text.to_owned() };
    if ty == IdType::Ipv4Addr {
        return text
            .parse::<Ipv4Addr>()
            .map(|v4| Identification::address(v4.into()))
            .map_err(|_| no_address());
    }
    if ty == IdType::Ipv6Addr {
        return text
            .parse::<Ipv6Addr>()
            .map(|v6| Identification::address(v6.into()))
            .map_err(|_| no_address());
    }
    let data = match text.strip_prefix('#') {
        Some(digits) => hex(digits)?,
        None if ty == IdType::DerAsn1Dn => distinguished_name(text)?,
        None => text.as_bytes().to_vec(),
    };
    Ok(Identification { ty, data })
}

fn hex(digits: &str) -> Result<Vec<u8>, IdTextError> {
    let digits_only: Vec<u8> = digits.bytes().filter(|digit| *digit != b':').collect();
    let (pairs, odd) = digits_only.as_chunks::<2>();
    let octets: Option<Vec<u8>> = pairs
        .iter()
        .map(|[high, low]| {
            let high = char::from(*high).to_digit(16)?;
            let low = char::from(*low).to_digit(16)?;
            u8::try_from(high << 4 | low).ok()
        })
        .collect();
    match octets {
        Some(octets) if odd.is_empty() && !octets.is_empty() => Ok(octets),
        Some(_) | None => Err(IdTextError::Hex { text: digits.to_owned() }),
    }
}

const UTF8_STRING: u8 = 0x0C;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// An attribute of a distinguished name: its type's object identifier, and whether its value is an IA5String.
fn attribute_type(name: &str) -> Option<(&'static [u8], bool)> {
    let found: (&'static [u8], bool) = match name.to_ascii_uppercase().as_str() {
        "CN" => (&[0x55, 0x04, 0x03], false),
        "SN" | "SERIALNUMBER" => (&[0x55, 0x04, 0x05], false),
        "C" => (&[0x55, 0x04, 0x06], false),
        "L" => (&[0x55, 0x04, 0x07], false),
        "ST" => (&[0x55, 0x04, 0x08], false),
        "O" => (&[0x55, 0x04, 0x0A], false),
        "OU" => (&[0x55, 0x04, 0x0B], false),
        "E" | "EMAIL" | "EMAILADDRESS" => (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x09, 0x01], true),
        "DC" => (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 0x01, 0x19], true),
        "UID" => (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 0x01, 0x01], false),
        _ => return None,
    };
    Some(found)
}

fn looks_like_distinguished_name(text: &str) -> bool {
    let text = text.strip_prefix('/').unwrap_or(text);
    text.split_once('=').is_some_and(|(name, _)| attribute_type(name.trim()).is_some())
}

/// `C=CH, O="Example, Inc.", CN=name` or `/C=CH/O=Example/CN=name` as a DER Name, in the order written. A backslash
/// takes the next character as it is.
fn distinguished_name(text: &str) -> Result<Vec<u8>, IdTextError> {
    let (separator, list) = match text.strip_prefix('/') {
        Some(list) => ('/', list),
        None => (',', text),
    };
    let mut names = Vec::new();
    for part in split_unquoted(list, separator) {
        let refused =
            || IdTextError::DistinguishedName { text: text.to_owned(), part: part.trim().to_owned() };
        let (name, value) = part.split_once('=').ok_or_else(refused)?;
        let (oid, ia5) = attribute_type(name.trim()).ok_or_else(refused)?;
        let value = unquote(value.trim());
        if value.is_empty() {
            return Err(refused());
        }
        let string = match (ia5 && value.is_ascii(), value.chars().all(is_printable)) {
            (true, _) => IA5_STRING,
            (false, true) => PRINTABLE_STRING,
            (false, false) => UTF8_STRING,
        };
        let attribute = [der(OID, oid), der(string, value.as_bytes())].concat();
        names.extend(der(SET, &der(SEQUENCE, &attribute)));
    }
    Ok(der(SEQUENCE, &names))
}

fn split_unquoted(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for character in text.chars() {
        if character == separator && !quoted && !escaped {
            parts.push(String::new());
            continue;
        }
        if character == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = character == '\\' && !escaped;
        if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts
}

fn unquote(value: &str) -> String {
    let mut text = String::new();
    let mut escaped = false;
    for character in value.chars() {
        if escaped || !matches!(character, '"' | '\\') {
            text.push(character);
            escaped = false;
        } else {
            escaped = character == '\\';
        }
    }
    text
}

/// Whether a character may stand in a PrintableString (X.680 section 41.4).
fn is_printable(character: char) -> bool {
    character.is_ascii_alphanumeric() || " '()+,-./:=?".contains(character)
}

/// One DER element.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let octets = length.to_be_bytes();
    let mut out = vec![tag];
    if let Ok(short @ ..0x80) = u8::try_from(length) {
        out.push(short);
    } else {
        let significant = octets.iter().copied().skip_while(|octet| *octet == 0);
        out.push(0x80 | u8::try_from(significant.clone().count()).unwrap_or(0));
        out.extend(significant);
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Identification {
        text.parse().unwrap()
    }

    #[test]
    fn the_kind_is_guessed_as_strongswan_does() {
        assert_eq!(id("192.0.2.1"), Identification { ty: IdType::Ipv4Addr, data: vec![192, 0, 2, 1] });
        assert_eq!(id("2001:db8::1").ty, IdType::Ipv6Addr);
        assert_eq!(id("vpn.example.com"), Identification::fqdn("vpn.example.com"));
        assert_eq!(id("alice"), Identification::fqdn("alice"));
        assert_eq!(id("alice@example.com"), Identification::rfc822("alice@example.com"));
        assert_eq!(id("@vpn.example.com"), Identification::fqdn("vpn.example.com"));
        assert_eq!(id("@@alice"), Identification::rfc822("alice"));
        assert_eq!(id("@#6B6579"), Identification::key_id(b"key".to_vec()));
        assert_eq!(id("a=b"), Identification::key_id(b"a=b".to_vec()));
        assert_eq!(id("C=CH, CN=x").ty, IdType::DerAsn1Dn);
    }

    #[test]
    fn a_prefix_says_the_kind() {
        assert_eq!(id("fqdn:192.0.2.1"), Identification::fqdn("192.0.2.1"));
        assert_eq!(id("email:alice"), Identification::rfc822("alice"));
        assert_eq!(id("keyid:alice"), Identification::key_id(b"alice".to_vec()));
        assert_eq!(id("keyid:#00:ff"), Identification::key_id(vec![0, 0xFF]));
        assert_eq!(id("asn1dn:#3000"), Identification::distinguished_name(vec![0x30, 0]));
        assert_eq!(id("ipv6:::1").ty, IdType::Ipv6Addr);
    }

    #[test]
    fn what_is_no_identity_is_refused_with_the_reason() {
        let error = |text: &str| text.parse::<Identification>().unwrap_err();
        assert_eq!(error("  "), IdTextError::Empty);
        assert_eq!(error("fqdn:"), IdTextError::Empty);
        assert!(matches!(error("%any"), IdTextError::Any { .. }));
        assert!(matches!(error("ipv4:vpn"), IdTextError::Address { .. }));
        assert!(matches!(error("@#6"), IdTextError::Hex { .. }));
        assert!(matches!(error("@#zz"), IdTextError::Hex { .. }));
        let IdTextError::DistinguishedName { part, .. } = error("C=CH, XY=1") else { panic!() };
        assert_eq!(part, "XY=1");
    }

    #[test]
    fn a_distinguished_name_becomes_der() {
        let der =
            hex("301a310b300906035504061302434831 0b3009060355040313 0276 70".replace(' ', "").as_str());
        assert_eq!(id("C=CH, CN=vp").data, der.unwrap());
        assert_eq!(id("/C=CH/CN=vp").data, id("C=CH, CN=vp").data);
        // E is an IA5String, and what is not printable becomes UTF-8.
        assert_eq!(id("E=a@b").data.get(17..), Some([0x16, 3, b'a', b'@', b'b'].as_slice()));
        assert_eq!(id("CN=ü").data.get(11..), Some([0x0C, 2, 0xC3, 0xBC].as_slice()));
    }

    #[test]
    fn quotes_and_backslashes_protect_separators() {
        assert_eq!(id("O=\"Example, Inc.\"").data, id("O=Example\\, Inc.").data);
        assert_eq!(id("O=\"Example, Inc.\", CN=x").to_string(), id("/O=Example, Inc./CN=x").to_string());
    }

    #[test]
    fn long_names_get_long_lengths() {
        let name = id(&format!("CN={}", "x".repeat(300)));
        let (rest, _) =
            <x509_parser::x509::X509Name<'_> as x509_parser::prelude::FromDer<_>>::from_der(&name.data)
                .unwrap();
        assert!(rest.is_empty());
        // 0x82 and two octets, outside and inside: 300 octets, 9 of the OID and the string header, 8 of SET and SEQUENCE.
        assert_eq!(name.data.get(..4), Some([0x30, 0x82, 0x01, 0x3D].as_slice()));
        assert!(name.data.ends_with(&[b'x'; 300]));
    }

    #[test]
    fn people_see_readable_text() {
        assert_eq!(id("192.0.2.1").to_string(), "192.0.2.1");
        assert_eq!(id("C=CH, O=Example, CN=vpn").to_string(), "C=CH, O=Example, CN=vpn");
        assert_eq!(id("keyid:#0001").to_string(), "0x0001");
        assert_eq!(id("keyid:office").to_string(), "office");
        assert!(!Identification::fqdn("a\u{1b}[2J").to_string().contains('\u{1b}'));
    }
}
