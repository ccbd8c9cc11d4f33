//! `leakwatch run`: what a command leaves is named and counted, innocents are not,
//! and the command notices nothing of it.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use leakwatch_tests::agent::{binary, run, run_under};
use leakwatch_tests::component::{need_program, need_root};
use leakwatch_tests::install;
use leakwatch_tests::procfs::{self, alive};
use leakwatch_tests::wait::{SOON, wait_until};
use serde_json::Value;
use tempfile::TempDir;

/// Opens `n` files in a directory and ends with them open, or closes each.
const SCRIPT: &str = "
import os, sys
for i in range(int(sys.argv[2])):
    fd = os.open(f'{sys.argv[1]}/part-{i}.dat', os.O_CREAT | os.O_RDWR)
    sys.argv[3] == 'leak' or os.close(fd)
";

/// Holds more and more files while it runs, and none at its end.
/// Looks take a fiftieth of the processor at most, so on a busy host there are few of them.
const GROWING: &str = "
import sys, time
kept = []
for i in range(40):
    kept.append(open(f'{sys.argv[1]}/part-{i}.dat', 'w'))
    time.sleep(0.4)
for file in kept:
    file.close()
";

/// In the environment of this test binary when `leakwatch run` runs it.
const DIRECTORY: &str = "LEAKWATCH_TEST_OF_RUN";

fn dir() -> TempDir {
    // Beside the binary: what is in the directories for temporary files is a finding.
    let target = binary().parent().expect("it is in a directory").to_owned();
    TempDir::with_prefix_in("leakwatch-test-", target).expect("a temporary directory")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stderr)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn script(dir: &Path, n: &str, mode: &str, flags: &[&str]) -> Output {
    let dir = dir.display().to_string();
    let command = ["--", "python3", "-c", SCRIPT, &dir, n, mode];
    run(&[&["run", "--format=json", "--fail-on-leak"], flags, &command].concat())
}

/// Count and kind of the findings of one sort that count; temporary files that another
/// suite makes meanwhile are only mentioned.
fn leaks(report: &Value, what: &str) -> Vec<(u64, Value)> {
    let findings = report["findings"].as_array().expect("findings");
    let ours = findings.iter().filter(|f| f["leak"] == true && f["what"] == what);
    ours.map(|f| (f["count"].as_u64().expect("a count"), f["kind"].clone())).collect()
}

#[test]
fn a_script_that_leaks_files_is_named_with_their_count() {
    if need_program("python3").is_none() {
        return;
    }
    let dir = dir();
    let output = script(dir.path(), "10", "leak", &[]);
    let report = json(&output);
    assert_eq!(leaks(&report, "descriptors"), [(10, "regular".into())], "{report}");
    assert_eq!(output.status.code(), Some(3));

    // The known is left out, until there is more of it.
    let known = dir.path().join("known.json");
    fs::write(&known, &output.stderr).expect("it can be written");
    let baseline = format!("--baseline={}", known.display());
    let again = script(dir.path(), "10", "leak", &[&baseline]);
    let report = json(&again);
    assert_eq!((leaks(&report, "descriptors"), again.status.code()), (vec![], Some(0)), "{report}");
    assert_eq!(report["known"], 1);
    let more = script(dir.path(), "11", "leak", &[&baseline]);
    assert_eq!(leaks(&json(&more), "descriptors"), [(11, "regular".into())]);
    assert_eq!(more.status.code(), Some(3));
}

#[test]
fn closed_files_and_a_few_are_innocent_but_not_when_strict() {
    if need_program("python3").is_none() {
        return;
    }
    let dir = dir();
    for (n, mode) in [("10", "close"), ("4", "leak")] {
        let output = script(dir.path(), n, mode, &[]);
        assert_eq!(output.status.code(), Some(0), "{n} {mode}: {}", json(&output));
    }
    let one = ["sh", "-c", "exec 3</etc/passwd"];
    let strict =
        run(&[&["run", "--format=json", "--fail-on-leak", "--strict", "--"], &one[..]].concat());
    let report = json(&strict);
    assert_eq!(leaks(&report, "descriptors"), [(1, "regular".into())], "{report}");
}

#[test]
fn what_grows_while_it_runs_is_mentioned_and_counts_when_strict() {
    if need_program("python3").is_none() {
        return;
    }
    let dir = dir();
    let path = dir.path().display().to_string();
    for (flags, counts) in [(&[][..], false), (&["--strict"], true)] {
        let line = ["--", "python3", "-c", GROWING, &path];
        let report = json(&run(&[&["run", "--format=json"], flags, &line].concat()));
        let findings = report["findings"].as_array().expect("findings").iter();
        let ours: Vec<&Value> = findings
            .filter(|f| f["path"].as_str().is_some_and(|p| p.ends_with("/part-{n}.dat")))
            .collect();
        assert_eq!(ours.len(), 1, "{report}");
        assert_eq!((&ours[0]["what"], &ours[0]["leak"]), (&"growing".into(), &counts.into()));
        assert!((5..=40).contains(&ours[0]["count"].as_u64().expect("a count")), "{report}");
        for i in 0..40 {
            fs::remove_file(dir.path().join(format!("part-{i}.dat"))).expect("it was made");
        }
    }
}

