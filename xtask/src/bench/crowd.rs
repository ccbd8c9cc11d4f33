//! A crowd of processes, each with files of its own open, until stdin of the first
//! closes, which happens at the latest when the bench dies.

use std::io::{self, Read};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::shell::say;

/// How large a crowd.
#[derive(Args, Debug)]
pub struct Options {
    /// How many processes
    #[arg(long)]
    processes: u32,
    /// How many files each opens
    #[arg(long)]
    fds: u32,
}

/// Starts them, says `held`, waits.
///
/// # Errors
/// When there is no room for them all.
pub fn run(options: &Options) -> Result<()> {
    let (mut done, tell) = io::pipe().context("cannot make a pipe")?;
    for made in 0..options.processes {
        // SAFETY: this process has one thread, and the child makes nothing but system
        // calls.
        match unsafe { libc::fork() } {
            0 => stay(&tell, options.fds),
            -1 => bail!("only {made} processes: {}", io::Error::last_os_error()),
            _ => {}
        }
    }
    drop(tell);
    let mut one = [0];
    for held in 0..options.processes {
        // The pipe ends when all have said so, or have ended.
        done.read_exact(&mut one).with_context(|| format!("only {held} could open files"))?;
    }
    say("held");
    let _ = io::stdin().lock().read_to_end(&mut Vec::new());
    Ok(())
}

/// What each of them does: it ends with the first, by the kernel's hand.
fn stay(tell: &io::PipeWriter, fds: u32) -> ! {
    use std::os::fd::AsRawFd;
    // SAFETY: plain system calls; the path and the byte outlive them.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        for _ in 0..fds {
            if libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) < 0 {
                libc::_exit(1);
            }
        }
        libc::write(tell.as_raw_fd(), c"x".as_ptr().cast(), 1);
        loop {
            libc::pause();
        }
    }
}
