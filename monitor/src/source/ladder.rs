//! Which mechanism each source uses, and why not a better one.

use std::error::Error;

use super::bpf::{Behaviour, Bpf, WANTED};
use super::model::{FdTable, Observation, SourceState};
use super::privilege::{Capability, Privileges};
use crate::config::model::{ProbeMode, StackMode, Watch};

/// One rung: what is used and why not the one above it.
#[derive(Clone, Debug, Default)]
pub struct Rung {
    /// In use.
    pub active: bool,
    /// Why not; empty where it is.
    pub reason: String,
}

impl Rung {
    fn up() -> Self {
        Self { active: true, reason: String::new() }
    }

    fn down(reason: String) -> Self {
        Self { active: false, reason }
    }
}

/// The state of every source.
#[derive(Clone, Debug)]
pub struct Ladder {
    privileges: Privileges,
    /// The census by iterator.
    pub census: Rung,
    /// The task probes.
    pub tasks: Rung,
    /// The fd probes.
    pub fds: Rung,
    /// The fd probes are verified and can be attached.
    pub fds_loaded: bool,
    /// They were to be attached, and the kernel refused.
    fds_refused: bool,
    probes: ProbeMode,
    stacks: StackMode,
}

impl Ladder {
    /// Tries from the top.
    pub fn climb(watch: &Watch) -> (Option<Bpf>, Self) {
        let mut ladder = Self {
            privileges: Privileges::of_self(),
            census: Rung::default(),
            tasks: Rung::default(),
            fds: Rung::default(),
            fds_loaded: false,
            fds_refused: false,
            probes: watch.probes,
            stacks: watch.stacks,
        };
        let behaviour = Behaviour {
            watch_all: watch.probes == ProbeMode::Always,
            stacks_all: watch.stacks == StackMode::Always,
        };
        let mut bpf = match Bpf::load(behaviour) {
            Ok(bpf) => bpf,
            Err(e) => {
                let reason = ladder.privileges.refusal(&format!("{e}"), &e, &WANTED);
                tracing::info!(%reason, "BPF is not available");
                ladder.census = Rung::down(reason.clone());
                ladder.tasks = Rung::down(reason.clone());
                ladder.fds = Rung::down(reason);
                return (None, ladder);
            }
        };
        ladder.census = ladder.rung("the iter/task_file program", bpf.open_census());
        ladder.tasks = ladder.rung("the task probes", bpf.attach_tasks());
        match bpf.load_fds() {
            Ok(()) => {
                ladder.fds_loaded = true;
                ladder.fds_detached();
            }
            Err(e) => ladder.fds = ladder.rung("the fd probes", Err(e)),
        }
        (Some(bpf), ladder)
    }

    fn rung(&self, what: &str, result: Result<(), Box<dyn Error>>) -> Rung {
        match result {
            Ok(()) => Rung::up(),
            Err(e) => {
                let reason = self.privileges.refusal(what, &*e, &WANTED);
                tracing::info!(%reason, "a BPF program is not available");
                Rung::down(reason)
            }
        }
    }

    /// The iterator worked before and does no more.
    pub fn census_failed(&mut self, e: &(dyn Error + 'static)) {
        self.census =
            Rung::down(self.privileges.refusal("reading the census iterator", e, &WANTED));
        tracing::warn!(reason = %self.census.reason, "the census falls back to /proc");
    }

    /// The fd probes were attached, or refused.
    pub fn fds_attached(&mut self, result: Result<(), Box<dyn Error>>) {
        self.fds = self.rung("attaching the fd probes", result);
        self.fds_refused = !self.fds.active;
        if self.fds.active {
            tracing::info!("fd probes attached");
        }
    }

    /// The fd probes are ready and not attached.
    pub fn fds_detached(&mut self) {
        let reason = match self.probes {
            ProbeMode::Off => "switched off (probes = \"off\")",
            ProbeMode::Always => "",
            ProbeMode::Auto => {
                "waiting for a suspicion: here only system-call tracepoints are to be had, \
                 which cost every system call of the host"
            }
            ProbeMode::OnSuspicion => "waiting for a suspicion",
        };
        self.fds = Rung::down(reason.into());
        self.fds_refused = false;
        tracing::debug!("fd probes detached");
    }

    /// All states, for `doctor`, `/` and `leakwatch_source_state`.
    pub fn states(&self, seen: &Observation, cgroups: bool) -> Vec<SourceState> {
        let state = |source: &str, mechanism: &str, active: bool, reason: &str| SourceState {
            source: source.into(),
            mechanism: mechanism.into(),
            active,
            standby: false,
            reason: reason.into(),
        };
        let denied = seen.processes.iter().filter(|p| !matches!(p.fds, FdTable::Full(_))).count();
        let blind = self.blindness(denied, seen.processes.len());
        let mut states =
            vec![state("census", "iter/task_file", self.census.active, &self.census.reason)];
        if !self.census.active {
            states.push(state("census", "proc", denied < seen.processes.len(), &blind));
        }
        states.push(state("task_probes", "tp_btf", self.tasks.active, &self.tasks.reason));
        let mut fds = state("fd_probes", "tp_btf", self.fds.active, &self.fds.reason);
        fds.standby = self.fds_wait();
        states.push(fds);
        let (active, why) = match self.stacks {
            StackMode::Off => (false, "switched off (stacks = \"off\")"),
            _ if self.fds.active => (true, ""),
            _ => (false, "taken by the fd probes, which are not attached"),
        };
        let mut stacks = state("stacks", "bpf_get_stackid", active, why);
        stacks.standby = !active && (self.stacks == StackMode::Off || self.fds_wait());
        states.push(stacks);
        let hidden = !super::shows_init(std::path::Path::new("/proc"));
        states.push(state(
            "process_table",
            "proc",
            true,
            if hidden {
                "/proc is mounted with hidepid: other users' processes are not seen"
            } else {
                ""
            },
        ));
        states.push(state(
            "cgroups",
            "cgroupfs",
            cgroups,
            if cgroups { "" } else { "no cgroup filesystem is mounted: no pids.max" },
        ));
        states
    }

    /// The fd probes could be attached and are not, by choice.
    fn fds_wait(&self) -> bool {
        !self.fds.active && self.fds_loaded && !self.fds_refused
    }

    /// What `/proc` does not show, and what would.
    fn blindness(&self, denied: usize, all: usize) -> String {
        if denied == 0 {
            return String::new();
        }
        let wanted = [Capability::SysPtrace, Capability::DacReadSearch];
        let missing = self.privileges.missing(&wanted);
        let remedy = if missing.is_empty() {
            String::from("a security module or a pid namespace hides them")
        } else {
            format!("{} missing: run as root or grant them", missing.join(" and "))
        };
        format!("descriptors of {denied} of {all} processes: EACCES (Permission denied); {remedy}")
    }
}
