//! Who runs now: from the kernel's own list, or from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use leakwatch_common::{FDS_UNCOUNTED, ProcessRecord, ThreadRecord};

use super::model::KernelStr;
use super::processes::parse_stat;
use crate::time::Boottime;

/// `PF_KTHREAD` of `include/linux/sched.h`.
const PF_KTHREAD: u64 = 0x0020_0000;
/// `EXIT_DEAD` and `EXIT_ZOMBIE` of `include/linux/sched.h`.
const EXITED: u32 = 0x10 | 0x20;

/// A process that is no kernel thread, as far as it changes from one look to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its number.
    pub pid: u32,
    /// When it started, in ticks of 10 ms since boot.
    pub start_ticks: u64,
    /// Its parent's number.
    pub ppid: u32,
    /// Its name.
    pub comm: KernelStr,
    /// It has ended and nobody has reaped it.
    pub zombie: bool,
    /// Its threads.
    pub threads: u32,
    /// When each that lives was started, where the kernel has listed them.
    pub thread_starts: Option<Vec<Boottime>>,
    /// Its descriptors, where they were counted.
    pub numbers: Option<Numbers>,
}

/// Which descriptor numbers are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// How many.
    pub count: u32,
    /// Another hash: others.
    pub hash: u64,
}

/// Reads one pass of the iterator.
///
/// # Errors
/// The kernel's; `UnexpectedEof` where the last record is cut.
pub(crate) fn by_iterator(mut pass: impl Read) -> io::Result<Vec<Entry>> {
    let mut bytes = Vec::new();
    pass.read_to_end(&mut bytes)?;
    let mut threads: HashMap<u32, Vec<Boottime>> = HashMap::new();
    let mut processes = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let thread: ThreadRecord = plain(rest)?;
        let living = if thread.tid == thread.tgid {
            let process: ProcessRecord = plain(rest)?;
            rest = &rest[size_of::<ProcessRecord>()..];
            if u64::from(process.flags) & PF_KTHREAD == 0 {
                processes.push(entry(&process));
            }
            process.exit_state & EXITED == 0
        } else {
            rest = &rest[size_of::<ThreadRecord>()..];
            true
        };
        if living {
            threads.entry(thread.tgid).or_default().push(Boottime(thread.start_ns));
        }
    }
    for process in &mut processes {
        process.thread_starts = Some(threads.remove(&process.pid).unwrap_or_default());
    }
    Ok(processes)
}

/// The record that these bytes begin with.
fn plain<T: Plain>(bytes: &[u8]) -> io::Result<T> {
    let bytes = bytes.get(..size_of::<T>()).ok_or(io::ErrorKind::UnexpectedEof)?;
    // SAFETY: as many bytes as the type has, which is plain data without padding;
    // read without regard to alignment.
    Ok(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast::<T>()) })
}

/// # Safety
/// Any bytes are a value of it, and it has no padding.
unsafe trait Plain {}
// SAFETY: numbers alone; the sizes are asserted where they are defined.
unsafe impl Plain for ThreadRecord {}
// SAFETY: likewise.
unsafe impl Plain for ProcessRecord {}

fn entry(record: &ProcessRecord) -> Entry {
    let len = record.comm.iter().position(|b| *b == 0).unwrap_or(record.comm.len());
    let counted = record.fds != FDS_UNCOUNTED;
    Entry {
        pid: record.leader.tgid,
        start_ticks: record.leader.start_ns / 10_000_000,
        ppid: record.ppid,
        comm: KernelStr::from(&record.comm[..len]),
        // One whose first thread has exited while others live is alive.
        zombie: record.exit_state & EXITED != 0 && record.threads <= 1,
        threads: record.threads,
        thread_starts: None,
        numbers: counted.then_some(Numbers { count: record.fds, hash: record.numbers }),
    }
}

/// Lists `/proc`.
///
/// # Errors
/// It cannot be listed.
pub(crate) fn by_proc(proc: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(proc)? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        entries.extend(of(proc, pid));
    }
    Ok(entries)
}

