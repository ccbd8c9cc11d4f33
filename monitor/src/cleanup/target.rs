//! The processes that an act is aimed at, and the proof that they still are.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};

use crate::attribution::hierarchy;
use crate::source::model::{BootId, KernelStr, ProcessId};

/// `PF_KTHREAD` of `include/linux/sched.h`, as field 9 of `/proc/PID/stat` has it.
const PF_KTHREAD: u64 = 0x0020_0000;

/// A process as the verdict's census saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Identity.
    pub id: ProcessId,
    /// Cgroup path at the time of the verdict.
    pub cgroup: KernelStr,
    /// Name, for people.
    pub comm: KernelStr,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.comm, self.id.pid)
    }
}

/// Why a target was spared.
#[derive(Debug, thiserror::Error)]
pub(super) enum Spared {
    /// It is not there.
    #[error("{0} is gone")]
    Gone(String),
    /// Its pid belongs to another process by now.
    #[error("{0} is gone, and its pid is another process's now")]
    Reused(String),
    /// The verdict is from before a reboot.
    #[error("{0} was seen before the last reboot")]
    OtherBoot(String),
    /// Pid 0 or 1.
    #[error("{0} is the init process")]
    Init(String),
    /// leakwatch or a process that it runs under.
    #[error("{0} is leakwatch itself or runs it")]
    Own(String),
    /// Its pid is another process's to leakwatch itself.
    #[error("{0} is another process here: /proc is of another pid namespace than leakwatch")]
    Elsewhere(String),
    /// Not a process.
    #[error("{0} is a thread, not a process")]
    Thread(String),
    /// Of the kernel.
    #[error("{0} is a kernel thread")]
    Kernel(String),
    /// Dead already.
    #[error("{0} is a zombie: only its parent can remove it")]
    Zombie(String),
    /// In another cgroup than the verdict saw it in.
    #[error("{0} has moved to cgroup {1}")]
    Moved(String, KernelStr),
    /// No permission.
    #[error("{0} may not be signalled (EPERM): grant leakwatch CAP_KILL")]
    Denied(String),
    /// It took the signal and lives on.
    #[error("{0} is still alive after SIGKILL and {1} (in an uninterruptible wait?)")]
    Survived(String, String),
    /// The kernel would not say or do.
    #[error("{0}: {1}: {2}")]
    Io(String, &'static str, io::Error),
}

impl Spared {
    /// It was not tried, for good reason; otherwise it was tried and failed.
    pub(super) fn is_refusal(&self) -> bool {
        !matches!(self, Self::Denied(_) | Self::Survived(..) | Self::Io(..))
    }
}

/// A process held by a pidfd and proven to be the target.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) target: Target,
    pidfd: OwnedFd,
}

