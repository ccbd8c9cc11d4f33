//! Whose an acquisition is.

use aya_ebpf::{helpers::generated::bpf_get_prandom_u32, programs::tracing::StackIdContext};
use leakwatch_common::{
    BirthKey, KernelKind, ProcessEntry, SLOT_OTHER, STACK_SAMPLE, process_flags,
};

use crate::{
    births::{Owner, known, living, remember, repeat},
    kernel::current,
    maps::{PROCESSES, count_opened, settings},
};

/// The kind of what has no name of its own.
pub const OTHER: u16 = KernelKind::Other as u16;

/// Remembers and counts that the running process acquired `fd`, if the process
/// is watched.
///
/// A birth that was released stays in the map until its number is given out
/// again, and still knows its process: while no word about any process has come
/// since, the common open costs one look-up.
#[inline(always)]
pub fn acquire<C: StackIdContext>(ctx: &C, fd: u32, kind: u16) {
    let Some(settings) = settings() else { return };
    let (tgid, tid) = current();
    let key = BirthKey { tgid, fd };
    let generation = settings.generation as u16;
    let known = known(key);
    if let Some(birth) = known
        && settings.stacks_sample == 0
        && let Some(slot) = repeat(birth, tid, kind, generation)
    {
        count_opened(slot, kind);
        return;
    }
    // Plain values, set in place: verifiers before 6.x refuse what the compiler
    // makes of an `Option` of several fields.
    let mut owner = Owner { tid, slot: SLOT_OTHER, flags: 0, generation };
    let mut placed = false;
    if let Some(birth) = known {
        // SAFETY: a map value of this type.
        unsafe {
            if (*birth).generation == generation {
                (owner.slot, owner.flags) = ((*birth).slot, (*birth).flags);
                placed = true;
            }
        }
    }
    if !placed {
        let Some(entry) = watched(tgid) else { return };
        if let Some(entry) = entry {
            // An upper bound is enough, and OR gives one without a branch.
            // SAFETY: a map value of this type. Threads that race leave it too
            // low at worst, and the agent's sweep takes the rest.
            unsafe {
                (*entry).fd_end |= fd.wrapping_add(1);
                (owner.slot, owner.flags) = ((*entry).slot, (*entry).flags);
            }
        }
        if settings.stacks_all != 0 {
            owner.flags |= process_flags::STACKS;
        }
    }
    let wanted =
        owner.flags & process_flags::STACKS != 0 || settings.stacks_sample != 0 && in_the_sample();
    remember(ctx, key, known, owner, kind, wanted);
    count_opened(owner.slot, kind);
}

/// Chance takes this one for the sample. Not a counter: programs that open in a
/// rhythm would be caught by it always at the same place, or never.
#[inline(always)]
fn in_the_sample() -> bool {
    // SAFETY: no arguments.
    unsafe { bpf_get_prandom_u32() }.is_multiple_of(STACK_SAMPLE)
}

/// The kind of another descriptor of the process, for its duplicates.
#[inline(always)]
pub fn kind_of(fd: u32) -> u16 {
    living(BirthKey { tgid: current().0, fd }).map_or(OTHER, |b| {
        // SAFETY: a map value of this type.
        unsafe { (*b).kind }
    })
}

/// The agent's word on the running process: `None` if it is not watched,
/// `Some(None)` if it is though the agent has not heard of it yet.
#[inline(always)]
pub fn watched(tgid: u32) -> Option<Option<*mut ProcessEntry>> {
    match PROCESSES.get_ptr_mut(tgid) {
        // SAFETY: a map value of this type.
        Some(e) if unsafe { (*e).flags } & process_flags::WATCH != 0 => Some(Some(e)),
        None if settings().is_some_and(|s| s.watch_all != 0) => Some(None),
        _ => None,
    }
}
