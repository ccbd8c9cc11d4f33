//! Which mechanism each source uses, and why not a better one.

use std::error::Error;
use std::path::Path;

use super::bpf::{Bpf, WANTED};
use super::fdprobes::FdProbes;
use super::model::{FdTable, Observation, ProcessSample, SourceState};
use super::privilege::{Capability, Privileges};
use super::selftest;
use super::sizes::Sizes;
use super::witness::{self, Stranger};
use crate::config::model::{ProbeMode, StackMode, Watch};

/// After so many failures in a row the census iterator is not tried again.
const MAX_FAILURES: u32 = 5;

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
    /// Its failures in a row.
    census_failures: u32,
    /// The process table by iterator.
    pub roster: Rung,
    /// The task probes.
    pub tasks: Rung,
    /// The fd probes.
    pub fds: Rung,
    /// Those that can be attached and have passed their self-test.
    pub fds_chosen: Option<FdProbes>,
    /// Better ones, and why not those.
    fds_passed_over: Vec<(FdProbes, String)>,
    /// They were to be attached, and the kernel refused.
    fds_refused: bool,
    probes: ProbeMode,
    stacks: StackMode,
}

impl Ladder {
    fn new(watch: &Watch) -> Self {
        Self {
            privileges: Privileges::of_self(),
            census: Rung::default(),
            census_failures: 0,
            roster: Rung::default(),
            tasks: Rung::default(),
            fds: Rung::default(),
            fds_chosen: None,
            fds_passed_over: Vec::new(),
            fds_refused: false,
            probes: watch.probes,
            stacks: watch.stacks,
        }
    }

    /// Tries from the top.
    pub fn climb(watch: &Watch, sizes: &Sizes) -> (Option<Bpf>, Self) {
        let mut ladder = Self::new(watch);
        let mut bpf = match Bpf::load(sizes) {
            Ok(bpf) => bpf,
            Err(e) => {
                let reason = ladder.privileges.refusal(&format!("{e}"), &e, &WANTED);
                ladder.without_bpf(&reason);
                return (None, ladder);
            }
        };
        ladder.census = ladder.rung("the iter/task_file program", bpf.open_census());
        if ladder.census.active
            && let Err(e) = witness::check(&mut bpf)
        {
            if e.is::<Stranger>() {
                ladder.without_bpf(&e.to_string());
                return (None, ladder);
            }
            ladder.census_failed(&*e);
        }
        // Only where the programs are known to speak of the same processes as /proc.
        ladder.roster = if ladder.census.active {
            ladder.rung("the iter/task program", bpf.open_processes())
        } else {
            Rung::down("goes with the census by iterator".into())
        };
        ladder.tasks = ladder.rung("the task probes", bpf.attach_tasks());
        ladder.choose_fds(&mut bpf);
        (Some(bpf), ladder)
    }

    /// The programs that tell births, and none of the others, each of which takes the
    /// kernel's verifier a second. Who ends is not told: see [`Bpf::attach_forks`].
    ///
    /// # Errors
    /// In words, what is refused and what to grant.
    pub fn births(sizes: &Sizes) -> Result<Bpf, String> {
        let watch = Watch { probes: ProbeMode::Always, ..Watch::default() };
        let mut ladder = Self::new(&watch);
        let refused =
            |e: &super::bpf::BpfError| Privileges::of_self().refusal(&format!("{e}"), e, &WANTED);
        let mut bpf = Bpf::load_for_open(sizes).map_err(|e| refused(&e))?;
        ladder.tasks = ladder.rung("the fork probe", bpf.attach_forks());
        if !ladder.tasks.active {
            return Err(ladder.tasks.reason);
        }
        ladder.choose_fds(&mut bpf);
        if ladder.fds_chosen.is_none() {
            return Err(ladder.fds.reason);
        }
        ladder.fds_attached(bpf.attach_fds());
        if ladder.fds.active { Ok(bpf) } else { Err(ladder.fds.reason) }
    }

    /// Nothing of the programs can be used.
    fn without_bpf(&mut self, reason: &str) {
        tracing::info!(%reason, "BPF is not available");
        for rung in [&mut self.census, &mut self.roster, &mut self.tasks, &mut self.fds] {
            *rung = Rung::down(reason.into());
        }
    }

    /// Takes the first set of fd probes that the kernel accepts and that sees what
    /// it must, and leaves it loaded.
    fn choose_fds(&mut self, bpf: &mut Bpf) {
        if self.probes == ProbeMode::Off {
            self.fds_detached();
            return;
        }
        let there = bpf.fd_probes_there();
        if !there.iter().any(|p| p.nearly_free()) {
            let missing = FdProbes::all().filter(|p| p.nearly_free());
            self.fds_passed_over = missing
                .map(|p| (p, "fentry: this kernel lacks the functions to attach to".into()))
                .collect();
        }
        for probes in there {
            let what = format!("{} for the fd probes", probes.mechanism());
            let why = match bpf.load_fds(probes).and_then(|()| bpf.attach_fds()) {
                Ok(()) => {
                    let tried = selftest::run(bpf);
                    bpf.detach_fds();
                    match tried {
                        Ok(()) => {
                            let mechanism = probes.mechanism();
                            tracing::info!(mechanism, "the fd probes passed their self-test");
                            self.fds_chosen = Some(probes);
                            self.fds_detached();
                            return;
                        }
                        Err(e) => format!("{what}: {e}"),
                    }
                }
                Err(e) => self.privileges.refusal(&what, &*e, &WANTED),
            };
            tracing::info!(reason = %why, "a kind of fd probes is not available");
            self.fds = Rung::down(why.clone());
            self.fds_passed_over.push((probes, why));
        }
    }

