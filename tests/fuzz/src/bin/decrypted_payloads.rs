//! Fuzz target: [`ropewalk_fuzz::decrypted_payloads`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ropewalk_fuzz::decrypted_payloads(octets));
