//! Who runs now: from the kernel's own list, or from `/proc`.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use leakwatch_common::{FDS_UNCOUNTED, ProcessRecord};

use super::model::KernelStr;
use super::processes::parse_stat;

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
    const SIZE: usize = size_of::<ProcessRecord>();
    let mut bytes = Vec::new();
    pass.read_to_end(&mut bytes)?;
    let records = bytes.chunks_exact(SIZE);
    if !records.remainder().is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // SAFETY: as many bytes as the type has, which is plain data without padding;
    // read without regard to alignment.
    let records =
        records.map(|r| unsafe { std::ptr::read_unaligned(r.as_ptr().cast::<ProcessRecord>()) });
    Ok(records.filter(|r| u64::from(r.flags) & PF_KTHREAD == 0).map(|r| entry(&r)).collect())
}

fn entry(record: &ProcessRecord) -> Entry {
    let len = record.comm.iter().position(|b| *b == 0).unwrap_or(record.comm.len());
    let counted = record.fds != FDS_UNCOUNTED;
    Entry {
        pid: record.tgid,
        start_ticks: record.start_ns / 10_000_000,
        ppid: record.ppid,
        comm: KernelStr::from(&record.comm[..len]),
        // One whose first thread has exited while others live is alive.
        zombie: record.exit_state & EXITED != 0 && record.threads <= 1,
        threads: record.threads,
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
        numbers: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ProcessRecord {
        ProcessRecord {
            start_ns: 12_345_678_901,
            numbers: 7,
            tgid: 42,
            ppid: 1,
            flags: 0x40_0000,
            exit_state: 0,
            threads: 3,
            fds: 5,
            comm: *b"a (b)\n\0garbage!!",
        }
    }

    fn read(records: &[ProcessRecord]) -> Vec<Entry> {
        let bytes: Vec<u8> = records
            .iter()
            .flat_map(|r| {
                // SAFETY: plain data without padding.
                unsafe { std::mem::transmute::<ProcessRecord, [u8; 56]>(*r) }
            })
            .collect();
        by_iterator(&bytes[..]).unwrap()
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
        assert!(by_iterator(&[0_u8; 57][..]).is_err(), "a record that is cut");
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
