//! `cargo xtask fuzz`: libFuzzer on what parses outside bytes, guided by coverage.
//!
//! The compiler in use does: `RUSTC_BOOTSTRAP` lets a stable one instrument, and
//! rustup's come with the runtime of the address sanitizer. CI has no time for it
//! and replays the seeds and mutations of them instead, through the same functions
//! (`monitor/src/fuzzing`).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{self, complain, say};
use crate::{setup, workspace};

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

/// Builds all targets and runs those that are asked for; a finding in one keeps
/// none of the others from running.
///
/// # Errors
/// Something is missing, or findings: the inputs that show them are named.
pub fn run(options: &Options) -> Result<()> {
    let all = targets()?;
    let chosen = match &options.target {
        None => all,
        Some(name) if all.contains(name) => vec![name.clone()],
        Some(name) => bail!("no fuzz target `{name}`; there is {}", all.join(", ")),
    };
    needs()?;
    shell::run(cargo_fuzz().arg("build")).context("building the fuzz targets")?;
    let mut findings = Vec::new();
    for target in &chosen {
        say(&format!("fuzz: {target} for {} s", options.seconds));
        if let Err(error) = fuzz(target, options.seconds) {
            complain(&format!("fuzz: {error:#}"));
            findings.push(target.as_str());
        }
    }
    if !findings.is_empty() {
        bail!("fuzz: FAILED in {} of {}: {}", findings.len(), chosen.len(), findings.join(", "));
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
    command.args(["--", LONGEST, TIMEOUT, "-print_final_stats=1"]);
    command.arg(format!("-max_total_time={seconds}"));
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

/// cargo-fuzz, under the toolchain in use.
fn cargo_fuzz() -> Command {
    let mut command = shell::cargo(["fuzz"]);
    command.env("RUSTC_BOOTSTRAP", "1").env_remove("RUSTFLAGS");
    command.current_dir(workspace::root().join("fuzz"));
    command
}

/// Installs what can be had and says what cannot.
fn needs() -> Result<()> {
    if !sanitizer_runtime()? {
        bail!(
            "the compiler in use comes without the runtime of the address sanitizer; one of \
             rustup has it: https://rustup.rs"
        );
    }
    if ["c++", "g++", "clang++"].iter().all(|name| shell::which(name).is_none()) {
        setup::packages(&["g++"]).context("libFuzzer needs a C++ compiler")?;
    }
    setup::cargo_fuzz()
}

/// Whether the compiler brings it.
fn sanitizer_runtime() -> Result<bool> {
    let libraries = shell::capture(shell::command("rustc").args(["--print", "target-libdir"]))?;
    let names = workspace::files_below(libraries.as_ref())?;
    Ok(names.iter().any(|path| path.to_string_lossy().contains("rt.asan")))
}
