//! Replays certificates, as they are and with each octet changed or cut off in turn: nothing panics and nothing that
//! nobody signed verifies.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails panics")]

use std::path::Path;

use ropewalk_ike::auth::fuzz;

#[test]
fn certificates_are_read_without_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/auth");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().ends_with("-cert.pem") {
            continue;
        }
        seen += 1;
        let der = pem::parse(std::fs::read(path).unwrap()).unwrap().into_contents();
        fuzz::certificate(&der);
        for index in 0..der.len() {
            for value in [0, 0xff, der[index].wrapping_add(1)] {
                let mut changed = der.clone();
                changed[index] = value;
                fuzz::certificate(&changed);
            }
            fuzz::certificate(&der[..index]);
        }
    }
    assert_eq!(seen, 5);
}
