//! tshark, an independent implementation, decrypts with our key log what our ciphers sealed.
//!
//! Each test writes a capture of one packet made here, hands tshark the key log line and looks for the plaintext in what
//! it prints.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that fails panics"
)]

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use ring::{aead, hmac};
use ropewalk_ike::crypto::keys::KeyInputs;
use ropewalk_ike::crypto::{IkeCipher, IkeKeys, Integ, Prf, SkCipher};
use ropewalk_ike::keylog::{EspKeys, esp_line, ike_line};

const SPI_I: [u8; 8] = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
const SPI_R: [u8; 8] = [0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x01];
const CLIENT: [u8; 4] = [192, 0, 2, 10];
const GATEWAY: [u8; 4] = [198, 51, 100, 1];

#[test]
fn ikev2_is_decrypted_in_every_suite_that_wireshark_knows() {
    for suite in [
        IkeCipher::Aes128Gcm16,
        IkeCipher::Aes256Gcm16,
        IkeCipher::Aes128Cbc(Integ::HmacSha2_256_128),
        IkeCipher::Aes256Cbc(Integ::HmacSha2_256_128),
        IkeCipher::Aes256Cbc(Integ::HmacSha2_384_192),
        IkeCipher::Aes256Cbc(Integ::HmacSha2_512_256),
    ] {
        let keys = keys(suite);
        let line = ike_line(SPI_I, SPI_R, suite, &keys).expect("a suite that Wireshark knows");
        let from_client = informational(suite, &keys.sk_ei, &keys.sk_ai, 0x08);
        let from_gateway = informational(suite, &keys.sk_er, &keys.sk_ar, 0x20);
        let packets = [
            ipv4(CLIENT, GATEWAY, 17, &udp(500, 500, &from_client)),
            ipv4(GATEWAY, CLIENT, 17, &udp(500, 500, &from_gateway)),
        ];
        let printed =
            tshark(&format!("{suite:?}"), &packets, &format!("uat:ikev2_decryption_table:{}", *line));
        // The notification data is the plaintext; the type number is COOKIE2's.
        let decrypted = printed.matches("526f706577616c6b20737065616b73").count();
        assert_eq!(decrypted, 2, "both directions of {suite:?}:\n{printed}");
        assert!(!printed.contains("[incorrect"), "the integrity check of {suite:?}:\n{printed}");
    }
}

#[test]
fn chacha20_poly1305_has_no_line() {
    let suite = IkeCipher::ChaCha20Poly1305;
    assert!(ike_line(SPI_I, SPI_R, suite, &keys(suite)).is_none());
    assert!(esp_line(&esp_keys(28, &[0; 36], None, &[])).is_none());
}

#[test]
fn esp_with_aes_gcm_is_decrypted() {
    for key_len in [16, 32] {
        let key: Vec<u8> = (0..key_len + 4).collect();
        let line = esp_line(&esp_keys(20, &key, Some(0), &[])).expect("a suite that Wireshark knows");
        let (algorithm, iv) = (if key_len == 16 { &aead::AES_128_GCM } else { &aead::AES_256_GCM }, [7; 8]);
        let (key, salt) = key.split_at(usize::from(key_len));
        let nonce = aead::Nonce::try_assume_unique_for_key(&[salt, &iv].concat()).unwrap();
        let header = esp_header();
        let mut content = inner_packet_with_trailer(4);
        let key = aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key).unwrap());
        key.seal_in_place_append_tag(nonce, aead::Aad::from(header), &mut content).unwrap();
        let packet = ipv4(CLIENT, GATEWAY, 50, &[&header[..], &iv, &content].concat());
        assert_inner_seen(&format!("esp-gcm-{key_len}"), &packet, &line);
    }
}

#[test]
fn esp_with_aes_cbc_is_decrypted() {
    // What seals an IKE message seals ESP too here: padding is laid out by hand, so that only AES-CBC is borrowed.
    for (integ, transform, algorithm) in [
        (Integ::HmacSha2_256_128, 12, hmac::HMAC_SHA256),
        (Integ::HmacSha2_384_192, 13, hmac::HMAC_SHA384),
        (Integ::HmacSha2_512_256, 14, hmac::HMAC_SHA512),
    ] {
        let key: Vec<u8> = (0..32).collect();
        let integ_key: Vec<u8> = (0..integ.key_len()).map(|i| 0xa0 ^ i as u8).collect();
        let line = esp_line(&esp_keys(12, &key, Some(transform), &integ_key)).expect("a known suite");
        let header = esp_header();
        let content = inner_packet_with_trailer(16);
        let mut cipher = SkCipher::new(IkeCipher::Aes256Cbc(integ), &key, &integ_key).unwrap();
        // The cipher adds a block of its own padding and its ICV; both are cut off again.
        let sealed = cipher.seal_message(&mut rng(), header.to_vec(), &content).unwrap();
        let mut esp = sealed[..8 + 16 + content.len()].to_vec();
        let icv = hmac::sign(&hmac::Key::new(algorithm, &integ_key), &esp);
        esp.extend_from_slice(&icv.as_ref()[..integ.icv_len()]);
        let packet = ipv4(CLIENT, GATEWAY, 50, &esp);
        assert_inner_seen(&format!("esp-cbc-{transform}"), &packet, &line);
    }
}

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(3)
}

