//! The workloads: loops of a few system calls, timed from inside.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::stats::Sample;
use crate::shell::say;

/// One measurement.
#[derive(Args, Debug)]
pub struct Options {
    /// The loop
    workload: Workload,
    /// How long
    #[arg(long, required_unless_present = "batches")]
    millis: Option<u64>,
    /// How many batches instead, where instructions are counted and not time
    #[arg(long, conflicts_with = "millis")]
    batches: Option<usize>,
    /// Which CPU to stay on
    #[arg(long)]
    cpu: usize,
}

/// A loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Open and close /dev/null
    OpenClose,
    /// Duplicate a descriptor and close the copy
    DupClose,
    /// A system call that leakwatch has no interest in
    Getppid,
    /// Fork, exit, wait
    ForkExit,
}

impl Workload {
    /// All, in the order of the page.
    pub const ALL: [Self; 4] = [Self::OpenClose, Self::DupClose, Self::Getppid, Self::ForkExit];

    /// The name on the command line.
    pub fn as_arg(self) -> &'static str {
        match self {
            Self::OpenClose => "open-close",
            Self::DupClose => "dup-close",
            Self::Getppid => "getppid",
            Self::ForkExit => "fork-exit",
        }
    }

    /// The name on the page.
    pub fn title(self) -> &'static str {
        match self {
            Self::OpenClose => "open + close of /dev/null",
            Self::DupClose => "dup + close",
            Self::Getppid => "getppid",
            Self::ForkExit => "fork + exit",
        }
    }

    /// Turns between two looks at the clock: rare enough to cost nothing, often
    /// enough to stop in time under strace, which slows a call a hundredfold.
    fn batch(self) -> u32 {
        if self == Self::ForkExit { 1 } else { 256 }
    }
}

/// Runs one measurement and prints nanoseconds per turn.
///
/// # Errors
/// When a system call fails.
pub fn run(options: &Options) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(options.cpu);
    sched_setaffinity(None, &cpus)
        .with_context(|| format!("cannot stay on CPU {}", options.cpu))?;
    let workload = options.workload;
    let length = match options.batches {
        Some(batches) => Length::Batches(batches),
        None => Length::Time(Duration::from_millis(options.millis.unwrap_or_default())),
    };
    // Caches, branch predictors and the probes' maps get warm first.
    turns(workload, length.tenth())?;
    say(&format!("{:.2}", turns(workload, length)?));
    Ok(())
}

/// When a measurement ends.
#[derive(Clone, Copy)]
enum Length {
    Time(Duration),
    Batches(usize),
}

impl Length {
    fn tenth(self) -> Self {
        match self {
            Self::Time(time) => Self::Time(time / 10),
            Self::Batches(batches) => Self::Batches(batches / 10),
        }
    }

    fn reached(self, elapsed: Duration, batches: usize) -> bool {
        batches > 0
            && match self {
                Self::Time(time) => elapsed >= time,
                Self::Batches(wanted) => batches >= wanted,
            }
    }
}

/// Nanoseconds per turn: in the middle of all batches. A batch that lost its CPU to
/// somebody else is an outlier, not a share of every turn.
fn turns(workload: Workload, length: Length) -> Result<f64> {
    let null = open_null()?;
    let turns = workload.batch();
    let mut batches = Vec::new();
    let started = Instant::now();
    while !length.reached(started.elapsed(), batches.len()) {
        let batch = Instant::now();
        for _ in 0..turns {
            match workload {
                Workload::OpenClose => drop(black_box(open_null()?)),
                Workload::DupClose => drop(black_box(rustix::io::dup(&null)?)),
                Workload::Getppid => {
                    black_box(rustix::process::getppid());
                }
                Workload::ForkExit => fork_exit()?,
            }
        }
        batches.push(batch.elapsed().as_secs_f64() * 1e9 / f64::from(turns));
    }
    let sample = Sample::new(batches);
    Ok(match length {
        Length::Time(_) => sample.median(),
        // Where the clock counts instructions nothing makes a batch shorter: what is
        // longer had an interrupt, or another process on its only processor.
        Length::Batches(_) => sample.quantile(0.25),
    })
}

fn open_null() -> Result<std::os::fd::OwnedFd> {
    rustix::fs::openat(CWD, c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context("cannot open /dev/null")
}

fn fork_exit() -> Result<()> {
    // SAFETY: this process has one thread, and the child calls nothing but _exit,
    // which is async-signal-safe.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: ends the child at once; nothing is flushed or dropped twice.
        unsafe { libc::_exit(0) };
    }
    if pid < 0 {
        bail!("cannot fork: {}", std::io::Error::last_os_error());
    }
    let mut status = 0;
    // SAFETY: `pid` is a child of ours that nobody else waits for, and `status`
    // lives through the call.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {
        bail!("cannot wait for {pid}: {}", std::io::Error::last_os_error());
    }
    Ok(())
}
