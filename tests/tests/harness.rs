//! The programs and the harness do what the other suites rely on, by /proc alone.

use std::time::Duration;

use leakwatch_tests::agent::free_address;
use leakwatch_tests::cgroup::Cgroup;
use leakwatch_tests::component::need_root;
use leakwatch_tests::procfs::{alive, children_of, fd_targets, open_fds, threads, zombies_of};
use leakwatch_tests::prometheus::Prometheus;
use leakwatch_tests::started::{Started, program, python};
use leakwatch_tests::wait::{SOON, wait_until};
use tempfile::TempDir;

/// Standard streams.
const BASE: u64 = 3;

fn dir() -> (TempDir, String) {
    let dir = TempDir::with_prefix("leakwatch-harness-").expect("a temporary directory");
    let path = dir.path().display().to_string();
    (dir, path)
}

#[test]
fn leakers_hold_exactly_what_they_say_and_their_twins_do_not() {
    let (_dir, dir) = dir();
    let db = format!("{dir}/jobs.db");
    let log = |name: &str| format!("{dir}/{name}.log");
    for (name, mode, more, wanted) in [
        ("sqlite-connections", "leak", vec!["--db", &db, "--count", "20"], BASE + 20),
        ("sqlite-connections", "pool", vec!["--db", &db, "--count", "20"], BASE + 8),
        ("rotating-logger", "hold", vec!["--log", &log("hold"), "--count", "7"], BASE + 8),
        ("rotating-logger", "until-hup", vec!["--log", &log("hup"), "--count", "7"], BASE + 8),
        ("rotating-logger", "reopen", vec!["--log", &log("reopen"), "--count", "7"], BASE + 1),
        ("connections", "pool", vec!["--count", "10"], BASE + 1 + 20),
    ] {
        let mut command = program(name);
        let mut started = Started::new(command.args(["--mode", mode, "--pace", "10"]).args(&more));
        started.ready(SOON);
        let count = || open_fds(started.pid());
        // A pool may be at work on a journal.
        wait_until(
            &format!("{wanted} descriptors of {name} {mode}, not {:?}", count()),
            SOON,
            || (count() == Some(wanted)).then_some(()),
        );
    }
    for (mode, wanted) in [("leak", BASE + 1 + 1 + 12), ("close", BASE + 1)] {
        let mut command = python("deployer.py");
        command.args(["--mode", mode, "--count", "12", "--pace", "10", "--log", &log(mode)]);
        let mut started = Started::new(&mut command);
        started.ready(SOON);
        assert_eq!(open_fds(started.pid()), Some(wanted), "{mode}");
        let logs = fd_targets(started.pid()).into_iter().filter(|(_, t)| t.ends_with("leak.log"));
        assert_eq!(logs.count(), if mode == "leak" { 13 } else { 0 });
        assert_eq!(children_of(started.pid()).len(), 1, "the last agent runs");
    }
}

#[test]
fn threads_and_zombies_are_as_many_as_asked_for() {
    for (mode, wanted) in [("leak", 2 + 15), ("pool", 2 + 8)] {
        let mut command = program("threads");
        let mut started =
            Started::new(command.args(["--mode", mode, "--count", "15", "--pace", "50"]));
        started.tell("go");
        started.ready(SOON);
        wait_until("the helpers to be gone", SOON, || {
            (threads(started.pid()) == Some(wanted)).then_some(())
        });
    }
    for (mode, wanted) in [("leak", 6), ("reap", 0)] {
        let mut command = program("children");
        let mut started =
            Started::new(command.args(["--mode", mode, "--count", "6", "--pace", "5"]));
        started.ready(SOON);
        wait_until("the last child to end", SOON, || {
            (zombies_of(started.pid()).len() == wanted).then_some(())
        });
    }
}

