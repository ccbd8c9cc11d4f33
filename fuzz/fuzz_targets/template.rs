//! See `leakwatch::fuzzing::template`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leakwatch::fuzzing::template(data));
