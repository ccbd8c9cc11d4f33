//! `cargo xtask test`: everything that must hold, in the order of cost.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::shell::{self, say};
use crate::{cross, lint, setup, verify_ebpf, vm, workspace};

/// One selection of packages for all steps: another one would have other features
/// of the same crates and compile them again.
pub const SELECTION: [&str; 4] = ["--locked", "--workspace", "--exclude", "leakwatch-ebpf"];

/// Nearly twice what lies below `target` after the suites (7.5 GB by `du`): the builds for
/// aarch64 and for the VMs, and their kernels, come on top.
const WANTED_BYTES: u64 = 14_000_000_000;

type Step = (&'static str, fn() -> Result<()>);

const STEPS: [Step; 8] = [
    ("setup", setup::run),
    ("lint", lint::run),
    ("verify-ebpf", verify_ebpf::run),
    ("compile", compile),
    ("unit tests", unit_tests),
    ("suites", suites),
    ("aarch64", cross::run),
    ("kernels", vm::short),
];

/// Runs the steps; the first that fails is the last that runs.
///
/// # Errors
/// Names the step that failed.
pub fn run() -> Result<()> {
    let started = Instant::now();
    let mut times: Vec<Taken> = Vec::new();
    warn_of_little_room();
    for (name, step) in STEPS {
        say(&format!("\n==> {name}"));
        let before = Instant::now();
        let outcome = step();
        times.push(Taken { name, time: before.elapsed(), free: workspace::free_bytes() });
        if let Err(error) = outcome {
            list(&times);
            bail!("test: {name} FAILED after {}: {error:#}", seconds(started.elapsed()));
        }
    }
    list(&times);
    say(&format!("test: all {} steps passed in {}", STEPS.len(), seconds(started.elapsed())));
    Ok(())
}

/// What a step took, and what it left on the disk.
struct Taken {
    name: &'static str,
    time: Duration,
    free: Option<u64>,
}

/// A linker that runs out of disk dies of a bus error and does not say why.
fn warn_of_little_room() {
    if let Some(free) = workspace::free_bytes().filter(|free| *free < WANTED_BYTES) {
        say(&format!(
            "test: {} are free on this disk, and a run from an empty `target` may take {}: \
             should a step fail for no reason it gives, make room first",
            gigabytes(free),
            gigabytes(WANTED_BYTES)
        ));
    }
}

fn list(times: &[Taken]) {
    say("");
    for taken in times {
        let free = taken.free.map(|free| format!("  {} of disk left", gigabytes(free)));
        say(&format!("{:<12} {:>8}{}", taken.name, seconds(taken.time), free.unwrap_or_default()));
    }
}

#[expect(clippy::cast_precision_loss, reason = "to be read by people")]
fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// The agent, the test programs and the tests, with overflow checks and debug
/// assertions: the dev profile, whose crates lint has half built already.
fn compile() -> Result<()> {
    shell::run(shell::cargo(["build"]).args(SELECTION))?;
    shell::run(shell::cargo(["test", "--no-run"]).args(SELECTION))
}

fn unit_tests() -> Result<()> {
    shell::run(shell::cargo(["test", "--no-fail-fast", "--lib", "--bins"]).args(SELECTION))?;
    shell::run(shell::cargo(["test", "--no-fail-fast", "--doc"]).args(SELECTION))
}

/// The suites start real programs and real agents. They wait more than they
/// compute, but what they wait for is timed: a few at once, not one per core.
fn suites() -> Result<()> {
    let root = rustix::process::geteuid().is_root();
    if !root {
        say("not root: suites that watch with all privileges are SKIPPED, and say so");
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, 4);
    let mut command = shell::cargo(["test", "--no-fail-fast", "--test", "*"]);
    command.args(SELECTION).args(["--", "--test-threads", &threads.to_string()]);
    if root {
        // Setup has brought all that a suite may want: what is missing now is a failure.
        command.env("CI", "true");
    }
    shell::run(command.env("LEAKWATCH_BIN", workspace::debug_agent()))
}
