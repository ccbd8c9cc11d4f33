//! Opens `--file` again and again and closes it, all but every `--every`-th time.
//!
//! Beside that, up to 15 are open for half a second, and none in the next half, so that
//! the count swings. None is kept in the first two seconds, which are a start.
//!
//! - `--mode leak`: `--count` are forgotten, one after the other; then says `ready` and
//!   goes on without forgetting any.
//! - `--mode session`: those are closed after `--stay` ms; says `ready` when `--count`
//!   were.

use std::collections::VecDeque;
use std::fs::File;
use std::time::{Duration, Instant};

use leakwatch_tests::program::{Control, Flags, Pace, say};

/// Between two openings.
const PACE: Duration = Duration::from_millis(2);
/// Open at a time, every other half second.
const TIDE: usize = 15;
/// The start.
const START: Duration = Duration::from_secs(2);

fn main() -> std::io::Result<()> {
    let flags = Flags::of_this_process();
    let _control = Control::listen();
    let file = flags.need("file").to_owned();
    let (count, every) = (flags.get("count", 12_usize), flags.get("every", 500_usize));
    let leaks = flags.get("mode", "leak".to_owned()) == "leak";
    let stay = flags.millis("stay", 4_000);

    let mut kept: VecDeque<(Instant, File)> = VecDeque::new();
    let (mut tide, mut closed) = (Vec::new(), 0);
    let begun = Instant::now();
    let mut pace = Pace::new(PACE);
    for i in 1_usize.. {
        pace.beat();
        let opened = File::open(&file)?;
        let kept_now = i.is_multiple_of(every) && begun.elapsed() > START;
        if kept_now && !(leaks && kept.len() == count) {
            kept.push_back((Instant::now(), opened));
            if leaks && kept.len() == count {
                say("ready");
            }
        }
        while !leaks && kept.front().is_some_and(|(since, _)| since.elapsed() >= stay) {
            kept.pop_front();
            closed += 1;
            if closed == count {
                say("ready");
            }
        }
        if (begun.elapsed().as_millis() / 500).is_multiple_of(2) {
            tide.clear();
        } else if tide.len() < TIDE {
            tide.push(File::open(&file)?);
        }
    }
    Ok(())
}
