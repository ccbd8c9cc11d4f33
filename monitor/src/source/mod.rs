//! Stage 1: the only code that reads the kernel.
//!
//! [`Source`] takes the best way the host allows and says which: the census by
//! BPF iterator, else by `/proc`; fd probes at the system-call boundary, else
//! none; task probes, else the comparison of two censuses.

pub mod address;
pub mod asynctasks;
pub mod bpf;
pub(crate) mod btf;
pub(crate) mod census;
mod cgroupfs;
pub(crate) mod command;
pub(crate) mod copies;
mod costs;
pub mod doctor;
pub mod events;
mod fdkind;
mod fdprobes;
mod flows;
pub mod frame;
mod kernelstr;
mod known;
mod ladder;
mod losses;
pub mod model;
mod moved;
pub(crate) mod object;
pub(crate) mod offsets;
mod pass;
pub mod privilege;
pub mod processes;
pub(crate) mod procfd;
mod roles;
pub(crate) mod roster;
mod selftest;
pub mod sizes;
mod slots;
mod sockets;
mod spell;
mod stacks;
pub mod symbols;
pub mod systemd;
mod verifier;
mod witness;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::maps::{MapData, RingBuf};

use self::bpf::Bpf;
use self::ladder::Ladder;
use self::model::{
    BootId, Demand, Depth, FdTable, KernelStr, Observation, ProcessId, ProcessSample,
    SourceFigures, TaskEvent,
};
use self::roster::Numbers;
use self::sockets::Sockets;
use crate::config::model::{Config, ProbeMode, StackMode};
use crate::time::{Boottime, ClockPair};

/// Between two sweeps of births that nobody released.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// `pids.max` is read every so many looks.
const LIMITS_EVERY: u64 = 12;

