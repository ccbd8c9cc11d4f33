//! See `leakwatch::fuzzing::tasks`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leakwatch::fuzzing::tasks(data));
