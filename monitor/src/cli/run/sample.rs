//! The processes of the command where they may not be traced: looked at from time to
//! time. What one held when it was seen last stands for what it held at its end.

use std::collections::{HashMap, HashSet};
use std::io;

use procfs::process::all_processes;

use super::child::{self, Child, Ended};
use super::course::{AT_ONCE, Course, Drained, Follow};
use super::growth::Growth;
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
    course: Course<'a>,
    living: HashMap<libc::pid_t, Process>,
    /// The command was there at a look.
    met: bool,
}

impl<'a> Sample<'a> {
    /// Before the command is released.
    pub(super) fn begin(child: &'a Child, temporary: &'a Temporary) -> Self {
        // SAFETY: no memory is involved.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
        let seen = Seen { sampled: true, ..Seen::default() };
        let course = Course::new(child, temporary, seen);
        Self { course, living: HashMap::new(), met: false }
    }

    /// All that was seen, and who is left.
    pub(super) fn end(mut self) -> (Seen, Vec<Left>) {
        if !self.met {
            // It was over before the first look.
            self.course.seen.processes += 1;
            self.course.seen.missed += 1;
        }
        let family = family();
        for (pid, process) in std::mem::take(&mut self.living) {
            if family.iter().any(|m| m.pid == pid && m.start == process.start) {
                self.course.seen.grew(&process.growth);
            } else {
                self.ends(&process);
            }
        }
        let left = family
            .into_iter()
            .map(|m| Left { pid: m.pid.cast_unsigned(), program: m.program })
            .collect();
        (self.course.seen, left)
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

    fn ends(&mut self, process: &Process) {
        self.course.seen.processes += 1;
        self.course.seen.grew(&process.growth);
        match &process.held {
            Some(held) => self.course.seen.ended(&process.program, held, self.course.temporary),
            None => self.course.seen.denied += 1,
        }
    }
}

impl<'a> Follow<'a> for Sample<'a> {
    fn course(&mut self) -> &mut Course<'a> {
        &mut self.course
    }

    fn drain(&mut self) -> io::Result<Drained> {
        for _ in 0..AT_ONCE {
            let mut status = 0;
            // SAFETY: the pointer is to a living value.
            let pid =
                unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::WUNTRACED) };
            match pid {
                0 => return Ok(Drained::All),
                -1 if self.course.ended.is_some() => return Ok(Drained::Nobody),
                -1 => return Err(io::Error::last_os_error()),
                pid if pid == self.course.child.pid && libc::WIFSTOPPED(status) => {
                    child::stop_too(libc::WSTOPSIG(status));
                }
                pid if pid == self.course.child.pid => {
                    self.course.ended = Ended::of(status).or(self.course.ended);
                }
                _ => {}
            }
        }
        Ok(Drained::Some)
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
            self.course.seen.holds(&program, seen, self.course.temporary);
            growth.look(&counts(&program, seen));
            self.met |= pid == self.course.child.pid;
            self.living.insert(pid, Process { start, program, given, held, growth });
        }
        for process in before.values() {
            self.ends(process);
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
