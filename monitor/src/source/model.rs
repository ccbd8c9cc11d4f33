//! What one look at the kernel says: the input of every later stage.

#[path = "sample.rs"]
mod sample;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use leakwatch_common::LIFETIME_BUCKETS;
use serde::{Deserialize, Serialize};

pub use super::fdkind::FdKind;
pub use super::frame::{Frame, Opener, OpenerKey, Role, UNWOUND};
pub use super::kernelstr::KernelStr;
pub use super::systemd::unit::{InvocationId, SystemdUnit};
use crate::time::{Boottime, ClockPair};
pub use sample::{ExeFile, ProcessSample};

/// `/proc/sys/kernel/random/boot_id` as a number: one life of the machine.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct BootId(pub u128);

/// A process, beyond the reuse of its pid and the reboot of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// The life of the machine.
    pub boot: BootId,
    /// Process id (thread-group id) in the agent's pid namespace.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`: start time in clock ticks (1/100 s) since boot.
    pub start_ticks: u64,
}

impl ProcessId {
    /// When it started, to 10 ms.
    pub fn started(&self) -> Boottime {
        Boottime(self.start_ticks.saturating_mul(10_000_000))
    }
}

/// A socket's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SocketState {
    /// `AF_*`: 1 unix, 2 inet, 10 inet6, 16 netlink.
    pub family: u16,
    /// `SOCK_*`: 1 stream, 2 datagram.
    pub sock_type: u16,
    /// `include/net/tcp_states.h`: 1 established, 7 close, 8 close-wait, 10 listen.
    pub state: u8,
    /// Its own port, of IP; 0 where it has none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub port: u16,
    /// Address and port of the other side, of IP, where it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(n: &u16) -> bool {
    *n == 0
}

impl SocketState {
    /// Of this family, type and state, its ports unknown.
    pub fn new(family: u16, sock_type: u16, state: u8) -> Self {
        Self { family, sock_type, state, port: 0, peer: None }
    }

    /// `TCP_LISTEN` of a stream over IP.
    pub fn listens(self) -> bool {
        matches!((self.family, self.sock_type, self.state), (2 | 10, 1, 10))
    }

    /// `TCP_CLOSE_WAIT` of a stream over IP: the peer has sent its last byte and this
    /// side has not closed. A unix socket has no such state.
    pub fn close_wait(self) -> bool {
        matches!((self.family, self.sock_type, self.state), (2 | 10, 1, 8))
    }
}

/// The opening of a descriptor as a probe saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdBirth {
    /// When.
    pub at: Boottime,
    /// Thread that made the system call.
    pub tid: u32,
    /// User stack, an index into [`Observation::stacks`] where one was taken.
    pub stack: Option<u32>,
}

/// One open descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdSample {
    /// The number.
    pub fd: u32,
    /// Identity of the open file description: descriptors made by dup, fork or
    /// SCM_RIGHTS share it. From the BPF census the address of `struct file`;
    /// /proc does not show sharing, so there each descriptor has its own.
    pub file: u64,
    /// Kind; never [`FdKind::Log`] here.
    pub kind: FdKind,
    /// Device number, kernel encoding (major << 20 | minor).
    pub device: u32,
    /// Inode number.
    pub inode: u64,
    /// `O_*` flags of open(2).
    pub flags: u32,
    /// Links left to the inode; 0 means deleted.
    pub nlink: u32,
    /// File position, bytes; of TCP what has gone over it, modulo 2^32, 0 where unknown.
    pub position: u64,
    /// File size, bytes.
    pub size: u64,
    /// Bytes it takes on disk.
    pub disk_bytes: u64,
    /// Path without the kernel's ` (deleted)`; or `socket:[N]`, `anon_inode:[X]`.
    pub path: KernelStr,
    /// Where it is a socket and that could be read.
    pub socket: Option<SocketState>,
    /// Where a probe saw the opening.
    pub birth: Option<FdBirth>,
}

