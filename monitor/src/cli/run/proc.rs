//! What /proc says of the processes of the command.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;

use crate::source::model::{BootId, FdSample, FdTable, ProcessId};
use crate::source::processes::parse_stat;
use crate::source::procfd;

/// Standard input, output and error.
const STANDARD: u32 = 2;

/// What a descriptor is, so far that one which was given can be told from one that was
/// opened since: its number, and what /proc says it refers to.
pub(super) type Identity = (u32, Vec<u8>);

/// The descriptors of a thread or process.
///
/// # Errors
/// It has gone, or they may not be seen.
pub(super) fn identities(tid: libc::pid_t) -> io::Result<HashSet<Identity>> {
    let mut held = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{tid}/fd"))?.flatten() {
        let Some(fd) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        match fs::read_link(entry.path()) {
            Ok(target) => {
                held.insert((fd, target.as_os_str().as_bytes().to_vec()));
            }
            // Closed since the listing, by one that runs.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(held)
}

/// The descriptors it has opened itself: neither given nor standard.
///
/// # Errors
/// It has gone, or they may not be seen.
pub(super) fn own(tid: libc::pid_t, given: &HashSet<Identity>) -> io::Result<Vec<FdSample>> {
    // Most hold what they were given: cheap to see, and no more is asked.
    let own: HashSet<u32> = identities(tid)?
        .into_iter()
        .filter(|id| id.0 > STANDARD && !given.contains(id))
        .map(|id| id.0)
        .collect();
    if own.is_empty() {
        return Ok(Vec::new());
    }
    match procfd::table(Path::new("/proc"), tid.cast_unsigned())? {
        FdTable::Full(mut table) => {
            table.retain(|sample| own.contains(&sample.fd));
            Ok(table)
        }
        _ => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

/// The process that a thread belongs to.
pub(super) fn process_of(tid: libc::pid_t) -> Option<libc::pid_t> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}

/// The process, told from a later one of the same number.
pub(super) fn identity(pid: libc::pid_t) -> Option<ProcessId> {
    let stat = parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)?;
    // One run is within one life of the machine, whichever.
    Some(ProcessId { boot: BootId(0), pid: pid.cast_unsigned(), start_ticks: stat.start_ticks })
}

/// The system call that a stopped thread is in.
pub(super) fn system_call(tid: libc::pid_t) -> Option<libc::c_long> {
    let text = fs::read_to_string(format!("/proc/{tid}/syscall")).ok()?;
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// The name of its program.
pub(super) fn program(pid: libc::pid_t) -> String {
    let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    crate::text::printable(comm.strip_suffix(b"\n").unwrap_or(&comm))
}

/// The entries of a directory that are numbers.
pub(super) fn numbers<T: FromStr>(dir: &str) -> Vec<T> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_not_its_own() {
        let own_pid = std::process::id().cast_signed();
        let given = identities(own_pid).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().as_os_str().as_bytes();
        let ours = |held: Vec<FdSample>| held.iter().filter(|s| s.path.as_bytes() == path).count();
        assert_eq!(ours(own(own_pid, &given).unwrap()), 1);
        let given = identities(own_pid).unwrap();
        assert_eq!(ours(own(own_pid, &given).unwrap()), 0);
        assert_eq!(process_of(own_pid), Some(own_pid));
    }
}
