//! The agent at default settings on a host where nothing happens.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::agent::Agent;
use super::holders::Holders;
use super::stats::at_most;

const PROCESSES: usize = 100;
const FDS: usize = 10_000;
/// Share of one core, percent.
const AIM_CPU: f64 = 1.0;
/// Resident memory, MiB.
const AIM_RSS: f64 = 64.0;
/// Start and first censuses are not idling.
const SETTLE: Duration = Duration::from_secs(10);

/// Measures over `seconds`.
///
/// # Errors
/// When the processes or the agent cannot be started or asked.
pub fn measure(seconds: u64) -> Result<String> {
    let holders = Holders::many(PROCESSES, FDS / PROCESSES)?;
    let agent = Agent::start("")?;
    std::thread::sleep(SETTLE);
    let before = agent.cpu_seconds()?;
    let started = Instant::now();
    std::thread::sleep(Duration::from_secs(seconds));
    let share = (agent.cpu_seconds()? - before) / started.elapsed().as_secs_f64();
    let percent = share * 100.0;
    let rss = agent.metrics()?.value("process_resident_memory_bytes")? / 1024.0 / 1024.0;
    drop(agent);
    drop(holders);
    Ok(format!(
        "## Idle\n\n{PROCESSES} processes with {FDS} descriptors in all, default settings, over \
         {seconds} s:\n\n| | figure | aim | |\n|---|---|---|---|\n\
         | CPU, share of one core | {percent:.2} % | {AIM_CPU} % | {} |\n\
         | resident memory | {rss:.0} MiB | {AIM_RSS} MiB | {} |\n",
        at_most(percent, AIM_CPU),
        at_most(rss, AIM_RSS)
    ))
}
