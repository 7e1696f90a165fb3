//! What the standards demand of us, and the tests that prove it.
//!
//! `docs/conformance/*.toml` holds one table a standard: each MUST and SHOULD in our own words, with the tests that prove it,
//! the reason why it does not apply, or what is missing. `docs/conformance.md` is written from these tables. The tests
//! of this crate fail when the page is stale or a named test does not exist.
//!
//! Whether a named test notices at all is tried for a sample: [`mutants`] disables the implementing line and demands that
//! the test fails. That compiles many times, so `make mutants` does it and `make test` does not.

pub mod mutants;
pub mod page;
pub mod rust_tests;
pub mod table;

use std::path::{Path, PathBuf};

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
