//! Async tasks of tokio: those that are forgotten are found by the name of their function,
//! and counted to the last one; those that are aborted are innocent.

use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

use leakwatch::detection::verdict::{Leak, Resource, Role, Rule, State};
use leakwatch_tests::agent::{Agent, FAST, Plan};
use leakwatch_tests::component::need_root;
use leakwatch_tests::install;
use leakwatch_tests::started::{Started, program};
use leakwatch_tests::wait::{stays, wait_until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
/// Starts of the server, and short tasks of each.
const STARTS: u64 = 40;
const ANSWERS: u64 = 3;

const PROGRAM: &str = "tokio-server";
const HEARTBEAT: &str = "tokio_server::Server::heartbeat";
const ANSWER: &str = "tokio_server::Server::answer";

fn config(units: &[&str]) -> String {
    let unit = |name: &&str| {
        format!("[[unit]]\nname = \"{name}\"\ncmdline = \"*--tag t-{name}*\"\ntasks = \"tokio\"\n")
    };
    FAST.to_owned() + &units.iter().map(unit).collect::<String>()
}

fn start(mut command: Command, unit: &str, more: &[&str]) -> Started {
    Started::new(command.args(["--tag", &format!("t-{unit}")]).args(more))
}

/// What the agent says of the unit's tasks, once it counts them or says why not.
fn tasks(agent: &Agent, unit: &str) -> Option<Value> {
    agent.unit(unit).map(|doc| doc["async_tasks"].clone()).filter(|tasks| !tasks.is_null())
}

/// Waits until they are counted: then none is missed.
fn counted(agent: &Agent, unit: &str) {
    wait_until("tasks to be counted", LIMIT, || {
        tasks(agent, unit).filter(|tasks| !tasks["alive"].is_null())
    });
}

/// Alive, spawned and ended of one function, and ends of what was not seen to begin.
fn of_function(tasks: &Value, function: &str) -> [u64; 4] {
    let all = tasks["functions"].as_array().expect("a list");
    let found = all.iter().find(|f| f["function"] == function);
    let found = found.unwrap_or_else(|| panic!("no {function} in {tasks:#}"));
    ["alive", "spawned", "ended", "unseen"].map(|key| found[key].as_u64().expect("a number"))
}

/// Nothing is said that should not be.
fn unaccused(agent: &Agent, wrong: impl Fn(&Leak) -> bool) -> Result<(), String> {
    agent.leaks().iter().find(|l| wrong(l)).map_or(Ok(()), |l| Err(format!("{l:#?}")))
}

#[test]
fn a_forgotten_loop_is_found_and_an_aborted_one_is_innocent() {
    if need_root().is_none() {
        return;
    }
    let agent = Plan::new(config(&["tasks-leak", "tasks-abort"])).start();
    let count = STARTS.to_string();
    let mut leaker = start(program(PROGRAM), "tasks-leak", &["--mode", "leak", "--count", &count]);
    let mut innocent =
        start(program(PROGRAM), "tasks-abort", &["--mode", "abort", "--count", &count]);
    for (program, unit) in [(&mut leaker, "tasks-leak"), (&mut innocent, "tasks-abort")] {
        counted(&agent, unit);
        program.tell("go");
    }
    leaker.ready(LIMIT);
    innocent.ready(LIMIT);

    let leak = wait_until("the verdict", LIMIT, || {
        let mut all = agent.confirmed("tasks-");
        all.retain(|leak| leak.held == STARTS);
        all.pop()
    });
    assert_eq!((&*leak.unit, leak.state), ("tasks-leak", State::Confirmed));
    assert_eq!((leak.resource, &*leak.kind), (Resource::Task, "tokio"));
    assert_eq!(leak.rules, [Rule::TaskGrowth]);
    assert_eq!(leak.cohort, HEARTBEAT);
    let said = format!("{STARTS} were spawned and 0 ended: {STARTS} are alive");
    assert!(leak.evidence.iter().any(|e| e.contains(&said)), "{leak:#?}");
    let opener = &leak.opener[0];
    assert_eq!((&*opener.function, opener.role), (HEARTBEAT, Role::Opener));
    assert_eq!(leak.examples[0].pid, leaker.pid());

    let labels = [
        ("unit", "tasks-leak"),
        ("resource", "task"),
        ("rule", "task-growth"),
        ("state", "confirmed"),
    ];
    assert_eq!(agent.metrics().one("leakwatch_leaks", &labels), Some(1.0));

    // To the last one, in both.
    for (unit, alive) in [("tasks-leak", STARTS), ("tasks-abort", 1)] {
        let told = wait_until("the counts", LIMIT, || {
            let told = tasks(&agent, unit)?;
            (told["alive"] == alive && told["spawned"] == STARTS * (1 + ANSWERS)).then_some(told)
        });
        assert_eq!(of_function(&told, HEARTBEAT), [alive, STARTS, STARTS - alive, 0], "{unit}");
        let answers = STARTS * ANSWERS;
        assert_eq!(of_function(&told, ANSWER), [0, answers, answers, 0], "{unit}");
        let scrape = agent.metrics();
        let of = |name: &str| scrape.one(&format!("leakwatch_{name}"), &[("unit", unit)]);
        assert_eq!(of("unit_async_tasks"), Some(alive as f64));
        assert_eq!(of("unit_async_tasks_spawned_total"), told["spawned"].as_f64());
        assert_eq!(of("unit_async_tasks_ended_total"), told["ended"].as_f64());
    }
    let lost = agent.metrics().one("leakwatch_events_lost_total", &[("source", "async_tasks")]);
    assert_eq!(lost, Some(0.0));
    let quiet = stays(Duration::from_secs(3), || {
        unaccused(&agent, |l| l.unit.starts_with("tasks-") && l.id != leak.id)
    });
    quiet.expect("only the leaker is accused");

    // It is restarted: the probes are in its program already, so it need not wait for them.
    leaker.kill();
    wait_until("the verdict to be over", LIMIT, || {
        agent.leaks().iter().any(|l| l.id == leak.id && l.state == State::Resolved).then_some(())
    });
    let few = ["--mode", "leak", "--count", "3", "--pace", "1"];
    let mut again = start(program(PROGRAM), "tasks-leak", &few);
    again.tell("go");
    again.ready(LIMIT);
    wait_until("the counts of the next one", LIMIT, || {
        let told = tasks(&agent, "tasks-leak").filter(|told| told["alive"] == 3)?;
        let total = (STARTS + 3) * (1 + ANSWERS);
        (told["spawned"] == total && of_function(&told, HEARTBEAT) == [3, 3, 0, 0]).then_some(())
    });
}

/// Apart, for where programs have symbols and no debug information.
#[test]
fn the_place_of_the_function_is_told() {
    if need_root().is_none() {
        return;
    }
    let agent = Plan::new(config(&["tasks-line"])).start();
    let mut leaker = start(program(PROGRAM), "tasks-line", &["--mode", "leak"]);
    counted(&agent, "tasks-line");
    leaker.tell("go");
    let leak = wait_until("the verdict", LIMIT, || agent.confirmed("tasks-line").pop());
    let opener = &leak.opener[0];
    assert_eq!((&*opener.function, opener.role), (HEARTBEAT, Role::Opener));
    let file = opener.file.as_deref().unwrap_or_default();
    assert!(file.ends_with("src/bin/tokio-server.rs") && opener.line.is_some(), "{opener:?}");
}

#[test]
fn a_program_without_symbols_is_said_to_have_none() {
    if need_root().is_none() {
        return;
    }
    let agent = Plan::new(config(&["tasks-stripped", "tasks-other"])).start();
    let copy = agent.dir().join("stripped");
    install::copy(program(PROGRAM).get_program(), &copy);
    // Without its table of sections it has no symbols: `e_shoff`, `e_shnum` and `e_shstrndx`.
    let file = std::fs::OpenOptions::new().write(true).open(&copy).expect("it is ours");
    file.write_all_at(&[0; 8], 40).expect("it has a header");
    file.write_all_at(&[0; 4], 60).expect("it has a header");
    drop(file);
    install::settle(&copy);
    let more = ["--mode", "leak", "--pace", "50"];
    let mut stripped = start(Command::new(&copy), "tasks-stripped", &more);
    let other = start(program("threads"), "tasks-other", &[]);
    stripped.tell("go");
    for (unit, why) in [("tasks-stripped", "it has no symbols"), ("tasks-other", "it uses none")] {
        let told = wait_until("the word on it", LIMIT, || {
            tasks(&agent, unit).filter(|told| told["note"].is_string())
        });
        assert!(told["note"].as_str().is_some_and(|note| note.contains(why)), "{told:#}");
        assert_eq!((&told["alive"], &told["functions"]), (&Value::Null, &json!([])));
        let scrape = agent.metrics();
        assert_eq!(scrape.one("leakwatch_unit_async_tasks", &[("unit", unit)]), None);
    }
    let state = [("source", "async_tasks"), ("mechanism", "uprobe")];
    assert_eq!(agent.metrics().one("leakwatch_source_state", &state), Some(0.0));
    stripped.ready(LIMIT);
    let quiet =
        stays(Duration::from_secs(3), || unaccused(&agent, |l| l.unit.starts_with("tasks-")));
    quiet.expect("no verdict on what is not counted");
    // Once, not with every census.
    let log = agent.log();
    let warned = log.lines().filter(|l| l.contains("async tasks are not counted")).count();
    assert_eq!(warned, 2, "{log}");
    drop(other);
}

#[test]
fn a_full_map_counts_fewer_and_says_so() {
    if need_root().is_none() {
        return;
    }
    let agent = Plan::new(config(&["tasks-many"]))
        .under(&["env", "LEAKWATCH_MAP_ENTRIES=TOKIO_TASKS=16"])
        .start();
    let more = ["--mode", "leak", "--count", "40", "--pace", "10"];
    // A file of its own: the probes are in the program, whoever else runs it.
    let copy = agent.dir().join("many");
    install::copy(program(PROGRAM).get_program(), &copy);
    let mut many = start(Command::new(&copy), "tasks-many", &more);
    counted(&agent, "tasks-many");
    many.tell("go");
    many.ready(LIMIT);
    let all = 40 * (1 + ANSWERS);
    wait_until("what was lost", LIMIT, || {
        let told = tasks(&agent, "tasks-many")?;
        let source = [("source", "async_tasks")];
        let lost = agent.metrics().one("leakwatch_events_lost_total", &source)?;
        let (alive, spawned) = (told["alive"].as_u64()?, told["spawned"].as_u64()?);
        assert!(alive <= 16 + 2, "{told:#}");
        (lost > 0.0 && spawned + lost as u64 == all).then_some(())
    });
}
