//! What must hold of an agent after a while of churn.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use leakwatch::detection::verdict::State;
use leakwatch_common::{Birth, BirthKey, NOBODY, NearBirth, ProcessEntry};
use leakwatch_tests::agent::Agent;
use leakwatch_tests::{maps, procfs};

use crate::CHURN;
use crate::load::{Did, Load};
use crate::slope;

/// A figure of the agent, and by how much it may rise after the first third of the
/// time: a share of it, and so much besides.
struct Figure {
    name: &'static str,
    share: f64,
    slack: f64,
    /// What stands for a third of the time.
    typical: Typical,
    /// (when, how much)
    seen: Vec<(Duration, f64)>,
}

impl Figure {
    fn typical(&self, within: Range<Duration>) -> Option<f64> {
        let seen = self.seen.iter().filter(|(at, _)| within.contains(at));
        let mut values: Vec<f64> = seen.map(|(_, v)| *v).collect();
        values.sort_by(f64::total_cmp);
        match self.typical {
            Typical::Lowest => values.first().copied(),
            Typical::Median => values.get(values.len() / 2).copied(),
        }
    }
}

/// Of the values of a third.
#[derive(Clone, Copy)]
enum Typical {
    /// What comes and goes on top is not held: a scrape under way, a census.
    Lowest,
    /// It goes both ways: what the allocator gives back, it takes again within seconds,
    /// and which looks fall in between is chance.
    Median,
}

/// The agent's figures over time.
///
/// Two things are judged, and either is enough for a complaint: the typical value of
/// the last third beside that of the second, and the slope (`slope.rs`). The first
/// third is warm-up. Maps are the host's, and others' processes are in them too.
pub struct Course {
    time: Duration,
    figures: [Figure; 5],
    looks: u64,
}

/// For so long a unit without processes is shown.
const UNITS_SHOWN: Duration = Duration::from_secs(600);

const FDS: usize = 0;
const THREADS: usize = 1;
const MEMORY: usize = 2;
const BIRTHS: usize = 3;
const PROCESSES: usize = 4;

impl Course {
    /// Nothing seen yet of a run of this length.
    pub fn new(time: Duration) -> Self {
        let figure = |name, share, slack| Figure {
            name,
            share,
            slack,
            typical: Typical::Lowest,
            seen: Vec::new(),
        };
        // Units that have gone are shown for ten minutes more, so a short run never
        // sees the end of their growth; a long one has it in its warm-up.
        let memory = if time / 3 < UNITS_SHOWN {
            figure("resident KiB", 0.05, 4096.0)
        } else {
            figure("resident KiB", 0.02, 1024.0)
        };
        Self {
            time,
            figures: [
                figure("descriptors", 0.0, 0.0),
                // The one that looks stacks up begins with the first suspicion of anything.
                figure("threads", 0.0, 1.0),
                Figure { typical: Typical::Median, ..memory },
                figure("births", 0.1, 1024.0),
                figure("processes", 0.1, 256.0),
            ],
            looks: 0,
        }
    }

    /// One look at the agent, `at` after the start; scrapes it.
    pub fn look(&mut self, agent: &Agent, at: Duration) {
        let pid = agent.pid();
        let metrics = agent.metrics();
        assert_eq!(metrics.one("leakwatch_config_last_reload_successful", &[]), Some(1.0));
        self.note(FDS, at, procfs::open_fds(pid).map(|n| n as f64));
        self.note(THREADS, at, procfs::threads(pid).map(|n| n as f64));
        self.note(MEMORY, at, resident_kib(pid));
        // Walking a map takes a while: not at every look.
        if self.looks.is_multiple_of(10) {
            let near =
                maps::array::<NearBirth>(pid, "NEAR").iter().filter(|p| p.key != NOBODY).count();
            let births = maps::population::<BirthKey, Birth>(pid, "BIRTHS");
            self.note(BIRTHS, at, births.map(|n| (near + n) as f64));
            let processes = maps::population::<u32, ProcessEntry>(pid, "PROCESSES");
            self.note(PROCESSES, at, processes.map(|n| n as f64));
        }
        self.looks += 1;
    }

    #[track_caller]
    fn note(&mut self, figure: usize, at: Duration, value: Option<f64>) {
        let figure = &mut self.figures[figure];
        let value =
            value.unwrap_or_else(|| panic!("the agent's {} are not to be had", figure.name));
        figure.seen.push((at, value));
    }

    /// What has grown.
    pub fn complaints(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for f in &self.figures {
            let (Some(middle), Some(last)) = (f.typical(self.third(1)), f.typical(self.third(2)))
            else {
                wrong.push(format!("the agent's {} were seen too seldom", f.name));
                continue;
            };
            let most = middle * (1.0 + f.share) + f.slack;
            if last > most {
                wrong.push(format!("the agent's {} rose from {middle} to {last}", f.name));
            }
            let judged = self.time * 2 / 3;
            let rise = self.slope(f).unwrap_or(0.0) * judged.as_secs_f64();
            if rise > middle * f.share + f.slack {
                let name = f.name;
                wrong.push(format!("the agent's {name} rise by {rise:.0} in {judged:?}"));
            }
        }
        wrong
    }

    /// By how much it rises per second after the warm-up.
    fn slope(&self, figure: &Figure) -> Option<f64> {
        let after = figure.seen.iter().filter(|(at, _)| *at >= self.time / 3);
        slope::robust(&after.map(|(at, v)| (at.as_secs_f64(), *v)).collect::<Vec<_>>())
    }

