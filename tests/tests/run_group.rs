//! `leakwatch run`: the cgroup that the command is given, who is found in it, that
//! nothing of it remains, and that no number of processes keeps it from ending.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use leakwatch_tests::agent::{binary, run};
use leakwatch_tests::cgroup;
use leakwatch_tests::component::{need, need_program, need_root};
use leakwatch_tests::procfs::alive;
use leakwatch_tests::wait::{SOON, wait_until};
use serde_json::Value;

/// Where cgroups can be made.
fn mount() -> Option<PathBuf> {
    need_root()?;
    need("a cgroup v2 hierarchy", cgroup::mount())
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stderr)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// The numbers of the processes that were left.
fn left(report: &Value) -> Vec<u32> {
    let findings = report["findings"].as_array().expect("findings").iter();
    let pids = findings.filter(|f| f["what"] == "process").flat_map(|f| {
        assert_eq!((&f["leak"], f["count"].as_u64()), (&true.into(), f["processes"].as_u64()));
        f["pids"].as_array().expect("a list").clone()
    });
    pids.map(|pid| pid.as_u64().expect("a number") as u32).collect()
}

fn kill(pid: u32, signal: libc::c_int) {
    // SAFETY: no memory is involved.
    assert_eq!(unsafe { libc::kill(pid.cast_signed(), signal) }, 0);
}

/// The version 2 cgroup in a text of /proc/PID/cgroup.
fn of(text: &str) -> &str {
    text.lines().find_map(|l| l.strip_prefix("0::")).unwrap_or_else(|| panic!("none: {text}"))
}

#[test]
fn the_command_has_a_cgroup_of_its_own_and_takes_nothing_from_it() {
    let Some(mount) = mount() else { return };
    let output = run(&["run", "--format=json", "--", "cat", "/proc/self/cgroup"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(of(&text).contains("/leakwatch-run-"), "{text}");
    assert!(!mount.join(of(&text).trim_start_matches('/')).exists(), "{text}");
    assert_eq!(json(&output)["scope"], "cgroup");
    let missing = run(&["run", "--", "/no/such/command"]);
    assert_eq!(missing.status.code(), Some(127));
}

#[test]
fn a_daemon_is_found_and_is_where_it_would_be_without() {
    if mount().is_none() {
        return;
    }
    // Its parent has gone, its session is another one.
    let script = "(setsid sleep 1000 >/dev/null 2>&1 & echo $!) ; exit 0";
    let output = run(&["run", "--format=json", "--fail-on-leak", "--", "sh", "-c", script]);
    let pid: u32 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"));
    let report = json(&output);
    kill(pid, libc::SIGKILL);
    assert_eq!((left(&report), output.status.code()), (vec![pid], Some(3)), "{report}");
    let own = fs::read_to_string("/proc/self/cgroup").expect("it is there");
    assert_eq!(of(&text.expect("it lives")), of(&own));
}

/// Starts `sleep` by a clone(2) that no tracer sees, and says its number.
const UNTRACED: &str = "
import ctypes, os, platform
number = {'x86_64': 56, 'aarch64': 220}[platform.machine()]
CLONE_UNTRACED, SIGCHLD = 0x00800000, 17
pid = ctypes.CDLL(None).syscall(number, CLONE_UNTRACED | SIGCHLD, 0, 0, 0, 0)
if pid == 0:
    os.setsid()
    null = os.open('/dev/null', os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.execvp('sleep', ['sleep', '1000'])
print(pid)
";

#[test]
fn who_hides_from_the_tracer_is_found_in_the_cgroup() {
    if mount().is_none() || need_program("python3").is_none() {
        return;
    }
    let output = run(&["run", "--format=json", "--", "python3", "-c", UNTRACED]);
    let pid: u32 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
    let report = json(&output);
    kill(pid, libc::SIGKILL);
    assert_eq!(left(&report), [pid], "{report}");
}

/// Its cgroup, once the command runs.
fn started(script: &str) -> (Child, String) {
    let mut child = Command::new(binary())
        .args(["run", "--report=/dev/null", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("leakwatch starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let cgroup = lines.find_map(|line| Some(line.ok()?.strip_prefix("0::")?.to_owned()));
    (child, cgroup.expect("a line"))
}

#[test]
fn nothing_remains_when_leakwatch_is_told_to_end() {
    let Some(mount) = mount() else { return };
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the default action, of this process and of those that it starts.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        let (mut child, cgroup) = started("cat /proc/self/cgroup; exec sleep 1000");
        let dir = mount.join(cgroup.trim_start_matches('/'));
        assert!(dir.exists(), "{cgroup}");
        kill(child.id(), signal);
        let status = child.wait().expect("it ends");
        assert!(status.signal() == Some(signal) || status.code() == Some(128 + signal), "{status}");
        assert!(!dir.exists(), "{cgroup}");
    }
}

#[test]
fn what_a_killed_one_has_left_the_next_one_removes() {
    let Some(mount) = mount() else { return };
    let (mut child, cgroup) = started("echo $$; cat /proc/self/cgroup; exec sleep 1000");
    let dir = mount.join(cgroup.trim_start_matches('/'));
    let members = fs::read_to_string(dir.join("cgroup.procs")).expect("it is there");
    kill(child.id(), libc::SIGKILL);
    child.wait().expect("it ends");
    for pid in members.lines().map(|l| l.parse::<u32>().expect("a number")) {
        // Whoever is traced may have gone with its tracer.
        if alive(pid) {
            kill(pid, libc::SIGKILL);
        }
    }
    wait_until("the cgroup to be empty", SOON, || {
        let text = fs::read_to_string(dir.join("cgroup.procs")).ok()?;
        text.is_empty().then_some(())
    });
    assert!(dir.exists());
    run(&["run", "--", "true"]);
    assert!(!dir.exists());
}

/// Four lines of processes, each of which makes the next and ends, as long as a file is
/// there: so they end with the test, however it ends.
const STORM: &str = "
import os, sys
for line in range(4):
    if os.fork() == 0:
        null = os.open('/dev/null', os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        for n in range(20_000):
            if not os.path.exists(sys.argv[1]):
                os._exit(0)
            if os.fork():
                os._exit(0)
        os._exit(0)
";

#[test]
fn processes_that_fork_without_end_do_not_keep_it_from_its_own() {
    if need_program("python3").is_none() {
        return;
    }
    let target = binary().parent().expect("it is in a directory").to_owned();
    let dir = tempfile::TempDir::with_prefix_in("leakwatch-test-", target).expect("a directory");
    let goes_on = dir.path().join("goes-on");
    fs::write(&goes_on, "").expect("it can be written");
    let path = goes_on.display().to_string();
    let output = run(&["run", "--format=json", "--", "python3", "-c", STORM, &path]);
    fs::remove_file(&goes_on).expect("it is there");
    let report = json(&output);
    // Four lines go on, and who of them was there in that moment is chance.
    assert!(!left(&report).is_empty(), "{report}");
    assert_eq!(output.status.code(), Some(0));
}
