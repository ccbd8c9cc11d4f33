//! Acts on real processes.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::act::{Act, Job, Report};
use super::record::Outcome;
use super::target::{Stat, Target, boot_id};
use crate::attribution::hierarchy;
use crate::source::model::ProcessId;

const GRACE: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_secs(5);

/// A child that is ended and reaped when the test is over.
pub(super) struct Running(Child);

impl Running {
    fn spawn(program: &str, args: &[&str]) -> Self {
        let child = Command::new(program).args(args).stdout(Stdio::piped()).spawn().unwrap();
        Self(child)
    }

    pub(super) fn sleep() -> Self {
        Self::spawn("sleep", &["60"])
    }

    /// A shell script that says `r` once it is ready. Under nohup a shell could not trap
    /// SIGHUP.
    fn script(text: &str) -> Self {
        let mut running = Self::spawn("env", &["--default-signal=HUP", "sh", "-c", text]);
        let mut ready = [0];
        running.0.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        running
    }

    pub(super) fn target(&self) -> Target {
        let pid = self.0.id();
        let cgroup = hierarchy::choose(&std::fs::read(format!("/proc/{pid}/cgroup")).unwrap());
        let start_ticks = Stat::read(pid).unwrap().start_ticks;
        Target {
            id: ProcessId { boot: boot_id().unwrap(), pid, start_ticks },
            cgroup,
            comm: "child".into(),
        }
    }

    pub(super) fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// The signal that ended it.
    pub(super) fn ended_by(&mut self) -> Option<i32> {
        self.0.wait().unwrap().signal()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn kill(targets: Vec<Target>) -> Report {
    Act { number: 1, job: Job::KillOrphans { targets, grace: GRACE, timeout: TIMEOUT } }.perform()
}

fn signal(targets: Vec<Target>, signal: i32) -> Report {
    Act { number: 1, job: Job::Signal { targets, signal } }.perform()
}

#[test]
fn sigterm_ends_and_death_is_seen_at_once() {
    let mut children: Vec<_> = (0..5).map(|_| Running::sleep()).collect();
    let began = Instant::now();
    let report = kill(children.iter().map(Running::target).collect());
    assert_eq!(report.outcome, Outcome::Pending, "{}", report.detail);
    assert_eq!(report.hit.len(), 5);
    assert!(began.elapsed() < Duration::from_secs(1));
    for child in &mut children {
        assert_eq!(child.ended_by(), Some(libc::SIGTERM));
    }
}

#[test]
fn who_ignores_sigterm_is_killed_after_the_grace() {
    let mut stubborn = Running::script("trap '' TERM; echo r; while :; do sleep 1; done");
    let mut easy = Running::sleep();
    let began = Instant::now();
    let report = kill(vec![stubborn.target(), easy.target()]);
    assert!(began.elapsed() >= GRACE);
    assert_eq!(report.outcome, Outcome::Pending, "{}", report.detail);
    assert!(report.detail.contains("SIGTERM") && report.detail.contains("SIGKILL"));
    assert_eq!(stubborn.ended_by(), Some(libc::SIGKILL));
    assert_eq!(easy.ended_by(), Some(libc::SIGTERM));
}

#[test]
fn a_stopped_process_is_ended_too() {
    let mut stopped = Running::sleep();
    assert_eq!(signal(vec![stopped.target()], libc::SIGSTOP).outcome, Outcome::Pending);
    assert_eq!(kill(vec![stopped.target()]).outcome, Outcome::Pending);
    assert!(stopped.ended_by().is_some());
}

#[test]
fn whoever_is_not_the_target_is_left_alone_and_the_others_are_not() {
    type Change = fn(&mut Target);
    let changes: [(&str, Change); 3] = [
        ("another process's now", |t| t.id.start_ticks += 1),
        ("last reboot", |t| t.id.boot.0 ^= 1),
        ("moved to cgroup", |t| t.cgroup = "/somewhere/else".into()),
    ];
    for (why, change) in changes {
        let (mut spared, mut ended) = (Running::sleep(), Running::sleep());
        let mut wrong = spared.target();
        change(&mut wrong);
        let alone = kill(vec![wrong.clone()]);
        assert_eq!((alone.outcome, alone.hit.len()), (Outcome::Refused, 0), "{why}");
        assert_eq!(signal(vec![wrong.clone()], libc::SIGKILL).outcome, Outcome::Refused, "{why}");
        let report = kill(vec![wrong, ended.target()]);
        assert_eq!(report.outcome, Outcome::Pending, "{why}");
        assert_eq!(report.hit, [ended.target().id], "{why}");
        assert!(report.detail.contains(why), "{why}: {}", report.detail);
        assert_eq!(ended.ended_by(), Some(libc::SIGTERM));
        assert!(spared.lives(), "{why}");
    }
}

#[test]
fn zombies_and_the_gone_are_refused() {
    let mut child = Running::spawn("true", &[]);
    let target = child.target();
    while Stat::read(target.id.pid).unwrap().state != b'Z' {
        std::thread::sleep(Duration::from_millis(1));
    }
    let report = kill(vec![target.clone()]);
    assert_eq!(report.outcome, Outcome::Refused);
    assert!(report.detail.contains("zombie"), "{}", report.detail);
    child.0.wait().unwrap();
    let report = kill(vec![target]);
    assert_eq!(report.outcome, Outcome::Refused);
    assert!(report.detail.contains("gone"), "{}", report.detail);
}

#[test]
fn a_signal_reaches_who_handles_it() {
    for (number, trap) in [(libc::SIGHUP, "HUP"), (libc::SIGRTMIN() + 1, "RTMIN+1")] {
        // dash knows no real-time names, but all numbers.
        let trap = if trap == "HUP" { trap.to_owned() } else { number.to_string() };
        let script = format!("trap 'echo s' {trap}; echo r; while :; do sleep 0.01; done");
        let mut child = Running::script(&script);
        let report = signal(vec![child.target()], number);
        assert_eq!(report.outcome, Outcome::Pending, "{}", report.detail);
        let mut said = [0; 2];
        child.0.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        assert_eq!(&said, b"\ns");
        assert!(child.lives());
    }
}

#[test]
fn without_permission_it_says_what_to_grant() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut child = Running::sleep();
    let target = child.target();
    // By the bare system call only this thread becomes nobody.
    let report = std::thread::spawn(move || {
        const NOBODY: libc::uid_t = 65_534;
        // SAFETY: setresuid(2) takes three integers.
        let rc = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
        assert_eq!(rc, 0);
        kill(vec![target])
    });
    let report = report.join().unwrap();
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.detail.contains("CAP_KILL"), "{}", report.detail);
    assert!(child.lives());
}
