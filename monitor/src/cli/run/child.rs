//! The command: started with the streams, the terminal and the signals that
//! leakwatch was given, and held back until it is watched.
//!
//! It is in the process group of leakwatch, so what the terminal sends reaches it
//! from the kernel. What another process sends to leakwatch alone is passed on.

use std::ffi::{CString, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};

/// Passed on to the command, besides SIGCHLD, which wakes.
const PASSED: [libc::c_int; 11] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGWINCH,
    libc::SIGTSTP,
    libc::SIGCONT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    // As `timeout -s` and the watchdog of systemd send them.
    libc::SIGALRM,
    libc::SIGABRT,
];

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself, with this status.
    Exited(u8),
    /// By this signal.
    Killed(u8),
}

impl Ended {
    /// As a shell says it: 128 and the signal.
    pub(super) const fn status(self) -> u8 {
        match self {
            Self::Exited(status) => status,
            Self::Killed(signal) => signal.saturating_add(128),
        }
    }

    /// Ends by the signal of Ctrl-C, if the command did: a shell that gets a status of 130
    /// takes it for a program that has dealt with the key, and goes on with its loop.
    pub(super) fn follow(self) {
        if matches!(self, Self::Killed(signal) if i32::from(signal) == libc::SIGINT) {
            // SAFETY: no memory is involved.
            unsafe {
                libc::signal(libc::SIGINT, libc::SIG_DFL);
                libc::raise(libc::SIGINT);
            }
        }
    }

    /// Of a status of `waitpid(2)`; `None` while it lives.
    pub(super) fn of(status: libc::c_int) -> Option<Self> {
        let byte = |n: libc::c_int| u8::try_from(n).unwrap_or(u8::MAX);
        if libc::WIFEXITED(status) {
            Some(Self::Exited(byte(libc::WEXITSTATUS(status))))
        } else if libc::WIFSIGNALED(status) {
            Some(Self::Killed(byte(libc::WTERMSIG(status))))
        } else {
            None
        }
    }
}

/// A process that becomes the command when it is told to.
pub(super) struct Child {
    pub(super) pid: libc::pid_t,
    signals: libc::sigset_t,
    /// The mask that leakwatch was started with.
    mask: libc::sigset_t,
    go: OwnedFd,
    /// Says why the command could not be executed, if so.
    refusal: OwnedFd,
}

