//! The census without BPF: `/proc/PID/fd` and `fdinfo`.
//!
//! About ten times slower than the iterator, and blind to sharing: whether two
//! descriptors are one open file description is not shown. So each counts as
//! its own.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::fdkind::classify;
use super::model::{FdSample, FdTable, KernelStr};

/// As [`table`]; of a process that has gone since it was listed, that it holds
/// nothing: to be gone is not to be denied.
pub fn table_or_gone(proc: &Path, pid: u32) -> FdTable {
    table(proc, pid).unwrap_or_else(|e| {
        let gone = e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH);
        if gone { FdTable::Full(Vec::new()) } else { FdTable::Denied }
    })
}

/// The descriptors of `pid` as far as they may be seen.
///
/// # Errors
/// The process is gone (`NotFound`), which is normal.
pub fn table(proc: &Path, pid: u32) -> io::Result<FdTable> {
    let dir = proc.join(pid.to_string());
    let fd_dir = dir.join("fd");
    let entries = match fs::read_dir(&fd_dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return count(&fd_dir),
        Err(e) => return Err(e),
    };
    let mut samples = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some(fd) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        match sample(&dir, pid, fd) {
            Ok(s) => samples.push(s),
            // Closed since the listing.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            // The list may be had without the links (CAP_DAC_READ_SEARCH
            // without CAP_SYS_PTRACE): then the number is all there is.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return count(&fd_dir),
            Err(e) => return Err(e),
        }
    }
    samples.sort_unstable_by_key(|s| s.fd);
    Ok(FdTable::Full(samples))
}

/// `st_size` of the directory is the number of descriptors since Linux 6.2
/// (`fs/proc/fd.c: proc_fd_getattr`), and needs no privilege. Before it is 0,
/// which no longer tells anything.
fn count(fd_dir: &Path) -> io::Result<FdTable> {
    match fs::metadata(fd_dir) {
        Ok(m) if m.size() > 0 => Ok(FdTable::Count(u32::try_from(m.size()).unwrap_or(u32::MAX))),
        Ok(_) => Ok(FdTable::Denied),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(FdTable::Denied),
        Err(e) => Err(e),
    }
}

fn sample(dir: &Path, pid: u32, fd: u32) -> io::Result<FdSample> {
    let link = dir.join(format!("fd/{fd}"));
    let target = fs::read_link(&link)?;
    let meta = fs::metadata(&link)?;
    let (flags, position) = fdinfo(&fs::read(dir.join(format!("fdinfo/{fd}")))?);
    let path = target.as_os_str().as_bytes();
    let nlink = u32::try_from(meta.nlink()).unwrap_or(u32::MAX);
    let path = path.strip_suffix(b" (deleted)").filter(|_| nlink == 0).unwrap_or(path);
    let mode = meta.mode() as u16;
    let mut identity = DefaultHasher::new();
    (pid, fd, meta.dev(), meta.ino()).hash(&mut identity);
    Ok(FdSample {
        fd,
        file: identity.finish(),
        kind: classify(mode, path),
        device: rustix::fs::major(meta.dev()) << 20 | rustix::fs::minor(meta.dev()),
        inode: meta.ino(),
        flags,
        nlink,
        position,
        size: meta.size(),
        disk_bytes: meta.blocks().saturating_mul(512),
        path: KernelStr::from(path),
        socket: None,
        birth: None,
    })
}

/// `O_*` flags and position. Some drivers show names there that a process has
/// chosen (`name:` of a dma-buf), so it is read as bytes.
pub(crate) fn fdinfo(info: &[u8]) -> (u32, u64) {
    let field = |name: &[u8]| {
        let value = info.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(name))?;
        std::str::from_utf8(value).ok().map(str::trim)
    };
    let flags = field(b"flags:").and_then(|f| u32::from_str_radix(f, 8).ok());
    (flags.unwrap_or(0), field(b"pos:").and_then(|p| p.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::source::model::FdKind;

    #[test]
    fn own_descriptors_are_seen_as_they_are() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"12345").unwrap();
        let FdTable::Full(fds) = table(Path::new("/proc"), std::process::id()).unwrap() else {
            panic!("own descriptors must be readable")
        };
        let path = file.path().as_os_str().as_bytes();
        let ours: Vec<_> = fds.iter().filter(|f| f.path.as_bytes() == path).collect();
        assert_eq!(ours.len(), 1);
        assert_eq!((ours[0].kind, ours[0].position, ours[0].size), (FdKind::Regular, 5, 5));
        assert!(ours[0].writable());
    }

    #[test]
    fn a_name_in_fdinfo_may_be_any_bytes() {
        let info = b"pos:\t7\nflags:\t0100002\nmnt_id:\t9\nname:\t\xff\xfe\n";
        assert_eq!(fdinfo(info), (0o100_002, 7));
    }

    #[test]
    fn a_vanished_process_is_not_found_and_holds_nothing() {
        let proc = Path::new("/proc");
        let gone = table(proc, u32::MAX).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        assert_eq!(table_or_gone(proc, u32::MAX), FdTable::Full(Vec::new()));
    }
}
