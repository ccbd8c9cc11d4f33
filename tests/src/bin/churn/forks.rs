//! Storms of forks.

use std::time::Duration;

use leakwatch_tests::program::Pace;
use leakwatch_tests::raw;

use crate::{Tally, add};

/// Storms per second.
const STORMS: u64 = 4;

/// Until it is over.
pub fn run(tally: &Tally, rate: u64) {
    let mut pace = Pace::new(Duration::from_secs(1) / STORMS as u32);
    while !tally.over() {
        // All at once, half of them with another program.
        let children: Vec<libc::pid_t> = (0..(rate / STORMS).max(1))
            .map(|i| {
                fork(|| {
                    if i % 2 == 0 {
                        execute();
                    }
                })
            })
            .collect();
        add(&tally.forks, children.len() as u64);
        children.into_iter().for_each(reap);
        pace.beat();
    }
}

/// Forks; the child runs `body`, which may only make system calls (other threads
/// may have held any lock), and then ends. It dies with this thread.
pub fn fork(body: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child makes system calls only, then _exit.
    let pid = unsafe {
        let pid = libc::fork();
        if pid == 0 {
            raw::die_with_parent();
            body();
            libc::_exit(0);
        }
        pid
    };
    assert!(pid > 0, "fork: errno {}", raw::errno());
    pid
}

/// Waits for the end of a child.
pub fn reap(child: libc::pid_t) {
    // SAFETY: a null status is allowed.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}

/// Becomes true(1).
fn execute() {
    let arguments = [c"true".as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null()];
    // SAFETY: both arrays end in null and live until the call.
    unsafe { libc::execve(c"/bin/true".as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
}
