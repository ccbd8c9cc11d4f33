//! Floors over windows: the lowest count within each, and who stayed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use crate::config::model::{LEVELS, windows_of};
use crate::ledger::late::Longest;
use crate::time::Boottime;

/// Fewest censuses that make a window. With fewer, a "lowest count" is a
/// sample, and samples of a load that swings look like a trend.
const CENSUSES_PER_WINDOW: u32 = 3;

/// Most windows that any history keeps, whatever the config asks for.
const MAX_MARKS: usize = 512;

/// One closed window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Lowest count.
    pub floor: u32,
    /// Members that were open from its start to its end.
    pub survivors: u32,
    /// Members at least one such window old that were closed in it.
    pub retired: u32,
    /// How old the oldest of these was, milliseconds.
    pub oldest_retired: u32,
}

impl Mark {
    /// Adds what another cohort or process had in the same window.
    pub fn add(&mut self, other: &Self) {
        self.floor += other.floor;
        self.survivors += other.survivors;
        self.retire(other.retired, other.oldest_retired);
    }

    pub(super) fn retire(&mut self, members: u32, oldest: u32) {
        self.retired += members;
        self.oldest_retired = self.oldest_retired.max(oldest);
    }
}

/// Windows of one length.
#[derive(Debug, Default)]
pub(crate) struct Level {
    /// The present window, so far.
    pub present: Mark,
    /// Closed windows, oldest first. All tracks end with the same window.
    pub marks: VecDeque<Mark>,
}

impl Level {
    pub(super) fn push(&mut self, survivors: u32, keep: usize) {
        while self.marks.len() >= keep {
            self.marks.pop_front();
        }
        self.marks.push_back(Mark { survivors, ..self.present });
    }
}

/// A count and its recent windows.
#[derive(Debug, Default)]
pub(crate) struct Track {
    /// Now.
    pub count: u32,
    /// By length of windows, the config's first. The floor of the present longer ones is
    /// up to date at the end of each window of the config.
    pub levels: [Level; LEVELS],
}

impl Track {
    /// So many, and no closed windows.
    pub fn of(count: u32) -> Self {
        let mut track = Self { count, ..Self::default() };
        track.open();
        track
    }

    /// Takes the present count into the floor.
    pub fn see(&mut self) {
        let floor = &mut self.levels[0].present.floor;
        *floor = self.count.min(*floor);
    }

    /// Notes that a member of this age was closed, which censuses had seen for `seen`,
    /// where a window of the config is so long.
    pub fn retire(&mut self, age: Duration, seen: Duration, window: Duration) {
        let age = u32::try_from(age.as_millis()).unwrap_or(u32::MAX);
        for (level, of) in self.levels.iter_mut().enumerate() {
            if seen >= window * windows_of(level) as u32 {
                of.present.retire(1, age);
            }
        }
    }

    /// Ends a window of the config, and those longer ones that `ends` names; `keep` marks
    /// stay of each. `survivors` are those of each level that ends.
    pub fn close(&mut self, survivors: [u32; LEVELS], ends: [End; LEVELS], keep: usize) {
        let newest = self.levels[0].present;
        for (level, (survivors, end)) in self.levels.iter_mut().zip(survivors.into_iter().zip(ends))
        {
            level.present.floor = level.present.floor.min(newest.floor);
            if end == End::Whole {
                level.push(survivors, keep);
            }
            if end != End::No {
                level.present = Mark { floor: u32::MAX, ..Mark::default() };
            }
        }
        self.levels[0].present.floor = self.count;
    }

    /// Starts all windows anew.
    pub fn open(&mut self) {
        for level in &mut self.levels {
            level.present = Mark { floor: u32::MAX, ..Mark::default() };
        }
        self.levels[0].present.floor = self.count;
    }

    /// Forgets all closed windows.
    pub fn forget(&mut self) {
        self.levels.iter_mut().for_each(|level| level.marks.clear());
    }

