//! Takes the processes of a census and tells which life of a unit they are in.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::attribution::managed::Managed;
use crate::attribution::unit::{Unit, UnitKind};
use crate::ledger::Ledger;
use crate::ledger::invocation::{MainGone, SETTLING, UnitState};
use crate::ledger::late::Late;
use crate::ledger::process::Process;
use crate::source::model::{KernelStr, Observation, ProcessId, ProcessSample, UNPLACED, UnitFlows};
use crate::time::Boottime;

/// Points of a sparkline.
const HISTORY: usize = 120;

/// Units remembered, for their count of lives, after their processes went.
const MAX_GONE_UNITS: usize = 4096;

impl Ledger {
    /// Updates or adds every process of a census; gives their identities in its order.
    pub(super) fn take_processes(
        &mut self,
        obs: &Observation,
        units: &[Arc<Unit>],
        probed: bool,
    ) -> Vec<ProcessId> {
        let now = obs.at.boot;
        let by_pid: HashMap<u32, ProcessId> =
            obs.processes.iter().map(|s| (s.id.pid, s.id)).collect();
        let mut ids = Vec::with_capacity(obs.processes.len());
        for (sample, unit) in obs.processes.iter().zip(units) {
            ids.push(sample.id);
            let mut p = self.processes.remove(&sample.id).unwrap_or_else(|| {
                let serial = self.next_serial;
                self.next_serial = self.next_serial.wrapping_add(1).max(1);
                let watched = self.previous.is_some_and(|at| sample.id.started() >= at);
                let told = self.forks.iter().any(|f| f.contains_key(&sample.id));
                if probed && watched && !told {
                    self.unexplained_forks.insert(sample.id, self.looks);
                }
                let mut p = Process::new(sample, serial, Arc::clone(unit), now);
                self.place(&mut p);
                p
            });
            // A process that must not outlive its unit stays in it, even where
            // the parent that made it a member has gone; unless it was moved to
            // a cgroup of its own since, which says whose it is now.
            let moved = p.cgroup != sample.cgroup;
            if p.unit.name != unit.name && (!p.must_not_outlive || moved) {
                p.unit = Arc::clone(unit);
                p.invocation = 0;
                p.reclassify = true;
                self.place(&mut p);
            }
            p.parent =
                by_pid.get(&sample.ppid).copied().filter(|q| q.start_ticks <= p.id.start_ticks);
            self.refresh(&mut p, sample, now, probed);
            self.processes.insert(sample.id, p);
        }
        ids
    }

    fn refresh(&mut self, p: &mut Process, sample: &ProcessSample, now: Boottime, probed: bool) {
        p.ppid = sample.ppid;
        p.cgroup = sample.cgroup.clone();
        p.max_fds = sample.max_fds;
        if sample.zombie {
            if p.zombie_since.is_none() {
                if probed && p.exited.is_none() && p.first_seen < now {
                    self.unexplained_exits.insert(p.id, self.looks);
                }
                p.zombie_since = Some(now);
                p.held = Vec::new();
                p.cohorts = Vec::new();
                p.slots.clear();
                p.free.clear();
                p.detailed = None;
            }
            p.zombie_looks += 1;
            return;
        }
        // Seen alive by a census that began after the event: then the event
        // was of another one. This cannot happen with exact start times.
        p.comm = sample.comm.clone();
        if p.exe != sample.exe {
            if p.exe.is_some() && sample.exe.is_some() {
                p.warm_from = now;
                p.fewest_threads = sample.threads;
                p.forget_windows();
                p.forget_closed();
            }
            p.exe = sample.exe.clone();
            p.exe_file = sample.exe_file;
        }
        if p.cmdline != sample.cmdline {
            p.cmdline = sample.cmdline.clone();
            self.place(p);
        }
        p.threads.count = sample.threads;
        p.old_threads = sample.old_threads;
        p.threads.see();
        p.fewest_threads = p.fewest_threads.min(sample.threads);
    }

    /// What the config says of a process.
    pub(super) fn place(&self, p: &mut Process) {
        p.must_not_outlive = self.patterns.is_orphan(&p.unit.name, p.cmdline.as_bytes());
        p.ignored = self.patterns.ignored(&p.unit.name, None);
    }

    /// Forgets a process. Where it had waited for its parent, that one came late.
    fn bury(&mut self, id: &ProcessId, now: Boottime) {
        let Some(gone) = self.processes.remove(id) else { return };
        let (Some(since), Some(parent)) = (gone.zombie_since, gone.parent) else { return };
        let (waited, remembered) = (now.since(since), self.remembered());
        if waited >= self.stale_after
            && let Some(parent) = self.processes.get_mut(&parent)
        {
            parent.reaped_late.push(Late { at: now, cohort: None, waited }, remembered);
        }
    }