/// Not a test of its own, but the one that the next runs.
#[test]
fn a_test_that_leaks() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    for i in 0..9 {
        let file = Path::new(&dir).join(format!("{i}.dat"));
        std::mem::forget(fs::File::create(file).expect("it can be made"));
    }
}

#[test]
fn a_rust_test_binary_that_leaks_is_named() {
    let dir = dir();
    let this = std::env::current_exe().expect("it runs");
    let report = dir.path().join("report.json");
    let status = leakwatch()
        .args(["run", "--fail-on-leak", "--format=json", "--report"])
        .arg(&report)
        .arg("--")
        .arg(this)
        .args(["--exact", "a_test_that_leaks"])
        .env(DIRECTORY, dir.path())
        .stdout(Stdio::null())
        .status()
        .expect("leakwatch starts");
    let report = fs::read(report).expect("it was written");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!(leaks(&report, "descriptors"), [(9, "regular".into())], "{report}");
    assert_eq!(status.code(), Some(3));
}

#[test]
fn an_innocent_pipeline_passes_with_its_streams() {
    let pipeline = "cat | tr a-z A-Z | sort; echo told >&2";
    let mut child = leakwatch()
        .args(["run", "--fail-on-leak", "--report=/dev/null", "--", "sh", "-c", pipeline])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("leakwatch starts");
    child.stdin.take().expect("a pipe").write_all(b"b\na\n").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"A\nB\n"[..], &b"told\n"[..]));

    // The shell is one, and one each of the pipeline, all at once or one after another.
    let output = run(&["run", "--format=json", "--fail-on-leak", "--", "sh", "-c", pipeline]);
    let report = String::from_utf8_lossy(&output.stderr).replace("told\n", "");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!((&report["processes"], output.status.code()), (&4.into(), Some(0)), "{report}");
    assert_eq!(leaks(&report, "descriptors"), []);
}

