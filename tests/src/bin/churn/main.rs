//! Churn: what wears an agent out over days, in minutes. Descriptors opened and
//! closed at a steady rate, storms of forks, and services (cgroups) that come and
//! go. Nothing of it leaks.
//!
//! It says `ready`, storms from the command `go` until the command `still`, and
//! then stands still with what it holds and says what it did:
//! `quiet OPENS EVENTFDS FORKS`, exactly.
//!
//! `--opens N`, `--forks N` and `--units N` are rates per second; `--cgroup DIR`
//! is where the services are made, none without it, and `--prefix P` how their
//! names begin.

mod forks;
mod opens;
mod units;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use leakwatch_tests::program::{Control, Flags, say};

/// What was done so far, and whether to go on.
#[derive(Default)]
struct Tally {
    opens: AtomicU64,
    eventfds: AtomicU64,
    forks: AtomicU64,
    over: AtomicBool,
}

impl Tally {
    fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Threads that open.
const OPENERS: u64 = 2;

fn main() {
    let flags = Flags::of_this_process();
    let control = Control::listen();
    let (opens, forks) = (flags.get("opens", 50_000_u64), flags.get("forks", 200_u64));
    let (units, dir) = (flags.get("units", 2.0_f64), flags.find::<String>("cgroup"));
    let prefix: String = flags.get("prefix", "churn-unit".to_owned());
    say("ready");
    control.wait_for("go");

    let tally = Arc::new(Tally::default());
    // Children die with the thread that made them, so no thread ends.
    let still = Arc::new(Barrier::new(OPENERS as usize + 3));
    let start = |work: Box<dyn FnOnce(&Tally) + Send>| {
        let (tally, still) = (Arc::clone(&tally), Arc::clone(&still));
        std::thread::spawn(move || {
            work(&tally);
            still.wait();
            loop {
                std::thread::park();
            }
        });
    };
    for _ in 0..OPENERS {
        start(Box::new(move |tally| opens::run(tally, opens / OPENERS)));
    }
    start(Box::new(move |tally| forks::run(tally, forks)));
    start(Box::new(move |tally| {
        if let Some(dir) = dir {
            units::run(tally, units, &dir, &prefix);
        }
    }));

    control.wait_for("still");
    tally.over.store(true, Ordering::Relaxed);
    still.wait();
    let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
    let (opens, eventfds) = (count(&tally.opens), count(&tally.eventfds));
    say(format_args!("quiet {opens} {eventfds} {}", count(&tally.forks)));
    control.idle();
}
