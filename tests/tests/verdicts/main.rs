//! Each leaker is confirmed with the right unit, kind, rule and count, while its
//! innocent twins run beside it under the same agent and are never confirmed.

mod cast;

use std::process::Command;
use std::time::{Duration, Instant};

use leakwatch::detection::verdict::{Leak, Rule, State};
use leakwatch_tests::agent::{FAST, Plan};
use leakwatch_tests::component::{need_root, say};
use leakwatch_tests::procfs;
use leakwatch_tests::started::{Started, program, python};
use leakwatch_tests::wait::{stays, wait_until};

use cast::{Expected, INNOCENTS, LEAKERS, start_innocents, start_leakers, tagged};

/// From the start of a leaker to its verdict, at most.
const LIMIT: Duration = Duration::from_secs(60);

/// A match rule for a program with `--tag t-UNIT`.
fn unit(name: &str, more: &str) -> String {
    format!("[[unit]]\nname = \"{name}\"\ncmdline = \"*--tag t-{name}*\"\n{more}\n")
}

/// Whether this is the verdict that `wanted` is to get, with all it will hold.
fn is_verdict(leak: &Leak, wanted: &Expected) -> bool {
    &*leak.unit == wanted.unit
        && leak.rules.contains(&wanted.rule)
        && leak.kind == wanted.kind
        && leak.state == State::Confirmed
        && leak.held == wanted.held
        && (wanted.pinned == 0 || leak.pinned_bytes == wanted.pinned)
}

