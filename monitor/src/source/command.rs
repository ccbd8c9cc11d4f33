//! Probes over one command and all that it starts, for `leakwatch run`: who opened what
//! its processes hold, also of one that lives for a moment only.
//!
//! The agent's own programs, told of one process before its first instruction; its
//! children are known to them from the fork on. Of a process that is about to end, and
//! is stopped there, the births are still in the map and its memory is still mapped.

pub mod starts;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leakwatch_common::{BirthKey, ProcessEntry, process_flags};

use super::bpf::Bpf;
use super::frame::{Opener, OpenerKey};
use super::ladder::Ladder;
use super::model::{FdBirth, FdSample, ProcessId};
use super::symbols::Symbols;
use super::{sizes, stacks};
use crate::time::Boottime;

/// The command's, and nobody's else.
const SLOT: u16 = 1;
/// Numbers of one process whose births are forgotten, at most.
const NUMBERS: u32 = 1 << 20;
/// A stack waits so long for the thread that looks stacks up, before it is left out.
const ROOM: Duration = Duration::from_secs(2);
/// Between two looks at that thread.
const GLANCE: Duration = Duration::from_millis(5);

/// The probes, attached.
pub struct Probes {
    bpf: Bpf,
    symbols: Symbols,
    openers: HashMap<OpenerKey, Arc<Opener>>,
}

impl Probes {
    /// Attaches them; nothing is watched yet.
    ///
    /// # Errors
    /// In words, why this host or this user cannot have them.
    pub fn attach() -> Result<Self, String> {
        let sizes = sizes::of_environment().map_err(|e| e.to_string())?;
        let bpf = Ladder::births(&sizes)?;
        Ok(Self { bpf, symbols: Symbols::default(), openers: HashMap::new() })
    }

    /// Watches a process, and what it starts from now on.
    ///
    /// # Errors
    /// In words.
    pub fn watch(&mut self, pid: u32) -> Result<(), String> {
        let flags = process_flags::WATCH | process_flags::STACKS;
        let entry = ProcessEntry { slot: SLOT, flags, fd_end: 0 };
        self.bpf.processes.insert(pid, entry, 0).map_err(|e| format!("a BPF map: {e}"))?;
        self.bpf.new_word();
        Ok(())
    }

    /// Adds to descriptors of a process when and where they were opened.
    pub fn annotate(&self, pid: u32, held: &mut [FdSample]) {
        for sample in held {
            let birth = self.bpf.births.get(&BirthKey { tgid: pid, fd: sample.fd }, 0).ok();
            sample.birth = birth.filter(|b| b.at_ns > 0).map(|b| FdBirth {
                at: Boottime(b.at_ns),
                tid: b.tid,
                stack: u32::try_from(b.stack).ok(),
            });
        }
    }

    /// Has the stacks of some births looked up. The process must be alive, if only just.
    pub fn ask(&mut self, process: ProcessId, births: impl Iterator<Item = FdBirth>) {
        self.symbols.see(process, births);
        self.symbols.press([process].into());
        let begun = Instant::now();
        loop {
            let lost = self.symbols.lost();
            let bpf = &self.bpf;
            self.symbols.ask(|id| stacks::read(bpf, id));
            self.take();
            if self.symbols.lost() == lost || begun.elapsed() > ROOM {
                break;
            }
            std::thread::sleep(GLANCE);
        }
        self.symbols.see(process, std::iter::empty());
    }

    /// A process makes no more system calls, or has ended: what is known of it is
    /// forgotten. No probe does it, for the kernel's verifier takes a second over the one
    /// that the agent has for that.
    pub fn ends(&mut self, pid: u32) {
        let end = self.bpf.processes.get(&pid, 0).map_or(0, |entry| entry.fd_end);
        // What is not there, cannot be removed.
        let _ = self.bpf.processes.remove(&pid);
        for fd in 0..end.min(NUMBERS) {
            let _ = self.bpf.births.remove(&BirthKey { tgid: pid, fd });
        }
    }

    /// What was asked for, as far as it is known `patience` from now. Until then
    /// `meanwhile` is done again and again.
    pub fn openers(
        mut self,
        patience: Duration,
        meanwhile: impl FnMut(),
    ) -> HashMap<OpenerKey, Arc<Opener>> {
        // From here on nothing is opened that anybody asks for.
        self.bpf.detach_fds();
        let openers = rest(&mut self.symbols, patience, meanwhile);
        self.openers.extend(openers.into_iter().map(|o| (o.key(), o)));
        self.openers
    }

    fn take(&mut self) {
        self.openers.extend(self.symbols.take().into_iter().map(|o| (o.key(), o)));
    }
}

/// What the thread has been asked for and has not given yet, as far as it is known
/// `patience` from now. Until then `meanwhile` is done again and again.
fn rest(
    symbols: &mut Symbols,
    patience: Duration,
    mut meanwhile: impl FnMut(),
) -> Vec<Arc<Opener>> {
    let until = Instant::now() + patience;
    let mut openers = symbols.take();
    while symbols.waiting() > 0 && Instant::now() < until {
        meanwhile();
        std::thread::sleep(GLANCE);
        openers.extend(symbols.take());
    }
    openers
}
