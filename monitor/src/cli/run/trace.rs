//! The processes of the command, stopped for a moment where they begin, execute and
//! end (ptrace(2), which needs no privilege over one's own children).
//!
//! At `PTRACE_EVENT_EXIT` a thread has not yet let go of its descriptors
//! (`kernel/exit.c: do_exit`), so those that the last thread of a process has then
//! are those that were open at its end: none is missed, however short it lived.

use std::collections::{HashMap, HashSet};
use std::io;

use super::child::{self, Child, Ended};
use super::course::{AT_ONCE, Course, Drained, Follow};
use super::growth::Growth;
use super::openers::Openers;
use super::proc::{self, Identity};
use super::seen::{Cohort, Left, Seen, counts};
use super::starters::Starters;
use super::temporary::Temporary;

const OPTIONS: libc::c_int = libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACEEXIT;

/// A thread.
struct Task {
    process: libc::pid_t,
    exiting: bool,
}

#[derive(Default)]
struct Process {
    /// What it was given: by its parent, or over exec by the program before.
    given: HashSet<Identity>,
    growth: Growth,
    /// The threads that ended by no act of their own, and what they were called.
    cut: Vec<(libc::pid_t, String)>,
    /// One has ended all (`exit_group(2)`), which nobody else has asked for.
    itself: bool,
    /// The first thread waits at its end for the others: with it the memory goes from
    /// /proc, and with that what the addresses of stacks are of.
    held: bool,
}

/// The command and all that it has started.
pub(super) struct Trace<'a> {
    course: Course<'a>,
    openers: Option<Openers>,
    starters: Starters,
    tasks: HashMap<libc::pid_t, Task>,
    processes: HashMap<libc::pid_t, Process>,
    /// Threads that were made and have not stopped yet for the first time.
    awaited: HashSet<libc::pid_t>,
}

