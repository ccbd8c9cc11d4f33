//! The thread and process records: one task, as `iter/task` writes it.

use crate::COMM_LEN;

/// [`ProcessRecord::fds`] where the table is too large to be counted, or was let
/// go of meanwhile.
pub const FDS_UNCOUNTED: u32 = u32::MAX;

/// A thread: by itself, or as the beginning of a [`ProcessRecord`] where it leads its process.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadRecord {
    /// `task->start_boottime`, nanoseconds.
    pub start_ns: u64,
    /// Thread-group id.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
}

/// A process, by the task that leads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessRecord {
    /// That task.
    pub leader: ThreadRecord,
    /// The sum of [`numbers_mixed`] over all numbers in use. While it stays, none was
    /// opened or closed, but for those that were given to another file.
    pub numbers: u64,
    /// Thread-group id of `task->real_parent`.
    pub ppid: u32,
    /// `task->flags`.
    pub flags: u32,
    /// `task->exit_state`; 0 while the leading thread lives.
    pub exit_state: u32,
    /// `signal->nr_threads`.
    pub threads: u32,
    /// Open descriptors, or [`FDS_UNCOUNTED`].
    pub fds: u32,
    /// Nothing, so that there is no padding.
    pub unused: u32,
    /// Name, zero-terminated unless it fills the array.
    pub comm: [u8; COMM_LEN],
}

/// What 64 numbers from `64 * index` on, a bit for each, add to
/// [`ProcessRecord::numbers`]; nothing where none is in use.
#[inline(always)]
pub const fn numbers_mixed(bits: u64, index: u32) -> u64 {
    let mixed = bits.wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed ^ mixed >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15 + 2 * index as u64)
}

const _: () = assert!(size_of::<ThreadRecord>() == 16);
const _: () = assert!(size_of::<ProcessRecord>() == 64);
