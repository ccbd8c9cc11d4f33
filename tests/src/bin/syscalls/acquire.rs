//! The ways in.

use std::ffi::{CString, c_long};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use leakwatch_tests::raw::{self, Answer, Fd};

use crate::ring::Ring;

/// What the ways work on, opened before anything is counted.
pub struct Bench {
    /// A file to open.
    file: CString,
    /// A descriptor to copy.
    source: Fd,
    /// Both ends of a datagram socket pair, for what passes descriptors.
    pass: [Fd; 2],
    /// A listening socket and its address; -1 unless the way accepts.
    listener: Fd,
    address: libc::sockaddr_un,
    /// A pidfd of this process; -1 unless the way needs it.
    pidfd: Fd,
    /// A handle of `file`, and the mount it is on; -1 unless the way needs it.
    handle: [u8; 8 + libc::MAX_HANDLE_SZ as usize],
    mount: Fd,
    /// For the ways through io_uring.
    pub ring: Ring,
}

/// One way: its name, the kind that a probe can tell of it, and how it is done once.
pub type Way = (&'static str, &'static str, fn(&Bench) -> Answer<Vec<Fd>>);

const AT: c_long = libc::AT_FDCWD as c_long;
const STREAM: c_long = libc::SOCK_STREAM as c_long;
const UNIX: c_long = libc::AF_UNIX as c_long;

/// Every way this architecture has.
pub const WAYS: &[Way] = &[
    #[cfg(target_arch = "x86_64")]
    ("open", "regular", |b| path(libc::SYS_open, |p| vec![p, 2], b)),
    #[cfg(target_arch = "x86_64")]
    ("creat", "regular", |b| path(libc::SYS_creat, |p| vec![p, 0o600], b)),
    ("openat", "regular", |b| path(libc::SYS_openat, |p| vec![AT, p, 2], b)),
    ("openat2", "regular", openat2),
    ("socket", "socket", |_| one(libc::SYS_socket, &[UNIX, STREAM, 0])),
    ("socketpair", "socket", |_| {
        raw::pair(libc::SYS_socketpair, &[UNIX, STREAM, 0], 3).map(Vec::from)
    }),
    #[cfg(target_arch = "x86_64")]
    ("accept", "socket", |b| accept(libc::SYS_accept, b)),
    ("accept4", "socket", |b| accept(libc::SYS_accept4, b)),
    #[cfg(target_arch = "x86_64")]
    ("pipe", "pipe", |_| raw::pair(libc::SYS_pipe, &[], 0).map(Vec::from)),
    ("pipe2", "pipe", |_| raw::pair(libc::SYS_pipe2, &[0], 0).map(Vec::from)),
    ("dup", "regular", |b| one(libc::SYS_dup, &[b.source.into()])),
    #[cfg(target_arch = "x86_64")]
    ("dup2", "regular", |b| one(libc::SYS_dup2, &[b.source.into(), free_number()?])),
    ("dup3", "regular", |b| one(libc::SYS_dup3, &[b.source.into(), free_number()?, 0])),
    ("fcntl-dupfd", "regular", |b| {
        one(libc::SYS_fcntl, &[b.source.into(), libc::F_DUPFD.into(), 0])
    }),
    ("fcntl-dupfd-cloexec", "regular", |b| {
        one(libc::SYS_fcntl, &[b.source.into(), libc::F_DUPFD_CLOEXEC.into(), 0])
    }),
    #[cfg(target_arch = "x86_64")]
    ("eventfd", "eventfd", |_| one(libc::SYS_eventfd, &[0])),
    ("eventfd2", "eventfd", |_| one(libc::SYS_eventfd2, &[0, 0])),
    #[cfg(target_arch = "x86_64")]
    ("epoll_create", "epoll", |_| one(libc::SYS_epoll_create, &[1])),
    ("epoll_create1", "epoll", |_| one(libc::SYS_epoll_create1, &[0])),
    ("timerfd_create", "timerfd", |_| one(libc::SYS_timerfd_create, &[1, 0])),
    #[cfg(target_arch = "x86_64")]
    ("signalfd", "signalfd", |_| signalfd(libc::SYS_signalfd)),
    ("signalfd4", "signalfd", |_| signalfd(libc::SYS_signalfd4)),
    #[cfg(target_arch = "x86_64")]
    ("inotify_init", "inotify", |_| one(libc::SYS_inotify_init, &[])),
    ("inotify_init1", "inotify", |_| one(libc::SYS_inotify_init1, &[0])),
    ("fanotify_init", "inotify", |_| one(libc::SYS_fanotify_init, &[0, 0])),
    ("memfd_create", "memfd", memfd),
    ("perf_event_open", "perf", |_| perf()),
    ("bpf", "bpf", |_| bpf_map()),
    ("io_uring_setup", "io_uring", |_| io_uring()),
    ("userfaultfd", "other", |_| one(libc::SYS_userfaultfd, &[1])),
    ("pidfd_open", "pidfd", |_| one(libc::SYS_pidfd_open, &[std::process::id().into(), 0])),
    ("pidfd_getfd", "other", |b| one(libc::SYS_pidfd_getfd, &[b.pidfd.into(), b.source.into(), 0])),
    #[cfg(target_arch = "x86_64")]
    ("clone-pidfd", "pidfd", |_| clone_pidfd()),
    ("clone3-pidfd", "pidfd", |_| clone3_pidfd()),
    ("open_by_handle_at", "regular", open_by_handle_at),
    ("recvmsg", "other", |b| pass(b, 1, false)),
    ("recvmsg-three", "other", |b| pass(b, 3, false)),
    ("recvmmsg", "other", |b| pass(b, 1, true)),
    ("fsopen", "other", |_| path_at(libc::SYS_fsopen, c"tmpfs", |p| vec![p, 0])),
    ("fspick", "other", |_| path_at(libc::SYS_fspick, c"/proc", |p| vec![AT, p, 0])),
    ("open_tree", "regular", |_| path_at(libc::SYS_open_tree, c"/", |p| vec![AT, p, 0])),
    ("mq_open", "other", mq_open),
    ("io_uring-openat", "regular", |b| b.ring.open(&b.file)),
    ("io_uring-accept", "socket", |b| accept_by(b, |b| b.ring.accept(b.listener))),
];

