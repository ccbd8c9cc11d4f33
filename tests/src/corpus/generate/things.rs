//! How a thing looks in a census.

use leakwatch::source::model::{FdBirth, FdKind, FdSample, SocketState};

use super::actor::What;

/// Where files are, and where what has no name is.
const DISK: u32 = 8 << 20 | 1;
const NAMELESS: u32 = 9;

/// `O_RDWR`, and what a log is opened with: `O_WRONLY|O_APPEND|O_CREAT`.
const READ_WRITE: u32 = 0o2;
const APPEND: u32 = 0o2101;

/// Bytes that go over a connection when it is opened.
const AT_FIRST: u64 = 700;

/// A descriptor of the service `name`; the `n`th thing that was ever opened.
pub fn descriptor(what: What, name: &str, fd: u32, n: u64, birth: Option<FdBirth>) -> FdSample {
    let (kind, path) = match what {
        What::Socket | What::CloseWait => (FdKind::Socket, format!("socket:[{n}]")),
        What::File => (FdKind::Regular, format!("/srv/{name}/store.db")),
        What::Files => (FdKind::Regular, format!("/srv/{name}/part-{n}.dat")),
        What::Deleted => (FdKind::Regular, format!("/srv/{name}/spool-{n}.dat")),
        What::Log => (FdKind::Regular, format!("/srv/{name}/worker.log")),
        What::Logs => (FdKind::Regular, format!("/srv/{name}/job-{n}.log")),
        What::Pipe => (FdKind::Pipe, format!("pipe:[{n}]")),
        What::Eventfd => (FdKind::Eventfd, "anon_inode:[eventfd]".to_owned()),
        What::Timerfd => (FdKind::Timerfd, "anon_inode:[timerfd]".to_owned()),
        What::Epoll => (FdKind::Epoll, "anon_inode:[eventpoll]".to_owned()),
        What::Thread | What::Zombie => unreachable!("no descriptor"),
    };
    let file = kind == FdKind::Regular;
    let inode = match what {
        What::File => 2,
        What::Log => 3,
        What::Eventfd | What::Timerfd | What::Epoll => 4,
        _ => 1_000 + n,
    };
    let state = if what == What::CloseWait { 8 } else { 1 };
    FdSample {
        fd,
        file: n + 1,
        kind,
        device: if file { DISK } else { NAMELESS },
        inode,
        flags: if matches!(what, What::Log | What::Logs) { APPEND } else { READ_WRITE },
        nlink: 1,
        position: if matches!(what, What::Socket | What::CloseWait) { AT_FIRST } else { 0 },
        size: if file { 4096 } else { 0 },
        disk_bytes: if file { 4096 } else { 0 },
        path: path.as_str().into(),
        socket: (kind == FdKind::Socket).then_some(SocketState::new(2, 1, state)),
        birth,
    }
}

/// The kind under which the probes count it: a path is one kind to them.
pub fn kind(what: What) -> FdKind {
    descriptor(what, "", 0, 0, None).kind
}
