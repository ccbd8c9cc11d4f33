//! The process table: what the roster says of each, and what seldom changes, from
//! `/proc`.
//!
//! Names and command lines are bytes that a process chooses, so they are read
//! as bytes. A process that vanishes while it is read is normal.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::model::{BootId, ExeFile, FdTable, KernelStr, ProcessId, ProcessSample};
use super::roster::{self, Entry, Numbers};
use crate::config::model::{Detection, LEVELS};
use crate::time::Boottime;

/// Longest command line kept.
pub(crate) const CMDLINE_MAX: usize = 4096;
/// What seldom changes is read again every so many looks that refresh; always of a
/// process so young that it may still exec.
const REFRESH: u32 = 12;
const YOUNG: Duration = Duration::from_secs(15);

/// What seldom changes.
#[derive(Clone)]
struct Slow {
    exe: Option<KernelStr>,
    exe_file: Option<ExeFile>,
    cmdline: KernelStr,
    uid: Option<u32>,
    max_fds: Option<u64>,
    cgroup: KernelStr,
}

struct Cached {
    comm: KernelStr,
    slow: Slow,
    looks: u32,
}

/// Reads the process table, and remembers what seldom changes.
pub struct Processes {
    proc: PathBuf,
    boot: BootId,
    choose: ChooseCgroup,
    /// Of windows.
    lengths: [Duration; LEVELS],
    cache: HashMap<ProcessId, Cached>,
}

/// Picks from the content of `/proc/PID/cgroup` the path that names the unit.
/// That is attribution's word, so the loop hands it in.
pub type ChooseCgroup = fn(&[u8]) -> KernelStr;

/// The fields of `/proc/PID/stat` that are used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) comm: KernelStr,
    pub(crate) state: u8,
    pub(crate) ppid: u32,
    pub(crate) flags: u64,
    pub(crate) threads: u32,
    pub(crate) start_ticks: u64,
}

impl Processes {
    /// Reads below `proc` (`/proc`, or a made-up one).
    ///
    /// # Errors
    /// There is no boot id, so this is no proc filesystem.
    pub fn new(proc: &Path, choose: ChooseCgroup, config: &Detection) -> io::Result<Self> {
        let text = fs::read_to_string(proc.join("sys/kernel/random/boot_id"))?;
        let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let boot = u128::from_str_radix(&hex, 16)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let lengths = config.lengths();
        Ok(Self { proc: proc.into(), boot: BootId(boot), choose, lengths, cache: HashMap::new() })
    }

    /// Windows may have other lengths from now on.
    pub fn reconfigure(&mut self, config: &Detection) {
        self.lengths = config.lengths();
    }

    /// This life of the machine.
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// Every process of a roster, sorted by pid, without descriptors; and the numbers
    /// that each has in use. What `changed` names is read anew; where `refresh` is not
    /// set, little else is.
    pub(crate) fn read(
        &mut self,
        roster: Vec<Entry>,
        changed: &HashSet<ProcessId>,
        refresh: bool,
    ) -> (Vec<ProcessSample>, HashMap<ProcessId, Numbers>) {
        let mut samples = Vec::with_capacity(roster.len());
        let mut cache = HashMap::with_capacity(roster.len());
        let mut numbers = HashMap::with_capacity(roster.len());
        let now = Boottime::now();
        for mut entry in roster {
            let id = self.id(&entry);
            let old = self.cache.remove(&id);
            let looks = old.as_ref().map_or(0, |c| c.looks.saturating_add(u32::from(refresh)));
            let slow = match old {
                // A zombie has nothing left to read; what it was still holds.
                Some(c) if entry.zombie => c.slow,
                Some(c)
                    if (!refresh || looks % REFRESH != entry.pid % REFRESH)
                        && now.since(id.started()) > YOUNG
                        && c.comm == entry.comm
                        && !changed.contains(&id) =>
                {
                    c.slow
                }
                _ => {
                    // Listed a moment ago: by now it can be gone, or be another.
                    let (counted, listed) = (entry.numbers, entry.thread_starts);
                    let Some(now) = roster::of(&self.proc, entry.pid) else { continue };
                    if self.id(&now) != id {
                        continue;
                    }
                    entry = Entry { numbers: counted, thread_starts: listed, ..now };
                    read_slow(&self.proc.join(entry.pid.to_string()), self.choose)
                }
            };
            cache.insert(id, Cached { comm: entry.comm.clone(), slow: slow.clone(), looks });
            numbers.extend(entry.numbers.map(|n| (id, n)));
            let old_threads = entry.thread_starts.as_ref().map(|starts| self.old(starts, now));
            samples.push(ProcessSample { old_threads, ..sample(id, entry, slow) });
        }
        self.cache = cache;
        samples.sort_unstable_by_key(|s| s.id.pid);
        (samples, numbers)
    }