impl Bench {
    /// What way `way` needs, with a file of its own in `dir`.
    pub fn new(dir: &str, way: &str, out: &str) -> Self {
        let path = Path::new(dir).join(format!("bench-{way}"));
        std::fs::write(&path, b"bench").expect("the directory takes a file");
        let file = CString::new(path.as_os_str().as_bytes()).expect("no NUL in a path");
        let none = UNIX as libc::sa_family_t;
        let mut bench = Self {
            file,
            source: raw::open_null(0).expect("/dev/null"),
            pass: raw::pair(libc::SYS_socketpair, &[UNIX, libc::SOCK_DGRAM.into(), 0], 3)
                .expect("a socket pair"),
            listener: -1,
            address: libc::sockaddr_un { sun_family: none, sun_path: [0; 108] },
            pidfd: -1,
            handle: [0; 8 + libc::MAX_HANDLE_SZ as usize],
            mount: -1,
            ring: Ring::none(),
        };
        if way.starts_with("io_uring-") || out.starts_with("io_uring-") {
            bench.ring = Ring::new();
        }
        match way {
            "accept" | "accept4" | "io_uring-accept" => bench.listen(),
            "pidfd_getfd" => {
                let me = std::process::id().into();
                bench.pidfd = raw::plain(libc::SYS_pidfd_open, &[me, 0]).expect("a pidfd");
            }
            "open_by_handle_at" => bench.name_to_handle(),
            _ => {}
        }
        bench
    }

    /// Listens on an address in the abstract namespace that holds this pid.
    fn listen(&mut self) {
        let name = format!("\0leakwatch-syscalls-{}", std::process::id());
        for (to, from) in self.address.sun_path.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        self.listener = raw::plain(libc::SYS_socket, &[UNIX, STREAM, 0]).expect("a socket");
        self.with_address(libc::SYS_bind, self.listener).expect("bind");
        raw::plain(libc::SYS_listen, &[self.listener.into(), 64]).expect("listen");
    }

    fn with_address(&self, number: c_long, socket: Fd) -> Answer<()> {
        let address = &raw const self.address as c_long;
        let len = size_of::<libc::sockaddr_un>() as c_long;
        // SAFETY: the address is that of a sockaddr_un of that length.
        unsafe { raw::call(number, &[socket.into(), address, len]) }.map(drop)
    }

