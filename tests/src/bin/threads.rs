//! `--mode leak`: a thread per job that waits for an answer that never comes.
//! `--mode pool`: eight threads take the jobs in turn, and now and then a
//! helper thread is started and joined.
//! `--mode falling`: a load of sixty short jobs at a time, each in a thread of its own,
//! that falls by one with every job of `--count`; every other leaves a thread behind,
//! unless there is `--clean yes`. All the while there are fewer threads, not more.
//!
//! `--count N` jobs, one every `--pace` ms, after the command `go`; says `ready`
//! after the last. The pool goes on with its work after that.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use leakwatch_tests::program::{Control, Flags, Pace, say};

const POOL: usize = 8;
const LOAD: usize = 60;

fn main() {
    let flags = Flags::of_this_process();
    let control = Control::listen();
    let count = flags.get("count", 40_usize);
    // How many threads it has without a leak must be seen first.
    control.wait_for("go");
    let pace = Pace::new(flags.millis("pace", 150));
    match flags.get("mode", "leak".to_owned()).as_str() {
        "leak" => leak(count, pace),
        "falling" => falling(count, pace, flags.get("clean", "no".to_owned()) == "yes"),
        _ => pool(count, pace),
    }
    control.idle()
}

fn leak(count: usize, mut pace: Pace) {
    for _ in 0..count {
        pace.beat();
        // A detached thread: its handle is dropped, itself parks for ever.
        thread::spawn(park);
    }
    say("ready");
}

fn falling(count: usize, mut pace: Pace, clean: bool) {
    let load = Arc::new(AtomicUsize::new(LOAD));
    (0..LOAD).for_each(|lane| job(lane, Arc::clone(&load)));
    // The load alone, for as long as a verdict would need.
    (0..count).for_each(|_| pace.beat());
    for i in 0..count {
        pace.beat();
        load.fetch_sub(1, Ordering::Relaxed);
        if i % 2 == 0 && !clean {
            thread::spawn(park);
        }
    }
    say("ready");
}

/// A job of 50 ms; its thread starts that of the next.
fn job(lane: usize, load: Arc<AtomicUsize>) {
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        if lane < load.load(Ordering::Relaxed) {
            job(lane, load);
        }
    });
}

fn park() {
    loop {
        thread::park();
    }
}

fn pool(count: usize, mut pace: Pace) -> ! {
    let (jobs, queue): (Sender<Duration>, Receiver<Duration>) = channel();
    let queue = Arc::new(Mutex::new(queue));
    for i in 0.. {
        pace.beat();
        if i < POOL {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                loop {
                    let job = queue.lock().map(|q| q.recv());
                    let Ok(Ok(work)) = job else { return };
                    thread::sleep(work);
                }
            });
        }
        jobs.send(Duration::from_millis(20)).expect("the pool takes jobs");
        if i % 5 == 0 {
            thread::spawn(|| thread::sleep(Duration::from_millis(30))).join().expect("a helper");
        }
        if i + 1 == count {
            say("ready");
        }
    }
    unreachable!("the loop has no end")
}
