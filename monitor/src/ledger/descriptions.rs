//! Open file descriptions: which processes share one, and since when.

use crate::source::address::AddressMap;
use crate::source::model::FdSample;
use crate::time::Boottime;

/// What is known of one open file description.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Description {
    device: u32,
    inode: u64,
    /// The census that saw it last.
    seen: u32,
    /// Serials of the first two holders seen since the last whole census began; 0 for
    /// none.
    holders: [u32; 2],
    /// When it was opened, at the latest.
    pub opened: Boottime,
    /// Whether that is known.
    pub known: bool,
    /// All holders that the present census has seen have it since the one before.
    renewed: bool,
    before: Boottime,
    known_before: bool,
}

impl Description {
    /// A holder other than `serial`.
    pub fn partner_of(&self, serial: u32) -> Option<u32> {
        self.holders.into_iter().find(|h| *h != 0 && *h != serial)
    }

    fn opened_by(&mut self, opened: Boottime, known: bool) {
        if known && (!self.known || opened < self.opened) {
            (self.opened, self.known) = (opened.min(self.opened), true);
        }
    }
}

/// When a descriptor came, and how that is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    /// At the latest.
    pub at: Boottime,
    /// Not long before.
    pub known: bool,
    /// The probes saw it, after the process was last read.
    pub seen: bool,
}

/// All of them, by identity. Entries that a census did not touch go with it.
///
/// The kernel gives the address of a `struct file` out again at once, and many files
/// have one inode (`/dev/null`, whatever has none of its own): what every holder was
/// seen to open since is another description than the one that was there.
#[derive(Default)]
pub(crate) struct Descriptions {
    by_file: AddressMap<Description>,
    census: u32,
    /// The last census of all processes.
    whole: u32,
}

impl Descriptions {
    /// Starts a census of all processes, or of some.
    pub fn begin(&mut self, whole: bool) {
        self.census += 1;
        if whole {
            self.whole = self.census;
        }
    }

    /// Notes that process `serial` holds it.
    pub fn note(&mut self, sample: &FdSample, serial: u32, opening: Opening) {
        let fresh = Description {
            device: sample.device,
            inode: sample.inode,
            seen: self.census,
            holders: [0; 2],
            opened: opening.at,
            known: opening.known,
            renewed: false,
            before: Boottime(0),
            known_before: false,
        };
        let d = self.by_file.entry(sample.file).or_insert(fresh);
        if d.device != sample.device || d.inode != sample.inode {
            *d = fresh;
        }
        if d.seen < self.whole {
            d.holders = [0; 2];
        }
        if d.seen != self.census {
            let holders = d.holders;
            let (before, known_before) = (d.opened, d.known);
            *d = Description { holders, renewed: true, before, known_before, ..fresh };
        }
        if d.renewed && !opening.seen {
            d.renewed = false;
            let (opened, known) = (d.opened, d.known);
            (d.opened, d.known) = (d.before, d.known_before);
            d.opened_by(opened, known);
        }
        d.opened_by(opening.at, opening.known);
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

    /// Ends a census of all processes.
    pub fn sweep(&mut self) {
        let whole = self.whole;
        self.by_file.retain(|_, d| d.seen >= whole);
        if self.by_file.capacity() > 4 * self.by_file.len() + 1024 {
            self.by_file.shrink_to_fit();
        }
    }
}
