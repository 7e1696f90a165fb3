//! Fuzz target: [`ropewalk_fuzz::profile`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ropewalk_fuzz::profile(octets));
