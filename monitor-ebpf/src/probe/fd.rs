//! Fd probes: acquisitions and releases, seen at the system-call boundary.
//!
//! | | |
//! |---|---|
//! | event | `sys_enter` for releases, `sys_exit` for acquisitions |
//! | attach | `tp_btf` (Linux 5.5) |
//! | fallback | none: the census alone |
//! | cost | every system call of the host pays for the tracepoints, see `docs/overhead.md` |
//! | blind | io_uring, descriptors made by ioctl, close-on-exec and exit, 32-bit programs; the census finds them |
//!
//! A birth goes at the *entry* of close: at its exit another thread may already
//! have been given the same number.

use aya_ebpf::{
    bindings::BPF_F_USER_STACK,
    helpers::bpf_probe_read_user,
    macros::btf_tracepoint,
    programs::{BtfTracePointContext, tracing::StackIdContext},
};
use leakwatch_common::{
    Birth, BirthKey, KernelKind, Loss, MAX_SYSCALLS, NO_STACK, ProcessEntry, Role, SLOT_OTHER,
    process_flags,
};

use super::passed;
use crate::{
    kernel::{STACKS_ALL, WATCH_ALL, current, flag, now_ns, off, typed},
    maps::{BIRTHS, PROCESSES, ROLES, STACKS, count_closed, count_opened, living, lost},
};

const FILE: u16 = KernelKind::File as u16;
const OTHER: u16 = KernelKind::Other as u16;
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

/// Marks a birth as released and counts its lifetime; `None` where there was
/// none. Two closes of one number that race are a fault of their program; the
/// second finds the mark.
#[inline(always)]
pub fn release(key: BirthKey, at_ns: u64) -> Option<()> {
    let birth = living(key)?;
    // SAFETY: a map value of this type.
    unsafe {
        let born = (*birth).at_ns;
        (*birth).at_ns = 0;
        count_closed((*birth).slot, (*birth).kind, at_ns.saturating_sub(born));
    }
    Some(())
}

/// One system call that acquires.
pub struct Call {
    tgid: u32,
    at_ns: u64,
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
    fn of_current(number: u64) -> Option<Self> {
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
    fn kind_of(&self, fd: u32) -> u16 {
        living(BirthKey { tgid: self.tgid, fd }).map_or(OTHER, |b| {
            // SAFETY: a map value of this type.
            unsafe { (*b).kind }
        })
    }
}

/// Puts a birth into the map, with a stack if asked.
#[inline(always)]
pub fn remember(
    ctx: &BtfTracePointContext,
    key: BirthKey,
    at_ns: u64,
    syscall: u16,
    kind: u16,
    slot: u16,
    stack: bool,
) {
    let stack = if stack { take_stack(ctx) } else { NO_STACK };
    let birth = Birth { at_ns, stack, tid: current().1, syscall, slot, kind, pad: 0 };
    match BIRTHS.get_ptr_mut(key) {
        // SAFETY: a map value of this type.
        Some(entry) => unsafe { *entry = birth },
        None if BIRTHS.insert(key, birth, 0).is_err() => lost(Loss::Births),
        None => {}
    }
}

#[inline(always)]
fn take_stack(ctx: &BtfTracePointContext) -> i32 {
    match ctx.get_stackid(&STACKS, u64::from(BPF_F_USER_STACK)) {
        Ok(id) => id as i32,
        Err(_) => {
            lost(Loss::Stacks);
            NO_STACK
        }
    }
}

/// The agent's word on the running process: `None` if it is not watched,
/// `Some(None)` if it is though the agent has not heard of it yet.
#[inline(always)]
fn watched(tgid: u32) -> Option<Option<*mut ProcessEntry>> {
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
fn foreign(ctx: &BtfTracePointContext) -> bool {
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

const _: () = assert!(FILE == 0);
