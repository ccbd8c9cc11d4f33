//! Before whom the agent's threads get a processor.

use rustix::process::{getpriority_process, setpriority_process};

/// Nice value of the census and of the loop. With as good a claim as everybody, they wait
/// longest for a processor where most goes on: a census of 0.3 s took 11 s beside 32 busy
/// threads, and a turn of the loop five; what was done meanwhile had no unit. The budget
/// of the census bounds what the others lose.
const NICE: i32 = -10;

/// Puts this thread before others. Without CAP_SYS_NICE it stays as it is.
pub(super) fn come_first() {
    set(NICE);
}

/// The nice value of this thread.
pub(super) fn own() -> i32 {
    getpriority_process(None).unwrap_or(0)
}

/// Gives this thread a nice value.
pub(super) fn set(nice: i32) {
    // On Linux this is the calling thread alone (sched(7)).
    if let Err(e) = setpriority_process(None, nice) {
        tracing::debug!("this thread keeps its priority: {e}");
    }
}
