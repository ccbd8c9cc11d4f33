//! What the child of the self-test does, in bare system calls.

use std::os::fd::RawFd;

use libc::{c_int, c_long, c_void};

/// One thing to do, and what it does to the child's table.
pub(super) struct Step {
    pub(super) what: &'static str,
    pub(super) opened: u64,
    pub(super) closed: u64,
    act: fn(&mut Held) -> Result<(), u8>,
}

/// What the child holds.
#[derive(Default)]
struct Held {
    file: c_int,
    copy: c_int,
    passed: c_int,
}

/// Where dup2 puts its copy: free, and within what the probes walk.
const PLACE: c_int = 100;

const fn step(
    what: &'static str,
    opened: u64,
    closed: u64,
    act: fn(&mut Held) -> Result<(), u8>,
) -> Step {
    Step { what, opened, closed, act }
}

/// In this order.
pub(super) static STEPS: [Step; 10] = [
    step("open", 1, 0, |held| {
        // SAFETY: a terminated string.
        held.file = checked(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) })?;
        Ok(())
    }),
    step("dup", 1, 0, |held| {
        // SAFETY: takes no address.
        held.copy = checked(unsafe { libc::dup(held.file) })?;
        Ok(())
    }),
    step("dup2 onto a free number", 1, 0, |held| {
        // SAFETY: takes no address; nothing of Rust's is at this number.
        checked(unsafe { libc::dup2(held.file, PLACE) }).map(drop)
    }),
    step("dup2 onto an open number", 1, 1, |held| {
        // SAFETY: as above.
        checked(unsafe { libc::dup2(held.copy, PLACE) }).map(drop)
    }),
    step("pipe2", 2, 0, |_| {
        let mut pair = [0; 2];
        // SAFETY: room for two descriptors.
        checked(unsafe { libc::pipe2(pair.as_mut_ptr(), libc::O_CLOEXEC) }).map(drop)
    }),
    step("eventfd", 1, 0, |_| {
        // SAFETY: takes no address.
        checked(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) }).map(drop)
    }),
    step("socketpair and SCM_RIGHTS", 3, 0, |held| {
        held.passed = pass(held.file)?;
        Ok(())
    }),
    step("close", 0, 1, |held| {
        // SAFETY: opened above, and nothing of Rust's owns it.
        checked(unsafe { libc::close(held.copy) }).map(drop)
    }),
    step("close_range", 0, 1, |held| {
        let fd = c_long::from(held.passed);
        // SAFETY: as above; takes no address.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, fd, fd, 0) };
        checked(closed as c_int).map(drop)
    }),
    step("close of a number that is not open", 0, 0, |held| {
        // SAFETY: takes no address.
        let _ = unsafe { libc::close(held.copy) };
        Ok(())
    }),
];

fn checked(result: c_int) -> Result<c_int, u8> {
    // SAFETY: of this thread.
    if result < 0 { Err(unsafe { *libc::__errno_location() } as u8) } else { Ok(result) }
}

/// Takes steps as they are ordered until nobody orders any more.
///
/// Runs after a fork in a process with several threads: nothing here allocates,
/// locks or unwinds.
pub(super) fn obey(orders: RawFd, answers: RawFd) -> ! {
    let mut held = Held::default();
    let mut byte = [0_u8];
    loop {
        // SAFETY: one byte, which is ours.
        let n = unsafe { libc::read(orders, byte.as_mut_ptr().cast::<c_void>(), 1) };
        let step = STEPS.get(usize::from(byte[0]));
        let (1, Some(step)) = (n, step) else {
            // SAFETY: ends the child without running anything of the agent's.
            unsafe { libc::_exit(0) }
        };
        let errno = (step.act)(&mut held).err().unwrap_or(0);
        // SAFETY: one byte, which is ours.
        let _ = unsafe { libc::write(answers, (&raw const errno).cast::<c_void>(), 1) };
    }
}

/// A control message with room for one descriptor, aligned as `cmsghdr` is.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    fd: c_int,
    pad: c_int,
}

/// Sends `fd` to itself and gives the number under which it arrived.
fn pass(fd: c_int) -> Result<c_int, u8> {
    let mut pair = [0; 2];
    // SAFETY: room for two descriptors.
    checked(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr()) })?;
    let mut byte = [0_u8];
    let mut iov = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: plain data, for which all zeros is a value.
    let (mut control, mut message): (Control, libc::msghdr) = unsafe { std::mem::zeroed() };
    control.fd = fd;
    control.header.cmsg_level = libc::SOL_SOCKET;
    control.header.cmsg_type = libc::SCM_RIGHTS;
    // The lengths are of other integer types with other C libraries.
    control.header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<c_int>()) as _;
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: all that the message points at lives through the calls.
    checked(unsafe { libc::sendmsg(pair[0], &raw const message, 0) } as c_int)?;
    control.fd = -1;
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: as above.
    checked(unsafe { libc::recvmsg(pair[1], &raw mut message, libc::MSG_CMSG_CLOEXEC) } as c_int)?;
    Ok(control.fd)
}