    /// Ends and begins lives after the processes of a census are in.
    pub(super) fn take_lives(
        &mut self,
        ids: &[ProcessId],
        now: Boottime,
        probed: bool,
        managed: &Managed,
    ) {
        let seen: HashSet<ProcessId> = ids.iter().copied().collect();
        let gone: Vec<ProcessId> =
            self.processes.keys().filter(|id| !seen.contains(id)).copied().collect();
        for id in &gone {
            let Some(p) = self.processes.get_mut(id) else { continue };
            if p.exited.is_none() && p.zombie_since.is_none() && probed {
                self.unexplained_exits.insert(*id, self.looks);
            }
            p.exited.get_or_insert(now);
        }
        let mains: Vec<_> = self.units.values().filter_map(|u| u.main).collect();
        for main in mains {
            match self.processes.get(&main) {
                Some(p) if p.alive() => {}
                Some(p) => self.exit(main, p.exited.unwrap_or(now)),
                None => self.exit(main, now),
            }
        }
        self.renew(managed, ids, now);
        self.join(now);
        for id in gone {
            self.bury(&id, now);
        }
        self.forks[1] = std::mem::take(&mut self.forks[0]);

        let mut alive: BTreeMap<Arc<str>, (bool, bool)> = BTreeMap::new();
        for p in self.processes.values().filter(|p| p.alive()) {
            let present =
                self.units.get(&p.unit.name).is_some_and(|u| u.invocation == p.invocation);
            let entry = alive.entry(Arc::clone(&p.unit.name)).or_default();
            *entry = (true, entry.1 || present);
        }
        for (name, u) in &mut self.units {
            let (any, present) = alive.get(name).copied().unwrap_or_default();
            if any {
                u.last_seen = now;
            }
            if present {
                u.over = None;
            } else {
                u.over.get_or_insert(now);
            }
        }
        let without_main: Vec<_> =
            self.units.values().filter(|u| u.main.is_none()).map(|u| u.unit.name.clone()).collect();
        for name in without_main {
            self.elect(&name);
        }
        self.appoint(managed, ids);
    }

    /// Gives each new process its life.
    fn join(&mut self, now: Boottime) {
        let mut new: Vec<_> = self
            .processes
            .values()
            .filter(|p| p.invocation == 0)
            .map(|p| (p.id.started(), p.id))
            .collect();
        new.sort_unstable();
        let mut members: HashMap<(Arc<str>, u64), usize> = HashMap::new();
        if !new.is_empty() {
            for p in self.processes.values().filter(|p| p.alive() && p.invocation != 0) {
                *members.entry((Arc::clone(&p.unit.name), p.invocation)).or_default() += 1;
            }
        }
        for (started, id) in new {
            let Some(p) = self.processes.get(&id) else { continue };
            let name = Arc::clone(&p.unit.name);
            let parent = p
                .parent
                .into_iter()
                .chain(self.forks.iter().filter_map(|f| f.get(&id).copied()))
                .filter_map(|parent| self.processes.get(&parent))
                .find(|q| q.unit.name == name && q.invocation != 0)
                .map(|q| q.invocation);
            let may_be_main = !p.must_not_outlive && p.alive();
            let unit = Arc::clone(&p.unit);
            let kind = unit.kind;
            let state = self.units.entry(Arc::clone(&name)).or_insert_with(|| UnitState::new(unit));
            if state.invocation == 0 {
                state.begin(started);
            } else if kind.has_invocations() && parent.is_none() && !state.has_invocation_id() {
                let empty = !members.contains_key(&(Arc::clone(&name), state.invocation));
                if (empty && (may_be_main || state.over.is_some()))
                    || (may_be_main && state.main_gone.is_some())
                {
                    state.over = state.over.or(empty.then_some(now));
                    state.begin(started);
                }
            }
            let invocation = parent.unwrap_or(state.invocation);
            if kind.has_invocations() && parent.is_none() && may_be_main && state.main.is_none() {
                state.main = Some(id);
            }
            *members.entry((name, invocation)).or_default() += 1;
            if let Some(p) = self.processes.get_mut(&id) {
                p.root = parent.is_none();
                p.invocation = invocation;
            }
        }
    }

    /// A process has ended.
    pub(super) fn exit(&mut self, id: ProcessId, at: Boottime) {
        let Some(p) = self.processes.get_mut(&id) else { return };
        p.exited.get_or_insert(at);
        let name = Arc::clone(&p.unit.name);
        let Some(state) = self.units.get_mut(&name) else { return };
        if state.main != Some(id) {
            return;
        }
        state.main = None;
        state.main_gone = Some(MainGone { at, lived: at.since(id.started()), exe: p.exe.clone() });
        self.elect(&name);
    }

