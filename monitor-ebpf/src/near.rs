//! The near births: an array in which every key has one place.
//!
//! A place is free, or taken by one key until its process exits: a release marks the birth
//! and leaves the key. So the common open, whose number its process had before, writes over
//! what no other process writes, and only a number that is new has to win its place. Whom the
//! place is refused goes to the hash.
//!
//! The exit probe frees the places of the first numbers; the agent's sweep those of a process
//! that is gone, and it marks births whose release was unseen.

use core::{
    mem::offset_of,
    ptr::{read_volatile, write_volatile},
    sync::atomic::{Ordering, compiler_fence},
};

use leakwatch_common::{Birth, BirthKey, NOBODY, NearBirth};

use crate::{
    kernel::{ADDITION_ORDERS, constant},
    maps::{NEAR, add},
};

const CLAIMS: usize = offset_of!(NearBirth, claims);

/// The birth of `key`, if it is here.
#[inline(always)]
pub fn find(key: BirthKey) -> Option<*mut Birth> {
    let near = NEAR.get_ptr_mut(key.place())?;
    // SAFETY: a map value of this type.
    unsafe { if (*near).key == key.word() { Some(&raw mut (*near).birth) } else { None } }
}

/// Takes the place of `key` for a birth; `false` if it is not free.
///
/// Two processors may want it at once. Linux 5.10 has no compare-and-exchange for
/// programs, but an addition that is atomic: who adds itself to the claims and then reads
/// no other's is alone, for whoever adds later reads two. If both read two, both go.
/// Where that addition orders nothing, nobody is let in.
#[inline(always)]
pub fn put(key: BirthKey, birth: &Birth) -> bool {
    if constant(&ADDITION_ORDERS) == 0 {
        return false;
    }
    let Some(near) = NEAR.get_ptr_mut(key.place()) else { return false };
    // SAFETY: a map value of this type, and of it only what a claim protects is written.
    unsafe {
        if (*near).key != NOBODY {
            return false;
        }
        add::<CLAIMS>(near.cast(), 1);
        let won = read_volatile(&raw const (*near).claims) == 1
            && read_volatile(&raw const (*near).key) == NOBODY;
        if won {
            (*near).birth = *birth;
            // Who finds the key reads the birth next.
            compiler_fence(Ordering::SeqCst);
            write_volatile(&raw mut (*near).key, key.word());
        }
        add::<CLAIMS>(near.cast(), u64::MAX);
        won
    }
}

/// Frees the place of `birth`, which [`find`] has found: its process has ended.
#[inline(always)]
pub fn free(birth: *mut Birth) {
    // SAFETY: the birth is that of a `NearBirth`, a map value.
    unsafe {
        (*birth).at_ns = 0;
        compiler_fence(Ordering::SeqCst);
        let near = birth.byte_sub(offset_of!(NearBirth, birth)).cast::<NearBirth>();
        write_volatile(&raw mut (*near).key, NOBODY);
    }
}
