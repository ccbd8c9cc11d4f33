//! Pieces of user stacks, for code without frame pointers.
//!
//! Only of processes whose unit is suspected, and of those seldom: the first acquisition
//! of each stack id, then one after ever longer gaps. The agent finds out which of them
//! are still held, and unwinds those.

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::generated::{
        bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_user,
        bpf_task_pt_regs,
    },
};
use leakwatch_common::{COPY_PAGE, COPY_PAGES, COPY_REGISTERS, CopyKey, CopyTurn, Loss, StackCopy};

use crate::{
    kernel::{off, probed},
    maps::{COPIES, TURNS, lost},
};

/// The gap after the first copy, nanoseconds; each is twice the one before.
const FIRST_GAP_NS: u64 = 50_000_000;
/// So often: 1.6 s is the longest.
const LAST_ROUND: u64 = 5;

/// `arch/x86/include/asm/segment.h`: `__USER_CS`, the code of 64-bit programs.
const USER_CS: u16 = 0x33;

/// Copies the stack of the running thread, if it is its turn.
///
/// A function of its own, so that the verifier and the loops of its callers have but a
/// call of it.
#[inline(never)]
pub fn copy(tgid: u32, fd: u32, at_ns: u64, stack: i32) {
    if due(CopyKey { tgid, stack }, at_ns) && try_copy(tgid, fd, at_ns, stack).is_none() {
        lost(Loss::Copies);
    }
}

#[inline(always)]
fn due(key: CopyKey, now: u64) -> bool {
    let Some(turn) = TURNS.get_ptr_mut(key) else {
        let turn = CopyTurn { next_ns: now + FIRST_GAP_NS, round: 1 };
        let _ = TURNS.insert(key, turn, 0);
        return true;
    };
    // SAFETY: a map value of this type. Threads that race copy once too often at worst.
    unsafe {
        if now < (*turn).next_ns {
            return false;
        }
        let round = (*turn).round;
        (*turn).next_ns = now + (FIRST_GAP_NS << (round & 7));
        if round < LAST_ROUND {
            (*turn).round = round + 1;
        }
    }
    true
}

#[inline(always)]
fn try_copy(tgid: u32, fd: u32, at_ns: u64, stack: i32) -> Option<()> {
    const MOST: usize = 8 * COPY_REGISTERS;
    let registers = user_registers()?;
    let sp: u64 = probed(registers, off!(regs_sp))?;
    let start = sp & !(COPY_PAGE as u64 - 1);
    let size = off!(regs_size);
    if size > MOST {
        return None;
    }
    let mut entry = COPIES.reserve::<StackCopy>(0)?;
    let copy = entry.as_mut_ptr();
    // SAFETY: the room is that of the record, which is all written but for pages that
    // cannot be read, and the helpers check the sources.
    let pages = unsafe {
        let header = &raw mut (*copy).header;
        (*header).at_ns = at_ns;
        (*header).start = start;
        (*header).tgid = tgid;
        (*header).fd = fd;
        (*header).stack = stack;
        let to = (&raw mut (*header).registers).cast();
        let mut pages = 0;
        if bpf_probe_read_kernel(to, size as u32, registers.cast()) == 0 {
            let memory = (&raw mut (*copy).memory).cast::<u8>();
            for page in 0..COPY_PAGES {
                let at = page * COPY_PAGE;
                let from = start.wrapping_add(at as u64) as *const _;
                // Past the beginning of the stack, or not in memory: nothing is waited for.
                if bpf_probe_read_user(memory.add(at).cast(), COPY_PAGE as u32, from) != 0 {
                    break;
                }
                pages += 1;
            }
        }
        (*header).pages = pages;
        pages
    };
    if pages == 0 {
        entry.discard(u64::from(BPF_RB_NO_WAKEUP));
        return None;
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    Some(())
}

/// Where the registers of the running thread's user space are saved.
///
/// Before Linux 5.15 nothing tells: they lie at the end of its kernel stack, whose size is
/// in no type. So what is found there must look like them.
#[inline(always)]
fn user_registers() -> Option<*const u8> {
    let on_stack = off!(stack_regs);
    // The verifier does not look at the branch that the agent's constant rules out, and
    // kernels without these helpers do not miss them.
    let registers = if on_stack == 0 {
        // SAFETY: of the running task, which has its registers.
        unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as *const u8 }
    } else {
        // SAFETY: no arguments.
        let task = unsafe { bpf_get_current_task() } as *const u8;
        probed::<*const u8>(task, off!(task_stack))?.wrapping_add(on_stack)
    };
    let cs = off!(regs_cs);
    // 32-bit programs have other registers, and the kernel's own threads none.
    if cs != u32::MAX as usize && probed::<u16>(registers, cs)? != USER_CS {
        return None;
    }
    Some(registers)
}
