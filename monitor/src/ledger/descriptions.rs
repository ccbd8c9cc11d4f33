//! Open file descriptions: which processes share one, and since when.

use crate::source::address::AddressMap;
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

/// All of them, by identity. Entries that a census did not touch go with it.
#[derive(Default)]
pub(crate) struct Descriptions {
    by_file: AddressMap<Description>,
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
