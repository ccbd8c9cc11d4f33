//! `--mode leak`: starts children and never waits for them: they stay zombies.
//! `--mode reap`: the same, and waits for each.
//!
//! `--count N` children, one every `--pace` ms; says `ready` after the last. The
//! reaping one goes on after that.

use std::process::{Child, Command, Stdio};

use leakwatch_tests::program::{Control, Flags, Pace, say};

fn main() -> std::io::Result<()> {
    let flags = Flags::of_this_process();
    let control = Control::listen();
    let leak = flags.get("mode", "leak".to_owned()) == "leak";
    let count = flags.get("count", 12_usize);
    let mut pace = Pace::new(flags.millis("pace", 200));

    let mut forgotten: Vec<Child> = Vec::new();
    for i in 1.. {
        pace.beat();
        let mut child = Command::new("/bin/true").stdin(Stdio::null()).spawn()?;
        if leak {
            forgotten.push(child);
        } else {
            child.wait()?;
        }
        if i == count {
            say("ready");
            if leak {
                break;
            }
        }
    }
    control.idle()
}
