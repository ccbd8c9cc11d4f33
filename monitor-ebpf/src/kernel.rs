//! How the programs read the kernel: offsets from the agent, no constant of
//! one kernel.

use aya_ebpf::{
    bindings::seq_file,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel, generated::bpf_ktime_get_boot_ns},
};
use leakwatch_common::{MAX_SYSCALLS, Offsets};

/// Filled by the agent from the running kernel's BTF before the load.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::ZERO;

/// What each system call does, as packed [`Role`]s: filled by the agent, too. Not
/// a map of its own, whose look-up every system call of the host would pay.
///
/// [`Role`]: leakwatch_common::Role
#[unsafe(no_mangle)]
pub static ROLES: [u32; MAX_SYSCALLS as usize] = [0; MAX_SYSCALLS as usize];

/// Numbers that one `close_range` or one message is followed over, at most what its program
/// says. The agent's word, so that who only asks for what is open can do with few: the
/// verifier walks every round, and takes most of a second for them.
#[unsafe(no_mangle)]
pub static WALK: u32 = u32::MAX;

/// 1 where an atomic addition of a program is a barrier, too, as it is on x86. On arm64 it is
/// `stadd`, which is none (`arch/arm64/net/bpf_jit_comp.c: emit_lse_atomic`), unless it
/// returns the old value, as it cannot before Linux 5.12.
#[unsafe(no_mangle)]
pub static ADDITION_ORDERS: u32 = 0;

/// One offset. The read is volatile, else the compiler would fold the zeros
/// of the static into the program. The verifier sees the frozen value, which
/// is what lets it check a load through a typed kernel pointer.
macro_rules! off {
    ($field:ident) => {
        $crate::kernel::constant(&$crate::kernel::OFFSETS.$field) as usize
    };
    ($field:ident[$i:expr]) => {
        $crate::kernel::constant(&$crate::kernel::OFFSETS.$field[$i]) as usize
    };
}
pub(crate) use off;

/// Reads what the agent may have replaced.
#[inline(always)]
pub fn constant<T: Copy>(at: &'static T) -> T {
    // SAFETY: a reference is valid and aligned.
    unsafe { core::ptr::read_volatile(at) }
}

/// A load through a pointer whose type the verifier knows (an argument of a
/// `tp_btf` program or an iterator, or what was loaded from one): a plain
/// instruction with a fault handler, not a helper call.
///
/// # Safety
/// `base` is such a pointer and `offset` that of a member of its type.
#[inline(always)]
pub unsafe fn typed<T: Copy>(base: *const u8, offset: usize) -> T {
    // SAFETY: the caller's promise; faults read as zero (`BPF_PROBE_MEM`).
    unsafe { core::ptr::read_volatile(base.add(offset).cast::<T>()) }
}

/// A checked read through any kernel address; for pointers that have lost
/// their type. About 10 ns each.
#[inline(always)]
pub fn probed<T: Copy>(base: *const u8, offset: usize) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset).cast::<T>()).ok() }
}

/// `struct bpf_iter_meta` of `include/linux/bpf.h`: where an iterator writes to.
#[repr(C)]
pub struct IterMeta {
    pub seq: *mut seq_file,
}

/// `CLOCK_BOOTTIME`, nanoseconds (Linux 5.8).
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Thread-group id and thread id of the running task.
#[inline(always)]
pub fn current() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    ((both >> 32) as u32, both as u32)
}
