//! `cargo xtask build`.

use anyhow::Result;

use crate::{shell, workspace};

/// Builds the agent in release mode. The BPF object is the checked-in one, so
/// this needs neither a BPF toolchain nor more network than crates do.
pub fn run() -> Result<()> {
    shell::run(&mut shell::cargo(["build", "--locked", "--release", "--package", "leakwatch"]))?;
    shell::say(&format!("built {}", workspace::release_agent().display()));
    Ok(())
}
