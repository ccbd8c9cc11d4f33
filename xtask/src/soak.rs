//! `cargo xtask soak`: the suite `soak` for longer than CI has time for.
//!
//! The dev profile unless told otherwise: its checks of overflow are what a long run
//! is for. `--release` judges the agent that users run.

use anyhow::{Result, bail};

use crate::shell::{self, say};
use crate::{build, test, workspace};

/// How long.
#[derive(clap::Args)]
pub struct Options {
    /// Minutes of churn
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_080))]
    minutes: u32,
    /// The agent in release mode
    #[arg(long)]
    release: bool,
}

/// Builds the agent and the churn, and judges the agent after so much of it.
///
/// # Errors
/// Not root, or something of the agent has grown, drifted or got lost.
pub fn run(options: &Options) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the soak needs root: the agent watches with all privileges, and makes cgroups");
    }
    shell::run(shell::cargo(["build"]).args(test::SELECTION))?;
    let agent = if options.release {
        build::run()?;
        workspace::release_agent()
    } else {
        workspace::debug_agent()
    };
    say(&format!("soak: {} min of churn", options.minutes));
    let mut suite = shell::cargo(["test", "--test", "soak"]);
    suite.args(test::SELECTION).args(["--", "--nocapture"]);
    // Not to be skipped: then what it needs and does not find is a failure.
    suite.env("CI", "true").env("LEAKWATCH_BIN", agent);
    shell::run(suite.env("LEAKWATCH_SOAK_SECONDS", (options.minutes * 60).to_string()))
}
