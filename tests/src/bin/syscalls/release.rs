//! The ways out.

use std::ffi::c_long;
use std::os::unix::process::CommandExt;
use std::process::Command;

use leakwatch_tests::raw::{self, Answer, Fd};

use crate::ring::Ring;

/// Every way out.
pub const WAYS: &[&str] = &["close", "close_range", "dup2", "dup3", "io_uring-close", "exec"];

/// Lets all of `held` go by way `way`.
///
/// By dup2 and dup3 each is replaced by a copy of standard output, and these
/// copies go by close(2): one more acquisition and release each.
pub fn by(way: &str, ring: &Ring, held: &[Fd]) -> Answer<()> {
    match way {
        "close" => held.iter().copied().for_each(raw::close),
        "close_range" => {
            let mut sorted = held.to_vec();
            sorted.sort_unstable();
            for run in sorted.chunk_by(|a, b| a + 1 == *b) {
                raw::close_range(run[0], run[run.len() - 1])?;
            }
        }
        #[cfg(target_arch = "x86_64")]
        "dup2" => replace(libc::SYS_dup2, held)?,
        "dup3" => replace(libc::SYS_dup3, held)?,
        "io_uring-close" => held.iter().try_for_each(|fd| ring.close(*fd))?,
        "exec" => return Err(exec(held)),
        _ => panic!("no way out is called {way}; there are {WAYS:?}"),
    }
    Ok(())
}

fn replace(number: c_long, held: &[Fd]) -> Answer<()> {
    for fd in held {
        raw::plain(number, &[1, (*fd).into(), 0])?;
        raw::close(*fd);
    }
    Ok(())
}

/// Becomes itself anew, and all of `held` goes on the way; returns the errno only
/// where that fails.
fn exec(held: &[Fd]) -> i32 {
    for fd in held {
        let cloexec = [(*fd).into(), libc::F_SETFD.into(), libc::FD_CLOEXEC.into()];
        if let Err(errno) = raw::plain(libc::SYS_fcntl, &cloexec) {
            return errno;
        }
    }
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1)).arg("--executed").arg(held.len().to_string());
    command.exec().raw_os_error().unwrap_or(libc::EIO)
}
