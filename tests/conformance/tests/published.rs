//! The page is written from the tables; this fails when it is stale.
//! `ROPEWALK_UPDATE=1 cargo test -p ropewalk-conformance --test published` writes it anew.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use ropewalk_conformance::{mutants, page, root, table};

#[test]
fn the_committed_page_is_current() {
    let path = root().join("docs/conformance.md");
    let expected =
        page::markdown(&table::read_all(&root()).unwrap(), &mutants::read(&root()).unwrap()).unwrap();
    if std::env::var_os("ROPEWALK_UPDATE").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "docs/conformance.md is stale: run this test with ROPEWALK_UPDATE=1");
}
