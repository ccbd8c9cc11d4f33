//! Ways through io_uring, which no system-call tracepoint sees.

use std::cell::RefCell;
use std::ffi::CStr;

use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};
use leakwatch_tests::raw::{Answer, Fd};

/// A ring, or the errno that refused it.
pub struct Ring(Answer<RefCell<IoUring>>);

impl Ring {
    /// None is asked for.
    pub fn none() -> Self {
        Self(Err(libc::ENOSYS))
    }

    /// One, if it may be had.
    pub fn new() -> Self {
        let errno = |e: std::io::Error| e.raw_os_error().unwrap_or(libc::EIO);
        Self(IoUring::new(8).map(RefCell::new).map_err(errno))
    }

    /// Opens a file for reading and writing.
    pub fn open(&self, path: &CStr) -> Answer<Vec<Fd>> {
        let cwd = types::Fd(libc::AT_FDCWD);
        let entry = opcode::OpenAt::new(cwd, path.as_ptr()).flags(libc::O_RDWR).build();
        // SAFETY: the path outlives the call, which waits for the answer.
        unsafe { self.once(&entry) }.map(|fd| vec![fd])
    }

    /// Accepts a connection.
    pub fn accept(&self, listener: Fd) -> Answer<Vec<Fd>> {
        let null = std::ptr::null_mut();
        let entry = opcode::Accept::new(types::Fd(listener), null, null.cast()).build();
        // SAFETY: no address is given.
        unsafe { self.once(&entry) }.map(|fd| vec![fd])
    }

    /// Closes.
    pub fn close(&self, fd: Fd) -> Answer<()> {
        let entry = opcode::Close::new(types::Fd(fd)).build();
        // SAFETY: no address is given.
        unsafe { self.once(&entry) }.map(drop)
    }

    /// Does one thing and waits for it.
    ///
    /// # Safety
    /// What the entry points at lives until this returns.
    unsafe fn once(&self, entry: &Entry) -> Answer<Fd> {
        let mut ring = self.0.as_ref().map_err(|e| *e)?.borrow_mut();
        // SAFETY: the caller's promise.
        unsafe { ring.submission().push(entry) }.map_err(|_| libc::EBUSY)?;
        ring.submit_and_wait(1).map_err(|e| e.raw_os_error().unwrap_or(libc::EIO))?;
        let answer = ring.completion().next().ok_or(libc::EIO)?.result();
        if answer < 0 { Err(-answer) } else { Ok(answer) }
    }
}