fn keys(suite: IkeCipher) -> IkeKeys {
    let inputs = KeyInputs { nonce_i: &[1; 32], nonce_r: &[2; 32], spi_i: SPI_I, spi_r: SPI_R };
    IkeKeys::initial(Prf::HmacSha2_256, suite, &inputs, &[3; 32]).unwrap()
}

/// An INFORMATIONAL message with N(COOKIE2) inside.
fn informational(suite: IkeCipher, encr: &[u8], integ: &[u8], flags: u8) -> Vec<u8> {
    let data = b"Ropewalk speaks";
    let notify_len = u16::try_from(8 + data.len()).unwrap().to_be_bytes();
    let notify = [&[0, 0], &notify_len[..], &[0, 0, 0x40, 0x11], data].concat();
    let body = suite.sealed_len(notify.len());
    let total = u32::try_from(28 + 4 + body).unwrap().to_be_bytes();
    let sk_len = u16::try_from(4 + body).unwrap().to_be_bytes();
    let header =
        [&SPI_I[..], &SPI_R, &[46, 0x20, 37, flags], &[0, 0, 0, 5], &total, &[41, 0], &sk_len].concat();
    SkCipher::new(suite, encr, integ).unwrap().seal_message(&mut rng(), header, &notify).unwrap()
}

fn esp_keys<'a>(encr: u16, encr_key: &'a [u8], integ: Option<u16>, integ_key: &'a [u8]) -> EspKeys<'a> {
    let (source, destination) = (IpAddr::from(CLIENT), IpAddr::from(GATEWAY));
    EspKeys { source, destination, spi: 0x0102_0304, encr, encr_key, integ, integ_key }
}

/// SPI and sequence number.
fn esp_header() -> [u8; 8] {
    [1, 2, 3, 4, 0, 0, 0, 1]
}

/// An inner UDP packet to port 4242, padded so that it and the trailer are whole blocks.
fn inner_packet_with_trailer(block: usize) -> Vec<u8> {
    let mut content = ipv4([10, 0, 0, 1], [10, 0, 0, 2], 17, &udp(4141, 4242, b"inside"));
    let pad = (block - (content.len() + 2) % block) % block;
    content.extend((1..=pad).map(|i| u8::try_from(i).unwrap()));
    content.extend_from_slice(&[u8::try_from(pad).unwrap(), 4]);
    content
}

fn assert_inner_seen(name: &str, packet: &[u8], line: &str) {
    let printed = tshark(name, &[packet.to_vec()], &format!("uat:esp_sa:{line}"));
    assert!(printed.contains("Src: 10.0.0.1") && printed.contains("Dst Port: 4242"), "{name}:\n{printed}");
    assert!(!printed.contains("[incorrect"), "the integrity check of {name}:\n{printed}");
}

fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap();
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &len.to_be_bytes(), &[0, 0], payload].concat()
}

fn ipv4(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let rest = [0, 1, 0, 0, 64, protocol, 0, 0];
    [&[0x45, 0][..], &len, &rest, &source, &destination, payload].concat()
}

/// What `tshark -V` prints for a capture of `packets` with one table line.
fn tshark(name: &str, packets: &[Vec<u8>], table: &str) -> String {
    let path = capture(name, packets);
    let output = Command::new("tshark")
        .args([
            "-n",
            "-V",
            "-o",
            "esp.enable_encryption_decode:TRUE",
            "-o",
            "esp.enable_authentication_check:TRUE",
        ])
        .args(["-o", table, "-r"])
        .arg(&path)
        .output()
        .expect("tshark is installed");
    std::fs::remove_file(&path).expect("the capture is removed");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tshark refuses {table}:\n{stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes a pcap file of raw IPv4 packets.
fn capture(name: &str, packets: &[Vec<u8>]) -> PathBuf {
    const LINKTYPE_IPV4: u32 = 228;
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, LINKTYPE_IPV4] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    for packet in packets {
        let len = u32::try_from(packet.len()).unwrap();
        for word in [0, 0, len, len] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(packet);
    }
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let path = std::env::temp_dir().join(format!("ropewalk-keylog-{}-{name}.pcap", std::process::id()));
    std::fs::write(&path, file).expect("the capture is written");
    path
}
