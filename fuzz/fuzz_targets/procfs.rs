//! See `leakwatch::fuzzing::procfs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leakwatch::fuzzing::procfs(data));
