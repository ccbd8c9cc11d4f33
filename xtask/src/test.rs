//! `cargo xtask test`: everything that must hold, in the order of cost.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::shell::{self, say};
use crate::{cross, lint, setup, verify_ebpf, vm, workspace};

/// One selection of packages for all steps: another one would have other features
/// of the same crates and compile them again.
pub const SELECTION: [&str; 4] = ["--locked", "--workspace", "--exclude", "leakwatch-ebpf"];

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
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for (name, step) in STEPS {
        say(&format!("\n==> {name}"));
        let before = Instant::now();
        let outcome = step();
        times.push((name, before.elapsed()));
        if let Err(error) = outcome {
            list(&times);
            bail!("test: {name} FAILED after {}: {error:#}", seconds(started.elapsed()));
        }
    }
    list(&times);
    say(&format!("test: all {} steps passed in {}", STEPS.len(), seconds(started.elapsed())));
    Ok(())
}

fn list(times: &[(&str, Duration)]) {
    say("");
    for (name, time) in times {
        say(&format!("{name:<12} {:>8}", seconds(*time)));
    }
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