    fn name_to_handle(&mut self) {
        let mut mount_id: i32 = 0;
        self.handle[..4].copy_from_slice(&libc::MAX_HANDLE_SZ.to_ne_bytes());
        let (path, handle) = (self.file.as_ptr() as c_long, self.handle.as_mut_ptr() as c_long);
        let arguments = [AT, path, handle, &raw mut mount_id as c_long, 0];
        // SAFETY: a C string, a buffer as long as its first word says, an int. Where the
        // filesystem has no handles, opening one later says so.
        let _ = unsafe { raw::call(libc::SYS_name_to_handle_at, &arguments) };
        // SAFETY: a C string.
        self.mount = unsafe { raw::call(libc::SYS_openat, &[AT, path, 0]) }.expect("file") as Fd;
    }
}

fn one(number: c_long, arguments: &[c_long]) -> Answer<Vec<Fd>> {
    raw::plain(number, arguments).map(|fd| vec![fd])
}

fn path_at(
    number: c_long,
    path: &std::ffi::CStr,
    arguments: fn(c_long) -> Vec<c_long>,
) -> Answer<Vec<Fd>> {
    // SAFETY: the one address is that of a C string that outlives the call.
    unsafe { raw::call(number, &arguments(path.as_ptr() as c_long)) }.map(|fd| vec![fd as Fd])
}

fn path(number: c_long, arguments: fn(c_long) -> Vec<c_long>, b: &Bench) -> Answer<Vec<Fd>> {
    path_at(number, &b.file, arguments)
}

fn openat2(b: &Bench) -> Answer<Vec<Fd>> {
    // struct open_how of include/uapi/linux/openat2.h: flags, mode, resolve.
    let how: [u64; 3] = [libc::O_RDWR as u64, 0, 0];
    let arguments = [AT, b.file.as_ptr() as c_long, how.as_ptr() as c_long, 24];
    // SAFETY: a C string and a structure of 24 bytes.
    unsafe { raw::call(libc::SYS_openat2, &arguments) }.map(|fd| vec![fd as Fd])
}

/// A connection to our own listener, of which the client's end is closed at once:
/// that is one more acquisition and release through socket(2) and close(2).
fn accept_by(b: &Bench, accept: impl Fn(&Bench) -> Answer<Vec<Fd>>) -> Answer<Vec<Fd>> {
    let client = raw::plain(libc::SYS_socket, &[UNIX, STREAM, 0])?;
    b.with_address(libc::SYS_connect, client)?;
    let server = accept(b);
    raw::close(client);
    server
}

fn accept(number: c_long, b: &Bench) -> Answer<Vec<Fd>> {
    accept_by(b, |b| one(number, &[b.listener.into(), 0, 0, 0]))
}

/// A number that is not open: that of a descriptor which existed a moment ago.
/// One more acquisition and release for the probes.
fn free_number() -> Answer<c_long> {
    let fd = raw::plain(libc::SYS_eventfd2, &[0, 0])?;
    raw::close(fd);
    Ok(fd.into())
}

fn signalfd(number: c_long) -> Answer<Vec<Fd>> {
    let mask: u64 = 1 << (libc::SIGUSR1 - 1);
    // SAFETY: the kernel's sigset_t is these eight bytes.
    unsafe { raw::call(number, &[-1, &raw const mask as c_long, 8, 0]) }.map(|fd| vec![fd as Fd])
}

fn memfd(_: &Bench) -> Answer<Vec<Fd>> {
    path_at(libc::SYS_memfd_create, c"bench", |p| vec![p, 0])
}

fn mq_open(_: &Bench) -> Answer<Vec<Fd>> {
    // The kernel wants the name without its slash; each queue is unlinked at once.
    let name = CString::new(format!("leakwatch-{}", std::process::id())).expect("no NUL");
    let name = name.as_ptr() as c_long;
    let flags = (libc::O_RDWR | libc::O_CREAT).into();
    // struct mq_attr: flags, most messages, their size, how many there are, reserved.
    // Small ones: by default nine queues fill RLIMIT_MSGQUEUE.
    let attributes: [c_long; 8] = [0, 1, 16, 0, 0, 0, 0, 0];
    // SAFETY: a C string and a struct mq_attr.
    unsafe {
        let attributes = attributes.as_ptr() as c_long;
        let fd = raw::call(libc::SYS_mq_open, &[name, flags, 0o600, attributes])?;
        raw::call(libc::SYS_mq_unlink, &[name])?;
        Ok(vec![fd as Fd])
    }
}

