//! Each system call that acquires or releases descriptors, K times: K counted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use leakwatch_tests::agent::{Agent, FAST, Plan};
use leakwatch_tests::bpf;
use leakwatch_tests::component::{need_root, say};
use leakwatch_tests::metrics::{Sample, Scrape};
use leakwatch_tests::procfs;
use leakwatch_tests::started::{Started, program};
use leakwatch_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(30);
/// By default a user may have 128 inotify instances, and two ways make them.
const K: u64 = 50;

/// A way in: its name, what a probe can tell of its kind, and what one go of it
/// acquires and releases besides (a client that connects, a number tried out).
type Way = (&'static str, &'static str, u64, u64);

const WAYS: &[Way] = &[
    #[cfg(target_arch = "x86_64")]
    ("open", "regular", 1, 0),
    #[cfg(target_arch = "x86_64")]
    ("creat", "regular", 1, 0),
    ("openat", "regular", 1, 0),
    ("openat2", "regular", 1, 0),
    ("socket", "socket", 1, 0),
    ("socketpair", "socket", 2, 0),
    #[cfg(target_arch = "x86_64")]
    ("accept", "socket", 2, 1),
    ("accept4", "socket", 2, 1),
    #[cfg(target_arch = "x86_64")]
    ("pipe", "pipe", 2, 0),
    ("pipe2", "pipe", 2, 0),
    // A copy is what its source is, here a file opened by path.
    ("dup", "regular", 1, 0),
    #[cfg(target_arch = "x86_64")]
    ("dup2", "regular", 2, 1),
    ("dup3", "regular", 2, 1),
    ("fcntl-dupfd", "regular", 1, 0),
    ("fcntl-dupfd-cloexec", "regular", 1, 0),
    #[cfg(target_arch = "x86_64")]
    ("eventfd", "eventfd", 1, 0),
    ("eventfd2", "eventfd", 1, 0),
    #[cfg(target_arch = "x86_64")]
    ("epoll_create", "epoll", 1, 0),
    ("epoll_create1", "epoll", 1, 0),
    ("timerfd_create", "timerfd", 1, 0),
    #[cfg(target_arch = "x86_64")]
    ("signalfd", "signalfd", 1, 0),
    ("signalfd4", "signalfd", 1, 0),
    #[cfg(target_arch = "x86_64")]
    ("inotify_init", "inotify", 1, 0),
    ("inotify_init1", "inotify", 1, 0),
    ("fanotify_init", "inotify", 1, 0),
    ("memfd_create", "memfd", 1, 0),
    ("perf_event_open", "perf", 1, 0),
    ("bpf", "bpf", 1, 0),
    ("io_uring_setup", "io_uring", 1, 0),
    ("userfaultfd", "other", 1, 0),
    ("pidfd_open", "pidfd", 1, 0),
    ("pidfd_getfd", "other", 1, 0),
    #[cfg(target_arch = "x86_64")]
    ("clone-pidfd", "pidfd", 1, 0),
    ("clone3-pidfd", "pidfd", 1, 0),
    ("open_by_handle_at", "regular", 1, 0),
    ("recvmsg", "other", 1, 0),
    ("recvmsg-three", "other", 3, 0),
    // The probes do not follow it: what it brings only the census counts.
    ("recvmmsg", "other", 0, 0),
    ("fsopen", "other", 1, 0),
    ("fspick", "other", 1, 0),
    ("open_tree", "regular", 1, 0),
    ("mq_open", "other", 1, 0),
    // No system call shows what a ring brings or takes.
    ("io_uring-openat", "regular", 0, 0),
    ("io_uring-accept", "socket", 1, 1),
];

/// What the probes of the descriptor table know better than those of the system
/// calls: they see the file itself, whoever asked for it.
const BY_TABLE: &[Way] = &[
    ("pidfd_getfd", "regular", 1, 0),
    ("recvmsg", "regular", 1, 0),
    ("recvmsg-three", "regular", 3, 0),
    ("recvmmsg", "regular", 1, 0),
    ("io_uring-openat", "regular", 1, 0),
    ("io_uring-accept", "socket", 2, 1),
];

/// Ways out, with what each releases and acquires per descriptor. The last two
/// are seen by the probes of the table alone.
const OUTS: &[(&str, u64, u64)] = &[
    ("close", 1, 0),
    ("close_range", 1, 0),
    ("dup3", 2, 1),
    #[cfg(target_arch = "x86_64")]
    ("dup2", 2, 1),
    ("io_uring-close", 1, 0),
    ("exec", 1, 0),
];
const BY_TABLE_ALONE: usize = 2;

/// Opened and closed so far.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Flow {
    opened: f64,
    closed: f64,
    opened_of_kind: f64,
    closed_of_kind: f64,
}

