//! `leakwatch doctor`: what this host allows, what is blind, what to grant.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::model::{Depth, FdTable, SourceState};
use super::privilege::{Capability, Privileges};
use super::processes::ChooseCgroup;
use super::{Source, SourceError};
use crate::config::model::Config;
use crate::text;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `uname -r`.
    pub kernel: String,
    /// Architecture.
    pub machine: String,
    /// `/sys/kernel/security/lockdown`, where it is to be read.
    pub lockdown: Option<String>,
    /// The kernel publishes its type information.
    pub btf: bool,
    /// Capabilities the agent would use, and whether it has them.
    pub capabilities: Vec<CapabilityState>,
    /// What each source uses, and why not more.
    pub sources: Vec<SourceState>,
    /// Processes seen.
    pub processes: usize,
    /// Of those, with every descriptor.
    pub processes_full: usize,
    /// Of those, only counted.
    pub processes_counted: usize,
    /// Of those, denied.
    pub processes_denied: usize,
    /// Descriptors seen.
    pub fds: u64,
    /// Seconds one census took.
    pub census_seconds: f64,
}

/// One capability.
#[derive(Clone, Debug, Serialize)]
pub struct CapabilityState {
    /// Its name.
    pub name: &'static str,
    /// It is effective.
    pub effective: bool,
    /// What it is for.
    pub purpose: &'static str,
}

const PURPOSES: [(Capability, &str); 5] = [
    (Capability::Bpf, "load BPF programs (census by iterator, probes)"),
    (Capability::Perfmon, "trace the kernel (census by iterator, probes)"),
    (Capability::SysPtrace, "read descriptors of other users' processes"),
    (Capability::DacReadSearch, "list descriptors of other users' processes"),
    (Capability::Kill, "cleanup: signal other users' processes"),
];

/// The system bus answers at once, or it is said that it does not.
const BUS: Duration = Duration::from_secs(6);

/// Tries everything once, fd probes too, and lets go of it again.
///
/// # Errors
/// There is no usable `/proc`.
pub fn examine(config: &Config, choose: ChooseCgroup) -> Result<Report, SourceError> {
    let mut source = Source::open(config, choose)?;
    // Whether they attach is only known by attaching them.
    source.attach_fds();
    source.systemd.settle(BUS);
    let seen = source.look(Depth::Whole)?;
    let privileges = Privileges::of_self();
    let uname = rustix::system::uname();
    let count = |f: fn(&FdTable) -> bool| seen.processes.iter().filter(|p| f(&p.fds)).count();
    Ok(Report {
        kernel: uname.release().to_string_lossy().into_owned(),
        machine: uname.machine().to_string_lossy().into_owned(),
        lockdown: lockdown(),
        btf: std::path::Path::new(super::btf::Btf::PATH).exists(),
        capabilities: PURPOSES
            .iter()
            .map(|(c, purpose)| CapabilityState {
                name: c.name(),
                effective: privileges.has(*c),
                purpose,
            })
            .collect(),
        processes: seen.processes.len(),
        processes_full: count(|t| matches!(t, FdTable::Full(_))),
        processes_counted: count(|t| matches!(t, FdTable::Count(_))),
        processes_denied: count(|t| matches!(t, FdTable::Denied)),
        fds: seen.figures.census_fds,
        census_seconds: seen.figures.census_seconds,
        sources: seen.sources,
    })
}

/// The mode in brackets: `none [integrity] confidentiality`.
fn lockdown() -> Option<String> {
    let all = std::fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    Some(all.split_once('[')?.1.split_once(']')?.0.to_string())
}

impl Report {
    /// Not one process could be looked into.
    pub fn is_blind(&self) -> bool {
        self.processes_full == 0
    }

    /// The report as text, `width` columns wide.
    pub fn render(&self, width: usize) -> String {
        let mut out = String::new();
        let lockdown = self.lockdown.as_deref().unwrap_or("unknown");
        let btf = match self.btf {
            true => "yes",
            false if std::path::Path::new("/sys/kernel").exists() => "no (CONFIG_DEBUG_INFO_BTF)",
            false => "not to be seen (sysfs is not mounted on /sys)",
        };
        let _ = writeln!(
            out,
            "kernel {} {}, BTF {btf}, lockdown {lockdown}\n",
            self.kernel, self.machine
        );
        let mut told: Vec<&SourceState> = Vec::new();
        for s in &self.sources {
            let mark = match (s.active, s.standby) {
                (true, _) => "ok  ",
                (false, true) => "--  ",
                (false, false) => "no  ",
            };
            let _ =
                writeln!(out, "{mark}{:<14} {}", s.source, text::printable(s.mechanism.as_bytes()));
            // What stops several is told once.
            let reason = match told.iter().find(|t| t.reason == s.reason) {
                Some(first) => format!("as for {} by {}", first.source, first.mechanism),
                None => s.reason.clone(),
            };
            if !s.reason.is_empty() {
                told.push(s);
                for line in wrap(&reason, width.saturating_sub(6).max(20)) {
                    let _ = writeln!(out, "      {line}");
                }
            }
        }
        out.push('\n');
        for c in &self.capabilities {
            let mark = if c.effective { "ok  " } else { "no  " };
            let _ = writeln!(out, "{mark}{:<20} {}", c.name, c.purpose);
        }
        let _ = writeln!(
            out,
            "\n{} processes: {} seen in full, {} counted only, {} denied",
            self.processes, self.processes_full, self.processes_counted, self.processes_denied
        );
        let took = text::duration(Duration::from_secs_f64(self.census_seconds));
        let _ = writeln!(out, "{} descriptors in {took}", self.fds);
        out
    }
}

fn wrap(sentence: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in sentence.split_whitespace() {
        match lines.last_mut() {
            Some(l) if l.chars().count() + 1 + word.chars().count() <= width => {
                l.push(' ');
                l.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stops_several_sources_is_told_once() {
        let state = |source: &str, active, reason: &str| SourceState {
            source: source.into(),
            mechanism: "tp_btf".into(),
            active,
            standby: false,
            reason: reason.into(),
        };
        let report = Report {
            kernel: "6.1".into(),
            machine: "x86_64".into(),
            lockdown: None,
            btf: true,
            capabilities: Vec::new(),
            processes: 2,
            processes_full: 1,
            processes_counted: 1,
            processes_denied: 0,
            fds: 3,
            census_seconds: 0.001,
            sources: vec![
                state("a", false, "EPERM; CAP_BPF missing"),
                state("b", true, ""),
                state("c", false, "EPERM; CAP_BPF missing"),
                state("d", true, ""),
            ],
        };
        let text = report.render(80);
        let lines = "no  a              tp_btf\n      EPERM; CAP_BPF missing\nok  b              tp_btf\n\
                     no  c              tp_btf\n      as for a by tp_btf\nok  d              tp_btf\n";
        assert!(text.contains(lines), "{text}");
    }
}
