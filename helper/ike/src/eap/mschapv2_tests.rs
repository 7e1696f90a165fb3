//! The example of RFC 2759 section 9.2, carried on in RFC 3079 section 3.5.3.

use super::*;

const RUN: Run<'static> = Run {
    authenticator_challenge: &[
        0x5b, 0x5d, 0x7c, 0x7d, 0x7b, 0x3f, 0x2f, 0x3e, 0x3c, 0x2c, 0x60, 0x21, 0x32, 0x26, 0x26, 0x28,
    ],
    peer_challenge: &[
        0x21, 0x40, 0x23, 0x24, 0x25, 0x5e, 0x26, 0x2a, 0x28, 0x29, 0x5f, 0x2b, 0x3a, 0x33, 0x7c, 0x7e,
    ],
    user: b"User",
};

#[test]
fn hashes_agree_with_rfc_2759() {
    let nt_hash = nt_password_hash("clientPass");
    assert_eq!(hex::encode(*nt_hash), "44ebba8d5312b8d611474411f56989ae");
    assert_eq!(hex::encode(*md4(&*nt_hash)), "41c00c584bd2d91c4017a2a12fa59f3f");
    assert_eq!(hex::encode(RUN.challenge_hash()), "d02e4386bce91226");
}

#[test]
fn the_nt_response_agrees_with_rfc_2759() {
    let nt_hash = nt_password_hash("clientPass");
    let response = RUN.nt_response(&nt_hash);
    assert_eq!(hex::encode(response), "82309ecd8d708b5ea08faa3981cd83544233114a3d85d6df");
    assert!(RUN.check_nt_response(&nt_hash, &response));
    assert!(!RUN.check_nt_response(&nt_password_hash("clientpass"), &response));
}

#[test]
fn the_authenticator_response_agrees_with_rfc_2759() {
    let nt_hash = nt_password_hash("clientPass");
    let response = RUN.authenticator_response(&nt_hash, &RUN.nt_response(&nt_hash));
    assert_eq!(hex::encode_upper(response), "407A5589115FD0D6209F510FE9C04566932CDA56");
}

#[test]
fn the_keys_agree_with_rfc_3079() {
    let nt_hash = nt_password_hash("clientPass");
    let nt_response = RUN.nt_response(&nt_hash);
    assert_eq!(hex::encode(*master_key(&nt_hash, &nt_response)), "fdece3717a8c838cb388e527ae3cdd31");
    let msk = msk(&nt_hash, &nt_response);
    // RFC 3079 prints the server's send key only; its receive key was computed with Python's hashlib.
    assert_eq!(hex::encode(&msk[16..32]), "8b7cdc149b993a1ba118cb153f56dccb");
    assert_eq!(hex::encode(&msk[..16]), "d5f0e9521e3ea9589645e86051c82226");
    assert_eq!(msk[32..], [0; 32]);
}

#[test]
fn a_domain_does_not_enter_the_challenge_hash() {
    let with_domain = Run { user: b"DOMAIN\\User", ..RUN };
    assert_eq!(with_domain.challenge_hash(), RUN.challenge_hash());
}

#[test]
fn a_password_beyond_ascii_is_utf_16() {
    // MD4 of e4 00 f6 00 3d d8 0d dd, computed by OpenSSL's legacy provider.
    assert_eq!(hex::encode(*nt_password_hash("äö🔍")), "78b8cdfea0b55a3f44ddcd261a2a4557");
}
