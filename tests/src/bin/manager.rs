//! Starts `--workers N` processes `agent-runner`, the last of them stubborn, and
//! reaps those that end. Each worker says `worker PID` on the standard output
//! they share; the manager says `ready` when all have been started.
//!
//! It does not end its workers when it is killed: that is the leak.

use std::process::Command;

use leakwatch_tests::program::{Control, Flags, say, sibling};

fn main() -> std::io::Result<()> {
    let flags = Flags::of_this_process();
    let control = Control::listen();
    let count = flags.get("workers", 5_u32);
    let tag = flags.get("tag", "none".to_owned());
    for i in 1..=count {
        let mut worker = Command::new(sibling("agent-runner"))
            .args(["--id", &i.to_string(), "--of", &tag])
            .args(["--stubborn", if i == count { "1" } else { "0" }])
            .spawn()?;
        std::thread::spawn(move || worker.wait());
    }
    say("ready");
    control.idle()
}
