//! Parts of a cohort whose members are told from the others: by the function that opened
//! them, or because nobody uses them. A leak in one of them may be small beside the rest.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::ledger::openers::Openers;
use crate::ledger::process::{Held, NO_SLOT};
use crate::ledger::track::{End, LEVELS, Mark, Track, Window};
use crate::source::model::{FdKind, ProcessId};
use crate::time::Boottime;

/// Functions that are told apart in a cohort; what others have opened is in none of the parts.
const MAX_OPENERS: usize = 8;

/// A part is followed once it has so many members: of smaller ones nothing is ever said.
const LEAST: u32 = 3;

/// What the members of a part have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// TCP connections on which no data has moved for long.
    Unused,
    /// Opened by this function of the program.
    OpenedBy(Arc<str>),
}

impl Part {
    /// Whether it has this descriptor, that was seen `now` the last time; not used is what was
    /// not for `lately`.
    pub fn has(&self, held: &Held, by: Option<&Arc<str>>, now: Boottime, lately: Duration) -> bool {
        match self {
            Self::Unused => counted(held) && now.since(held.moved) >= lately,
            Self::OpenedBy(function) => by == Some(function),
        }
    }
}

/// The kernel counts what is sent and received on it, which it does for TCP.
fn counted(held: &Held) -> bool {
    held.kind == FdKind::Socket && held.position > 0
}

/// Parts of the cohorts of one process, by slot.
#[derive(Debug, Default)]
pub(crate) struct Parts(BTreeMap<(u32, Part), Track>);

/// What is counted of a part at the end of a window.
#[derive(Clone, Copy, Default)]
struct Tally {
    count: u32,
    survivors: [u32; LEVELS],
}

/// The end of a window, as far as all parts of a process share it.
pub(crate) struct Closing<'a> {
    /// The window.
    pub window: &'a Window,
    /// When the descriptors were last read: not at each census, where that is too much.
    pub seen_at: Boottime,
    /// Which lengths end.
    pub ends: [End; LEVELS],
    /// Complete windows of each that are kept.
    pub windows: [usize; LEVELS],
    /// Who the openers are.
    pub openers: &'a Openers,
}

impl Parts {
    /// Those of one cohort.
    pub fn of(&self, slot: u32) -> impl Iterator<Item = (&Part, &Track)> {
        let all = self.0.range((slot, Part::Unused)..);
        all.take_while(move |((of, _), _)| *of == slot).map(|((_, part), track)| (part, track))
    }

    /// Notes that a member of a cohort was closed, or used again: for so long it had been in
    /// the parts that it was in.
    pub fn retire(&mut self, held: &Held, by: Option<&Arc<str>>, now: Boottime, window: Duration) {
        if self.0.is_empty() {
            return;
        }
        let (open, idle) = (now.since(held.since), now.since(held.moved));
        if let Some(by) = by
            && let Some(track) = self.0.get_mut(&(held.slot, Part::OpenedBy(Arc::clone(by))))
        {
            track.retire(now.since(held.opened), open, window);
        }
        self.wake(held, idle, window);
    }

    /// Notes that data moved on a connection, or that it was closed, after so long.
    pub fn wake(&mut self, held: &Held, idle: Duration, window: Duration) {
        if counted(held)
            && idle >= window
            && let Some(track) = self.0.get_mut(&(held.slot, Part::Unused))
        {
            track.retire(idle, idle, window);
        }
    }

    /// Ends a window; those that have become empty are given up.
    pub fn close(&mut self, id: ProcessId, held: &[Held], closing: &Closing<'_>) {
        let mut tallies: HashMap<(u32, Part), Tally> = HashMap::new();
        for h in held.iter().filter(|h| h.slot != NO_SLOT) {
            if counted(h) {
                closing.unused(h, &mut tallies);
            }
            if let Some(by) = closing.openers.function(id, h) {
                let tally = tallies.entry((h.slot, Part::OpenedBy(Arc::clone(by)))).or_default();
                tally.count += 1;
                closing.stays(h.since, tally);
            }
        }
        let new = |(key, tally): &(&(u32, Part), &Tally)| {
            tally.count >= LEAST && !self.0.contains_key(key)
        };
        let mut new: Vec<_> = tallies.iter().filter(new).collect();
        // The largest first, and the same in every replay.
        new.sort_by_key(|(key, tally)| (Reverse(tally.count), *key));
        for (key, _) in new {
            if self.has_room(key) {
                self.0.insert(key.clone(), fresh(closing.windows));
            }
        }
        self.0.retain(|key, track| {
            let tally = tallies.get(key).copied().unwrap_or_default();
            track.count = tally.count;
            end(track, tally.survivors, closing);
            tally.count > 0 || track.marks().iter().any(|m| m.survivors > 0)
        });
    }

