//! See `leakwatch::fuzzing::audit`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leakwatch::fuzzing::audit(data));
