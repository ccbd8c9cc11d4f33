//! What /proc says, read anew for each question: the second opinion of the suites.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use leakwatch::detection::verdict::Frame;

/// Number of open descriptors; `None` where there is no such process.
pub fn open_fds(pid: u32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64)
}

/// What each descriptor refers to, by number.
pub fn fd_targets(pid: u32) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let target = |e: fs::DirEntry| {
        let number = e.file_name().to_str()?.parse().ok()?;
        Some((number, fs::read_link(e.path()).ok()?))
    };
    entries.flatten().filter_map(target).collect()
}

/// Number of threads.
pub fn threads(pid: u32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/task")).ok()?.count() as u64)
}

/// The letter of its state; `None` where there is no such process.
pub fn state(pid: u32) -> Option<char> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the state follows the last one.
    let close = stat.iter().rposition(|b| *b == b')')?;
    stat.get(close + 2).map(|b| char::from(*b))
}

/// It exists and has not ended. A zombie has ended, whoever is late to reap it.
pub fn alive(pid: u32) -> bool {
    state(pid).is_some_and(|s| s != 'Z' && s != 'X')
}

/// Pids of zombies whose parent is `parent`.
pub fn zombies_of(parent: u32) -> Vec<u32> {
    children_of(parent).into_iter().filter(|pid| state(*pid) == Some('Z')).collect()
}

/// Pids whose parent is `parent`.
pub fn children_of(parent: u32) -> Vec<u32> {
    all().into_iter().filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// Every pid.
pub fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let close = stat.iter().rposition(|b| *b == b')')?;
    let rest = String::from_utf8_lossy(stat.get(close + 2..)?).into_owned();
    rest.split(' ').nth(1)?.parse().ok()
}

/// The command line, arguments joined by one space, lossily as text.
pub fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let joined: Vec<_> = bytes.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
    Some(joined.join(" ").trim_end().to_owned())
}

/// Pids of processes with this in their command line.
pub fn with_command(part: &str) -> Vec<u32> {
    let is = |pid: &u32| command_line(*pid).is_some_and(|line| line.contains(part));
    all().into_iter().filter(is).collect()
}

/// The BPF programs that `pid` has attached, each with what it is attached to. A
/// pass of an iterator is none.
pub fn bpf_attached(pid: u32) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return BTreeSet::new() };
    let texts = entries.flatten().filter_map(|e| fs::read_to_string(e.path()).ok());
    texts
        .filter(|text| text.contains("link_id:") && !text.contains("link_type:\titer"))
        .map(|text| {
            let of = |line: &&str| line.starts_with("prog_id:") || line.starts_with("tp_name:");
            text.lines().filter(of).collect::<Vec<_>>().join(" ")
        })
        .collect()
}

/// The file whose code a frame of `pid` is: by its module once it has been looked up,
/// until then by its address. `None` where there is no such code.
pub fn code_of(pid: u32, frame: &Frame) -> Option<String> {
    let Some(module) = &frame.module else {
        let address = frame.function.strip_prefix("0x")?;
        return code_at(pid, u64::from_str_radix(address, 16).ok()?);
    };
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let is = |line: &str| line.contains(" r-xp ") && line.ends_with(module.as_str());
    maps.lines().any(is).then(|| module.clone())
}

/// The file whose code `pid` has at an address; `None` where no code is there.
pub fn code_at(pid: u32, address: u64) -> Option<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    maps.lines().find_map(|line| {
        // from-to rwxp offset device inode path
        let mut words = line.split_ascii_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let code = words.next()?.contains('x') && (hex(from)?..hex(to)?).contains(&address);
        code.then(|| words.nth(3).unwrap_or("no file").to_owned())
    })
}
