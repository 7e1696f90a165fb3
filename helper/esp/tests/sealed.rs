//! Whole packets against bytes that others computed: the example of RFC 7634, and `fixtures.txt`, which `fixtures.py`
//! makes with OpenSSL's primitives.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use ropewalk_esp::{EspSuite, InboundSa, OutboundSa};

#[test]
fn rfc_7634_appendix_a() {
    let keymat: Vec<u8> = (0x80..=0xa3).collect();
    let mut packet = hex::decode(concat!(
        "01020304000000051011121314151617",
        "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6",
        "14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3",
        "cbec163fac469b502773f6fb94e664da9165b82829f641e0",
        "76aaa8266b7fb0f7b11b369907e1ad43",
    ))
    .unwrap();
    let echo_request = hex::decode(concat!(
        "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10",
        "0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "202122232425262728292a2b2c2d2e2f3031323334353637",
    ))
    .unwrap();
    let suite = EspSuite::from_iana(28, 0, None).unwrap();
    let mut sa = InboundSa::new(0x0102_0304, suite, &keymat, &[], false).unwrap();
    let opened = sa.open(&mut packet).unwrap();
    assert_eq!((opened.next_header, opened.seq), (4, 5));
    assert_eq!(packet[opened.range], echo_request);
}

struct Fixture {
    suite: EspSuite,
    esn: bool,
    spi: u32,
    seq: u64,
    encr_key: Vec<u8>,
    integ_key: Vec<u8>,
    next_header: u8,
    inner: Vec<u8>,
    sealed: Vec<u8>,
}

fn fixtures() -> Vec<Fixture> {
    let octets = |field: &str| if field == "-" { Vec::new() } else { hex::decode(field).unwrap() };
    let read = |line: &str| {
        let fields: Vec<_> = line.split(' ').collect();
        let [encr, bits, integ, esn, spi, seq, encr_key, integ_key, next_header, inner, sealed] = fields[..]
        else {
            panic!("{line}")
        };
        let (encr, bits, integ) = (encr.parse().unwrap(), bits.parse().unwrap(), integ.parse().unwrap());
        let suite = match integ {
            2 => EspSuite::of_group(encr, bits, integ),
            _ => EspSuite::from_iana(encr, bits, Some(integ)),
        };
        Fixture {
            suite: suite.unwrap(),
            esn: esn == "1",
            spi: spi.parse().unwrap(),
            seq: seq.parse().unwrap(),
            encr_key: octets(encr_key),
            integ_key: octets(integ_key),
            next_header: next_header.parse().unwrap(),
            inner: octets(inner),
            sealed: octets(sealed),
        }
    };
    include_str!("fixtures.txt").lines().map(read).collect()
}

#[test]
fn what_we_seal_is_what_openssl_sealed() {
    let fixtures = fixtures();
    assert_eq!(fixtures.len(), 11 * 4 * 2);
    for f in &fixtures {
        let sa = OutboundSa::new(f.spi, f.suite, &f.encr_key, &f.integ_key, f.esn).unwrap();
        let mut out = [0; 300];
        let (head, tail) = f.inner.split_at(7);
        let len = sa.seal(f.seq, &[head, &[], tail], f.next_header, &mut out).unwrap();
        assert_eq!(hex::encode(&out[..len]), hex::encode(&f.sealed), "{:?} esn {}", f.suite, f.esn);
    }
}

#[test]
fn what_openssl_sealed_we_open() {
    // With 33-bit sequence numbers, those that a new window infers.
    for f in fixtures().iter().filter(|f| f.seq <= u64::from(u32::MAX)) {
        let mut sa = InboundSa::new(f.spi, f.suite, &f.encr_key, &f.integ_key, f.esn).unwrap();
        let mut packet = f.sealed.clone();
        let opened = sa.open(&mut packet).unwrap();
        assert_eq!((opened.next_header, opened.seq), (f.next_header, f.seq));
        assert_eq!(packet[opened.range], f.inner);
    }
}
