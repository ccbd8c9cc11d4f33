//! What the BPF programs write: the census, the process table and the task events.
//! They are ours, but an object of another version is not.

use std::collections::BTreeMap;
use std::io::{self, Read};

use leakwatch_common::{COMM_LEN, CensusHeader, ProcessRecord, ThreadRecord};

use crate::source::census::{Reader, Tables};
use crate::source::events::event;
use crate::source::model::{BootId, FdSample, TaskEvent};
use crate::source::roster;

/// `data` as a task record, and as what each of the iterators gives.
pub fn records(data: &[u8]) {
    if let Some(event) = event(data, BootId(1)) {
        let (TaskEvent::Fork { child: id, .. }
        | TaskEvent::Exec { id, .. }
        | TaskEvent::Exit { id, .. }) = &event;
        let _ = id.started();
        if let TaskEvent::Fork { comm, .. } | TaskEvent::Exec { comm, .. } = &event {
            assert!(comm.as_bytes().len() <= COMM_LEN && !comm.as_bytes().contains(&0));
        }
    }
    match roster::by_iterator(data) {
        Ok(all) => {
            assert!(all.len() <= data.len() / size_of::<ProcessRecord>(), "more than was given");
            assert!(all.iter().all(|e| e.comm.as_bytes().len() <= COMM_LEN));
            let threads: usize = all.iter().flat_map(|e| &e.thread_starts).map(Vec::len).sum();
            assert!(threads <= data.len() / size_of::<ThreadRecord>(), "more than was given");
        }
        // A process is four times as long as a thread.
        Err(e) => assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof),
    }
    let whole = read(data, usize::MAX);
    // How the kernel cuts its output into reads must not show.
    let pieces = read(data, 1 + data.first().map_or(0, |b| usize::from(*b)));
    match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => {
            assert_eq!(shape(&whole), shape(&pieces), "the reads' borders show");
            let held: usize = whole.values().map(|(_, fds)| fds.len()).sum();
            assert!(held <= data.len() / size_of::<CensusHeader>(), "more than was given");
            assert!(whole.values().all(|(_, fds)| !fds.is_empty()), "a process without any");
        }
        (Err(a), Err(b)) => assert_eq!(a.kind(), b.kind(), "the reads' borders show"),
        (a, b) => panic!("the reads' borders show: {:?}, {:?}", a.err(), b.err()),
    }
}

/// Two passes, as the reader keeps the paths of the one before; the second.
fn read(data: &[u8], at_most: usize) -> io::Result<Tables> {
    let mut reader = Reader::default();
    let first = reader.read(Pieces { rest: data, at_most });
    let second = reader.read(Pieces { rest: data, at_most });
    if let (Ok(a), Ok(b)) = (&first, &second) {
        // Names are not compared: nonsense may give one file two, and a record that
        // relies on one which was never sent has /proc asked.
        assert_eq!(shape(a), shape(b), "the same census again");
    }
    second
}

/// Who has which descriptors.
fn shape(tables: &Tables) -> BTreeMap<u32, (u64, Vec<u32>)> {
    let numbers = |fds: &[FdSample]| fds.iter().map(|fd| fd.fd).collect();
    tables.iter().map(|(tgid, (start, fds))| (*tgid, (*start, numbers(fds)))).collect()
}

/// Gives at most so much at once.
struct Pieces<'a> {
    rest: &'a [u8],
    at_most: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = into.len().min(self.at_most);
        self.rest.read(&mut into[..n])
    }
}