    /// Finds the main process of a unit that has none: another that came from
    /// outside as the first one did, or, while the unit settles, any.
    fn elect(&mut self, name: &str) {
        let Some(state) = self.units.get(name) else { return };
        if !state.unit.kind.has_invocations() || state.over.is_some() || state.has_main_pid() {
            return;
        }
        let settling =
            state.main_gone.as_ref().is_none_or(|gone| gone.at.since(state.started) <= SETTLING);
        // Where the config names what must not outlive the unit, a helper must
        // not hide the end of the manager: only its own double takes its place.
        let picky = self.patterns.has_orphans(name);
        let exe: Option<Option<KernelStr>> =
            state.main_gone.as_ref().filter(|_| picky).map(|gone| gone.exe.clone());
        // A service that replaces its program starts its own successor and goes.
        let successor = |p: &Process| {
            state.main_gone.as_ref().is_some_and(|gone| {
                gone.exe.is_some() && gone.exe == p.exe && gone.at.since(p.id.started()) <= SETTLING
            })
        };
        let next = self
            .processes
            .values()
            .filter(|p| *p.unit.name == *name && p.invocation == state.invocation)
            .filter(|p| p.alive() && !p.must_not_outlive)
            .filter(|p| exe.as_ref().is_none_or(|exe| *exe == p.exe))
            .filter(|p| p.root || settling || successor(p))
            .min_by_key(|p| (!p.root, p.id.started(), p.id))
            .map(|p| p.id);
        if let (Some(next), Some(state)) = (next, self.units.get_mut(name)) {
            state.main = Some(next);
            state.main_gone = None;
        }
    }

    /// Counts what went or came unseen, one census later: events may lag behind.
    pub(super) fn settle_unexplained(&mut self) {
        let looks = self.looks;
        for (cause, exits) in [("unseen_exit", true), ("unseen_fork", false)] {
            let map = if exits { &mut self.unexplained_exits } else { &mut self.unexplained_forks };
            let before = map.len();
            map.retain(|_, look| *look + 1 >= looks);
            for _ in map.len()..before {
                self.correct(cause);
            }
        }
    }

    /// Updates what is kept per unit at the end of a census.
    pub(super) fn take_units(
        &mut self,
        now: Boottime,
        flows: Option<BTreeMap<Arc<str>, UnitFlows>>,
    ) {
        // Open descriptors, one cgroup, and whether it is the only one.
        type Totals<'a> = (Option<u64>, &'a KernelStr, bool);
        let mut totals: BTreeMap<&Arc<str>, Totals<'_>> = BTreeMap::new();
        for p in self.processes.values().filter(|p| p.alive()) {
            let (total, cgroup, one) =
                totals.entry(&p.unit.name).or_insert((None, &p.cgroup, true));
            *one &= **cgroup == p.cgroup;
            if let Some(n) = p.open_fds() {
                *total = Some(total.unwrap_or(0) + n);
            }
        }
        let mut flows = flows.unwrap_or_default();
        for (name, u) in &mut self.units {
            u.flows = flows.remove(name);
            if u.over.is_some() {
                u.flows_before = None;
            } else if u.flows_before.is_none() {
                u.flows_before.clone_from(&u.flows);
            }
            u.tasks_max = None;
            let Some((total, cgroup, one)) = totals.get(name) else { continue };
            if *one {
                u.tasks_max = self.pids_max.get(*cgroup).copied();
            }
            if let Some(total) = total {
                if u.history.len() >= HISTORY {
                    u.history.pop_front();
                }
                u.history.push_back(*total);
            }
        }
        self.unplaced = flows.remove(UNPLACED);
        // Groups of like-named programs come and go by the thousand and have
        // no lives to count; the others are kept to count theirs.
        self.units
            .retain(|_, u| u.over.is_none() || u.unit.kind.has_invocations() || u.last_seen == now);
        let gone = |u: &UnitState| u.over.is_some();
        while self.units.values().filter(|u| gone(u)).count() > MAX_GONE_UNITS {
            let oldest = self
                .units
                .iter()
                .filter(|(_, u)| gone(u))
                .min_by_key(|(name, u)| (u.last_seen, Arc::clone(name)))
                .map(|(name, _)| Arc::clone(name));
            let Some(oldest) = oldest else { break };
            self.units.remove(&oldest);
        }
    }

    /// Containers end with their first process: nothing can outlive it.
    pub(crate) const fn may_leave_orphans(kind: UnitKind) -> bool {
        matches!(kind, UnitKind::Rule | UnitKind::Service | UnitKind::User)
    }
}
