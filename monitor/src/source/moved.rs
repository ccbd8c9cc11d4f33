//! Which processes a census in part reads in detail: those whose descriptor numbers
//! are others than when they were last read, and those under suspicion.

use std::collections::{HashMap, HashSet};

use leakwatch_common::numbers_mixed;

use super::model::{FdSample, FdTable, ProcessId, ProcessSample};
use super::roster::Numbers;

impl Numbers {
    /// Those of a table, sorted by number.
    fn of(fds: &[FdSample]) -> Self {
        let words = fds.chunk_by(|a, b| a.fd / 64 == b.fd / 64);
        let hash = words.fold(0_u64, |hash, word| {
            let bits = word.iter().fold(0, |bits, f| bits | 1 << (f.fd % 64));
            let index = word.first().map_or(0, |f| f.fd / 64);
            hash.wrapping_add(numbers_mixed(bits, index))
        });
        Self { count: fds.len() as u32, hash }
    }
}

/// What was read last of each process.
#[derive(Default)]
pub(crate) struct Moved {
    read: HashMap<ProcessId, Numbers>,
    pressing: HashSet<ProcessId>,
}

impl Moved {
    /// These are read each time, whether their numbers move or not.
    pub fn press(&mut self, these: HashSet<ProcessId>) {
        self.pressing = these;
    }

    /// Marks the tables that need no reading; gives the pids of the others.
    pub fn choose(
        &self,
        processes: &mut [ProcessSample],
        numbers: &HashMap<ProcessId, Numbers>,
        changed: &HashSet<ProcessId>,
    ) -> Vec<u32> {
        let mut chosen = Vec::new();
        for p in processes.iter_mut().filter(|p| !p.zombie) {
            let now = numbers.get(&p.id);
            let wanted = self.pressing.contains(&p.id) || changed.contains(&p.id);
            match now.filter(|now| !wanted && self.read.get(&p.id) == Some(now)) {
                Some(now) => p.fds = FdTable::Same(now.count),
                None => chosen.push(p.id.pid),
            }
        }
        chosen
    }

    /// Takes note of what was read.
    pub fn note(&mut self, processes: &[ProcessSample]) {
        let mut read = HashMap::with_capacity(processes.len());
        for p in processes {
            match &p.fds {
                FdTable::Full(fds) => _ = read.insert(p.id, Numbers::of(fds)),
                FdTable::Same(_) => read.extend(self.read.get(&p.id).map(|n| (p.id, *n))),
                FdTable::Count(_) | FdTable::Denied => {}
            }
        }
        self.read = read;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::model::{BootId, FdKind, KernelStr};

    fn sample(pid: u32, fds: &[u32]) -> ProcessSample {
        let fd = |fd: &u32| FdSample {
            fd: *fd,
            file: 1,
            kind: FdKind::Other,
            device: 0,
            inode: 0,
            flags: 0,
            nlink: 1,
            position: 0,
            size: 0,
            disk_bytes: 0,
            path: KernelStr::from(""),
            socket: None,
            birth: None,
        };
        ProcessSample {
            id: ProcessId { boot: BootId(1), pid, start_ticks: 7 },
            ppid: 1,
            comm: KernelStr::from("x"),
            exe: None,
            exe_file: None,
            cmdline: KernelStr::from(""),
            uid: None,
            cgroup: KernelStr::from("/"),
            zombie: false,
            threads: 1,
            old_threads: None,
            max_fds: None,
            fds: FdTable::Full(fds.iter().map(fd).collect()),
        }
    }

    fn numbers(samples: &[ProcessSample]) -> HashMap<ProcessId, Numbers> {
        let of = |p: &ProcessSample| match &p.fds {
            FdTable::Full(fds) => (p.id, Numbers::of(fds)),
            _ => unreachable!(),
        };
        samples.iter().map(of).collect()
    }

    #[test]
    fn other_numbers_have_another_hash() {
        let sets: [&[u32]; 9] =
            [&[], &[0], &[1], &[63], &[64], &[127], &[0, 1], &[0, 64], &[63, 127]];
        let seen: HashSet<u64> = sets
            .iter()
            .map(|s| numbers(&[sample(1, s)]).into_values().next().unwrap().hash)
            .collect();
        assert_eq!(seen.len(), sets.len());
    }

    #[test]
    fn only_what_moved_is_read_again() {
        let seen = [sample(1, &[0, 1]), sample(2, &[0, 1, 70]), sample(3, &[0]), sample(4, &[0])];
        let mut moved = Moved::default();
        moved.note(&seen);
        let mut now = seen.to_vec();
        now[1] = sample(2, &[0, 1, 71]);
        now.push(sample(5, &[0]));
        let in_use = numbers(&now);
        moved.press(HashSet::from([seen[2].id]));
        let executed = HashSet::from([seen[3].id]);
        assert_eq!(moved.choose(&mut now, &in_use, &executed), [2, 3, 4, 5]);
        assert_eq!(now[0].fds, FdTable::Same(2));

        // What stayed the same is as well known as before.
        moved.note(&now);
        moved.press(HashSet::new());
        assert_eq!(moved.choose(&mut now, &in_use, &HashSet::new()), [0_u32; 0]);
        assert_eq!(now[1].fds, FdTable::Same(3));
        // Without numbers everything is read.
        assert_eq!(moved.choose(&mut now, &HashMap::new(), &HashSet::new()).len(), 5);
    }
}
