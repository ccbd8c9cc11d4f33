//! What an async task costs more where it is counted.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::agent::Agent;
use super::report::Table;
use super::stats::Sample;
use crate::{shell, workspace};

const PROGRAM: &str = "tokio-server";
/// Tasks of one measurement.
const TASKS: u32 = 20_000;
/// Pairs of measurements.
const ROUNDS: u32 = 9;
/// The program's symbols are read, and the probes put in.
const PROBED_WITHIN: Duration = Duration::from_secs(30);

/// The section: two copies of one program in turn, one of them probed, for the probes are
/// in the file.
///
/// # Errors
/// When the program or the agent does not start, or the tasks are not counted.
pub fn measure(build: bool) -> Result<String> {
    if build {
        let what = ["build", "--locked", "--release", "--package", "leakwatch-tests"];
        shell::run(shell::cargo(what).args(["--bin", PROGRAM]))?;
    }
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let agent = Agent::start(
        "[watch]\ncensus_interval = \"250ms\"\n\
         [[unit]]\nname = \"probed\"\ncmdline = \"*--tag task-probed*\"\ntasks = \"tokio\"\n",
    )?;
    let mut bare = Loop::start(&dir, "bare")?;
    let mut probed = Loop::start(&dir, "probed")?;
    let begun = Instant::now();
    while agent.metrics()?.value("leakwatch_unit_async_tasks{unit=\"probed\"}").is_err() {
        if begun.elapsed() > PROBED_WITHIN {
            bail!("the agent does not count the tasks of {PROGRAM}: see its log");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let (mut without, mut with, mut more) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (bare, probed) = (bare.nanoseconds()?, probed.nanoseconds()?);
        // The first one warms up.
        if round > 0 {
            without.push(bare);
            with.push(probed);
            more.push(probed - bare);
        }
    }
    let mut table = Table::new(&["a task that is spawned, ends at once and is awaited", ""]);
    for (what, figures) in [("not counted", without), ("counted", with), ("more by", more)] {
        table.row(&[what.to_owned(), Sample::new(figures).spread(" ns", 0)]);
    }
    Ok(format!(
        "## Async tasks\n\n{ROUNDS} pairs of {TASKS} tasks each, on one thread, in a program of a unit with \
         `tasks = \"tokio\"`\nbeside the same in another file ([tasks.md](tasks.md)):\n\n{}",
        table.text()
    ))
}

/// A program that measures when it is told to.
struct Loop {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Loop {
    fn start(dir: &TempDir, name: &str) -> Result<Self> {
        let file: &Path = &dir.path().join(name);
        fs::copy(workspace::target().join("release").join(PROGRAM), file)
            .with_context(|| format!("{PROGRAM} has not been built"))?;
        let mut child = Command::new(file)
            .args(["--mode", "cost", "--count", &TASKS.to_string()])
            .args(["--tag", &format!("task-{name}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", file.display()))?;
        let (to, from) = child.stdin.take().zip(child.stdout.take()).context("no pipes")?;
        Ok(Self { child, to, from: BufReader::new(from) })
    }

    /// Of one task.
    fn nanoseconds(&mut self) -> Result<f64> {
        writeln!(self.to, "go")?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        let took = line.trim().strip_prefix("took ").context("the program has ended")?;
        Ok(took.parse::<f64>()? / f64::from(TASKS))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // It may have ended already, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
