//! `leakwatch run`: who started the threads and processes that are left, by function and
//! line. It takes no probes, so no root.

use leakwatch_tests::agent::{binary, run, run_under};
use leakwatch_tests::fixture;
use leakwatch_tests::procfs::alive;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What leakwatch says of the fixture in this mode, and what that says.
fn report(mode: &str, strict: &[&str]) -> (Value, String) {
    // Beside the binary: what is in the directories for temporary files is a finding.
    let target = binary().parent().expect("it is in a directory").to_owned();
    let dir = TempDir::with_prefix_in("leakwatch-test-", target).expect("a temporary directory");
    let program = fixture::put(dir.path(), "short").display().to_string();
    let output =
        run(&[&["run", "--format=json", "--no-probes"], strict, &["--", &program, mode]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
    (report, String::from_utf8_lossy(&output.stdout).into_owned())
}

fn the_only<'a>(report: &'a Value, what: &str) -> &'a Value {
    let all = report["findings"].as_array().expect("findings").iter();
    let found: Vec<&Value> = all.filter(|f| f["what"] == what).collect();
    assert_eq!(found.len(), 1, "{report}");
    found[0]
}

/// Counts, functions and lines.
fn starters(finding: &Value) -> Vec<(u64, &str, Option<u64>)> {
    let of = finding["openers"].as_array().expect("a list").iter();
    of.map(|o| {
        let function = o["function"].as_str().expect("a name");
        (o["count"].as_u64().expect("a count"), function, o["line"].as_u64())
    })
    .collect()
}

fn assert_nothing_unknown(report: &Value) {
    let blind = report["blind"].as_array().expect("a list").iter();
    assert!(blind.filter_map(Value::as_str).all(|b| !b.contains("started")), "{report}");
}

#[test]
fn threads_that_run_at_the_end_have_who_started_them() {
    let (report, _) = report("threads", &["--strict"]);
    let threads = the_only(&report, "threads");
    assert_eq!((&threads["count"], &threads["leak"]), (&json!(5), &json!(true)), "{report}");
    let found = starters(threads);
    let want = [(3, "opener_fixture::start_worker"), (2, "opener_fixture::start_helper")];
    assert_eq!(found.iter().map(|(n, f, _)| (*n, *f)).collect::<Vec<_>>(), want, "{report}");
    let line = u64::from(fixture::line("STARTS A WORKER"));
    assert_eq!(found[0].2, Some(line), "{report}");
}

#[test]
fn threads_that_are_only_mentioned_are_not_looked_up() {
    let (report, _) = report("threads", &[]);
    let threads = the_only(&report, "threads");
    assert_eq!((&threads["count"], &threads["leak"]), (&json!(5), &json!(false)), "{report}");
    assert_eq!(starters(threads), [], "{report}");
    assert_nothing_unknown(&report);
}

/// One that was made has often not run yet when all are ended, where they share a CPU.
#[test]
fn threads_that_never_came_to_run_are_counted() {
    let target = binary().parent().expect("it is in a directory").to_owned();
    let dir = TempDir::with_prefix_in("leakwatch-test-", target).expect("a temporary directory");
    let program = fixture::put(dir.path(), "short").display().to_string();
    // SAFETY: no memory is involved.
    let cpu = unsafe { libc::sched_getcpu() }.to_string();
    for attempt in 0..30 {
        let arguments = ["run", "--format=json", "--no-probes", "--", &program, "threads"];
        let output = run_under(&["taskset", "--cpu-list", &cpu], &arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
        assert_eq!(the_only(&report, "threads")["count"], 5, "{attempt}: {report}");
    }
}

#[test]
fn a_process_that_is_left_has_who_started_it() {
    let (report, said) = report("leaves", &[]);
    let pid: u32 = said.trim().parse().expect("a number");
    let lived = alive(pid);
    // SAFETY: no memory is involved.
    unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
    let process = the_only(&report, "process");
    assert_eq!((lived, &process["pids"]), (true, &json!([pid])), "{report}");
    let line = u64::from(fixture::line("STARTS A PROCESS"));
    let want = [(1, "opener_fixture::start_process", Some(line))];
    assert_eq!(starters(process), want, "{report}");
}

#[test]
fn what_is_waited_for_has_nobody() {
    let (report, _) = report("few", &[]);
    for what in ["threads", "process"] {
        let all = report["findings"].as_array().expect("findings").iter();
        assert_eq!(all.filter(|f| f["what"] == what).count(), 0, "{report}");
    }
    assert_nothing_unknown(&report);
}