fn flow(scrape: &Scrape, unit: &str, kind: &str) -> Option<Flow> {
    let labels = [("unit", unit)];
    let of_kind = [("unit", unit), ("kind", kind)];
    Some(Flow {
        opened: scrape.sum("leakwatch_unit_fds_opened_total", &labels)?,
        closed: scrape.sum("leakwatch_unit_fds_closed_total", &labels)?,
        opened_of_kind: scrape.sum("leakwatch_unit_fds_opened_total", &of_kind).unwrap_or(0.0),
        closed_of_kind: scrape.sum("leakwatch_unit_fds_closed_total", &of_kind).unwrap_or(0.0),
    })
}

/// One way under test.
struct Bench {
    way: Way,
    out: (&'static str, u64, u64),
    unit: String,
    program: Started,
    /// Descriptors the way left open; `None` where it was refused.
    held: Option<u64>,
}

impl Bench {
    /// Descriptors the way left open, if the probes saw them come: what came unseen
    /// has no births, and goes unseen.
    fn held_and_seen(&self) -> Option<u64> {
        self.held.filter(|held| K * (self.way.2 - self.way.3) == *held)
    }
}

fn benches(agent: &Agent, table: bool) -> Vec<Bench> {
    let dir = agent.dir().display().to_string();
    let outs = if table { OUTS } else { &OUTS[..OUTS.len() - BY_TABLE_ALONE] };
    WAYS.iter()
        .enumerate()
        .map(|(i, way)| {
            let better = BY_TABLE.iter().find(|w| table && w.0 == way.0);
            let way = better.unwrap_or(way);
            // What is executed opens and closes files of its own, but no eventfd.
            let outs =
                if way.1 == "eventfd" { outs } else { &outs[..outs.len().min(OUTS.len() - 1)] };
            let out = if table && way.0 == "eventfd2" {
                outs[outs.len() - 1]
            } else {
                outs[i % outs.len()]
            };
            let unit = format!("way-{}", way.0);
            let arguments = ["--in", way.0, "--out", out.0, "--dir", &dir, "--tag", &unit];
            let mut command = program("syscalls");
            command.args(arguments).args(["--count", &K.to_string()]);
            Bench { way: *way, out, unit, program: Started::new(&mut command), held: None }
        })
        .collect()
}

#[test]
fn every_acquisition_and_release_is_counted_once() {
    if need_root().is_none() {
        return;
    }
    let mut config = FAST.replace("[watch]", "[watch]\nprobes = \"always\"\nstacks = \"off\"");
    for (name, ..) in WAYS {
        let cmdline = format!("*--tag way-{name} *");
        config.push_str(&format!("[[unit]]\nname = \"way-{name}\"\ncmdline = \"{cmdline}\"\n"));
    }
    let agent = Plan::new(config).start();
    let by = [("source", "fd_probes"), ("mechanism", "fentry")];
    let table = agent.metrics().one("leakwatch_source_state", &by) == Some(1.0);
    say(format_args!("fd probes by {}", if table { "fentry" } else { "tp_btf" }));
    let mut benches = benches(&agent, table);
    for bench in &mut benches {
        bench.program.ready(LIMIT);
    }
    // The probes must know whose each process is before anything is counted.
    agent.census();
    agent.census();
    let start = snapshot(&agent, &benches);

    for bench in &mut benches {
        bench.program.tell("acquire");
    }
    for bench in &mut benches {
        bench.held = acquired(bench);
    }
    agent.census();
    let middle = snapshot(&agent, &benches);
    let (mut wrong, mut fewer) = (Vec::new(), Fewer::default());
    for bench in benches.iter().filter(|b| b.held.is_some()) {
        let (name, kind, opens, closes) = bench.way;
        let (from, to) = (start[&bench.unit], middle[&bench.unit]);
        let got = ((to.opened - from.opened) as u64, (to.closed - from.closed) as u64);
        let want = (K * opens, K * closes);
        if !fewer.explains(got, want) {
            wrong.push(format!("{name}: {got:?} opened and closed, not {want:?}"));
        }
        let of_kind = (to.opened_of_kind - from.opened_of_kind) as u64;
        // What is tried out beforehand may be of another kind.
        if of_kind != got.0 && closes == 0 {
            wrong.push(format!("{name}: {of_kind} of {} were {kind}", got.0));
        }
        let shown = agent.unit(&bench.unit).expect("it runs")["open_fds_total"].as_u64();
        let truth = procfs::open_fds(bench.program.pid());
        if shown != truth {
            wrong.push(format!("{name}: the census says {shown:?}, /proc {truth:?}"));
        }
    }
    assert!(wrong.is_empty(), "{K} times each:\n{}", wrong.join("\n"));

    releases_are_counted(&agent, &mut benches, &middle, &mut fewer);
    // What the kernel says it did not run is all that may be missing, and is exported.
    let missed = bpf::missed_by(agent.pid());
    assert!(fewer.0 <= 2 * missed, "{} not counted, {missed} missed by the kernel", fewer.0);
    agent.census();
    let scrape = agent.metrics();
    let of = |source| scrape.one("leakwatch_events_lost_total", &[("source", source)]);
    let recursion = of("recursion").unwrap_or(0.0);
    assert!(recursion >= missed as f64, "{missed} missed, {recursion} exported");
    let lost = scrape.all("leakwatch_events_lost_total", &[]);
    let others = lost.filter(|s| s.value > 0.0 && s.labels["source"] != "recursion");
    assert_eq!(others.collect::<Vec<_>>(), [] as [&Sample; 0], "lost at this pace");
    // By samples, where the host does not keep statistics for good.
    for family in ["leakwatch_probe_runs_total", "leakwatch_probe_runtime_seconds_total"] {
        let spent = scrape.sum(family, &[]);
        assert!(spent.is_some_and(|n| n > 0.0), "{family}: {spent:?}");
    }
    if missed > 0 {
        say(format_args!(
            "SKIPPED: {missed} events by the kernel itself, which runs no program twice at once on \
             a processor; {} less counted, all of them exported as lost",
            fewer.0
        ));
    }
}

/// How much less was counted than done. Where a program can be preempted, the kernel
/// does not run it for others on that processor meanwhile, and counts that.
#[derive(Default)]
struct Fewer(u64);

impl Fewer {
    /// Exact, or less: never more. An acquisition that is missed has its release
    /// missing, too.
    fn explains(&mut self, got: (u64, u64), want: (u64, u64)) -> bool {
        let (Some(opened), Some(closed)) = (want.0.checked_sub(got.0), want.1.checked_sub(got.1))
        else {
            return false;
        };
        self.0 += opened + closed;
        true
    }
}

/// What the program says it acquired.
fn acquired(bench: &mut Bench) -> Option<u64> {
    let line = wait_until("an answer", LIMIT, || bench.program.heard());
    if let Some(errno) = line.strip_prefix("refused ") {
        say(format_args!("SKIPPED: {} is refused here with errno {errno}", bench.way.0));
        return None;
    }
    let words: Vec<&str> = line.split(' ').collect();
    // The program names the kind that a system call tells.
    let told = WAYS.iter().find(|way| way.0 == bench.way.0).map_or("", |way| way.1);
    assert_eq!(words[..2], ["acquired", told]);
    words[2].parse().ok()
}

fn snapshot(agent: &Agent, benches: &[Bench]) -> BTreeMap<String, Flow> {
    // A unit of which nothing has been counted yet has no series; a program that
    // has loaded its libraries under the probes has.
    let scrape = agent.metrics();
    benches
        .iter()
        .map(|b| {
            let none = Flow { opened: 0.0, closed: 0.0, opened_of_kind: 0.0, closed_of_kind: 0.0 };
            (b.unit.clone(), flow(&scrape, &b.unit, b.way.1).unwrap_or(none))
        })
        .collect()
}

fn releases_are_counted(
    agent: &Agent,
    benches: &mut [Bench],
    before: &BTreeMap<String, Flow>,
    fewer: &mut Fewer,
) {
    for bench in benches.iter_mut().filter(|b| b.held.is_some()) {
        bench.program.tell("release");
        let line = wait_until("an answer", LIMIT, || bench.program.heard());
        if let Some(errno) = line.strip_prefix("refused ") {
            say(format_args!("SKIPPED: {} is refused here with errno {errno}", bench.out.0));
            bench.held = None;
        }
    }
    agent.census();
    the_census_finds_what_rings_closed(agent, benches, before);
    let after = snapshot(agent, benches);
    let mut wrong = Vec::new();
    for bench in benches.iter() {
        let Some(held) = bench.held_and_seen() else { continue };
        let (out, closes, opens) = bench.out;
        let (from, to) = (before[&bench.unit], after[&bench.unit]);
        let mut got = ((to.opened - from.opened) as u64, (to.closed - from.closed) as u64);
        if out == "exec" {
            let (from, to) = (from.closed_of_kind, to.closed_of_kind);
            got = (0, (to - from) as u64);
        }
        let want = (held * opens, held * closes);
        if !fewer.explains(got, want) {
            wrong
                .push(format!("{} by {out}: {got:?} opened and closed, not {want:?}", bench.way.0));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where no probe sees a ring close, the sweep of every ten seconds misses the births'
/// descriptors in the census, and counts them: not at once, but each of them.
fn the_census_finds_what_rings_closed(
    agent: &Agent,
    benches: &[Bench],
    before: &BTreeMap<String, Flow>,
) {
    if rings_close_like_all() {
        return;
    }
    let begun = Instant::now();
    for bench in benches.iter().filter(|b| b.out.0 == "io_uring-close") {
        let Some(held) = bench.held_and_seen() else { continue };
        let wanted = before[&bench.unit].closed + (held * bench.out.1) as f64;
        let what = format!("{wanted} releases of {}", bench.unit);
        wait_until(&what, LIMIT, || {
            let closed = snapshot(agent, std::slice::from_ref(bench))[&bench.unit].closed;
            (closed >= wanted).then_some(())
        });
    }
    say(format_args!("what rings closed was found after {:.1} s", begun.elapsed().as_secs_f64()));
}

/// Until Linux 5.18 a ring took a number out of the table by a function of its own,
/// `__close_fd_get_file`, which no probe sees; since then by the one for all.
fn rings_close_like_all() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (next(), next()) >= (5, 19)
}
