//! Processes and threads of known lifetime: `--count N` of each, at the command
//! `go`, which sleep for `--millis M`.
//!
//! Says `process LEAST MOST` or `thread LEAST MOST` for each once it is gone, the
//! bounds of its lifetime in nanoseconds: it cannot have lived for less than it
//! slept, nor for longer than from before it was made until it was seen to be gone.
//! Then `gone`, and waits for the next `go`.

use std::io;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use leakwatch_tests::program::{Control, Flags, say};

fn main() -> io::Result<()> {
    let flags = Flags::of_this_process();
    let control = Control::listen();
    let count = flags.get("count", 10_usize);
    let sleep = flags.millis("millis", 200);
    say("ready");
    loop {
        control.wait_for("go");
        // One after the other begun, all asleep at once.
        let mut children = Vec::new();
        for _ in 0..count {
            let begun = Instant::now();
            children.push((fork_asleep(sleep)?, begun));
        }
        let (gone, ends) = channel();
        for _ in 0..count {
            let (gone, begun) = (gone.clone(), Instant::now());
            thread::spawn(move || {
                thread::sleep(sleep);
                // SAFETY: takes no argument.
                let tid = unsafe { libc::gettid() };
                let _ = gone.send((tid, begun));
            });
        }
        drop(gone);
        for (pid, begun) in children {
            reap(pid)?;
            tell("process", sleep, begun);
        }
        for (tid, begun) in ends {
            while std::fs::exists(format!("/proc/self/task/{tid}"))? {
                thread::sleep(Duration::from_millis(1));
            }
            tell("thread", sleep, begun);
        }
        say("gone");
    }
}

fn tell(what: &str, least: Duration, begun: Instant) {
    say(format_args!("{what} {} {}", least.as_nanos(), begun.elapsed().as_nanos()));
}

/// A copy of this process that sleeps and ends: no program of its own, for an
/// execution would change nothing but how long it takes.
fn fork_asleep(sleep: Duration) -> io::Result<libc::pid_t> {
    let time = libc::timespec {
        tv_sec: sleep.as_secs() as libc::time_t,
        tv_nsec: sleep.subsec_nanos().into(),
    };
    // SAFETY: the child calls nothing but two system calls, which is all that a
    // copy of a process with several threads may.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: the time lives on this stack; then the copy ends without ado.
        unsafe {
            libc::nanosleep(&raw const time, std::ptr::null_mut());
            libc::_exit(0);
        }
    }
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) }
}

fn reap(pid: libc::pid_t) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: a child of ours, and `status` lives through the call.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
