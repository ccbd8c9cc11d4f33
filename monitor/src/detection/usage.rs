//! Whether what stays is used. Data moves on the connections of a pool, and on sessions;
//! what was forgotten lies there, and nobody reads it.

use std::time::Duration;

use crate::ledger::Ledger;
use crate::ledger::process::{Held, Process};
use crate::source::model::FdKind;
use crate::text;

/// How members are used, as far as the kernel counts it: it does for TCP.
pub(crate) struct Usage {
    /// All of them.
    all: usize,
    /// Data has moved lately, and not only at the beginning.
    used: usize,
    /// It has moved at the beginning alone.
    idle: usize,
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
        let later = |h: &Held| h.moved.since(h.since) >= beginning;
        let used = counted().filter(|(p, h)| later(h) && p.seen_at().since(h.moved) < lately);
        let idle = counted().filter(|(p, h)| !later(h) && p.seen_at().since(h.moved) >= beginning);
        Self { all: members.len(), used: used.count(), idle: idle.count(), beginning, lately }
    }

    /// Most of them are in use.
    pub fn mostly(&self) -> bool {
        self.used > 0 && self.used * 2 >= self.all
    }

    /// The same in words, where it is known.
    pub fn told(&self) -> Option<String> {
        let Self { all, used, idle, beginning, lately } = self;
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
