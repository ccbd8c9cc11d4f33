//! What processes held when they ended.

use std::collections::HashMap;

use super::growth::Growth;
use super::temporary::Temporary;
use crate::ledger::template;
use crate::source::model::{FdKind, FdSample};

/// Cohorts and paths that are remembered, at most, of each.
const REMEMBERED: usize = 10_000;

/// Descriptors of one kind and path, by the name of the program that held them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Cohort {
    pub(super) program: String,
    pub(super) kind: FdKind,
    pub(super) path: String,
}

/// How many of a cohort were open at the end of processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Open {
    /// In the process that held most.
    pub(super) worst: u64,
    /// Processes that held any.
    pub(super) processes: u64,
}

/// A process that is alive after the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) pid: u32,
    pub(super) program: String,
}

/// All that was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) open: HashMap<Cohort, Open>,
    /// What became more and more while a process ran, and how many at the last look.
    pub(super) grew: HashMap<Cohort, u64>,
    /// Temporary files that were open when a process was looked at, and of which program.
    pub(super) opened: HashMap<Vec<u8>, String>,
    /// Processes that have ended.
    pub(super) processes: u64,
    /// Those whose descriptors may not be read.
    pub(super) denied: u64,
    /// Those that ended without a last look.
    pub(super) missed: u64,
    /// What was past [`REMEMBERED`].
    pub(super) forgotten: u64,
    /// Looked at from time to time only.
    pub(super) sampled: bool,
}

impl Seen {
    /// A process has ended with these of its own.
    pub(super) fn ended(&mut self, program: &str, held: &[FdSample], temporary: &Temporary) {
        self.holds(program, held, temporary);
        for (cohort, count) in counts(program, held) {
            if self.open.len() >= REMEMBERED && !self.open.contains_key(&cohort) {
                self.forgotten += 1;
                continue;
            }
            let open = self.open.entry(cohort).or_default();
            open.worst = open.worst.max(count);
            open.processes += 1;
        }
    }

    /// A process has ended, or is left, that looks found to hold more and more.
    pub(super) fn grew(&mut self, growth: &Growth) {
        for (cohort, last) in growth.risen() {
            if self.grew.len() < REMEMBERED || self.grew.contains_key(cohort) {
                let most = self.grew.entry(cohort.clone()).or_default();
                *most = last.max(*most);
            } else {
                self.forgotten += 1;
            }
        }
    }

    /// A process holds these of its own.
    pub(super) fn holds(&mut self, program: &str, held: &[FdSample], temporary: &Temporary) {
        for sample in held.iter().filter(|s| temporary.covers(s.path.as_bytes())) {
            let path = sample.path.as_bytes().to_vec();
            if self.opened.len() < REMEMBERED || self.opened.contains_key(&path) {
                self.opened.entry(path).or_insert_with(|| program.to_owned());
            } else {
                self.forgotten += 1;
            }
        }
    }

    /// In sentences, what could not be seen.
    pub(super) fn blind(&self) -> Vec<String> {
        let mut blind = vec![
            "without probes a descriptor's opener is its program, not a function, and threads that \
             were never joined are not told"
                .to_owned(),
        ];
        if self.sampled {
            blind.push(
                "the command may not be traced: what was opened, and which processes lived, between \
                 two looks was not seen, and what is said to be open at exit was open at the last look"
                    .to_owned(),
            );
        }
        let mut of_processes = |count: u64, what: &str| {
            if count > 0 {
                blind.push(format!("{what} of {count} of {} processes", self.processes));
            }
        };
        of_processes(self.denied, "the descriptors, which this user may not read,");
        of_processes(self.missed, "the end");
        if self.forgotten > 0 {
            blind.push(format!("{} cohorts and paths, too many to keep", self.forgotten));
        }
        blind
    }
}

/// How many there are of each cohort.
pub(super) fn counts(program: &str, held: &[FdSample]) -> HashMap<Cohort, u64> {
    let mut counts = HashMap::new();
    for sample in held {
        let path = template::template(sample.kind, sample).into_owned();
        let cohort = Cohort { program: program.to_owned(), kind: sample.kind, path };
        *counts.entry(cohort).or_default() += 1;
    }
    counts
}
