//! Pieces of stacks that the probes have copied, and which of them are worth unwinding.
//!
//! What leaks stays open. So a copy waits until its descriptor has been open at two
//! looks, which most of what a busy program opens never is, and is forgotten when it is
//! not there any more.

use std::collections::HashMap;

use leakwatch_common::{COPY_PAGE, COPY_PAGES, CopyHeader};

use super::bpf::Bpf;
use super::model::{FdTable, ProcessId, ProcessSample};
use super::offsets::Saved;
use crate::time::Boottime;

/// Copies that wait, at most; the oldest go first.
const MAX_WAITING: usize = 128;
/// Looks that may pass without a word of a descriptor, as where a census is in part.
const MAX_LOOKS: u32 = 8;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Thread-group id.
    pub pid: u32,
    /// What was opened.
    pub fd: u32,
    /// When.
    pub at: Boottime,
    /// The stack by frame pointers, where there was one.
    pub stack: Option<u32>,
    /// Registers by the numbers of DWARF, those that are known.
    pub registers: Vec<(u16, u64)>,
    /// Address of the first word.
    pub start: u64,
    /// What lies there.
    pub words: Vec<u64>,
}

#[cfg(test)]
impl Copy {
    /// One of which nothing could be read.
    pub(super) fn nothing(pid: u32, fd: u32, at: u64) -> Self {
        let at = Boottime(at);
        Self { pid, fd, at, stack: None, registers: vec![], start: 0, words: vec![] }
    }
}

/// Takes what is in the ring.
pub(super) fn drain(bpf: &mut Bpf) -> Vec<Copy> {
    let mut copies = Vec::new();
    while let Some(item) = bpf.copies.next() {
        copies.extend(decode(&item, &bpf.registers));
    }
    copies
}

/// What a record says; nothing where it is too short for it.
pub(crate) fn decode(item: &[u8], saved: &Saved) -> Option<Copy> {
    let (head, memory) = item.split_at_checked(size_of::<CopyHeader>())?;
    // SAFETY: as many bytes as the type has, which is plain data without
    // padding; read without regard to alignment.
    let header: CopyHeader = unsafe { std::ptr::read_unaligned(head.as_ptr().cast()) };
    let pages = (header.pages as usize).min(COPY_PAGES);
    let (memory, _) = memory.get(..pages * COPY_PAGE)?.as_chunks();
    let register = |(number, offset): &(u16, u32)| {
        let value = header.registers.get(*offset as usize / 8)?;
        Some((*number, *value))
    };
    Some(Copy {
        pid: header.tgid,
        fd: header.fd,
        at: Boottime(header.at_ns),
        stack: u32::try_from(header.stack).ok(),
        registers: saved.iter().filter_map(register).collect(),
        start: header.start,
        words: memory.iter().map(|word| u64::from_ne_bytes(*word)).collect(),
    })
}

struct Waiting {
    copy: Copy,
    /// Looks since it came.
    looks: u32,
    /// Its descriptor has been seen open.
    seen: bool,
}

/// Those that wait.
#[derive(Default)]
pub(super) struct Copies(Vec<Waiting>);

impl Copies {
    /// Takes in new ones.
    pub(super) fn take(&mut self, new: Vec<Copy>) {
        self.0.extend(new.into_iter().map(|copy| Waiting { copy, looks: 0, seen: false }));
        let over = self.0.len().saturating_sub(MAX_WAITING);
        self.0.drain(..over);
    }

    /// Those whose descriptors are still open, as another look has it, and whose they are.
    pub(super) fn held(&mut self, processes: &[ProcessSample]) -> Vec<(ProcessId, Copy)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let living: HashMap<u32, &ProcessSample> =
            processes.iter().map(|p| (p.id.pid, p)).collect();
        let mut held = Vec::new();
        for mut waiting in std::mem::take(&mut self.0) {
            waiting.looks += 1;
            let Copy { pid, fd, at, .. } = waiting.copy;
            let Some(process) = living.get(&pid) else { continue };
            let open = match &process.fds {
                FdTable::Full(fds) => {
                    let found = fds.binary_search_by_key(&fd, |f| f.fd).ok().map(|i| &fds[i]);
                    Some(found.and_then(|f| f.birth).is_some_and(|b| b.at == at))
                }
                _ => None,
            };
            match open {
                Some(true) if waiting.seen => held.push((process.id, waiting.copy)),
                Some(true) => self.0.push(Waiting { seen: true, ..waiting }),
                // It may have been opened while the census ran.
                Some(false) if waiting.looks == 1 => self.0.push(waiting),
                None if waiting.looks < MAX_LOOKS => self.0.push(waiting),
                Some(false) | None => {}
            }
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::unit::UnitKind;
    use crate::ledger::testing::World;
    use crate::source::model::FdBirth;

    #[test]
    fn a_copy_is_held_when_its_descriptor_was_open_at_two_looks() {
        let mut world = World::new();
        let pid = world.spawn(("a.service", UnitKind::Service), 1, "/a");
        let mut copies = Copies::default();
        let kept = world.open(pid, "/var/log/a.log");
        world.fd(pid, kept).birth = Some(FdBirth { at: Boottime(7), tid: 1, stack: None });
        copies.take(vec![
            Copy::nothing(pid, kept, 7),
            Copy::nothing(pid, kept, 6),
            Copy::nothing(pid + 1, kept, 7),
        ]);
        let look = |copies: &mut Copies, world: &mut World| {
            let (seen, _) = world.observe();
            copies.held(&seen.processes).into_iter().map(|(_, c)| c.at.0).collect::<Vec<_>>()
        };
        assert_eq!(look(&mut copies, &mut world), [] as [u64; 0], "seen once");
        assert_eq!(look(&mut copies, &mut world), [7], "and again");
        assert!(copies.0.is_empty(), "closed, of another one, or of nobody: {}", copies.0.len());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut copies = Copies::default();
        copies.take((0..1_000).map(|at| Copy::nothing(1, 1, at)).collect());
        assert_eq!(copies.0.len(), MAX_WAITING);
        assert_eq!(copies.0[MAX_WAITING - 1].copy.at.0, 999);
    }

    #[test]
    fn a_record_is_decoded_and_a_short_one_is_none() {
        let mut header = CopyHeader {
            at_ns: 5,
            start: 0x7ffc_0000,
            tgid: 3,
            fd: 4,
            stack: -1,
            pages: 1,
            registers: [0; leakwatch_common::COPY_REGISTERS],
        };
        header.registers[16] = 0x40_1000;
        // SAFETY: plain data without padding.
        let head: [u8; size_of::<CopyHeader>()] = unsafe { std::mem::transmute(header) };
        let mut item = head.to_vec();
        item.extend([1_u8; COPY_PAGE]);
        let got = decode(&item, &vec![(16, 128), (7, 8_000)]).unwrap();
        assert_eq!((got.pid, got.fd, got.at, got.stack), (3, 4, Boottime(5), None));
        assert_eq!(got.registers, [(16, 0x40_1000)]);
        assert_eq!(got.words, vec![0x0101_0101_0101_0101; COPY_PAGE / 8]);
        item.pop();
        assert_eq!(decode(&item, &vec![]), None);
        assert_eq!(decode(&item[..40], &vec![]), None);
    }
}
