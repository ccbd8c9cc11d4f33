//! What the ledger shows of a unit.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::attribution::unit::Unit;
use crate::ledger::baseline::{Baseline, CohortKey};
use crate::source::model::{FdKind, SystemdUnit, TaskCount, UnitFlows};

/// The process of a unit that is nearest to its descriptor limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorstProcess {
    /// Process id.
    pub pid: u32,
    /// Name, printable.
    pub comm: String,
    /// Its open descriptors.
    pub open_fds: u64,
    /// Its soft `RLIMIT_NOFILE`; `None` where unlimited or unreadable.
    pub max_fds: Option<u64>,
}

/// Async tasks of a unit, by its runtimes' own word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TasksView {
    /// Begun and not ended, of processes where they are counted; `None` where of none.
    pub alive: Option<u64>,
    /// Begun since the agent watches the unit.
    pub spawned: u64,
    /// Of those, ended.
    pub ended: u64,
    /// By the function whose future they run.
    pub kinds: BTreeMap<Arc<str>, TaskCount>,
    /// Why they are not counted, of some process.
    pub blind: Option<String>,
}

/// One unit. `None` means not seen (permission), never zero.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitView {
    /// Name, kind, cgroup.
    pub unit: Arc<Unit>,
    /// Lives seen so far, counting from 1.
    pub invocation: u64,
    /// When the present invocation started.
    pub since: Timestamp,
    /// Descriptors by kind; `None` unless the table of every process could be read.
    pub open_fds: Option<BTreeMap<FdKind, u64>>,
    /// All descriptors, also those of processes where only the count is known; of
    /// those that are denied, none is in it.
    pub open_fds_total: Option<u64>,
    /// Processes whose descriptors were denied.
    pub denied_processes: u64,
    /// Worst process.
    pub worst: Option<WorstProcess>,
    /// Threads of all processes.
    pub threads: u64,
    /// Living processes.
    pub processes: u64,
    /// Zombies.
    pub zombies: u64,
    /// Processes that outlived their invocation.
    pub orphans: u64,
    /// Bytes of deleted files held open, each file once; `None` as with the kinds.
    pub deleted_open_bytes: Option<u64>,
    /// `pids.max` of its cgroup.
    pub tasks_max: Option<u64>,
    /// What systemd says of it, where it does.
    pub systemd: Option<Arc<SystemdUnit>>,
    /// Async tasks, where the config asks for them.
    pub tasks: Option<TasksView>,
    /// From the probes, while attached.
    pub flows: Option<UnitFlows>,
    /// Where its cohorts came to rest in this life and earlier ones.
    pub baselines: Vec<(CohortKey, Arc<Baseline>)>,
    /// Recent totals of open descriptors, oldest first, at most 120: for sparklines.
    pub history: Vec<u64>,
}
