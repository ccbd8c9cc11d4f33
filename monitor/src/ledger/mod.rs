//! Stage 3: one balance sheet of what is open, since when and whose.
//!
//! The census is the truth; what probes said is kept where it fits and counted
//! as a correction where it does not. See `docs/detection.md`.

pub(crate) mod asynctasks;
pub(crate) mod balance;
pub mod baseline;
mod collapse;
mod descriptions;
mod intake;
pub(crate) mod invocation;
pub(crate) mod late;
mod lives;
mod managed;
mod openers;
pub(crate) mod orphans;
pub(crate) mod parts;
pub(crate) mod patterns;
pub(crate) mod process;
pub(crate) mod template;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod track;
pub mod view;
mod views;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::attribution::managed::Managed;
use crate::attribution::unit::Unit;
use crate::config::model::Config;
use crate::ledger::baseline::Baselines;
use crate::ledger::descriptions::Descriptions;
use crate::ledger::invocation::UnitState;
use crate::ledger::openers::Openers;
use crate::ledger::patterns::Patterns;
use crate::ledger::process::{Held, Process};
use crate::ledger::track::Window;
use crate::source::model::{
    Depth, FdTable, KernelStr, Observation, Opener, OpenerKey, ProcessId, TaskEvent, UnitFlows,
};
use crate::time::{Boottime, ClockPair};

/// So many times `windows` windows are a day.
pub(crate) const DAY: u32 = 48;

/// Days for which it is remembered what was closed, and how old it was.
pub(crate) const REMEMBERED: u32 = 3;

/// Forks remembered between two censuses, to know the parent of a process
/// whose parent has gone by then.
const MAX_FORKS: usize = 8192;

/// The balance sheet.
pub struct Ledger {
    patterns: Patterns,
    max_units: usize,
    window: Window,
    windows: u32,
    warmup: Duration,
    stale_after: Duration,
    clock: ClockPair,
    /// Censuses so far.
    looks: u64,
    /// Begin of the previous census.
    previous: Option<Boottime>,
    /// End of the first census of the present spell of fd probes.
    fd_probes: Option<Boottime>,
    task_probes: bool,
    /// Descriptions are told by their kernel address, not guessed from /proc.
    exact_files: bool,
    next_serial: u32,
    processes: BTreeMap<ProcessId, Process>,
    units: BTreeMap<Arc<str>, UnitState>,
    /// Counted by the probes for no unit.
    unplaced: Option<UnitFlows>,
    descriptions: Descriptions,
    templates: HashSet<Arc<str>>,
    stacks: BTreeMap<u32, Vec<u64>>,
    openers: Openers,
    pids_max: BTreeMap<KernelStr, u64>,
    baselines: Baselines,
    /// Child to parent, since the last census and the one before.
    forks: [BTreeMap<ProcessId, ProcessId>; 2],
    /// Gone or come without a task event so far, and since which census.
    unexplained_exits: BTreeMap<ProcessId, u64>,
    unexplained_forks: BTreeMap<ProcessId, u64>,
    corrections: BTreeMap<String, u64>,
    collapses: u64,
    /// By source: how many since start, and when the last was noticed.
    lost: BTreeMap<String, (u64, Boottime)>,
}

/// Causes of corrections. Each is shown from 0 on, for the first of a counter
/// that begins at 1 is an increase that no query sees.
const CAUSES: [&str; 5] =
    ["stale_birth", "unseen_close", "unseen_exit", "unseen_fork", "unseen_open"];

impl Ledger {
    /// An empty ledger.
    ///
    /// # Errors
    /// A glob of the config is malformed.
    pub fn new(config: &Config) -> Result<Self, globset::Error> {
        Ok(Self {
            patterns: Patterns::new(config)?,
            max_units: config.watch.max_units.max(1),
            window: Window::new(config.detection.window, config.detection.windows),
            windows: config.detection.windows,
            warmup: config.detection.warmup,
            stale_after: config.detection.stale_after,
            clock: ClockPair { boot: Boottime(0), wall: jiff::Timestamp::UNIX_EPOCH },
            looks: 0,
            previous: None,
            fd_probes: None,
            task_probes: false,
            exact_files: true,
            next_serial: 1,
            processes: BTreeMap::new(),
            units: BTreeMap::new(),
            unplaced: None,
            descriptions: Descriptions::default(),
            templates: HashSet::new(),
            stacks: BTreeMap::new(),
            openers: Openers::default(),
            pids_max: BTreeMap::new(),
            baselines: Baselines::default(),
            forks: [BTreeMap::new(), BTreeMap::new()],
            unexplained_exits: BTreeMap::new(),
            unexplained_forks: BTreeMap::new(),
            corrections: CAUSES.map(|cause| (cause.to_owned(), 0)).into(),
            collapses: 0,
            lost: BTreeMap::new(),
        })
    }

