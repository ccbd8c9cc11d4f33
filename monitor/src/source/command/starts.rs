//! Who started a thread or a process: the stack of the one that made it, copied while it
//! was stopped there, and unwound once it matters. It needs neither probes nor privileges.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{GLANCE, ROOM, rest};
use crate::source::frame::{Opener, OpenerKey};
use crate::source::model::ProcessId;
use crate::source::symbols::Symbols;
use crate::time::Boottime;

pub use crate::source::copies::Copy as StackCopy;

/// Stacks of one command that are unwound, at most.
const ALL: usize = 64;

/// What was asked for.
#[derive(Default)]
pub struct Starts {
    symbols: Symbols,
    /// By the number of what was started: by whom, and when.
    asked: HashMap<u32, (ProcessId, Boottime)>,
    openers: HashMap<OpenerKey, Arc<Opener>>,
    /// There was no room for so long that there is not going to be any.
    given_up: bool,
}

impl Starts {
    /// Has a stack unwound that something was started from, whose number `copy` has in
    /// place of a descriptor. The process that did it must be alive, if only just.
    ///
    /// False where it is not going to be known.
    pub fn ask(&mut self, by: ProcessId, copy: StackCopy) -> bool {
        if self.given_up || self.asked.len() >= ALL {
            return false;
        }
        let begun = Instant::now();
        while !self.symbols.has_room() {
            if begun.elapsed() > ROOM {
                self.given_up = true;
                return false;
            }
            std::thread::sleep(GLANCE);
            self.take();
        }
        let (new, at) = (copy.fd, copy.at);
        let sent = self.symbols.unwind(by, copy);
        if sent {
            self.asked.insert(new, (by, at));
        }
        sent
    }

    /// It was asked who started this one.
    pub fn has(&self, new: u32) -> bool {
        self.asked.contains_key(&new)
    }

    /// What was asked for, by the number of what was started, as far as it is known
    /// `patience` from now. Until then `meanwhile` is done again and again.
    pub fn openers(
        mut self,
        patience: Duration,
        meanwhile: impl FnMut(),
    ) -> HashMap<u32, Arc<Opener>> {
        let openers = rest(&mut self.symbols, patience, meanwhile);
        self.openers.extend(openers.into_iter().map(|o| (o.key(), o)));
        let of = |new: u32, (by, at): (ProcessId, Boottime)| {
            let number = self.symbols.unwound(by, new, at)?;
            self.openers.get(&(by, number)).cloned()
        };
        self.asked.iter().filter_map(|(new, by)| Some((*new, of(*new, *by)?))).collect()
    }

    fn take(&mut self) {
        self.openers.extend(self.symbols.take().into_iter().map(|o| (o.key(), o)));
    }
}
