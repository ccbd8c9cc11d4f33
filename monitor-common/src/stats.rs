//! Counters the programs keep, per unit slot and kind.

/// Buckets of a lifetime histogram. Bucket `i` counts lifetimes below
/// `2^i` microseconds and not below `2^(i-1)`; the last takes the rest (over 9 h).
pub const LIFETIME_BUCKETS: usize = 36;

/// Unit slots; slot [`SLOT_OTHER`] takes what has no unit of its own.
pub const MAX_SLOTS: u32 = 512;

/// Slot of the self-test's child; units have those between.
pub const SELF_TEST_SLOT: u16 = MAX_SLOTS as u16 - 1;

/// Slot of processes the agent has not placed yet.
pub const SLOT_OTHER: u16 = 0;

/// Acquisitions, releases and lifetimes of one (slot, kind).
///
/// The index into `FLOWS` is `slot * KernelKind::COUNT + kind`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Acquired since the probes were attached.
    pub opened: u64,
    /// Released since then, with or without a known birth.
    pub closed: u64,
    /// Sum of known lifetimes, nanoseconds.
    pub lifetime_ns: u64,
    /// Log2 histogram of known lifetimes.
    pub buckets: [u64; LIFETIME_BUCKETS],
}

/// Index into the `LOSSES` array: what a full map or buffer cost.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// A birth that found no room in `BIRTHS`.
    Births = 0,
    /// A stack that `STACKS` had no room for, or a collision.
    Stacks = 1,
    /// A task event that found no room in the ring buffer.
    Tasks = 2,
    /// A process that found no room in `PROCESSES`.
    Processes = 3,
    /// A close_range wider than the probe walks.
    CloseRange = 4,
    /// User memory that could not be read (pipe pairs, passed descriptors).
    UserMemory = 5,
    /// A message that passed more descriptors than the probe follows.
    Passed = 6,
    /// An exec by a process whose close-on-exec set is wider than the probe walks.
    CloseOnExec = 7,
    /// An async task that found no room in `TOKIO_TASKS` or `TOKIO_COUNTS`.
    AsyncTasks = 8,
    /// A stack that found no room in `COPIES`, or that could not be read.
    Copies = 9,
}

impl Loss {
    /// Number of counters.
    pub const COUNT: u32 = 10;
    /// All of them, in index order.
    pub const ALL: [Self; 10] = [
        Self::Births,
        Self::Stacks,
        Self::Tasks,
        Self::Processes,
        Self::CloseRange,
        Self::UserMemory,
        Self::Passed,
        Self::CloseOnExec,
        Self::AsyncTasks,
        Self::Copies,
    ];
}

const _: () = assert!(size_of::<Flow>() == (3 + LIFETIME_BUCKETS) * 8);