impl Child {
    /// Makes it.
    ///
    /// # Errors
    /// An argument has a zero byte in it, or there is no process to be had.
    pub(super) fn make(command: &[OsString]) -> io::Result<Self> {
        let arguments = command
            .iter()
            .map(|a| CString::new(a.as_bytes()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let pointers: Vec<_> = arguments.iter().map(|a| a.as_ptr()).chain([ptr::null()]).collect();
        let (wait, go) = pipe_with(PipeFlags::CLOEXEC)?;
        let (refusal, refuse) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&refusal, true)?;
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: both sets are this function's own and are filled before they are read;
        // the default action for SIGCHLD is no code of anybody's. Where SIGCHLD is
        // ignored, the kernel keeps no status to wait for.
        let (signals, before, on_child) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in PASSED.into_iter().chain([libc::SIGCHLD]) {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            let set = set.assume_init();
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, before.as_mut_ptr());
            (set, before.assume_init(), libc::signal(libc::SIGCHLD, libc::SIG_DFL))
        };
        // SAFETY: this process has one thread; the child makes system calls only, on
        // values that were made before, until it executes or ends.
        let pid = unsafe {
            let pid = libc::fork();
            if pid == 0 {
                become_command(
                    &pointers,
                    [wait.as_raw_fd(), go.as_raw_fd(), refuse.as_raw_fd()],
                    &before,
                    on_child,
                );
            }
            pid
        };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { pid, signals, mask: before, go, refusal })
    }

    /// Lets it become the command.
    pub(super) fn release(&self) {
        // If it has been killed meanwhile, that is its end.
        let _ = rustix::io::write(&self.go, &[0]);
    }

    /// Why it could not.
    pub(super) fn refused(&self) -> Option<io::Error> {
        let mut errno = [0; size_of::<libc::c_int>()];
        let read = rustix::io::read(&self.refusal, &mut errno).ok()?;
        let errno = libc::c_int::from_ne_bytes(errno);
        (read == size_of_val(&errno)).then(|| io::Error::from_raw_os_error(errno))
    }

    /// Waits at most so long for a signal, and passes it on if a process has sent it.
    /// What the kernel sends, as for a key, has reached the command already, unless that
    /// has left the process group. The command has not been waited for yet.
    pub(super) fn pass_on(&self, most: Duration) {
        if let Some((signal, sent)) = self.signal(most)
            && signal != libc::SIGCHLD
            && (sent || self.apart())
        {
            // SAFETY: it has not been waited for, so the number is still its own.
            unsafe { libc::kill(self.pid, signal) };
        }
    }

    /// It has a process group of its own, as timeout(1) and setsid(1) do.
    fn apart(&self) -> bool {
        // SAFETY: no memory is involved.
        unsafe { libc::getpgid(self.pid) != libc::getpgrp() }
    }

    /// Takes signals as leakwatch did before. Those that wait came while the command ran.
    pub(super) fn unblock(&self) {
        while self.signal(Duration::ZERO).is_some() {}
        // SAFETY: the pointer is to a living value.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.mask, ptr::null_mut()) };
    }

    /// Waits at most so long for a signal: the command has ended.
    pub(super) fn wake(&self, most: Duration) {
        self.signal(most);
    }

    /// The next signal, waited for at most so long, and whether a process has sent it.
    fn signal(&self, most: Duration) -> Option<(libc::c_int, bool)> {
        let most = libc::timespec {
            tv_sec: most.as_secs().cast_signed(),
            tv_nsec: most.subsec_nanos().into(),
        };
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: the pointers are to living values; zeroes are a valid siginfo_t.
        let (signal, info) = unsafe {
            let signal =
                libc::sigtimedwait(&raw const self.signals, info.as_mut_ptr(), &raw const most);
            (signal, info.assume_init())
        };
        // `SI_FROMUSER` of include/uapi/asm-generic/siginfo.h.
        (signal > 0).then_some((signal, info.si_code <= 0))
    }
}

/// Stops leakwatch, as the command was stopped, where that is a shell's job: the shell
/// shall see it, and it will continue both. Whoever stops the command alone, by SIGSTOP,
/// continues it alone.
pub(super) fn stop_too(signal: libc::c_int) {
    if [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal) {
        // SAFETY: no memory is involved.
        unsafe { libc::raise(libc::SIGSTOP) };
    }
}

/// Waits for the word, then executes; says why not, and ends.
///
/// # Safety
/// In a child of fork: the pointers end in null and live, the descriptors are open.
unsafe fn become_command(
    arguments: &[*const libc::c_char],
    [wait, go, refuse]: [libc::c_int; 3],
    mask: &libc::sigset_t,
    on_child: libc::sighandler_t,
) -> ! {
    // SAFETY: as the caller says; only calls that are safe after fork.
    unsafe {
        libc::close(go);
        let mut word = 0_u8;
        if libc::read(wait, (&raw mut word).cast(), 1) != 1 {
            // Leakwatch has gone, or does not want it.
            libc::_exit(127);
        }
        libc::signal(libc::SIGCHLD, on_child);
        // Rust ignores it; the command is not to inherit that.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::sigprocmask(libc::SIG_SETMASK, mask, ptr::null_mut());
        libc::execvp(arguments[0], arguments.as_ptr());
        let errno = *libc::__errno_location();
        libc::write(refuse, (&raw const errno).cast(), size_of_val(&errno));
        libc::_exit(127)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_as_a_shell_says_them() {
        for (raw, want) in [(0, Some(0)), (7 << 8, Some(7)), (9, Some(137)), (0x137f, None)] {
            assert_eq!(Ended::of(raw).map(Ended::status), want, "{raw}");
        }
    }
}
