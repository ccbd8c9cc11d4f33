//! Fd probes on the kernel's own functions for descriptor tables.
//!
//! | | |
//! |---|---|
//! | event | `fd_install`, `do_dup2`; `file_close_fd_locked` (6.7) or `pick_file`; `do_close_on_exec` |
//! | attach | `fentry` (Linux 5.5), chosen and tried by the agent |
//! | fallback | `syscall` |
//! | cost | nothing to system calls that touch no descriptor, see `docs/overhead.md` |
//! | blind | the copy that fork makes, and what exit closes: the task probes see the process |
//!
//! Every way in ends in one of the first two, whoever asked: a system call of
//! any ABI, io_uring, SCM_RIGHTS, an ioctl. A number that was reserved and given
//! back was never installed. The release runs under the table's lock, before
//! the number can be given out again, so that no order is ever in doubt.

use aya_ebpf::{macros::fentry, programs::FEntryContext};
use leakwatch_common::{BirthKey, Loss};

use super::owner::acquire;
use crate::{
    births::{release, release_number},
    filekind::kind_of_file,
    kernel::{current, now_ns},
    maps::lost,
    table::Table,
};

/// Words of the close-on-exec set that an exec is followed over.
const EXEC_WALK: u32 = 2;

/// `void fd_install(unsigned int fd, struct file *file)`.
#[fentry(function = "fd_install")]
pub fn table_install(ctx: FEntryContext) -> i32 {
    // SAFETY: argument 1 is a typed `struct file`.
    let kind = unsafe { kind_of_file(ctx.arg(1)) };
    acquire(&ctx, ctx.arg(0), kind);
    0
}

/// `static int do_dup2(struct files_struct *files, struct file *file,
/// unsigned fd, unsigned flags)`: what the number referred to is closed.
///
/// It fails with EBUSY only when another thread is about to be given the very
/// number: a birth too many, which the census takes away.
#[fentry(function = "do_dup2")]
pub fn table_replace(ctx: FEntryContext) -> i32 {
    let fd = ctx.arg(2);
    // SAFETY: argument 1 is a typed `struct file`.
    let kind = unsafe { kind_of_file(ctx.arg(1)) };
    release(BirthKey { tgid: current().0, fd });
    acquire(&ctx, fd, kind);
    0
}

/// `struct file *file_close_fd_locked(struct files_struct *files, unsigned fd)`;
/// `pick_file` has the same arguments. For close and, once per number, close_range.
#[fentry(function = "file_close_fd_locked")]
pub fn table_release(ctx: FEntryContext) -> i32 {
    release(BirthKey { tgid: current().0, fd: ctx.arg(1) });
    0
}

/// `void do_close_on_exec(struct files_struct *files)`: closes by the set, number
/// by number, in a loop of its own.
#[fentry(function = "do_close_on_exec")]
pub fn table_exec(ctx: FEntryContext) -> i32 {
    let _ = try_exec(&ctx);
    0
}

#[inline(always)]
fn try_exec(ctx: &FEntryContext) -> Option<()> {
    let table = Table::of_files(ctx.arg(0))?;
    let tgid = current().0;
    let at_ns = now_ns();
    for word in 0..EXEC_WALK {
        let set = table.close_on_exec(word);
        if set == 0 {
            continue;
        }
        for bit in 0..64 {
            if set >> bit & 1 != 0 {
                release_number(tgid, word * 64 + bit, at_ns);
            }
        }
    }
    if table.close_on_exec(EXEC_WALK) != 0 {
        // Births beyond the walk stay until the census contradicts them.
        lost(Loss::CloseOnExec);
    }
    Some(())
}