    /// These processes, those of them that still live, without descriptors.
    pub fn read_these(&self, ids: &[ProcessId]) -> Vec<ProcessSample> {
        let one = |id: &ProcessId| {
            let entry = roster::of(&self.proc, id.pid)?;
            let same = entry.start_ticks == id.start_ticks && !entry.zombie;
            let dir = self.proc.join(id.pid.to_string());
            same.then(|| sample(*id, entry, read_slow(&dir, self.choose)))
        };
        ids.iter().filter_map(one).collect()
    }

    /// How many threads are as old as a window of each length.
    fn old(&self, starts: &[Boottime], now: Boottime) -> [u32; LEVELS] {
        self.lengths.map(|length| starts.iter().filter(|s| now.since(**s) >= length).count() as u32)
    }

    fn id(&self, entry: &Entry) -> ProcessId {
        ProcessId { boot: self.boot, pid: entry.pid, start_ticks: entry.start_ticks }
    }
}

impl Stat {
    /// A process whose first thread has exited while others live shows the state
    /// of the first; it is alive.
    pub(crate) fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X') && self.threads <= 1
    }
}

fn sample(id: ProcessId, entry: Entry, slow: Slow) -> ProcessSample {
    let zombie = entry.zombie;
    ProcessSample {
        id,
        ppid: entry.ppid,
        comm: entry.comm,
        exe: slow.exe,
        exe_file: slow.exe_file,
        cmdline: slow.cmdline,
        uid: slow.uid,
        cgroup: slow.cgroup,
        zombie,
        threads: if zombie { 0 } else { entry.threads },
        old_threads: None,
        max_fds: slow.max_fds,
        fds: if zombie { FdTable::Full(Vec::new()) } else { FdTable::Denied },
    }
}

/// Fields by position after the last `)`: the name before it may hold anything,
/// parentheses and newlines too. `Documentation/filesystems/proc.rst`, table 1-4.
pub(crate) fn parse_stat(stat: &[u8]) -> Option<Stat> {
    let open = stat.iter().position(|b| *b == b'(')?;
    let close = stat.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Field 3 of the manual is fields[0].
    let field = |n: usize| fields.get(n - 3).copied();
    // One letter; anything else is no line of the kernel's.
    let &[state] = field(3)?.as_bytes() else { return None };
    Some(Stat {
        comm: KernelStr::from(stat.get(open + 1..close)?),
        state,
        ppid: field(4)?.parse().ok()?,
        flags: field(9)?.parse().ok()?,
        threads: field(20)?.parse().ok()?,
        start_ticks: field(22)?.parse().ok()?,
    })
}

fn read_slow(dir: &Path, choose: ChooseCgroup) -> Slow {
    let exe = fs::read_link(dir.join("exe")).ok().map(|p| {
        let bytes = p.as_os_str().as_bytes();
        KernelStr::from(bytes.strip_suffix(b" (deleted)").unwrap_or(bytes))
    });
    let cmdline = fs::read(dir.join("cmdline")).unwrap_or_default();
    let status = fs::read(dir.join("status")).unwrap_or_default();
    let limits = fs::read_to_string(dir.join("limits")).unwrap_or_default();
    Slow {
        exe,
        exe_file: exe_file(&dir.join("exe")),
        cmdline: one_line(cmdline),
        uid: real_uid(&status),
        max_fds: soft_nofile(&limits),
        cgroup: choose(&fs::read(dir.join("cgroup")).unwrap_or_default()),
    }
}

