//! See `leakwatch::fuzzing::btf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leakwatch::fuzzing::btf(data));
