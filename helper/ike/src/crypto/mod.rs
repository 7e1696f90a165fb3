//! Suites, key derivation and key agreement.
