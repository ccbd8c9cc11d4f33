//! What processes held when they ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::growth::Growth;
use super::proc;
use super::temporary::Temporary;
use crate::ledger::template;
use crate::source::model::{FdKind, FdSample};

/// Cohorts and paths that are remembered, at most, of each.
const REMEMBERED: usize = 10_000;

/// Names of threads that are remembered of a program, at most.
const NAMES: usize = 16;

/// Descriptors of one kind and path, by the name of the program that held them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Cohort {
    pub(super) program: String,
    pub(super) kind: FdKind,
    pub(super) path: String,
}

/// How many of a cohort were open at the end of processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Open {
    /// In the process that held most.
    pub(super) worst: u64,
    /// Processes that held any.
    pub(super) processes: u64,
    /// The path of one, as it is: the least, so that each run says the same.
    pub(super) example: Vec<u8>,
}

/// Threads of one program that ran when their process ended itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Running {
    /// In the process that had most.
    pub(super) worst: u64,
    /// Processes that had any.
    pub(super) processes: u64,
    /// What they are called, the first [`NAMES`] in order.
    pub(super) names: BTreeSet<String>,
}

/// A process that is alive after the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) pid: u32,
    pub(super) program: String,
}

impl Left {
    pub(super) fn of(pid: libc::pid_t) -> Self {
        Self { pid: pid.cast_unsigned(), program: proc::program(pid) }
    }
}

/// All that was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) open: HashMap<Cohort, Open>,
    /// What became more and more while a process ran, and how many at the last look.
    pub(super) grew: HashMap<Cohort, u64>,
    /// By program.
    pub(super) threads: BTreeMap<String, Running>,
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
    /// Sentences on what could not be had.
    pub(super) without: Vec<String>,
}

impl Seen {
    /// A process has ended with these of its own.
    pub(super) fn ended(&mut self, program: &str, held: &[FdSample], temporary: &Temporary) {
        self.holds(program, held, temporary);
        let mut examples: HashMap<Cohort, &[u8]> = HashMap::new();
        for sample in held {
            let path = sample.path.as_bytes();
            let least = examples.entry(cohort(program, sample)).or_insert(path);
            *least = path.min(least);
        }
        for (cohort, count) in counts(program, held) {
            if self.open.len() >= REMEMBERED && !self.open.contains_key(&cohort) {
                self.forgotten += 1;
                continue;
            }
            let example = examples.get(&cohort).copied().unwrap_or_default();
            let open = self.open.entry(cohort).or_default();
            if open.processes == 0 || example < open.example.as_slice() {
                open.example = example.to_vec();
            }
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

    /// A process has ended itself while threads of these names ran.
    pub(super) fn ran(&mut self, program: &str, names: &[String]) {
        if names.is_empty() {
            return;
        }
        if self.threads.len() >= REMEMBERED && !self.threads.contains_key(program) {
            self.forgotten += 1;
            return;
        }
        let running = self.threads.entry(program.to_owned()).or_default();
        running.worst = running.worst.max(names.len() as u64);
        running.processes += 1;
        for name in names {
            running.names.insert(name.clone());
            if running.names.len() > NAMES {
                running.names.pop_last();
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
        let mut blind = self.without.clone();
        blind.push(
            "threads that ended and were never joined: the kernel keeps nothing of them".to_owned(),
        );
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
        *counts.entry(cohort(program, sample)).or_default() += 1;
    }
    counts
}

/// What a descriptor of a program is counted with.
pub(super) fn cohort(program: &str, sample: &FdSample) -> Cohort {
    let path = template::template(sample.kind, sample, &[]).into_owned();
    Cohort { program: program.to_owned(), kind: sample.kind, path }
}
