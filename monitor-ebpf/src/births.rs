//! Births: remembered at an acquisition, marked at the release.

use aya_ebpf::{bindings::BPF_F_USER_STACK, programs::tracing::StackIdContext};
use leakwatch_common::{Birth, BirthKey, Loss, NO_STACK, THREAD_KEY, process_flags};

use crate::{
    copies::copy,
    kernel::now_ns,
    maps::{BIRTHS, STACKS, count_closed, count_unseen, lost},
    near,
};

/// `bpf_get_stackid` found the bucket taken by another stack.
const EEXIST: i32 = -17;

/// Whose an acquisition is, and how it is to be remembered.
#[derive(Clone, Copy)]
pub struct Owner {
    /// Thread that acquires.
    pub tid: u32,
    /// Unit slot.
    pub slot: u16,
    /// [`process_flags`].
    pub flags: u16,
    /// Of the settings, lower half.
    pub generation: u16,
}

/// Puts a birth into the map, where `entry` is what the map has for `key` now, with its
/// stack if one is `wanted`.
///
/// A number that is given out while its last birth still lives was released
/// unseen: it is counted, without a lifetime that nobody knows.
#[inline(always)]
pub fn remember<C: StackIdContext>(
    ctx: &C,
    key: BirthKey,
    entry: Option<*mut Birth>,
    owner: Owner,
    kind: u16,
    wanted: bool,
) {
    let stack = if wanted { take_stack(ctx) } else { NO_STACK };
    let at_ns = now_ns();
    // Where it is written, not copied to: on the stack it is made only for a new entry.
    let birth = || Birth {
        at_ns,
        stack,
        tid: owner.tid,
        slot: owner.slot,
        kind,
        flags: owner.flags,
        generation: owner.generation,
    };
    match entry {
        // SAFETY: a map value of this type.
        Some(entry) => unsafe {
            if (*entry).at_ns != 0 {
                count_unseen((*entry).slot, (*entry).kind);
            }
            *entry = birth();
        },
        None => insert(key, &birth()),
    }
    if owner.flags & process_flags::COPIES != 0 {
        copy(key.tgid, key.fd, at_ns, stack);
    }
}

/// Writes the next birth of a number over a released one whose word about its process
/// still holds, where no stack is wanted: what is common has this way to itself. The slot;
/// `None`, and nothing is done, where it is not so.
#[inline(always)]
pub fn repeat(birth: *mut Birth, tid: u32, kind: u16, generation: u16) -> Option<u16> {
    const MORE: u16 = process_flags::STACKS | process_flags::COPIES;
    // SAFETY: a map value of this type.
    unsafe {
        let old = *birth;
        if old.generation != generation || old.at_ns != 0 || old.flags & MORE != 0 {
            return None;
        }
        *birth = Birth { at_ns: now_ns(), stack: NO_STACK, tid, kind, ..old };
        Some(old.slot)
    }
}

/// The birth of `key`, released or not.
#[inline(always)]
pub fn known(key: BirthKey) -> Option<*mut Birth> {
    near::find(key).or_else(|| BIRTHS.get_ptr_mut(key))
}

/// The birth of `key`, if it is not released.
#[inline(always)]
pub fn living(key: BirthKey) -> Option<*mut Birth> {
    // SAFETY: a map value of this type.
    known(key).filter(|b| unsafe { (**b).at_ns } != 0)
}

/// Threads are many and come once: they would take the places of numbers that come again.
#[inline(always)]
fn insert(key: BirthKey, birth: &Birth) {
    let near = key.fd & THREAD_KEY == 0 && near::put(key, birth);
    if !near && BIRTHS.insert(key, birth, 0).is_err() {
        lost(Loss::Births);
    }
}

/// Marks the birth of a number as released at `at_ns`, if it lived then: one that is later
/// is of who was given the number next. For loops: the verifier looks at a global function
/// once (Linux 5.6), not in each of their rounds.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn release_number(tgid: u32, fd: u32, at_ns: u64) -> i32 {
    if let Some(birth) = known(BirthKey { tgid, fd })
        // SAFETY: a map value of this type.
        && unsafe { (*birth).at_ns } <= at_ns
    {
        finish(birth, || at_ns);
    }
    0
}

/// The same for a process that has ended, whenever it was born, and removes the birth. It is
/// in both maps if two threads were given the number at once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn forget_number(tgid: u32, fd: u32, at_ns: u64) -> i32 {
    let key = BirthKey { tgid, fd };
    if let Some(birth) = near::find(key) {
        finish(birth, || at_ns);
        near::free(birth);
    }
    if let Some(birth) = BIRTHS.get_ptr_mut(key) {
        finish(birth, || at_ns);
        let _ = BIRTHS.remove(key);
    }
    0
}

/// Marks the birth of `key` as released now and counts its lifetime; nothing where there
/// is none.
#[inline(always)]
pub fn release(key: BirthKey) {
    if let Some(birth) = known(key) {
        finish(birth, now_ns);
    }
}

/// Marks a birth as released at `at_ns()`, if it is not yet. Two closes of one number that
/// race are a fault of their program; the second finds the mark.
#[inline(always)]
pub fn finish(birth: *mut Birth, at_ns: impl FnOnce() -> u64) {
    // SAFETY: a map value of this type. What it says of itself is read before the mark,
    // after which the next birth may write over it.
    unsafe {
        let Birth { at_ns: born, slot, kind, .. } = *birth;
        if born == 0 {
            return;
        }
        (*birth).at_ns = 0;
        // Which is never negative, but where two processors' clocks are not quite the same.
        let lifetime = (at_ns().wrapping_sub(born) as i64).max(0) as u64;
        count_closed(slot, kind, lifetime);
    }
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
