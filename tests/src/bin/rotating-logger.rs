//! A daemon with a log that is rotated every `--pace` ms, `--count` times.
//!
//! - `--mode hold`: it renames and removes its log, opens a new one, and keeps the
//!   old handle: disk space that `df` misses and `du` cannot find.
//! - `--mode until-hup`: it renames its log, opens a new one and keeps the old
//!   handle; at SIGHUP it closes all stale ones, and from then on does it right.
//! - `--mode reopen`: somebody else renames the log and sends SIGHUP (`logrotate`,
//!   here a child), upon which it reopens its log: innocent, and goes on for ever.
//!
//! It writes `--bytes` to the log before each rotation. `--log FILE`. With `--wait 1`
//! it opens its log and waits for the command `go`. Says `ready` after the last
//! rotation, and `clean` after SIGHUP.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use leakwatch_tests::program::{Control, Flags, Pace, say};

static HUP: AtomicBool = AtomicBool::new(false);

extern "C" fn on_hup(_: libc::c_int) {
    HUP.store(true, Ordering::SeqCst);
}

fn main() -> std::io::Result<()> {
    let handler: extern "C" fn(libc::c_int) = on_hup;
    // SAFETY: the handler does one atomic store, which is async-signal-safe.
    unsafe { libc::signal(libc::SIGHUP, handler as libc::sighandler_t) };
    let flags = Flags::of_this_process();
    let control = Control::listen();
    let log = PathBuf::from(flags.need("log"));
    let line = vec![b'.'; flags.get("bytes", 4096_usize)];
    let count = flags.get("count", 10_usize);
    let mode = flags.get("mode", "hold".to_owned());

    let mut current = open(&log)?;
    if flags.get("wait", 0_u8) == 1 {
        control.wait_for("go");
    }
    let mut pace = Pace::new(flags.millis("pace", 300));
    let mut stale: Vec<File> = Vec::new();
    let mut leaking = mode != "reopen";
    for i in 1.. {
        pace.beat();
        current.write_all(&line)?;
        if leaking && i <= count {
            rotate(&log, i, mode == "hold")?;
            stale.push(std::mem::replace(&mut current, open(&log)?));
        } else if !leaking && i % 2 == 0 {
            rotate(&log, i % 3, false)?;
            if mode == "reopen" {
                logrotate_asks_to_reopen();
            }
            HUP.store(false, Ordering::SeqCst);
            current = open(&log)?;
        }
        if i == count {
            say("ready");
        }
        if i >= count && mode == "hold" {
            // It writes on, yet must not fill the disk where there is no pace.
            std::thread::sleep(Duration::from_millis(20));
        }
        if mode == "until-hup" && leaking && HUP.swap(false, Ordering::SeqCst) {
            stale.clear();
            leaking = false;
            say("clean");
        }
    }
    Ok(())
}

fn open(log: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).open(log)
}

fn rotate(log: &Path, i: usize, remove: bool) -> std::io::Result<()> {
    let mut old = log.as_os_str().to_owned();
    old.push(format!(".{i}"));
    std::fs::rename(log, &old)?;
    if remove { std::fs::remove_file(old) } else { Ok(()) }
}

/// SIGHUP from another process, and the moment until it has arrived.
fn logrotate_asks_to_reopen() {
    let me = std::process::id().to_string();
    let sent = std::process::Command::new("/bin/kill").args(["-HUP", &me]).status();
    while sent.as_ref().is_ok_and(std::process::ExitStatus::success) && !HUP.load(Ordering::SeqCst)
    {
        std::thread::sleep(Duration::from_millis(1));
    }
}
