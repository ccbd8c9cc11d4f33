//! `signal`: asks the processes that hold the handles to let go of them.

use super::tally::Tally;
use super::target::{Pinned, Target};

/// Sends `signal` to each target that is provably itself.
pub(super) fn send(targets: Vec<Target>, signal: i32) -> Tally {
    // Whoever got the signal may have let go of handles: the census decides.
    let mut tally = Tally { some_is_enough: true, ..Tally::default() };
    for target in targets {
        let sent = Pinned::new(target).and_then(|p| p.send(signal).map(|()| p));
        match sent {
            Ok(p) => {
                tally.done.push((p.target.id, format!("sent {} to {}", name(signal), p.target)));
            }
            Err(spared) => tally.spared.push(spared),
        }
    }
    tally
}

/// A signal's name as kill(1) has it.
pub(super) fn name(signal: i32) -> String {
    const NAMES: [(i32, &str); 14] = [
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGUSR2, "SIGUSR2"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGALRM, "SIGALRM"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGCONT, "SIGCONT"),
        (libc::SIGSTOP, "SIGSTOP"),
        (libc::SIGURG, "SIGURG"),
        (libc::SIGWINCH, "SIGWINCH"),
    ];
    match NAMES.iter().find(|(number, _)| *number == signal) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("signal {signal}"),
    }
}
