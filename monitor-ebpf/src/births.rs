//! Births: remembered at an acquisition, marked at the release.

use aya_ebpf::{
    bindings::BPF_F_USER_STACK,
    programs::{BtfTracePointContext, tracing::StackIdContext},
};
use leakwatch_common::{Birth, BirthKey, Loss, NO_STACK};

use crate::{
    kernel::current,
    maps::{BIRTHS, STACKS, count_closed, living, lost},
};

/// `bpf_get_stackid` found the bucket taken by another stack.
const EEXIST: i32 = -17;

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

#[inline(always)]
fn take_stack(ctx: &BtfTracePointContext) -> i32 {
    match ctx.get_stackid(&STACKS, u64::from(BPF_F_USER_STACK)) {
        Ok(id) => id as i32,
        Err(errno) => {
            // Else there is no user stack to take, which loses nothing.
            if errno == EEXIST {
                lost(Loss::Stacks);
            }
            NO_STACK
        }
    }
}
