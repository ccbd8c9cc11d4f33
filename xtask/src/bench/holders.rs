//! Starts processes that hold descriptors.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, getrlimit};

use super::optimised;

/// Descriptors that one process holds at most.
const PER_PROCESS: usize = 10_000;
/// What a process has open besides: standard streams and slack.
const SPARE: usize = 32;

/// Processes that hold descriptors; they end with this value.
pub struct Holders(Vec<Child>);

impl Holders {
    /// `fds` descriptors in as few processes as the limits allow.
    pub fn with(fds: usize) -> Result<Self> {
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let most = usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(SPARE);
        let each = PER_PROCESS.min(most);
        if each == 0 {
            bail!("the hard limit of open files ({hard}) leaves nothing to hold");
        }
        let mut left = fds;
        let mut sizes = Vec::new();
        while left > 0 {
            sizes.push(left.min(each));
            left -= left.min(each);
        }
        Self::start(sizes.into_iter().map(|fds| (fds, None)))
    }

    /// `count` processes of `fds` descriptors each.
    pub fn many(count: usize, fds: usize) -> Result<Self> {
        Self::start((0..count).map(|_| (fds, None)))
    }

    /// One process of `fds` descriptors per name.
    pub fn named(names: &[String], fds: usize) -> Result<Self> {
        Self::start(names.iter().map(|name| (fds, Some(name.as_str()))))
    }

    /// `processes` of `fds` descriptors each, copies of one that holds none: there may
    /// be thousands.
    pub fn crowd(processes: u32, fds: u32) -> Result<Self> {
        let mut command = Command::new(optimised());
        command.args(["crowd", "--processes", &processes.to_string(), "--fds", &fds.to_string()]);
        Self::run([command])
    }

    fn start<'a>(each: impl Iterator<Item = (usize, Option<&'a str>)>) -> Result<Self> {
        Self::run(each.map(|(fds, name)| {
            let mut command = Command::new(optimised());
            command.args(["hold", "--fds", &fds.to_string()]);
            if let Some(name) = name {
                command.args(["--name", name]);
            }
            command
        }))
    }

    fn run(commands: impl IntoIterator<Item = Command>) -> Result<Self> {
        let mut holders = Self(Vec::new());
        for mut command in commands {
            let child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot start a holder")?;
            holders.0.push(child);
        }
        for child in &mut holders.0 {
            let stdout = child.stdout.take().context("a holder has no stdout")?;
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line)?;
            if line.trim() != "held" {
                bail!("a holder could not open its descriptors: see above");
            }
        }
        Ok(holders)
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        // All of them see the end of stdin before the first is waited for.
        for child in &mut self.0 {
            drop(child.stdin.take());
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}
