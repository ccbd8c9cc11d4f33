//! What `leakwatch record` saw of a real leaker, `leakwatch replay` judges again, to
//! the byte; and what is left after kill -9, too.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use leakwatch::detection::verdict::{Leak, State};
use leakwatch_tests::agent::{FAST, binary, run, run_under};
use leakwatch_tests::component::need_root;
use leakwatch_tests::install;
use leakwatch_tests::started::{Started, python};
use leakwatch_tests::wait::{patience, wait_until};
use serde_json::Value;
use tempfile::TempDir;

/// From the start of a leaker to its verdict, at most.
const LIMIT: Duration = Duration::from_secs(60);

/// A directory with a config that has both twins of the deployer as units.
struct Place(TempDir);

impl Place {
    /// The units are called `NAME-leaks` and `NAME-closes`: suites run side by side.
    fn new(name: &str) -> Self {
        let dir = TempDir::with_prefix("leakwatch-test-").expect("a temporary directory");
        let unit = |which| {
            let name = format!("{name}-{which}");
            format!("[[unit]]\nname = \"{name}\"\ncmdline = \"*--tag t-{name}*\"\n")
        };
        let config = format!("{FAST}{}{}", unit("leaks"), unit("closes"));
        fs::write(dir.path().join("leakwatch.toml"), config).expect("it can be written");
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Starts to record into `name`.
    fn record(&self, name: &str, more: &[&str]) -> Started {
        let mut command = Command::new(binary());
        command.arg("record").arg(self.path(name)).arg("--config");
        Started::new(command.arg(self.path("leakwatch.toml")).args(more))
    }

    /// Waits until the first census is in the trace: what is begun after it is seen to grow.
    fn begun(&self, name: &str) {
        wait_until("the first census", LIMIT, || {
            let output = run(&["replay", &self.text(name)]);
            stderr(&output).contains(" censuses over ").then_some(())
        });
    }

    fn deployer(&self, unit: &str, mode: &str) -> Started {
        let log = self.text(&format!("{unit}.log"));
        let (tag, count) = (format!("t-{unit}"), ["--count", "20", "--pace", "400"]);
        let mut command = python("deployer.py");
        command.args(["--tag", &tag, "--mode", mode, "--log", &log]).args(count);
        Started::new(&mut command)
    }
}

/// Waits until it says of a unit that it is in a state.
fn hear(recorder: &mut Started, unit: &str, state: &str) {
    let begun = Instant::now();
    loop {
        let line = recorder.hear("", LIMIT);
        if line.contains(unit) && line.contains(state) {
            return;
        }
        // Others may leak on the same machine, and more than one may say so.
        assert!(begun.elapsed() < 2 * LIMIT * patience(), "{unit} is not {state}");
    }
}

/// All that it said until it ended.
fn said_until_the_end(mut recorder: Started) -> String {
    wait_until("the recorder to end", LIMIT, || recorder.ended());
    let mut text = String::new();
    // Its output is read by a thread that may lag behind its end.
    wait_until("its last line", LIMIT, || {
        while let Some(line) = recorder.heard() {
            text.push_str(&line);
            text.push('\n');
        }
        (text.contains("at the end: ") || text.contains("{\"leaks\":")).then_some(())
    });
    text
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).expect("the output is text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn leaks_of(last: &str) -> Vec<Leak> {
    let mut last: Value = serde_json::from_str(last).expect("the last line is JSON");
    serde_json::from_value(last["leaks"].take()).expect("it has all verdicts")
}

#[test]
fn a_replay_says_what_the_recording_said() {
    if need_root().is_none() {
        return;
    }
    let place = Place::new("trace");
    let mut text = place.record("text.trace", &[]);
    let mut json = place.record("json.trace", &["--json"]);
    ["text.trace", "json.trace"].iter().for_each(|name| place.begun(name));
    let leaker = place.deployer("trace-leaks", "leak");
    let innocent = place.deployer("trace-closes", "close");
    hear(&mut text, "trace-leaks", " confirmed ");
    hear(&mut json, "trace-leaks", "\"state\":\"confirmed\"");
    // Until both of them have seen its end, too.
    drop(leaker);
    hear(&mut text, "trace-leaks", " resolved ");
    hear(&mut json, "trace-leaks", "\"state\":\"resolved\"");
    let both = [text, json];
    drop(innocent);
    both.iter().for_each(|recorder| recorder.signal(libc::SIGTERM));
    let heard = both.map(|recorder| {
        let before = recorder.said();
        before + &said_until_the_end(recorder)
    });

    for (name, said, flags) in
        [("text.trace", &heard[0], &[][..]), ("json.trace", &heard[1], &["--json"])]
    {
        let mode = fs::metadata(place.path(name)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name} is nobody else's");
        for _ in 0..2 {
            let output = run(&[&["replay", &place.text(name)], flags].concat());
            assert!(output.status.success(), "{}", stderr(&output));
            assert_eq!(stdout(&output), said, "{name}");
        }
    }
    assert!(!heard[0].lines().any(|l| l.contains("trace-closes") && l.contains(" confirmed ")));
    let last = leaks_of(heard[1].lines().last().expect("a last line"));
    let ours: Vec<&Leak> = last.iter().filter(|l| &*l.unit == "trace-leaks").collect();
    assert!(ours.iter().any(|l| l.confirmed_at.is_some()), "{last:#?}");
    assert!(ours.iter().all(|l| l.state == State::Resolved), "{ours:#?}");
    assert!(!last.iter().any(|l| &*l.unit == "trace-closes" && l.confirmed_at.is_some()));

    elsewhere(&place, &heard[0]);
    // Another config judges otherwise.
    let lenient = place.path("lenient.toml");
    fs::write(&lenient, format!("{FAST}\n").replace("min_held = 5", "min_held = 500"))
        .expect("it can be written");
    let output =
        run(&["replay", &place.text("text.trace"), "--config", &lenient.display().to_string()]);
    let ours = |l: &str| l.contains("trace-leaks.log") && l.contains(" confirmed ");
    assert!(!stdout(&output).lines().any(ours), "{}", stdout(&output));
}

/// Another user, who may see nothing of this machine, replays it from a pipe.
fn elsewhere(place: &Place, said: &str) {
    let open_to_all = PermissionsExt::from_mode(0o755);
    fs::set_permissions(place.0.path(), open_to_all).expect("it is ours");
    let copy = place.path("leakwatch");
    install::copy(binary(), &copy);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]);
    command.arg(&copy).args(["replay", "-"]).current_dir("/");
    command.stdin(File::open(place.path("text.trace")).expect("it is there"));
    let output = command.stderr(Stdio::piped()).output().expect("setpriv starts");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), said);
    // No trace of /proc: the same in a namespace where it is empty.
    let hide = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"];
    let output = run_under(&hide, &["replay", &place.text("text.trace")]);
    assert_eq!(stdout(&output), said, "{}", stderr(&output));
}

