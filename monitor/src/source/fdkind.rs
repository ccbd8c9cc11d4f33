//! What a descriptor refers to, and how its inode's mode and its path tell.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub enum FdKind {
    /// A regular file whose path is that of a log. `source` never says this;
    /// the ledger does, since the patterns belong to the unit.
    Log,
    Regular,
    Directory,
    Socket,
    Pipe,
    Epoll,
    Eventfd,
    Timerfd,
    Signalfd,
    Inotify,
    Memfd,
    Pidfd,
    Device,
    IoUring,
    Bpf,
    Perf,
    Other,
}

impl FdKind {
    /// Every kind, in the order they are shown.
    pub const ALL: [Self; 17] = [
        Self::Log,
        Self::Regular,
        Self::Directory,
        Self::Socket,
        Self::Pipe,
        Self::Epoll,
        Self::Eventfd,
        Self::Timerfd,
        Self::Signalfd,
        Self::Inotify,
        Self::Memfd,
        Self::Pidfd,
        Self::Device,
        Self::IoUring,
        Self::Bpf,
        Self::Perf,
        Self::Other,
    ];

    /// The name in labels and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Regular => "regular",
            Self::Directory => "directory",
            Self::Socket => "socket",
            Self::Pipe => "pipe",
            Self::Epoll => "epoll",
            Self::Eventfd => "eventfd",
            Self::Timerfd => "timerfd",
            Self::Signalfd => "signalfd",
            Self::Inotify => "inotify",
            Self::Memfd => "memfd",
            Self::Pidfd => "pidfd",
            Self::Device => "device",
            Self::IoUring => "io_uring",
            Self::Bpf => "bpf",
            Self::Perf => "perf",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for FdKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Classifies. `path` is as the kernel shows it (`anon_inode:[eventpoll]`,
/// `/memfd:name`, `pidfd:[12]`, or a real path).
pub fn classify(mode: u16, path: &[u8]) -> FdKind {
    match mode & 0o170_000 {
        0o100_000 if path.starts_with(b"/memfd:") => FdKind::Memfd,
        // pidfs (Linux 6.9) gives pidfds an inode of their own.
        0o100_000 if path.starts_with(b"pidfd:") => FdKind::Pidfd,
        0o100_000 => FdKind::Regular,
        0o040_000 => FdKind::Directory,
        0o140_000 => FdKind::Socket,
        0o010_000 => FdKind::Pipe,
        0o020_000 | 0o060_000 => FdKind::Device,
        _ => anonymous(path),
    }
}

/// An anonymous inode tells its class in its name; some are in brackets, some
/// not (`fs/notify/inotify`), and memory of a secret has a mount of its own.
fn anonymous(path: &[u8]) -> FdKind {
    let name = path.strip_prefix(b"anon_inode:").unwrap_or(path);
    let name = name.strip_prefix(b"[").unwrap_or(name);
    let name = name.strip_suffix(b"]").unwrap_or(name);
    match name {
        b"eventpoll" => FdKind::Epoll,
        b"eventfd" => FdKind::Eventfd,
        b"timerfd" => FdKind::Timerfd,
        b"signalfd" => FdKind::Signalfd,
        b"inotify" | b"fanotify" => FdKind::Inotify,
        b"pidfd" => FdKind::Pidfd,
        b"io_uring" => FdKind::IoUring,
        b"perf_event" => FdKind::Perf,
        b"secretmem" => FdKind::Memfd,
        n if n.starts_with(b"bpf") || n == b"btf" => FdKind::Bpf,
        _ => FdKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_kernel_are_known() {
        for (mode, path, want) in [
            (0o100_644, "/etc/passwd", FdKind::Regular),
            (0o100_777, "/memfd:x", FdKind::Memfd),
            (0o100_700, "pidfd:[3]", FdKind::Pidfd),
            (0o040_755, "/", FdKind::Directory),
            (0o140_777, "socket:[77]", FdKind::Socket),
            (0o010_600, "pipe:[78]", FdKind::Pipe),
            (0o020_666, "/dev/null", FdKind::Device),
            (0o600, "anon_inode:[eventpoll]", FdKind::Epoll),
            (0o600, "anon_inode:[eventfd]", FdKind::Eventfd),
            (0o600, "anon_inode:[timerfd]", FdKind::Timerfd),
            (0o600, "anon_inode:[signalfd]", FdKind::Signalfd),
            (0o600, "anon_inode:inotify", FdKind::Inotify),
            (0o600, "anon_inode:[fanotify]", FdKind::Inotify),
            (0o600, "anon_inode:[pidfd]", FdKind::Pidfd),
            (0o600, "anon_inode:[io_uring]", FdKind::IoUring),
            (0o600, "anon_inode:[perf_event]", FdKind::Perf),
            (0o600, "anon_inode:bpf-map", FdKind::Bpf),
            (0o600, "anon_inode:bpf_link", FdKind::Bpf),
            (0o600, "anon_inode:btf", FdKind::Bpf),
            (0o600, "anon_inode:[userfaultfd]", FdKind::Other),
        ] {
            assert_eq!(classify(mode, path.as_bytes()), want, "{path}");
        }
    }
}
