//! What the ledger shows of a unit.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::attribution::unit::Unit;
use crate::source::model::{FdKind, SystemdUnit, UnitFlows};

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
    /// From the probes, while attached.
    pub flows: Option<UnitFlows>,
    /// Recent totals of open descriptors, oldest first, at most 120: for sparklines.
    pub history: Vec<u64>,
}
