//! A process that holds descriptors until its stdin closes, which happens at the
//! latest when the bench dies.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use clap::Args;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::shell::say;

/// What to hold.
#[derive(Args, Debug)]
pub struct Options {
    /// How many descriptors
    #[arg(long)]
    fds: usize,
    /// A word for match rules to find in the command line
    #[arg(long)]
    name: Option<String>,
}

/// Opens, says `held`, waits.
///
/// # Errors
/// When a descriptor cannot be had.
pub fn run(options: &Options) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("cannot raise the soft limit of open files to the hard one")?;
    let mut held: Vec<OwnedFd> = Vec::with_capacity(options.fds);
    // Mostly files: a path is what costs a census time. Some of the rest, so that
    // a unit has series of several kinds.
    while held.len() < options.fds {
        match held.len() % 10 {
            7 if held.len() + 2 <= options.fds => {
                let (read, write) = io::pipe().context("cannot make a pipe")?;
                held.extend([OwnedFd::from(read), OwnedFd::from(write)]);
            }
            9 => held.push(File::open("/etc").context("cannot open /etc")?.into()),
            _ => held.push(
                rustix::fs::openat(
                    CWD,
                    c"/proc/self/exe",
                    OFlags::RDONLY | OFlags::CLOEXEC,
                    Mode::empty(),
                )
                .with_context(|| format!("cannot open descriptor number {}", held.len()))?,
            ),
        }
    }
    say("held");
    let _ = io::stdin().lock().read_to_end(&mut Vec::new());
    drop(held);
    Ok(())
}
