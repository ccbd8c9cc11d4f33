//! The births that the probes remember, in both their maps: `NEAR`, read as memory, and
//! `BIRTHS`, for what found no place there.

use std::marker::PhantomData;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::{read_volatile, write_volatile};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use aya::maps::{HashMap, MapData, MapError};
use leakwatch_common::{Birth, BirthKey, NOBODY, NearBirth};
use memmap2::{MmapOptions, MmapRaw};

/// Both maps.
pub struct Births {
    near: Near,
    far: HashMap<MapData, BirthKey, Birth>,
    /// Programs that are loaded later know the map by this descriptor.
    _near: MapData,
}

impl Births {
    /// # Errors
    /// The kernel refuses to map `NEAR`, or `BIRTHS` is no hash.
    pub fn new(near: MapData, far: HashMap<MapData, BirthKey, Birth>) -> Result<Self, MapError> {
        Ok(Self { near: Near::map(&near)?, far, _near: near })
    }

    /// The birth of `key`, released or not.
    pub fn get(&self, key: &BirthKey) -> Option<Birth> {
        self.near.get(*key).or_else(|| self.far.get(key, 0).ok())
    }

    /// Marks the birth of `key`, as it was `seen`, as released: nobody saw that. `false` if
    /// another has been written over it. In `NEAR` the number keeps its place, for its
    /// process may come back for it.
    pub fn release(&mut self, key: &BirthKey, seen: &Birth) -> bool {
        match self.near.find(*key) {
            Some(near) => near.release(seen.at_ns),
            None => self.far.remove(key).is_ok(),
        }
    }

    /// The same, and frees the place: only for a process that certainly makes no more
    /// system calls. The programs may be at work on a number of a process that was not
    /// found though it lives, and the place would be another's in their hands.
    pub fn forget(&mut self, key: &BirthKey, seen: &Birth) -> bool {
        match self.near.find(*key) {
            Some(near) => near.release(seen.at_ns) && near.free(*key),
            None => self.far.remove(key).is_ok(),
        }
    }

    /// Removes all. The programs that write births are detached.
    pub fn clear(&mut self) {
        self.near.clear();
        let far: Vec<BirthKey> = self.far.keys().filter_map(Result::ok).collect();
        for key in far {
            let _ = self.far.remove(&key);
        }
    }

    /// Of every birth that there is a place for, released or not.
    pub fn keys(&self) -> Vec<BirthKey> {
        self.near.keys().chain(self.far.keys().filter_map(Result::ok)).collect()
    }
}

/// The array as the programs see it, while they write to it.
struct Near {
    memory: MmapRaw,
    places: u32,
}

impl Near {
    fn map(data: &MapData) -> Result<Self, MapError> {
        let places = data.info()?.max_entries();
        let len = places as usize * size_of::<NearBirth>();
        let memory = MmapOptions::new().len(len).map_raw(data.fd().as_fd().as_raw_fd())?;
        Ok(Self { memory, places })
    }

    fn at(&self, place: u32) -> Option<NearPlace<'_>> {
        // `map` has made room for so many.
        let start = self.memory.as_mut_ptr().cast::<NearBirth>();
        (place < self.places).then(|| NearPlace(start.wrapping_add(place as usize), PhantomData))
    }

    /// The place of `key`, where it has it.
    fn find(&self, key: BirthKey) -> Option<NearPlace<'_>> {
        self.at(key.place()).filter(|place| place.key() == key.word())
    }

    /// The birth of `key`, where it has its place before and after the birth is read.
    fn get(&self, key: BirthKey) -> Option<Birth> {
        let near = self.find(key)?;
        let birth = near.birth();
        fence(Ordering::Acquire);
        (near.key() == key.word()).then_some(birth)
    }

    fn clear(&self) {
        for near in (0..self.places).filter_map(|place| self.at(place)) {
            near.clear();
        }
    }

    fn keys(&self) -> impl Iterator<Item = BirthKey> {
        let places = (0..self.places).filter_map(|place| self.at(place));
        places.map(|place| place.key()).filter(|key| *key != NOBODY).map(BirthKey::of_word)
    }
}

/// A place of the array. The programs write to it at any time: hence volatile.
struct NearPlace<'a>(*mut NearBirth, PhantomData<&'a MmapRaw>);

