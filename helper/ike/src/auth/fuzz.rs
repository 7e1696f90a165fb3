//! Entry points for fuzzing: plain functions over any octets, which tests replay over a corpus.

use super::pki::{IdRef, TrustAnchors, alternative_names, check_identity, subject_text, verify_gateway};
use super::signature::{METHOD_DIGITAL_SIGNATURE, METHOD_ECDSA_256, METHOD_RSA, verify_signature};
use crate::time::UnixTime;

/// A certificate of the gateway, also as its own issuer and trust anchor.
pub fn certificate(octets: &[u8]) {
    let identity = IdRef { id_type: 2, data: b"vpn.example.com" };
    let anchors = TrustAnchors::from_der_lenient([octets.to_vec()]);
    let _hashes = anchors.certreq();
    let _path = verify_gateway(octets, &[octets], &anchors, UnixTime(1_780_272_000), identity);
    for id_type in [1, 2, 3, 5, 9, 11] {
        let _proved = check_identity(octets, IdRef { id_type, data: octets });
    }
    let text = subject_text(octets);
    assert!(!text.chars().any(char::is_control), "nothing in {text:?} controls a terminal");
    let _names = alternative_names(octets);
    for method in [METHOD_RSA, METHOD_ECDSA_256, METHOD_DIGITAL_SIGNATURE] {
        assert!(verify_signature(method, octets, octets, b"octets", true).is_err(), "nobody signed this");
    }
}