    /// Other modes. Probes that were off have not been tried yet.
    pub fn reconfigure(&mut self, watch: &Watch, bpf: &mut Bpf) {
        let untried = self.probes == ProbeMode::Off && watch.probes != ProbeMode::Off;
        (self.probes, self.stacks) = (watch.probes, watch.stacks);
        if untried && self.fds_chosen.is_none() {
            self.choose_fds(bpf);
        } else if !self.fds.active && !self.fds_refused && self.fds_chosen.is_some() {
            self.fds_detached();
        }
    }

    /// The fd probes cost next to nothing here, so `auto` keeps them attached.
    pub fn fds_nearly_free(&self) -> bool {
        self.fds_chosen.is_some_and(FdProbes::nearly_free)
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

    /// The iterator works, or has failed so seldom that it may work again.
    pub fn census_is_worth_a_try(&self) -> bool {
        self.census.active || (1..MAX_FAILURES).contains(&self.census_failures)
    }

    /// The iterator works, or works again.
    pub fn census_worked(&mut self) {
        if !self.census.active {
            tracing::info!("the census iterator works again");
            self.census = Rung::up();
        }
        self.census_failures = 0;
    }

    /// The iterator worked before, and did not this time.
    pub fn census_failed(&mut self, e: &(dyn Error + 'static)) {
        self.census_failures += 1;
        self.census =
            Rung::down(self.privileges.refusal("reading the census iterator", e, &WANTED));
        tracing::warn!(reason = %self.census.reason, "the census falls back to /proc");
    }

    /// The list of processes worked before, and did not this time.
    pub fn roster_failed(&mut self, e: &(dyn Error + 'static)) {
        self.roster =
            Rung::down(self.privileges.refusal("reading the list of processes", e, &WANTED));
        tracing::warn!(reason = %self.roster.reason, "processes are listed from /proc");
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
        let denied = |p: &&ProcessSample| matches!(p.fds, FdTable::Count(_) | FdTable::Denied);
        let denied = seen.processes.iter().filter(denied).count();
        let blind = self.blindness(denied, seen.processes.len());
        let mut states =
            vec![state("census", "iter/task_file", self.census.active, &self.census.reason)];
        if !self.census.active {
            states.push(state("census", "proc", denied < seen.processes.len(), &blind));
        }
        states.push(state("task_probes", "tp_btf", self.tasks.active, &self.tasks.reason));
        states.extend(self.fd_states());
        let (active, why) = match self.stacks {
            StackMode::Off => (false, "switched off (stacks = \"off\")"),
            _ if self.fds.active => (true, ""),
            _ => (false, "taken by the fd probes, which are not attached"),
        };
        let mut stacks = state("stacks", "bpf_get_stackid", active, why);
        stacks.standby = !active && (self.stacks == StackMode::Off || self.fds_wait());
        states.push(stacks);
        let hidden = !shows_init(Path::new("/proc"));
        let hidden = if hidden {
            "/proc is mounted with hidepid: other users' processes are not seen"
        } else {
            ""
        };
        if self.roster.active {
            states.push(state("process_table", "iter/task", true, hidden));
        } else {
            let mut better = state("process_table", "iter/task", false, &self.roster.reason);
            // /proc lists the same processes, at a higher price.
            better.standby = true;
            states.extend([better, state("process_table", "proc", true, hidden)]);
        }
        states.push(state(
            "cgroups",
            "cgroupfs",
            cgroups,
            if cgroups { "" } else { "no cgroup filesystem is mounted: no pids.max" },
        ));
        states
    }

    /// The fd probes that are in use or could be, after the better ones that are
    /// not to be had.
    fn fd_states(&self) -> Vec<SourceState> {
        let state = |mechanism: &str, active, standby, reason: &str| SourceState {
            source: "fd_probes".into(),
            mechanism: mechanism.into(),
            active,
            standby,
            reason: reason.into(),
        };
        let chosen = self.fds_chosen.map(FdProbes::mechanism);
        let mut states: Vec<SourceState> = Vec::new();
        for (probes, why) in &self.fds_passed_over {
            let mechanism = probes.mechanism();
            match states.last_mut().filter(|s| s.mechanism == mechanism) {
                // Of several ways by one mechanism the last one tried says why.
                Some(last) => last.reason.clone_from(why),
                None if chosen == Some(mechanism) => {}
                // Where another does its work, nothing is blind for want of it.
                None => states.push(state(mechanism, false, chosen.is_some(), why)),
            }
        }
        if let Some(mechanism) = chosen {
            states.push(state(mechanism, self.fds.active, self.fds_wait(), &self.fds.reason));
        } else if self.fds_passed_over.is_empty() {
            let mechanism = if self.probes == ProbeMode::Off { "none" } else { "tp_btf" };
            states.push(state(mechanism, false, self.fds_wait(), &self.fds.reason));
        }
        states
    }

    /// The fd probes could be attached and are not, by choice.
    fn fds_wait(&self) -> bool {
        let may = self.fds_chosen.is_some() || self.probes == ProbeMode::Off;
        !self.fds.active && may && !self.fds_refused
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

/// Whether `path` is a proc filesystem that shows other users' processes
/// (`hidepid`, `Documentation/filesystems/proc.rst`).
fn shows_init(proc: &Path) -> bool {
    proc.join("1/stat").exists()
}
