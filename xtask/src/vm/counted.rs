//! The guest's side of `cargo xtask vm --bench`: every workload beside every mode,
//! on a processor whose clock counts instructions.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::guest::MARK;
use super::suites::HOME;
use crate::bench::agent::Agent;
use crate::bench::load::Workload;
use crate::shell::{self, say};

/// What runs beside a workload.
pub struct Mode {
    /// Its name between the guest and the host.
    pub name: &'static str,
    /// On the page.
    pub title: &'static str,
    /// `probes` and `stacks`; no agent without.
    config: Option<(&'static str, &'static str)>,
    /// The mechanism that the fd probes must say they use; the kernel is made to
    /// refuse better ones.
    mechanism: Option<&'static str>,
}

const fn mode(
    name: &'static str,
    title: &'static str,
    config: (&'static str, &'static str),
    mechanism: Option<&'static str>,
) -> Mode {
    Mode { name, title, config: Some(config), mechanism }
}

/// All, in the order of the page. What the others are compared with comes last: for
/// some time after its boot Linux 7 takes ways that are three times as long.
pub const MODES: [Mode; 8] = [
    Mode { name: "first", title: "nothing, at first", config: None, mechanism: None },
    mode("census", "census only", ("off", "off"), None),
    mode("fentry", "fentry", ("always", "off"), Some("fentry")),
    mode("fentry-some", "fentry, stacks on suspicion", ("always", "on-suspicion"), Some("fentry")),
    mode("fentry-all", "fentry, all stacks", ("always", "always"), Some("fentry")),
    mode("tp_btf", "tp_btf", ("always", "off"), Some("tp_btf")),
    mode("tp_btf-all", "tp_btf, all stacks", ("always", "always"), Some("tp_btf")),
    Mode { name: "bare", title: "nothing", config: None, mechanism: None },
];

/// Batches of all workloads but one, whose single turn is as long as a batch.
const BATCHES: u32 = 50;
const FORKS: u32 = 200;
/// What open+close and dup+close acquire together, with the tenth that warms up.
const OPENED: f64 = (2 * (BATCHES + BATCHES / 10) * 256) as f64;
/// What is opened besides, by the agent and by the processes of the loops: files of
/// /proc, libraries. Far less than one loop opens, so none is counted twice or not.
const BESIDES: f64 = 2_000.0;

/// While it is 0, the kernel attaches nothing to the entry of a function.
const SWITCH: &str = "/proc/sys/kernel/ftrace_enabled";

/// Measures all and says the figures.
pub fn run() {
    // The first opens after a boot take longer ways: not those that are measured.
    if let Err(error) = Workload::ALL.into_iter().try_for_each(|w| load(w).map(drop)) {
        say(&format!("{MARK}broken {error:#}"));
        return;
    }
    for mode in &MODES {
        say(&format!("{MARK}begin {}", mode.name));
        match measure(mode) {
            Ok(()) => say(&format!("{MARK}end {} ok 0", mode.name)),
            Err(error) => {
                say(&format!("{error:#}"));
                say(&format!("{MARK}end {} failed 0", mode.name));
            }
        }
    }
}

fn measure(mode: &Mode) -> Result<()> {
    let fentry = if mode.mechanism == Some("tp_btf") { "0" } else { "1" };
    fs::write(SWITCH, fentry).with_context(|| format!("cannot write {SWITCH}"))?;
    let agent = match mode.config {
        Some((probes, stacks)) => {
            // No census falls into a measurement by chance, or all the time.
            let config = format!(
                "[watch]\nprobes = \"{probes}\"\nstacks = \"{stacks}\"\ncensus_interval = \"60s\"\n"
            );
            Some(Agent::start_program(Path::new(&format!("/{HOME}/leakwatch")), &config)?)
        }
        None => None,
    };
    if let (Some(agent), Some(wanted)) = (&agent, mode.mechanism) {
        let working = agent.metrics()?.working();
        if !working.contains(&format!("fd_probes: {wanted}")) {
            bail!("the fd probes are not by {wanted}: {}", working.join(", "));
        }
    }
    for workload in Workload::ALL {
        let figure = load(workload)?;
        say(&format!("{MARK}figure {} {} {figure}", mode.name, workload.as_arg()));
    }
    match &agent {
        Some(agent) if mode.mechanism.is_some() => counted(agent),
        _ => Ok(()),
    }
}

/// Figures of probes that do not count would be worth nothing: the loops' openings are
/// counted, each once, but for those that the kernel says it kept from the programs.
/// The next census exports them; an idle processor's clock jumps ahead to it.
fn counted(agent: &Agent) -> Result<()> {
    let mut said = String::new();
    for _ in 0..180 {
        let metrics = agent.metrics()?;
        // Whatever is not placed yet is counted as `other`, so nothing is missing.
        let opened = metrics.sum("leakwatch_unit_fds_opened_total");
        let missed = metrics.sum("leakwatch_events_lost_total");
        if (OPENED - missed..OPENED + BESIDES).contains(&opened) {
            return Ok(());
        }
        said = format!("{opened} openings are counted of {OPENED}, {missed} events lost");
        std::thread::sleep(Duration::from_secs(1));
    }
    bail!("{said}")
}

/// Instructions per turn.
fn load(workload: Workload) -> Result<String> {
    let batches = if workload == Workload::ForkExit { FORKS } else { BATCHES };
    let mut load = Command::new("/init");
    load.args(["load", workload.as_arg(), "--cpu", "0", "--batches", &batches.to_string()]);
    shell::capture(&mut load)
}