    fn has_room(&self, (slot, part): &(u32, Part)) -> bool {
        let openers = self.of(*slot).filter(|(part, _)| **part != Part::Unused);
        *part == Part::Unused || openers.count() < MAX_OPENERS
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Starts all windows anew.
    pub fn open(&mut self) {
        let levels = self.0.values_mut().flat_map(|track| &mut track.levels);
        levels.for_each(|level| level.present = Mark::default());
    }
}

impl Closing<'_> {
    /// Counts a connection that was not used for a window.
    fn unused(&self, h: &Held, tallies: &mut HashMap<(u32, Part), Tally>) {
        let idle = self.seen_at.since(h.moved);
        if idle >= self.window.length() {
            let tally = tallies.entry((h.slot, Part::Unused)).or_default();
            tally.count += 1;
            if idle >= self.window.lately() {
                // `moved` is never before `since`.
                self.stays(h.moved, tally);
            }
        }
    }

    /// Counts one that has been in a part since then.
    fn stays(&self, since: Boottime, tally: &mut Tally) {
        for (level, survivors) in tally.survivors.iter_mut().enumerate() {
            *survivors += u32::from(since <= self.window.began_at(level));
        }
    }
}

/// Had no member in the windows before, or hardly any.
fn fresh(windows: [usize; LEVELS]) -> Track {
    let mut track = Track::default();
    for (level, windows) in track.levels.iter_mut().zip(windows) {
        // The newest is about to be closed.
        level.marks.resize(windows.saturating_sub(1), Mark::default());
    }
    track
}

/// Nobody counts a part at each census: who stayed is the least that there was.
fn end(track: &mut Track, survivors: [u32; LEVELS], closing: &Closing<'_>) {
    for (level, (survivors, end)) in
        track.levels.iter_mut().zip(survivors.into_iter().zip(closing.ends))
    {
        level.present.floor = survivors;
        if end == End::Whole {
            level.push(survivors, closing.window.keep);
        }
        if end != End::No {
            level.present = Mark::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::unit::UnitKind;
    use crate::ledger::testing::World;
    use crate::source::model::{FdBirth, Frame, Opener, Role};

    /// Functions of the names `a`, `b`, … have opened so many each of one file.
    fn opened(counts: &[u32]) -> (World, u32) {
        let mut w = World::new();
        let p = w.spawn(("app.service", UnitKind::Service), 1, "/usr/bin/app");
        let process = w.process(p).id;
        w.looks(20);
        for (stack, (name, count)) in ('a'..).zip(counts).enumerate() {
            let stack = stack as u32;
            let (function, role) = (name.to_string(), Role::Opener);
            let frames = vec![Frame { function, role, ..Frame::raw(4096) }];
            w.stacks.insert(stack, vec![4096]);
            w.openers.push(Arc::new(Opener { process, stack, frames, note: None }));
            for _ in 0..*count {
                let fd = w.open(p, "/srv/app/data.db");
                w.fd(p, fd).birth = Some(FdBirth { at: w.now, tid: p, stack: Some(stack) });
            }
        }
        w.looks(20);
        (w, p)
    }

    fn followed(w: &World) -> Vec<(String, u32)> {
        let p = w.ledger.processes().next().unwrap();
        let name = |part: &Part| match part {
            Part::Unused => "unused".to_owned(),
            Part::OpenedBy(function) => function.to_string(),
        };
        p.parts.0.iter().map(|((_, part), track)| (name(part), track.count)).collect()
    }

    #[test]
    fn the_largest_are_followed_and_small_ones_are_not() {
        let (w, _) = opened(&[3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 2]);
        let names: String = followed(&w).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, "cdefghij", "eight of ten, and what has opened two is none of them");
    }

    #[test]
    fn what_is_used_again_is_retired_like_what_is_closed() {
        let mut w = World::new();
        let p = w.spawn(("app.service", UnitKind::Service), 1, "/usr/bin/app");
        w.looks(20);
        let fds: Vec<u32> = (0..6).map(|_| w.connect(p)).collect();
        fds.iter().for_each(|fd| w.fd(p, *fd).position = 7);
        w.looks(30);
        assert_eq!(followed(&w), [("unused".to_owned(), 6)]);
        let retired = |w: &World| {
            let p = w.ledger.processes().next().unwrap();
            let levels = p.parts.0.values().map(|track| &track.levels[0]);
            levels.flat_map(|l| l.marks.iter().chain([&l.present])).map(|m| m.retired).sum::<u32>()
        };
        let before = retired(&w);
        w.fd(p, fds[0]).position += 9;
        w.fd(p, fds[1]).position += 9;
        w.close(p, fds[2]);
        w.look();
        assert_eq!(retired(&w) - before, 3);
        // At once again: they were in use.
        w.fd(p, fds[0]).position += 9;
        w.look();
        assert_eq!(retired(&w) - before, 3);
    }

    #[test]
    fn who_has_closed_all_is_given_up_once_no_window_tells_of_it() {
        let (mut w, p) = opened(&[5, 3]);
        assert_eq!(followed(&w), [("a".to_owned(), 5), ("b".to_owned(), 3)]);
        w.fds(p).truncate(3);
        w.looks(40);
        assert_eq!(followed(&w), [("a".to_owned(), 3), ("b".to_owned(), 0)]);
        w.looks(400);
        assert_eq!(followed(&w), [("a".to_owned(), 3)]);
        // Another program knows nothing of them.
        w.process(p).exe = Some("/usr/bin/other".into());
        w.look();
        assert_eq!(followed(&w), []);
    }
}
