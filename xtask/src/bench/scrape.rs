//! /metrics with many units.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::agent::Agent;
use super::holders::Holders;
use super::stats::{Sample, at_most};

const UNITS: usize = 500;
/// Descriptors of each, of several kinds.
const FDS: usize = 12;
/// Milliseconds.
const AIM_P99: f64 = 20.0;
/// KiB.
const AIM_SIZE: f64 = 1024.0;

/// Measures `scrapes` scrapes, each over a connection of its own.
///
/// # Errors
/// When the processes or the agent cannot be started or asked.
pub fn measure(scrapes: u32) -> Result<String> {
    let names: Vec<String> = (0..UNITS).map(|number| format!("bench-unit-{number:03}")).collect();
    let mut config = format!("[watch]\nmax_units = {}\n", UNITS * 2);
    for name in &names {
        let _ = write!(config, "\n[[unit]]\nname = \"{name}\"\ncmdline = \"*--name {name}\"\n");
    }
    let holders = Holders::named(&names, FDS)?;
    let agent = Agent::start(&config)?;
    std::thread::sleep(Duration::from_secs(6));
    let mut millis = Vec::new();
    let mut size = 0;
    let mut units = 0;
    for _ in 0..scrapes {
        let started = Instant::now();
        let metrics = agent.metrics()?;
        millis.push(started.elapsed().as_secs_f64() * 1e3);
        size = metrics.0.len();
        units = metrics.0.lines().filter(|l| l.starts_with("leakwatch_unit_info{")).count();
        // Spread over several turns of the agent's loop.
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(agent);
    drop(holders);
    let sample = Sample::new(millis);
    let p99 = sample.quantile(0.99);
    #[expect(clippy::cast_precision_loss, reason = "a page is far below 2^52 bytes")]
    let kib = size as f64 / 1024.0;
    Ok(format!(
        "## Scrape\n\n/metrics with {UNITS} match rules that each hold one process of {FDS} \
         descriptors ({units} units in all), {scrapes} scrapes,\na new connection each, not \
         compressed:\n\n| | figure | aim | |\n|---|---|---|---|\n\
         | p50 | {:.1} ms | | |\n| p99 | {p99:.1} ms | {AIM_P99} ms | {} |\n\
         | size | {kib:.0} KiB | {AIM_SIZE} KiB | {} |\n",
        sample.median(),
        at_most(p99, AIM_P99),
        at_most(kib, AIM_SIZE)
    ))
}
