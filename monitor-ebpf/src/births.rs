//! Births: remembered at an acquisition, marked at the release.

use aya_ebpf::{
    bindings::BPF_F_USER_STACK, helpers::generated::bpf_get_prandom_u32,
    programs::tracing::StackIdContext,
};
use leakwatch_common::{Birth, BirthKey, Loss, NO_STACK, STACK_SAMPLE, process_flags};

use crate::{
    copies::copy,
    kernel::{current, now_ns},
    maps::{BIRTHS, STACKS, count_closed, count_unseen, living, lost, settings},
};

/// `bpf_get_stackid` found the bucket taken by another stack.
const EEXIST: i32 = -17;

/// Whose an acquisition is, and how it is to be remembered.
#[derive(Clone, Copy)]
pub struct Place {
    /// Unit slot.
    pub slot: u16,
    /// [`process_flags`].
    pub flags: u16,
    /// Of the settings, lower half.
    pub generation: u16,
}

/// Puts a birth into the map, where `entry` is what the map has for `key` now.
///
/// A number that is given out while its last birth still lives was released
/// unseen: it is counted, without a lifetime that nobody knows.
#[inline(always)]
pub fn remember<C: StackIdContext>(
    ctx: &C,
    key: BirthKey,
    entry: Option<*mut Birth>,
    place: Place,
    kind: u16,
) {
    let wanted = place.flags & process_flags::STACKS != 0 || sampled();
    let stack = if wanted { take_stack(ctx) } else { NO_STACK };
    let birth = Birth {
        at_ns: now_ns(),
        stack,
        tid: current().1,
        slot: place.slot,
        kind,
        flags: place.flags,
        generation: place.generation,
    };
    if place.flags & process_flags::COPIES != 0 {
        copy(key.tgid, key.fd, birth.at_ns, stack);
    }
    match entry {
        // SAFETY: a map value of this type.
        Some(entry) => unsafe {
            if (*entry).at_ns != 0 {
                count_unseen((*entry).slot, (*entry).kind);
            }
            *entry = birth;
        },
        None if BIRTHS.insert(key, birth, 0).is_err() => lost(Loss::Births),
        None => {}
    }
}

/// Marks the birth of `key` as released now and counts its lifetime; `None`
/// where there was none. Two closes of one number that race are a fault of
/// their program; the second finds the mark.
#[inline(always)]
pub fn release(key: BirthKey) -> Option<()> {
    finish(living(key)?, now_ns());
    Some(())
}

/// Marks a living birth as released at `at_ns`.
#[inline(always)]
pub fn finish(birth: *mut Birth, at_ns: u64) {
    // SAFETY: a map value of this type.
    unsafe {
        let born = (*birth).at_ns;
        (*birth).at_ns = 0;
        count_closed((*birth).slot, (*birth).kind, at_ns.saturating_sub(born));
    }
}

/// Chance takes this one for the sample. Not a counter: programs that open in a
/// rhythm would be caught by it always at the same place, or never.
#[inline(always)]
fn sampled() -> bool {
    settings().is_some_and(|s| s.stacks_sample != 0)
        // SAFETY: no arguments.
        && unsafe { bpf_get_prandom_u32() } % STACK_SAMPLE == 0
}

#[inline(always)]
fn take_stack<C: StackIdContext>(ctx: &C) -> i32 {
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
