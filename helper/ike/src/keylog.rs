//! Key log lines in the formats Wireshark reads: the IKEv2 decryption table and the table of ESP SAs.
//!
//! An administrator switches it on; whoever has these lines can read the traffic. A line goes into the file
//! `ikev2_decryption_table` or `esp_sa` of a Wireshark profile, or after `-o "uat:ikev2_decryption_table:` (and
//! `-o "uat:esp_sa:`) on tshark's command line. The names of the algorithms are Wireshark's own. It can decrypt neither
//! IKEv2 nor ESP with ChaCha20-Poly1305, so there is no line for that.

use std::fmt::Write as _;
use std::net::IpAddr;

use zeroize::Zeroizing;

use crate::crypto::{IkeCipher, IkeKeys, Integ};

/// A line of the table `ikev2_decryption_table`, without a line end; `None` when Wireshark does not know the cipher.
#[must_use]
pub fn ike_line(
    spi_i: [u8; 8],
    spi_r: [u8; 8],
    cipher: IkeCipher,
    keys: &IkeKeys,
) -> Option<Zeroizing<String>> {
    let encryption = match cipher {
        IkeCipher::Aes128Gcm16 => "AES-GCM-128 with 16 octet ICV [RFC5282]",
        IkeCipher::Aes256Gcm16 => "AES-GCM-256 with 16 octet ICV [RFC5282]",
        IkeCipher::Aes128Cbc(_) => "AES-CBC-128 [RFC3602]",
        IkeCipher::Aes256Cbc(_) => "AES-CBC-256 [RFC3602]",
        IkeCipher::ChaCha20Poly1305 => return None,
    };
    let integrity = match cipher.integ() {
        None => "NONE [RFC4306]",
        Some(Integ::HmacSha2_256_128) => "HMAC_SHA2_256_128 [RFC4868]",
        Some(Integ::HmacSha2_384_192) => "HMAC_SHA2_384_192 [RFC4868]",
        Some(Integ::HmacSha2_512_256) => "HMAC_SHA2_512_256 [RFC4868]",
    };
    let mut line = Zeroizing::new(String::with_capacity(600));
    for field in [&spi_i[..], &spi_r, &keys.sk_ei, &keys.sk_er] {
        push_hex(&mut line, field);
        line.push(',');
    }
    let _ = write!(line, "\"{encryption}\",");
    for field in [&keys.sk_ai, &keys.sk_ar] {
        push_hex(&mut line, field);
        line.push(',');
    }
    let _ = write!(line, "\"{integrity}\"");
    Some(line)
}

/// One direction of a CHILD_SA, for [`esp_line`].
#[derive(Clone, Copy)]
pub struct EspKeys<'a> {
    /// Outer source address.
    pub source: IpAddr,
    /// Outer destination address.
    pub destination: IpAddr,
    /// SPI of this direction.
    pub spi: u32,
    /// Encryption transform number.
    pub encr: u16,
    /// Encryption key with its salt.
    pub encr_key: &'a [u8],
    /// Integrity transform number; `None` or 0 with an AEAD cipher.
    pub integ: Option<u16>,
    /// Integrity key; empty with an AEAD cipher.
    pub integ_key: &'a [u8],
}

/// A line of the table `esp_sa`, without a line end; `None` when Wireshark does not know the suite.
#[must_use]
pub fn esp_line(sa: &EspKeys<'_>) -> Option<Zeroizing<String>> {
    let family = match (sa.source, sa.destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => "IPv4",
        (IpAddr::V6(_), IpAddr::V6(_)) => "IPv6",
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let encryption = match sa.encr {
        20 => "AES-GCM with 16 octet ICV [RFC4106]",
        12 => "AES-CBC [RFC3602]",
        _ => return None,
    };
    let integrity = match sa.integ {
        None | Some(0) => "NULL",
        Some(12) => "HMAC-SHA-256-128 [RFC4868]",
        Some(13) => "HMAC-SHA-384-192 [RFC4868]",
        Some(14) => "HMAC-SHA-512-256 [RFC4868]",
        Some(_) => return None,
    };
    let mut line = Zeroizing::new(String::with_capacity(400));
    let (source, destination, spi) = (sa.source, sa.destination, sa.spi);
    let _ = write!(line, "\"{family}\",\"{source}\",\"{destination}\",\"0x{spi:08x}\",\"{encryption}\",\"0x");
    push_hex(&mut line, sa.encr_key);
    let _ = write!(line, "\",\"{integrity}\",\"");
    if !sa.integ_key.is_empty() {
        line.push_str("0x");
        push_hex(&mut line, sa.integ_key);
    }
    line.push('"');
    Some(line)
}

fn push_hex(line: &mut String, octets: &[u8]) {
    for octet in octets {
        let _ = write!(line, "{octet:02x}");
    }
}
