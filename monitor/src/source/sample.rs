//! A process as a census sees it.

use serde::{Deserialize, Serialize};

use super::{FdTable, KernelStr, ProcessId};
use crate::config::model::LEVELS;

/// A process as one census saw it. Kernel threads are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSample {
    /// Identity.
    pub id: ProcessId,
    /// Parent's pid; 0 for none.
    pub ppid: u32,
    /// Name (`comm`), at most 15 bytes, anything the process likes.
    pub comm: KernelStr,
    /// Executable, where it may be read; ` (deleted)` stripped.
    pub exe: Option<KernelStr>,
    /// Which file that is, where it may be asked after.
    #[serde(default)]
    pub exe_file: Option<ExeFile>,
    /// Arguments joined by one space, at most 4096 bytes; empty for a zombie.
    pub cmdline: KernelStr,
    /// Real user id.
    pub uid: Option<u32>,
    /// Path in the cgroup hierarchy that names the unit (v2 where it says
    /// something, else systemd's named v1 hierarchy, else the deepest v1 one).
    pub cgroup: KernelStr,
    /// Exited and not reaped.
    pub zombie: bool,
    /// Threads; 0 for a zombie.
    pub threads: u32,
    /// Those that are as old as a window of each length; `None` where only their number is
    /// known.
    #[serde(default)]
    pub old_threads: Option<[u32; LEVELS]>,
    /// Soft `RLIMIT_NOFILE`; `None` where unlimited or unreadable.
    pub max_fds: Option<u64>,
    /// Descriptors.
    pub fds: FdTable,
}

/// What tells one build of an executable from another. An inode would not: of a container
/// that is made anew from the same image it is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExeFile {
    /// Bytes.
    pub size: u64,
    /// When it was last written to, seconds since 1970.
    pub modified: i64,
}
