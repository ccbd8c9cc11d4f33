//! A program that a suite started, and will end.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::component::need;
use crate::raw;
use crate::wait::{SOON, patience, wait_until};

/// The directory of this package's programs, beside which lies the agent.
///
/// # Panics
/// The path of the running test cannot be read.
pub fn program_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("/proc/self/exe can be read");
    let dir = exe.parent().expect("a file lies in a directory");
    // A suite lies in `deps`, a program does not.
    if dir.ends_with("deps") { dir.parent().expect("deps lies in one") } else { dir }.to_owned()
}

/// The command for a program of this package.
///
/// # Panics
/// It has not been built.
pub fn program(name: &str) -> Command {
    let path = program_dir().join(name);
    assert!(path.is_file(), "{} is missing: build this whole package", path.display());
    Command::new(path)
}

/// The command for a Python program of `tests/python/`, under Debian's interpreter.
pub fn python(name: &str) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name));
    command
}

/// The root of Debian trixie's Python 3.13, as `cargo xtask setup` unpacks it.
pub fn newer_python() -> Option<PathBuf> {
    let target = program_dir();
    let root = target.parent()?.join("trixie-python");
    let found = root.join("usr/bin/python3.13").is_file().then_some(root);
    need("Debian trixie's python3.13", found)
}

/// The command for a Python program of `tests/python/` under that, in a mount namespace of
/// its own, where `dir` is `/srv` with the program, and `/tmp`.
///
/// # Panics
/// The program cannot be put there.
pub fn python_inside(root: &Path, dir: &Path, name: &str) -> Command {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name);
    let to = dir.join(name);
    std::fs::create_dir_all(to.parent().expect("it has one")).expect("it is ours");
    std::fs::copy(from, to).expect("room for a program");
    let script = "mount --bind \"$2\" \"$1/srv\" && mount --bind \"$2\" \"$1/tmp\" && \
                  root=$1 && shift 2 && exec chroot \"$root\" /usr/bin/python3.13 \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    command.args([root, dir]).arg("-X").arg("perf").arg(format!("/srv/{name}"));
    command
}

/// Lets `command` start with its standard streams and nothing else: what cargo or
/// another test has open (a job server's pipe, say) would be counted as its own.
pub fn inherit_nothing(command: &mut Command) {
    // SAFETY: nothing but system calls that take no address.
    unsafe { command.pre_exec(close_at_exec) };
}

/// Marks all but the standard streams, for the library still needs a pipe until exec.
fn close_at_exec() -> std::io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: std::ffi::c_long = 1 << 2;
    let range = [3, u32::MAX.into(), CLOSE_RANGE_CLOEXEC];
    match raw::plain(libc::SYS_close_range, &range) {
        Ok(_) => Ok(()),
        // The flag came with Linux 5.11, the call with 5.9. One by one, then: a
        // suite never has more.
        Err(libc::EINVAL | libc::ENOSYS) => {
            for fd in 3..4096 {
                // SAFETY: takes no address; that there is no such number is no harm.
                unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
            }
            Ok(())
        }
        Err(errno) => Err(std::io::Error::from_raw_os_error(errno)),
    }
}

/// A running program with its lifeline (see [`crate::program`]); ended when dropped.
pub struct Started {
    name: String,
    child: Child,
    lifeline: Option<ChildStdin>,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Started {
    /// Starts `command`; its standard output is read here, its errors go to ours.
    ///
    /// # Panics
    /// It cannot be started.
    #[track_caller]
    pub fn new(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        inherit_nothing(command);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let lifeline = child.stdin.take();
        let out = child.stdout.take().expect("it is piped");
        let (to, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if to.send(line).is_err() {
                    break;
                }
            }
        });
        Self { name, child, lifeline, lines, said: Vec::new() }
    }

    /// Its command line as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives it a command.
    ///
    /// # Panics
    /// It no longer listens.
    #[track_caller]
    pub fn tell(&mut self, word: &str) {
        let lifeline = self.lifeline.as_mut().expect("the lifeline is whole");
        writeln!(lifeline, "{word}")
            .unwrap_or_else(|e| panic!("{} does not listen: {e}", self.name));
    }

    /// Waits for the next line that starts with `word`, and gives the rest of it.
    ///
    /// # Panics
    /// It was not said within `limit` times [`patience`], or the program has ended.
    #[track_caller]
    pub fn hear(&mut self, word: &str, limit: Duration) -> String {
        let (begun, limit) = (Instant::now(), limit * patience());
        loop {
            let line = match self.lines.recv_timeout(limit.saturating_sub(begun.elapsed())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{} said {:?} and not {word:?} within {limit:?}", self.name, self.said)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{} ended after {:?}, before it said {word:?}", self.name, self.said)
                }
            };
            self.said.push(line.clone());
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    /// The next line that has been said already, if there is one.
    pub fn heard(&mut self) -> Option<String> {
        let line = self.lines.try_recv().ok()?;
        self.said.push(line.clone());
        Some(line)
    }

    /// The lines that were heard so far.
    pub fn said(&self) -> String {
        self.said.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Waits for `ready`.
    #[track_caller]
    pub fn ready(&mut self, limit: Duration) {
        self.hear("ready", limit);
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// It has been reaped already.
    #[track_caller]
    pub fn signal(&self, signal: i32) {
        // SAFETY: takes no address; the pid is that of a child not yet reaped.
        let sent = unsafe { libc::kill(self.pid() as libc::pid_t, signal) };
        assert_eq!(sent, 0, "{} cannot be signalled", self.name);
    }

    /// Whether it has ended, and how.
    ///
    /// # Panics
    /// The kernel does not say.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Ends it now, and reaps it. What it started lives on if it holds a lifeline.
    pub fn kill(&mut self) -> ExitStatus {
        let _ = self.child.kill();
        self.child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0))
    }

    /// Cuts the lifeline, which ends it and all that it started, and waits for it.
    ///
    /// # Panics
    /// It does not end.
    #[track_caller]
    pub fn release(&mut self) {
        self.lifeline = None;
        wait_until(&format!("the end of {}", self.name), SOON, || self.ended());
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.lifeline = None;
        self.kill();
    }
}
