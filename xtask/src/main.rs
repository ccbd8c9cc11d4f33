//! Builds, runs and tests leakwatch.
fn main() {}
