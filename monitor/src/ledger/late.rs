//! What was seen to in the end, and how late.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::source::model::FdKind;
use crate::time::Boottime;

/// Most that are remembered of a process, the newest: who closes so many is no leak of fewer.
const MOST_LATE: usize = 1024;

/// Most that a [`Longest`] keeps.
const MOST_LENGTHS: usize = 64;

/// Something that had waited for `stale_after` or longer, and waits no more.
#[derive(Clone, Debug)]
pub(crate) struct Late {
    /// The census that found that.
    pub at: Boottime,
    /// Its cohort, which may be gone by now and come again; `None` of a child, and of what
    /// is counted for no floor.
    pub cohort: Option<(FdKind, Arc<str>)>,
    /// For how long it had waited.
    pub waited: Duration,
}

/// What a process was late with in the last day, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Latecomers(VecDeque<Late>);

impl Latecomers {
    /// Adds one, and forgets those that are older than `remembered`.
    pub fn push(&mut self, late: Late, remembered: Duration) {
        self.forget(late.at, remembered);
        if self.0.len() >= MOST_LATE {
            self.0.pop_front();
        }
        self.0.push_back(late);
    }

    /// Forgets those that are older than `remembered`.
    pub fn forget(&mut self, now: Boottime, remembered: Duration) {
        while self.0.front().is_some_and(|late| now.since(late.at) > remembered) {
            self.0.pop_front();
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Late> {
        self.0.iter()
    }

    /// Gives their cohorts other names, where they have some.
    pub fn rename(&mut self, mut name: impl FnMut(&str) -> Option<Arc<str>>) {
        for (_, template) in self.0.iter_mut().filter_map(|late| late.cohort.as_mut()) {
            if let Some(new) = name(template) {
                *template = new;
            }
        }
    }
}

/// The longest of many lengths of time in the last day: a queue whose lengths fall, for what
/// is followed by one that is no shorter is not going to be the longest again.
#[derive(Debug, Default)]
pub(crate) struct Longest(VecDeque<(Boottime, Duration)>);

impl Longest {
    /// Adds one, and forgets those that are older than `remembered`.
    pub fn push(&mut self, now: Boottime, length: Duration, remembered: Duration) {
        while self.0.front().is_some_and(|(at, _)| now.since(*at) > remembered) {
            self.0.pop_front();
        }
        while self.0.back().is_some_and(|(_, shorter)| *shorter <= length) {
            self.0.pop_back();
        }
        let full = self.0.len() >= MOST_LENGTHS;
        match self.0.back_mut() {
            // The one before stands in for it: it errs towards long.
            Some((at, _)) if full => *at = now,
            _ => self.0.push_back((now, length)),
        }
    }

    /// The longest within `remembered`.
    pub fn within(&self, now: Boottime, remembered: Duration) -> Option<Duration> {
        self.0.iter().find(|(at, _)| now.since(*at) <= remembered).map(|(_, length)| *length)
    }

    /// Takes those of another in.
    pub fn add(&mut self, other: &Self) {
        let mut all: Vec<_> = self.0.drain(..).chain(other.0.iter().copied()).collect();
        all.sort_by_key(|(at, _)| *at);
        all.into_iter().for_each(|(at, length)| self.push(at, length, Duration::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Boottime {
        Boottime(s * 1_000_000_000)
    }

    fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn the_longest_is_that_of_what_is_remembered() {
        let mut l = Longest::default();
        assert_eq!(l.within(at(0), s(100)), None);
        for (now, length) in [(1, 5), (2, 9), (3, 4), (4, 4), (5, 1)] {
            l.push(at(now), s(length), s(100));
        }
        assert_eq!(l.within(at(102), s(100)), Some(s(9)));
        assert_eq!(l.within(at(103), s(100)), Some(s(4)), "the nine are forgotten");
        assert_eq!(l.within(at(105), s(100)), Some(s(1)));
        assert_eq!(l.within(at(106), s(100)), None);
        let mut other = Longest::default();
        other.push(at(4), s(7), s(100));
        l.add(&other);
        assert_eq!(l.within(at(104), s(100)), Some(s(7)));
    }

    #[test]
    fn it_keeps_few_and_errs_towards_long() {
        let mut l = Longest::default();
        for i in 0..1000 {
            l.push(at(i), s(2000 - i), s(10_000));
        }
        assert_eq!(l.0.len(), MOST_LENGTHS);
        assert_eq!(l.within(at(999), s(10_000)), Some(s(2000)));
        assert!(l.within(at(999), s(0)).unwrap() >= s(1001));
    }

    #[test]
    fn the_newest_latecomers_stay() {
        let mut all = Latecomers::default();
        for i in 0..2000 {
            let cohort = Some((FdKind::Log, Arc::from(if i % 2 == 0 { "a" } else { "b" })));
            all.push(Late { at: at(i), cohort, waited: s(1) }, s(10_000));
        }
        assert_eq!(all.iter().count(), MOST_LATE);
        assert_eq!(all.iter().last().map(|l| l.at), Some(at(1999)));
        all.rename(|name| (name == "a").then(|| Arc::from("c")));
        all.forget(at(1999), s(3));
        let names: Vec<_> = all.iter().map(|l| &*l.cohort.as_ref().unwrap().1).collect();
        assert_eq!(names, ["c", "b", "c", "b"]);
    }
}
