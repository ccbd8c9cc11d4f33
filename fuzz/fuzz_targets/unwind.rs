//! See `leakwatch::fuzzing::unwind`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leakwatch::fuzzing::unwind(data));