impl Pinned {
    /// Opens a pidfd, then proves that it is the target's.
    ///
    /// The order matters. A pid cannot change hands while the process that has
    /// it is not reaped, so if the pidfd's process still lives after /proc was
    /// read by pid, all that was read is about that process.
    pub(super) fn new(target: Target) -> Result<Self, Spared> {
        let who = target.to_string();
        let raw = i32::try_from(target.id.pid).ok().and_then(Pid::from_raw);
        let Some(pid) = raw.filter(|p| !p.is_init()) else { return Err(Spared::Init(who)) };
        if target.id.boot != boot_id().map_err(|e| Spared::Io(who.clone(), "reading boot_id", e))? {
            return Err(Spared::OtherBoot(who));
        }
        if runs_us(target.id.pid) {
            return Err(Spared::Own(who));
        }
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Err(Spared::Gone(who)),
            // A thread that leads no group: EINVAL, and ENOENT since Linux 6.9.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {
                return Err(Spared::Thread(who));
            }
            Err(e) => return Err(Spared::Io(who, "pidfd_open", e.into())),
        };
        // A pid means one process to pidfd_open(2) and may mean another to /proc.
        match shown_pid(&pidfd) {
            Ok(Shown::As(shown)) if shown == target.id.pid => {}
            Ok(Shown::As(_)) => return Err(Spared::Elsewhere(who)),
            Ok(Shown::Gone) => return Err(Spared::Gone(who)),
            Err(e) => return Err(Spared::Io(who, "reading the pidfd's fdinfo", e)),
        }
        let stat = match Stat::read(target.id.pid) {
            Ok(stat) => stat,
            Err(e) if vanished(&e) => return Err(Spared::Gone(who)),
            Err(e) => return Err(Spared::Io(who, "reading /proc/PID/stat", e)),
        };
        if stat.start_ticks != target.id.start_ticks {
            return Err(Spared::Reused(who));
        }
        // The flag, not the parent: in a container pid 2 is anybody.
        if stat.flags & PF_KTHREAD != 0 {
            return Err(Spared::Kernel(who));
        }
        let cgroup = match std::fs::read(format!("/proc/{}/cgroup", target.id.pid)) {
            Ok(content) => hierarchy::choose(&content),
            Err(e) if vanished(&e) => return Err(Spared::Gone(who)),
            Err(e) => return Err(Spared::Io(who, "reading /proc/PID/cgroup", e)),
        };
        let pinned = Self { target, pidfd };
        // Not by the state alone: a process whose first thread has ended looks
        // like a zombie while its other threads live on.
        if pinned.is_dead() {
            let zombie = matches!(stat.state, b'Z' | b'X');
            return Err(if zombie { Spared::Zombie(who) } else { Spared::Gone(who) });
        }
        if cgroup != pinned.target.cgroup {
            return Err(Spared::Moved(who, cgroup));
        }
        Ok(pinned)
    }

    /// Sends a signal, real-time ones too.
    pub(super) fn send(&self, signal: i32) -> Result<(), Spared> {
        use std::os::fd::AsRawFd as _;
        // SAFETY: pidfd_send_signal(2) takes no pointer but the third argument,
        // which may be null; the descriptor is open for as long as `self` is.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0_u32,
            )
        };
        if rc == 0 {
            return Ok(());
        }
        let who = self.target.to_string();
        let error = io::Error::last_os_error();
        Err(match error.raw_os_error() {
            Some(libc::ESRCH) => Spared::Gone(who),
            Some(libc::EPERM) => Spared::Denied(who),
            _ => Spared::Io(who, "pidfd_send_signal", error),
        })
    }

    /// Whether all its threads have exited; a zombie is dead.
    pub(super) fn is_dead(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(1))
    }

    /// The pidfd as poll(2) wants it: readable once the process is dead.
    pub(super) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.pidfd, PollFlags::IN)
    }
}

/// How `/proc` numbers the process of a pidfd.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    /// So; 0 is a process that it does not show.
    As(u32),
    /// It has been reaped.
    Gone,
}

/// `Pid` of the pidfd's fdinfo, Linux 5.3 (`kernel/fork.c: pidfd_show_fdinfo`, since
/// 6.9 in `fs/pidfs.c`): counted in the pid namespace of the /proc it is read from.
fn shown_pid(pidfd: &OwnedFd) -> io::Result<Shown> {
    use std::os::fd::AsRawFd as _;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    parse_shown(&info).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no Pid line"))
}

fn parse_shown(info: &str) -> Option<Shown> {
    let pid: i32 = info.lines().find_map(|l| l.strip_prefix("Pid:"))?.trim().parse().ok()?;
    Some(u32::try_from(pid).map_or(Shown::Gone, Shown::As))
}

/// The fields of `/proc/PID/stat` that identity needs (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Field 3.
    pub(super) state: u8,
    /// Field 4.
    pub(super) ppid: u32,
    /// Field 9: `PF_*`.
    pub(super) flags: u64,
    /// Field 22: clock ticks since boot.
    pub(super) start_ticks: u64,
}

impl Stat {
    pub(super) fn read(pid: u32) -> io::Result<Self> {
        let content = std::fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(&content)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not as proc(5) has it"))
    }

