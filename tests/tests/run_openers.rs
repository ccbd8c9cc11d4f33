//! `leakwatch run` as root: who opened what is open at the end, by function and line; and
//! the threads that ran then; and a test of a crate under `cargo test`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use leakwatch_tests::agent::{binary, run};
use leakwatch_tests::component::{need_program, need_root};
use leakwatch_tests::fixture;
use serde_json::{Value, json};
use tempfile::TempDir;

fn dir() -> TempDir {
    // Beside the binary: what is in the directories for temporary files is a finding.
    let target = binary().parent().expect("it is in a directory").to_owned();
    TempDir::with_prefix_in("leakwatch-test-", target).expect("a temporary directory")
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stderr)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn findings<'a>(report: &'a Value, what: &str) -> Vec<&'a Value> {
    let all = report["findings"].as_array().expect("findings").iter();
    all.filter(|f| f["what"] == what).collect()
}

/// Counts, functions and lines.
fn openers(finding: &Value) -> Vec<(u64, String, Option<u64>)> {
    let of = finding["openers"].as_array().expect("a list").iter();
    of.map(|o| {
        let function = o["function"].as_str().expect("a name").to_owned();
        (o["count"].as_u64().expect("a count"), function, o["line"].as_u64())
    })
    .collect()
}

#[test]
fn each_call_site_is_named_with_its_count() {
    if need_root().is_none() {
        return;
    }
    let dir = dir();
    let program = fixture::put(dir.path(), "short").display().to_string();
    // Twice: what lives for a moment only is seen as well, and counts are of the worst.
    let script = "\"$0\" few; \"$0\" few";
    let output =
        run(&["run", "--format=json", "--fail-on-leak", "--", "sh", "-c", script, &program]);
    let report = report(&output);
    let descriptors = findings(&report, "descriptors");
    assert_eq!(descriptors.len(), 1, "{report}");
    let found = descriptors[0];
    assert_eq!(
        (&found["program"], &found["kind"], &found["count"], &found["processes"]),
        (&json!("short"), &json!("eventfd"), &json!(12), &json!(2)),
        "{report}"
    );
    let line = Some(u64::from(fixture::line("OPENS")));
    let want = [
        (7, "opener_fixture::event_descriptor".to_owned(), line),
        (5, "opener_fixture::aside".to_owned(), line),
    ];
    assert_eq!(openers(found), want, "{report}");
    assert_eq!(output.status.code(), Some(3));

    let text = run(&["run", "--", &program, "few"]);
    let said = String::from_utf8_lossy(&text.stderr);
    assert!(said.contains("opened 7 in opener_fixture::event_descriptor ("), "{said}");
}

/// Stacks by frame pointers end in the C library there. Some are copied when something is
/// opened, the first one and then fewer and fewer.
#[test]
fn a_program_without_frame_pointers_has_openers_for_some_of_it() {
    if need_root().is_none() {
        return;
    }
    let dir = dir();
    let program = fixture::put_forgets(dir.path(), "forgets", true).display().to_string();
    let script = "{ echo; sleep 1; } | \"$0\" leak 100 >/dev/null";
    let arguments = ["run", "--format=json", "--", "sh", "-c", script, &program];
    let report = report(&run(&arguments));
    let mut descriptors = findings(&report, "descriptors");
    descriptors.retain(|f| f["program"] == "forgets");
    assert_eq!(descriptors.len(), 1, "{report}");
    let line = Some(u64::from(fixture::line_in_c("OPENS")));
    let found = openers(descriptors[0]);
    let [(count, function, at)] = found.as_slice() else { panic!("{report}") };
    assert_eq!((function.as_str(), *at), ("open_part", line), "{report}");
    let all = descriptors[0]["count"].as_u64().expect("a number");
    assert!((2..all).contains(count), "{count} of {all}: {report}");
    let blind = report["blind"].as_array().expect("a list");
    assert!(blind.iter().any(|b| b.to_string().contains("opened some of it")), "{report}");
}

#[test]
fn without_probes_the_program_is_the_opener_and_it_is_said() {
    let dir = dir();
    let program = fixture::put(dir.path(), "short").display().to_string();
    let output = run(&["run", "--format=json", "--no-probes", "--", &program, "few"]);
    let report = report(&output);
    let descriptors = findings(&report, "descriptors");
    assert_eq!(descriptors.len(), 1, "{report}");
    assert_eq!((&descriptors[0]["count"], openers(descriptors[0])), (&json!(12), vec![]));
    let blind = report["blind"].as_array().expect("a list");
    assert!(
        blind.iter().any(|b| b.as_str().is_some_and(|b| b.contains("--no-probes"))),
        "{report}"
    );
}

