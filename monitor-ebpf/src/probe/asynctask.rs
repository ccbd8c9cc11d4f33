//! Async tasks of tokio, from outside: uprobes on functions of the program.
//!
//! | | |
//! |---|---|
//! | event | a task is put into its runtime's list, or polled; it is complete |
//! | attach | uprobe (perf event, Linux 4.17), at offsets that the agent finds in the program |
//! | fallback | none |
//! | cost | two traps of a task, each 1 to 2 µs on bare metal; where the program has no function that puts a task into a list, one for each poll |
//! | blind | tasks of before the probes; those of a `LocalSet`, unless polls are counted |

use aya_ebpf::{helpers::bpf_probe_read_user, macros::uprobe, programs::ProbeContext};
use leakwatch_common::{
    AsyncCounts, AsyncTask, AsyncTaskKey, AsyncTypeKey, HEADER_VTABLE, Loss, RUNNING_OR_COMPLETE,
};

use crate::{
    kernel::{current, now_ns, off, probed},
    maps::{TOKIO_COUNTS, TOKIO_TASKS, add, lost},
};

/// `BPF_NOEXIST` of `include/uapi/linux/bpf.h`.
const NO_EXIST: u64 = 1;

/// `OwnedTasks::bind_inner(&self, task: Task<S>, …)`: a task begins. Each is bound once.
#[uprobe]
pub fn tokio_bind(ctx: ProbeContext) -> u32 {
    if let Some(header) = argument(&ctx, 1) {
        begin(header);
    }
    0
}

/// `raw::poll(header)`: a task is polled, maybe for the first time.
#[uprobe]
pub fn tokio_poll(ctx: ProbeContext) -> u32 {
    let Some(header) = argument(&ctx, 0) else { return 0 };
    if TOKIO_TASKS.get_ptr(task(header)).is_some() {
        return 0;
    }
    // A waker may have it polled once more although it is complete.
    if user(header).is_some_and(|state| state & RUNNING_OR_COMPLETE == 0) {
        begin(header);
    }
    0
}

/// `Harness::complete(self)`: a task has completed, was aborted or has panicked.
#[uprobe]
pub fn tokio_complete(ctx: ProbeContext) -> u32 {
    let Some(header) = argument(&ctx, 0) else { return 0 };
    let key = task(header);
    match TOKIO_TASKS.get_ptr(key) {
        Some(known) => {
            // SAFETY: a map value of this type.
            let vtable = unsafe { (*known).vtable };
            // It completes once; and a second one finds nothing to remove.
            if TOKIO_TASKS.remove(key).is_ok()
                && let Some(counts) = counts(vtable)
            {
                // SAFETY: `counts` points at a map value.
                add::<0>(unsafe { &raw mut (*counts).ended }, 1);
            }
        }
        None => {
            if let Some(counts) = user(header + HEADER_VTABLE as u64).and_then(counts) {
                // SAFETY: as above.
                add::<0>(unsafe { &raw mut (*counts).unseen }, 1);
            }
        }
    }
    0
}

/// Keeps a task that is new.
#[inline(always)]
fn begin(header: u64) {
    let Some(vtable) = user(header + HEADER_VTABLE as u64) else { return lost(Loss::AsyncTasks) };
    let key = task(header);
    let new = AsyncTask { vtable, at_ns: now_ns() };
    let Some(counts) = counts(vtable) else { return lost(Loss::AsyncTasks) };
    if TOKIO_TASKS.insert(key, new, NO_EXIST).is_err() {
        // Full; or the end of an earlier one at this address was missed.
        let Some(old) = TOKIO_TASKS.get_ptr(key) else { return lost(Loss::AsyncTasks) };
        // SAFETY: a map value of this type.
        let old = unsafe { (*old).vtable };
        if let Some(counts) = self::counts(old) {
            // SAFETY: as above.
            add::<0>(unsafe { &raw mut (*counts).ended }, 1);
        }
        if TOKIO_TASKS.insert(key, new, 0).is_err() {
            return lost(Loss::AsyncTasks);
        }
    }
    // SAFETY: `counts` points at a map value.
    add::<0>(unsafe { &raw mut (*counts).spawned }, 1);
}

#[inline(always)]
fn task(header: u64) -> AsyncTaskKey {
    AsyncTaskKey { tgid: current().0, pad: 0, header }
}

/// The counters of a type, made where missing.
#[inline(always)]
fn counts(vtable: u64) -> Option<*mut AsyncCounts> {
    let key = AsyncTypeKey { tgid: current().0, pad: 0, vtable };
    if let Some(counts) = TOKIO_COUNTS.get_ptr_mut(key) {
        return Some(counts);
    }
    let none = AsyncCounts { spawned: 0, ended: 0, unseen: 0 };
    // Another processor may have been first, which is as well.
    let _ = TOKIO_COUNTS.insert(key, none, NO_EXIST);
    TOKIO_COUNTS.get_ptr_mut(key)
}

/// An argument of the function, from the register that the C convention gives it, which
/// rustc's own keeps to for a single pointer.
#[inline(always)]
fn argument(ctx: &ProbeContext, number: usize) -> Option<u64> {
    // Where registers are an array, the slot of the first argument is that of a system
    // call, and its own is one before the second one's.
    let at = match (number, off!(regs_cs) == u32::MAX as usize) {
        (0, true) => off!(regs_args[1]) - 8,
        (0, false) => off!(regs_args[0]),
        _ => off!(regs_args[1]),
    };
    probed(ctx.regs.cast::<u8>(), at)
}

/// A word of the program's memory, where it is at hand.
#[inline(always)]
fn user(at: u64) -> Option<u64> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(at as *const u64) }.ok()
}
