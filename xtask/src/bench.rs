//! `cargo xtask bench`: what the agent costs, as ratios within one run.
//!
//! It prints PASS or over beside each aim and never fails on a figure: figures
//! belong to a machine, and a bench that fails on a busy one gets switched off.

pub mod agent;
mod census;
mod facts;
mod floor;
pub mod hold;
mod holders;
mod idle;
pub mod load;
mod overhead;
pub mod report;
mod scrape;
mod stats;
mod tools;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::shell::{self, say};
use crate::{build, workspace};

/// How much to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// Rounds of the workloads; each measures every mode beside a bare run
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Milliseconds of one measurement of one workload
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(10..))]
    millis: u64,
    /// Seconds over which the idle agent's CPU share is taken
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    idle_seconds: u64,
    /// Scrapes of /metrics
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    scrapes: u32,
    /// Measure what target/release holds already
    #[arg(long)]
    no_build: bool,
    /// Write the page there instead of docs/overhead.md
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Measures and writes the page.
///
/// # Errors
/// When the agent cannot be built or started, or the page cannot be written.
pub fn run(options: &Options) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the bench attaches BPF programs: run `cargo xtask bench` as root");
    }
    if !options.no_build {
        build::run()?;
        // The workloads are in this very program, optimised.
        shell::run(&mut shell::cargo(["build", "--locked", "--release", "--package", "xtask"]))?;
    }

    let mut page = report::Page::new(&facts::collect());
    say("bench: workloads");
    page.add(&overhead::measure(options.rounds, options.millis)?);
    say("bench: census");
    page.add(&census::measure()?);
    say("bench: idle");
    page.add(&idle::measure(options.idle_seconds)?);
    say("bench: scrape");
    page.add(&scrape::measure(options.scrapes)?);

    let path = options.output.clone().unwrap_or_else(|| workspace::root().join("docs/overhead.md"));
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    fs::write(&path, page.text()).with_context(|| format!("cannot write {}", path.display()))?;
    say(&format!("written to {}", path.display()));
    Ok(())
}

/// This program as built in release mode.
fn optimised() -> PathBuf {
    workspace::target().join("release/xtask")
}
