//! What one run of each BPF program takes, by the kernel's own statistics.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::agent::{Agent, Metrics};
use super::load::Workload;
use super::optimised;
use super::report::Table;
use crate::shell;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// A census each second brings the figures up to date.
const CONFIG: &str = "[watch]\ncensus_interval = \"1s\"\ncensus_cpu_budget = 1.0\n\
    probes = \"always\"\nstacks = \"off\"\n";
/// For the figures of a census after the loops.
const SEEN_WITHIN: Duration = Duration::from_secs(20);

/// Measures under all loops, `millis` each.
///
/// # Errors
/// When the statistics cannot be had, or a loop fails.
pub fn measure(millis: u64) -> Result<String> {
    let statistics = Statistics::on()?;
    let agent = Agent::start(CONFIG)?;
    let before = fresh(&agent)?;
    for workload in Workload::ALL {
        let mut load = Command::new(optimised());
        load.args(["load", workload.as_arg(), "--cpu", "0", "--millis", &millis.to_string()]);
        shell::capture(&mut load)?;
    }
    let after = fresh(&agent)?;
    drop(agent);
    drop(statistics);
    Ok(page(&before, &after, millis))
}

/// What /metrics says after two more censuses: the first may have begun before.
fn fresh(agent: &Agent) -> Result<Metrics> {
    let asked = Instant::now();
    let mut seen = Vec::new();
    while asked.elapsed() < SEEN_WITHIN {
        let metrics = agent.metrics()?;
        let at = metrics.value("leakwatch_census_timestamp_seconds")?.to_bits();
        if seen.last() != Some(&at) {
            seen.push(at);
        }
        if seen.len() > 2 {
            return Ok(metrics);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("no two censuses within {SEEN_WITHIN:?}")
}

fn page(before: &Metrics, after: &Metrics, millis: u64) -> String {
    let grown = |name: &str| -> BTreeMap<String, f64> {
        let old = before.by_program(name);
        let new = after.by_program(name).into_iter();
        new.map(|(program, value)| (program.clone(), value - old.get(&program).unwrap_or(&0.0)))
            .collect()
    };
    let seconds = grown("leakwatch_probe_runtime_seconds_total");
    let mut table = Table::new(&["program", "runs", "ns per run"]);
    for (program, runs) in grown("leakwatch_probe_runs_total") {
        if let (Some(seconds), true) = (seconds.get(&program), runs > 0.0) {
            table.row(&[program, format!("{runs:.0}"), format!("{:.0}", seconds / runs * 1e9)]);
        }
    }
    format!(
        "## Run time of the BPF programs\n\nWhat the agent exports as \
         `leakwatch_probe_runtime_seconds_total` and `leakwatch_probe_runs_total` of\nall loops \
         above, {millis} ms each, with `probes = \"always\"`, `stacks = \"off\"` and \
         `kernel.bpf_stats_enabled` on for this\npart alone. The kernel's two readings of the clock are \
         partly within. A run of the census program is one descriptor.\n\n{}",
        table.text()
    )
}

/// The kernel's statistics, on. They tax every BPF program of the host, so a child puts
/// the old value back when its stdin closes: with this value, or with the bench.
struct Statistics(Child);

impl Statistics {
    fn on() -> Result<Self> {
        let old = fs::read_to_string(SWITCH).with_context(|| format!("cannot read {SWITCH}"))?;
        let child = Command::new("sh")
            .args(["-c", "trap '' INT TERM HUP; cat >/dev/null; echo \"$1\" >\"$2\"", "sh"])
            .args([old.trim(), SWITCH])
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start sh")?;
        let statistics = Self(child);
        fs::write(SWITCH, "1").with_context(|| format!("cannot write {SWITCH}"))?;
        Ok(statistics)
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ran_under_the_loops_counts() {
        let said = |runs: u32, seconds: f64| {
            Metrics(format!(
                "leakwatch_probe_runs_total{{program=\"a\"}} {runs}\n\
                 leakwatch_probe_runs_total{{program=\"b\"}} 5\n\
                 leakwatch_probe_runtime_seconds_total{{program=\"a\"}} {seconds}\n\
                 leakwatch_probe_runtime_seconds_total{{program=\"b\"}} 1\n"
            ))
        };
        let page = page(&said(100, 0.5), &said(1100, 0.500_05), 400);
        assert!(page.ends_with("| --- | --- | --- |\n| a | 1000 | 50 |\n"), "{page}");
    }
}