    /// Takes another config; history stays, but floors start anew where the
    /// windows have changed, since floors of other windows cannot be compared.
    ///
    /// # Errors
    /// A glob of the config is malformed; the ledger then keeps what it had.
    pub fn reconfigure(&mut self, config: &Config) -> Result<(), globset::Error> {
        self.patterns = Patterns::new(config)?;
        self.max_units = config.watch.max_units.max(1);
        let detection = &config.detection;
        self.warmup = detection.warmup;
        self.stale_after = detection.stale_after;
        if detection.window != self.window.length() || detection.windows != self.windows {
            self.window = Window::new(detection.window, detection.windows);
            self.windows = detection.windows;
            self.processes.values_mut().for_each(Process::forget_windows);
        }
        let mut processes = std::mem::take(&mut self.processes);
        for p in processes.values_mut() {
            self.place(p);
            p.reclassify = true;
            for h in &mut p.held {
                h.ignored = self.patterns.ignored(&p.unit.name, Some(h.path.as_bytes()));
            }
        }
        self.processes = processes;
        Ok(())
    }

    /// Takes in a census; `units[i]` owns `obs.processes[i]`.
    pub fn census(&mut self, mut obs: Observation, units: &[Arc<Unit>]) {
        let now = obs.at.boot;
        self.looks += 1;
        let (fd_probes, task_probes) = (obs.fd_probes, obs.task_probes);
        self.exact_files =
            !obs.sources.iter().any(|s| s.source == "census" && s.mechanism == "proc");
        for (source, lost) in std::mem::take(&mut obs.figures.lost) {
            let known = self.lost.entry(source).or_default();
            if lost > known.0 {
                *known = (lost, now);
            }
        }
        let whole = obs.depth == Depth::Whole;
        let stacks = std::mem::take(&mut obs.stacks);
        if whole {
            self.stacks = stacks;
        } else {
            // Those of what was not read again still stand.
            self.stacks.extend(stacks);
        }
        self.openers.take(std::mem::take(&mut obs.openers), &obs.processes);
        self.pids_max = std::mem::take(&mut obs.pids_max);

        self.settle_unexplained();
        let managed = Managed::of(&obs, units);
        let both = self.task_probes && task_probes;
        let ids = self.take_processes(&obs, units, both);
        self.take_lives(&ids, now, both, &managed);
        self.task_probes = task_probes;

        let both = self.fd_probes.is_some() && fd_probes;
        let look = intake::Look {
            began: obs.began,
            now,
            previous: self.previous,
            probes: both,
            window: self.window.length(),
            stale_after: self.stale_after,
            remembered: self.remembered(),
        };
        self.descriptions.begin(whole);
        for (sample, id) in obs.processes.iter().zip(&ids) {
            if let (FdTable::Full(fds), Some(p)) = (&sample.fds, self.processes.get(id)) {
                for fd in fds {
                    self.descriptions.note(fd, p.serial, look.opened(p, fd));
                }
            }
        }
        let alive: HashSet<u32> =
            self.processes.values().filter(|p| p.alive()).map(|p| p.serial).collect();
        let mut grown = std::collections::BTreeSet::new();
        for (sample, id) in obs.processes.drain(..).zip(&ids) {
            if matches!(sample.fds, FdTable::Same(_)) {
                continue;
            }
            let Some(mut p) = self.processes.remove(id) else { continue };
            if self.take_descriptors(&mut p, sample.fds, &look, &alive) {
                grown.insert(Arc::clone(&p.unit.name));
            }
            self.processes.insert(*id, p);
        }
        if whole {
            self.descriptions.sweep();
        }
        for name in &grown {
            self.collapse(name);
        }
        self.take_tasks(std::mem::take(&mut obs.async_tasks), now);
        let turned = self.turn_window(now);
        self.fd_probes = fd_probes.then(|| self.fd_probes.unwrap_or(now));
        self.take_units(now, obs.flows);
        self.previous = Some(obs.began);
        self.clock = obs.at;
        self.weigh(turned);
        if turned.is_some() && self.window.ended(baseline::LEVEL) {
            self.learn();
        }
    }

