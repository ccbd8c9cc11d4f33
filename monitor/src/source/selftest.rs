//! The self-test of the fd probes: a child opens, copies, passes and closes, and
//! the probes must have counted exactly that.
//!
//! That a function can be attached to does not mean that it runs: compilers make
//! copies of it or dissolve it into its callers. Only a try shows.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use leakwatch_common::{KernelKind, ProcessEntry, SELF_TEST_SLOT, process_flags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::bpf::Bpf;
use steps::STEPS;

mod steps;

/// A step takes microseconds; a host on its knees may need more.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Why the probes are not trusted.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// They saw something else than what was done.
    #[error(
        "self-test: {step}: the probes saw {got_opened} acquired and {got_closed} released, \
         not {opened} and {closed}"
    )]
    Wrong {
        /// What was done.
        step: &'static str,
        /// Acquisitions made.
        opened: u64,
        /// Releases made.
        closed: u64,
        /// Acquisitions seen.
        got_opened: u64,
        /// Releases seen.
        got_closed: u64,
    },
    /// They saw nothing at all.
    #[error(
        "self-test: the probes saw nothing of a child of the agent; they know processes by \
         their numbers on the host, so run the agent in the host's pid namespace"
    )]
    Blind,
    /// The child could not do it.
    #[error("self-test: {step}: the child was refused: {source}")]
    Child {
        /// What was to be done.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// There is no child.
    #[error("self-test: cannot start a child: {0}")]
    Start(#[source] io::Error),
    /// A map could not be used.
    #[error("self-test: a BPF map: {0}")]
    Map(#[from] aya::maps::MapError),
}

/// Tries the probes that are attached now. Takes a few milliseconds.
///
/// # Errors
/// See [`SelfTestError`]; then another set of probes is to be taken.
pub fn run(bpf: &mut Bpf) -> Result<(), SelfTestError> {
    let child = Child::start().map_err(SelfTestError::Start)?;
    let pid = child.pid.as_raw_nonzero().get().unsigned_abs();
    let entry = ProcessEntry { slot: SELF_TEST_SLOT, flags: process_flags::WATCH, fd_end: 0 };
    bpf.processes.insert(pid, entry, 0)?;
    bpf.new_word();
    let result = tried(bpf, &child);
    drop(child);
    // The exit probe has removed it, where that is attached.
    let _ = bpf.processes.remove(&pid);
    bpf.new_word();
    result
}

fn tried(bpf: &Bpf, child: &Child) -> Result<(), SelfTestError> {
    let mut any = false;
    for (number, step) in STEPS.iter().enumerate() {
        let (opened, closed) = counted(bpf)?;
        child
            .ask(number as u8)
            .map_err(|source| SelfTestError::Child { step: step.what, source })?;
        let (now_opened, now_closed) = counted(bpf)?;
        let (got_opened, got_closed) = (now_opened - opened, now_closed - closed);
        if (got_opened, got_closed) != (step.opened, step.closed) {
            if !any && got_opened == 0 && got_closed == 0 {
                return Err(SelfTestError::Blind);
            }
            let (what, opened, closed) = (step.what, step.opened, step.closed);
            return Err(SelfTestError::Wrong {
                step: what,
                opened,
                closed,
                got_opened,
                got_closed,
            });
        }
        any = true;
    }
    Ok(())
}

/// Acquired and released in the slot of the self-test.
fn counted(bpf: &Bpf) -> Result<(u64, u64), SelfTestError> {
    let mut sum = (0, 0);
    for kind in 0..KernelKind::Thread as u32 {
        let index = u32::from(SELF_TEST_SLOT) * KernelKind::COUNT + kind;
        for flow in bpf.flows.get(&index, 0)?.iter() {
            sum.0 += flow.opened;
            sum.1 += flow.closed;
        }
    }
    Ok(sum)
}

/// The child; ended when dropped.
struct Child {
    pid: Pid,
    orders: OwnedFd,
    answers: OwnedFd,
}

impl Child {
    fn start() -> io::Result<Self> {
        let (orders_in, orders) = pipe_with(PipeFlags::CLOEXEC)?;
        let (answers, answers_out) = pipe_with(PipeFlags::CLOEXEC)?;
        let (from, to): (RawFd, RawFd) = (orders_in.as_raw_fd(), answers_out.as_raw_fd());
        // SAFETY: the child of a process with several threads may only do what is
        // async-signal-safe: `obey` makes bare system calls, and never returns.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => steps::obey(from, to),
            // SAFETY: positive, as fork(2) says.
            pid => Ok(Self { pid: unsafe { Pid::from_raw_unchecked(pid) }, orders, answers }),
        }
    }

    /// Has it take a step. Once it has answered, the step is over.
    fn ask(&self, step: u8) -> io::Result<()> {
        rustix::io::write(&self.orders, &[step])?;
        let mut wait = [PollFd::new(&self.answers, PollFlags::IN)];
        loop {
            match poll(&mut wait, Some(&PATIENCE)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let mut errno = [0];
        match rustix::io::read(&self.answers, &mut errno)? {
            1 if errno[0] == 0 => Ok(()),
            1 => Err(io::Error::from_raw_os_error(i32::from(errno[0]))),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Not reaped yet, so the pid is its own.
        let _ = kill_process(self.pid, Signal::KILL);
        while matches!(waitpid(Some(self.pid), WaitOptions::empty()), Err(Errno::INTR)) {}
    }
}
