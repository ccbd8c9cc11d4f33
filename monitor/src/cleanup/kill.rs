//! `kill-orphans`: ends processes that outlived their service.
//!
//! Through pidfds only, so that no signal can reach a process that took over a
//! pid. SIGTERM, a grace for all of them together, SIGKILL for the rest, and
//! death is waited for, not assumed.

use std::time::{Duration, Instant};

use rustix::event::Timespec;

use super::tally::Tally;
use super::target::{Pinned, Spared, Target};
use crate::text;

/// Ends the targets. Those that are not provably themselves are left alone and
/// do not stop the others. Blocks for at most `grace` and `timeout`.
pub(super) fn kill(targets: Vec<Target>, grace: Duration, timeout: Duration) -> Tally {
    let mut tally = Tally::default();
    // All are held before the first is told: one's end may bring on another's,
    // and that is no reason to report the other as missing.
    let mut held = Vec::new();
    for target in targets {
        match Pinned::new(target) {
            Ok(pinned) => held.push(pinned),
            Err(spared) => tally.spared.push(spared),
        }
    }
    let told = strike(held, libc::SIGTERM, &mut tally);
    let (dead, alive) = await_death(told, grace);
    tally.done.extend(dead.iter().map(|p| (p.target.id, format!("ended {} by SIGTERM", p.target))));
    let struck = strike(alive, libc::SIGKILL, &mut tally);
    let (dead, alive) = await_death(struck, timeout);
    tally.done.extend(dead.iter().map(|p| (p.target.id, format!("ended {} by SIGKILL", p.target))));
    tally.spared.extend(
        alive.iter().map(|p| Spared::Survived(p.target.to_string(), text::duration(timeout))),
    );
    tally
}

/// Sends `signal` to all; gives those that have it or are dead already.
fn strike(held: Vec<Pinned>, signal: i32, tally: &mut Tally) -> Vec<Pinned> {
    let mut struck = Vec::new();
    for pinned in held {
        match pinned.send(signal) {
            Ok(()) | Err(Spared::Gone(_)) => struck.push(pinned),
            Err(spared) => tally.spared.push(spared),
        }
    }
    struck
}

/// Waits until all are dead, at most `timeout`; gives (dead, alive).
fn await_death(pinned: Vec<Pinned>, timeout: Duration) -> (Vec<Pinned>, Vec<Pinned>) {
    // A day is for ever here, and keeps any configured wait from overflowing.
    let deadline = Instant::now() + timeout.min(Duration::from_secs(86_400));
    let mut dead = Vec::new();
    let mut alive = pinned;
    loop {
        let (gone, rest): (Vec<_>, Vec<_>) = alive.into_iter().partition(Pinned::is_dead);
        dead.extend(gone);
        alive = rest;
        let left = deadline.saturating_duration_since(Instant::now());
        if alive.is_empty() || left.is_zero() {
            return (dead, alive);
        }
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds: Vec<_> = alive.iter().map(Pinned::poll_fd).collect();
        match rustix::event::poll(&mut fds, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // Out of memory, say. The look above still tells the truth; only the
            // waiting has to be done by the clock.
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
