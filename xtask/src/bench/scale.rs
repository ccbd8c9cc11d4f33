//! The agent beside a million descriptors in twenty thousand processes: whether the
//! census keeps to its budget there, and by how much it has to stretch.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::agent::Agent;
use super::holders::Holders;
use super::report::Table;
use super::stats::at_most;

/// Below the 32,768 processes that a small host allows.
const PROCESSES: u32 = 20_000;
const FDS: u32 = 50;
/// Until censuses of both depths have come, so that their costs are known.
const SETTLE: Duration = Duration::from_secs(60);
/// Share of one core, percent: the default budget of the census.
const AIM_CPU: f64 = 1.0;

/// Measures over `seconds`.
///
/// # Errors
/// When the processes or the agent cannot be started or asked.
pub fn measure(seconds: u64) -> Result<String> {
    let crowd = Holders::crowd(PROCESSES, FDS)?;
    let agent = Agent::start("")?;
    let first = agent.metrics()?.value("leakwatch_census_duration_seconds")?;
    std::thread::sleep(SETTLE);
    let (before, started) = (agent.cpu_seconds()?, Instant::now());
    let mut longest: f64 = 0.0;
    let mut parts = Vec::new();
    while started.elapsed() < Duration::from_secs(seconds) {
        // A scrape costs, too.
        std::thread::sleep(Duration::from_secs(15));
        let metrics = agent.metrics()?;
        longest = longest.max(metrics.value("leakwatch_census_interval_seconds")?);
        parts.push(metrics.value("leakwatch_census_duration_seconds")?);
    }
    let percent = (agent.cpu_seconds()? - before) / started.elapsed().as_secs_f64() * 100.0;
    let metrics = agent.metrics()?;
    parts.sort_by(f64::total_cmp);
    let usual = parts.get(parts.len() / 2).copied().unwrap_or_default();
    let whole = metrics.value("leakwatch_census_whole_interval_seconds")?;
    let fds = metrics.value("leakwatch_census_fds")?;
    let resident = metrics.value("process_resident_memory_bytes")?;
    drop(agent);
    drop(crowd);
    let mut table = Table::new(&["", "figure"]);
    for (what, figure) in [
        ("descriptors counted", format!("{fds:.0}")),
        ("first census, by the clock", format!("{:.0} ms", first * 1e3)),
        ("a usual census, by the clock", format!("{:.0} ms", usual * 1e3)),
        ("between two censuses, at most", format!("{longest:.0} s")),
        ("between two of all descriptors", format!("{whole:.0} s")),
        (
            "CPU of the whole agent, share of one core",
            format!("{percent:.2} % · aim {AIM_CPU} %: {}", at_most(percent, AIM_CPU)),
        ),
        (
            "resident memory",
            format!(
                "{:.0} MiB, {:.0} bytes per descriptor",
                resident / 1024.0 / 1024.0,
                resident / fds
            ),
        ),
    ] {
        table.row(&[what, &figure]);
    }
    Ok(format!(
        "## Scale\n\n{PROCESSES} processes with {FDS} files each, default settings, after {} s, over \
         {seconds} s. Most censuses count there, and read what has moved or is suspected.\n\n{}",
        SETTLE.as_secs(),
        table.text()
    ))
}