impl FdSample {
    /// Open for writing (`O_WRONLY` or `O_RDWR`) and not `O_PATH`.
    pub fn writable(&self) -> bool {
        const O_PATH: u32 = 0o10_000_000;
        self.flags & 0b11 != 0 && self.flags & O_PATH == 0
    }
}

/// How much was seen of a process's descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FdTable {
    /// Every open descriptor, by number.
    Full(Vec<FdSample>),
    /// So many, and the same numbers as when the table was last seen in full.
    Same(u32),
    /// Only how many there are (`stat` of `/proc/PID/fd`, Linux 6.2 and later).
    Count(u32),
    /// Nothing: permission denied. Never to be shown as 0.
    Denied,
}

impl FdTable {
    /// Number of open descriptors, where known.
    pub fn len(&self) -> Option<u32> {
        match self {
            Self::Full(v) => Some(v.len() as u32),
            Self::Same(n) | Self::Count(n) => Some(*n),
            Self::Denied => None,
        }
    }

    /// True where nothing is open, as far as is known.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

/// Process events between two censuses; from the task probes, best effort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskEvent {
    /// A new process.
    Fork {
        /// When.
        at: Boottime,
        /// Who forked.
        parent: ProcessId,
        /// The new process.
        child: ProcessId,
        /// Its name.
        comm: KernelStr,
    },
    /// A process runs another program.
    Exec {
        /// When.
        at: Boottime,
        /// Which process.
        id: ProcessId,
        /// Its new name.
        comm: KernelStr,
    },
    /// A process has ended.
    Exit {
        /// When.
        at: Boottime,
        /// Which process.
        id: ProcessId,
        /// Wait status as waitpid(2) would give it.
        status: i32,
    },
}

/// Counts and lifetimes that the probes keep in the kernel, cumulative since
/// the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Acquired.
    pub opened: u64,
    /// Released.
    pub closed: u64,
    /// Lifetimes of what was released and whose birth was known.
    pub lifetimes: Lifetimes,
}

impl Flow {
    /// Adds another unit's or another processor's.
    pub fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.closed += other.closed;
        self.lifetimes.add(&other.lifetimes);
    }

    /// Takes away what the same counters said earlier.
    pub fn subtract(&mut self, earlier: &Self) {
        self.opened = self.opened.saturating_sub(earlier.opened);
        self.closed = self.closed.saturating_sub(earlier.closed);
        let (mine, theirs) = (&mut self.lifetimes, &earlier.lifetimes);
        mine.sum_ns = mine.sum_ns.saturating_sub(theirs.sum_ns);
        for (mine, theirs) in mine.buckets.iter_mut().zip(&theirs.buckets) {
            *mine = mine.saturating_sub(*theirs);
        }
    }
}

/// A log2 histogram of lifetimes; bucket `i` is below `2^i` microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetimes {
    /// Sum, nanoseconds.
    pub sum_ns: u64,
    /// Counts per bucket, not cumulative; [`LIFETIME_BUCKETS`] of them.
    pub buckets: Vec<u64>,
}

impl Lifetimes {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.sum_ns += other.sum_ns;
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
    }
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { sum_ns: 0, buckets: vec![0; LIFETIME_BUCKETS] }
    }
}

/// The name under which the probes' counts for no unit are shown: of processes not
/// placed yet, and of units past those that the programs can tell apart.
pub const UNPLACED: &str = "other";

/// What the probes counted for one unit. Absent while they are not attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitFlows {
    /// Per kind of descriptor. The probes know a kind from its system call, so
    /// whatever was opened by path is [`FdKind::Regular`].
    pub fds: BTreeMap<FdKind, Flow>,
    /// Threads.
    pub threads: Option<Flow>,
    /// Processes.
    pub processes: Option<Flow>,
}

impl UnitFlows {
    /// Adds another unit's.
    pub fn add(&mut self, other: &Self) {
        for (kind, flow) in &other.fds {
            self.fds.entry(*kind).or_default().add(flow);
        }
        for (mine, theirs) in
            [(&mut self.threads, &other.threads), (&mut self.processes, &other.processes)]
        {
            if let Some(theirs) = theirs {
                mine.get_or_insert_default().add(theirs);
            }
        }
    }
}

