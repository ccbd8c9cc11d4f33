//! One system call as the fd probes see it: its arguments, and what it acquires.

use aya_ebpf::{helpers::bpf_probe_read_user, programs::BtfTracePointContext};
use leakwatch_common::{BirthKey, KernelKind, Loss, ProcessEntry, SLOT_OTHER, process_flags};

use crate::{
    births::remember,
    kernel::{STACKS_ALL, WATCH_ALL, current, flag, now_ns, off, typed},
    maps::{PROCESSES, count_opened, living, lost},
};

/// The kind of what has no name of its own.
pub const OTHER: u16 = KernelKind::Other as u16;

/// One system call that acquires.
pub struct Call {
    pub tgid: u32,
    pub at_ns: u64,
    number: u16,
    slot: u16,
    stack: bool,
    /// The agent's word on the process, in its map: how far births reach is
    /// noted there.
    entry: Option<*mut ProcessEntry>,
}

impl Call {
    /// The running process's; `None` if it is not watched.
    #[inline(always)]
    pub fn of_current(number: u64) -> Option<Self> {
        let tgid = current().0;
        let entry = watched(tgid)?;
        // SAFETY: a map value of this type.
        let told = entry.map(|e| unsafe { *e });
        let slot = told.map_or(SLOT_OTHER, |e| e.slot);
        let stack = told.is_some_and(|e| e.flags & process_flags::STACKS != 0);
        let stack = stack || flag(&STACKS_ALL);
        Some(Self { tgid, at_ns: now_ns(), number: number as u16, slot, stack, entry })
    }

    /// Remembers and counts `fd`.
    #[inline(always)]
    pub fn acquire(&self, ctx: &BtfTracePointContext, fd: u32, kind: u16) {
        if let Some(entry) = self.entry {
            // An upper bound is enough, and OR gives one without a branch.
            // SAFETY: a map value of this type. Threads that race leave it too
            // low at worst, and the agent's sweep takes the rest.
            unsafe { (*entry).fd_end |= fd.wrapping_add(1) };
        }
        let key = BirthKey { tgid: self.tgid, fd };
        remember(ctx, key, self.at_ns, self.number, kind, self.slot, self.stack);
        count_opened(self.slot, kind);
    }

    /// The kind of another descriptor of the process, for its duplicates.
    #[inline(always)]
    pub fn kind_of(&self, fd: u32) -> u16 {
        living(BirthKey { tgid: self.tgid, fd }).map_or(OTHER, |b| {
            // SAFETY: a map value of this type.
            unsafe { (*b).kind }
        })
    }
}

/// The agent's word on the running process: `None` if it is not watched,
/// `Some(None)` if it is though the agent has not heard of it yet.
#[inline(always)]
pub fn watched(tgid: u32) -> Option<Option<*mut ProcessEntry>> {
    match PROCESSES.get_ptr_mut(tgid) {
        // SAFETY: a map value of this type.
        Some(e) if unsafe { (*e).flags } & process_flags::WATCH != 0 => Some(Some(e)),
        None if flag(&WATCH_ALL) => Some(None),
        _ => None,
    }
}

/// A 32-bit program on x86-64: its numbers mean other calls.
/// `arch/x86/include/asm/segment.h`: `__USER32_CS` is 0x23, `__USER_CS` 0x33.
#[inline(always)]
pub fn foreign(ctx: &BtfTracePointContext) -> bool {
    let offset = off!(regs_cs);
    if offset == u32::MAX as usize {
        return false;
    }
    let regs: *const u8 = ctx.arg(0);
    // SAFETY: typed `pt_regs`.
    unsafe { typed::<u16>(regs, offset) == 0x23 }
}

/// System-call argument `i`, also at exit: only the return value's register is
/// overwritten, and the agent's offsets avoid it.
#[inline(always)]
pub fn arg(ctx: &BtfTracePointContext, i: usize) -> u64 {
    let regs: *const u8 = ctx.arg(0);
    // SAFETY: typed `pt_regs`; `i` is a constant below six.
    unsafe { typed(regs, off!(regs_args[i])) }
}

#[inline(always)]
pub fn pointer(ctx: &BtfTracePointContext, i: u8) -> *const u8 {
    let address = match i {
        0 => arg(ctx, 0),
        1 => arg(ctx, 1),
        2 => arg(ctx, 2),
        _ => arg(ctx, 3),
    };
    address as *const u8
}

/// User memory, or a counted loss. Pages that the kernel has just written to
/// are there; the helper does not fault others in.
#[inline(always)]
pub fn user<T: Copy>(address: *const u8) -> Option<T> {
    // SAFETY: the helper checks the address.
    let read = unsafe { bpf_probe_read_user(address.cast::<T>()) };
    if read.is_err() {
        lost(Loss::UserMemory);
    }
    read.ok()
}
