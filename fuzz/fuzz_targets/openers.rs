//! See `leakwatch::fuzzing::openers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leakwatch::fuzzing::openers(data));
