//! System calls by number, on descriptors as bare numbers.
//!
//! The probes tell system calls apart that the C library folds into one (its
//! `open` is `openat`), and a storm closes what other threads hold; so neither
//! the library's functions nor owned descriptors will do here.

use std::ffi::c_long;
use std::mem::zeroed;

/// A number that stood for a descriptor at some moment.
pub type Fd = i32;

/// What a system call returns, or its errno.
pub type Answer<T> = Result<T, i32>;

/// The calling thread's errno.
pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The answer in a return value of the C library's kind.
pub fn answer(returned: c_long) -> Answer<c_long> {
    if returned < 0 { Err(errno()) } else { Ok(returned) }
}

/// Makes system call `number`; missing arguments are 0.
///
/// # Safety
/// Every argument that the call takes as an address must be good for what the
/// call does with it.
///
/// # Errors
/// The errno.
pub unsafe fn call(number: c_long, arguments: &[c_long]) -> Answer<c_long> {
    let a = |i: usize| arguments.get(i).copied().unwrap_or(0);
    // SAFETY: the caller's promise.
    answer(unsafe { libc::syscall(number, a(0), a(1), a(2), a(3), a(4), a(5)) })
}

/// As [`call`], for calls that take no address and return a descriptor.
///
/// # Errors
/// The errno.
pub fn plain(number: c_long, arguments: &[c_long]) -> Answer<Fd> {
    // SAFETY: no argument is an address, says the name.
    unsafe { call(number, arguments) }.map(|fd| fd as Fd)
}

/// openat(2) of `/dev/null` for reading and writing.
///
/// # Errors
/// The errno.
pub fn open_null(flags: i32) -> Answer<Fd> {
    let path = c"/dev/null".as_ptr();
    let flags = libc::O_RDWR | flags;
    // SAFETY: the path is a C string that lives for ever.
    unsafe { call(libc::SYS_openat, &[libc::AT_FDCWD.into(), path as c_long, flags.into()]) }
        .map(|fd| fd as Fd)
}

/// close(2); what is not open is not an error here.
pub fn close(fd: Fd) {
    let _ = plain(libc::SYS_close, &[fd.into()]);
}

/// close_range(2), both ends inclusive.
///
/// # Errors
/// The errno.
pub fn close_range(first: Fd, last: Fd) -> Answer<()> {
    plain(libc::SYS_close_range, &[first.into(), last.into(), 0]).map(drop)
}

/// The two ends that `number` (pipe2, socketpair…) writes to its argument `at`.
///
/// # Errors
/// The errno.
pub fn pair(number: c_long, arguments: &[c_long], at: usize) -> Answer<[Fd; 2]> {
    let mut ends: [Fd; 2] = [-1; 2];
    let mut all = arguments.to_vec();
    all.insert(at, ends.as_mut_ptr() as c_long);
    // SAFETY: the one address is that of an array of two.
    unsafe { call(number, &all) }.map(|_| ends)
}

/// Most descriptors that [`send`] takes and [`receive`] gives.
pub const MESSAGE_FDS: usize = 4;

/// Room for a control message with [`MESSAGE_FDS`] descriptors, aligned for it.
#[repr(C, align(8))]
struct Control([u8; 64]);

// SAFETY: CMSG_SPACE only computes.
const CONTROL_LEN: usize =
    unsafe { libc::CMSG_SPACE((MESSAGE_FDS * size_of::<Fd>()) as u32) } as usize;
const _: () = assert!(CONTROL_LEN <= 64);

/// Passes `fds` (at most [`MESSAGE_FDS`]) over a Unix socket, without waiting.
///
/// # Errors
/// The errno.
pub fn send(socket: Fd, fds: &[Fd]) -> Answer<()> {
    let fds = &fds[..fds.len().min(MESSAGE_FDS)];
    let mut byte = [0_u8];
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: all zeroes is an empty message header; every pointer stored in it
    // outlives the call; the control buffer has room for MESSAGE_FDS.
    unsafe {
        let len = size_of_val(fds) as u32;
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(len) as usize;
        let head = libc::CMSG_FIRSTHDR(&raw const message);
        (*head).cmsg_level = libc::SOL_SOCKET;
        (*head).cmsg_type = libc::SCM_RIGHTS;
        (*head).cmsg_len = libc::CMSG_LEN(len) as usize;
        libc::CMSG_DATA(head).copy_from_nonoverlapping(fds.as_ptr().cast(), len as usize);
        answer(libc::sendmsg(socket, &raw const message, libc::MSG_DONTWAIT) as c_long).map(drop)
    }
}

/// What one message on a Unix socket passed, without waiting; `many` uses recvmmsg(2)
/// instead of recvmsg(2).
///
/// # Errors
/// The errno: EAGAIN where there was no message.
pub fn receive(socket: Fd, flags: i32, many: bool) -> Answer<Vec<Fd>> {
    let mut byte = [0_u8];
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let flags = libc::MSG_DONTWAIT | flags;
    // SAFETY: as in `send`; the kernel writes no more than the lengths given, and
    // CMSG_NXTHDR stays within the length that it wrote back.
    unsafe {
        let mut messages: [libc::mmsghdr; 1] = zeroed();
        let message = &raw mut messages[0].msg_hdr;
        (*message).msg_iov = &raw mut part;
        (*message).msg_iovlen = 1;
        (*message).msg_control = control.0.as_mut_ptr().cast();
        (*message).msg_controllen = CONTROL_LEN;
        let (number, count) =
            if many { (libc::SYS_recvmmsg, 1) } else { (libc::SYS_recvmsg, flags.into()) };
        // Of mmsghdr the header comes first, so one address serves both calls.
        let address = messages.as_mut_ptr() as c_long;
        call(number, &[socket.into(), address, count, flags.into()])?;

        let mut got = Vec::new();
        let mut head = libc::CMSG_FIRSTHDR(message);
        while !head.is_null() {
            if (*head).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(head).cast::<Fd>();
                let len = (*head).cmsg_len - libc::CMSG_LEN(0) as usize;
                got.extend((0..len / size_of::<Fd>()).map(|i| data.add(i).read_unaligned()));
            }
            head = libc::CMSG_NXTHDR(message, head);
        }
        Ok(got)
    }
}

/// Ends this process when the thread that forked it ends.
pub fn die_with_parent() {
    // SAFETY: takes no address.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}
