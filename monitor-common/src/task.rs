//! Task events, sent through the ring buffer.

/// `TASK_COMM_LEN` of `include/linux/sched.h`.
pub const COMM_LEN: usize = 16;

/// How often the agent looks for records, in milliseconds.
pub const TASKS_PERIOD_MS: u64 = 100;

/// A process was forked, executed another program, or exited.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    /// `CLOCK_BOOTTIME` nanoseconds.
    pub at_ns: u64,
    /// `start_boottime` of the process, nanoseconds.
    pub start_ns: u64,
    /// `start_boottime` of its parent (fork only), nanoseconds.
    pub parent_start_ns: u64,
    /// Its thread-group id.
    pub tgid: u32,
    /// Thread-group id of its parent.
    pub parent_tgid: u32,
    /// One of [`task_what`].
    pub what: u32,
    /// `task->exit_code` (exit only).
    pub exit_code: i32,
    /// Name, zero-terminated unless it fills the array.
    pub comm: [u8; COMM_LEN],
}

/// Values of [`TaskRecord::what`].
pub mod task_what {
    /// A new process (not a thread).
    pub const FORK: u32 = 1;
    /// execve succeeded.
    pub const EXEC: u32 = 2;
    /// The last thread of a process has exited.
    pub const EXIT: u32 = 3;
}

const _: () = assert!(size_of::<TaskRecord>() == 56);
