//! Services that come and go: a cgroup with a process in it, each under a name of
//! its own, as transient units have.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use leakwatch_tests::program::Pace;
use leakwatch_tests::raw;

use crate::forks::{fork, reap};
use crate::{Tally, add};

/// Alive at a time.
const ALIVE: usize = 6;

struct Service {
    pid: libc::pid_t,
    dir: PathBuf,
}

/// Until it is over; those that live then stay.
pub fn run(tally: &Tally, rate: f64, dir: &str, prefix: &str) {
    let mut pace = Pace::new(Duration::from_secs_f64(1.0 / rate));
    let mut alive: VecDeque<Service> = VecDeque::new();
    for number in 0.. {
        if tally.over() {
            break;
        }
        alive.push_back(start(PathBuf::from(format!("{dir}/{prefix}-{number}.service")), number));
        add(&tally.forks, 1);
        if alive.len() > ALIVE
            && let Some(oldest) = alive.pop_front()
        {
            end(&oldest);
        }
        pace.beat();
    }
}

fn start(dir: PathBuf, number: u64) -> Service {
    fs::create_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let procs = CString::new(format!("{}/cgroup.procs", dir.display())).expect("no NUL in it");
    let pid = fork(|| {
        // SAFETY: a path that ends in NUL, one byte that is there.
        unsafe {
            let file = libc::open(procs.as_ptr(), libc::O_WRONLY);
            libc::write(file, c"0".as_ptr().cast(), 1);
            libc::close(file);
        }
        for _ in 0..3 + number % 5 {
            let _ = raw::open_null(0);
        }
        loop {
            // SAFETY: takes nothing, waits for a signal.
            unsafe { libc::pause() };
        }
    });
    Service { pid, dir }
}

fn end(service: &Service) {
    // SAFETY: takes no address; the child is not reaped yet.
    unsafe { libc::kill(service.pid, libc::SIGKILL) };
    reap(service.pid);
    // The group can be removed a moment after its last process is reaped; what is
    // left is removed by whoever made the group above.
    for _ in 0..100 {
        if fs::remove_dir(&service.dir).is_ok() {
            return;
        }
        std::thread::yield_now();
    }
}
