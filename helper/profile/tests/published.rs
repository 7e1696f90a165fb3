//! What is published of the format is written from the code; this fails when a committed file is stale.
//! `ROPEWALK_UPDATE=1 cargo test -p ropewalk-profile --test published` writes them anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::Path;

fn check(name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if std::env::var_os("ROPEWALK_UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{} is stale: run this test with ROPEWALK_UPDATE=1", path.display());
}

#[test]
fn the_committed_schema_is_current() {
    check("profile.schema.json", &ropewalk_profile::json_schema());
}

#[test]
fn the_committed_reference_is_current() {
    check("profile-reference.md", &ropewalk_profile::reference_markdown());
}

#[test]
fn the_reference_tells_of_every_key_of_the_contract() {
    let reference = ropewalk_profile::reference_markdown();
    for key in [
        "version",
        "name",
        "address",
        "addresses",
        "port",
        "identity",
        "ca",
        "method",
        "user",
        "psk",
        "certificate",
        "private_key",
        "pkcs12",
        "ike",
        "esp",
        "source",
        "static",
        "mode",
        "routes",
        "exclude",
        "kill_switch",
        "servers",
        "domains",
        "dpd",
        "nat_keepalive",
        "ike_rekey",
        "child_rekey",
        "child_rekey_bytes",
        "reauth",
        "multipath",
        "policy",
        "interfaces",
        "keep_old_ike_sa_notify",
        "in_ike_auth",
        "address_per_path",
        "use_metered",
        "mobike",
        "enabled",
        "allow_sha1",
    ] {
        assert!(reference.contains(&format!("| `{key}` |")), "{key} is missing");
    }
}