fn perf() -> Answer<Vec<Fd>> {
    // struct perf_event_attr, version 0 (64 bytes): type PERF_TYPE_SOFTWARE (1), its
    // size, config PERF_COUNT_SW_DUMMY (9); disabled and of user space only.
    let mut attributes = [0_u64; 8];
    attributes[0] = 1 | 64 << 32;
    attributes[1] = 9;
    attributes[5] = 1 | 1 << 5 | 1 << 6;
    // SAFETY: the structure's length is in it.
    unsafe { raw::call(libc::SYS_perf_event_open, &[attributes.as_ptr() as c_long, 0, -1, -1, 0]) }
        .map(|fd| vec![fd as Fd])
}

fn bpf_map() -> Answer<Vec<Fd>> {
    // BPF_MAP_CREATE (0) of an array (2) with 4-byte keys and values, one entry.
    let attributes: [u32; 16] = [2, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: 64 bytes at that address.
    unsafe { raw::call(libc::SYS_bpf, &[0, attributes.as_ptr() as c_long, 64]) }
        .map(|fd| vec![fd as Fd])
}

fn io_uring() -> Answer<Vec<Fd>> {
    // struct io_uring_params is 120 bytes, all zero on the way in.
    let mut parameters = [0_u64; 15];
    // SAFETY: 120 bytes at that address.
    unsafe { raw::call(libc::SYS_io_uring_setup, &[1, parameters.as_mut_ptr() as c_long]) }
        .map(|fd| vec![fd as Fd])
}

/// A child that ends at once; its parent gets a pidfd.
#[cfg(target_arch = "x86_64")]
fn clone_pidfd() -> Answer<Vec<Fd>> {
    let mut pidfd: Fd = -1;
    let flags = (libc::CLONE_PIDFD | libc::SIGCHLD).into();
    // SAFETY: as fork(2), as no stack is given; the child ends at once; the pidfd's
    // address is an int.
    unsafe {
        let pid = raw::call(libc::SYS_clone, &[flags, 0, &raw mut pidfd as c_long, 0, 0])?;
        reap_or_be(pid);
    }
    Ok(vec![pidfd])
}

fn clone3_pidfd() -> Answer<Vec<Fd>> {
    let mut pidfd: Fd = -1;
    // struct clone_args, version 0 (64 bytes): flags, pidfd, child_tid, parent_tid,
    // exit_signal, stack, stack_size, tls.
    let arguments: [u64; 8] =
        [libc::CLONE_PIDFD as u64, &raw mut pidfd as u64, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
    // SAFETY: as in `clone_pidfd`.
    unsafe {
        let pid = raw::call(libc::SYS_clone3, &[arguments.as_ptr() as c_long, 64])?;
        reap_or_be(pid);
    }
    Ok(vec![pidfd])
}

/// The parent waits for its child, the child ends.
unsafe fn reap_or_be(pid: c_long) {
    // SAFETY: _exit and waitpid with a null status take no address.
    unsafe {
        if pid == 0 {
            libc::_exit(0);
        }
        libc::waitpid(pid as libc::pid_t, std::ptr::null_mut(), 0);
    }
}

fn open_by_handle_at(b: &Bench) -> Answer<Vec<Fd>> {
    let arguments = [b.mount.into(), b.handle.as_ptr() as c_long, libc::O_RDONLY.into()];
    // SAFETY: a handle as name_to_handle_at(2) wrote it.
    unsafe { raw::call(libc::SYS_open_by_handle_at, &arguments) }.map(|fd| vec![fd as Fd])
}

/// A message with `n` descriptors, sent to ourselves.
fn pass(b: &Bench, n: usize, many: bool) -> Answer<Vec<Fd>> {
    raw::send(b.pass[0], &[b.source, b.source, b.source][..n])?;
    raw::receive(b.pass[1], 0, many)
}
