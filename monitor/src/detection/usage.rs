//! Whether what stays is used. Data moves on the connections of a pool, and on sessions;
//! what was forgotten lies there, and nobody reads it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::config::model::{Detection, LEVELS};
use crate::ledger::Ledger;
use crate::ledger::process::{Held, Process};
use crate::source::model::FdKind;
use crate::text;
use crate::time::Boottime;

/// A connection brings no more of one kind: both ends of a pipe.
const BROUGHT: u32 = 2;

/// How members are used, as far as the kernel counts it: it does for TCP.
pub(crate) struct Usage {
    /// All of them.
    all: usize,
    /// Data has moved lately, and not only at the beginning.
    used: usize,
    /// It has moved at the beginning alone.
    idle: usize,
    /// They came with connections that are in use.
    brought: usize,
    /// What the beginning is.
    beginning: Duration,
    /// What lately is.
    lately: Duration,
}

impl Usage {
    /// Of these.
    pub fn of(ledger: &Ledger, members: &[(&Process, &Held)]) -> Self {
        let beginning = ledger.window().length();
        let lately = ledger.window().lately();
        let counted = || members.iter().filter(|(_, h)| h.kind == FdKind::Socket && h.position > 0);
        let later = |h: &Held| used_later(ledger, h);
        let in_use = |p: &Process, h: &Held| in_use(ledger, p, h);
        let used = counted().filter(|(p, h)| in_use(p, h)).count();
        let idle = counted().filter(|(p, h)| !later(h) && p.seen_at().since(h.moved) >= beginning);
        let (all, idle, brought) = (members.len(), idle.count(), brought(members, in_use));
        Self { all, used, idle, brought, beginning, lately }
    }

    /// Most of them are in use.
    pub fn mostly(&self) -> bool {
        self.used > 0 && self.used * 2 >= self.all
    }

    /// They came with connections that are in use, and stay as long. Nearly each has to: where
    /// many connections come and go some have come with anything.
    pub fn accompany(&self) -> bool {
        self.brought > 0 && self.brought * 10 >= self.all * 9
    }

    /// The same in words, where it is known.
    pub fn told(&self) -> Option<String> {
        let Self { all, used, idle, brought, beginning, lately } = self;
        if self.accompany() {
            return Some(format!(
                "{brought} of {all} came with connections that are in use: they stay as long as \
                 those"
            ));
        }
        if self.mostly() {
            let lately = text::duration(*lately);
            return Some(format!(
                "data moved on {used} of {all} in the last {lately}: a pool's connections, or \
                 sessions, are used, and what was forgotten is not"
            ));
        }
        (*idle * 2 >= *all && *idle > 0).then(|| {
            let beginning = text::duration(*beginning);
            format!("on {idle} of {all} no data has moved since their first {beginning}")
        })
    }
}

/// Data has moved on it later than at its beginning, and lately.
fn in_use(ledger: &Ledger, p: &Process, h: &Held) -> bool {
    h.kind == FdKind::Socket
        && h.position > 0
        && used_later(ledger, h)
        && p.seen_at().since(h.moved) < ledger.window().lately()
}

fn used_later(ledger: &Ledger, h: &Held) -> bool {
    h.moved.since(h.since) >= ledger.window().length()
}

/// Nearly each thread that came on top of the fewest belongs to a connection that is in use: of
/// every age there are as many connections as threads.
pub(crate) fn threads_accompany(ledger: &Ledger, config: &Detection, p: &Process) -> bool {
    let Some(old) = p.old_threads else { return false };
    let lengths = config.lengths();
    let mut used = [0_u32; LEVELS];
    for h in p.held.iter().filter(|h| in_use(ledger, p, h)) {
        let age = p.seen_at().since(h.opened);
        for (used, length) in used.iter_mut().zip(lengths) {
            *used += u32::from(age >= length);
        }
    }
    // Older than each length: those that are not older than the next are of one age.
    let own = p.fewest_threads;
    let of_age = |old: &[u32; LEVELS], level: usize| {
        old[level].saturating_sub(old.get(level + 1).copied().unwrap_or(0))
    };
    let came = old.map(|old| old.saturating_sub(own));
    // Whose connection was used once, and will be, is not known yet to be in use.
    let without = |level| of_age(&came, level).saturating_sub(of_age(&used, level));
    came[0] > 0 && (0..LEVELS).map(without).sum::<u32>() * 10 <= came[0]
}

/// The same in words.
pub(crate) fn told_of_threads() -> String {
    "there are as many connections in use, as old as they are: it is a thread for each".to_owned()
}

/// How many came, by the same census, with connections that are in use and still open: a timer,
/// an event counter or a pipe that each of them has.
fn brought(members: &[(&Process, &Held)], in_use: impl Fn(&Process, &Held) -> bool) -> usize {
    let may_be =
        |kind| matches!(kind, FdKind::Timerfd | FdKind::Eventfd | FdKind::Epoll | FdKind::Pipe);
    if !members.iter().all(|(_, h)| may_be(h.kind)) {
        return 0;
    }
    let holders: BTreeMap<u32, &Process> = members.iter().map(|(p, _)| (p.serial, *p)).collect();
    let mut room: HashMap<(u32, Boottime), u32> = HashMap::new();
    for p in holders.values() {
        for h in p.held.iter().filter(|h| in_use(p, h)) {
            *room.entry((p.serial, h.since)).or_default() += BROUGHT;
        }
    }
    let came = |(p, h): &&(&Process, &Held)| {
        let left = room.get_mut(&(p.serial, h.since)).filter(|left| **left > 0);
        left.is_some_and(|left| {
            *left -= 1;
            true
        })
    };
    members.iter().filter(came).count()
}
