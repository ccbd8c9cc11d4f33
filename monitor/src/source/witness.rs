//! Whether the kernel's programs and `/proc` speak of the same processes.
//!
//! The programs know a process by its number and its start on the host; `/proc` gives
//! both as the agent's pid and time namespaces have them. Where those differ, whatever
//! is joined by them is joined wrongly, and without a word: all descriptors would be
//! missing, and events of one process be counted for another. The agent is the one
//! process that it knows for certain, so it looks for itself.

use std::error::Error;
use std::fs;
use std::io;

use super::bpf::Bpf;
use super::census;
use super::processes::{Stat, parse_stat};

/// The programs are of no use to an agent that runs here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// They do not know its number.
    #[error(
        "the kernel's programs know no process {0}, which /proc says the agent is; they know \
         processes by their numbers on the host, so run the agent in the host's pid namespace"
    )]
    Number(u32),
    /// They know another start.
    #[error(
        "the kernel's programs say that the agent started {kernel} s after boot, /proc says {proc} s; \
         run the agent in the host's time namespace"
    )]
    Start {
        /// By the kernel, whole seconds.
        kernel: u64,
        /// By `/proc`, whole seconds.
        proc: u64,
    },
}

/// Looks for the agent in a pass of the census; that program must be loaded.
///
/// # Errors
/// It is not there as `/proc` has it ([`Stranger`]); or the kernel's.
pub fn check(bpf: &mut Bpf) -> Result<(), Box<dyn Error>> {
    let (pid, own) = own()?;
    let start = census::start_of(pid, bpf.census_pass()?);
    // It has sent paths that nobody kept.
    bpf.forget_paths();
    Ok(compare(pid, own.start_ticks, start?)?)
}

/// The agent's number and state as `/proc` has them, which need not be those of
/// getpid(2): `/proc` may be another pid namespace's.
fn own() -> io::Result<(u32, Stat)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "/proc/self is no process");
    let pid = fs::read_link("/proc/self")?;
    let pid = pid.to_str().and_then(|p| p.parse().ok()).ok_or_else(invalid)?;
    let stat = parse_stat(&fs::read("/proc/self/stat")?).ok_or_else(invalid)?;
    Ok((pid, stat))
}

/// `start` is by the kernel in ns, `ticks` by `/proc` in hundredths of a second.
fn compare(pid: u32, ticks: u64, start: Option<u64>) -> Result<(), Stranger> {
    match start {
        None => Err(Stranger::Number(pid)),
        Some(ns) if ns / 10_000_000 == ticks => Ok(()),
        Some(ns) => Err(Stranger::Start { kernel: ns / 1_000_000_000, proc: ticks / 100 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_number_with_the_same_start_is_the_agent() {
        assert_eq!(compare(7, 1234, Some(12_345_678_901)), Ok(()));
        assert_eq!(compare(7, 1234, None), Err(Stranger::Number(7)));
        let shifted = compare(7, 8_641_234, Some(12_345_678_901)).unwrap_err();
        assert_eq!(shifted, Stranger::Start { kernel: 12, proc: 86_412 });
        assert!(shifted.to_string().contains("time namespace"), "{shifted}");
    }
}
