//! Fuzz target: [`ropewalk_fuzz::exchanges::exchanges`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ropewalk_fuzz::exchanges::exchanges(octets));
