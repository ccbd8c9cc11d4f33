//! What the ledger keeps of a process and of its descriptors.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::attribution::unit::Unit;
use crate::ledger::asynctasks::Tasks;
use crate::ledger::late::{Latecomers, Longest};
use crate::ledger::openers::Openers;
use crate::ledger::parts::{Closing, Parts};
use crate::ledger::patterns::RuleSet;
use crate::ledger::track::{Cohort, End, LEVELS, Track, Window, windows_of};
use crate::source::model::{
    ExeFile, FdBirth, FdKind, FdSample, FdTable, KernelStr, ProcessId, ProcessSample,
};
use crate::time::Boottime;

/// [`Held::slot`] of what no cohort counts.
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// Bits of [`Held::flags`].
pub(crate) mod held_flags {
    /// Open for writing.
    pub const WRITABLE: u8 = 1;
    /// Another process has the same open file description.
    pub const SHARED: u8 = 2;
    /// Was open at the first look at its process.
    pub const FIRST_LOOK: u8 = 4;
    /// Was already deleted when first seen.
    pub const BORN_DELETED: u8 = 8;
    /// When it was opened is known, at least between two censuses.
    pub const OPENED_KNOWN: u8 = 16;
}

/// One open descriptor. There may be 100,000: every byte counts.
#[derive(Debug)]
pub(crate) struct Held {
    /// Open file description.
    pub file: u64,
    /// Inode number.
    pub inode: u64,
    /// File position, bytes.
    pub position: u64,
    /// File size, bytes.
    pub size: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Path.
    pub path: KernelStr,
    /// Census that found it in this process.
    pub since: Boottime,
    /// When the description was opened: the birth, else the first census that
    /// saw it in any process.
    pub opened: Boottime,
    /// When the position was last seen to have changed.
    pub moved: Boottime,
    /// When the size was last seen to have changed.
    pub resized: Boottime,
    /// First census that saw it deleted; 0 while it has a name.
    pub deleted: Boottime,
    /// First census that saw the peer of a connection gone (CLOSE_WAIT); 0 otherwise.
    pub peer_gone: Boottime,
    /// When the last other holder of the description exited; 0 otherwise.
    pub partner_gone: Boottime,
    /// What the probes know.
    pub birth: Option<FdBirth>,
    /// The number.
    pub fd: u32,
    /// Device number.
    pub device: u32,
    /// Index into [`Process::cohorts`], or [`NO_SLOT`].
    pub slot: u32,
    /// Serial of another holder while shared.
    pub partner: u32,
    /// Stands for the peer of a socket, 0 without one: a socket may be given another.
    pub peer: u32,
    /// Kind; `Log` where the patterns say so.
    pub kind: FdKind,
    /// See [`held_flags`].
    pub flags: u8,
    /// Rules that leave it out.
    pub ignored: RuleSet,
}

impl Held {
    /// Whether a flag is set.
    pub fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sets or clears a flag.
    pub fn set(&mut self, flag: u8, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    /// The kind as `source` says it.
    pub fn raw_kind(&self) -> FdKind {
        if self.kind == FdKind::Log { FdKind::Regular } else { self.kind }
    }

    /// Whether `sample` can be the same open file. The kernel reuses addresses
    /// of `struct file`, so the address alone says nothing.
    pub fn same_file(&self, sample: &FdSample) -> bool {
        self.file == sample.file
            && self.inode == sample.inode
            && self.device == sample.device
            && self.raw_kind() == sample.kind
    }
}

/// How the descriptors of a process were last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Each of them.
    Full,
    /// Their number.
    Count(u32),
    /// Not at all.
    Denied,
}

