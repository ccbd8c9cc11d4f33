//! The births that the probes remember, in both their maps: `NEAR`, read as memory, and
//! `BIRTHS`, for what found no place there.

use std::marker::PhantomData;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::{read_volatile, write_volatile};
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{HashMap, MapData, MapError};
use leakwatch_common::{Birth, BirthKey, NOBODY, NearBirth};
use memmap2::{MmapOptions, MmapRaw};

/// Both maps.
pub struct Births {
    near: Near,
    far: HashMap<MapData, BirthKey, Birth>,
}

impl Births {
    /// # Errors
    /// The kernel refuses to map `NEAR`, or `BIRTHS` is no hash.
    pub fn new(near: MapData, far: HashMap<MapData, BirthKey, Birth>) -> Result<Self, MapError> {
        Ok(Self { near: Near::map(near)?, far })
    }

    /// The birth of `key`, released or not.
    pub fn get(&self, key: &BirthKey) -> Option<Birth> {
        self.near.find(*key).map(|near| near.birth()).or_else(|| self.far.get(key, 0).ok())
    }

    /// Removes the birth of `key`, which was released unseen. A number keeps its place in
    /// `NEAR` as long as its process may come back for it. `false` if it is not there, or
    /// not as it was `seen` any more.
    pub fn release(&mut self, key: &BirthKey, seen: &Birth) -> bool {
        match self.near.find(*key) {
            Some(near) => near.release(seen.at_ns),
            None => self.far.remove(key).is_ok(),
        }
    }

    /// Removes the birth of `key`, and its place: its process has ended. `false` as above.
    pub fn forget(&mut self, key: &BirthKey, seen: &Birth) -> bool {
        match self.near.find(*key) {
            Some(near) => near.release(seen.at_ns) && near.free(),
            None => self.far.remove(key).is_ok(),
        }
    }

    /// Removes all.
    pub fn clear(&mut self) {
        for key in self.keys() {
            if let Some(near) = self.near.find(key) {
                near.free();
            }
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
    /// Programs that are loaded later know the map by this descriptor.
    _map: MapData,
}

impl Near {
    fn map(data: MapData) -> Result<Self, MapError> {
        let places = data.info()?.max_entries();
        let len = places as usize * size_of::<NearBirth>();
        let memory = MmapOptions::new().len(len).map_raw(data.fd().as_fd().as_raw_fd())?;
        Ok(Self { memory, places, _map: data })
    }

    fn at(&self, place: u32) -> Option<Place<'_>> {
        // `map` has made room for so many.
        let start = self.memory.as_mut_ptr().cast::<NearBirth>();
        (place < self.places).then(|| Place(start.wrapping_add(place as usize), PhantomData))
    }

    /// The place of `key`, where it has it.
    fn find(&self, key: BirthKey) -> Option<Place<'_>> {
        self.at(key.place()).filter(|place| place.key() == key.word())
    }

    fn keys(&self) -> impl Iterator<Item = BirthKey> {
        let places = (0..self.places).filter_map(|place| self.at(place));
        places.map(|place| place.key()).filter(|key| *key != NOBODY).map(BirthKey::of_word)
    }
}

/// A place in the mapping. The programs write to it at any time: hence volatile.
struct Place<'a>(*mut NearBirth, PhantomData<&'a MmapRaw>);

impl Place<'_> {
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

    /// Whoever takes the place writes his birth first, and then his key.
    fn free(&self) -> bool {
        // SAFETY: as in `key`.
        unsafe { write_volatile(&raw mut (*self.0).key, NOBODY) };
        true
    }
}

/// A mapping begins with a page, so every place is aligned, and so is the word in it.
const _: () = assert!(align_of::<NearBirth>() == 8 && offset_of!(NearBirth, birth.at_ns) == 16);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use leakwatch_common::{BirthKey, NEAR_PLACES, NOBODY, THREAD_KEY};

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
