//! Puts a census into the shape that a trace has: in order, without addresses.

use crate::source::address::AddressMap;
use crate::source::model::{Depth, FdTable, Observation};

/// Numbers for the kernel's addresses of open files.
///
/// They say which descriptors are one open file, and nothing else is to leave the
/// machine: where the kernel keeps its memory is of use to whoever attacks it.
#[derive(Default)]
pub(super) struct Anonymous {
    numbers: AddressMap<(u64, bool)>,
    last: u64,
}

impl Anonymous {
    /// Sorts processes and descriptors, each once, and numbers the open files.
    pub fn shape(&mut self, seen: &mut Observation) {
        seen.processes.sort_by_key(|p| (p.id.pid, p.id.start_ticks));
        seen.processes.dedup_by_key(|p| (p.id.pid, p.id.start_ticks));
        for p in &mut seen.processes {
            let FdTable::Full(fds) = &mut p.fds else { continue };
            fds.sort_by_key(|f| f.fd);
            fds.dedup_by_key(|f| f.fd);
            for f in fds {
                let (number, used) = self.numbers.entry(f.file).or_insert_with(|| {
                    self.last += 1;
                    (self.last, true)
                });
                (f.file, *used) = (*number, true);
            }
        }
        // Of what was not read again the numbers still hold.
        if seen.depth == Depth::Whole {
            self.numbers.retain(|_, (_, used)| std::mem::take(used));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::unit::UnitKind;
    use crate::ledger::testing::World;

    fn files(seen: &Observation) -> Vec<u64> {
        let tables = seen.processes.iter().filter_map(|p| match &p.fds {
            FdTable::Full(fds) => Some(fds),
            _ => None,
        });
        tables.flatten().map(|f| f.file).collect()
    }

    #[test]
    fn files_keep_their_number_while_they_are_open_and_no_address_shows() {
        let mut w = World::new();
        let app = ("app.service", UnitKind::Service);
        let (p, q) = (w.spawn(app, 1, "/bin/a"), w.spawn(app, 1, "/bin/b"));
        let first = w.open(p, "/a");
        w.open(p, "/b");
        w.share(p, first, q);
        let mut anonymous = Anonymous::default();
        let mut look = |w: &mut World| {
            let (mut seen, _) = w.observe();
            anonymous.shape(&mut seen);
            files(&seen)
        };
        assert_eq!(look(&mut w), [1, 2, 1]);
        assert_eq!(look(&mut w), [1, 2, 1]);
        w.close(p, first);
        w.open(q, "/c");
        assert_eq!(look(&mut w), [2, 1, 3]);
        w.fds(q).clear();
        assert_eq!(look(&mut w), [2]);
        // The same address, and nobody can say that it is the same file.
        w.share(p, first + 1, q);
        assert_eq!(look(&mut w), [2, 2]);
    }

    #[test]
    fn what_is_out_of_order_is_put_in_order() {
        let mut w = World::new();
        let p = w.spawn(("app.service", UnitKind::Service), 1, "/bin/a");
        w.open(p, "/a");
        w.open(p, "/b");
        let (mut seen, _) = w.observe();
        let mut twice = seen.processes[0].clone();
        if let FdTable::Full(fds) = &mut twice.fds {
            fds.reverse();
            fds.push(fds[0].clone());
        }
        seen.processes.insert(0, twice);
        Anonymous::default().shape(&mut seen);
        assert_eq!((seen.processes.len(), files(&seen).len()), (1, 2));
    }
}