impl<'a> Trace<'a> {
    /// From before the first instruction of the command, which is not released yet.
    ///
    /// # Errors
    /// The kernel, or what confines this process, does not allow to trace.
    pub(super) fn begin(
        child: &'a Child,
        temporary: &'a Temporary,
        strict: bool,
    ) -> io::Result<Self> {
        // SAFETY: no memory is involved.
        let done = unsafe { libc::ptrace(libc::PTRACE_SEIZE, child.pid, 0_usize, OPTIONS) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut trace = Self {
            course: Course::new(child, temporary, Seen::default()),
            openers: None,
            starters: Starters::new(strict),
            tasks: HashMap::new(),
            processes: HashMap::new(),
            awaited: HashSet::new(),
        };
        trace.meet(child.pid);
        Ok(trace)
    }

    /// With the probes, or without and why.
    pub(super) fn with(&mut self, openers: Result<Openers, String>) {
        match openers.and_then(|mut openers| openers.watch(self.course.child.pid).map(|()| openers)) {
            Ok(openers) => self.openers = Some(openers),
            Err(why) => self.course.seen.without.push(format!(
                "the functions that opened descriptors, without probes their program is named: {why}"
            )),
        }
    }

    /// All that was seen, who is left, and the call sites. Those who are left go on being
    /// followed, so that none of them waits for leakwatch, as long as somebody drains.
    pub(super) fn end(&mut self) -> (Seen, Vec<Left>, Option<Openers>, Starters) {
        let mut left = Vec::new();
        for (pid, process) in &self.processes {
            self.course.seen.grew(&process.growth);
            left.push(Left::of(*pid));
        }
        self.starters.left(self.processes.keys().copied());
        let starters = std::mem::take(&mut self.starters);
        (std::mem::take(&mut self.course.seen), left, self.openers.take(), starters)
    }

    fn gone(&mut self, tid: libc::pid_t, status: libc::c_int) {
        self.awaited.remove(&tid);
        if let Some(task) = self.tasks.remove(&tid) {
            if task.process != tid {
                // Killed when it was stopped for something else, and resumed from its end
                // in place of that.
                if !task.exiting
                    && let Some(process) = self.processes.get_mut(&task.process)
                {
                    process.cut.push((tid, proc::program(task.process)));
                }
                // The others may have waited for it.
                self.end_if_last(task.process, task.process);
            } else if self.processes.remove(&tid).is_some() {
                // Killed where it could not stop once more.
                self.starters.ended(tid);
                self.course.seen.processes += 1;
                self.course.seen.missed += 1;
                if let Some(openers) = &mut self.openers {
                    openers.ends(tid);
                }
            }
        }
        if tid == self.course.child.pid {
            self.course.ended = Ended::of(status).or(self.course.ended);
        }
    }

    fn stopped(&mut self, tid: libc::pid_t, status: libc::c_int) {
        let signal = libc::WSTOPSIG(status);
        if !self.tasks.contains_key(&tid) {
            self.meet(tid);
        }
        match status >> 16 {
            libc::PTRACE_EVENT_EXIT => {
                if self.exits(tid) {
                    resume(libc::PTRACE_CONT, tid, 0);
                }
            }
            libc::PTRACE_EVENT_EXEC => {
                self.tasks.retain(|_, task| task.process != tid);
                self.tasks.insert(tid, Task { process: tid, exiting: false });
                // What has come through is the new program's by inheritance.
                if let Some(old) = self.processes.insert(tid, process(tid)) {
                    self.course.seen.grew(&old.growth);
                }
                self.starters.executes(tid);
                if let Some(openers) = &mut self.openers {
                    openers.executes(tid);
                }
                resume(libc::PTRACE_CONT, tid, 0);
            }
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                if let Some(new) = made(tid) {
                    let thread = status >> 16 == libc::PTRACE_EVENT_CLONE;
                    if let Some(task) = self.tasks.get(&tid) {
                        self.starters.made(tid, task.process, new, thread);
                    }
                    if !self.tasks.contains_key(&new) {
                        self.awaited.insert(new);
                    }
                }
                resume(libc::PTRACE_CONT, tid, 0);
            }
            libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => {
                // Stopped by job control: it stays so until somebody continues it.
                resume(libc::PTRACE_LISTEN, tid, 0);
                if tid == self.course.child.pid {
                    child::stop_too(signal);
                }
            }
            0 => resume(libc::PTRACE_CONT, tid, signal),
            _ => resume(libc::PTRACE_CONT, tid, 0),
        }
    }

    /// A thread that is new: of a process that is known, or the first of another.
    fn meet(&mut self, tid: libc::pid_t) {
        self.awaited.remove(&tid);
        let of = proc::process_of(tid).unwrap_or(tid);
        self.tasks.insert(tid, Task { process: of, exiting: false });
        self.processes.entry(of).or_insert_with(|| process(tid));
    }

    /// A thread is about to end, and with the last one its process. Whether it is to go on.
    fn exits(&mut self, tid: libc::pid_t) -> bool {
        let Some(task) = self.tasks.get_mut(&tid) else { return true };
        task.exiting = true;
        let process = task.process;
        // Those that were made and have not stopped yet may be its.
        let others = !self.awaited.is_empty()
            || self.tasks.iter().any(|(other, t)| *other != tid && t.process == process);
        let mut all = false;
        if let Some(known) = self.processes.get_mut(&process)
            && (others || !known.cut.is_empty())
        {
            let call = proc::system_call(tid);
            // Else it may be that another thread waits for just this one to end.
            all = call != Some(libc::SYS_exit);
            match call {
                Some(libc::SYS_exit) => {
                    // The first one's number is that of the process, which goes on.
                    if tid != process {
                        self.starters.ended(tid);
                    }
                }
                Some(libc::SYS_exit_group) => known.itself = true,
                _ => known.cut.push((tid, proc::program(tid))),
            }
        }
        if self.end_if_last(process, tid) {
            return true;
        }
        let hold = tid == process && all;
        if let Some(known) = self.processes.get_mut(&process).filter(|_| hold) {
            known.held = true;
        }
        !hold
    }

