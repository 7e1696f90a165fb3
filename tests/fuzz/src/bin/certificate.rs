//! Fuzz target: [`ropewalk_fuzz::certificate`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ropewalk_fuzz::certificate(octets));
