//! See `leakwatch::fuzzing::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leakwatch::fuzzing::config(data));
