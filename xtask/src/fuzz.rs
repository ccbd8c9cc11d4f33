//! `cargo xtask fuzz`: libFuzzer on what parses outside bytes, guided by coverage.
//!
//! It needs what CI does not: rustup's nightly with its sanitizer runtime, a C++
//! compiler and cargo-fuzz. CI replays the seeds and mutations of them instead,
//! through the same functions (`monitor/src/fuzzing`).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{self, say};
use crate::workspace;

/// Longest input. The parsers' bounds are below, and short inputs find more.
const LONGEST: &str = "-max_len=4096";
/// Seconds that one input may take, with the sanitizer's factor in it.
const TIMEOUT: &str = "-timeout=10";

/// What to fuzz, and how long.
#[derive(clap::Args)]
pub struct Options {
    /// One target; all of them, one after the other, without it
    target: Option<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

/// Builds all targets and runs those that are asked for.
///
/// # Errors
/// Something is missing, or a finding: the input that shows it is named.
pub fn run(options: &Options) -> Result<()> {
    let all = targets()?;
    let chosen = match &options.target {
        None => all,
        Some(name) if all.contains(name) => vec![name.clone()],
        Some(name) => bail!("no fuzz target `{name}`; there is {}", all.join(", ")),
    };
    needs()?;
    shell::run(cargo_fuzz().arg("build")).context("building the fuzz targets")?;
    for target in &chosen {
        say(&format!("fuzz: {target} for {} s", options.seconds));
        fuzz(target, options.seconds)?;
    }
    say(&format!("fuzz: no finding in {}", chosen.join(", ")));
    Ok(())
}

fn fuzz(target: &str, seconds: u32) -> Result<()> {
    // New inputs go to the first directory; the seeds are only read.
    let corpus = workspace::root().join("fuzz/corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let mut command = cargo_fuzz();
    command.args(["run", target]).arg(&corpus).arg(seeds(target));
    command.args(["--", LONGEST, TIMEOUT, &format!("-max_total_time={seconds}")]);
    shell::run(&mut command).with_context(|| {
        format!(
            "{target}: a finding, in fuzz/artifacts/{target}; mend the parser, and keep the \
             input as a unit test and as a seed in {}",
            seeds(target).display()
        )
    })
}

/// The targets, by the files that they are.
fn targets() -> Result<Vec<String>> {
    let dir = workspace::root().join("fuzz/fuzz_targets");
    let files = workspace::files_below(&dir)?;
    let stems = files.iter().filter_map(|file| file.file_stem()?.to_str());
    Ok(stems.map(str::to_owned).collect())
}

fn seeds(target: &str) -> PathBuf {
    workspace::root().join("fuzz/seeds").join(target)
}

/// cargo-fuzz under nightly. The outer cargo and its toolchain are left out of it.
fn cargo_fuzz() -> Command {
    let mut command = shell::command("cargo");
    command.args(["+nightly", "fuzz"]);
    for name in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTC", "RUSTFLAGS", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
    command.current_dir(workspace::root().join("fuzz"));
    command
}

/// Says all that is missing, not only the first.
fn needs() -> Result<()> {
    let mut missing = Vec::new();
    match nightly_runtime() {
        Ok(true) => {}
        Ok(false) => missing.push(
            "the sanitizer runtime of rustup's nightly: \
             `rustup toolchain install nightly --profile minimal`",
        ),
        Err(_) => missing
            .push("rustup with a nightly: `rustup toolchain install nightly --profile minimal`"),
    }
    if shell::which("cargo-fuzz").is_none() && installed().is_none() {
        missing.push("cargo-fuzz: `cargo install cargo-fuzz --locked`");
    }
    if ["c++", "g++", "clang++"].iter().all(|name| shell::which(name).is_none()) {
        missing.push("a C++ compiler, for libFuzzer: `apt-get install g++`");
    }
    if !missing.is_empty() {
        bail!("fuzzing needs, and this machine has not:\n  {}", missing.join("\n  "));
    }
    Ok(())
}

fn installed() -> Option<PathBuf> {
    workspace::cargo_home().map(|home| home.join("bin/cargo-fuzz")).filter(|path| path.is_file())
}

/// Whether nightly brings the runtime of the address sanitizer.
fn nightly_runtime() -> Result<bool> {
    let mut rustc = shell::command("rustc");
    rustc.env_remove("RUSTUP_TOOLCHAIN");
    let libraries = shell::capture(rustc.args(["+nightly", "--print", "target-libdir"]))?;
    let names = workspace::files_below(libraries.as_ref())?;
    Ok(names.iter().any(|path| path.to_string_lossy().contains("rt.asan")))
}
