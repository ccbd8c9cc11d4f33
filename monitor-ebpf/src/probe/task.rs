//! Task probes: processes and threads that come, change and go.
//!
//! | | |
//! |---|---|
//! | event | `sched_process_fork`, `sched_process_exec`, `sched_process_exit` |
//! | attach | `tp_btf` (Linux 5.5) |
//! | fallback | the agent compares two censuses |
//! | cost | under 1 µs per fork, exec or exit; nothing to system calls |
//! | blind | threads created before the agent have no known creator |

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::warn;
use leakwatch_common::{
    BirthKey, COMM_LEN, KernelKind, Loss, ProcessEntry, SLOT_OTHER, THREAD_KEY, TaskRecord,
    process_flags, task_what,
};

use crate::{
    births::{Owner, forget_number, remember},
    kernel::{current, now_ns, off, typed},
    maps::{BIRTHS, PROCESSES, count_closed, count_opened, lost, process, send, settings},
};

const THREAD: u16 = KernelKind::Thread as u16;
const PROCESS: u16 = KernelKind::Process as u16;
/// Descriptors of an exiting process that are looked at.
const EXIT_WALK: u32 = 128;

/// `TP_PROTO(struct task_struct *parent, struct task_struct *child)`; runs in
/// the parent, so a user stack taken here is the creator's.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn task_fork(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the arguments are as the prototype says.
    unsafe { try_fork(&ctx) };
    0
}

#[inline(always)]
unsafe fn try_fork(ctx: &BtfTracePointContext) {
    let parent: *const u8 = ctx.arg(0);
    let child: *const u8 = ctx.arg(1);
    let at_ns = now_ns();
    // SAFETY: both are typed `task_struct` pointers.
    unsafe {
        let tgid: u32 = typed(child, off!(task_tgid));
        let tid: u32 = typed(child, off!(task_pid));
        let parent_tgid: u32 = typed(parent, off!(task_tgid));
        // Known to the programs before its first instruction, also where the
        // parent is not: the entry is what makes its end count once.
        let mut entry = ProcessEntry {
            slot: SLOT_OTHER,
            flags: if watch_all() { process_flags::WATCH } else { 0 },
            fd_end: 0,
        };
        // Not `unwrap_or`: verifiers before 6.x refuse the half-written value
        // that the compiler makes of it.
        if let Some(known) = PROCESSES.get_ptr(parent_tgid) {
            // Nothing is copied of a child before the agent has seen it: what lives for
            // a moment would take the room of what leaks.
            let flags = (*known).flags & !process_flags::COPIES;
            (entry.slot, entry.flags) = ((*known).slot, flags);
        }
        let slot = entry.slot;
        count_opened(slot, THREAD);
        if tid != tgid {
            if wants_stack(Some(entry)) {
                let key = BirthKey { tgid, fd: THREAD_KEY | tid };
                let flags = process_flags::STACKS;
                let owner = Owner { tid: current().1, slot, flags, generation: 0 };
                remember(ctx, key, None, owner, THREAD, true);
            }
            return;
        }
        count_opened(slot, PROCESS);
        // The child's copies of its parent's descriptors have no births.
        if PROCESSES.insert(tgid, entry, 0).is_err() {
            lost(Loss::Processes);
            warn!(ctx, "PROCESSES is full: process {} is not watched", tgid);
        }
        let leader: *const u8 = typed(parent, off!(task_group_leader));
        send(&TaskRecord {
            at_ns,
            start_ns: typed(child, off!(task_start_boottime)),
            parent_start_ns: typed(leader, off!(task_start_boottime)),
            tgid,
            parent_tgid,
            what: task_what::FORK,
            exit_code: 0,
            comm: typed(child, off!(task_comm)),
        });
    }
}

/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`.
/// The descriptors that close-on-exec took are found by the next census.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn task_exec(ctx: BtfTracePointContext) -> i32 {
    let task: *const u8 = ctx.arg(0);
    // SAFETY: a typed `task_struct` pointer.
    unsafe {
        send(&TaskRecord {
            at_ns: now_ns(),
            start_ns: typed(task, off!(task_start_boottime)),
            parent_start_ns: 0,
            tgid: typed(task, off!(task_tgid)),
            parent_tgid: 0,
            what: task_what::EXEC,
            exit_code: 0,
            comm: typed(task, off!(task_comm)),
        });
    }
    0
}

/// `TP_PROTO(struct task_struct *p)`, from Linux 6.16 with `bool group_dead`
/// behind it, which is not used: `signal->live` says the same on all.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn task_exit(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the argument is as the prototype says.
    unsafe { try_exit(&ctx) };
    0
}

#[inline(always)]
unsafe fn try_exit(ctx: &BtfTracePointContext) {
    let task: *const u8 = ctx.arg(0);
    let at_ns = now_ns();
    let (tgid, tid) = current();
    let entry = process(tgid);
    let slot = entry.map_or(SLOT_OTHER, |e| e.slot);
    // SAFETY: typed `task_struct` and what hangs on it.
    unsafe {
        let start_ns: u64 = typed(task, off!(task_start_boottime));
        count_closed(slot, THREAD, at_ns.saturating_sub(start_ns));
        if tid != tgid && wants_stack(entry) {
            let _ = BIRTHS.remove(BirthKey { tgid, fd: THREAD_KEY | tid });
        }
        let signal: *const u8 = typed(task, off!(task_signal));
        if typed::<i32>(signal, off!(signal_live)) != 0 {
            return;
        }
        // Two last threads may both see 0; only one can remove the entry.
        if entry.is_some() && PROCESSES.remove(tgid).is_err() {
            return;
        }
        forget_births(tgid, entry.map_or(0, |e| e.fd_end), at_ns);
        let leader: *const u8 = typed(task, off!(task_group_leader));
        let start_ns: u64 = typed(leader, off!(task_start_boottime));
        count_closed(slot, PROCESS, at_ns.saturating_sub(start_ns));
        send(&TaskRecord {
            at_ns,
            start_ns,
            parent_start_ns: 0,
            tgid,
            parent_tgid: 0,
            what: task_what::EXIT,
            exit_code: typed(task, off!(task_exit_code)),
            comm: typed::<[u8; COMM_LEN]>(leader, off!(task_comm)),
        });
    }
}

/// What the process never closed, the kernel closes now. Those past the walk
/// are left to the agent's sweep.
#[inline(always)]
fn forget_births(tgid: u32, end: u32, at_ns: u64) {
    for fd in 0..EXIT_WALK {
        if fd >= end {
            return;
        }
        forget_number(tgid, fd, at_ns);
    }
}

#[inline(always)]
fn wants_stack(entry: Option<ProcessEntry>) -> bool {
    settings().is_some_and(|s| s.stacks_all | s.stacks_sample != 0)
        || entry.is_some_and(|e| e.flags & process_flags::STACKS != 0)
}

#[inline(always)]
fn watch_all() -> bool {
    settings().is_some_and(|s| s.watch_all != 0)
}
