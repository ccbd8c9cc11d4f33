//! Whether what stays is used. Data moves on the connections of a pool, and on sessions;
//! what was forgotten lies there, and nobody reads it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::config::model::{Detection, LEVELS};
use crate::ledger::Ledger;
use crate::ledger::process::{Held, Process, held_flags};
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
    /// They came with connections that are in use, of so many that were seen to come.
    brought: (usize, usize),
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
        let (brought, came) = self.brought;
        brought > 0 && brought * 10 >= came * 9
    }

    /// The same in words, where it is known.
    pub fn told(&self) -> Option<String> {
        let Self { all, used, idle, brought, beginning, lately } = self;
        if self.accompany() {
            let (brought, came) = brought;
            return Some(format!(
                "{brought} of {came} came with connections that are in use: they stay as long as \
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
/// an event counter or a pipe that each of them has. And how many came while the agent watched.
fn brought(
    members: &[(&Process, &Held)],
    in_use: impl Fn(&Process, &Held) -> bool,
) -> (usize, usize) {
    let may_be =
        |kind| matches!(kind, FdKind::Timerfd | FdKind::Eventfd | FdKind::Epoll | FdKind::Pipe);
    if !members.iter().all(|(_, h)| may_be(h.kind)) {
        return (0, 0);
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
    let watched = members.iter().filter(|(_, h)| !h.is(held_flags::FIRST_LOOK));
    (watched.clone().filter(came).count(), watched.count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::unit::UnitKind;
    use crate::detection::verdict::{Leak, State};
    use crate::ledger::testing::{World, config};

    /// A service that has `before` connections with a timer each at the first look, and gets a
    /// timer at each of `n` more, with so many connections; whether they are all used.
    fn timers(before: u32, n: u32, connections: u32, used: bool) -> World {
        let mut config = config();
        config.detection.min_share = 0.0625;
        let mut w = World::with(config);
        let p = w.spawn(("app.service", UnitKind::Service), 1, "/usr/bin/app");
        let timer = |w: &mut World, connections| {
            for _ in 0..connections {
                let fd = w.connect(p);
                w.fd(p, fd).position = 7;
            }
            let fd = w.open(p, "anon_inode:[timerfd]");
            w.fd(p, fd).kind = FdKind::Timerfd;
        };
        let look = |w: &mut World| {
            w.look();
            let sockets = w.fds(p).iter_mut().filter(|f| f.kind == FdKind::Socket);
            sockets.for_each(|f| f.position += if used { 9 } else { 0 });
        };
        (0..before).for_each(|_| timer(&mut w, 1));
        (0..20).for_each(|_| look(&mut w));
        for _ in 0..n {
            timer(&mut w, connections);
            look(&mut w);
        }
        w
    }

    fn confirmed(w: &World) -> Option<&Leak> {
        let changes = w.changes.iter().filter(|c| c.to == State::Confirmed);
        changes.map(|c| &c.leak).find(|l| l.kind == "timerfd")
    }

    #[test]
    fn what_came_with_connections_in_use_belongs_to_them() {
        let w = timers(0, 120, 1, true);
        assert_eq!(confirmed(&w), None);
        let leaks = w.open_leaks();
        let leak = leaks.iter().find(|l| l.kind == "timerfd").unwrap();
        let said = "came with connections that are in use: they stay as long as those";
        assert!(leak.evidence.iter().any(|e| e.contains(said)), "{:?}", leak.evidence);
        assert!(confirmed(&timers(0, 120, 0, true)).is_some(), "nothing came with them");
        assert!(confirmed(&timers(0, 120, 1, false)).is_some(), "forgotten like all they had");
        assert!(confirmed(&timers(0, 620, 1, true)).is_some(), "too much for anything");
    }

    #[test]
    fn of_what_was_there_at_the_first_look_nobody_knows_with_what_it_came() {
        assert!(confirmed(&timers(360, 38, 0, true)).is_some());
        assert_eq!(confirmed(&timers(360, 38, 1, true)), None);
    }
}
