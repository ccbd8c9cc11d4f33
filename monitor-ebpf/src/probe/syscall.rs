//! Fd probe at the system-call boundary, for kernels that allow no `fentry`.
//!
//! | | |
//! |---|---|
//! | event | `sys_exit` |
//! | attach | `tp_btf` (Linux 5.5) |
//! | fallback | none: the census alone |
//! | cost | every system call of the host pays for the tracepoint, see `docs/overhead.md` |
//! | blind | io_uring, descriptors made by ioctl, close-on-exec, 32-bit programs; the census finds them |
//!
//! One tracepoint, though a close would best be seen at its entry: at its exit
//! another thread may already have been given the same number. A second one
//! would cost every system call of the host as much again, so a close by
//! another thread than the opener's asks the descriptor table instead.

use aya_ebpf::{
    helpers::{bpf_get_current_task, bpf_probe_read_user},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use leakwatch_common::{BirthKey, KernelKind, Loss, MAX_SYSCALLS, Role};

use super::{
    owner::{OTHER, acquire, kind_of, watched},
    passed,
};
use crate::{
    births::{finish, living, release, release_number},
    kernel::{ROLES, WALK, constant, current, now_ns, off, typed},
    maps::lost,
    table::Table,
};

const PIDFD: u16 = KernelKind::Pidfd as u16;

/// `fcntl(2)` commands that return a descriptor (`include/uapi/linux/fcntl.h`).
const F_DUPFD: u64 = 0;
const F_DUPFD_CLOEXEC: u64 = 1030;
/// `include/uapi/linux/sched.h`.
const CLONE_PIDFD: u64 = 0x1000;
/// `include/uapi/linux/close_range.h`.
const CLOSE_RANGE_CLOEXEC: u64 = 4;
/// Numbers that one close_range is followed over.
const CLOSE_RANGE_MOST: u32 = 128;
/// `include/uapi/asm-generic/errno-base.h`: nothing was open, nothing is closed.
/// After every other error of close(2) the descriptor is gone all the same.
const EBADF: i64 = 9;
/// `enum bpf_cmd` values that return a descriptor: MAP_CREATE, PROG_LOAD,
/// OBJ_GET, {PROG,MAP}_GET_FD_BY_ID, RAW_TRACEPOINT_OPEN, BTF_LOAD,
/// BTF_GET_FD_BY_ID, LINK_CREATE, LINK_GET_FD_BY_ID, ENABLE_STATS, ITER_CREATE,
/// TOKEN_CREATE.
const BPF_RETURNS_FD: u64 = 1 << 0
    | 1 << 5
    | 1 << 7
    | 1 << 13
    | 1 << 14
    | 1 << 17
    | 1 << 18
    | 1 << 19
    | 1 << 28
    | 1 << 30
    | 1 << 32
    | 1 << 33
    | 1 << 36;

/// `TP_PROTO(struct pt_regs *regs, long ret)`.
///
/// Nothing but the look at the role is in this function, and the rest a call away:
/// these few instructions are all that system calls without a role pay, besides
/// the tracepoint.
#[btf_tracepoint(function = "sys_exit")]
pub fn syscall_exit(ctx: BtfTracePointContext) -> i32 {
    let regs: *const u8 = ctx.arg(0);
    // Half of x86's `orig_ax`, all of arm64's `syscallno`: there the verifier lets
    // nobody read further.
    // SAFETY: typed `pt_regs`.
    let number: u32 = unsafe { typed(regs, off!(regs_syscall)) };
    if number >= MAX_SYSCALLS {
        return 0;
    }
    let role = constant(&ROLES[number as usize]);
    if role == 0 {
        return 0;
    }
    has_role(ctx, role)
}

#[inline(never)]
fn has_role(ctx: BtfTracePointContext, role: u32) -> i32 {
    let role = Role::unpack(role);
    let ret: i64 = ctx.arg(1);
    let _ = match role.what {
        Role::CLOSE => try_close(&ctx, ret),
        Role::CLOSE_RANGE => try_close_range(&ctx, ret),
        _ => try_open(&ctx, ret, role),
    };
    0
}

#[inline(always)]
fn try_open(ctx: &BtfTracePointContext, ret: i64, role: Role) -> Option<()> {
    if ret < 0 || foreign(ctx) {
        return None;
    }
    let fd = ret as u32;
    let kind = u16::from(role.kind);
    match role.what {
        Role::RETURNS_FD => {
            // dup and pidfd_getfd name a source whose kind may be known.
            let kind =
                if kind == OTHER && role.arg == 0 { kind_of(arg(ctx, 0) as u32) } else { kind };
            acquire(ctx, fd, kind);
        }
        Role::WRITES_PAIR => {
            watched(current().0)?;
            let pair: [u32; 2] = user(pointer(ctx, role.arg))?;
            acquire(ctx, pair[0], kind);
            acquire(ctx, pair[1], kind);
        }
        Role::FCNTL => {
            let command = arg(ctx, 1) & 0xffff_ffff;
            if command == F_DUPFD || command == F_DUPFD_CLOEXEC {
                acquire(ctx, fd, kind_of(arg(ctx, 0) as u32));
            }
        }
        Role::DUP_ONTO => {
            let from = arg(ctx, 0) as u32;
            if from != fd {
                let kind = kind_of(from);
                release(BirthKey { tgid: current().0, fd });
                acquire(ctx, fd, kind);
            }
        }
        Role::RETURNS_FD_IF_NEW if arg(ctx, 0) as u32 == u32::MAX => acquire(ctx, fd, kind),
        Role::BPF => {
            let command = arg(ctx, 0) & 0xffff_ffff;
            if command < 64 && BPF_RETURNS_FD & (1 << command) != 0 {
                acquire(ctx, fd, kind);
            }
        }
        Role::RECEIVES => {
            watched(current().0)?;
            passed::receive(ctx, pointer(ctx, 1))?;
        }
        Role::CLONE if ret > 0 => {
            watched(current().0)?;
            let at = pidfd_pointer(ctx, role)?;
            acquire(ctx, user(at)?, PIDFD);
        }
        _ => {}
    }
    Some(())
}

/// Where clone (role argument 0) or clone3 (1) put a pidfd, if asked to.
#[inline(always)]
fn pidfd_pointer(ctx: &BtfTracePointContext, role: Role) -> Option<*const u8> {
    if role.arg == 0 {
        // Both x86 and the generic order have parent_tid third.
        return (arg(ctx, 0) & CLONE_PIDFD != 0).then(|| pointer(ctx, 2));
    }
    // `struct clone_args` begins with flags and pidfd.
    let [flags, pidfd]: [u64; 2] = user(pointer(ctx, 0))?;
    (flags & CLONE_PIDFD != 0).then_some(pidfd as *const u8)
}

#[inline(always)]
fn try_close(ctx: &BtfTracePointContext, ret: i64) -> Option<()> {
    if ret == -EBADF || foreign(ctx) {
        return None;
    }
    let (tgid, tid) = current();
    let fd = arg(ctx, 0) as u32;
    let birth = living(BirthKey { tgid, fd })?;
    // What this very thread opened, it opened before it closed it. Of another
    // thread's birth that is known only if the number is free now; if it is not,
    // the birth is a later one, or will be counted when a later one finds it.
    // SAFETY: a map value of this type.
    if unsafe { (*birth).tid } != tid && of_current().is_some_and(|t| t.is_open(fd)) {
        return None;
    }
    finish(birth, now_ns);
    Some(())
}

#[inline(always)]
fn try_close_range(ctx: &BtfTracePointContext, ret: i64) -> Option<()> {
    if ret < 0 || foreign(ctx) || arg(ctx, 2) & CLOSE_RANGE_CLOEXEC != 0 {
        return None;
    }
    let tgid = current().0;
    watched(tgid)?;
    let (first, last) = (arg(ctx, 0) as u32, arg(ctx, 1) as u32);
    let table = of_current()?;
    let at_ns = now_ns();
    for i in 0..CLOSE_RANGE_MOST {
        if i >= constant(&WALK) {
            break;
        }
        let fd = first.wrapping_add(i);
        if fd > last || fd < first {
            return Some(());
        }
        if !table.is_open(fd) {
            release_number(tgid, fd, at_ns);
        }
    }
    if last.wrapping_sub(first) >= CLOSE_RANGE_MOST {
        // Births beyond the walk stay until the census contradicts them.
        lost(Loss::CloseRange);
    }
    Some(())
}

/// The table of the running task.
#[inline(always)]
fn of_current() -> Option<Table> {
    // SAFETY: no arguments.
    Table::of_task(unsafe { bpf_get_current_task() } as *const u8)
}

/// A 32-bit program on x86-64: its numbers mean other calls.
/// `arch/x86/include/asm/segment.h`: `__USER32_CS` is 0x23, `__USER_CS` 0x33.
#[inline(always)]
fn foreign(ctx: &BtfTracePointContext) -> bool {
    let offset = off!(regs_cs);
    if offset == u32::MAX as usize {
        return false;
    }
    let regs: *const u8 = ctx.arg(0);
    // SAFETY: typed `pt_regs`.
    unsafe { typed::<u16>(regs, offset) == 0x23 }
}

/// System-call argument `i`: only the return value's register is overwritten,
/// and the agent's offsets avoid it.
#[inline(always)]
fn arg(ctx: &BtfTracePointContext, i: usize) -> u64 {
    let regs: *const u8 = ctx.arg(0);
    // SAFETY: typed `pt_regs`; `i` is a constant below six.
    unsafe { typed(regs, off!(regs_args[i])) }
}

#[inline(always)]
fn pointer(ctx: &BtfTracePointContext, i: u8) -> *const u8 {
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
