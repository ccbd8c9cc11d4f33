//! The processes of the command, stopped for a moment where they begin, execute and
//! end (ptrace(2), which needs no privilege over one's own children).
//!
//! At `PTRACE_EVENT_EXIT` a thread has not yet let go of its descriptors
//! (`kernel/exit.c: do_exit`), so those that the last thread of a process has then
//! are those that were open at its end: none is missed, however short it lived.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use super::child::{self, Child, Ended};
use super::growth::Growth;
use super::pace::Pace;
use super::proc::{self, Identity};
use super::seen::{Left, Seen, counts};
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
}

/// The command and all that it has started.
pub(super) struct Trace<'a> {
    child: &'a Child,
    temporary: &'a Temporary,
    tasks: HashMap<libc::pid_t, Task>,
    processes: HashMap<libc::pid_t, Process>,
    /// Threads that were made and have not stopped yet for the first time.
    awaited: HashSet<libc::pid_t>,
    seen: Seen,
    pace: Pace,
    ended: Option<Ended>,
}

impl<'a> Trace<'a> {
    /// From before the first instruction of the command, which is not released yet.
    ///
    /// # Errors
    /// The kernel, or what confines this process, does not allow to trace.
    pub(super) fn begin(child: &'a Child, temporary: &'a Temporary) -> io::Result<Self> {
        // SAFETY: no memory is involved.
        let done = unsafe { libc::ptrace(libc::PTRACE_SEIZE, child.pid, 0_usize, OPTIONS) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut trace = Self {
            child,
            temporary,
            tasks: HashMap::new(),
            processes: HashMap::new(),
            awaited: HashSet::new(),
            seen: Seen::default(),
            pace: Pace::new(),
            ended: None,
        };
        trace.meet(child.pid);
        Ok(trace)
    }

    /// Until the command has ended.
    ///
    /// # Errors
    /// The kernel has no such child any more, which cannot be.
    pub(super) fn follow(&mut self) -> io::Result<Ended> {
        loop {
            self.drain()?;
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
        // An error says that there is nobody.
        while self.drain().is_ok() && !(self.processes.is_empty() && self.awaited.is_empty()) {
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                break;
            }
            self.child.wake(rest);
        }
        let mut left = Vec::new();
        for (pid, process) in &self.processes {
            self.seen.grew(&process.growth);
            left.push(Left { pid: pid.cast_unsigned(), program: proc::program(*pid) });
        }
        left.sort_unstable_by_key(|l| l.pid);
        (self.seen, left)
    }

    /// What the processes hold while they run.
    fn look(&mut self) {
        for (pid, process) in &mut self.processes {
            // One that may not be read is counted at its end.
            if let Ok(own) = proc::own(*pid, &process.given) {
                let program = proc::program(*pid);
                self.seen.holds(&program, &own, self.temporary);
                process.growth.look(&counts(&program, &own));
            }
        }
        self.pace.done();
    }

    /// Takes all that has stopped or ended.
    fn drain(&mut self) -> io::Result<()> {
        loop {
            let mut status = 0;
            // SAFETY: the pointer is to a living value.
            let tid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
            match tid {
                0 => return Ok(()),
                -1 if self.ended.is_some() && self.processes.is_empty() => return Ok(()),
                -1 => return Err(io::Error::last_os_error()),
                tid if libc::WIFSTOPPED(status) => self.stopped(tid, status),
                tid => self.gone(tid, status),
            }
        }
    }

    fn gone(&mut self, tid: libc::pid_t, status: libc::c_int) {
        self.awaited.remove(&tid);
        if let Some(task) = self.tasks.remove(&tid)
            && task.process == tid
            && self.processes.remove(&tid).is_some()
        {
            // Killed where it could not stop once more.
            self.seen.processes += 1;
            self.seen.missed += 1;
        }
        if tid == self.child.pid {
            self.ended = Ended::of(status).or(self.ended);
        }
    }

    fn stopped(&mut self, tid: libc::pid_t, status: libc::c_int) {
        let signal = libc::WSTOPSIG(status);
        if !self.tasks.contains_key(&tid) {
            self.meet(tid);
        }
        match status >> 16 {
            libc::PTRACE_EVENT_EXIT => {
                self.exits(tid);
                resume(libc::PTRACE_CONT, tid, 0);
            }
            libc::PTRACE_EVENT_EXEC => {
                self.tasks.retain(|_, task| task.process != tid);
                self.tasks.insert(tid, Task { process: tid, exiting: false });
                // What has come through is the new program's by inheritance.
                if let Some(old) = self.processes.insert(tid, process(tid)) {
                    self.seen.grew(&old.growth);
                }
                resume(libc::PTRACE_CONT, tid, 0);
            }
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                self.awaited
                    .extend(made(tid).into_iter().filter(|new| !self.tasks.contains_key(new)));
                resume(libc::PTRACE_CONT, tid, 0);
            }
            libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => {
                // Stopped by job control: it stays so until somebody continues it.
                resume(libc::PTRACE_LISTEN, tid, 0);
                if tid == self.child.pid {
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

    /// A thread is about to end, and with the last one its process.
    fn exits(&mut self, tid: libc::pid_t) {
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        task.exiting = true;
        let process = task.process;
        if self.tasks.values().any(|task| task.process == process && !task.exiting) {
            return;
        }
        // One that was made and has not stopped yet is known to the kernel alone.
        let all: Vec<libc::pid_t> = proc::numbers(&format!("/proc/{tid}/task"));
        if all.iter().any(|other| !self.tasks.get(other).is_some_and(|task| task.exiting)) {
            return;
        }
        let Some(Process { given, growth }) = self.processes.remove(&process) else { return };
        self.seen.grew(&growth);
        match proc::own(tid, &given) {
            Ok(own) => self.seen.ended(&proc::program(process), &own, self.temporary),
            Err(_) => self.seen.denied += 1,
        }
        self.seen.processes += 1;
    }
}

/// One that begins, or begins a program.
fn process(tid: libc::pid_t) -> Process {
    Process { given: proc::identities(tid).unwrap_or_default(), growth: Growth::default() }
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