    /// If no thread of a process goes on, it ends; `by` is one that is there still.
    fn end_if_last(&mut self, process: libc::pid_t, by: libc::pid_t) -> bool {
        if self.tasks.values().any(|task| task.process == process && !task.exiting) {
            return false;
        }
        // One that was made and has not stopped yet is known to the kernel alone.
        let all: Vec<libc::pid_t> = proc::numbers(&format!("/proc/{by}/task"));
        if all.iter().any(|other| !self.tasks.get(other).is_some_and(|task| task.exiting)) {
            return false;
        }
        let Some(known) = self.processes.remove(&process) else { return false };
        let seen = &mut self.course.seen;
        seen.grew(&known.growth);
        let program = proc::program(process);
        let cut = if known.itself { known.cut } else { Vec::new() };
        let (running, names): (Vec<_>, Vec<_>) = cut.into_iter().unzip();
        seen.ran(&program, &names);
        let lives = |new| self.processes.contains_key(&new);
        self.starters.ends(process, &program, &running, lives);
        match proc::own(by, &known.given) {
            Ok(mut own) => {
                if let Some(openers) = &mut self.openers {
                    openers.sight(process, &mut own, self.course.temporary);
                    openers.ask(process, &program, &mut own, true, |_, _| true);
                }
                seen.ended(&program, &own, self.course.temporary);
            }
            Err(_) => seen.denied += 1,
        }
        if let Some(openers) = &mut self.openers {
            openers.ends(process);
        }
        seen.processes += 1;
        if known.held {
            resume(libc::PTRACE_CONT, process, 0);
        }
        true
    }
}

impl<'a> Follow<'a> for Trace<'a> {
    fn course(&mut self) -> &mut Course<'a> {
        &mut self.course
    }

    fn drain(&mut self) -> io::Result<Drained> {
        for _ in 0..AT_ONCE {
            let mut status = 0;
            // Not the readers of symbol files, which are children of another thread.
            let flags = libc::WNOHANG | libc::__WALL | libc::__WNOTHREAD;
            // SAFETY: the pointer is to a living value.
            let tid = unsafe { libc::waitpid(-1, &raw mut status, flags) };
            match tid {
                0 if self.processes.is_empty() && self.awaited.is_empty() => {
                    return Ok(Drained::Nobody);
                }
                0 => return Ok(Drained::All),
                -1 if self.course.ended.is_some() => return Ok(Drained::Nobody),
                -1 => return Err(io::Error::last_os_error()),
                tid if libc::WIFSTOPPED(status) => self.stopped(tid, status),
                tid => self.gone(tid, status),
            }
        }
        Ok(Drained::Some)
    }

    fn look(&mut self) {
        for (pid, process) in &mut self.processes {
            // One that may not be read is counted at its end.
            if let Ok(mut own) = proc::own(*pid, &process.given) {
                let program = proc::program(*pid);
                self.course.seen.holds(&program, &own, self.course.temporary);
                process.growth.look(&counts(&program, &own));
                if let Some(openers) = &mut self.openers {
                    openers.sight(*pid, &mut own, self.course.temporary);
                    let risen = |cohort: &Cohort, _| process.growth.has_risen(cohort);
                    openers.ask(*pid, &program, &mut own, false, risen);
                }
            }
        }
    }
}

/// One that begins, or begins a program.
fn process(tid: libc::pid_t) -> Process {
    Process { given: proc::identities(tid).unwrap_or_default(), ..Process::default() }
}

/// The thread that a stopped one has just made; none if that was killed meanwhile.
fn made(by: libc::pid_t) -> Option<libc::pid_t> {
    let mut new: libc::c_ulong = 0;
    // SAFETY: the kernel writes one `unsigned long` there.
    let done = unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, by, 0_usize, &raw mut new) };
    libc::pid_t::try_from(new).ok().filter(|_| done == 0)
}

/// Lets a stopped thread go on. If it has been killed meanwhile there is nothing to let go.
fn resume(request: libc::c_uint, tid: libc::pid_t, signal: libc::c_int) {
    // SAFETY: no memory is involved.
    unsafe { libc::ptrace(request, tid, 0_usize, signal as usize) };
}