impl Sight {
    /// From a census; `None` where it is as it was.
    pub fn of(table: &FdTable) -> Option<Self> {
        match table {
            FdTable::Full(_) => Some(Self::Full),
            FdTable::Same(_) => None,
            FdTable::Count(n) => Some(Self::Count(*n)),
            FdTable::Denied => Some(Self::Denied),
        }
    }
}

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    /// Identity.
    pub id: ProcessId,
    /// Small name of the agent's own.
    pub serial: u32,
    /// Parent's pid.
    pub ppid: u32,
    /// Parent, where it is known and alive.
    pub parent: Option<ProcessId>,
    /// Name.
    pub comm: KernelStr,
    /// Executable.
    pub exe: Option<KernelStr>,
    /// Which file that is.
    pub exe_file: Option<ExeFile>,
    /// Arguments.
    pub cmdline: KernelStr,
    /// Cgroup.
    pub cgroup: KernelStr,
    /// Owner.
    pub unit: Arc<Unit>,
    /// Life of the owner that it belongs to.
    pub invocation: u64,
    /// Its parent was outside the unit when it was first seen.
    pub root: bool,
    /// Its command line is one that must not outlive the unit.
    pub must_not_outlive: bool,
    /// First census that saw it.
    pub first_seen: Boottime,
    /// Where warm-up counts from: the start, or the last exec.
    pub warm_from: Boottime,
    /// A task probe saw its end.
    pub exited: Option<Boottime>,
    /// First census that saw it as a zombie.
    pub zombie_since: Option<Boottime>,
    /// Censuses that saw it as a zombie.
    pub zombie_looks: u32,
    /// Threads.
    pub threads: Track,
    /// Those that are as old as a window of each length, where their age is known.
    pub old_threads: Option<[u32; LEVELS]>,
    /// Async tasks, where they are asked for.
    pub tasks: Option<Tasks>,
    /// Fewest threads seen.
    pub fewest_threads: u32,
    /// Soft `RLIMIT_NOFILE`.
    pub max_fds: Option<u64>,
    /// How the descriptors were last seen.
    pub sight: Sight,
    /// Begin and end of the last census that saw each of them.
    pub detailed: Option<(Boottime, Boottime)>,
    /// What it closed in the last day that had waited for `stale_after`: connections without
    /// a peer, deleted files, logs that nobody wrote to.
    pub closed_late: Latecomers,
    /// Children that it reaped so late.
    pub reaped_late: Latecomers,
    /// Ports that it listens on.
    pub listens: Vec<u16>,
    /// Descriptors, by number.
    pub held: Vec<Held>,
    /// Cohorts by slot.
    pub cohorts: Vec<Cohort>,
    /// Parts of them.
    pub parts: Parts,
    /// Slot of each cohort.
    pub slots: BTreeMap<(FdKind, Arc<str>), u32>,
    /// Slots that may be used again.
    pub free: Vec<u32>,
    /// All descriptors.
    pub total: Track,
    /// Complete warm windows of each level that are kept (all tracks are padded to it).
    pub windows: [usize; LEVELS],
    /// Complete warm windows of the config without a break.
    pub in_a_row: u64,
    /// Rules that leave out its whole unit.
    pub ignored: RuleSet,
    /// The patterns have changed since its descriptors were classified.
    pub reclassify: bool,
}

impl Process {
    /// A process that is seen for the first time.
    pub fn new(sample: &ProcessSample, serial: u32, unit: Arc<Unit>, now: Boottime) -> Self {
        Self {
            id: sample.id,
            serial,
            ppid: sample.ppid,
            parent: None,
            comm: sample.comm.clone(),
            exe: sample.exe.clone(),
            exe_file: sample.exe_file,
            cmdline: sample.cmdline.clone(),
            cgroup: sample.cgroup.clone(),
            unit,
            invocation: 0,
            root: false,
            must_not_outlive: false,
            first_seen: now,
            warm_from: sample.id.started(),
            exited: None,
            zombie_since: None,
            zombie_looks: 0,
            threads: Track::of(sample.threads),
            old_threads: sample.old_threads,
            tasks: None,
            fewest_threads: sample.threads,
            max_fds: sample.max_fds,
            sight: Sight::Denied,
            detailed: None,
            closed_late: Latecomers::default(),
            reaped_late: Latecomers::default(),
            listens: Vec::new(),
            held: Vec::new(),
            cohorts: Vec::new(),
            parts: Parts::default(),
            slots: BTreeMap::new(),
            free: Vec::new(),
            total: Track::default(),
            windows: [0; LEVELS],
            in_a_row: 0,
            ignored: 0,
            reclassify: false,
        }
    }

    /// Runs, as far as is known.
    pub fn alive(&self) -> bool {
        self.exited.is_none() && self.zombie_since.is_none()
    }