/// One process, from `/proc`; `None` if it is not there, or a kernel thread.
pub(crate) fn of(proc: &Path, pid: u32) -> Option<Entry> {
    let stat = parse_stat(&fs::read(proc.join(format!("{pid}/stat"))).ok()?)?;
    (stat.flags & PF_KTHREAD == 0).then(|| Entry {
        pid,
        start_ticks: stat.start_ticks,
        ppid: stat.ppid,
        zombie: stat.is_zombie(),
        comm: stat.comm,
        threads: stat.threads,
        thread_starts: None,
        numbers: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ProcessRecord {
        ProcessRecord {
            leader: ThreadRecord { start_ns: 12_345_678_901, tgid: 42, tid: 42 },
            numbers: 7,
            ppid: 1,
            flags: 0x40_0000,
            exit_state: 0,
            threads: 3,
            fds: 5,
            unused: 0,
            comm: *b"a (b)\n\0garbage!!",
        }
    }

    fn bytes(record: ProcessRecord) -> [u8; 64] {
        // SAFETY: plain data without padding.
        unsafe { std::mem::transmute::<ProcessRecord, [u8; 64]>(record) }
    }

    fn thread(tgid: u32, tid: u32, start_ns: u64) -> [u8; 16] {
        let record = ThreadRecord { start_ns, tgid, tid };
        // SAFETY: plain data without padding.
        unsafe { std::mem::transmute::<ThreadRecord, [u8; 16]>(record) }
    }

    fn read(records: &[ProcessRecord]) -> Vec<Entry> {
        let bytes: Vec<u8> = records.iter().flat_map(|r| bytes(*r)).collect();
        by_iterator(&bytes[..]).unwrap()
    }

    #[test]
    fn threads_are_those_of_their_process_whichever_comes_first() {
        // After an exec by another thread, or where numbers have wrapped around.
        let before = thread(42, 41, 5);
        let gone = ProcessRecord { exit_state: 0x20, ..record() };
        let another = ThreadRecord { tgid: 50, tid: 50, ..record().leader };
        let another = ProcessRecord { leader: another, ..record() };
        let stream = [&before[..], &bytes(gone), &thread(50, 51, 7), &thread(9, 10, 1)].concat();
        let all = by_iterator(&[&stream[..], &bytes(another)].concat()[..]).unwrap();
        let starts = |e: &Entry| e.thread_starts.clone().unwrap();
        assert_eq!(starts(&all[0]), [Boottime(5)], "its first thread has exited");
        assert_eq!(starts(&all[1]), [Boottime(7), Boottime(12_345_678_901)]);
        assert!(by_iterator(&before[..15]).is_err(), "a thread that is cut");
        assert_eq!(of(Path::new("/proc"), std::process::id()).unwrap().thread_starts, None);
    }

    #[test]
    fn a_record_says_what_proc_would() {
        let worker = ProcessRecord { flags: 0x0020_8040, ..record() };
        let [one] = &read(&[worker, record()])[..] else { panic!("kernel threads are left out") };
        let known = (one.pid, one.start_ticks, one.ppid, one.threads, one.zombie);
        assert_eq!(known, (42, 1234, 1, 3, false));
        assert_eq!(one.comm.as_bytes(), b"a (b)\n");
        assert_eq!(one.numbers, Some(Numbers { count: 5, hash: 7 }));
    }

    #[test]
    fn only_the_last_thread_makes_a_zombie_and_the_uncounted_are_unknown() {
        let first_gone = ProcessRecord { exit_state: 0x20, ..record() };
        let all_gone = ProcessRecord { threads: 1, fds: FDS_UNCOUNTED, ..first_gone };
        let [first, all] = &read(&[first_gone, all_gone])[..] else { panic!("two") };
        assert_eq!((first.zombie, all.zombie, all.numbers), (false, true, None));
        assert!(by_iterator(&[0_u8; 65][..]).is_err(), "a record that is cut");
    }

    #[test]
    fn this_process_is_in_proc() {
        let me = std::process::id();
        let all = by_proc(Path::new("/proc")).unwrap();
        assert!(all.iter().any(|e| e.pid == me && !e.zombie && e.threads >= 1));
        assert!(all.iter().all(|e| e.pid != 2), "kernel threads are left out");
        assert_eq!(of(Path::new("/proc"), u32::MAX), None);
    }
}
