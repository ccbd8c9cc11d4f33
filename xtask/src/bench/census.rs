//! The census beside reading /proc and beside lsof.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::agent::Agent;
use super::holders::Holders;
use super::report::Table;
use super::stats::{Sample, at_least, at_most};
use crate::shell::{self, say};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
/// Measurements of each.
const TIMES: usize = 5;
/// The census is to be at least so much faster than /proc at the largest size.
const AIM_PROC: f64 = 8.0;
/// And than lsof.
const AIM_LSOF: f64 = 30.0;
/// Resident memory at the largest size, MiB.
const AIM_RSS: f64 = 160.0;
/// Long enough for the state of a hundred thousand descriptors to settle.
const SETTLE: Duration = Duration::from_secs(15);

/// No budget: every census is a whole one and they follow each other fast.
const CONFIG: &str =
    "[watch]\ncensus_interval = \"1s\"\ncensus_cpu_budget = 1.0\nprobes = \"off\"\n";

/// Measures all sizes.
///
/// # Errors
/// When the descriptors cannot be held or the agent cannot be asked.
pub fn measure() -> Result<String> {
    let mut table = Table::new(&[
        "fds held",
        "fds seen",
        "census, ms",
        "first census, ms",
        "/proc + readlink, ms",
        "lsof, ms",
        "/proc : census",
    ]);
    let mut last = f64::NAN;
    let mut than_lsof = None;
    let mut mechanism = String::new();
    let mut rss = f64::NAN;
    for size in SIZES {
        say(&format!("  {size} fds"));
        let holders = Holders::with(size)?;
        let agent = Agent::start(CONFIG)?;
        let (first, census, seen) = census(&agent)?;
        if let Some(state) = agent.metrics()?.working().iter().find(|s| s.starts_with("census:")) {
            mechanism.clone_from(state);
        }
        drop(agent);
        let proc = time(TIMES, || read_proc().map(drop))?;
        let lsof = match shell::which("lsof") {
            Some(lsof) => time(3, || {
                // Names as they are, no warnings: what costs least. It ends with 1
                // when a process went away meanwhile.
                let mut command = shell::command(&lsof);
                command.args(["-n", "-P", "-w"]).stdout(Stdio::null()).stderr(Stdio::null());
                command.status()?;
                Ok(())
            })?,
            None => Sample::new(vec![]),
        };
        last = proc.median() / census.median();
        than_lsof = (!lsof.is_empty()).then(|| lsof.median() / census.median());
        table.row(&[
            size.to_string(),
            format!("{seen:.0}"),
            census.spread("", 1),
            format!("{first:.1}"),
            proc.spread("", 1),
            lsof.spread("", 0),
            format!("{last:.1}"),
        ]);
        if size == SIZES[SIZES.len() - 1] {
            let agent = Agent::start("")?;
            std::thread::sleep(SETTLE);
            rss = agent.metrics()?.value("process_resident_memory_bytes")? / 1024.0 / 1024.0;
        }
        drop(holders);
    }
    let than_lsof = match than_lsof {
        Some(ratio) => format!(
            "{ratio:.1} times faster than lsof (aim {AIM_LSOF}: {})",
            at_least(ratio, AIM_LSOF)
        ),
        None => "lsof is not installed".to_owned(),
    };
    Ok(format!(
        "## Census\n\nThe agent's own `leakwatch_census_duration_seconds` ({mechanism}), beside \
         one pass over every `/proc/PID/fd`\nwith a readlink each from an optimised loop in one \
         process, beside `lsof -n -P -w`. All three see the whole host.\n\n{}\n\
         At 100,000: {last:.1} times faster than /proc (aim {AIM_PROC}: {}); {than_lsof}.\n\n\
         Resident memory of the agent at 100,000 fds, default settings, after {} s: {rss:.0} MiB \
         (aim {AIM_RSS} MiB: {}).\n",
        table.text(),
        at_least(last, AIM_PROC),
        SETTLE.as_secs(),
        at_most(rss, AIM_RSS)
    ))
}

/// The first duration, all of them in milliseconds, and the fds of the last one.
fn census(agent: &Agent) -> Result<(f64, Sample, f64)> {
    let mut durations = Vec::new();
    let mut seen_at = f64::NAN;
    let started = Instant::now();
    loop {
        let metrics = agent.metrics()?;
        let at = metrics.value("leakwatch_census_timestamp_seconds")?;
        // Not equal, rather than greater: the first comparison is with NaN.
        if (at - seen_at).abs() > 1e-6 || seen_at.is_nan() {
            seen_at = at;
            durations.push(metrics.value("leakwatch_census_duration_seconds")? * 1e3);
        }
        if durations.len() > TIMES {
            let first = durations.first().copied().unwrap_or(f64::NAN);
            return Ok((first, Sample::new(durations), metrics.value("leakwatch_census_fds")?));
        }
        if started.elapsed() > Duration::from_secs(120) {
            bail!("only {} censuses within two minutes", durations.len());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn time(times: usize, mut work: impl FnMut() -> Result<()>) -> Result<Sample> {
    let mut millis = Vec::new();
    for _ in 0..times {
        let started = Instant::now();
        work()?;
        millis.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Sample::new(millis))
}

/// Reads the target of every descriptor of every process that it may.
fn read_proc() -> Result<usize> {
    let mut seen = 0;
    for process in fs::read_dir("/proc")?.flatten() {
        if !process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let Ok(fds) = fs::read_dir(process.path().join("fd")) else { continue };
        seen += fds.flatten().filter(|fd| fs::read_link(fd.path()).is_ok()).count();
    }
    Ok(seen)
}