    /// Open descriptors, where known.
    pub fn open_fds(&self) -> Option<u64> {
        match self.sight {
            Sight::Full => Some(self.held.len() as u64),
            Sight::Count(n) => Some(u64::from(n)),
            Sight::Denied => None,
        }
    }

    /// The last census whose positions and sizes are in `held`.
    pub fn seen_at(&self) -> Boottime {
        self.detailed.map_or(Boottime(0), |(_, at)| at)
    }

    /// The slot of a cohort, made where missing.
    pub fn slot(&mut self, kind: FdKind, template: &Arc<str>) -> u32 {
        if let Some(slot) = self.slots.get(&(kind, Arc::clone(template))) {
            return *slot;
        }
        let mut track = Track::default();
        // Before it appeared, it had none: that is knowledge, not a gap.
        for (level, windows) in track.levels.iter_mut().zip(self.windows) {
            level.marks.resize(windows, Default::default());
        }
        let lived = Longest::default();
        let cohort = Cohort { template: Arc::clone(template), track, lived };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.cohorts[slot as usize] = cohort;
                slot
            }
            None => {
                self.cohorts.push(cohort);
                self.cohorts.len() as u32 - 1
            }
        };
        self.slots.insert((kind, Arc::clone(template)), slot);
        slot
    }

    /// Forgets the windows: they describe another program or another rule.
    pub fn forget_windows(&mut self) {
        (self.windows, self.in_a_row) = ([0; LEVELS], 0);
        self.total.forget();
        self.threads.forget();
        self.tasks.iter_mut().for_each(Tasks::forget);
        self.cohorts.iter_mut().for_each(|c| c.track.forget());
        self.parts.clear();
    }

    /// Forgets what was closed: another program did that.
    pub fn forget_closed(&mut self) {
        (self.closed_late, self.reaped_late) = Default::default();
        self.cohorts.iter_mut().for_each(|c| c.lived = Longest::default());
    }

    /// Ends a window that was seen whole, and the longer ones that end with it.
    pub fn close_window(&mut self, window: &Window, openers: &Openers) {
        self.in_a_row += 1;
        let ends = std::array::from_fn(|level| match window.ends_with(level) {
            true if self.in_a_row >= windows_of(level) => End::Whole,
            true => End::Partly,
            false => End::No,
        });
        let mut survivors = vec![[0_u32; LEVELS]; self.cohorts.len()];
        let mut all = [0; LEVELS];
        for level in (0..LEVELS).filter(|level| ends[*level] == End::Whole) {
            let began = window.began_at(level);
            for h in self.held.iter().filter(|h| h.slot != NO_SLOT && h.since <= began) {
                survivors[h.slot as usize][level] += 1;
                all[level] += 1;
            }
            self.windows[level] = (self.windows[level] + 1).min(window.keep);
        }
        for (cohort, survivors) in self.cohorts.iter_mut().zip(survivors) {
            cohort.track.close(survivors, ends, window.keep);
        }
        self.parts.close(
            self.id,
            &self.held,
            &Closing { window, seen_at: self.seen_at(), ends, windows: self.windows, openers },
        );
        self.total.close(all, ends, window.keep);
        let floor = self.threads.levels[0].present.floor;
        let threads = self.old_threads.unwrap_or_else(|| {
            // As many as there always were have stayed, for all that is known.
            std::array::from_fn(|level| self.threads.levels[level].present.floor.min(floor))
        });
        self.threads.close(threads, ends, window.keep);
        let idle = |c: &Cohort| {
            c.track.count == 0 && c.track.marks().iter().all(|m| m.floor == 0 && m.survivors == 0)
        };
        let (cohorts, free) = (&self.cohorts, &mut self.free);
        self.slots.retain(|_, slot| {
            let keep = !idle(&cohorts[*slot as usize]);
            if !keep {
                free.push(*slot);
            }
            keep
        });
    }

    /// Starts a window without ending one.
    pub fn open_window(&mut self) {
        self.threads.open();
        let tasks = self.tasks.iter_mut().flat_map(|t| t.kinds.values_mut());
        tasks.for_each(|c| c.track.open());
        self.total.open();
        for c in &mut self.cohorts {
            c.track.open();
        }
        self.parts.open();
    }
}