#[test]
fn leakers_are_confirmed_and_innocents_never() {
    if need_root().is_none() {
        return;
    }
    let mut config = FAST.to_owned();
    for name in LEAKERS.iter().map(|l| l.unit).chain(INNOCENTS.iter().copied()) {
        config.push_str(&unit(name, ""));
    }
    let agent = Plan::new(config).start();
    let dir = agent.dir().join("work");
    std::fs::create_dir(&dir).expect("a directory");
    for heirs in ["heirs-carry", "heirs-close", "heirs-once"] {
        std::fs::create_dir(dir.join(heirs)).expect("a directory");
    }
    let dir = dir.display().to_string();
    let mut innocents = start_innocents(&dir);
    let mut leakers = start_leakers(&dir);

    agent.census();
    for program in leakers.iter_mut().chain(&mut innocents) {
        // Some must be seen before they begin: see their `go`.
        program.tell("go");
    }

    // All at once: a verdict on growth ends a while after the growth has.
    let mut open: Vec<(&Expected, u32)> =
        LEAKERS.iter().zip(&leakers).map(|(wanted, leaker)| (wanted, leaker.pid())).collect();
    let begun = Instant::now();
    while !open.is_empty() {
        let leaks = agent.leaks();
        open.retain(|(wanted, pid)| {
            let Some(leak) = leaks.iter().find(|l| is_verdict(l, wanted)) else { return true };
            check(leak, wanted, *pid);
            assert_eq!(agent.json(&format!("/api/v1/leaks/{}", leak.id))["unit"], wanted.unit);
            false
        });
        if begun.elapsed() > LIMIT {
            for (wanted, _) in &open {
                let seen: Vec<_> = leaks.iter().filter(|l| &*l.unit == wanted.unit).collect();
                let (unit, rule, held) = (wanted.unit, wanted.rule, wanted.held);
                say(format_args!("{unit}: {held} {} by {rule}, not\n{seen:#?}", wanted.kind));
            }
            panic!("{} leakers were not confirmed as they should", open.len());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    for leaker in &mut leakers {
        leaker.ready(LIMIT);
    }
    for innocent in &mut innocents {
        innocent.ready(LIMIT);
    }
    // Whoever was to be confirmed late is so by now: as long again.
    let count =
        |unit: &str| agent.metrics().sum("leakwatch_leaks_confirmed_total", &[("unit", unit)]);
    stays(Duration::from_secs(8), || {
        let guilty: Vec<_> = INNOCENTS.iter().filter(|u| count(u).unwrap_or(0.0) > 0.0).collect();
        if guilty.is_empty() { Ok(()) } else { Err(guilty) }
    })
    .unwrap_or_else(|guilty| {
        let leaks: Vec<_> = INNOCENTS.iter().flat_map(|u| agent.confirmed(u)).collect();
        panic!("{guilty:?} are innocent, and were confirmed: {leaks:#?}")
    });
    for wanted in LEAKERS {
        let labels = [("unit", wanted.unit), ("rule", wanted.rule.as_str())];
        assert_eq!(agent.metrics().one("leakwatch_leaks_confirmed_total", &labels), Some(1.0));
    }
}

fn check(leak: &Leak, wanted: &Expected, pid: u32) {
    let unit = wanted.unit;
    assert_eq!(leak.unit_kind.as_str(), "rule", "{unit}");
    assert!(leak.confirmed_at >= Some(leak.first_seen), "{unit}: {leak:#?}");
    assert!(leak.confidence > 0.0 && leak.confidence <= 1.0, "{unit}: {}", leak.confidence);
    assert!(leak.oldest_age_seconds > 0.0, "{unit}");
    let numbers = leak.evidence.iter().any(|s| s.contains(|c: char| c.is_ascii_digit()));
    assert!(numbers, "{unit}: evidence has numbers: {:?}", leak.evidence);
    assert!(!leak.examples.is_empty() && leak.examples.len() <= 10, "{unit}: {leak:#?}");
    let named = leak.examples.iter().any(|e| e.path.contains(wanted.names))
        || leak.cohort.contains(wanted.names);
    assert!(
        named,
        "{unit}: {:?} is named neither in {:?} nor in its examples",
        wanted.names, leak.cohort
    );
    if wanted.kind == "process" {
        let zombies = procfs::zombies_of(pid);
        assert!(leak.examples.iter().all(|e| e.pid == pid || zombies.contains(&e.pid)), "{unit}");
    } else if wanted.rule == Rule::InheritedUnused {
        assert!(leak.examples.iter().all(|e| e.comm == "cat"), "{unit}: {:?}", leak.examples);
    } else {
        assert!(leak.examples.iter().all(|e| e.pid == pid), "{unit}: {:?}", leak.examples);
    }
    for example in &leak.examples {
        assert_eq!(example.fd.is_some(), leak.resource.as_str() == "fd", "{unit}: {example:?}");
    }
}

#[test]
fn workers_that_outlive_their_manager_are_orphans() {
    if need_root().is_none() {
        return;
    }
    let config = format!("{FAST}{}", unit("crashing", "orphans = [\"*agent-runner*\"]"));
    let agent = Plan::new(config).start();
    let mut manager = tagged(program("manager"), "crashing", &["--workers", "5"]);
    let workers: Vec<u32> =
        (0..5).map(|_| manager.hear("worker", LIMIT).parse().expect("worker PID")).collect();
    agent.census();
    assert_eq!(agent.unit("crashing").expect("it runs")["processes"], 6);
    assert!(agent.confirmed("crashing").is_empty(), "nothing is wrong yet");

    manager.kill();
    let leak = wait_until("five orphans", LIMIT, || {
        agent
            .confirmed("crashing")
            .into_iter()
            .find(|l| l.rules.contains(&Rule::Orphan) && l.held == 5)
    });
    assert_eq!((leak.resource.as_str(), leak.kind.as_str()), ("process", "process"));
    let mut named: Vec<u32> = leak.examples.iter().map(|e| e.pid).collect();
    named.sort_unstable();
    let mut wanted = workers.clone();
    wanted.sort_unstable();
    assert_eq!(named, wanted);
    assert_eq!(agent.metrics().one("leakwatch_unit_orphans", &[("unit", "crashing")]), Some(5.0));
    // No cleanup rule: nobody is touched.
    assert!(workers.iter().all(|pid| procfs::alive(*pid)));

    manager.release();
    wait_until("the verdict to end with the orphans", LIMIT, || {
        agent.leaks().into_iter().find(|l| l.id == leak.id && l.state == State::Resolved)
    });
}

#[test]
fn one_of_many_that_stays_open_is_found_where_no_lowest_count_rises() {
    if need_root().is_none() {
        return;
    }
    // Only what the probes saw opened has a lifetime.
    let config = FAST.replace("[watch]", "[watch]\nprobes = \"always\"");
    let agent = Plan::new(format!("{config}{}{}", unit("rare", ""), unit("session", ""))).start();
    let file = agent.dir().join("answer.dat");
    std::fs::write(&file, "answer").expect("room for a file");
    let file = file.display().to_string();
    let start = |unit: &str, more: &[&str]| {
        tagged(program("rare-leak"), unit, &[&["--file", &file], more].concat())
    };
    let mut leaker = start("rare", &[]);
    let session = ["--mode", "session", "--every", "150", "--stay", "2500"];
    let mut session = start("session", &session);
    leaker.ready(LIMIT);
    session.ready(LIMIT);
    let leak = wait_until("a verdict on the twelve", LIMIT, || {
        agent.confirmed("rare").into_iter().find(|l| l.held == 12)
    });
    assert!(leak.rules.contains(&Rule::Outlived), "{leak:#?}");
    assert!(leak.kind == "regular" && leak.cohort.ends_with("/answer.dat"), "{leak:#?}");
    assert!(leak.evidence.iter().any(|e| e.contains("lifetimes of their kind")), "{leak:#?}");
    let by_this = [("unit", "session"), ("rule", "outlived")];
    let count = || agent.metrics().sum("leakwatch_leaks_confirmed_total", &by_this);
    stays(Duration::from_secs(4), || match count() {
        None | Some(0.0) => Ok(()),
        guilty => Err(guilty),
    })
    .unwrap_or_else(|_| panic!("sessions end: {:#?}", agent.confirmed("session")));
}

#[test]
fn a_thread_left_behind_is_found_while_there_are_ever_fewer() {
    if need_root().is_none() {
        return;
    }
    let agent = Plan::new(format!("{FAST}{}{}", unit("falling", ""), unit("clean", ""))).start();
    let start = |unit: &str, more: &[&str]| {
        let falling = ["--mode", "falling", "--count", "50", "--pace", "250"];
        tagged(program("threads"), unit, &[&falling, more].concat())
    };
    let (mut leaker, mut clean) = (start("falling", &[]), start("clean", &["--clean", "yes"]));
    agent.census();
    leaker.tell("go");
    clean.tell("go");
    let leak = wait_until("a verdict on what is left", LIMIT, || {
        agent.confirmed("falling").into_iter().next()
    });
    let by = |rule: &str| {
        let labels = [("unit", "falling"), ("rule", rule)];
        agent.metrics().sum("leakwatch_leaks_confirmed_total", &labels).unwrap_or(0.0)
    };
    assert_eq!((by("excess"), by("thread-growth")), (1.0, 0.0), "no floor rises: {leak:#?}");
    assert_eq!((leak.resource.as_str(), &*leak.cohort), ("thread", "threads"), "{leak:#?}");
    assert!((5..=25).contains(&leak.held), "of 25, where the load is known: {leak:#?}");
    assert!(leak.evidence.iter().any(|e| e.contains("by Little's law")), "{leak:#?}");
    clean.ready(LIMIT);
    leaker.ready(LIMIT);
    assert!(agent.confirmed("clean").is_empty(), "{:#?}", agent.confirmed("clean"));
}

#[test]
fn a_process_near_its_limit_is_a_warning_and_no_leak() {
    if need_root().is_none() {
        return;
    }
    let agent = Plan::new(format!("{FAST}{}", unit("cramped", ""))).start();
    // 46 connections are 92 descriptors, with the listener and the streams 96 of 100.
    let mut command = Command::new("/usr/bin/prlimit");
    command.arg("--nofile=100:100").arg(program("connections").get_program());
    let mut pool = tagged(command, "cramped", &["--count", "46", "--pace", "20"]);
    pool.ready(LIMIT);
    let warning = wait_until("a warning about the limit", LIMIT, || {
        agent
            .leaks()
            .into_iter()
            .find(|l| &*l.unit == "cramped" && l.rules == [Rule::Headroom] && l.held == 96)
    });
    assert_eq!((warning.state, warning.limit), (State::Confirmed, Some(100)), "{warning:#?}");
    let health = agent.json("/health");
    let usage = &health["units"]["cramped"]["resource_usage"];
    assert_eq!((usage["open_files"].as_u64(), usage["max_files"].as_u64()), (Some(96), Some(100)));
    assert_eq!(health["units"]["cramped"]["leaks"], 0, "a warning is no leak: {health}");
}

#[test]
fn a_service_in_a_cgroup_is_named_by_it_and_keeps_its_name_over_restarts() {
    if need_root().is_none() {
        return;
    }
    let name = format!("leaky-test-{}.service", std::process::id());
    let Some(group) = leakwatch_tests::cgroup::Cgroup::make(&format!("/system.slice/{name}"))
    else {
        return;
    };
    let agent = Plan::new(FAST).start();
    let log = agent.dir().join("service.log").display().to_string();
    for life in 1..=2 {
        let mut command = python("deployer.py");
        group.hold(&mut command);
        let mut service = Started::new(command.args(["--log", &log, "--count", "15"]));
        service.ready(LIMIT);
        let leak = wait_until("a leak of the service", LIMIT, || {
            agent.confirmed(&name).into_iter().find(|l| l.held == 15)
        });
        assert_eq!((&*leak.unit, leak.unit_kind.as_str()), (name.as_str(), "service"));
        let unit = agent.unit(&name).expect("it runs");
        assert_eq!(unit["invocation"], life, "{unit}");
        assert_eq!(unit["cgroup"], group.path.as_str());
        let agents = procfs::children_of(service.pid());
        let truth: u64 =
            agents.iter().chain([&service.pid()]).filter_map(|pid| procfs::open_fds(*pid)).sum();
        assert_eq!(unit["open_fds_total"].as_u64(), Some(truth), "{unit}");
        service.release();
        wait_until("the verdict to end with the service", LIMIT, || {
            let gone = |l: &Leak| l.id == leak.id && l.state == State::Resolved;
            agent.leaks().iter().any(gone).then_some(())
        });
    }
}
