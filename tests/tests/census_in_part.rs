//! Where the budget does not allow every census to read every descriptor, most of them
//! count, and read what has moved: counts are as exact as ever, and a leak is found.

use std::time::Duration;

use leakwatch::detection::verdict::Rule;
use leakwatch_tests::agent::{Agent, Plan};
use leakwatch_tests::component::need_root;
use leakwatch_tests::procfs;
use leakwatch_tests::started::{Started, program, python};
use leakwatch_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(90);
/// Descriptors that never move, so that reading all costs many times what counting does.
const CROWD: usize = 50;
const EACH: usize = 900;
const ROUNDS: usize = 5;

/// A whole census costs some 40 ms with such a crowd, so they come seconds apart.
const CONFIG: &str = "[watch]\ncensus_interval = \"250ms\"\ncensus_cpu_budget = 0.1\n\
    probes = \"off\"\n\
    [detection]\nwindow = \"2s\"\nwindows = 4\nwarmup = \"1s\"\nstale_after = \"4s\"\n\
    min_held = 5\nmin_share = 0\n\
    [[unit]]\nname = \"crowd\"\ncmdline = \"*--tag part-crowd*\"\n\
    [[unit]]\nname = \"moving\"\ncmdline = \"*--tag part-moving*\"\n\
    [[unit]]\nname = \"leaky\"\ncmdline = \"*--tag part-leaky*\"\n";

#[test]
fn a_census_in_part_counts_exactly_and_finds_leaks() {
    if need_root().is_none() {
        return;
    }
    let agent = Plan::new(CONFIG).start();
    let start = |tag: &str, count: usize| {
        let dir = agent.dir().display().to_string();
        let mut started =
            Started::new(
                program("syscalls")
                    .args(["--in", "eventfd2", "--out", "close", "--dir", &dir])
                    .args(["--tag", tag, "--count", &count.to_string()]),
            );
        started.ready(LIMIT);
        started
    };
    let mut crowd: Vec<Started> = (0..CROWD).map(|_| start("part-crowd", EACH)).collect();
    for started in &mut crowd {
        started.tell("acquire");
    }
    for started in &mut crowd {
        wait_until("it to have opened them", LIMIT, || started.heard());
    }
    let crowd_fds = crowd.iter().filter_map(|c| procfs::open_fds(c.pid())).sum();
    wait_until("most censuses to be in part", LIMIT, || in_part(&agent).then_some(()));

    for count in 1..=ROUNDS {
        let mut moving = start("part-moving", count);
        for word in ["", "acquire", "release"] {
            if !word.is_empty() {
                moving.tell(word);
                wait_until("it to have done so", LIMIT, || moving.heard());
            }
            agent.census();
            let shown = agent.unit("moving").expect("it runs");
            let truth = procfs::open_fds(moving.pid());
            assert_eq!(shown["open_fds_total"].as_u64(), truth, "{word} {count}: {shown}");
            let eventfds = shown["open_fds"]["eventfd"].as_u64().unwrap_or(0);
            let want = if word == "acquire" { count } else { 0 };
            assert_eq!(eventfds, want as u64, "{word} {count}: {shown}");
        }
    }
    assert!(in_part(&agent), "it was to be about censuses in part");

    let log = agent.dir().join("leaky.log").display().to_string();
    let mut deployer = Started::new(python("deployer.py").args([
        "--tag",
        "part-leaky",
        "--log",
        &log,
        "--pace",
        "400",
    ]));
    deployer.ready(LIMIT);
    let leak = wait_until("the leak to be confirmed", LIMIT, || {
        agent.confirmed("leaky").into_iter().find(|l| l.held == 20)
    });
    assert!(leak.rules.contains(&Rule::UnclosedLogHandle), "{leak:?}");
    assert_eq!(agent.confirmed("crowd"), [], "what stays is innocent");
    let shown = agent.unit("crowd").expect("it runs");
    assert_eq!(shown["open_fds_total"].as_u64(), Some(crowd_fds), "{shown}");
    assert!(in_part(&agent), "it was to be about censuses in part");
}

/// Most censuses count, and those that read everything are rarer.
fn in_part(agent: &Agent) -> bool {
    let scrape = agent.metrics();
    let interval = scrape.one("leakwatch_census_interval_seconds", &[]);
    scrape.one("leakwatch_census_whole_interval_seconds", &[]) > interval
}
