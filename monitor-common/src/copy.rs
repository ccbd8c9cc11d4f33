//! A piece of a user stack, copied for an unwinder that needs no frame pointers.

/// Pages that are looked at. What is copied begins with the one that the stack pointer is
/// in, so that of 32 KiB at least 28 are above it.
pub const COPY_PAGES: usize = 8;

/// The unit that is copied at once, for a page is there as a whole or not at all; where
/// the kernel's are larger, several of these are one of them.
pub const COPY_PAGE: usize = 4096;

/// Words of the largest `struct pt_regs` of user space: arm64's 31 registers, `sp`, `pc`
/// and `pstate`.
pub const COPY_REGISTERS: usize = 34;

/// What stands before the bytes of the stack in a record of the ring `COPIES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyHeader {
    /// [`crate::Birth::at_ns`] of the acquisition that it was taken at.
    pub at_ns: u64,
    /// Address of the first byte: a multiple of [`COPY_PAGE`].
    pub start: u64,
    /// Thread-group id.
    pub tgid: u32,
    /// The descriptor that was acquired.
    pub fd: u32,
    /// [`crate::Birth::stack`] of the same acquisition.
    pub stack: i32,
    /// So many pages could be read.
    pub pages: u32,
    /// `struct pt_regs` as the kernel has saved it; past its end is whatever was there.
    pub registers: [u64; COPY_REGISTERS],
}

/// The record.
#[repr(C)]
pub struct StackCopy {
    /// What it is of.
    pub header: CopyHeader,
    /// The stack.
    pub memory: [u8; COPY_PAGES * COPY_PAGE],
}

/// Which acquisitions take turns to be copied: those of one process that the frame
/// pointers tell the same of.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyKey {
    /// Thread-group id.
    pub tgid: u32,
    /// [`crate::Birth::stack`].
    pub stack: i32,
}

/// Whose turn it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyTurn {
    /// None is copied before, `CLOCK_BOOTTIME` nanoseconds.
    pub next_ns: u64,
    /// Copied so far, up to the one from which on the gap stays the same.
    pub round: u64,
}

const _: () = assert!(size_of::<CopyHeader>() == 32 + 8 * COPY_REGISTERS);
const _: () = assert!(size_of::<StackCopy>() == 304 + COPY_PAGES * COPY_PAGE);
const _: () = assert!(size_of::<CopyKey>() == 8 && size_of::<CopyTurn>() == 16);
