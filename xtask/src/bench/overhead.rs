//! What the modes cost a workload.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::agent::Agent;
use super::floor::Floor;
use super::load::Workload;
use super::optimised;
use super::report::Table;
use super::stats::{Sample, at_most};
use super::tools::Bpftrace;
use crate::shell::{self, say};

/// What runs beside the workload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Nothing,
    Off,
    Auto,
    Always,
    Sampled,
    AlwaysStacks,
    Floor,
    Bpftrace,
    Strace,
}

impl Mode {
    /// `Nothing` shows the noise: bare beside bare.
    const ALL: [Self; 9] = [
        Self::Nothing,
        Self::Off,
        Self::Auto,
        Self::Always,
        Self::Sampled,
        Self::AlwaysStacks,
        Self::Floor,
        Self::Bpftrace,
        Self::Strace,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Nothing => "nothing (noise)",
            Self::Off => "`probes = \"off\"` (census only)",
            Self::Auto => "`probes = \"auto\"` (default)",
            Self::Always => "`probes = \"always\"`",
            Self::Sampled => "`probes = \"always\"`, `stacks = \"sampled\"`",
            Self::AlwaysStacks => "`probes = \"always\"`, `stacks = \"always\"`",
            Self::Floor => "a program on `sys_exit` that returns at once",
            Self::Bpftrace => "bpftrace, counts per pid",
            Self::Strace => "strace -c",
        }
    }

    /// Stacks stay off where they are not what is measured.
    fn config(self) -> Option<String> {
        let (probes, stacks) = match self {
            Self::Off => ("off", "off"),
            Self::Auto => ("auto", "on-suspicion"),
            Self::Always => ("always", "off"),
            Self::Sampled => ("always", "sampled"),
            Self::AlwaysStacks => ("always", "always"),
            Self::Nothing | Self::Floor | Self::Bpftrace | Self::Strace => return None,
        };
        Some(format!("[watch]\nprobes = \"{probes}\"\nstacks = \"{stacks}\"\n"))
    }

    /// The aim for a workload, as a ratio. `auto` and `off` should cost nothing that
    /// can be told from noise: 3 % is what a pinned loop repeats to. Task probes are
    /// attached in every mode, so a fork with its exit has an aim of its own.
    fn aim(self, workload: Workload) -> Option<f64> {
        match (self, workload) {
            (Self::Always, Workload::OpenClose) => Some(1.25),
            (Self::Always, Workload::Getppid) => Some(1.5),
            (Self::Off | Self::Auto, Workload::ForkExit) => Some(1.05),
            (Self::Off | Self::Auto, _) => Some(1.03),
            _ => None,
        }
    }
}

/// What stays alive while a mode is measured.
enum Beside {
    Nothing,
    Agent(Agent),
    Floor { _attached: Floor },
    Bpftrace { _running: Bpftrace },
}

/// Ratios of every mode and workload.
#[derive(Default)]
struct Results {
    bare: Vec<(Workload, f64)>,
    ratios: Vec<(Mode, Workload, f64)>,
    working: Vec<(Mode, Vec<String>)>,
    failures: Vec<(Mode, String)>,
}

/// Measures all modes in each round, every one right after a bare run.
///
/// # Errors
/// When a workload fails. A tool that cannot be started is left out, and said.
pub fn measure(rounds: u32, millis: u64) -> Result<String> {
    let cpu = std::thread::available_parallelism().map_or(1, usize::from) - 1;
    let mut results = Results::default();
    for round in 1..=rounds {
        say(&format!("  round {round} of {rounds}"));
        for mode in Mode::ALL {
            if results.failures.iter().any(|(failed, _)| *failed == mode) {
                continue;
            }
            let mut bare = Vec::new();
            for workload in Workload::ALL {
                let nanos = one(workload, millis, cpu, false)?;
                results.bare.push((workload, nanos));
                bare.push(nanos);
            }
            let beside = match start(mode) {
                Ok(beside) => beside,
                Err(error) => {
                    say(&format!("  {} left out: {error:#}", mode.title()));
                    let first = error.to_string().lines().next().unwrap_or("").to_owned();
                    results.failures.push((mode, first));
                    continue;
                }
            };
            for (workload, bare) in Workload::ALL.into_iter().zip(bare) {
                let nanos = one(workload, millis, cpu, mode == Mode::Strace)?;
                results.ratios.push((mode, workload, nanos / bare));
            }
            if let Beside::Agent(agent) = &beside
                && round == 1
            {
                results.working.push((mode, agent.metrics()?.working()));
            }
        }
    }
    Ok(page(&results, rounds, millis))
}

fn start(mode: Mode) -> Result<Beside> {
    if let Some(config) = mode.config() {
        return Ok(Beside::Agent(Agent::start(&config)?));
    }
    Ok(match mode {
        Mode::Floor => Beside::Floor { _attached: Floor::attach()? },
        Mode::Bpftrace => Beside::Bpftrace { _running: Bpftrace::start()? },
        Mode::Strace => {
            shell::need("strace")?;
            Beside::Nothing
        }
        _ => Beside::Nothing,
    })
}

/// Nanoseconds per turn.
fn one(workload: Workload, millis: u64, cpu: usize, strace: bool) -> Result<f64> {
    let mut command = if strace {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-c", "-o", "/dev/null", "--"]).arg(optimised());
        strace
    } else {
        Command::new(optimised())
    };
    command.args(["load", workload.as_arg()]);
    command.args(["--millis", &millis.to_string(), "--cpu", &cpu.to_string()]);
    let text = shell::capture(command.stderr(Stdio::piped()))?;
    text.parse().with_context(|| format!("a workload said `{text}`"))
}

fn page(results: &Results, rounds: u32, millis: u64) -> String {
    let mut bare = Table::new(&["workload", "bare, ns"]);
    for workload in Workload::ALL {
        let values = results.bare.iter().filter(|(w, _)| *w == workload);
        let sample = Sample::new(values.map(|(_, nanos)| *nanos).collect());
        bare.row(&[workload.title(), &sample.spread("", 0)]);
    }
    let mut columns = vec!["beside it"];
    columns.extend(Workload::ALL.map(Workload::title));
    let mut ratios = Table::new(&columns);
    for mode in Mode::ALL {
        let mut row = vec![mode.title().to_owned()];
        for workload in Workload::ALL {
            let values = results.ratios.iter().filter(|(m, w, _)| *m == mode && *w == workload);
            let sample = Sample::new(values.map(|(_, _, ratio)| *ratio).collect());
            let mut cell = sample.spread("", 2);
            if let (Some(aim), false) = (mode.aim(workload), sample.is_empty()) {
                cell.push_str(&format!(" · aim {aim}: {}", at_most(sample.median(), aim)));
            }
            row.push(cell);
        }
        ratios.row(&row);
    }
    let mut text = format!(
        "## Workloads\n\n{rounds} rounds of {millis} ms each, pinned to the last CPU. In a round \
         every mode is measured right after a bare run;\nthe ratio is between the two. A measurement is the median over short batches: what the agent takes of a \
         core\nis under Idle.\n\n{}\n\
         Times the bare run:\n\n{}",
        bare.text(),
        ratios.text()
    );
    for (mode, working) in &results.working {
        text.push_str(&format!("\n{}: {}.\n", mode.title(), working.join(", ")));
    }
    for (mode, why) in &results.failures {
        text.push_str(&format!("\n{} could not be measured: {why}.\n", mode.title()));
    }
    text
}
