//! What a probe can tell of a descriptor from its system call alone.

/// Kind of resource, as far as the system call says.
///
/// Descriptors opened by path are all [`KernelKind::File`]: whether it is a
/// log, a directory or a device only the census knows.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KernelKind {
    /// Opened by path.
    File = 0,
    /// socket, socketpair, accept.
    Socket = 1,
    /// pipe, pipe2.
    Pipe = 2,
    /// epoll_create.
    Epoll = 3,
    /// eventfd.
    Eventfd = 4,
    /// timerfd_create.
    Timerfd = 5,
    /// signalfd.
    Signalfd = 6,
    /// inotify_init, fanotify_init.
    Inotify = 7,
    /// memfd_create, memfd_secret.
    Memfd = 8,
    /// pidfd_open, CLONE_PIDFD.
    Pidfd = 9,
    /// io_uring_setup.
    IoUring = 10,
    /// bpf.
    Bpf = 11,
    /// perf_event_open.
    Perf = 12,
    /// dup, fcntl, pidfd_getfd, SCM_RIGHTS and what has no name of its own.
    Other = 13,
    /// A thread, not a descriptor.
    Thread = 14,
    /// A process, not a descriptor.
    Process = 15,
}

impl KernelKind {
    /// Number of kinds, the stride of `FLOWS`.
    pub const COUNT: u32 = 16;
}
