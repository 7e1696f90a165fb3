//! IIPtran (RFC 3884): IP in IP first, transport mode second, made here step by step as RFC 2003 and RFC 4303 tell it, with
//! ring's cipher; it must be what sealing the inner packet at once gives.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ropewalk_esp::{EspSuite, InboundSa, OutboundSa};

const SPI: u32 = 0xc0ff_ee01;
/// An outer IPv4 header in front of this, for this protocol (RFC 2003 section 3.1).
fn encapsulate(inner: &[u8], protocol: u8) -> Vec<u8> {
    let mut outer = vec![0x45, 0];
    outer.extend(u16::try_from(20 + inner.len()).unwrap().to_be_bytes());
    outer.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    outer.extend([192, 0, 2, 1, 198, 51, 100, 1]);
    outer.extend(inner);
    outer
}

/// ESP in transport mode on an IPv4 packet: what stands behind its header becomes the payload, and the header's protocol the
/// next header (RFC 4303 section 3.1.1); the header itself is not protected.
fn protect(packet: &[u8], keymat: &[u8], seq: u32, iv: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (header, payload) = packet.split_at(20);
    let mut text = payload.to_vec();
    let padding = (4 - (payload.len() + 2) % 4) % 4;
    text.extend((1..=u8::try_from(padding).unwrap()).collect::<Vec<_>>());
    text.extend([u8::try_from(padding).unwrap(), header[9]]);
    let (key, salt) = keymat.split_at(32);
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let mut esp = SPI.to_be_bytes().to_vec();
    esp.extend(seq.to_be_bytes());
    let nonce = Nonce::try_assume_unique_for_key(&[salt, iv].concat()).unwrap();
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&esp), &mut text).unwrap();
    esp.extend(iv);
    esp.extend(text);
    esp.extend(tag.as_ref());
    let mut header = header.to_vec();
    header[9] = 50;
    (header, esp)
}

#[test]
fn ip_in_ip_in_transport_mode_gives_the_octets_of_tunnel_mode() {
    let keymat: Vec<u8> = (0..36).collect();
    let suite = EspSuite::from_iana(20, 256, None).unwrap();
    let four: Vec<u8> = [[0x45; 20].as_slice(), b"an IPv4 packet of whatever length"].concat();
    let six: Vec<u8> = [[0x60; 40].as_slice(), b"and one of IPv6"].concat();
    for seq in [1, 77, u32::MAX] {
        for (inner, next) in [(&four, 4), (&six, 41)] {
            // Tunnel mode: the whole inner packet, and a new header outside.
            let tunnel = OutboundSa::new(SPI, suite, &keymat, &[], false).unwrap();
            let mut out = vec![0; suite.sealed_len(inner.len())];
            tunnel.seal(seq.into(), &[inner], next, &mut out).unwrap();
            // Transport mode on a packet that is IP in IP already.
            let (header, esp) = protect(&encapsulate(inner, next), &keymat, seq, &out[8..16]);
            assert_eq!(hex::encode(&out), hex::encode(&esp));
            assert_eq!(header[..9], encapsulate(inner, next)[..9], "the header is what it was");
            // The receiver puts the header in front again, with the next header as its protocol.
            let mut sa = InboundSa::new(SPI, suite, &keymat, &[], false).unwrap();
            let opened = sa.open(&mut out).unwrap();
            assert_eq!(encapsulate(&out[opened.range], opened.next_header), encapsulate(inner, next));
        }
    }
}