    /// Takes in what happened between two censuses: best effort, and nothing
    /// is lost for good if an event never comes.
    pub fn task(&mut self, event: &TaskEvent, _unit: Option<&Arc<Unit>>) {
        match event {
            TaskEvent::Fork { parent, child, .. } => {
                self.unexplained_forks.remove(child);
                if self.forks[0].len() < MAX_FORKS {
                    self.forks[0].insert(*child, *parent);
                }
            }
            TaskEvent::Exec { .. } => {}
            TaskEvent::Exit { at, id, .. } => {
                self.unexplained_exits.remove(id);
                self.exit(*id, *at);
            }
        }
    }

    /// What the census corrected, by cause.
    pub fn corrections(&self) -> &BTreeMap<String, u64> {
        &self.corrections
    }

    /// What the probes counted for processes that no census has seen, and for
    /// units past those that they can tell apart.
    pub fn unplaced(&self) -> Option<&UnitFlows> {
        self.unplaced.as_ref()
    }

    /// How long it is remembered what was closed.
    pub(crate) fn remembered(&self) -> Duration {
        self.window.length() * self.windows * DAY * REMEMBERED
    }

    /// Both clocks at the last census.
    pub fn clock(&self) -> ClockPair {
        self.clock
    }

    /// How often the cohorts of a unit were too many to tell apart.
    pub fn collapses(&self) -> u64 {
        self.collapses
    }

    pub(crate) fn patterns(&self) -> &Patterns {
        &self.patterns
    }

    pub(crate) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.processes.values()
    }

    pub(crate) fn process(&self, id: &ProcessId) -> Option<&Process> {
        self.processes.get(id)
    }

    pub(crate) fn unit(&self, name: &str) -> Option<&UnitState> {
        self.units.get(name)
    }

    pub(crate) fn units(&self) -> impl Iterator<Item = &UnitState> {
        self.units.values()
    }

    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    pub(crate) fn pids_max(&self, cgroup: &KernelStr) -> Option<u64> {
        self.pids_max.get(cgroup).copied()
    }

    pub(crate) fn exact_files(&self) -> bool {
        self.exact_files
    }

    /// Since when the fd probes have been attached without a break: the first census
    /// that found them so. What was there by then they need not have seen.
    pub(crate) fn fd_probes(&self) -> Option<Boottime> {
        self.fd_probes
    }

    /// User stack of a descriptor's opener.
    pub(crate) fn stack(&self, held: &Held) -> Option<&[u64]> {
        let id = held.birth?.stack?;
        self.stacks.get(&id).map(Vec::as_slice)
    }

    /// The function of the program that has opened a descriptor, as soon as it is known.
    pub(crate) fn opened_by(&self, p: &Process, held: &Held) -> Option<&Arc<str>> {
        self.openers.function(p.id, held)
    }

    /// The same, looked up: as soon as it is.
    pub(crate) fn opener(&self, key: OpenerKey) -> Option<&Arc<Opener>> {
        self.openers.get(key)
    }

    /// What was lost on the way within `span` before `now`: sources of losses, and
    /// how many each has lost since the agent started.
    pub(crate) fn losses(&self, now: Boottime, span: Duration) -> Vec<(&str, u64)> {
        let recent = |(n, at): &(u64, Boottime)| *n > 0 && now.since(*at) <= span;
        // A name that comes later, or by frame pointers, is no doubt about what leaks.
        let names = |source: &str| matches!(source, "symbols" | "stack_copies");
        let recent = self.lost.iter().filter(|(source, lost)| recent(lost) && !names(source));
        recent.map(|(source, (n, _))| (source.as_str(), *n)).collect()
    }

    fn correct(&mut self, cause: &str) {
        *self.corrections.entry(cause.to_owned()).or_default() += 1;
    }

    /// How long the window was that this census has ended.
    fn turn_window(&mut self, now: Boottime) -> Option<Duration> {
        if !self.window.census(now) {
            return None;
        }
        let (began, warmup) = (self.window.began(), self.warmup);
        for p in self.processes.values_mut() {
            // Seen whole, warm, and in detail: else its floor says nothing.
            let whole = p.first_seen <= began && p.alive() && p.sight != process::Sight::Denied;
            if whole && began >= p.warm_from + warmup {
                p.close_window(&self.window, &self.openers);
                p.close_tasks(&self.window, warmup);
            } else {
                p.forget_windows();
                p.open_window();
            }
        }
        self.window.turn(now);
        self.templates.retain(|t| Arc::strong_count(t) > 1);
        Some(now.since(began))
    }
}
