//! Who started what is left: the function that made a thread or a process.
//!
//! Whoever makes one is stopped then, so its stack can be copied; it is unwound only if
//! what was made is left behind.

use std::collections::{BTreeMap, HashMap};

use super::openers::{PATIENCE, Site, site};
use super::proc;
use super::stack;
use crate::source::command::starts::{StackCopy, Starts};

/// Copies that are kept, at most, of up to 32 KiB each: of the first ones that live.
const KEPT: usize = 256;

/// Of one that lives.
struct Made {
    /// The process whose thread made it.
    by: libc::pid_t,
    copy: StackCopy,
}

/// Who has started what lives.
#[derive(Default)]
pub(super) struct Starters {
    starts: Starts,
    /// Threads that still run are a finding.
    strict: bool,
    made: HashMap<libc::pid_t, Made>,
    /// By program, for each process the threads that ran at its end.
    threads: BTreeMap<String, Vec<Vec<libc::pid_t>>>,
    left_out: u64,
}

/// The functions that started what is left.
#[derive(Debug, Default)]
pub(super) struct Started {
    /// By program, those that started the threads that ran at its end.
    pub(super) threads: BTreeMap<String, Vec<Site>>,
    /// Each process by its number.
    pub(super) processes: HashMap<u32, Site>,
    /// What is not known, in a sentence.
    pub(super) blind: Option<String>,
}

impl Starters {
    /// Of threads only where they are a finding: compilers end with some each time, and
    /// their symbols take long to read.
    pub(super) fn new(strict: bool) -> Self {
        Self { strict, ..Self::default() }
    }

    /// The stopped thread `tid` of the process `by` has just made `new`, which is a thread
    /// or a process. Threads of which nobody asks take no room from processes.
    pub(super) fn made(
        &mut self,
        tid: libc::pid_t,
        by: libc::pid_t,
        new: libc::pid_t,
        thread: bool,
    ) {
        if thread && !self.strict || self.made.len() >= KEPT {
            return;
        }
        if let Some(copy) = stack::copy(tid, by, new) {
            self.made.insert(new, Made { by, copy });
        }
    }

    /// A thread or process has ended of itself, or is not looked at any more.
    pub(super) fn ended(&mut self, tid: libc::pid_t) {
        self.made.remove(&tid);
    }

    /// A process executes another program: its memory is not what the copies are of.
    pub(super) fn executes(&mut self, process: libc::pid_t) {
        self.made.retain(|_, made| made.by != process);
    }

    /// A process is stopped at its end, where these threads of its ran; of what it has
    /// started besides, `lives` says what does.
    pub(super) fn ends(
        &mut self,
        process: libc::pid_t,
        program: &str,
        threads: &[libc::pid_t],
        lives: impl Fn(libc::pid_t) -> bool,
    ) {
        self.made.remove(&process);
        let of = |made: &Made| made.by == process;
        let living = self.made.iter().filter(|(new, made)| of(made) && lives(**new));
        let mut wanted: Vec<libc::pid_t> = living.map(|(new, _)| *new).collect();
        let threads = if self.strict { threads } else { &[] };
        // The first thread was started by another process.
        wanted.extend(threads.iter().filter(|tid| **tid != process));
        wanted.sort_unstable();
        for new in wanted {
            self.ask(new);
        }
        self.made.retain(|_, made| !of(made));
        if !threads.is_empty() {
            self.threads.entry(program.to_owned()).or_default().push(threads.to_vec());
        }
    }

    /// These are left, and who made them may live, too.
    pub(super) fn left(&mut self, processes: impl Iterator<Item = libc::pid_t>) {
        processes.for_each(|new| self.ask(new));
    }

    fn ask(&mut self, new: libc::pid_t) {
        if self.starts.has(new.cast_unsigned()) {
            return;
        }
        let by = self.made.remove(&new).and_then(|m| Some((proc::identity(m.by)?, m.copy)));
        if !by.is_some_and(|(by, copy)| self.starts.ask(by, copy)) {
            self.left_out += 1;
        }
    }

    /// What is known of them. While it is waited for, `meanwhile` is done again and again.
    pub(super) fn started(self, meanwhile: impl FnMut()) -> Started {
        let openers = self.starts.openers(PATIENCE, meanwhile);
        let sites: HashMap<u32, Site> =
            openers.iter().filter_map(|(new, o)| Some((*new, site(o)?))).collect();
        let mut started = Started::default();
        for (program, processes) in self.threads {
            let mut most: BTreeMap<Site, u64> = BTreeMap::new();
            for threads in processes {
                let here = threads.iter().filter_map(|tid| sites.get(&tid.cast_unsigned()));
                for (site, count) in counted(here) {
                    let known = most.entry(site).or_default();
                    *known = count.max(*known);
                }
            }
            started.threads.insert(program, listed(most));
        }
        let unknown = self.left_out + (openers.len() - sites.len()) as u64;
        started.blind = (unknown > 0).then(|| {
            let note = openers.iter().filter(|(new, _)| !sites.contains_key(new));
            let why = note.filter_map(|(_, o)| o.note.as_deref()).min();
            let why = why.unwrap_or("there were too many, or their stack could not be followed");
            format!("the functions that started threads or processes ({unknown} stacks): {why}")
        });
        started.processes = sites;
        started
    }
}

/// How many there are of each.
pub(super) fn counted<'a>(sites: impl Iterator<Item = &'a Site>) -> BTreeMap<Site, u64> {
    let mut counts = BTreeMap::new();
    sites.for_each(|site| *counts.entry(site.clone()).or_default() += 1);
    counts
}

/// Those with most first.
pub(super) fn listed(counts: BTreeMap<Site, u64>) -> Vec<Site> {
    let mut list: Vec<Site> =
        counts.into_iter().map(|(site, count)| Site { count, ..site }).collect();
    list.sort_by_key(|site| std::cmp::Reverse(site.count));
    list
}