impl NearPlace<'_> {
    fn key(&self) -> u64 {
        // SAFETY: inside the mapping and aligned; every bit pattern is a value.
        unsafe { read_volatile(&raw const (*self.0).key) }
    }

    fn birth(&self) -> Birth {
        // SAFETY: as in `key`.
        unsafe { read_volatile(&raw const (*self.0).birth) }
    }

    /// Marks the birth as released, if it is the one of `at_ns`.
    fn release(&self, at_ns: u64) -> bool {
        // SAFETY: as in `key`, and nobody has a reference to it.
        let born = unsafe { AtomicU64::from_ptr(&raw mut (*self.0).birth.at_ns) };
        born.compare_exchange(at_ns, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Leaves the place to anybody, if it is `key`'s still: the exit probe may have done so,
    /// and another have taken it, who writes his birth first and then his key.
    fn free(&self, key: BirthKey) -> bool {
        // SAFETY: as in `release`.
        let word = unsafe { AtomicU64::from_ptr(&raw mut (*self.0).key) };
        word.compare_exchange(key.word(), NOBODY, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Releases and frees, whose and whichever it is.
    fn clear(&self) {
        // SAFETY: as in `key`.
        unsafe {
            write_volatile(&raw mut (*self.0).birth.at_ns, 0);
            write_volatile(&raw mut (*self.0).key, NOBODY);
        }
    }
}

/// A mapping begins with a page, so every place is aligned, and so is the word in it.
const _: () = assert!(align_of::<NearBirth>() == 8 && offset_of!(NearBirth, birth.at_ns) == 16);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use leakwatch_common::{Birth, BirthKey, NEAR_PLACES, NO_STACK, NOBODY, THREAD_KEY};

    use super::{MmapOptions, Near};

    const MINE: BirthKey = BirthKey { tgid: 4711, fd: 5 };

    /// That of another process, for the same place.
    fn other() -> BirthKey {
        let first = BirthKey { tgid: 4712, fd: 0 };
        let ahead = MINE.place().wrapping_sub(first.place()) & (NEAR_PLACES - 1);
        BirthKey { fd: ahead, ..first }
    }

    fn near() -> Near {
        let len = NEAR_PLACES as usize * size_of::<super::NearBirth>();
        Near { memory: MmapOptions::new().len(len).map_anon().unwrap().into(), places: NEAR_PLACES }
    }

    /// As a program would.
    fn put(near: &Near, key: BirthKey, at_ns: u64) {
        let birth =
            Birth { at_ns, stack: NO_STACK, tid: 1, slot: 2, kind: 3, flags: 0, generation: 4 };
        // SAFETY: nobody else has this memory.
        unsafe {
            let place = near.at(key.place()).unwrap().0;
            (*place).birth = birth;
            (*place).key = key.word();
        }
    }

    #[test]
    fn a_birth_is_released_only_as_it_was_seen_and_keeps_its_place() {
        let near = near();
        assert_eq!(near.get(MINE), None);
        put(&near, MINE, 7);
        let place = near.find(MINE).unwrap();
        assert!(!place.release(6), "that is another birth");
        assert_eq!(near.get(MINE).unwrap().at_ns, 7);
        assert!(place.release(7));
        assert_eq!(near.get(MINE).unwrap().at_ns, 0);
        assert_eq!(near.keys().collect::<Vec<_>>(), [MINE]);
    }

    #[test]
    fn a_place_is_freed_only_while_it_is_the_keys_own() {
        let (near, other) = (near(), other());
        put(&near, MINE, 7);
        let place = near.find(MINE).unwrap();
        put(&near, other, 8);
        assert!(!place.free(MINE), "another has it by now");
        assert_eq!(near.get(MINE), None);
        assert_eq!(near.get(other).unwrap().at_ns, 8);
        assert!(place.free(other));
        assert_eq!(near.keys().count(), 0);
    }

    #[test]
    fn all_is_cleared() {
        let near = near();
        put(&near, MINE, 7);
        put(&near, BirthKey { tgid: MINE.tgid, fd: 6 }, 7);
        near.clear();
        assert_eq!(near.keys().count(), 0);
        // SAFETY: nobody else has this memory.
        assert_eq!(unsafe { (*near.at(MINE.place()).unwrap().0).birth.at_ns }, 0);
    }

    #[test]
    fn a_key_is_one_word_that_is_nobodys_but_its_own() {
        for key in [(1, 0), (1, 1), (4_194_304, 1 << 30), (7, THREAD_KEY | 9)] {
            let key = BirthKey { tgid: key.0, fd: key.1 };
            assert_ne!(key.word(), NOBODY);
            assert_eq!(BirthKey::of_word(key.word()), key);
        }
    }

    /// The numbers of a process take nothing from each other, and a thousand processes that
    /// came one after the other, of twenty numbers each, little.
    #[test]
    fn places_are_spread() {
        let places = |tgids: std::ops::Range<u32>, numbers: u32| -> BTreeSet<u32> {
            let keys = tgids.flat_map(|tgid| (0..numbers).map(move |fd| BirthKey { tgid, fd }));
            keys.map(BirthKey::place).collect()
        };
        assert_eq!(places(4711..4712, NEAR_PLACES).len(), NEAR_PLACES as usize);
        let taken = places(30_000..31_000, 20).len();
        assert!(taken > 19_000, "{taken} of 20,000");
        assert!(places(0..4096, 1).into_iter().all(|place| place < NEAR_PLACES));
    }
}