/// The source cannot work at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No usable /proc.
    #[error("cannot read the process table in {path}: {source}; is /proc mounted?")]
    Proc {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The sizes of the BPF maps that were asked for are none.
    #[error(transparent)]
    Sizes(#[from] sizes::SizeError),
}

/// Reads the kernel.
pub struct Source {
    proc: PathBuf,
    processes: processes::Processes,
    reader: census::Reader,
    cgroups: cgroupfs::CgroupFs,
    pids_max: BTreeMap<KernelStr, u64>,
    systemd: systemd::Systemd,
    bpf: Option<Bpf>,
    ladder: Ladder,
    flows: flows::Flows,
    spells: spell::Spells,
    costs: costs::Costs,
    probes: ProbeMode,
    stacks: StackMode,
    exits: HashMap<u32, Boottime>,
    changed: HashSet<ProcessId>,
    moved: moved::Moved,
    suspected: BTreeSet<Arc<str>>,
    symbols: symbols::Symbols,
    copies: copies::Copies,
    async_tasks: asynctasks::AsyncTasks,
    swept: Instant,
    looks: u64,
    unplaced: u64,
}

impl Source {
    /// Takes the best way the host allows.
    ///
    /// # Errors
    /// Without a usable `/proc`, or with [`sizes::VARIABLE`] malformed; all else is
    /// a step down the ladder.
    pub fn open(config: &Config, choose: processes::ChooseCgroup) -> Result<Self, SourceError> {
        let proc = PathBuf::from("/proc");
        let processes = processes::Processes::new(&proc, choose, &config.detection)
            .map_err(|source| SourceError::Proc { path: proc.clone(), source })?;
        let sizes = sizes::of_environment()?;
        let (bpf, ladder) = Ladder::climb(&config.watch, &sizes);
        let without = bpf.is_none().then(|| ladder.census.reason.clone());
        let mut source = Self {
            proc,
            processes,
            reader: census::Reader::default(),
            cgroups: cgroupfs::CgroupFs::find(),
            pids_max: BTreeMap::new(),
            systemd: systemd::Systemd::start(config.watch.max_units),
            bpf,
            ladder,
            flows: flows::Flows::new(),
            spells: spell::Spells::new(spell::length(config)),
            costs: costs::Costs::new(),
            probes: config.watch.probes,
            stacks: config.watch.stacks,
            exits: HashMap::new(),
            changed: HashSet::new(),
            moved: moved::Moved::default(),
            suspected: BTreeSet::new(),
            symbols: symbols::Symbols::default(),
            copies: copies::Copies::default(),
            async_tasks: asynctasks::AsyncTasks::new(config, &sizes, without),
            swept: Instant::now(),
            looks: 0,
            unplaced: 0,
        };
        if source.always() {
            source.attach_fds();
        }
        Ok(source)
    }

    /// This life of the machine.
    pub fn boot(&self) -> BootId {
        self.processes.boot()
    }

    /// The queue of task events, once, where the task probes are attached.
    pub fn task_ring(&mut self) -> Option<RingBuf<MapData>> {
        if !self.ladder.tasks.active {
            return None;
        }
        self.bpf.as_mut()?.task_ring().ok()
    }

    /// The log of the BPF programs, where they are loaded.
    pub fn bpf_log(&mut self) -> Option<aya_log::EbpfLogger<&'static dyn log::Log>> {
        self.bpf.as_mut()?.logger()
    }

    /// Another config. What it says of probes and stacks holds from the next demand on.
    pub fn reconfigure(&mut self, config: &Config) {
        (self.probes, self.stacks) = (config.watch.probes, config.watch.stacks);
        self.processes.reconfigure(&config.detection);
        // What a descriptor is can depend on the config.
        self.moved = moved::Moved::default();
        if let Some(bpf) = &mut self.bpf {
            self.ladder.reconfigure(&config.watch, bpf);
        }
        self.async_tasks.reconfigure(config);
        self.spells.set_length(spell::length(config));
        self.systemd.set_most(config.watch.max_units);
    }

    /// Takes note of events: who runs another program, who has ended.
    pub fn note(&mut self, events: &[TaskEvent]) {
        self.symbols.note(events);
        self.async_tasks.note(events);
        for event in events {
            match event {
                TaskEvent::Exec { id, .. } => {
                    self.changed.insert(*id);
                }
                TaskEvent::Exit { at, id, .. } => {
                    self.exits.insert(id.pid, *at);
                }
                TaskEvent::Fork { .. } => {}
            }
        }
    }

    /// Turns the loop's demand into attached probes.
    pub fn demand(&mut self, demand: &Demand, now: Boottime) {
        self.suspected = self.spells.watch(&demand.suspects, now);
        if self.always() || (self.probes != ProbeMode::Off && !self.suspected.is_empty()) {
            self.attach_fds();
        } else {
            self.detach_fds();
        }
        let pressing = demand.units.iter().filter(|(_, unit)| demand.suspects.contains(unit));
        let pressing: HashSet<ProcessId> = pressing.map(|(id, _)| *id).collect();
        self.moved.press(pressing.clone());
        self.symbols.press(pressing);
        self.ask_for_symbols();
        self.async_tasks.want(&demand.units, true);
        let watched = self.watched(true);
        if let Some(bpf) = &mut self.bpf {
            self.unplaced += self.flows.tell(bpf, demand, &watched);
        }
    }

    /// Whose some processes are, ahead of the next demand.
    pub fn place(&mut self, units: &[(ProcessId, Arc<str>)]) {
        self.async_tasks.want(units, false);
        // Who has come just now has no turn to be copied yet.
        let watched = self.watched(false);
        if let Some(bpf) = &mut self.bpf {
            self.unplaced += self.flows.place(bpf, units, &watched);
        }
    }

    /// Some processes as they are now, those of them that live; without descriptors.
    pub fn glimpse(&self, ids: &[ProcessId]) -> Vec<ProcessSample> {
        self.processes.read_these(ids)
    }

    /// How the programs are to treat the processes of a unit.
    fn watched(&self, seen: bool) -> impl Fn(&str) -> u16 + use<> {
        let (always, stacks, suspected) = (self.always(), self.stacks, self.suspected.clone());
        move |unit| {
            let suspect = suspected.contains(unit);
            let stacks = match stacks {
                StackMode::Always => true,
                StackMode::Sampled | StackMode::OnSuspicion => suspect,
                StackMode::Off => false,
            };
            // Never of all: a copy costs more than a stack, and says more of suspects alone.
            flows::flags(always || suspect, stacks, seen && suspect && stacks)
        }
    }

    /// The fd probes stay attached: by order, or because they cost next to nothing.
    fn always(&self) -> bool {
        match self.probes {
            ProbeMode::Always => true,
            ProbeMode::Auto => self.ladder.fds_nearly_free(),
            ProbeMode::OnSuspicion | ProbeMode::Off => false,
        }
    }

    fn attach_fds(&mut self) {
        let (watch_all, stacks) = (self.always(), self.stacks);
        let Some(bpf) = &mut self.bpf else { return };
        // Before the first event, so that no process is passed over.
        bpf.set(|s| {
            s.watch_all = watch_all.into();
            s.stacks_all = (stacks == StackMode::Always).into();
            s.stacks_sample = (stacks == StackMode::Sampled).into();
        });
        if self.ladder.fds_chosen.is_some() && !bpf.fds_attached() {
            let begun = Boottime::now();
            self.ladder.fds_attached(bpf.attach_fds());
            self.spells.put_off(Boottime::now().since(begun), begun);
        }
    }

    fn detach_fds(&mut self) {
        if let Some(bpf) = self.bpf.as_mut().filter(|b| b.fds_attached()) {
            bpf.detach_fds();
            self.ladder.fds_detached();
        }
    }

    /// Looks at everything once, at the descriptors as deep as `depth` says, or at all
    /// of them where they cannot be counted first. Takes milliseconds to seconds; run it
    /// where it may block.
    ///
    /// # Errors
    /// `/proc` cannot be listed.
    pub fn look(&mut self, depth: Depth) -> Result<Observation, SourceError> {
        let (began, clock) = (Boottime::now(), Instant::now());
        let changed = std::mem::take(&mut self.changed);
        let roster = self
            .roster()
            .map_err(|source| SourceError::Proc { path: self.proc.clone(), source })?;
        let countable = self.ladder.roster.active && self.ladder.census.active;
        let depth = if countable { depth } else { Depth::Whole };
        let whole = depth == Depth::Whole;
        let (mut processes, numbers) = self.processes.read(roster, &changed, whole);
        // It asks while the census runs.
        self.systemd.tell(&processes, clock);
        let chosen = (!whole).then(|| self.moved.choose(&mut processes, &numbers, &changed));
        self.census(&mut processes, &numbers, chosen.as_deref());
        self.moved.note(&processes);
        if self.looks.is_multiple_of(LIMITS_EVERY) {
            self.pids_max = self.cgroups.pids_max(processes.iter().map(|p| &p.cgroup).collect());
        }
        self.looks += 1;
        let figures = SourceFigures {
            census_seconds: clock.elapsed().as_secs_f64(),
            census_fds: processes.iter().filter_map(|p| p.fds.len()).map(u64::from).sum(),
            ..SourceFigures::default()
        };
        let mut seen = Observation {
            began,
            at: ClockPair::now(),
            depth,
            countable,
            processes,
            fd_probes: self.bpf.as_ref().is_some_and(Bpf::fds_attached),
            task_probes: self.ladder.tasks.active,
            flows: None,
            stacks: BTreeMap::new(),
            openers: Vec::new(),
            pids_max: self.pids_max.clone(),
            systemd: self.systemd.units(),
            async_tasks: BTreeMap::new(),
            sources: Vec::new(),
            figures,
        };
        self.annotate(&mut seen);
        seen.sources = self.ladder.states(&seen, self.cgroups.found());
        seen.sources.push(self.systemd.state());
        seen.sources.extend(self.async_tasks.state());
        Ok(seen)
    }

    /// Who runs: by iterator, else by `/proc`.
    fn roster(&mut self) -> io::Result<Vec<roster::Entry>> {
        if let Some(bpf) = self.bpf.as_mut().filter(|_| self.ladder.roster.active) {
            match bpf.process_pass().and_then(|pass| Ok(roster::by_iterator(pass)?)) {
                Ok(roster) => return Ok(roster),
                Err(e) => self.ladder.roster_failed(&*e),
            }
        }
        roster::by_proc(&self.proc)
    }

    /// Fills in the descriptors where they are not the same as before: by iterator,
    /// else by `/proc`.
    fn census(
        &mut self,
        processes: &mut [ProcessSample],
        numbers: &HashMap<ProcessId, Numbers>,
        chosen: Option<&[u32]>,
    ) {
        if chosen.is_some_and(<[u32]>::is_empty) {
            return;
        }
        let same = |p: &ProcessSample| matches!(p.fds, FdTable::Same(_));
        if let Some(bpf) = self.bpf.as_mut().filter(|_| self.ladder.census_is_worth_a_try()) {
            match pass::read(bpf, &mut self.reader, chosen) {
                Ok(mut tables) => {
                    self.ladder.census_worked();
                    for p in processes.iter_mut().filter(|p| !p.zombie && !same(p)) {
                        p.fds = match tables.remove(&p.id.pid) {
                            // Another process by now has this pid: this one is gone.
                            Some((start, _)) if start / 10_000_000 != p.id.start_ticks => {
                                FdTable::Full(Vec::new())
                            }
                            Some((_, fds)) => FdTable::Full(fds),
                            None if numbers.get(&p.id).is_some_and(|n| n.count == 0) => {
                                FdTable::Full(Vec::new())
                            }
                            // Nothing open, or hidden from the iterator: /proc
                            // at least tells how many there are.
                            None => procfd::table_or_gone(&self.proc, p.id.pid),
                        };
                    }
                    return;
                }
                Err(e) => self.ladder.census_failed(&*e),
            }
        }
        let read = |p: &&mut ProcessSample| !p.zombie && !same(p);
        for p in processes.iter_mut().filter(read) {
            p.fds = procfd::table_or_gone(&self.proc, p.id.pid);
        }
        // After all of them: a socket that is in a table is then in its namespace's, too.
        let mut sockets = Sockets::default();
        for p in processes.iter_mut().filter(|p| !p.zombie) {
            sockets.describe(&self.proc, p.id.pid, &mut p.fds);
        }
    }

    /// Adds what the probes know.
    fn annotate(&mut self, seen: &mut Observation) {
        let living = seen.processes.iter().filter(|p| !p.zombie).map(|p| p.id).collect();
        seen.async_tasks = self.async_tasks.read(&living);
        let Some(bpf) = &mut self.bpf else { return };
        if bpf.fds_attached() && self.swept.elapsed() >= SWEEP_EVERY {
            self.flows.sweep(bpf, seen, &self.exits);
            self.exits.clear();
            self.swept = Instant::now();
        }
        if !bpf.fds_attached() {
            self.exits.clear();
        }
        if seen.fd_probes || seen.task_probes {
            seen.flows = Some(self.flows.read(bpf, seen.task_probes));
        }
        self.copies.take(copies::drain(bpf));
        self.symbols.follow_all(self.copies.held(&seen.processes), |id| stacks::read(bpf, id));
        self.symbols.refine(&mut seen.processes);
        for p in &seen.processes {
            if let FdTable::Full(fds) = &p.fds {
                self.symbols.see(p.id, fds.iter().filter_map(|f| f.birth));
                let ids = fds.iter().filter_map(|f| f.birth?.stack);
                seen.stacks.extend(ids.map(|id| (id, Vec::new())));
            }
        }
        let symbols = &self.symbols;
        let read = |id| symbols.followed(id).or_else(|| stacks::read(bpf, id));
        seen.stacks.retain(|id, stack| read(*id).map(|s| *stack = s).is_some());
        self.symbols.keep(&seen.processes);
        let beside = losses::Beside {
            symbols: self.symbols.lost(),
            async_tasks: self.async_tasks.lost(),
            unplaced: self.unplaced,
        };
        losses::add(bpf, &beside, &mut seen.figures.lost);
        let mut runs = bpf.run_statistics();
        runs.extend(self.async_tasks.run_statistics());
        self.costs.interval(runs);
        seen.figures.programs = self.costs.sums();
        self.ask_for_symbols();
        seen.openers = self.symbols.take();
    }

    fn ask_for_symbols(&mut self) {
        if let Some(bpf) = &self.bpf {
            self.symbols.ask(|id| stacks::read(bpf, id));
        }
    }
}
