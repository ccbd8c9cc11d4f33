//! clippy on the BPF target, with the clippy of the compiler that builds for it:
//! the one of the default toolchain has no `core` for the target.

use anyhow::{Context, Result};

use crate::toolchain::Toolchain;
use crate::{object, shell};

/// How clippy-driver takes several flags in one variable.
const SEPARATOR: &str = "__CLIPPY_HACKERY__";

/// Checks `monitor-ebpf`.
///
/// # Errors
/// When clippy has something to say, or is missing.
pub fn check() -> Result<()> {
    let toolchain = Toolchain::find(None)?;
    let driver = toolchain.clippy_driver.as_ref().with_context(|| {
        format!(
            "{} has no clippy-driver beside it: run `cargo xtask setup`",
            toolchain.rustc.display()
        )
    })?;
    let mut command = object::cargo(&toolchain, "check");
    command.arg("--quiet");
    // The wrapper is for crates of the workspace only: `core` is not ours to judge.
    command.env("RUSTC_WORKSPACE_WRAPPER", driver);
    command.env("CLIPPY_ARGS", ["-D", "warnings", ""].join(SEPARATOR));
    // Debian's driver finds its library only when told where it is.
    command.env("SYSROOT", &toolchain.sysroot);
    shell::run(&mut command)
}
