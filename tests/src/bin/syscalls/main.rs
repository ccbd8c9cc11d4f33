//! One way in and one way out of the descriptor table, an exact number of times.
//!
//! `--in WAY --out WAY --count K`, `--dir D` for files. Says `ready`, and then
//! obeys: `acquire` does the first K times and says `acquired KIND N` (N
//! descriptors more than before), `release` lets all of them go and says
//! `released N`. What this kernel or these privileges refuse is `refused ERRNO`.
//!
//! Whatever a way needs beforehand it opens before `ready`. By `--out exec` it
//! executes itself with `--executed N` and says `released N` then.

mod acquire;
mod release;
mod ring;

use leakwatch_tests::program::{Control, Flags, say};

use acquire::Bench;

fn main() {
    let flags = Flags::of_this_process();
    let control = Control::listen();
    let executed = flags.get("executed", 0_usize);
    if executed > 0 {
        say(format_args!("released {executed}"));
        control.idle();
    }
    let count = flags.get("count", 100_usize);
    let way = flags.need("in");
    let (_, kind, run) = acquire::WAYS
        .iter()
        .find(|(name, ..)| *name == way)
        .unwrap_or_else(|| panic!("no way in is called {way}"));
    let out = flags.need("out");
    let bench = Bench::new(flags.need("dir"), way, out);
    say("ready");

    control.wait_for("acquire");
    let mut held = Vec::with_capacity(2 * count);
    for _ in 0..count {
        match run(&bench) {
            Ok(fds) => held.extend(fds),
            Err(errno) => {
                say(format_args!("refused {errno}"));
                control.idle();
            }
        }
    }
    say(format_args!("acquired {kind} {}", held.len()));

    control.wait_for("release");
    let n = held.len();
    match release::by(out, &bench.ring, &held) {
        Ok(()) => say(format_args!("released {n}")),
        Err(errno) => say(format_args!("refused {errno}")),
    }
    control.idle()
}
