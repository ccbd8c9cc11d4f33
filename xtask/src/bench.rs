//! `cargo xtask bench`: what the agent costs, as ratios within one run.
//!
//! It prints PASS or over beside each aim and never fails on a figure: figures
//! belong to a machine, and a bench that fails on a busy one gets switched off.

pub mod agent;
mod census;
pub mod crowd;
mod facts;
mod floor;
pub mod hold;
mod holders;
mod idle;
pub mod load;
mod mode;
mod overhead;
mod programs;
mod replay;
pub mod report;
mod rounds;
mod run;
mod runtime;
mod scale;
mod scrape;
mod stats;
mod tasks;
mod tools;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::shell::{self, say};
use crate::{build, setup, workspace};

/// How much to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// Rounds of the workloads; each measures every mode beside a bare run
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Milliseconds of one measurement of one workload
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(10..))]
    millis: u64,
    /// Rounds of the programs (a build, a web server, a search through files) and of `run`
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    program_rounds: u32,
    /// Seconds over which the idle agent's CPU share is taken
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    idle_seconds: u64,
    /// Seconds over which the CPU share at a million descriptors is taken
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    scale_seconds: u64,
    /// Scrapes of /metrics
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    scrapes: u32,
    /// Measure what target/release holds already
    #[arg(long)]
    no_build: bool,
    /// Measure this part alone and print it; only --output writes a page then
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    /// Write the page there instead of docs/overhead.md
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A section of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Loops of system calls
    Loops,
    /// A build, a web server, a search through files
    Macro,
    /// Run time of each BPF program
    Runtime,
    /// The census beside /proc and lsof
    Census,
    /// The idle agent
    Idle,
    /// A million descriptors in twenty thousand processes
    Scale,
    /// Scrapes of /metrics
    Scrape,
    /// The replay of a trace
    Replay,
    /// Async tasks of tokio, counted
    Tasks,
    /// A build of a small crate under `leakwatch run`
    Run,
}

impl Part {
    fn measure(self, options: &Options) -> Result<String> {
        match self {
            Self::Loops => overhead::measure(options.rounds, options.millis),
            Self::Macro => programs::measure(options.program_rounds),
            Self::Runtime => runtime::measure(options.millis),
            Self::Census => census::measure(),
            Self::Idle => idle::measure(options.idle_seconds),
            Self::Scale => scale::measure(options.scale_seconds),
            Self::Scrape => scrape::measure(options.scrapes),
            Self::Replay => replay::measure(),
            Self::Tasks => tasks::measure(!options.no_build),
            Self::Run => run::measure(options.program_rounds),
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
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

    if let Err(error) = setup::bench() {
        say(&format!("bench: what is missing is left out: {error:#}"));
    }

    let mut page = report::Page::new(&facts::collect());
    for part in Part::value_variants() {
        if options.only.is_some_and(|only| only != *part) {
            continue;
        }
        say(&format!("bench: {}", part.name()));
        let section = part.measure(options)?;
        if options.only.is_some() {
            say(&section);
        }
        page.add(&section);
    }
    if options.only.is_some() && options.output.is_none() {
        return Ok(());
    }
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