#[test]
fn who_made_a_temporary_file_is_named() {
    if need_root().is_none() {
        return;
    }
    let dir = dir();
    let program = fixture::put(dir.path(), "short").display().to_string();
    let output = run(&["run", "--format=json", "--", &program, "scratch"]);
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    fs::remove_file(&path).expect("it was left");
    let report = report(&output);
    let mut files = findings(&report, "temporary_file");
    // Other programs use the directory, too.
    files.retain(|f| f["path"] == path.as_str());
    assert_eq!(files.len(), 1, "{report}");
    let functions: Vec<_> = openers(files[0]).into_iter().map(|(n, f, _)| (n, f)).collect();
    let want = [(1, "opener_fixture::make_scratch_file".to_owned())];
    assert_eq!((functions.as_slice(), &files[0]["leak"]), (&want[..], &json!(true)), "{report}");
}

/// Three threads that go on, or are waited for.
const THREADS: &str = "
import os, sys, threading, time
goes_on = sys.argv[1] == 'on'
threads = [threading.Thread(target=time.sleep, args=(1000 if goes_on else 0,), daemon=True)
           for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    goes_on or thread.join()
# Before Python 3.13 one that was joined may still be ending.
while not goes_on and len(os.listdir('/proc/self/task')) > 1:
    time.sleep(0.001)
";

#[test]
fn threads_that_run_at_the_end_are_counted_and_those_that_were_joined_are_not() {
    if need_program("python3").is_none() {
        return;
    }
    for (mode, strict, want) in [
        ("on", &[][..], Some((3, false, 0))),
        ("on", &["--strict"], Some((3, true, 3))),
        ("joined", &["--strict"], None),
    ] {
        let flags = ["run", "--format=json", "--fail-on-leak"];
        let command = ["--", "python3", "-c", THREADS, mode];
        let output = run(&[&flags[..], strict, &command].concat());
        let report = report(&output);
        let threads = findings(&report, "threads");
        let seen: Vec<_> = threads.iter().map(|f| (f["count"].as_u64(), &f["leak"])).collect();
        let expected: Vec<_> = want.iter().map(|(n, leak, _)| (Some(*n), json!(leak))).collect();
        assert_eq!(
            seen,
            expected.iter().map(|(n, leak)| (*n, leak)).collect::<Vec<_>>(),
            "{mode}: {report}"
        );
        if let Some((_, _, status)) = want {
            assert_eq!(output.status.code(), Some(status), "{report}");
            assert_eq!(threads[0]["program"], "python3");
        }
    }
}

/// Leaves nine files open, unless it is to be innocent.
const CRATE: &str = "
#[test]
fn keeps_its_files_open() {
    for i in 0..9 {
        let file = std::fs::File::create(format!(\"left-{i}.dat\")).unwrap();
        if std::env::var_os(\"INNOCENT\").is_none() {
            std::mem::forget(file);
        }
    }
}
";

fn cargo_test(dir: &Path, innocent: bool) -> (Value, Option<i32>) {
    let file = dir.join("report.json");
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let mut command = Command::new(binary());
    command
        .args(["run", "--fail-on-leak", "--format=json", "--report"])
        .arg(&file)
        .args(["--", cargo, "test", "--offline", "--quiet"])
        .current_dir(dir)
        .env("CARGO_NET_OFFLINE", "true")
        .env("CARGO_TARGET_DIR", dir.join("target"))
        // Of the cargo that runs this suite.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    if innocent {
        command.env("INNOCENT", "1");
    }
    let output = command.output().expect("leakwatch starts");
    let text = fs::read(&file).expect("it was written");
    let said = String::from_utf8_lossy(&output.stderr);
    (serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{e}: {said}")), output.status.code())
}

#[test]
fn a_test_that_leaks_fails_cargo_test_and_an_innocent_one_does_not() {
    let dir = dir();
    fs::create_dir(dir.path().join("src")).expect("a directory");
    let manifest =
        "[package]\nname = \"leaky\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
    fs::write(dir.path().join("Cargo.toml"), manifest).expect("a file");
    fs::write(dir.path().join("src/lib.rs"), CRATE).expect("a file");
    let (report, status) = cargo_test(dir.path(), false);
    let found = findings(&report, "descriptors");
    assert_eq!((found.len(), status), (1, Some(3)), "{report}");
    assert_eq!((&found[0]["count"], &found[0]["processes"]), (&json!(9), &json!(1)), "{report}");
    let path = found[0]["path"].as_str().expect("a path");
    assert!(path.ends_with("/left-{n}.dat"), "{report}");
    // Built already: now the test alone.
    let (report, _) = cargo_test(dir.path(), true);
    assert_eq!(findings(&report, "descriptors"), Vec::<&Value>::new(), "{report}");
    assert_eq!(report["status"], 0, "{report}");
}
