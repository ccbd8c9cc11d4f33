//! See `leakwatch::fuzzing::cgroup`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leakwatch::fuzzing::cgroup(data));
