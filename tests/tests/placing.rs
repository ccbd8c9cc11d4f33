//! Whose counters count: a process's own unit's, soon after it came and not at the
//! next census only; and what is counted for no unit is shown, too.

use std::fs;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use leakwatch_common::ProcessEntry;
use leakwatch_tests::agent::{Agent, FAST, Plan};
use leakwatch_tests::component::need_root;
use leakwatch_tests::maps;
use leakwatch_tests::metrics::Scrape;
use leakwatch_tests::started::{Started, program};
use leakwatch_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(60);
const CENSUS: Duration = Duration::from_secs(6);
const COUNT: usize = 40;
/// More than the programs have slots for (`monitor-common/src/stats.rs`).
const UNITS: usize = 530;

fn opened(scrape: &Scrape, unit: &str) -> f64 {
    let labels = [("unit", unit), ("kind", "eventfd")];
    scrape.sum("leakwatch_unit_fds_opened_total", &labels).unwrap_or(0.0)
}

/// What is counted between two censuses belongs to the unit that the process then
/// has, by its new program: this one's is a rule's, its parent's is not.
#[test]
fn a_newcomer_counts_for_its_own_unit_before_any_census_has_seen_it() {
    if need_root().is_none() {
        return;
    }
    let config = "[watch]\nprobes = \"always\"\ncensus_interval = \"6s\"\n\
                  [[unit]]\nname = \"newcomer\"\ncmdline = \"*--tag t-newcomer *\"\n";
    let agent = Plan::new(config).start();
    census(&agent);
    let dir = agent.dir().display().to_string();
    let mut newcomer = Started::new(
        program("syscalls").args(["--in", "eventfd2", "--out", "close", "--dir", &dir]).args([
            "--tag",
            "t-newcomer",
            "--count",
            &COUNT.to_string(),
        ]),
    );
    newcomer.ready(LIMIT);
    let slot = |pid: u32| {
        let entry = maps::value::<u32, ProcessEntry>(agent.pid(), "PROCESSES", &pid);
        entry.map(|e| e.slot)
    };
    wait_until("the programs to know it from its parent", LIMIT, || {
        let (own, parent) = (slot(newcomer.pid()), slot(std::process::id()));
        (own.is_some() && own != parent).then_some(())
    });
    newcomer.tell("acquire");
    wait_until("it to have opened them", LIMIT, || newcomer.heard());
    assert!(agent.unit("newcomer").is_none(), "a census came before its time; slow machine?");
    census(&agent);
    assert_eq!(opened(&agent.metrics(), "newcomer"), COUNT as f64);
}

/// Waits for the next census and no longer, so that one interval lies ahead.
fn census(agent: &Agent) {
    let stamp = || agent.metrics().one("leakwatch_census_timestamp_seconds", &[]);
    let seen = stamp();
    wait_until("a census", 5 * CENSUS, || stamp().filter(|t| Some(*t) != seen));
}

/// Beside many busy threads the census and the loop would wait longest, and what is done
/// meanwhile would be no unit's. Nobody else of the agent is put before others.
#[test]
fn the_census_and_the_loop_come_first_and_nobody_else() {
    if need_root().is_none() {
        return;
    }
    let agent = Plan::new(FAST).start();
    agent.census();
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("it runs");
    let mut first = Vec::new();
    for task in tasks.flatten() {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let stat = read("stat");
        // proc(5): field 19, where the third comes after the name.
        let nice = stat.rsplit(')').next().and_then(|rest| rest.split_ascii_whitespace().nth(16));
        if nice == Some("-10") {
            first.push(read("comm").trim().to_owned());
        } else {
            assert_ne!(nice.and_then(|n| n.parse().ok()).map(|n: i32| n < 0), Some(true), "{stat}");
        }
    }
    first.sort_unstable();
    assert_eq!(first, ["census", "loop"]);
}

/// With more units than slots nothing is lost: some are counted as `other`.
#[test]
fn units_past_the_last_slot_are_counted_as_other() {
    if need_root().is_none() {
        return;
    }
    let mut config = FAST.to_owned();
    for i in 0..UNITS {
        config
            .push_str(&format!("[[unit]]\nname = \"crowd-{i}\"\ncmdline = \"*/crowd-{i} 600\"\n"));
    }
    let agent = Plan::new(config).start();
    let mut running: Vec<Started> = (0..UNITS)
        .map(|i| Started::new(program("rest").arg0(format!("./crowd-{i}")).arg("600")))
        .collect();
    agent.census();
    let before = exited(&agent.metrics());
    for process in &mut running {
        process.kill();
    }
    drop(running);
    agent.census();
    let after = exited(&agent.metrics());
    let (own, other) = (after.0 - before.0, after.1 - before.1);
    assert!(own > 400.0 && own < UNITS as f64, "{own} of {UNITS} by units of their own");
    // Other tests' processes may end unplaced meanwhile; none of these is missing.
    assert!(own + other >= UNITS as f64, "{own} by units of their own, {other} as other");
}

/// Processes that ended: of the crowd's units, and of none.
fn exited(scrape: &Scrape) -> (f64, f64) {
    let all: Vec<_> = scrape.all("leakwatch_unit_processes_exited_total", &[]).collect();
    let sum = |of: &dyn Fn(&str) -> bool| {
        all.iter().filter(|s| of(&s.labels["unit"])).map(|s| s.value).sum::<f64>()
    };
    (sum(&|unit| unit.starts_with("crowd-")), sum(&|unit| unit == "other"))
}
