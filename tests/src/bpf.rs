//! What the kernel holds of BPF, asked of the kernel itself: a program, link or map
//! exists until nobody refers to it, whoever that is.

use std::collections::BTreeSet;
use std::ffi::c_long;
use std::fs;
use std::path::PathBuf;

use crate::raw;

/// What has ids of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A program.
    Program,
    /// A map.
    Map,
    /// An attachment (Linux 5.8).
    Link,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Program, Self::Map, Self::Link];

    /// `BPF_PROG_GET_NEXT_ID` and its like.
    fn next_id(self) -> c_long {
        match self {
            Self::Program => 11,
            Self::Map => 12,
            Self::Link => 31,
        }
    }

    /// How `/proc/PID/fdinfo` names the id.
    fn in_fdinfo(self) -> &'static str {
        match self {
            Self::Program => "prog_id:",
            Self::Map => "map_id:",
            Self::Link => "link_id:",
        }
    }
}

/// Ids of every one of a kind that the kernel has, whoever holds or pins it.
pub fn loaded(kind: Kind) -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    // union bpf_attr: start_id, next_id, open_flags.
    let mut attributes = [0_u32; 4];
    loop {
        let address = attributes.as_mut_ptr() as c_long;
        // SAFETY: 16 bytes at that address.
        let next = unsafe { raw::call(libc::SYS_bpf, &[kind.next_id(), address, 16]) };
        if next.is_err() {
            return ids;
        }
        ids.insert(attributes[1]);
        attributes[0] = attributes[1];
    }
}

/// Ids of a kind that a process has a descriptor of. A link's descriptor names
/// its program, too.
pub fn held_by(pid: u32, kind: Kind) -> BTreeSet<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return BTreeSet::new() };
    let text = |e: fs::DirEntry| fs::read_to_string(e.path()).ok();
    let id = |line: &str| line.strip_prefix(kind.in_fdinfo())?.trim().parse().ok();
    let texts: Vec<String> = entries.flatten().filter_map(text).collect();
    texts.iter().flat_map(|text| text.lines()).filter_map(id).collect()
}

/// How often the kernel did not run a program of `pid` because it was at work on that
/// processor already: where tracepoints can be preempted (Linux 6.13 for system calls,
/// 7.0 for all), the next task there is not seen.
pub fn missed_by(pid: u32) -> u64 {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return 0 };
    let text = |e: fs::DirEntry| fs::read_to_string(e.path()).ok();
    let missed = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?;
        line.trim().parse::<u64>().ok()
    };
    entries.flatten().filter_map(text).filter_map(missed).sum()
}

/// Everything pinned in any BPF filesystem of this mount namespace.
pub fn pinned() -> BTreeSet<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("bpf ").then(|| before.split(' ').nth(4).map(PathBuf::from))?
    };
    let mut open: Vec<PathBuf> = table.lines().filter_map(mounted).collect();
    let mut found = BTreeSet::new();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    found
}
