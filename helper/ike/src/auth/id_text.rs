//! Identities as people write them in a profile.
//!
//! The form decides the type, as it does for strongSwan: an address, a DN when there is an equals sign, a mailbox when
//! there is an at sign, else a domain name. A prefix `fqdn:`, `email:`, `dn:` or `keyid:` decides otherwise.

use std::net::IpAddr;

use thiserror::Error;

use super::der;

/// Why a text is no identity.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum IdTextError {
    /// There is nothing.
    #[error("the identity is empty")]
    Empty,
    /// A distinguished name with something unknown in it.
    #[error("the distinguished name has a part that is not understood: {0}")]
    BadDn(String),
}

/// The ID type and the Identification Data of an identity written as text.
///
/// # Errors
/// [`IdTextError`].
pub fn parse_identity(text: &str) -> Result<(u8, Vec<u8>), IdTextError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(IdTextError::Empty);
    }
    match text.split_once(':') {
        Some(("fqdn", rest)) => return Ok((2, rest.as_bytes().to_vec())),
        Some(("email", rest)) => return Ok((3, rest.as_bytes().to_vec())),
        Some(("keyid", rest)) => return Ok((11, rest.as_bytes().to_vec())),
        Some(("dn" | "asn1dn", rest)) => return Ok((9, distinguished_name(rest)?)),
        _ => {}
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(match address {
            IpAddr::V4(v4) => (1, v4.octets().to_vec()),
            IpAddr::V6(v6) => (5, v6.octets().to_vec()),
        });
    }
    if text.contains('=') {
        return Ok((9, distinguished_name(text)?));
    }
    if text.contains('@') {
        return Ok((3, text.as_bytes().to_vec()));
    }
    Ok((2, text.as_bytes().to_vec()))
}

/// The DER of "C=CH, O=Example, CN=name", its parts in the order in which they are written. A backslash takes the next
/// character as it is; a part may stand in quotation marks.
fn distinguished_name(text: &str) -> Result<Vec<u8>, IdTextError> {
    let mut content = Vec::new();
    for part in split_unquoted(text) {
        let bad = || IdTextError::BadDn(part.trim().to_owned());
        let (key, value) = part.split_once('=').ok_or_else(bad)?;
        let (oid, ia5) = attribute(key.trim()).ok_or_else(bad)?;
        let value = unquote(value.trim());
        if value.is_empty() {
            return Err(bad());
        }
        let tag = if ia5 {
            IA5_STRING
        } else if value.chars().all(is_printable_string) {
            PRINTABLE_STRING
        } else {
            UTF8_STRING
        };
        let pair = [der::encode(der::OID, oid), der::encode(tag, value.as_bytes())].concat();
        content.extend_from_slice(&der::encode(SET, &der::encode(der::SEQUENCE, &pair)));
    }
    Ok(der::encode(der::SEQUENCE, &content))
}

const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const SET: u8 = 0x31;

/// The object identifier of an attribute type, and whether its values are IA5String.
fn attribute(key: &str) -> Option<(&'static [u8], bool)> {
    Some(match key.to_ascii_uppercase().as_str() {
        "CN" => (&[0x55, 4, 3], false),
        "SN" | "SURNAME" | "S" => (&[0x55, 4, 4], false),
        "SERIALNUMBER" => (&[0x55, 4, 5], false),
        "C" => (&[0x55, 4, 6], false),
        "L" => (&[0x55, 4, 7], false),
        "ST" => (&[0x55, 4, 8], false),
        "STREET" => (&[0x55, 4, 9], false),
        "O" => (&[0x55, 4, 10], false),
        "OU" => (&[0x55, 4, 11], false),
        "T" | "TITLE" => (&[0x55, 4, 12], false),
        "G" | "GN" | "GIVENNAME" => (&[0x55, 4, 42], false),
        "UID" => (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], false),
        "DC" => (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], true),
        "E" | "EMAIL" | "EMAILADDRESS" => (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], true),
        _ => return None,
    })
}

fn is_printable_string(c: char) -> bool {
    c.is_ascii_alphanumeric() || " '()+,-./:=?".contains(c)
}

/// Splits at commas that neither follow a backslash nor stand in quotation marks.
fn split_unquoted(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut rest, mut quoted, mut escaped) = (text, false, false);
    let mut start = 0;
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                if let Some((part, after)) = rest.split_at_checked(index - start) {
                    parts.push(part);
                    rest = after.get(1..).unwrap_or_default();
                    start = index + 1;
                }
            }
            _ => {}
        }
    }
    parts.push(rest);
    parts
}

fn unquote(value: &str) -> String {
    let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
    let mut out = String::new();
    let mut escaped = false;
    for c in inner.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            out.push(c);
            escaped = false;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::IdRef;
    use proptest::prelude::*;

    fn parsed(text: &str) -> (u8, Vec<u8>) {
        parse_identity(text).unwrap()
    }

    #[test]
    fn the_form_decides_the_type() {
        assert_eq!(parsed("vpn.example.com"), (2, b"vpn.example.com".to_vec()));
        assert_eq!(parsed(" alice@example.com "), (3, b"alice@example.com".to_vec()));
        assert_eq!(parsed("192.0.2.1"), (1, vec![192, 0, 2, 1]));
        assert_eq!(parsed("2001:db8::1").0, 5);
        assert_eq!(parsed("keyid:group one"), (11, b"group one".to_vec()));
        assert_eq!(parsed("fqdn:alice@example.com"), (2, b"alice@example.com".to_vec()));
        assert_eq!(parsed("email:alice"), (3, b"alice".to_vec()));
        assert_eq!(parse_identity("  "), Err(IdTextError::Empty));
    }

    #[test]
    fn a_distinguished_name_becomes_der() {
        // SEQUENCE { SET { SEQUENCE { countryName PrintableString } } ... }, by hand.
        let expected = "3028310b3009060355040613024348310c300a060355040a0c03c3846f310b300906035504030c02783d";
        let (id_type, der) = parsed("C=CH, O=Äo, CN=x=");
        assert_eq!(id_type, 9);
        assert_eq!(hex::encode(der), expected.replace("0c02783d", "1302783d"));
    }

    #[test]
    fn a_distinguished_name_reads_back_as_it_was_written() {
        for (text, back) in [
            ("C=CH, O=strongSwan Project, CN=moon", "C=CH, O=strongSwan Project, CN=moon"),
            ("CN=a\\,b,O=\"x, y\"", "CN=a,b, O=x, y"),
            ("dn:O=Rope Walk,E=a@b.example", "O=Rope Walk, Email=a@b.example"),
        ] {
            let (id_type, data) = parsed(text);
            assert_eq!(IdRef { id_type, data: &data }.text(), back);
        }
    }

    #[test]
    fn unknown_or_empty_parts_are_named() {
        for (text, part) in [("XX=1, CN=a", "XX=1"), ("CN=a,,O=b", ""), ("CN=", "CN="), ("CN=a, b", "b")] {
            assert_eq!(parse_identity(text), Err(IdTextError::BadDn(part.to_owned())), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(text in "\\PC{0,40}|[A-Z]{1,2}=[^a]{0,30}") {
            if let Ok((id_type, data)) = parse_identity(&text) {
                let _shown = IdRef { id_type, data: &data }.text();
            }
        }
    }
}
