//! What the modes cost a loop of system calls.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::load::Workload;
use super::mode::Mode;
use super::optimised;
use super::rounds::{Results, Work};
use super::stats::Sample;
use crate::shell;

/// A loop that runs for a while on one CPU.
struct Loop {
    workload: Workload,
    millis: u64,
    cpu: usize,
}

impl Work for Loop {
    fn title(&self) -> &'static str {
        self.workload.title()
    }

    /// Nanoseconds per turn.
    fn cost(&mut self, beside: Mode) -> Result<f64> {
        let mut command = if beside == Mode::Strace {
            let mut strace = Command::new("strace");
            strace.args(["-f", "-c", "-o", "/dev/null", "--"]).arg(optimised());
            strace
        } else {
            Command::new(optimised())
        };
        command.args(["load", self.workload.as_arg()]);
        command.args(["--millis", &self.millis.to_string(), "--cpu", &self.cpu.to_string()]);
        let text = shell::capture(command.stderr(Stdio::piped()))?;
        text.parse().with_context(|| format!("a workload said `{text}`"))
    }

    fn bare(&self, costs: Vec<f64>) -> String {
        Sample::new(costs).spread(" ns", 0)
    }

    /// `auto` and `off` should cost nothing that can be told from noise: 3 % is what a
    /// pinned loop repeats to. Task probes are attached in every mode, so a fork with its
    /// exit has an aim of its own.
    fn aim(&self, mode: Mode) -> Option<f64> {
        match (mode, self.workload) {
            (Mode::Always, Workload::OpenClose) => Some(1.25),
            (Mode::Always, Workload::Getppid) => Some(1.5),
            (Mode::Off | Mode::Auto, Workload::ForkExit) => Some(1.05),
            (Mode::Off | Mode::Auto, _) => Some(1.03),
            _ => None,
        }
    }
}

/// Measures all modes in each round, every one right after a bare run.
///
/// # Errors
/// When a workload fails. A tool that cannot be started is left out, and said.
pub fn measure(rounds: u32, millis: u64) -> Result<String> {
    let cpu = std::thread::available_parallelism().map_or(1, usize::from) - 1;
    let mut works: Vec<Box<dyn Work>> = Workload::ALL
        .map(|workload| Box::new(Loop { workload, millis, cpu }) as Box<dyn Work>)
        .into();
    let results = Results::measure(&mut works, &Mode::LOOPS, rounds, Duration::ZERO)?;
    Ok(format!(
        "## Workloads\n\n{rounds} rounds of {millis} ms each, pinned to the last CPU. In a round \
         every mode is measured right after a bare run;\nthe ratio is between the two. A measurement is the median over short batches: what the agent takes of a \
         core\nis under Idle.\n\n{}\nTimes the bare run:\n\n{}{}{}",
        results.bare(&works),
        results.ratios(&works, &Mode::LOOPS, 2),
        results.working(),
        results.failures()
    ))
}