/// Follows the kernel's own link to the file, so no path is looked up; and asks no server
/// or daemon that the file may be on, which could hang.
fn exe_file(link: &Path) -> Option<ExeFile> {
    let flags = AtFlags::STATX_DONT_SYNC;
    let stat = statx(CWD, link, flags, StatxFlags::SIZE | StatxFlags::MTIME).ok()?;
    Some(ExeFile { size: stat.stx_size, modified: stat.stx_mtime.tv_sec })
}

/// Arguments, each ended by a zero byte, joined by one space.
pub(crate) fn one_line(mut cmdline: Vec<u8>) -> KernelStr {
    cmdline.truncate(CMDLINE_MAX);
    while cmdline.last() == Some(&0) {
        cmdline.pop();
    }
    cmdline.iter_mut().filter(|b| **b == 0).for_each(|b| *b = b' ');
    KernelStr::from(&cmdline[..])
}

pub(crate) fn real_uid(status: &[u8]) -> Option<u32> {
    let line = status.split(|b| *b == b'\n').find_map(|l| l.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

pub(crate) fn soft_nofile(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|l| l.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_cannot_shift_the_fields() {
        let line = b"42 (evil) R 1 (\n) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 9876 1 2";
        let stat = parse_stat(line).unwrap();
        assert_eq!(stat.comm.as_bytes(), b"evil) R 1 (\n");
        assert_eq!((stat.state, stat.ppid, stat.threads, stat.start_ticks), (b'S', 7, 3, 9876));
        assert!(parse_stat(b"42 (cut) S 1").is_none());
        // No state is more than one letter: found by the fuzzer.
        let of = |state: &str| format!("42 (x) {state} 1 42 42 0 -1 7 1 2 3 4 5 6 7 8 20 0 3 0 99");
        assert_eq!(parse_stat(of("Z").as_bytes()).map(|stat| stat.state), Some(b'Z'));
        for no_state in ["ZZ", "\u{fffd}"] {
            assert!(parse_stat(of(no_state).as_bytes()).is_none(), "{no_state}");
        }
        assert!(parse_stat(b"").is_none());
    }

    #[test]
    fn limits_and_uids_are_the_soft_and_the_real_ones() {
        let limits = "Limit  Soft Limit Hard Limit Units\nMax open files            1024                 524288               files\n";
        assert_eq!(soft_nofile(limits), Some(1024));
        assert_eq!(soft_nofile("Max open files  unlimited unlimited files"), None);
        assert_eq!(real_uid(b"Name:\tx\xff\nUid:\t33\t0\t0\t0\n"), Some(33));
    }

    #[test]
    fn this_process_is_found_with_its_command_line() {
        let mut table =
            Processes::new(Path::new("/proc"), |c| c.into(), &Detection::default()).unwrap();
        let roster = roster::by_proc(Path::new("/proc")).unwrap();
        let (all, numbers) = table.read(roster, &HashSet::new(), true);
        assert_eq!(numbers, HashMap::new(), "/proc has counted none");
        let me = all.iter().find(|p| p.id.pid == std::process::id()).unwrap();
        assert!(me.threads >= 1 && !me.zombie && !me.cmdline.as_bytes().is_empty());
    }

    #[test]
    fn who_was_listed_and_is_gone_or_another_by_now_is_left_out() {
        let mut table =
            Processes::new(Path::new("/proc"), |c| c.into(), &Detection::default()).unwrap();
        let mut me = roster::of(Path::new("/proc"), std::process::id()).unwrap();
        me.numbers = Some(Numbers { count: 3, hash: 1 });
        let gone = Entry { pid: u32::MAX, ..me.clone() };
        let other = Entry { start_ticks: me.start_ticks + 1, ..me.clone() };
        let (all, numbers) = table.read(vec![gone, other, me], &HashSet::new(), true);
        assert_eq!(all.len(), 1);
        assert_eq!(numbers.get(&all[0].id).map(|n| n.count), Some(3));
    }
}
