//! Floors over windows: the lowest count within each, and who stayed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

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
    /// Members at least one window old that were closed in it.
    pub retired: u32,
}

/// A count and its recent windows.
#[derive(Debug, Default)]
pub(crate) struct Track {
    /// Now.
    pub count: u32,
    /// Lowest in the present window.
    pub floor: u32,
    /// Old members closed in the present window.
    pub retired: u32,
    /// Closed windows, oldest first. All tracks end with the same window.
    pub marks: VecDeque<Mark>,
}

impl Track {
    /// Ends a window; `keep` marks stay.
    pub fn close(&mut self, survivors: u32, keep: usize) {
        while self.marks.len() >= keep {
            self.marks.pop_front();
        }
        self.marks.push_back(Mark { floor: self.floor, survivors, retired: self.retired });
        self.open();
    }

    /// Starts a window.
    pub fn open(&mut self) {
        self.floor = self.count;
        self.retired = 0;
    }

    /// The `n` newest windows, oldest first.
    pub fn last(&self, n: usize) -> impl Iterator<Item = Mark> + '_ {
        self.marks.iter().skip(self.marks.len().saturating_sub(n)).copied()
    }
}

/// A track of the descriptors of one process that share kind and template.
#[derive(Debug)]
pub(crate) struct Cohort {
    /// Template.
    pub template: Arc<str>,
    /// Its count.
    pub track: Track,
}

/// The window that all tracks share.
#[derive(Debug)]
pub(crate) struct Window {
    length: Duration,
    index: u64,
    censuses: u32,
    /// Census that opened it.
    pub began: Boottime,
    /// Ends of closed windows, oldest first.
    pub ends: VecDeque<Boottime>,
    /// Marks that a track keeps.
    pub keep: usize,
}

impl Window {
    /// Windows of `length`, with history for `windows` rises twice over: once
    /// to find a rise and once more to see that it has stopped.
    pub fn new(length: Duration, windows: u32) -> Self {
        let keep = (2 * windows as usize + 2).min(MAX_MARKS);
        Self { length, index: 0, censuses: 0, began: Boottime(0), ends: VecDeque::new(), keep }
    }

    /// How long one is.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// Counts a census; true where it ends the window.
    pub fn census(&mut self, now: Boottime) -> bool {
        let index = now.0 / (self.length.as_nanos() as u64).max(1);
        if self.began == Boottime(0) {
            self.began = now;
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
        self.began = now;
        self.censuses = 1;
    }
}
