//! Births: what the probes remember of an acquisition until its release.

/// Which resource a [`Birth`] belongs to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BirthKey {
    /// Thread-group id of the owner, in the initial pid namespace.
    pub tgid: u32,
    /// The descriptor; or `THREAD_KEY | tid` for a thread.
    pub fd: u32,
}

/// Set in [`BirthKey::fd`] for a thread; no descriptor is that large
/// (`NR_OPEN` is at most 2^30, `fs/file.c: sysctl_nr_open_max`).
pub const THREAD_KEY: u32 = 1 << 31;

/// One acquisition as its probe saw it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    /// `CLOCK_BOOTTIME` nanoseconds; 0 once it is released, see `BIRTHS`.
    pub at_ns: u64,
    /// User stack id in `STACKS`, or [`NO_STACK`].
    pub stack: i32,
    /// Thread that made the system call.
    pub tid: u32,
    /// Unit slot of the owner, index into `FLOWS`.
    pub slot: u16,
    /// [`crate::KernelKind`] as a number.
    pub kind: u16,
    /// [`process_flags`] of the owner.
    pub flags: u16,
    /// [`crate::Settings::generation`] at the acquisition, its lower half.
    pub generation: u16,
}

/// [`Birth::stack`] when no stack was taken. `bpf_get_stackid` returns
/// negative errno values on failure, so any negative number means the same.
pub const NO_STACK: i32 = -1;

/// A place of the array `NEAR`: a birth beside its key.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NearBirth {
    /// Whose ([`BirthKey::word`]); [`NOBODY`] while the place is free.
    pub key: u64,
    /// Programs that are about to take the place. Who finds itself alone may.
    pub claims: u64,
    /// As in `BIRTHS`.
    pub birth: Birth,
}

/// [`BirthKey::word`] of no process: number 0 is that of the idle tasks.
pub const NOBODY: u64 = 0;

/// Places of `NEAR`, a power of two.
pub const NEAR_PLACES: u32 = 1 << 16;

impl BirthKey {
    /// Both in one word, which is read and written whole.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u64 {
        self.tgid as u64 | (self.fd as u64) << 32
    }

    /// Of a word.
    #[must_use]
    pub const fn of_word(word: u64) -> Self {
        Self { tgid: word as u32, fd: (word >> 32) as u32 }
    }

    /// The only place of `NEAR` that may be this key's. The numbers of a process are
    /// neighbours; processes are spread by Fibonacci hashing (Knuth, TAOCP 3, 6.4).
    #[inline(always)]
    #[must_use]
    pub const fn place(self) -> u32 {
        ((self.tgid.wrapping_mul(0x9e37_79b1) >> 16).wrapping_add(self.fd)) & (NEAR_PLACES - 1)
    }
}

/// What the agent tells the probes about a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessEntry {
    /// Unit slot, index into `FLOWS`.
    pub slot: u16,
    /// See [`process_flags`].
    pub flags: u16,
    /// No descriptor with a birth is at or above this: how far the exit probe looks.
    pub fd_end: u32,
}

/// Bits of [`ProcessEntry::flags`].
pub mod process_flags {
    /// Keep births and lifetimes of this process.
    pub const WATCH: u16 = 1;
    /// Take a user stack with every birth of this process.
    pub const STACKS: u16 = 2;
    /// Now and then copy a piece of the stack, too ([`crate::StackCopy`]).
    pub const COPIES: u16 = 4;
}

const _: () = assert!(size_of::<BirthKey>() == 8);
const _: () = assert!(size_of::<Birth>() == 24);
const _: () = assert!(size_of::<NearBirth>() == 40);
const _: () = assert!(size_of::<ProcessEntry>() == 8);
