//! An agent whose BPF maps are far too small: its counts are those of /proc all the
//! same, what its probes lost is counted by source, and its verdicts say so.

use std::process::Command;
use std::time::Duration;

use leakwatch::detection::verdict::{Leak, Rule, State};
use leakwatch_tests::agent::{Agent, FAST, Plan, binary};
use leakwatch_tests::component::{need_root, say};
use leakwatch_tests::procfs;
use leakwatch_tests::started::{Started, program};
use leakwatch_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(60);

/// Sources whose map is made too small.
const SOURCES: [&str; 4] = ["births", "stacks", "tasks", "processes"];

/// Processes of the storm.
const STORMS: usize = 2;

/// What the leaker holds when it has leaked all it will.
const LEAKED: u64 = 60;

/// Unit names, and a part of the command lines that each holds.
fn units() -> Vec<(String, String)> {
    let mut units = Vec::new();
    for i in 0..STORMS {
        units.push((format!("small-storm-{i}"), format!("storm --index {i} ")));
        // Without a rule of its own it would be its parent's.
        units.push((format!("small-sleeper-{i}"), format!("storm-sleeper-{i} ")));
    }
    for name in ["small-leaker", "small-churn"] {
        units.push((name.to_owned(), format!("--tag t-{name} ")));
    }
    units
}

fn config() -> String {
    let mut text = FAST.replace("[watch]", "[watch]\nprobes = \"always\"\nstacks = \"always\"");
    for (name, part) in units() {
        // The storm's processes are told apart from those of another suite.
        let tag = if name.contains("storm") { "--tag t-small*" } else { "" };
        text.push_str(&format!("[[unit]]\nname = \"{name}\"\ncmdline = \"*{part}*{tag}\"\n"));
    }
    text
}

#[test]
fn counts_are_exact_losses_are_counted_and_verdicts_say_so() {
    if need_root().is_none() {
        return;
    }
    let sizes = "LEAKWATCH_MAP_ENTRIES=NEAR=1,BIRTHS=64,STACKS=16,TASKS=4096,PROCESSES=16";
    let agent = Plan::new(config()).under(&["env", sizes]).start();
    let works = agent.metrics().sum("leakwatch_source_state", &[("source", "fd_probes")]);
    assert_eq!(works, Some(1.0), "the programs load with small maps: {}", agent.log());

    let dir = agent.dir().join("leaker.db");
    let count = LEAKED.to_string();
    let leak = ["--tag", "t-small-leaker", "--count", &count, "--pace", "400", "--db"];
    let mut leaker = Started::new(program("sqlite-connections").args(leak).arg(dir));
    let churned = ["--tag", "t-small-churn", "--forks", "1600", "--opens", "2000"];
    let mut churn = Started::new(program("churn").args(churned));
    churn.ready(LIMIT);
    churn.tell("go");
    let (storms, second) = (STORMS.to_string(), ["--threads", "4", "--seconds", "12"]);
    let mut storm = Started::new(
        program("storm").args(["--tag", "t-small", "--processes", &storms]).args(second),
    );
    storm.ready(LIMIT);

    // While it storms: the verdict comes all the same, and says what it lacks.
    let leak = wait_until("a verdict that tells of losses", LIMIT, || {
        let confirmed = agent.confirmed("small-leaker");
        confirmed.into_iter().find(|leak| said(leak).is_some())
    });
    say(format_args!("{:?} {:?} {:?}", leak.rules, leak.confidence, leak.evidence));
    // What a statistical rule alone has, less a tenth; `docs/detection.md`.
    assert_eq!(leak.rules, [Rule::RisingFloor]);
    assert!(leak.confidence <= 0.75 * 0.9 + 1e-9, "{leak:?}");

    for _ in 0..STORMS {
        storm.hear("quiet", LIMIT);
    }
    // What has been forked last ends or executes; from then on nothing moves.
    wait_until("each process to have one copy and one sleeper", LIMIT, || {
        let still = (0..STORMS).all(|i| {
            procfs::with_command(&format!("storm --index {i} ")).len() == 2
                && procfs::with_command(&format!("storm-sleeper-{i} ")).len() == 1
        });
        still.then_some(())
    });
    churn.tell("still");
    churn.hear("quiet", LIMIT);
    leaker.ready(LIMIT);
    losses_are_counted(&agent);
    agent.census();
    ledger_is_proc(&agent);
    let leak = wait_until("the whole of the leak", LIMIT, || {
        agent.confirmed("small-leaker").into_iter().find(|leak| leak.held == LEAKED)
    });
    assert_eq!(leak.state, State::Confirmed);
}

/// The sentence about losses, where the verdict has one.
fn said(leak: &Leak) -> Option<&String> {
    leak.evidence.iter().find(|line| line.contains("the probes lost events"))
}

fn losses_are_counted(agent: &Agent) {
    let metrics = agent.metrics();
    for source in SOURCES {
        let lost = metrics.one("leakwatch_events_lost_total", &[("source", source)]);
        say(format_args!("{source}: {lost:?} lost"));
        assert!(lost.is_some_and(|n| n > 0.0), "{source}: a full map loses, and says so");
    }
}

fn ledger_is_proc(agent: &Agent) {
    for (unit, part) in units() {
        let pids = procfs::with_command(&part);
        assert!(!pids.is_empty(), "{unit} has no process");
        let truth: u64 = pids.iter().filter_map(|pid| procfs::open_fds(*pid)).sum();
        let shown = agent.unit(&unit).unwrap_or_else(|| panic!("{unit} is unknown"));
        assert_eq!(shown["open_fds_total"].as_u64(), Some(truth), "{unit}: {shown}");
        assert_eq!(shown["processes"], pids.len(), "{unit}: {shown}");
        let kinds = shown["open_fds"].as_object().expect("kinds are known");
        let sum: u64 = kinds.values().filter_map(serde_json::Value::as_u64).sum();
        assert_eq!(sum, truth, "{unit}: {kinds:?}");
    }
}

#[test]
fn sizes_that_are_none_are_refused() {
    for (given, why) in [
        ("BIRTHS=lots", "`BIRTHS=lots` has no usable size"),
        ("ROLES=4", "`ROLES=4` names no map whose size can be set"),
    ] {
        let mut doctor = Command::new(binary());
        doctor.arg("doctor").env("LEAKWATCH_MAP_ENTRIES", given);
        let output = doctor.output().expect("it starts");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{given}: {stderr}");
        assert!(stderr.contains(why) && stderr.contains("write it as BIRTHS=64"), "{stderr}");
    }
}