#[test]
fn a_logger_closes_what_is_stale_at_sighup() {
    let (_dir, dir) = dir();
    let log = format!("{dir}/x.log");
    let mut command = program("rotating-logger");
    command.args(["--mode", "until-hup", "--count", "9", "--pace", "10", "--log", &log]);
    let mut logger = Started::new(&mut command);
    logger.ready(SOON);
    assert_eq!(open_fds(logger.pid()), Some(BASE + 10));
    logger.signal(libc::SIGHUP);
    logger.hear("clean", SOON);
    // It goes on to rotate, and has two logs open from the new one's open to the old one's close.
    wait_until("the stale handles to be closed", SOON, || {
        (open_fds(logger.pid()) == Some(BASE + 1)).then_some(())
    });
}

#[test]
fn nobody_outlives_the_lifeline_not_even_orphans() {
    let mut manager = Started::new(program("manager").args(["--workers", "3"]));
    let workers: Vec<u32> =
        (0..3).map(|_| manager.hear("worker", SOON).parse().expect("worker PID")).collect();
    manager.kill();
    assert!(workers.iter().all(|pid| alive(*pid)), "they outlive their manager");
    manager.release();
    wait_until("the workers to end", SOON, || workers.iter().all(|pid| !alive(*pid)).then_some(()));
}

#[test]
fn the_storm_ends_in_stillness() {
    let mut storm = Started::new(program("storm").args(["--seconds", "1", "--threads", "4"]));
    let pids: Vec<u32> = (0..4)
        .map(|_| {
            storm.hear("quiet", SOON).rsplit(' ').next().and_then(|p| p.parse().ok()).expect("pid")
        })
        .collect();
    let count = || pids.iter().map(|pid| open_fds(*pid)).collect::<Vec<_>>();
    let before = count();
    assert!(before.iter().all(|n| n.is_some_and(|n| n > 20)), "{before:?}");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(count(), before);
    storm.release();
    wait_until("the storm to end", SOON, || pids.iter().all(|p| !alive(*p)).then_some(()));
}

#[test]
fn every_way_in_and_out_is_exact() {
    let (_dir, dir) = dir();
    for (way, out, wanted) in
        [("openat", "close", 10), ("pipe2", "close_range", 20), ("recvmsg-three", "dup3", 30)]
    {
        let arguments = ["--in", way, "--out", out, "--count", "10", "--dir", &dir];
        let mut bench = Started::new(program("syscalls").args(arguments));
        bench.ready(SOON);
        let before = open_fds(bench.pid());
        bench.tell("acquire");
        assert!(bench.hear("acquired", SOON).ends_with(&wanted.to_string()), "{way}");
        assert_eq!(open_fds(bench.pid()), before.map(|n| n + wanted), "{way}");
        bench.tell("release");
        bench.hear("released", SOON);
        assert_eq!(open_fds(bench.pid()), before, "{way} by {out}");
    }
}

#[test]
fn a_program_can_be_held_in_a_cgroup() {
    if need_root().is_none() {
        return;
    }
    let path = format!("/system.slice/leakwatch-harness-{}.service", std::process::id());
    let Some(group) = Cgroup::make(&path) else { return };
    let mut command = program("agent-runner");
    group.hold(&mut command);
    let mut inside = Started::new(&mut command);
    inside.hear("worker", SOON);
    assert_eq!(group.members(), [inside.pid()]);
    let said = std::fs::read_to_string(format!("/proc/{}/cgroup", inside.pid())).expect("it runs");
    assert!(said.contains(&format!("0::{path}\n")), "{said}");
}

#[test]
fn prometheus_runs_and_loads_the_rules() {
    let Some(prometheus) = Prometheus::start(free_address()) else { return };
    let rules = prometheus.ask("/api/v1/rules");
    assert_eq!(rules["data"]["groups"][0]["name"], "leakwatch", "{rules}");
    wait_until("the first scrape", SOON, || prometheus.value("up"));
    assert_eq!(prometheus.value("up{job=\"leakwatch\"}"), Some(0.0), "nobody listens there");
}
