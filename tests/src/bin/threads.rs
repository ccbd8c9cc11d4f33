//! `--mode leak`: a thread per job that waits for an answer that never comes.
//! `--mode pool`: eight threads take the jobs in turn, and now and then a
//! helper thread is started and joined.
//!
//! `--count N` jobs, one every `--pace` ms, after the command `go`; says `ready`
//! after the last. The pool goes on with its work after that.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use leakwatch_tests::program::{Control, Flags, Pace, say};

const POOL: usize = 8;

fn main() {
    let flags = Flags::of_this_process();
    let control = Control::listen();
    let count = flags.get("count", 40_usize);
    // How many threads it has without a leak must be seen first.
    control.wait_for("go");
    let pace = Pace::new(flags.millis("pace", 150));
    if flags.get("mode", "leak".to_owned()) == "leak" {
        leak(count, pace);
        control.idle()
    } else {
        pool(count, pace)
    }
}

fn leak(count: usize, mut pace: Pace) {
    for _ in 0..count {
        pace.beat();
        // A detached thread: its handle is dropped, itself parks for ever.
        thread::spawn(|| {
            loop {
                thread::park();
            }
        });
    }
    say("ready");
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
