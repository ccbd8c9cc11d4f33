//! Lives of a unit: when one begins, which process is its main one, when it ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::attribution::unit::Unit;
use crate::ledger::balance::{Balance, Subject};
use crate::ledger::template::{collapsed, directory};
use crate::source::model::{
    FdKind, InvocationId, KernelStr, Lifetimes, ProcessId, SystemdUnit, UnitFlows,
};
use crate::time::Boottime;

/// Daemons fork twice and let the first process go: within this time of the
/// start, the end of the main process ends nothing.
pub(crate) const SETTLING: Duration = Duration::from_secs(30);

/// Lives remembered after their end, for the processes they left behind.
const PAST_LIVES: usize = 16;

/// The end of a main process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MainGone {
    /// When.
    pub at: Boottime,
    /// How long it had lived.
    pub lived: Duration,
    /// What it ran.
    pub exe: Option<KernelStr>,
}

/// A life that is over.
#[derive(Clone, Debug)]
pub(crate) struct PastLife {
    /// Its number.
    pub invocation: u64,
    /// When the next began, or all its processes had gone.
    pub ended: Boottime,
    /// The end of its main process.
    pub main_gone: Option<MainGone>,
}

/// What the ledger keeps of a unit.
#[derive(Debug)]
pub(crate) struct UnitState {
    /// Name, kind, cgroup.
    pub unit: Arc<Unit>,
    /// Number of the present life, from 1.
    pub invocation: u64,
    /// When it began.
    pub started: Boottime,
    /// Its main process, while it runs.
    pub main: Option<ProcessId>,
    /// The end of its main process.
    pub main_gone: Option<MainGone>,
    /// When its last process went.
    pub over: Option<Boottime>,
    /// Earlier lives, newest last.
    pub past: VecDeque<PastLife>,
    /// Last census that saw a process of it.
    pub last_seen: Boottime,
    /// Totals of open descriptors, oldest first.
    pub history: VecDeque<u64>,
    /// From the probes.
    pub flows: Option<UnitFlows>,
    /// What they were when the present life began.
    pub flows_before: Option<UnitFlows>,
    /// Async tasks that were spawned and that ended while they were counted.
    pub tasks: Option<(u64, u64)>,
    /// What it has beside its load, while the probes are attached.
    pub balances: BTreeMap<Subject, Balance>,
    /// Kinds and cohorts that leak in the present life: nothing is learned from them.
    pub distrusted: BTreeSet<(Arc<str>, Arc<str>)>,
    /// What systemd says of it.
    pub systemd: Option<Arc<SystemdUnit>>,
    /// Its present life in systemd's count; kept while systemd is not to be asked.
    pub invocation_id: Option<InvocationId>,
    /// systemd names a main process that is not there: it has yet to say what
    /// came of it.
    pub unsettled: bool,
    /// `pids.max` of the one cgroup its processes are in.
    pub tasks_max: Option<u64>,
    /// Directories whose templates were too many to tell apart.
    pub collapsed: BTreeSet<Arc<str>>,
    /// All templates were too many: 1 collapses to directories, 2 to nothing.
    pub collapse_level: u8,
}

impl UnitState {
    /// A unit that is seen for the first time.
    pub fn new(unit: Arc<Unit>) -> Self {
        Self {
            unit,
            invocation: 0,
            started: Boottime(0),
            main: None,
            main_gone: None,
            over: None,
            past: VecDeque::new(),
            last_seen: Boottime(0),
            history: VecDeque::new(),
            flows: None,
            flows_before: None,
            tasks: None,
            balances: BTreeMap::new(),
            distrusted: BTreeSet::new(),
            systemd: None,
            invocation_id: None,
            unsettled: false,
            tasks_max: None,
            collapsed: BTreeSet::new(),
            collapse_level: 0,
        }
    }

    /// Lifetimes that ended in the present life, where the probes count them: of a
    /// kind that they know.
    pub fn lifetimes(&self, kind: FdKind) -> Option<Lifetimes> {
        let (now, before) = (self.flows.as_ref()?, self.flows_before.as_ref()?);
        let mut flow = now.fds.get(&kind)?.clone();
        if let Some(before) = before.fds.get(&kind) {
            flow.subtract(before);
        }
        Some(flow.lifetimes)
    }

    /// Begins the next life.
    pub fn begin(&mut self, at: Boottime) {
        self.flows_before = None;
        self.balances.clear();
        self.distrusted.clear();
        if self.invocation > 0 {
            while self.past.len() >= PAST_LIVES {
                self.past.pop_front();
            }
            self.past.push_back(PastLife {
                invocation: self.invocation,
                ended: self.over.unwrap_or(at),
                main_gone: self.main_gone.take(),
            });
        }
        self.invocation += 1;
        self.invocation_id = None;
        self.started = at;
        self.main = None;
        self.main_gone = None;
        self.over = None;
        self.collapsed.clear();
        self.collapse_level = 0;
    }

    /// When a life ended; `None` while it lasts or where that is forgotten.
    pub fn ended(&self, invocation: u64) -> Option<Boottime> {
        if invocation == self.invocation {
            return self.over;
        }
        self.past.iter().find(|p| p.invocation == invocation).map(|p| p.ended)
    }

    /// The end of the main process of a life.
    pub fn main_gone(&self, invocation: u64) -> Option<&MainGone> {
        if invocation == self.invocation {
            return self.main_gone.as_ref();
        }
        self.past.iter().find(|p| p.invocation == invocation).and_then(|p| p.main_gone.as_ref())
    }
}

impl UnitState {
    /// What a template becomes where there were too many; `None` for itself.
    pub fn collapsed_to(&self, template: &str) -> Option<String> {
        let dir = directory(template);
        match (self.collapse_level, dir) {
            (2, _) => Some("*".to_owned()),
            (1, Some(dir)) => Some(collapsed(dir)),
            (0, Some(dir)) if self.collapsed.contains(dir) => Some(collapsed(dir)),
            _ => None,
        }
    }
}
