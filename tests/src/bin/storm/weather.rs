//! What one thread of the storm does.

use std::ffi::CString;

use leakwatch_tests::raw::{self, Fd};

/// Numbers below are never targets of a blind dup2 or close_range: standard
/// streams and the sockets of the storm lie there.
const BLIND_FROM: Fd = 300;
const BLIND_COUNT: u64 = 300;
/// A thread holds at most so many.
const HOLD: usize = 24;

/// One thread: its random numbers and what it believes it holds. Other threads
/// may have closed that, or reused its number: no belief is relied on.
pub struct Weather {
    random: u64,
    held: Vec<Fd>,
    send: Fd,
    receive: Fd,
}

impl Weather {
    pub fn new(seed: u64, send: Fd, receive: Fd) -> Self {
        Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            held: Vec::new(),
            send,
            receive,
        }
    }

    /// Below `n`, by xorshift: the same seed gives the same storm.
    fn roll(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % n
    }

    fn any(&mut self) -> Option<Fd> {
        let n = self.held.len() as u64;
        (n > 0).then(|| self.roll(n)).map(|i| self.held[i as usize])
    }

    fn blind(&mut self) -> Fd {
        BLIND_FROM + self.roll(BLIND_COUNT) as Fd
    }

    /// One act.
    pub fn gust(&mut self) {
        if self.held.len() >= HOLD {
            let i = self.roll(HOLD as u64) as usize;
            raw::close(self.held.swap_remove(i));
        }
        let cloexec = if self.roll(2) == 0 { libc::O_CLOEXEC } else { 0 };
        match self.roll(400) {
            0..90 => self.keep(raw::open_null(cloexec)),
            90..190 => {
                if !self.held.is_empty() {
                    let i = self.roll(self.held.len() as u64) as usize;
                    raw::close(self.held.swap_remove(i));
                }
            }
            190..220 => self.dup(libc::SYS_dup, &[]),
            220..240 => self.dup(libc::SYS_fcntl, &[libc::F_DUPFD_CLOEXEC.into(), 64]),
            240..280 => {
                let onto = self.blind();
                self.dup(libc::SYS_dup3, &[onto.into(), cloexec.into()]);
            }
            #[cfg(target_arch = "x86_64")]
            280..300 => {
                let onto = self.blind();
                self.dup(libc::SYS_dup2, &[onto.into()]);
            }
            300..320 => self.keep_all(raw::pair(libc::SYS_pipe2, &[cloexec.into()], 0)),
            320..335 => {
                let stream = [libc::AF_UNIX.into(), libc::SOCK_STREAM.into(), 0];
                self.keep_all(raw::pair(libc::SYS_socketpair, &stream, 3));
            }
            335..345 => self.keep(raw::plain(libc::SYS_eventfd2, &[0, cloexec.into()])),
            345..365 => {
                let passed: Vec<Fd> = (0..=self.roll(3)).filter_map(|_| self.any()).collect();
                // A full socket or a number that is closed by now: no message then.
                let _ = raw::send(self.send, &passed);
            }
            365..385 => {
                let many = self.roll(2) == 0;
                if let Ok(passed) = raw::receive(self.receive, libc::MSG_CMSG_CLOEXEC, many) {
                    self.held.extend(passed);
                }
            }
            385..396 => {
                let first = self.blind();
                let _ = raw::close_range(first, first + self.roll(12) as Fd);
            }
            396..398 => self.fork(false),
            _ => self.fork(true),
        }
    }

    fn keep(&mut self, fd: raw::Answer<Fd>) {
        self.held.extend(fd);
    }

    fn keep_all(&mut self, fds: raw::Answer<[Fd; 2]>) {
        self.held.extend(fds.into_iter().flatten());
    }

    /// `number` with one of the held descriptors before the other arguments.
    fn dup(&mut self, number: std::ffi::c_long, rest: &[std::ffi::c_long]) {
        if let Some(fd) = self.any() {
            let arguments: Vec<_> =
                std::iter::once(fd.into()).chain(rest.iter().copied()).collect();
            self.keep(raw::plain(number, &arguments));
        }
    }

    /// A child that changes its copy of the table and ends or executes.
    fn fork(&mut self, exec: bool) {
        let own: Vec<Fd> = self.held.clone();
        let child = fork(|| {
            for fd in own.iter().take(3) {
                raw::close(*fd);
            }
            let _ = raw::open_null(0);
            if exec {
                execute(c"/bin/true", &[c"true"]);
            }
        });
        // SAFETY: a null status is allowed.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    }

    /// Leaves a forked child that holds a changed copy of this table for ever.
    pub fn leave_a_copy(&mut self) {
        let own: Vec<Fd> = self.held.clone();
        fork(|| {
            for fd in own.iter().take(5) {
                raw::close(*fd);
            }
            for _ in 0..7 {
                let _ = raw::open_null(0);
            }
            loop {
                // SAFETY: takes nothing, waits for a signal.
                unsafe { libc::pause() };
            }
        });
    }

    /// Leaves a child that has executed another program, so has lost what was
    /// close-on-exec and kept the rest.
    pub fn leave_a_sleeper(&mut self, index: u64) {
        let name = CString::new(format!("storm-sleeper-{index}")).expect("no NUL in it");
        fork(|| execute(c"/bin/sleep", &[&name, c"86400"]));
    }
}

/// Forks; the child runs `body`, which may only make system calls (other threads
/// may have held any lock), and then ends. It dies with this thread.
fn fork(body: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child makes system calls only, then _exit.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            raw::die_with_parent();
            body();
            libc::_exit(0);
        }
        pid
    }
}

/// execve(2) with an empty environment; returns only if it fails.
fn execute(path: &std::ffi::CStr, arguments: &[&std::ffi::CStr]) {
    let mut pointers = [std::ptr::null(); 4];
    for (slot, argument) in pointers.iter_mut().zip(arguments.iter().take(3)) {
        *slot = argument.as_ptr();
    }
    let environment = [std::ptr::null()];
    // SAFETY: both arrays end in null and live until the call.
    unsafe { libc::execve(path.as_ptr(), pointers.as_ptr(), environment.as_ptr()) };
}
