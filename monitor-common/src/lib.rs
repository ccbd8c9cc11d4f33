//! Records that cross the border between the kernel and the agent.
//!
//! Layout only, no logic but what both sides must reckon alike: every struct is `repr(C)` with its padding spelled
//! out, so that a BPF program never copies uninitialised stack and the agent
//! never reads it. A size assert stands under each one.
#![no_std]

mod asynctask;
mod birth;
mod census;
mod copy;
mod kind;
mod offsets;
mod process;
mod role;
mod settings;
mod stats;
mod task;

pub use asynctask::{
    AsyncCounts, AsyncTask, AsyncTaskKey, AsyncTypeKey, HEADER_VTABLE, RUNNING_OR_COMPLETE,
};
pub use birth::{
    Birth, BirthKey, NEAR_PLACES, NO_STACK, NOBODY, NearBirth, ProcessEntry, THREAD_KEY,
    process_flags,
};
pub use census::{
    CENSUS_PATH_MAX, CHOSEN_WORDS, CensusHeader, PATH_KNOWN, PATH_REFUSED, SOCKET_NONE,
};
pub use copy::{COPY_PAGE, COPY_PAGES, COPY_REGISTERS, CopyHeader, CopyKey, CopyTurn, StackCopy};
pub use kind::KernelKind;
pub use offsets::Offsets;
pub use process::{FDS_UNCOUNTED, ProcessRecord, ThreadRecord, numbers_mixed};
pub use role::{MAX_SYSCALLS, Role};
pub use settings::{PATH_EPOCHS, STACK_SAMPLE, Settings};
pub use stats::{Flow, LIFETIME_BUCKETS, Loss, MAX_SLOTS, SELF_TEST_SLOT, SLOT_OTHER};
pub use task::{COMM_LEN, TASKS_PERIOD_MS, TaskRecord, task_what};

/// Lets aya move plain records through maps; only the agent needs it.
#[cfg(feature = "user")]
mod pod {
    macro_rules! pod {
        ($($t:ty),*) => { $(
            // SAFETY: `repr(C)`, `Copy`, no padding (asserted where defined),
            // every bit pattern is a value.
            unsafe impl aya::Pod for $t {}
        )* };
    }
    pod!(
        crate::AsyncCounts,
        crate::AsyncTask,
        crate::AsyncTaskKey,
        crate::AsyncTypeKey,
        crate::Birth,
        crate::BirthKey,
        crate::NearBirth,
        crate::ProcessEntry,
        crate::CensusHeader,
        crate::Flow,
        crate::Offsets,
        crate::Settings,
        crate::TaskRecord
    );
}
