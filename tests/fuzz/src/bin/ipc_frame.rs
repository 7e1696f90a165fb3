//! Fuzz target: [`ropewalk_fuzz::ipc_frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ropewalk_fuzz::ipc_frame(octets));
