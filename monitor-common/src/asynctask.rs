//! Async tasks of tokio, as the uprobes count them.

/// Key of `TOKIO_TASKS`: a task that has begun and not ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AsyncTaskKey {
    /// Thread-group id, in the host's pid namespace.
    pub tgid: u32,
    /// Padding, zero.
    pub pad: u32,
    /// Address of the task's `Header` in that process.
    pub header: u64,
}

/// Value of `TOKIO_TASKS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncTask {
    /// Address of its table of functions, which each type of future has of its own.
    pub vtable: u64,
    /// When it was first seen, `CLOCK_BOOTTIME` nanoseconds.
    pub at_ns: u64,
}

/// Key of `TOKIO_COUNTS`: a type of future in a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AsyncTypeKey {
    /// Thread-group id, in the host's pid namespace.
    pub tgid: u32,
    /// Padding, zero.
    pub pad: u32,
    /// Address of its table of functions.
    pub vtable: u64,
}

/// Value of `TOKIO_COUNTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AsyncCounts {
    /// Seen to begin, and kept.
    pub spawned: u64,
    /// Of those, ended: completed, aborted or panicked.
    pub ended: u64,
    /// Ended without having been seen to begin.
    pub unseen: u64,
}

/// Where `tokio::runtime::task::core::Header` (`repr(C)`) has its table of functions.
pub const HEADER_VTABLE: usize = 16;

/// Bits of the first word of a `Header` (`tokio::runtime::task::state`): it runs, or
/// has ended.
pub const RUNNING_OR_COMPLETE: u64 = 0b11;

const _: () = assert!(size_of::<AsyncTaskKey>() == 16);
const _: () = assert!(size_of::<AsyncTask>() == 16);
const _: () = assert!(size_of::<AsyncTypeKey>() == 16);
const _: () = assert!(size_of::<AsyncCounts>() == 24);
