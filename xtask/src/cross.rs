//! Builds for aarch64 on another machine: Debian's cross compiler for C and its
//! library, and the compiler that builds the BPF object, for it has the source of its
//! own standard library.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{self, say};
use crate::toolchain::Toolchain;
use crate::{setup, workspace};

/// What is built for.
pub const TARGET: &str = "aarch64-unknown-linux-gnu";
/// The C compiler, which links.
const CC: &str = "aarch64-linux-gnu-gcc";
/// Takes symbols away.
pub const STRIP: &str = "aarch64-linux-gnu-strip";
/// Of both.
pub const PACKAGES: [&str; 2] = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];
/// `e_machine` of an ELF file for aarch64 (`EM_AARCH64`, elf.h).
const MACHINE: u16 = 183;

/// The step of `cargo xtask test`: the agent builds for aarch64, with the very object
/// that it has here.
///
/// # Errors
/// The compiler's; or what comes out is no program for that machine.
pub fn run() -> Result<()> {
    shell::run(cargo(&["build", "--locked"])?.args(["-p", "leakwatch"]))?;
    let agent = directory().join(TARGET).join("debug/leakwatch");
    let bytes = fs::read(&agent).with_context(|| format!("cannot read {}", agent.display()))?;
    if machine(&bytes) != Some(MACHINE) {
        bail!("{} is no ELF file for aarch64", agent.display());
    }
    let object = fs::read(workspace::prebuilt_object()).context("cannot read the BPF object")?;
    if !holds(&bytes, &object) {
        bail!("{} does not hold the checked-in BPF object", agent.display());
    }
    say(&format!("built {}, with the checked-in BPF object", agent.display()));
    Ok(())
}

/// Cargo for aarch64, static, without optimisation and debug information: nothing here
/// is handed to anybody. In a target directory of its own, as all flags are others.
///
/// # Errors
/// No compiler here can build a standard library.
pub fn cargo(words: &[&str]) -> Result<Command> {
    setup::packages(&PACKAGES)?;
    let toolchain = Toolchain::find(None)?;
    let mut cargo = match &toolchain.cargo {
        Some(own) => shell::command(own),
        None => shell::cargo::<[&str; 0], &str>([]),
    };
    let flags = "-C target-feature=+crt-static -C debuginfo=0";
    cargo
        .args(words)
        .args(["--target", TARGET, "-Zbuild-std=std,panic_unwind"])
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", directory())
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", CC)
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", flags)
        .env("CC_aarch64_unknown_linux_gnu", CC)
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN");
    Ok(cargo)
}

fn directory() -> PathBuf {
    workspace::target().join("aarch64")
}

/// `e_machine` of a little-endian ELF file.
fn machine(bytes: &[u8]) -> Option<u16> {
    let field = bytes.starts_with(b"\x7fELF\x02\x01").then(|| bytes.get(18..20))??;
    Some(u16::from_le_bytes(field.try_into().ok()?))
}

/// Whether `part` is in there; its windows are looked for by their first bytes, as it
/// lies at a multiple of 8.
fn holds(bytes: &[u8], part: &[u8]) -> bool {
    (0..bytes.len()).step_by(8).any(|at| bytes[at..].starts_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_told_by_its_header_and_an_object_within() {
        let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0".to_vec();
        assert_eq!(machine(&program), Some(MACHINE));
        program[18] = 62;
        assert_eq!(machine(&program), Some(62));
        assert_eq!((machine(b"\x7fELF"), machine(b"#!/bin/sh; or else whatever")), (None, None));
        program.resize(24, 0);
        program.extend(b"object");
        assert!(holds(&program, b"object") && !holds(&program, b"objects"));
    }
}
