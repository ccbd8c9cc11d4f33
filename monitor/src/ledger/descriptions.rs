//! Open file descriptions: which processes share one, and since when.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::source::model::FdSample;
use crate::time::Boottime;

/// What is known of one open file description.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Description {
    device: u32,
    inode: u64,
    generation: u32,
    /// Serials of the first two holders seen by the present census; 0 for none.
    holders: [u32; 2],
    /// When it was opened, at the latest.
    pub opened: Boottime,
    /// Whether that is known.
    pub known: bool,
}

impl Description {
    /// A holder other than `serial`.
    pub fn partner_of(&self, serial: u32) -> Option<u32> {
        self.holders.into_iter().find(|h| *h != 0 && *h != serial)
    }
}

/// Spreads kernel addresses: they are multiples of the size of `struct file` and
/// nobody can choose them, so one multiplication does what SipHash would.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(u64::from(*b)));
    }

    fn write_u64(&mut self, n: u64) {
        let product = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// All of them, by identity. Entries that a census did not touch go with it.
#[derive(Default)]
pub(crate) struct Descriptions {
    by_file: HashMap<u64, Description, BuildHasherDefault<AddressHasher>>,
    generation: u32,
}

impl Descriptions {
    /// Starts a census.
    pub fn begin(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// Notes that process `serial` holds it; `opened` and `known` count where
    /// it has not been seen before.
    pub fn note(&mut self, sample: &FdSample, serial: u32, opened: Boottime, known: bool) {
        let generation = self.generation;
        let fresh = Description {
            device: sample.device,
            inode: sample.inode,
            generation,
            holders: [0; 2],
            opened,
            known,
        };
        let d = self.by_file.entry(sample.file).or_insert(fresh);
        if d.device != sample.device || d.inode != sample.inode {
            *d = fresh;
        }
        if d.generation != generation {
            d.generation = generation;
            d.holders = [0; 2];
        }
        if known && (!d.known || opened < d.opened) {
            (d.opened, d.known) = (opened.min(d.opened), true);
        }
        if d.holders[0] == 0 {
            d.holders[0] = serial;
        } else if d.holders[0] != serial && d.holders[1] == 0 {
            d.holders[1] = serial;
        }
    }

    /// What is known.
    pub fn get(&self, file: u64) -> Option<&Description> {
        self.by_file.get(&file)
    }

    /// Ends a census.
    pub fn sweep(&mut self) {
        let generation = self.generation;
        self.by_file.retain(|_, d| d.generation == generation);
        if self.by_file.capacity() > 4 * self.by_file.len() + 1024 {
            self.by_file.shrink_to_fit();
        }
    }
}
