//! When the fd probes are attached, under `probes = "auto"` and `"on-suspicion"`.
//!
//! System-call tracepoints cost every system call of the host, so they come for
//! a spell per suspicion and go again, even if the leak stays: what they have to
//! tell (who opens, from where, how long it lives) they tell early.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::config::model::Config;
use crate::time::Boottime;

/// How long a spell is to be by this config: one judgement.
pub fn length(config: &Config) -> Duration {
    config.detection.window * config.detection.windows
}

/// Decides which units the probes watch.
#[derive(Debug)]
pub struct Spells {
    length: Duration,
    /// Suspects, and when their suspicion arose.
    since: BTreeMap<Arc<str>, Boottime>,
}

impl Spells {
    /// Spells of `length`; one judgement (`window` times `windows`) is right.
    pub fn new(length: Duration) -> Self {
        Self { length, since: BTreeMap::new() }
    }

    /// Another length, after a reload.
    pub fn set_length(&mut self, length: Duration) {
        self.length = length;
    }

    /// Nobody watched for so long, since the probes were being attached: an emulated or a
    /// busy processor can take longer for that than a short spell is.
    ///
    /// Spells that were over at `now`, before that, stay so.
    pub fn put_off(&mut self, by: Duration, now: Boottime) {
        let on = self.since.values_mut().filter(|since| now.since(**since) < self.length);
        on.for_each(|since| *since = *since + by);
    }

    /// The units to watch now. A unit whose suspicion ends and arises again
    /// gets a new spell.
    pub fn watch(&mut self, suspects: &BTreeSet<Arc<str>>, now: Boottime) -> BTreeSet<Arc<str>> {
        self.since.retain(|unit, _| suspects.contains(unit));
        for unit in suspects {
            self.since.entry(unit.clone()).or_insert(now);
        }
        self.since
            .iter()
            .filter(|(_, since)| now.since(**since) < self.length)
            .map(|(unit, _)| unit.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_come_for_a_suspect_and_go_again() {
        let at = |s: u64| Boottime(s * 1_000_000_000);
        let set = |names: &[&str]| names.iter().map(|n| Arc::from(*n)).collect::<BTreeSet<_>>();
        let mut spells = Spells::new(Duration::from_secs(60));
        assert!(spells.watch(&set(&[]), at(0)).is_empty());
        assert_eq!(spells.watch(&set(&["a"]), at(10)), set(&["a"]));
        assert_eq!(spells.watch(&set(&["a", "b"]), at(50)), set(&["a", "b"]));
        // `a` has had its spell though it is still suspected.
        assert_eq!(spells.watch(&set(&["a", "b"]), at(75)), set(&["b"]));
        assert!(spells.watch(&set(&["a", "b"]), at(111)).is_empty());
        // It took longer to attach them than the spell is.
        assert_eq!(spells.watch(&set(&["a", "b", "c"]), at(115)), set(&["c"]));
        spells.put_off(Duration::from_secs(70), at(115));
        assert_eq!(spells.watch(&set(&["a", "b", "c"]), at(150)), set(&["c"]), "`b` is over");
        assert_eq!(spells.watch(&set(&["a", "b", "c"]), at(186)), set(&["c"]));
        let mut spells = Spells::new(Duration::from_secs(60));
        spells.watch(&set(&["a", "b"]), at(50));
        // Quiet, then suspected anew.
        assert!(spells.watch(&set(&["b"]), at(120)).is_empty());
        assert_eq!(spells.watch(&set(&["a", "b"]), at(130)), set(&["a"]));
    }
}