    /// Field 2 is a name of the process's choosing: it may hold spaces,
    /// parentheses and newlines, so the rest starts after the last `)`.
    fn parse(content: &[u8]) -> Option<Self> {
        let at = content.iter().rposition(|b| *b == b')')?;
        let rest = std::str::from_utf8(&content[at + 1..]).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // `fields[0]` is field 3.
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            state: *field(3)?.as_bytes().first()?,
            ppid: field(4)?.parse().ok()?,
            flags: field(9)?.parse().ok()?,
            start_ticks: field(22)?.parse().ok()?,
        })
    }
}

/// This life of the machine.
pub(super) fn boot_id() -> io::Result<BootId> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    u128::from_str_radix(&digits, 16)
        .map(BootId)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// `pid` is this process or one that it descends from (its shell, `sudo`).
fn runs_us(pid: u32) -> bool {
    let mut own = getpid().as_raw_nonzero().get().unsigned_abs();
    // Bounded, should parents change while this climbs.
    for _ in 0..64 {
        if own == pid {
            return true;
        }
        match Stat::read(own) {
            Ok(stat) if stat.ppid > 1 => own = stat.ppid,
            _ => return false,
        }
    }
    false
}

fn vanished(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_the_start_time() {
        let tail = " S 7 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4321 0 0";
        for name in ["sleep", "a b", ") S 1 1 1 0 -1 0", ")\n) (", ""] {
            let stat = Stat::parse(format!("42 ({name}){tail}").as_bytes()).unwrap();
            assert_eq!((stat.state, stat.ppid, stat.flags), (b'S', 7, 4_194_560), "{name}");
            assert_eq!(stat.start_ticks, 4321, "{name}");
        }
        assert_eq!(Stat::parse(b"42 (x) S 7 1"), None);
        assert_eq!(Stat::parse(b""), None);
    }

    #[test]
    fn a_pidfd_says_whose_it_is() {
        let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        assert_eq!(shown_pid(&own).unwrap(), Shown::As(std::process::id()));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let other = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        assert_eq!(shown_pid(&other).unwrap(), Shown::As(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(shown_pid(&other).unwrap(), Shown::Gone);
        let info = "pos:\t0\nflags:\t02000002\nPid:\t0\nNSpid:\t0\n";
        assert_eq!(parse_shown(info), Some(Shown::As(0)), "not in that namespace");
        assert_eq!(parse_shown("pos:\t0\nNSpid:\t7\n"), None);
    }

    #[test]
    fn init_ourselves_and_what_runs_us_are_spared() {
        let boot = boot_id().unwrap();
        let target = |pid: u32| Target {
            id: ProcessId { boot, pid, start_ticks: Stat::read(pid).map_or(0, |s| s.start_ticks) },
            cgroup: "/".into(),
            comm: "x".into(),
        };
        assert!(matches!(Pinned::new(target(0)), Err(Spared::Init(_))));
        assert!(matches!(Pinned::new(target(1)), Err(Spared::Init(_))));
        let own = std::process::id();
        assert!(matches!(Pinned::new(target(own)), Err(Spared::Own(_))));
        let parent = Stat::read(own).unwrap().ppid;
        assert!(matches!(Pinned::new(target(parent)), Err(Spared::Own(_) | Spared::Init(_))));
    }

    #[test]
    fn a_thread_is_no_target() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            sender.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            let _ = stopped.recv();
        });
        let tid = receiver.recv().unwrap().unsigned_abs();
        let target = Target {
            id: ProcessId { boot: boot_id().unwrap(), pid: tid, start_ticks: 1 },
            cgroup: "/".into(),
            comm: "thread".into(),
        };
        assert!(matches!(Pinned::new(target), Err(Spared::Thread(_))));
        drop(stop);
        thread.join().unwrap();
    }

    #[test]
    fn kernel_threads_are_known_by_their_flag() {
        // kthreadd is pid 2 where the host's pids are seen at all.
        if std::fs::read("/proc/2/comm").is_ok_and(|c| c == b"kthreadd\n") {
            let target = Target {
                id: ProcessId {
                    boot: boot_id().unwrap(),
                    pid: 2,
                    start_ticks: Stat::read(2).unwrap().start_ticks,
                },
                cgroup: "/".into(),
                comm: "kthreadd".into(),
            };
            assert!(matches!(Pinned::new(target), Err(Spared::Kernel(_))));
        }
    }
}
