//! The process table: who runs, since when its threads do, and how many descriptors it has open.
//!
//! | | |
//! |---|---|
//! | event | `iter/task` (`kernel/bpf/task_iter.c`, Linux 5.8) |
//! | fallback | the agent reads `/proc/PID/stat` |
//! | cost | nothing until it is read; then about 0.5 µs per task, twenty times less than /proc |
//! | blind | which of the numbers in use were given to another file |

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_seq_write;
use leakwatch_common::{FDS_UNCOUNTED, ProcessRecord, ThreadRecord};

use crate::{
    kernel::{IterMeta, off, probed, typed},
    maps::SCRATCH,
    table::Table,
};

/// `struct bpf_iter__task` of `kernel/bpf/task_iter.c`.
#[repr(C)]
pub struct Task {
    meta: *const IterMeta,
    task: *const u8,
}

/// Called once per task, and once with none at the end.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn processes(ctx: *mut Task) -> i32 {
    // SAFETY: the kernel passes this context; the verifier checks each load.
    let _ = unsafe { try_processes(ctx) };
    0
}

#[inline(always)]
unsafe fn try_processes(ctx: *mut Task) -> Option<()> {
    // SAFETY: loads of the context, which the verifier types.
    let task = unsafe { (*ctx).task };
    if task.is_null() {
        return None;
    }
    // SAFETY: `task` is typed and not null; members by offset.
    unsafe {
        let mut thread = ThreadRecord {
            start_ns: typed(task, off!(task_start_boottime)),
            tgid: typed(task, off!(task_tgid)),
            tid: typed(task, off!(task_pid)),
        };
        if thread.tgid != thread.tid {
            write(ctx, &raw mut thread);
            return None;
        }
        let signal: *const u8 = typed(task, off!(task_signal));
        let parent: *const u8 = typed(task, off!(task_real_parent));
        let mut record = ProcessRecord {
            leader: thread,
            numbers: 0,
            ppid: typed(parent, off!(task_tgid)),
            flags: typed(task, off!(task_flags)),
            exit_state: typed(task, off!(task_exit_state)),
            threads: typed(signal, off!(signal_nr_threads)),
            fds: FDS_UNCOUNTED,
            unused: 0,
            comm: typed(task, off!(task_comm)),
        };
        let scratch = SCRATCH.get_ptr_mut(0)?;
        let files: *const u8 = typed(task, off!(task_files));
        if files.is_null() {
            record.fds = 0;
        } else if let Some((fds, numbers)) =
            Table::of_files(files).and_then(|t| t.in_use((&raw mut (*scratch).path).cast()))
            // The table of a process that ends may be another's by now.
            && probed::<*const u8>(task, off!(task_files)) == Some(files)
        {
            (record.fds, record.numbers) = (fds, numbers);
        }
        write(ctx, &raw mut record);
    }
    Some(())
}

/// # Safety
/// `ctx` is what the kernel has passed.
#[inline(always)]
unsafe fn write<T>(ctx: *mut Task, record: *mut T) {
    // SAFETY: loads of the context, which the verifier types; the record is on the stack.
    unsafe {
        bpf_seq_write((*(*ctx).meta).seq, record.cast::<c_void>(), size_of::<T>() as u32);
    }
}