/// Async tasks of a process whose runtime is probed, or to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessTasks {
    /// By the function whose future they run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kinds: BTreeMap<Arc<str>, TaskCount>,
    /// Why they cannot be counted, and what would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blind: Option<String>,
}

/// Async tasks of one function, since the probes came to its program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCount {
    /// Begun and not ended.
    pub alive: u64,
    /// Seen to begin.
    pub spawned: u64,
    /// Of those, ended: completed, aborted or panicked.
    pub ended: u64,
    /// Ended without having been seen to begin: they were there before the probes.
    #[serde(default)]
    pub unseen: u64,
    /// Source file of the function, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Arc<str>>,
    /// Line there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

/// How a resource is watched, for `doctor` and `leakwatch_source_state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// `census`, `fd_probes`, `task_probes`, `stacks`, `process_table`, `cgroups`,
    /// `systemd`, `async_tasks`.
    pub source: String,
    /// `iter/task_file`, `proc`, `tp_btf`, `none`…
    pub mechanism: String,
    /// It works now.
    pub active: bool,
    /// It does not work now by choice: switched off, or waiting to be needed.
    #[serde(default)]
    pub standby: bool,
    /// Why not, or what is limited: the errno and the missing capability by
    /// name, and what to grant. Empty where all is well.
    pub reason: String,
}

/// Figures of the source itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceFigures {
    /// Seconds the last census took.
    pub census_seconds: f64,
    /// Descriptors it counted.
    pub census_fds: u64,
    /// Losses since start by source (`births`, `stacks`, `tasks`…).
    pub lost: BTreeMap<String, u64>,
    /// Kernel run time per program: (seconds, runs), estimated from samples.
    pub programs: BTreeMap<String, (f64, u64)>,
}

/// How much of the descriptors a census reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Depth {
    /// Every one.
    #[default]
    Whole,
    /// How many there are, and every one of the processes whose numbers have moved or
    /// that are under suspicion.
    Part,
}

/// One look at the kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// When the look began: what was born after it may be missing from it.
    pub began: Boottime,
    /// When it ended, on both clocks.
    pub at: ClockPair,
    /// How much of the descriptors was read.
    #[serde(default)]
    pub depth: Depth,
    /// Tables can be counted without being read: the next census may be in part.
    #[serde(default)]
    pub countable: bool,
    /// Every process that could be seen, sorted by pid.
    pub processes: Vec<ProcessSample>,
    /// The fd probes were attached for the whole of it.
    pub fd_probes: bool,
    /// The task probes are attached.
    pub task_probes: bool,
    /// Counts of the probes by unit name; `None` while none is attached.
    pub flows: Option<BTreeMap<Arc<str>, UnitFlows>>,
    /// User stacks (raw return addresses, innermost first) by id, those that
    /// some `FdBirth` of this observation refers to.
    pub stacks: BTreeMap<u32, Vec<u64>>,
    /// Stacks that have been looked up since the last look, of this observation's
    /// processes or of earlier ones.
    #[serde(default)]
    pub openers: Vec<Arc<Opener>>,
    /// `pids.max` by cgroup path, where there is one.
    pub pids_max: BTreeMap<KernelStr, u64>,
    /// What systemd says of units with processes, now or a while ago, by the
    /// unit's own cgroup path. Empty where its D-Bus does not answer.
    #[serde(default)]
    pub systemd: BTreeMap<KernelStr, Arc<SystemdUnit>>,
    /// Async tasks by pid, of processes whose unit asks for them.
    #[serde(default)]
    pub async_tasks: BTreeMap<u32, ProcessTasks>,
    /// What works and what does not.
    pub sources: Vec<SourceState>,
    /// Figures of the source itself.
    pub figures: SourceFigures,
}

/// The one thing that goes back: what deserves probes and stacks now, drawn
/// by the loop from the verdicts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// The unit of each living process, so that the probes count for it.
    pub units: Vec<(ProcessId, Arc<str>)>,
    /// Names of units with an open suspicion.
    pub suspects: std::collections::BTreeSet<Arc<str>>,
}
