//! Everything that reads what somebody else wrote, and the state machines behind it, as plain functions over any octets. None may panic, and each holds a
//! property beyond that.
//!
//! `cargo test` replays the corpus and a round of changed copies of it; `make fuzz` searches with libFuzzer.

pub mod exchanges;

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use ropewalk_ike::{
    auth::{IdRef, TrustAnchors, identity::check_identity, identity::subject_text, pki, verify_gateway},
    time::UnixTime,
    wire,
};
use ropewalk_ipc::{ClientMessage, ServerMessage, read_frame, write_frame};
use ropewalk_profile::{Import, Profile};

/// ID type of a name (RFC 7296 section 3.5).
const FQDN: u8 = 2;

/// A target's name, its function, and its corpus below the repository's root.
pub type Target = (&'static str, fn(&[u8]), &'static str);

/// All targets.
pub const TARGETS: [Target; 6] = [
    ("fuzz-datagram", datagram, "helper/ike/tests/corpus/datagram"),
    ("fuzz-decrypted-payloads", decrypted_payloads, "helper/ike/tests/corpus/decrypted_payloads"),
    ("fuzz-certificate", certificate, "tests/fuzz/corpus/certificate"),
    ("fuzz-profile", profile, "tests/fuzz/corpus/profile"),
    ("fuzz-ipc-frame", ipc_frame, "tests/fuzz/corpus/ipc_frame"),
    ("fuzz-exchanges", exchanges::exchanges, "tests/fuzz/corpus/exchanges"),
];

/// A datagram from the network, read as an IKE message. What is read and written again is read as the same.
pub fn datagram(octets: &[u8]) {
    wire::fuzz::datagram(octets);
}

/// What an Encrypted payload holds. What is read and written again is read as the same.
pub fn decrypted_payloads(octets: &[u8]) {
    wire::fuzz::decrypted_payloads(octets);
}

/// A gateway's certificate. Without a trusted root, none is ever accepted.
pub fn certificate(octets: &[u8]) {
    let name = IdRef { id_type: FQDN, data: b"gw.test" };
    let _ = subject_text(octets);
    let _ = check_identity(octets, name);
    let nobody = TrustAnchors::default();
    let verdict = verify_gateway(octets, &[octets], &nobody, UnixTime(1_800_000_000), name);
    assert!(verdict.is_err(), "a certificate is accepted without anything to trust");
    // As its own root it may be accepted or not, but must not panic.
    if let Ok(itself) = TrustAnchors::from_der([octets.to_vec()]) {
        let _ = itself.certreq();
        let _ = verify_gateway(octets, &[], &itself, UnixTime(1_800_000_000), name);
    }
    if let Ok(text) = std::str::from_utf8(octets) {
        let _ = pki::certificates_from_pem(text);
    }
}

/// A profile in any format. What is accepted has a name and a gateway, and shows no secret.
pub fn profile(octets: &[u8]) {
    if let Ok(Import { profile, secrets, .. }) = ropewalk_profile::import(octets) {
        assert!(
            !profile.name.is_empty() && !profile.gateway.addresses.is_empty(),
            "an empty profile is accepted"
        );
        let _ = format!("{profile:?} {secrets:?}");
    }
    if let Ok(text) = std::str::from_utf8(octets) {
        let _ = Profile::from_toml(text);
    }
}

/// A frame on the helper's socket, from either end. What is read can be written, and is then read as the same.
pub fn ipc_frame(octets: &[u8]) {
    if let Some(message) = at_once(read_frame::<ClientMessage>(&mut &*octets)).and_then(Result::ok) {
        let mut frame = Vec::new();
        if at_once(write_frame(&mut frame, &message)).is_some_and(|written| written.is_ok()) {
            let again = at_once(read_frame::<ClientMessage>(&mut frame.as_slice())).and_then(Result::ok);
            assert!(
                again.is_some_and(|again| again == message),
                "what was written is read as something else"
            );
        }
    }
    let _ = at_once(read_frame::<ServerMessage>(&mut &*octets));
}

/// The result of a future that has nothing to wait for: memory is always ready.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
