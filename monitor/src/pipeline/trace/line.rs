//! The lines of a trace. Their names are a format: see the module above.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::descriptor::Descriptor;
use super::patch::Patch;
use crate::source::model::{
    BootId, Depth, ExeFile, FdTable, Frame, KernelStr, Opener, ProcessId, ProcessSample,
    ProcessTasks, SourceFigures, SourceState, SystemdUnit, TaskEvent, UnitFlows,
};
use crate::time::{Boottime, ClockPair};

/// A line after the header.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// The config as a file would have it.
    Config(String),
    /// Names of user ids.
    Users(BTreeMap<u32, KernelStr>),
    /// Task events, in order.
    Tasks(Vec<Task>),
    /// A process of the next look that is not as it was in the last.
    Process(Process),
    /// What else of the next look is not as it was; told in parts.
    Beside(Beside),
    /// A stack that was looked up before the next look.
    Opener(OpenerLine),
    /// The rest of a look: now it is whole.
    Look(Look),
    /// Processes that were asked after.
    Glimpse(Glimpse),
    /// The verdicts were brought up to date.
    Judge(ClockPair),
    /// The trace ends here, and why.
    End(String),
}

/// A process by its pid and its start in ticks since boot.
pub(super) type Id = (u32, u64);

/// A task event.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Task {
    /// When, parent, child, name.
    Fork(Boottime, Id, Id, KernelStr),
    /// When, process, name.
    Exec(Boottime, Id, KernelStr),
    /// When, process, wait status.
    Exit(Boottime, Id, i32),
}

impl Task {
    pub fn of(event: &TaskEvent) -> Self {
        let id = |id: &ProcessId| (id.pid, id.start_ticks);
        match event {
            TaskEvent::Fork { at, parent, child, comm } => {
                Self::Fork(*at, id(parent), id(child), comm.clone())
            }
            TaskEvent::Exec { at, id: of, comm } => Self::Exec(*at, id(of), comm.clone()),
            TaskEvent::Exit { at, id: of, status } => Self::Exit(*at, id(of), *status),
        }
    }

    pub fn event(self, boot: BootId) -> TaskEvent {
        let id = |(pid, start_ticks)| ProcessId { boot, pid, start_ticks };
        match self {
            Self::Fork(at, parent, child, comm) => {
                TaskEvent::Fork { at, parent: id(parent), child: id(child), comm }
            }
            Self::Exec(at, of, comm) => TaskEvent::Exec { at, id: id(of), comm },
            Self::Exit(at, of, status) => TaskEvent::Exit { at, id: id(of), status },
        }
    }
}

/// What of a process moves rarely.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct About {
    pub ppid: u32,
    pub comm: KernelStr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<KernelStr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe_file: Option<ExeFile>,
    pub cmdline: KernelStr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    pub cgroup: KernelStr,
    #[serde(default, skip_serializing_if = "is_false")]
    pub zombie: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_fds: Option<u64>,
}

impl About {
    pub fn of(p: &ProcessSample) -> Self {
        // Every field is named, so that a new one is not forgotten here.
        let ProcessSample { id: _, ppid, comm, exe, exe_file, cmdline, uid, cgroup, .. } = p;
        let ProcessSample { zombie, threads: _, old_threads: _, max_fds, fds: _, .. } = p;
        Self {
            ppid: *ppid,
            comm: comm.clone(),
            exe: exe.clone(),
            exe_file: *exe_file,
            cmdline: cmdline.clone(),
            uid: *uid,
            cgroup: cgroup.clone(),
            zombie: *zombie,
            max_fds: *max_fds,
        }
    }

    pub fn sample(self, id: ProcessId, threads: u32, fds: FdTable) -> ProcessSample {
        let Self { ppid, comm, exe, exe_file, cmdline, uid, cgroup, zombie, max_fds } = self;
        ProcessSample {
            id,
            ppid,
            comm,
            exe,
            exe_file,
            cmdline,
            uid,
            cgroup,
            zombie,
            threads,
            old_threads: None,
            max_fds,
            fds,
        }
    }
}

/// A process; what is left out is as it was in the last look. A long table of
/// descriptors comes in several lines.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Process {
    pub pid: u32,
    pub start: u64,
    /// It is not there any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub gone: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// How many of them are as old as a window of each length; `[]` where that is not known
    /// any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_threads: Option<Vec<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fds: Option<Table>,
}

/// Its descriptors.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Table {
    /// All of them are known; these differ from when they were last known.
    Full {
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        set: Vec<Descriptor>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        closed: Vec<u32>,
    },
    /// So many, with the same numbers as when they were last known.
    Same(u32),
    /// So many.
    Count(u32),
    /// They could not be seen.
    Denied,
}

/// What a look tells beside processes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Beside {
    #[serde(default, skip_serializing_if = "Patch::is_empty")]
    pub flows: Patch<Arc<str>, UnitFlows>,
    #[serde(default, skip_serializing_if = "Patch::is_empty")]
    pub stacks: Patch<u32, Vec<u64>>,
    #[serde(default, skip_serializing_if = "Patch::is_empty")]
    pub pids_max: Patch<KernelStr, u64>,
    #[serde(default, skip_serializing_if = "Patch::is_empty")]
    pub systemd: Patch<KernelStr, Arc<SystemdUnit>>,
    #[serde(default, skip_serializing_if = "Patch::is_empty")]
    pub async_tasks: Patch<u32, ProcessTasks>,
}

/// A stack, looked up.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OpenerLine {
    pub process: Id,
    pub stack: u32,
    pub frames: Vec<Frame>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl OpenerLine {
    pub fn of(opener: &Opener) -> Self {
        let Opener { process, stack, frames, note } = opener;
        Self {
            process: (process.pid, process.start_ticks),
            stack: *stack,
            frames: frames.clone(),
            note: note.clone(),
        }
    }

    pub fn opener(self, boot: BootId) -> Opener {
        let Self { process: (pid, start_ticks), stack, frames, note } = self;
        Opener { process: ProcessId { boot, pid, start_ticks }, stack, frames, note }
    }
}

/// The rest of a look.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Look {
    pub began: Boottime,
    pub at: ClockPair,
    /// When it was judged.
    pub judged: ClockPair,
    pub depth: Depth,
    #[serde(default, skip_serializing_if = "is_false")]
    pub countable: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub fd_probes: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub task_probes: bool,
    /// There are flows; without it, none were to be had.
    #[serde(default, skip_serializing_if = "is_false")]
    pub flows: bool,
    /// Where they are not those of the last look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<SourceState>>,
    pub figures: SourceFigures,
}

/// Processes that were asked after.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Glimpse {
    pub at: Boottime,
    pub of: Vec<Process>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(b: &bool) -> bool {
    !b
}
