//! Copies the stack of a thread that is stopped for its tracer.

use std::mem::{MaybeUninit, size_of};

use leakwatch_common::{COPY_PAGE, COPY_PAGES};

use crate::source::command::starts::StackCopy;
use crate::time::Boottime;

/// `include/uapi/linux/elf.h`: the general registers.
const NT_PRSTATUS: usize = 1;

/// The stack of `tid`, of this process, which has just started `new`. Nothing if it was
/// killed meanwhile, or is a program of another width than this one.
pub(super) fn copy(tid: libc::pid_t, process: libc::pid_t, new: libc::pid_t) -> Option<StackCopy> {
    let registers = numbered(&registers(tid)?);
    let sp = registers.iter().find(|(number, _)| *number == SP)?.1;
    let start = sp & !(COPY_PAGE as u64 - 1);
    Some(StackCopy {
        pid: process.cast_unsigned(),
        fd: new.cast_unsigned(),
        at: Boottime::now(),
        // Each is one of its own.
        stack: Some(new.cast_unsigned()),
        registers,
        start,
        words: words(tid, start)?,
    })
}

/// As the kernel has saved them at the last entry.
fn registers(tid: libc::pid_t) -> Option<libc::user_regs_struct> {
    let mut registers = MaybeUninit::<libc::user_regs_struct>::uninit();
    let mut room = libc::iovec {
        iov_base: registers.as_mut_ptr().cast(),
        iov_len: size_of::<libc::user_regs_struct>(),
    };
    // SAFETY: the kernel writes no more than there is room for, and says how much it was.
    let done = unsafe { libc::ptrace(libc::PTRACE_GETREGSET, tid, NT_PRSTATUS, &raw mut room) };
    let whole = done == 0 && room.iov_len == size_of::<libc::user_regs_struct>();
    // SAFETY: it is all written.
    whole.then(|| unsafe { registers.assume_init() })
}

/// Words of memory from `start` on, as many pages in a row as can be read.
fn words(tid: libc::pid_t, start: u64) -> Option<Vec<u64>> {
    let mut memory = vec![0_u64; COPY_PAGES * COPY_PAGE / 8];
    let to = libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: COPY_PAGES * COPY_PAGE };
    // Page by page: a part is read as a whole, or not at all.
    let pages: Vec<libc::iovec> = (0..COPY_PAGES)
        .map(|page| libc::iovec {
            iov_base: start.wrapping_add((page * COPY_PAGE) as u64) as *mut _,
            iov_len: COPY_PAGE,
        })
        .collect();
    // SAFETY: the kernel writes into `memory`, which has the length that it is told.
    let read = unsafe {
        libc::process_vm_readv(tid, &raw const to, 1, pages.as_ptr(), COPY_PAGES as u64, 0)
    };
    memory.truncate(usize::try_from(read).ok()? / 8);
    (!memory.is_empty()).then_some(memory)
}

/// The stack pointer (x86-64 psABI 1.0, figure 3.36).
#[cfg(target_arch = "x86_64")]
const SP: u16 = 7;
/// The stack pointer (DWARF for the Arm 64-bit Architecture, table 1).
#[cfg(target_arch = "aarch64")]
const SP: u16 = 31;

/// By the numbers of DWARF; the address of the instruction as that of the return address.
#[cfg(target_arch = "x86_64")]
fn numbered(r: &libc::user_regs_struct) -> Vec<(u16, u64)> {
    let all = [
        r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12,
        r.r13, r.r14, r.r15, r.rip,
    ];
    (0..).zip(all).collect()
}

#[cfg(target_arch = "aarch64")]
fn numbered(r: &libc::user_regs_struct) -> Vec<(u16, u64)> {
    (0..).zip(r.regs.into_iter().chain([r.sp, r.pc])).collect()
}
