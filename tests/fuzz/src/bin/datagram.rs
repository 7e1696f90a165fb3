//! Fuzz target: [`ropewalk_fuzz::datagram`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ropewalk_fuzz::datagram(octets));