#[test]
fn the_status_of_the_command_passes() {
    for (script, want) in [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill $$", 143)] {
        let output = run(&["run", "--", "sh", "-c", script]);
        assert_eq!(output.status.code(), Some(want), "{script}");
    }
    for (command, want, why) in
        [("/nonexistent", 127, "No such file or directory"), ("/", 126, "Permission denied")]
    {
        let output = run(&["run", "--", command]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(want));
        assert!(said.starts_with(&format!("leakwatch: {command}: {why}")), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(run(&["run"]).status.code(), Some(2));
    let unwritable = run(&["run", "--report=/nonexistent/r", "--", "sh", "-c", "echo ran"]);
    assert_eq!((unwritable.status.code(), &unwritable.stdout[..]), (Some(1), &b""[..]));
    let unreadable = run(&["run", "--baseline=/dev/null", "--", "sh", "-c", "echo ran"]);
    assert_eq!((unreadable.status.code(), &unreadable.stdout[..]), (Some(1), &b""[..]));
}

/// A command of a shell under `leakwatch run`, and the lines it prints.
/// The agent's binary, with the signals of a terminal.
fn leakwatch() -> Command {
    usual_signals();
    Command::new(binary())
}

/// Whoever runs the suites in the background of a script has the signals of a terminal
/// ignored, and that is inherited.
fn usual_signals() {
    for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the default action, of this process and of those that it starts.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

fn lines_of(script: &str) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut command = leakwatch();
    command.args(["run", "--report=/dev/null", "--", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("leakwatch starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    (child, lines)
}

fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    lines.next().expect("a line").expect("text")
}

#[test]
fn signals_reach_the_command() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1] {
        let trap =
            format!("trap 'echo got; exit 5' {signal}; echo ready; while :; do sleep 0.1; done");
        let (mut child, mut lines) = lines_of(&trap);
        assert_eq!(next(&mut lines), "ready");
        send(child.id(), signal);
        assert_eq!(next(&mut lines), "got", "{signal}");
        let status = child.wait().expect("it ends");
        assert_eq!((status.code(), status.signal()), (Some(5), None), "{signal}");
    }
}

#[test]
fn a_command_that_is_stopped_is_continued_by_whoever_stopped_it() {
    for to_the_command in [true, false] {
        let (mut child, mut lines) = lines_of("echo $$; kill -STOP $$; echo went on");
        let command: u32 = next(&mut lines).parse().expect("its number");
        // Where leakwatch stopped as well, nobody would pass the news on.
        wait_until("the command to stop", SOON, || {
            matches!(procfs::state(command), Some('t' | 'T')).then_some(())
        });
        send(if to_the_command { command } else { child.id() }, libc::SIGCONT);
        assert_eq!(next(&mut lines), "went on");
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
    }
}

#[test]
fn a_report_is_written_whatever_the_command_does_to_its_file() {
    let dir = dir();
    let report = dir.path().join("report.json");
    let path = report.display().to_string();
    let flag = format!("--report={path}");
    for script in ["rm -f \"$0\"", "seq 10000 > \"$0\"", "true"] {
        run(&["run", "--format=json", &flag, "--", "sh", "-c", script, &path]);
        let text = fs::read(&report).expect("it is there");
        serde_json::from_slice::<Value>(&text).unwrap_or_else(|e| panic!("{script}: {e}"));
    }
    // Nor is one lost where there is nothing to report.
    let before = fs::read(&report).expect("it is there");
    let missing = run(&["run", &flag, "--", "/no/such/command"]);
    assert_eq!(missing.status.code(), Some(127));
    assert_eq!(fs::read(&report).expect("it is there"), before);
    let baseline = format!("--baseline={path}");
    let same = run(&["run", &baseline, &flag, "--", "true"]);
    assert_eq!(same.status.code(), Some(1), "{}", String::from_utf8_lossy(&same.stderr));
}

#[test]
fn a_command_that_is_interrupted_takes_leakwatch_along_as_shells_want_it() {
    usual_signals();
    let output = run(&["run", "--", "sh", "-c", "kill -INT $$"]);
    assert_eq!(output.status.signal(), Some(libc::SIGINT));
    let output = run(&["run", "--", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(output.status.code(), Some(143));
}

#[test]
fn a_process_left_behind_is_named() {
    let script = "sleep 1000 >/dev/null 2>&1 & echo $!";
    let output = run(&["run", "--format=json", "--fail-on-leak", "--", "sh", "-c", script]);
    let pid: u32 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
    let report = json(&output);
    let lives = alive(pid);
    send(pid, libc::SIGKILL);
    assert!(lives, "it is left as it is");
    assert_eq!(leaks(&report, "process"), [(1, Value::Null)], "{report}");
    let findings = report["findings"].as_array().expect("findings");
    assert!(findings.iter().any(|f| f["pids"] == serde_json::json!([pid])), "{report}");
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_temporary_file_left_is_named() {
    let script = "f=$(mktemp); exec 3>\"$f\"; echo $f";
    let output = run(&["run", "--format=json", "--fail-on-leak", "--", "sh", "-c", script]);
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    fs::remove_file(&path).expect("it was left");
    let report = json(&output);
    let findings = report["findings"].as_array().expect("findings");
    let ours: Vec<&Value> = findings.iter().filter(|f| f["path"] == path.as_str()).collect();
    assert_eq!(ours.len(), 1, "{report}");
    assert_eq!((&ours[0]["leak"], output.status.code()), (&Value::Bool(true), Some(3)));

    let removed = run(&["run", "--format=json", "--", "sh", "-c", "f=$(mktemp); rm $f; echo $f"]);
    let path = String::from_utf8_lossy(&removed.stdout).trim().to_owned();
    assert!(!String::from_utf8_lossy(&removed.stderr).contains(&path));
}

#[test]
fn an_unprivileged_run_sees_the_same() {
    if need_root().is_none() || need_program("setpriv").is_none() {
        return;
    }
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let dir = TempDir::with_prefix("leakwatch-test-").expect("a temporary directory");
    // Another user may not reach into the build directory.
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path(), open_to_all).expect("it is ours");
    let copy = dir.path().join("leakwatch");
    install::copy(binary(), &copy);
    let opens = "exec 3</etc/passwd 4</etc/passwd 5</etc/passwd 6</etc/passwd 7</etc/passwd";
    let output = Command::new(nobody[0])
        .args(&nobody[1..])
        .arg(copy)
        .args(["run", "--fail-on-leak", "--", "sh", "-c", opens])
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("5 open at exit: regular /etc/passwd by sh"), "{said}");
}

#[test]
fn what_may_not_be_traced_is_sampled_and_said() {
    if need_program("strace").is_none() {
        return;
    }
    // What strace follows, nobody else can trace. The command waits until it is killed,
    // long after a look.
    let strace = ["strace", "-f", "-qq", "-e", "trace=none", "-o", "/dev/null"];
    let opens = "exec 3</etc/passwd 4</etc/passwd 5</etc/passwd 6</etc/passwd 7</etc/passwd; \
                 sleep 15; exit 4";
    let output = run_under(&strace, &["run", "--fail-on-leak", "--", "sh", "-c", opens]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("the command cannot be traced: Operation not permitted"), "{said}");
    assert!(said.contains("5 open at exit: regular /etc/passwd by sh"), "{said}");
    assert!(said.contains("not seen: the command may not be traced"), "{said}");
}

fn send(pid: u32, signal: libc::c_int) {
    // SAFETY: no memory is involved.
    assert_eq!(unsafe { libc::kill(pid.cast_signed(), signal) }, 0);
}
