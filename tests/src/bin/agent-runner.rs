//! A worker that some manager starts. It lives on when the manager dies, until
//! its lifeline ends. `--stubborn 1`: it ignores SIGTERM, so only SIGKILL helps.

use leakwatch_tests::program::{Control, Flags, say};

fn main() {
    if Flags::of_this_process().get("stubborn", 0_u8) == 1 {
        // SAFETY: SIG_IGN is a valid disposition; no handler runs.
        unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    }
    let control = Control::listen();
    say(format_args!("worker {}", std::process::id()));
    control.idle()
}