#[test]
fn what_a_killed_recorder_leaves_is_replayed_and_the_end_is_told() {
    if need_root().is_none() {
        return;
    }
    let place = Place::new("torn");
    let mut recorder = place.record("torn.trace", &[]);
    place.begun("torn.trace");
    let _leaker = place.deployer("torn-leaks", "leak");
    hear(&mut recorder, "torn-leaks", " confirmed ");
    recorder.kill();
    let said = recorder.said();
    let output = run(&["replay", &place.text("torn.trace")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("torn.trace: it breaks off in line "), "{}", stderr(&output));
    let told = stdout(&output);
    assert!(told.starts_with(&said), "{told}\ninstead of\n{said}");
    assert!(told.lines().last().expect("a last line").starts_with("at the end: "), "{told}");
}

#[test]
fn a_recording_has_bounds_and_replaces_nothing_unasked() {
    let place = Place::new("bounds");
    let record = |name: &str, more: &[&str]| {
        let (trace, config) = (place.text(name), place.text("leakwatch.toml"));
        run(&[&["record", &trace, "--config", &config, "--duration", "1s"], more].concat())
    };
    let first = record("a.trace", &[]);
    assert!(first.status.success(), "{}", stderr(&first));
    assert!(stderr(&first).contains("its time is over"), "{}", stderr(&first));
    let whole = fs::read(place.path("a.trace")).expect("it is there");

    let again = record("a.trace", &[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("it is there already; name another"), "{}", stderr(&again));
    assert_eq!(fs::read(place.path("a.trace")).expect("it is there"), whole);
    symlink(place.path("a.trace"), place.path("link")).expect("a link can be made");
    let link = record("link", &["--force"]);
    assert!(stderr(&link).contains("no regular file"), "{}", stderr(&link));
    assert_eq!(fs::read(place.path("a.trace")).expect("it is there"), whole);

    let small = record("a.trace", &["--force", "--max-size", "1KiB"]);
    assert!(small.status.success(), "{}", stderr(&small));
    assert!(stderr(&small).contains("the trace has its size"), "{}", stderr(&small));
    let output = run(&["replay", &place.text("a.trace")]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("it ended: the trace has its size"), "{}", stderr(&output));
    refused(&place.path("leakwatch.toml"), "it is no trace of leakwatch");
    refused(&place.path("none"), "cannot read it");
}

fn refused(file: &Path, want: &str) {
    let output = run(&["replay", &file.display().to_string()]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
    assert!(stderr(&output).contains(want), "{}", stderr(&output));
}
