//! Fd probes: acquisitions and releases, seen at the system-call boundary.
//!
//! | | |
//! |---|---|
//! | event | `sys_enter` for releases, `sys_exit` for acquisitions |
//! | attach | `tp_btf` (Linux 5.5) |
//! | fallback | none: the census alone |
//! | cost | every system call of the host pays for the tracepoints, see `docs/overhead.md` |
//! | blind | io_uring, descriptors made by ioctl, close-on-exec, 32-bit programs; the census finds them |
//!
//! A birth goes at the *entry* of close: at its exit another thread may already
//! have been given the same number.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use leakwatch_common::{BirthKey, KernelKind, Loss, MAX_SYSCALLS, Role};

use super::{
    call::{Call, OTHER, arg, foreign, pointer, user, watched},
    passed,
};
use crate::{
    births::release,
    kernel::{current, now_ns, off, typed},
    maps::{ROLES, lost},
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
const CLOSE_RANGE_WALK: u32 = 128;
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

/// `TP_PROTO(struct pt_regs *regs, long id)`.
#[btf_tracepoint(function = "sys_enter")]
pub fn fd_enter(ctx: BtfTracePointContext) -> i32 {
    let number: u64 = ctx.arg(1);
    if let Some(role) = role(number) {
        if role.what == Role::CLOSE {
            let _ = try_close(&ctx);
        } else if role.what == Role::CLOSE_RANGE {
            let _ = try_close_range(&ctx);
        }
    }
    0
}

/// `TP_PROTO(struct pt_regs *regs, long ret)`.
#[btf_tracepoint(function = "sys_exit")]
pub fn fd_exit(ctx: BtfTracePointContext) -> i32 {
    let regs: *const u8 = ctx.arg(0);
    // SAFETY: typed `pt_regs`.
    let number: u64 = unsafe { typed(regs, off!(regs_syscall)) };
    if let Some(role) = role(number)
        && role.what != Role::NONE
        && role.what < Role::CLOSE
    {
        let _ = try_open(&ctx, number, role);
    }
    0
}

#[inline(always)]
fn role(number: u64) -> Option<Role> {
    if number >= u64::from(MAX_SYSCALLS) {
        return None;
    }
    ROLES.get(number as u32).copied()
}

#[inline(always)]
fn try_open(ctx: &BtfTracePointContext, number: u64, role: Role) -> Option<()> {
    let ret: i64 = ctx.arg(1);
    if ret < 0 || foreign(ctx) {
        return None;
    }
    let call = Call::of_current(number)?;
    let fd = ret as u32;
    let kind = u16::from(role.kind);
    match role.what {
        Role::RETURNS_FD => {
            // dup and pidfd_getfd name a source whose kind may be known.
            let kind = if kind == OTHER && role.arg == 0 {
                call.kind_of(arg(ctx, 0) as u32)
            } else {
                kind
            };
            call.acquire(ctx, fd, kind);
        }
        Role::WRITES_PAIR => {
            let pair: [u32; 2] = user(pointer(ctx, role.arg))?;
            call.acquire(ctx, pair[0], kind);
            call.acquire(ctx, pair[1], kind);
        }
        Role::FCNTL => {
            let command = arg(ctx, 1) & 0xffff_ffff;
            if command == F_DUPFD || command == F_DUPFD_CLOEXEC {
                call.acquire(ctx, fd, call.kind_of(arg(ctx, 0) as u32));
            }
        }
        Role::DUP_ONTO => {
            let from = arg(ctx, 0) as u32;
            if from != fd {
                let kind = call.kind_of(from);
                release(BirthKey { tgid: call.tgid, fd }, call.at_ns);
                call.acquire(ctx, fd, kind);
            }
        }
        Role::RETURNS_FD_IF_NEW if arg(ctx, 0) as u32 == u32::MAX => call.acquire(ctx, fd, kind),
        Role::BPF => {
            let command = arg(ctx, 0) & 0xffff_ffff;
            if command < 64 && BPF_RETURNS_FD & (1 << command) != 0 {
                call.acquire(ctx, fd, kind);
            }
        }
        Role::RECEIVES => passed::receive(ctx, &call, pointer(ctx, 1))?,
        Role::CLONE if ret > 0 => {
            let at = pidfd_pointer(ctx, role)?;
            call.acquire(ctx, user(at)?, PIDFD);
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
fn try_close(ctx: &BtfTracePointContext) -> Option<()> {
    if foreign(ctx) {
        return None;
    }
    release(BirthKey { tgid: current().0, fd: arg(ctx, 0) as u32 }, now_ns())
}

#[inline(always)]
fn try_close_range(ctx: &BtfTracePointContext) -> Option<()> {
    if foreign(ctx) || arg(ctx, 2) & CLOSE_RANGE_CLOEXEC != 0 {
        return None;
    }
    let tgid = current().0;
    watched(tgid)?;
    let (first, last) = (arg(ctx, 0) as u32, arg(ctx, 1) as u32);
    let at_ns = now_ns();
    for i in 0..CLOSE_RANGE_WALK {
        let fd = first.wrapping_add(i);
        if fd > last || fd < first {
            return Some(());
        }
        let _ = release(BirthKey { tgid, fd }, at_ns);
    }
    if last.wrapping_sub(first) >= CLOSE_RANGE_WALK {
        // Births beyond the walk stay until the census contradicts them.
        lost(Loss::CloseRange);
    }
    Some(())
}
