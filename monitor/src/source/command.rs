//! Probes over one command and all that it starts, for `leakwatch run`: who opened what
//! its processes hold, also of one that lives for a moment only.
//!
//! The agent's own programs, told of one process before its first instruction; its
//! children are known to them from the fork on. Of a process that is about to end, and
//! is stopped there, the births are still in the map and its memory is still mapped.

mod copied;
pub mod starts;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leakwatch_common::{BirthKey, ProcessEntry, process_flags};

use copied::Copied;

use super::bpf::Bpf;
use super::frame::{Opener, OpenerKey};
use super::ladder::Ladder;
use super::model::{FdBirth, FdSample, ProcessId};
use super::symbols::Symbols;
use super::{copies, sizes, stacks};
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
    copied: Copied,
}

/// What was looked up.
pub struct Looked {
    symbols: Symbols,
    openers: HashMap<OpenerKey, Arc<Opener>>,
}

impl Looked {
    /// Who opened from a stack.
    pub fn opener(&self, key: &OpenerKey) -> Option<&Opener> {
        self.openers.get(key).map(|opener| &**opener)
    }

    /// Who opened this one, where its stack was copied and could be unwound.
    pub fn unwound(&self, process: ProcessId, fd: u32, at: Boottime) -> Option<&Opener> {
        self.opener(&(process, self.symbols.unwound(process, fd, at)?))
    }
}

impl Probes {
    /// Attaches them; nothing is watched yet.
    ///
    /// # Errors
    /// In words, why this host or this user cannot have them.
    pub fn attach() -> Result<Self, String> {
        let sizes = sizes::of_environment().map_err(|e| e.to_string())?;
        let bpf = Ladder::births(&sizes)?;
        let symbols = Symbols::default();
        Ok(Self { bpf, symbols, openers: HashMap::new(), copied: Copied::default() })
    }

    /// Watches a process, and what it starts from now on.
    ///
    /// # Errors
    /// In words.
    pub fn watch(&mut self, pid: u32) -> Result<(), String> {
        let flags = process_flags::WATCH | process_flags::STACKS | process_flags::COPIES;
        let entry = ProcessEntry { slot: SLOT, flags, fd_end: 0 };
        self.bpf.processes.insert(pid, entry, 0).map_err(|e| format!("a BPF map: {e}"))?;
        self.bpf.new_word();
        Ok(())
    }

    /// Adds to descriptors of a process when and where they were opened.
    pub fn annotate(&mut self, pid: u32, held: &mut [FdSample]) {
        // Else there is no room for more.
        self.copied.take(copies::drain(&mut self.bpf));
        for sample in held {
            let birth = self.bpf.births.get(&BirthKey { tgid: pid, fd: sample.fd });
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

    /// Has the stacks of some descriptors unwound that were copied when they were opened,
    /// which most are not. The process must be alive, if only just. Those that are going
    /// to be known.
    pub fn unwind(
        &mut self,
        process: ProcessId,
        opened: impl Iterator<Item = (u32, Boottime)>,
    ) -> Vec<(u32, Boottime)> {
        let begun = Instant::now();
        let mut sent = Vec::new();
        for (fd, at) in opened {
            let Some(copy) = self.copied.of(process.pid, fd, at) else { continue };
            while !self.symbols.has_room() && begun.elapsed() <= ROOM {
                std::thread::sleep(GLANCE);
                self.take();
            }
            let bpf = &self.bpf;
            if self.symbols.follow_one(process, copy, |id| stacks::read(bpf, id)) {
                sent.push((fd, at));
            }
        }
        sent
    }

    /// A process is stopped where it executes another program: its memory is not what the
    /// copies are of, and stacks of the new one are copied, too.
    pub fn executes(&mut self, pid: u32) {
        self.copied.take(copies::drain(&mut self.bpf));
        self.copied.forget(pid);
        // A fork does not pass this on.
        if let Ok(mut entry) = self.bpf.processes.get(&pid, 0)
            && entry.flags & process_flags::COPIES == 0
        {
            entry.flags |= process_flags::COPIES;
            if self.bpf.processes.insert(pid, entry, 0).is_ok() {
                self.bpf.new_word();
            }
        }
    }

    /// A process makes no more system calls, or has ended: what is known of it is
    /// forgotten. No probe does it, for the kernel's verifier takes a second over the one
    /// that the agent has for that.
    pub fn ends(&mut self, pid: u32) {
        let end = self.bpf.processes.get(&pid, 0).map_or(0, |entry| entry.fd_end);
        self.copied.forget(pid);
        // What is not there, cannot be removed.
        let _ = self.bpf.processes.remove(&pid);
        for fd in 0..end.min(NUMBERS) {
            let key = BirthKey { tgid: pid, fd };
            if let Some(birth) = self.bpf.births.get(&key) {
                self.bpf.births.forget(&key, &birth);
            }
        }
    }

    /// What was asked for, as far as it is known `patience` from now. Until then
    /// `meanwhile` is done again and again.
    pub fn openers(mut self, patience: Duration, meanwhile: impl FnMut()) -> Looked {
        // From here on nothing is opened that anybody asks for.
        self.bpf.detach_fds();
        let openers = rest(&mut self.symbols, patience, meanwhile);
        self.openers.extend(openers.into_iter().map(|o| (o.key(), o)));
        Looked { symbols: self.symbols, openers: self.openers }
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