    /// Adds another track, whose windows end with this one's.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        for (a, b) in self.levels.iter_mut().zip(&other.levels) {
            a.present.floor = a.present.floor.saturating_add(b.present.floor);
            a.present.retire(b.present.retired, b.present.oldest_retired);
            for (a, b) in a.marks.iter_mut().rev().zip(b.marks.iter().rev()) {
                a.add(b);
            }
        }
    }

    /// Closed windows of the config's length, oldest first.
    pub fn marks(&self) -> &VecDeque<Mark> {
        &self.levels[0].marks
    }

    /// The `n` newest windows of a level, oldest first.
    pub fn last(&self, level: usize, n: usize) -> impl Iterator<Item = Mark> + '_ {
        let marks = &self.levels[level].marks;
        marks.iter().skip(marks.len().saturating_sub(n)).copied()
    }
}

/// Whether a window of a level ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It goes on.
    No,
    /// It does, and was not seen whole.
    Partly,
    /// It does.
    Whole,
}

/// A track of the descriptors of one process that share kind and template.
#[derive(Debug)]
pub(crate) struct Cohort {
    /// Template.
    pub template: Arc<str>,
    /// Its count.
    pub track: Track,
    /// How old members were that were closed in the last day.
    pub lived: Longest,
}

/// The window that all tracks share.
#[derive(Debug)]
pub(crate) struct Window {
    length: Duration,
    windows: u32,
    index: u64,
    censuses: u32,
    /// Windows of the config that have ended.
    closed: u64,
    /// When the window of each level began.
    begun: [Boottime; LEVELS],
    /// Ends of closed windows, oldest first.
    pub ends: VecDeque<Boottime>,
    /// Marks that a track keeps.
    pub keep: usize,
}

impl Window {
    /// Windows of `length`, with history for `windows` rises three times over: in the
    /// longest windows that is the day for which what rises slowly is given time.
    pub fn new(length: Duration, windows: u32) -> Self {
        let keep = (3 * windows as usize + 2).min(MAX_MARKS);
        Self {
            length,
            windows,
            index: 0,
            censuses: 0,
            closed: 0,
            begun: [Boottime(0); LEVELS],
            ends: VecDeque::new(),
            keep,
        }
    }

    /// When the window of the config began.
    pub fn began(&self) -> Boottime {
        self.begun[0]
    }

    /// When the window of a level began.
    pub fn began_at(&self, level: usize) -> Boottime {
        self.begun[level]
    }

    /// Whether the window of a level ends together with the present one.
    pub fn ends_with(&self, level: usize) -> bool {
        (self.closed + 1).is_multiple_of(windows_of(level))
    }

    /// Whether the window of a level ended with the newest one.
    pub fn ended(&self, level: usize) -> bool {
        self.closed > 0 && self.closed.is_multiple_of(windows_of(level))
    }

    /// How long one is.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// What was used within so long is in use.
    pub fn lately(&self) -> Duration {
        self.length * self.windows.max(1)
    }

    /// Counts a census; true where it ends the window.
    pub fn census(&mut self, now: Boottime) -> bool {
        let index = now.0 / (self.length.as_nanos() as u64).max(1);
        if self.began() == Boottime(0) {
            self.begun = [now; LEVELS];
            self.index = index;
        }
        self.censuses += 1;
        index != self.index && self.censuses > CENSUSES_PER_WINDOW
    }

    /// Ends the window at `now`, which also opens the next.
    pub fn turn(&mut self, now: Boottime) {
        while self.ends.len() >= self.keep {
            self.ends.pop_front();
        }
        self.ends.push_back(now);
        self.index = now.0 / (self.length.as_nanos() as u64).max(1);
        for level in (0..LEVELS).filter(|level| self.ends_with(*level)).collect::<Vec<_>>() {
            self.begun[level] = now;
        }
        self.closed += 1;
        self.censuses = 1;
    }
}
