//! The storm: `--processes` x `--threads` that open, dup, dup2, pass, close, fork
//! and exec at full speed for `--seconds`, and then stand still with whatever they
//! hold, so that a ledger can be compared with /proc.
//!
//! Each process runs as `storm --index I …`, so that a match rule can make it a
//! unit of its own, and says `quiet I GUSTS PID`, with how much it did, when nothing
//! of it moves any more. A forked copy and an exec'ed `storm-sleeper-I` of each stay, standing still too.

mod weather;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use leakwatch_tests::program::{Control, Flags, say};
use leakwatch_tests::raw;

use weather::Weather;

fn main() -> std::io::Result<()> {
    let flags = Flags::of_this_process();
    let control = Control::listen();
    match flags.find("index") {
        None => start(&flags)?,
        Some(index) => rage(&flags, index),
    }
    control.idle()
}

/// Starts the processes, each with a socket to the next one.
fn start(flags: &Flags) -> std::io::Result<()> {
    let count = flags.get("processes", 4_usize);
    let kind = (libc::SOCK_DGRAM | libc::SOCK_NONBLOCK).into();
    let sockets: Vec<[raw::Fd; 2]> = (0..count)
        .map(|_| raw::pair(libc::SYS_socketpair, &[libc::AF_UNIX.into(), kind, 0], 3))
        .collect::<Result<_, _>>()
        .map_err(std::io::Error::from_raw_os_error)?;
    for index in 0..count {
        let (send, receive) = (sockets[(index + 1) % count][0], sockets[index][1]);
        let others: Vec<raw::Fd> =
            sockets.iter().flatten().copied().filter(|fd| *fd != send && *fd != receive).collect();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--index", &index.to_string()]);
        command.args(["--send", &send.to_string(), "--receive", &receive.to_string()]);
        for key in ["tag", "threads", "seconds", "seed"] {
            if let Some(value) = flags.find::<String>(key) {
                command.args([format!("--{key}"), value]);
            }
        }
        // SAFETY: close(2) alone is called between fork and exec.
        unsafe {
            command.pre_exec(move || {
                others.iter().copied().for_each(raw::close);
                Ok(())
            });
        }
        let mut child = command.spawn()?;
        std::thread::spawn(move || child.wait());
    }
    sockets.into_iter().flatten().for_each(raw::close);
    say("ready");
    Ok(())
}

/// One process of the storm.
fn rage(flags: &Flags, index: u64) {
    let threads = flags.get("threads", 8_usize);
    let end = Instant::now() + Duration::from_secs_f64(flags.get("seconds", 10.0));
    let seed = flags.get("seed", 1_u64);
    let (send, receive) = (flags.get("send", -1), flags.get("receive", -1));
    let calm = Arc::new(Barrier::new(threads + 1));
    let gusts = Arc::new(AtomicU64::new(0));
    for thread in 0..threads {
        let (calm, gusts) = (Arc::clone(&calm), Arc::clone(&gusts));
        std::thread::spawn(move || {
            let mut weather =
                Weather::new(seed * 1000 + index * 100 + thread as u64, send, receive);
            while Instant::now() < end {
                for _ in 0..64 {
                    weather.gust();
                }
                gusts.fetch_add(64, Ordering::Relaxed);
            }
            if thread == 0 {
                weather.leave_a_copy();
                weather.leave_a_sleeper(index);
            }
            calm.wait();
            // Its forked children die with this thread, so it must not end.
            loop {
                std::thread::park();
            }
        });
    }
    calm.wait();
    let gusts = gusts.load(Ordering::Relaxed);
    say(format_args!("quiet {index} {gusts} {}", std::process::id()));
}
