//! After a storm the ledger says exactly what /proc says, process by process.

use std::time::Duration;

use leakwatch_tests::agent::{Agent, FAST, Plan};
use leakwatch_tests::component::{need_root, say};
use leakwatch_tests::procfs;
use leakwatch_tests::started::{Started, program};
use leakwatch_tests::wait::wait_until;

const PROCESSES: usize = 4;

/// One unit per process of the storm, with its forked copy, and one per sleeper.
fn config() -> String {
    let mut text = FAST.replace("[watch]", "[watch]\nprobes = \"always\"");
    for i in 0..PROCESSES {
        text.push_str(&format!(
            "[[unit]]\nname = \"storm-{i}\"\ncmdline = \"*/storm --index {i} *--tag t-storm*\"\n\
             [[unit]]\nname = \"sleeper-{i}\"\ncmdline = \"storm-sleeper-{i} *\"\n"
        ));
    }
    text
}

#[test]
fn after_the_storm_ledger_and_proc_agree_exactly() {
    if need_root().is_none() {
        return;
    }
    let agent = Plan::new(config()).start();
    let mut storm = Started::new(program("storm").args([
        "--tag",
        "t-storm",
        "--seconds",
        "10",
        "--threads",
        "8",
    ]));
    let mut gusts = [0; PROCESSES];
    for _ in 0..PROCESSES {
        let line = storm.hear("quiet", Duration::from_secs(60));
        let words: Vec<u64> = line.split(' ').filter_map(|w| w.parse().ok()).collect();
        gusts[words[0] as usize] = words[1];
    }
    // What has been forked last ends or executes; from then on nothing moves.
    wait_until("each process to have one copy and one sleeper", Duration::from_secs(10), || {
        let still = (0..PROCESSES).all(|i| {
            procfs::with_command(&format!("storm --index {i} ")).len() == 2
                && procfs::with_command(&format!("storm-sleeper-{i} ")).len() == 1
        });
        still.then_some(())
    });
    agent.census();

    for i in 0..PROCESSES {
        let parts = [format!("storm --index {i} "), format!("storm-sleeper-{i} ")];
        for (unit, part) in [format!("storm-{i}"), format!("sleeper-{i}")].iter().zip(&parts) {
            let counts: Vec<u64> =
                procfs::with_command(part).into_iter().filter_map(procfs::open_fds).collect();
            let shown = agent.unit(unit).unwrap_or_else(|| panic!("{unit} is unknown"));
            let truth: u64 = counts.iter().sum();
            assert_eq!(shown["open_fds_total"].as_u64(), Some(truth), "{unit}: {shown}");
            let kinds = shown["open_fds"].as_object().expect("kinds are known");
            let sum: u64 = kinds.values().filter_map(serde_json::Value::as_u64).sum();
            assert_eq!(sum, truth, "{unit}: {kinds:?}");
            let worst = shown["worst_process"]["open_fds"].as_u64();
            assert_eq!(worst, counts.iter().max().copied(), "{unit}: {shown}");
            assert_eq!(shown["processes"], counts.len(), "{unit}: {shown}");
            kinds_agree(unit, part, kinds);
        }
    }
    every_loss_and_correction_is_counted(&agent, gusts);
}

/// Per kind as well, as far as /proc names kinds.
fn kinds_agree(unit: &str, part: &str, kinds: &serde_json::Map<String, serde_json::Value>) {
    let targets: Vec<String> = procfs::with_command(part)
        .into_iter()
        .flat_map(procfs::fd_targets)
        .map(|(_, target)| target.display().to_string())
        .collect();
    for (kind, prefix) in [
        ("socket", "socket:["),
        ("pipe", "pipe:["),
        ("eventfd", "anon_inode:[eventfd]"),
        // Besides `/dev/null` what the suite's own errors go to, where that is a terminal.
        ("device", "/dev/"),
    ] {
        let truth = targets.iter().filter(|t| t.starts_with(prefix)).count() as u64;
        let shown = kinds.get(kind).and_then(serde_json::Value::as_u64).unwrap_or(0);
        assert_eq!(shown, truth, "{unit}, {kind}: {kinds:?}");
    }
}

fn every_loss_and_correction_is_counted(agent: &Agent, gusts: [u64; PROCESSES]) {
    let scrape = agent.metrics();
    // A blind close_range, a forked table and a passed descriptor leave traces.
    let corrections: Vec<_> = scrape.all("leakwatch_census_corrections_total", &[]).collect();
    assert!(!corrections.is_empty(), "the storm made the probes wrong nowhere?");
    let lost: Vec<_> = scrape.all("leakwatch_events_lost_total", &[]).collect();
    assert!(!lost.is_empty(), "losses are exported, if only as 0");
    let took = scrape.all("leakwatch_census_duration_seconds", &[]);
    for sample in corrections.into_iter().chain(lost).chain(took) {
        say(format_args!("{} {:?} {}", sample.name, sample.labels, sample.value));
    }
    for (i, gusts) in gusts.into_iter().enumerate() {
        let unit = format!("storm-{i}");
        let count = |name: &str| scrape.sum(name, &[("unit", &unit)]).unwrap_or(0.0);
        let (opened, closed) =
            (count("leakwatch_unit_fds_opened_total"), count("leakwatch_unit_fds_closed_total"));
        // However fast the machine is: of a hundred acts about fifty open. What was done
        // before a census could say whose the process is, is not in the unit's count.
        assert!(gusts > 1000, "{unit}: {gusts} acts are no storm");
        say(format_args!("{unit}: {opened} opened, {closed} closed by {gusts} acts"));
        let share = |count: f64| count / gusts as f64;
        let right = (0.05..1.0).contains(&share(opened)) && (0.05..1.0).contains(&share(closed));
        assert!(right, "{unit}: {opened} opened, {closed} closed by {gusts} acts");
    }
}
