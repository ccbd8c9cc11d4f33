//! Which stacks were unwound, and what was opened from them.

use std::collections::{HashMap, HashSet};

use super::worker::Unwound;
use crate::source::frame::Opener;
use crate::source::model::{FdTable, ProcessId, ProcessSample, UNWOUND};
use crate::time::Boottime;

/// Copies that wait for the thread, at most: a later one does as well.
pub const MAX_WAITING: usize = 16;
/// Of what frame pointers tell to be one stack, so many are unwound in the life of its
/// process.
const MAX_EACH: u32 = 16;
/// Stacks that are kept, at most, and openings. Then no more are taken.
const MAX_KEPT: usize = 4_096;

/// One opening: whose, which descriptor, when.
type Opening = (ProcessId, u32, Boottime);

/// How it goes with the copies of one stack by frame pointers.
#[derive(Clone, Copy, Debug, Default)]
struct Tries {
    made: u32,
    /// The frame pointers are as good.
    as_good: bool,
}

/// What is known of them.
#[derive(Default)]
pub struct Followed {
    tries: HashMap<(ProcessId, Option<u32>), Tries>,
    waiting: usize,
    numbers: HashMap<(ProcessId, Vec<u64>), u32>,
    stacks: HashMap<u32, (ProcessId, Vec<u64>)>,
    openings: HashMap<Opening, u32>,
    given: u32,
}

impl Followed {
    /// Another copy of this stack may tell something.
    pub fn wants(&mut self, process: ProcessId, stack: Option<u32>) -> bool {
        if self.waiting >= MAX_WAITING || self.openings.len() >= MAX_KEPT {
            return false;
        }
        let tries = self.tries.entry((process, stack)).or_default();
        if tries.as_good || tries.made >= MAX_EACH {
            return false;
        }
        tries.made += 1;
        true
    }

    /// Nothing is known yet.
    pub fn is_empty(&self) -> bool {
        self.tries.is_empty()
    }

    /// So many copies of this stack have been unwound.
    pub fn tries(&self, process: ProcessId, stack: Option<u32>) -> u32 {
        self.tries.get(&(process, stack)).map_or(0, |tries| tries.made)
    }

    /// It was sent to the thread.
    pub fn sent(&mut self) {
        self.waiting += 1;
    }

    /// So many are with the thread.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// The thread is given up.
    pub fn abandon(&mut self) {
        self.waiting = 0;
    }

    /// Takes what came of one; its opener where its stack is a new one.
    pub fn take(&mut self, result: Unwound) -> Option<Opener> {
        self.waiting = self.waiting.saturating_sub(1);
        let Unwound { process, fd, at, stack, found } = result;
        let Some((addresses, mut opener)) = found else {
            self.tries.entry((process, stack)).or_default().as_good = true;
            return None;
        };
        let key = (process, addresses);
        if let Some(known) = self.numbers.get(&key) {
            self.openings.insert((process, fd, at), *known);
            return None;
        }
        let number = UNWOUND.checked_add(self.given).filter(|n| *n < u32::MAX)?;
        self.given += 1;
        self.openings.insert((process, fd, at), number);
        self.stacks.insert(number, key.clone());
        self.numbers.insert(key, number);
        opener.stack = number;
        Some(opener)
    }

    /// Says it of the descriptors that were opened from them.
    pub fn refine(&self, processes: &mut [ProcessSample]) {
        if self.openings.is_empty() {
            return;
        }
        for p in processes {
            let FdTable::Full(fds) = &mut p.fds else { continue };
            for fd in fds {
                let Some(birth) = &mut fd.birth else { continue };
                let number = self.openings.get(&(p.id, fd.fd, birth.at));
                birth.stack = number.copied().or(birth.stack);
            }
        }
    }

    /// From which one this was opened.
    pub fn number(&self, process: ProcessId, fd: u32, at: Boottime) -> Option<u32> {
        self.openings.get(&(process, fd, at)).copied()
    }

    /// The addresses of one.
    pub fn addresses(&self, number: u32) -> Option<Vec<u64>> {
        self.stacks.get(&number).map(|(_, addresses)| addresses.clone())
    }

    /// Forgets those of processes that are not there any more.
    pub fn keep(&mut self, living: &HashSet<ProcessId>) {
        self.tries.retain(|(id, _), _| living.contains(id));
        self.openings.retain(|(id, ..), _| living.contains(id));
        self.numbers.retain(|(id, _), _| living.contains(id));
        self.stacks.retain(|_, (id, _)| living.contains(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::model::BootId;

    fn process(pid: u32) -> ProcessId {
        ProcessId { boot: BootId::default(), pid, start_ticks: 1 }
    }

    fn unwound(fd: u32, addresses: Option<&[u64]>) -> Unwound {
        let opener = Opener { process: process(1), stack: 0, frames: Vec::new(), note: None };
        let found = addresses.map(|a| (a.to_vec(), opener));
        Unwound { process: process(1), fd, at: Boottime(5), stack: Some(7), found }
    }

    #[test]
    fn equal_stacks_have_one_number_and_one_opener() {
        let mut followed = Followed::default();
        let first = followed.take(unwound(3, Some(&[1, 2]))).unwrap();
        assert_eq!(first.stack, UNWOUND);
        assert_eq!(followed.take(unwound(4, Some(&[1, 2]))), None, "it is known");
        let other = followed.take(unwound(5, Some(&[1, 3]))).unwrap();
        assert_eq!(other.stack, UNWOUND + 1);
        let numbers = [3, 4, 5].map(|fd| followed.openings[&(process(1), fd, Boottime(5))]);
        assert_eq!(numbers, [UNWOUND, UNWOUND, UNWOUND + 1]);
        assert_eq!(followed.addresses(UNWOUND + 1), Some(vec![1, 3]));
        followed.keep(&HashSet::new());
        assert!(followed.stacks.is_empty() && followed.numbers.is_empty());
        assert!(followed.openings.is_empty() && followed.tries.is_empty());
    }

    #[test]
    fn no_more_is_asked_for_than_may_tell_something() {
        let mut followed = Followed::default();
        let asked = (0..100).filter(|_| followed.wants(process(1), Some(7))).count();
        assert_eq!(asked, MAX_EACH as usize);
        assert!(followed.wants(process(1), Some(8)) && followed.wants(process(2), Some(7)));
        followed.take(Unwound { stack: Some(8), ..unwound(3, None) });
        assert!(!followed.wants(process(1), Some(8)), "frame pointers are as good there");
        (0..MAX_WAITING).for_each(|_| followed.sent());
        assert!(!followed.wants(process(3), Some(7)), "enough are waiting");
    }
}
