//! The one view that every exporter reads: immutable, swapped after each turn
//! of the loop.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::attribution::unit::Unit;
use crate::cleanup::record::{ActionKind, ActionRecord, Mode, Outcome};
use crate::detection::verdict::{Leak, Resource, Rule};
use crate::source::model::{FdKind, SourceFigures, SourceState, UnitFlows};

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

/// One unit. `None` means not seen (permission), never zero.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitView {
    /// Name, kind, cgroup.
    pub unit: Arc<Unit>,
    /// Lives seen so far, counting from 1.
    pub invocation: u64,
    /// When the present invocation started.
    pub since: Timestamp,
    /// Descriptors by kind; `None` where no process's table could be read.
    pub open_fds: Option<BTreeMap<FdKind, u64>>,
    /// All descriptors, also those of processes where only the count is known.
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
    /// Bytes of deleted files held open, each file once.
    pub deleted_open_bytes: Option<u64>,
    /// `pids.max` of its cgroup.
    pub tasks_max: Option<u64>,
    /// From the probes, while attached.
    pub flows: Option<UnitFlows>,
    /// Recent totals of open descriptors, oldest first, at most 120: for sparklines.
    pub history: Vec<u64>,
}

/// Everything an exporter may show.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the census behind it ended.
    pub at: Timestamp,
    /// When the agent started.
    pub started: Timestamp,
    /// Units, by name; at most `max_units`, the rest summed as `other`.
    pub units: Vec<UnitView>,
    /// Verdicts: open ones first, then resolved ones, newest first.
    pub leaks: Vec<Leak>,
    /// Confirmations since start.
    pub confirmed_total: BTreeMap<(Arc<str>, Resource, Rule), u64>,
    /// Newest acts first, at most 1000.
    pub actions: Vec<ActionRecord>,
    /// Acts since start.
    pub actions_total: BTreeMap<(Arc<str>, ActionKind, Mode, Outcome), u64>,
    /// What works and what does not.
    pub sources: Vec<SourceState>,
    /// Figures of the source.
    pub figures: SourceFigures,
    /// Corrections that the census made to what the probes said, by cause.
    pub corrections: BTreeMap<String, u64>,
    /// The last reload of the config worked.
    pub reload_ok: bool,
    /// Between two censuses now (stretched where the budget demands).
    pub interval: std::time::Duration,
}
