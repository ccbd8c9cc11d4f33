//! The audit log: one JSON line per record, in `STATE_DIR/audit.jsonl`.
//!
//! Each line is one write(2) to a file opened with O_APPEND, so lines never
//! interleave. A crash can tear the last one; the next run then starts a new
//! line first. At [`LIMIT`] the file becomes `audit.jsonl.1`, replacing the one
//! before. Lines are not synced to disk one by one: the pipeline must not wait
//! for a disk, and a power cut loses at most what the kernel had not yet written.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::record::ActionRecord;

/// Bytes before the file is rotated: 16 MiB.
pub(super) const LIMIT: u64 = 16 << 20;

/// Lines that [`Audit::memory`] keeps.
const MEMORY: usize = 1000;

/// The audit log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the audit log {}: {error}; give leakwatch a --state-dir that it may write", path.display())]
pub struct AuditError {
    path: PathBuf,
    #[source]
    error: io::Error,
}

/// Where audit lines go.
#[derive(Debug)]
pub struct Audit {
    sink: Sink,
    /// The last write failed, and that was logged.
    failing: bool,
    /// Held while the agent runs: two would spend two budgets on one verdict.
    _lock: Option<File>,
}

/// Takes the state directory for this process; the kernel lets go of it
/// whenever the process ends.
fn lock(state_dir: &Path) -> Result<File, AuditError> {
    let path = state_dir.join("lock");
    let locked = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&path)
        .and_then(|file| match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(Errno::WOULDBLOCK) => {
                Err(io::Error::other("another leakwatch uses this directory"))
            }
            Err(e) => Err(e.into()),
        });
    locked.map_err(|error| AuditError { path, error })
}

#[derive(Debug)]
enum Sink {
    File(Log),
    Memory(VecDeque<String>),
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    /// The last line has no end.
    torn: bool,
    limit: u64,
}

impl Audit {
    /// Opens or creates `audit.jsonl` in `state_dir`, which is made if need be;
    /// both for their owner only.
    ///
    /// # Errors
    /// The directory cannot be made, or the file not opened for appending.
    pub fn open(state_dir: &Path) -> Result<Self, AuditError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(|error| AuditError { path: state_dir.to_owned(), error })?;
        let lock = lock(state_dir)?;
        Ok(Self { _lock: Some(lock), ..Self::open_with(state_dir, LIMIT)? })
    }

    pub(crate) fn open_with(state_dir: &Path, limit: u64) -> Result<Self, AuditError> {
        let path = state_dir.join("audit.jsonl");
        match Log::open(path.clone(), limit) {
            Ok(log) => Ok(Self { sink: Sink::File(log), failing: false, _lock: None }),
            Err(error) => Err(AuditError { path, error }),
        }
    }

    /// Keeps the newest 1000 lines and no file.
    pub fn memory() -> Self {
        Self { sink: Sink::Memory(VecDeque::new()), failing: false, _lock: None }
    }

    /// Lines kept by [`Self::memory`], oldest first; none for a file.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        let kept = match &self.sink {
            Sink::Memory(lines) => Some(lines),
            Sink::File(_) => None,
        };
        kept.into_iter().flatten().map(String::as_str)
    }

    /// Appends one line. A failure is logged, once until it works again, and
    /// stops nothing: what the line tells has happened already.
    pub fn append(&mut self, record: &ActionRecord) {
        let written =
            serde_json::to_string(record).map_err(io::Error::from).and_then(|line| match &mut self
                .sink
            {
                Sink::File(log) => log.append(&line),
                Sink::Memory(lines) => {
                    if lines.len() == MEMORY {
                        lines.pop_front();
                    }
                    lines.push_back(line);
                    Ok(())
                }
            });
        match written {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::error!(%error, act = record.act, "cannot write the audit log; acts go on");
            }
            Err(_) => {}
        }
    }
}

impl Log {
    fn open(path: PathBuf, limit: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            // Whoever may write to the directory must not be able to point the
            // agent at another file.
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(&path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if meta.permissions().mode() & 0o077 != 0 {
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        }
        let size = meta.len();
        let mut last = [b'\n'];
        if size > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        Ok(Self { path, file, size, torn: last != [b'\n'], limit })
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        if !self.is_in_place() {
            *self = Self::open(self.path.clone(), self.limit)?;
        }
        if self.size > 0 && self.size + line.len() as u64 + 2 > self.limit {
            self.rotate()?;
        }
        let bytes = format!("{}{line}\n", if self.torn { "\n" } else { "" });
        let written = loop {
            match self.file.write(bytes.as_bytes()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.size += written as u64;
        self.torn = if written == 0 { self.torn } else { written < bytes.len() };
        if written < bytes.len() {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "only part of a line fitted"));
        }
        Ok(())
    }

    /// The path still leads to the open file: nobody has moved or removed it, and
    /// the last rotation did not stop half-way. Lines in a removed file are lost.
    fn is_in_place(&self) -> bool {
        let at = |m: std::fs::Metadata| (m.dev(), m.ino());
        let there = std::fs::symlink_metadata(&self.path).map(at);
        matches!((there, self.file.metadata().map(at)), (Ok(a), Ok(b)) if a == b)
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.torn {
            // Else the first line of the new file would go on with this one for
            // whoever reads the two files as one. Where even this does not fit,
            // the new file matters more.
            let _ = self.file.write(b"\n");
        }
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        std::fs::rename(&self.path, old)?;
        *self = Self::open(self.path.clone(), self.limit)?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