    /// From when to when. The last look is past the end.
    fn third(&self, third: u32) -> Range<Duration> {
        let to = if third == 2 { Duration::MAX } else { self.time * (third + 1) / 3 };
        self.time * third / 3..to
    }
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} looks in {:?}; lowest of each third (memory: median), highest of all, slope per hour after the first:",
            self.looks, self.time
        )?;
        for figure in &self.figures {
            let typical = |third| figure.typical(self.third(third)).unwrap_or(f64::NAN);
            let most = figure.seen.iter().map(|(_, v)| *v).fold(0.0, f64::max);
            let (a, b, c) = (typical(0), typical(1), typical(2));
            let slope = self.slope(figure).unwrap_or(f64::NAN) * 3600.0;
            writeln!(f, "{:<14} {a:>8} {b:>8} {c:>8} {most:>8} {slope:>+10.1}", figure.name)?;
        }
        Ok(())
    }
}

fn resident_kib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// By its own rules the agent leaks nothing, and the churn neither.
pub fn verdicts(agent: &Agent, own_unit: &str) -> Vec<String> {
    let about = |unit: &str| unit == own_unit || unit == *CHURN || unit.contains("-unit-");
    let mut wrong = Vec::new();
    for leak in agent.leaks() {
        let own = &*leak.unit == own_unit;
        if own || (about(&leak.unit) && leak.state == State::Confirmed) {
            wrong.push(format!("a verdict on {}: {:?} {:?}", leak.unit, leak.state, leak.evidence));
        }
    }
    if agent.unit(own_unit).is_none() {
        wrong.push(format!("the agent does not see itself as {own_unit}"));
    }
    wrong
}

/// Maps of their real sizes have room for all of it.
pub fn losses(agent: &Agent) -> Vec<String> {
    let metrics = agent.metrics();
    let mut wrong = Vec::new();
    for source in ["births", "tasks", "processes"] {
        let lost = metrics.one("leakwatch_events_lost_total", &[("source", source)]);
        if lost != Some(0.0) {
            wrong.push(format!("{source}: {lost:?} lost"));
        }
    }
    wrong
}

/// The probes counted what was done, to the one.
pub fn counted(agent: &Agent, did: &Did) -> Vec<String> {
    let metrics = agent.metrics();
    let mut wrong = Vec::new();
    let eventfds = [("unit", CHURN.as_str()), ("kind", "eventfd")];
    for (name, labels, truth) in [
        ("leakwatch_unit_fds_opened_total", &eventfds[..], did.eventfds),
        ("leakwatch_unit_processes_started_total", &eventfds[..1], did.forks),
    ] {
        let counted = metrics.one(name, labels);
        if counted != Some(truth as f64) {
            wrong.push(format!("{name}: {counted:?} counted of {truth}"));
        }
    }
    let opened = metrics.sum("leakwatch_unit_fds_opened_total", &[("unit", CHURN.as_str())]);
    if opened.is_none_or(|opened| opened < did.opens as f64) {
        wrong.push(format!("{opened:?} descriptors counted of {}", did.opens));
    }
    wrong
}

/// The ledger says what /proc says.
pub fn ledger(agent: &Agent, load: &Load) -> Vec<String> {
    let mut wrong = Vec::new();
    let services = load.services();
    if services.is_empty() {
        wrong.push("no service is left to compare".to_owned());
    }
    let churn = (CHURN.clone(), vec![load.pid()]);
    for (unit, pids) in services.iter().chain([&churn]) {
        let truth: u64 = pids.iter().filter_map(|pid| procfs::open_fds(*pid)).sum();
        let shown = agent.unit(unit).unwrap_or_default();
        let (fds, processes) = (&shown["open_fds_total"], &shown["processes"]);
        if (fds.as_u64(), processes.as_u64()) != (Some(truth), Some(pids.len() as u64)) {
            wrong.push(format!("{unit}: {fds} in {processes} processes of {truth} in {pids:?}"));
        }
    }
    // Those that have gone are gone.
    let all = agent.json("/api/v1/units");
    for unit in all["units"].as_array().into_iter().flatten() {
        let name = unit["name"].as_str().unwrap_or_default();
        let alive = services.iter().any(|(service, _)| service == name);
        if name.starts_with(load.prefix()) && !alive && unit["processes"].as_u64() != Some(0) {
            wrong.push(format!("{name} has gone and has processes: {unit}"));
        }
    }
    wrong
}

#[test]
fn a_dip_is_no_floor_of_memory_and_a_step_is_a_rise() {
    let course = |value: &dyn Fn(u64) -> f64| {
        let mut course = Course::new(Duration::from_secs(1800));
        for second in 0..1800 {
            let at = Duration::from_secs(second);
            for figure in &mut course.figures {
                let flat = if figure.name == "resident KiB" { value(second) } else { 35.0 };
                figure.seen.push((at, flat));
            }
        }
        course.complaints()
    };
    let dips = course(&|second| if second == 700 { 44_228.0 } else { 52_500.0 });
    assert!(dips.is_empty(), "{dips:?}");
    let steps = course(&|second| if second < 1200 { 52_500.0 } else { 55_000.0 });
    assert_eq!(steps.len(), 2, "by its typical value and by its slope: {steps:?}");
    let late = course(&|second| if second < 1300 { 52_500.0 } else { 55_000.0 });
    assert!(!late.is_empty(), "two thirds of the last third are higher");
}
