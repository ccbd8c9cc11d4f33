//! The processes of the command where they may not be traced: looked at from time to
//! time. What one held when it was seen last stands for what it held at its end.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use procfs::process::all_processes;

use super::child::{self, Child, Ended};
use super::growth::Growth;
use super::pace::Pace;
use super::proc::{self, Identity};
use super::seen::{Left, Seen, counts};
use super::temporary::Temporary;
use crate::source::model::FdSample;

/// A process that was there at the last look.
struct Process {
    /// Clock ticks since the machine has started.
    start: u64,
    program: String,
    given: HashSet<Identity>,
    /// Its own; `None` if it may not be read.
    held: Option<Vec<FdSample>>,
    growth: Growth,
}

/// The command and all that it has started. Orphans become children of leakwatch
/// (`PR_SET_CHILD_SUBREAPER` of prctl(2)), so none of them gets lost.
pub(super) struct Sample<'a> {
    child: &'a Child,
    temporary: &'a Temporary,
    living: HashMap<libc::pid_t, Process>,
    seen: Seen,
    pace: Pace,
    ended: Option<Ended>,
    /// The command was there at a look.
    met: bool,
}

impl<'a> Sample<'a> {
    /// Before the command is released.
    pub(super) fn begin(child: &'a Child, temporary: &'a Temporary) -> Self {
        // SAFETY: no memory is involved.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
        let (living, seen) = (HashMap::new(), Seen { sampled: true, ..Seen::default() });
        Self { child, temporary, living, seen, pace: Pace::new(), ended: None, met: false }
    }

    /// Until the command has ended.
    ///
    /// # Errors
    /// The kernel has no such child any more, which cannot be.
    pub(super) fn follow(&mut self) -> io::Result<Ended> {
        loop {
            self.reap()?;
            if let Some(ended) = self.ended {
                return Ok(ended);
            }
            if self.pace.due() {
                self.look();
            }
            self.child.pass_on(self.pace.rest());
        }
    }

    /// Until nothing of it is left, at most so long; what lives then was left behind.
    pub(super) fn settle(mut self, most: Duration) -> (Seen, Vec<Left>) {
        let until = Instant::now() + most;
        while self.reap().is_ok_and(|any| any) {
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                break;
            }
            self.child.wake(rest);
        }
        if !self.met {
            // It was over before the first look.
            self.seen.processes += 1;
            self.seen.missed += 1;
        }
        let family = family();
        for (pid, process) in std::mem::take(&mut self.living) {
            if family.iter().any(|m| m.pid == pid && m.start == process.start) {
                self.seen.grew(&process.growth);
            } else {
                self.end(&process);
            }
        }
        let mut left: Vec<Left> = family
            .into_iter()
            .map(|m| Left { pid: m.pid.cast_unsigned(), program: m.program })
            .collect();
        left.sort_unstable_by_key(|l| l.pid);
        (self.seen, left)
    }

    /// Parents come before their children.
    fn look(&mut self) {
        let mut before = std::mem::take(&mut self.living);
        for Member { pid, parent, start, program } in family() {
            let known = before.remove(&pid).filter(|p| p.start == start);
            let (given, mut growth) = match known {
                Some(process) => (process.given, process.growth),
                None => (self.from(parent), Growth::default()),
            };
            let held = proc::own(pid, &given).ok();
            let seen = held.as_deref().unwrap_or_default();
            self.seen.holds(&program, seen, self.temporary);
            growth.look(&counts(&program, seen));
            self.met |= pid == self.child.pid;
            self.living.insert(pid, Process { start, program, given, held, growth });
        }
        for process in before.values() {
            self.end(process);
        }
        self.pace.done();
    }

    /// What a child of this one has by inheritance.
    fn from(&self, parent: libc::pid_t) -> HashSet<Identity> {
        match self.living.get(&parent) {
            Some(process) => {
                let own = process.held.iter().flatten();
                let own = own.map(|s| (s.fd, s.path.as_bytes().to_vec()));
                own.chain(process.given.iter().cloned()).collect()
            }
            None => proc::identities(std::process::id().cast_signed()).unwrap_or_default(),
        }
    }

    fn end(&mut self, process: &Process) {
        self.seen.processes += 1;
        self.seen.grew(&process.growth);
        match &process.held {
            Some(held) => self.seen.ended(&process.program, held, self.temporary),
            None => self.seen.denied += 1,
        }
    }

    /// Takes the status of every child that has one; whether there is any child yet.
    fn reap(&mut self) -> io::Result<bool> {
        loop {
            let mut status = 0;
            // SAFETY: the pointer is to a living value.
            let pid =
                unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::WUNTRACED) };
            match pid {
                0 => return Ok(true),
                -1 if self.ended.is_some() => return Ok(false),
                -1 => return Err(io::Error::last_os_error()),
                pid if pid == self.child.pid && libc::WIFSTOPPED(status) => {
                    child::stop_too(libc::WSTOPSIG(status));
                }
                pid if pid == self.child.pid => self.ended = Ended::of(status).or(self.ended),
                _ => {}
            }
        }
    }
}

struct Member {
    pid: libc::pid_t,
    parent: libc::pid_t,
    start: u64,
    program: String,
}

/// All descendants of leakwatch that live, parents first. Not by `children` of /proc,
/// which may miss one while another goes (proc_pid_task_children(5)).
fn family() -> Vec<Member> {
    let mut others = Vec::new();
    for process in all_processes().into_iter().flatten().flatten() {
        let Ok(stat) = process.stat() else { continue };
        if !matches!(stat.state, 'Z' | 'X') {
            let (pid, parent, start) = (stat.pid, stat.ppid, stat.starttime);
            let program = crate::text::printable(stat.comm.as_bytes());
            others.push(Member { pid, parent, start, program });
        }
    }
    let mut parents = HashSet::from([std::process::id().cast_signed()]);
    let mut family: Vec<Member> = Vec::new();
    loop {
        let (found, rest): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|m| parents.contains(&m.parent));
        if found.is_empty() {
            return family;
        }
        parents.extend(found.iter().map(|m| m.pid));
        family.extend(found);
        others = rest;
    }
}
