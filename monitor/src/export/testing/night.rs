//! Three in the morning on a small host.

use std::collections::BTreeMap;

use super::types::*;
use super::{empty, plain};
use crate::cleanup::record::{ActionRecord, Outcome};
use crate::config::model::{ActionKind, Mode};
use crate::detection::verdict::{Example, Frame, Role};
use crate::source::model::SourceState;

/// When the night's census ended.
const NOW: &str = "2026-11-22T03:12:09Z";

fn time(text: &str) -> jiff::Timestamp {
    text.parse().expect("a time of the fixture")
}

/// A host with one confirmed leak, a suspicion, a warning, a resolved verdict,
/// a unit that may not be read and one source that is blind.
pub(in crate::export) fn night() -> Snapshot {
    let at = time(NOW);
    let mut snapshot = empty(at);
    snapshot.started = time("2026-11-21T08:00:00Z");
    snapshot.units = units(at);
    snapshot.leaks = vec![growing_logs(), suspected_sockets(), near_limit(), rotated()];
    snapshot.confirmed_total = BTreeMap::from([
        (("deployer".into(), Resource::Fd, Rule::UnclosedLogHandle), 1),
        (("nginx.service".into(), Resource::File, Rule::DeletedFileHeld), 2),
    ]);
    snapshot.actions = actions();
    snapshot.actions_total = BTreeMap::from([
        (("deployer".into(), ActionKind::Notify, Mode::Enforce, Outcome::Verified), 1),
        (("nginx.service".into(), ActionKind::Signal, Mode::DryRun, Outcome::WouldAct), 4),
    ]);
    snapshot.sources = sources();
    snapshot.figures = SourceFigures {
        census_seconds: 0.0125,
        census_fds: 1_204,
        lost: BTreeMap::from([("births".into(), 0), ("tasks".into(), 7)]),
        programs: BTreeMap::from([("sys_enter".into(), (1.25, 4_000_000))]),
    };
    snapshot.corrections = BTreeMap::from([("inherited".into(), 31)]);
    snapshot
}

fn units(at: jiff::Timestamp) -> Vec<UnitView> {
    let mut deployer = plain("deployer", time("2026-11-21T21:40:00Z"));
    deployer.unit = std::sync::Arc::new(Unit {
        name: "deployer".into(),
        kind: UnitKind::Rule,
        cgroup: "/system.slice/deployer.service".into(),
    });
    deployer.invocation = 3;
    deployer.open_fds = Some(BTreeMap::from([
        (FdKind::Log, 812),
        (FdKind::Regular, 9),
        (FdKind::Socket, 14),
        (FdKind::Pipe, 6),
    ]));
    deployer.open_fds_total = Some(841);
    deployer.worst = Some(WorstProcess {
        pid: 4211,
        comm: "python3".into(),
        open_fds: 833,
        max_fds: Some(1024),
    });
    (deployer.threads, deployer.processes, deployer.zombies, deployer.orphans) = (11, 5, 1, 2);
    deployer.tasks_max = Some(512);
    deployer.history = (0..60).map(|i| 240 + i * 10).collect();
    let mut lifetimes = Lifetimes { sum_ns: 7_200_000_000_000, ..Default::default() };
    (lifetimes.buckets[9], lifetimes.buckets[19], lifetimes.buckets[33]) = (40, 1_000, 2);
    deployer.flows = Some(UnitFlows {
        fds: BTreeMap::from([(FdKind::Regular, Flow { opened: 1_883, closed: 1_071, lifetimes })]),
        threads: Some(Flow { opened: 30, closed: 19, lifetimes: Lifetimes::default() }),
        processes: Some(Flow { opened: 25, closed: 20, lifetimes: Lifetimes::default() }),
    });

    let mut nginx = plain("nginx.service", time("2026-11-20T00:00:00Z"));
    nginx.deleted_open_bytes = Some(1_610_612_736);

    let mut denied = plain("vault.service", at);
    denied.open_fds = None;
    denied.open_fds_total = None;
    denied.denied_processes = 2;
    denied.worst = None;
    denied.deleted_open_bytes = None;
    denied.history = Vec::new();

    vec![deployer, nginx, denied]
}

fn growing_logs() -> Leak {
    let member = |fd: u32, hour: u32| Example {
        pid: 4211,
        start_ticks: 8_812_345,
        comm: "python3".into(),
        fd: Some(fd),
        path: format!("/var/log/agent/agent-{fd}.jsonl"),
        opened_at: Some(time(&format!("2026-11-21T{hour:02}:10:00Z"))),
    };
    let frame = |role, function: &str, module: &str| Frame {
        function: function.into(),
        module: Some(module.into()),
        role,
        ..Frame::default()
    };
    let script = |role, function: &str, line| Frame {
        file: Some("/srv/deployment_runner.py".into()),
        line,
        module: None,
        ..frame(role, function, "")
    };
    Leak {
        id: "3f9a01c2d4e5".into(),
        unit: "deployer".into(),
        unit_kind: UnitKind::Rule,
        resource: Resource::Fd,
        kind: "log".into(),
        cohort: "/var/log/agent/agent-{n}.jsonl".into(),
        rules: vec![Rule::UnclosedLogHandle, Rule::RisingFloor],
        state: State::Confirmed,
        held: 811,
        growth_per_hour: 146.5,
        first_seen: time("2026-11-21T21:52:00Z"),
        confirmed_at: Some(time("2026-11-21T22:22:00Z")),
        oldest_age_seconds: 19_200.0,
        limit: Some(1024),
        exhausts_at: Some(time("2026-11-22T04:30:22.5Z")),
        pinned_bytes: 0,
        confidence: 0.98,
        evidence: vec![
            "812 write handles on /var/log/agent/agent-{n}.jsonl in python3[4211]; 811 have not \
             moved for 5 min."
                .into(),
            "One more at each of the last 20 restarts of its agent.".into(),
            "The floor rose in each of the last 6 windows of 5 min.".into(),
        ],
        opener: vec![
            frame(Role::Runtime, "__open64", "/usr/lib/x86_64-linux-gnu/libc.so.6"),
            frame(Role::Runtime, "_io_FileIO___init__", "/usr/bin/python3.13"),
            frame(Role::Runtime, "_PyEval_EvalFrameDefault", "/usr/bin/python3.13"),
            script(Role::Opener, "_open_agent_runner_log_file", None),
            script(Role::Program, "start_agent", Some(118)),
        ],
        opener_note: None,
        examples: vec![member(12, 21), member(13, 22), member(19, 23)],
    }
}

fn suspected_sockets() -> Leak {
    Leak {
        id: "77aa01c2d4e6".into(),
        unit: "nginx.service".into(),
        unit_kind: UnitKind::Service,
        kind: "socket".into(),
        cohort: "tcp to 10.0.0.7:5432".into(),
        rules: vec![Rule::RisingFloor],
        state: State::Suspected,
        held: 9,
        growth_per_hour: 2.0,
        confirmed_at: None,
        limit: None,
        exhausts_at: None,
        confidence: 0.45,
        evidence: vec!["The floor rose from 5 to 9 in 3 windows of 5 min.".into()],
        opener: Vec::new(),
        opener_note: None,
        examples: Vec::new(),
        ..growing_logs()
    }
}

fn near_limit() -> Leak {
    Leak {
        id: "0b0001c2d4e7".into(),
        kind: "fd".into(),
        cohort: "RLIMIT_NOFILE".into(),
        rules: vec![Rule::Headroom],
        held: 833,
        exhausts_at: Some(time("2026-11-22T04:29:00Z")),
        evidence: vec!["python3[4211] has 833 of 1,024 descriptors open; 77 min are left.".into()],
        opener: Vec::new(),
        opener_note: None,
        examples: Vec::new(),
        ..growing_logs()
    }
}

fn rotated() -> Leak {
    Leak {
        id: "c0ffee000001".into(),
        unit: "nginx.service".into(),
        unit_kind: UnitKind::Service,
        resource: Resource::File,
        kind: "log".into(),
        cohort: "/var/log/nginx/access.log.{n}".into(),
        rules: vec![Rule::DeletedFileHeld],
        state: State::Resolved,
        held: 3,
        growth_per_hour: 0.0,
        limit: None,
        exhausts_at: None,
        pinned_bytes: 1_610_612_736,
        evidence: vec!["Over: the 3 deleted files were closed after SIGUSR1.".into()],
        opener: Vec::new(),
        opener_note: None,
        examples: Vec::new(),
        ..growing_logs()
    }
}

fn actions() -> Vec<ActionRecord> {
    vec![
        ActionRecord {
            at: time("2026-11-22T03:00:00Z"),
            act: 5,
            leak: "c0ffee000001".into(),
            unit: "nginx.service".into(),
            rule: "deleted-file-held".into(),
            action: ActionKind::Signal,
            mode: Mode::DryRun,
            outcome: Outcome::WouldAct,
            pids: vec![812],
            detail: "Would send SIGUSR1 to nginx[812].".into(),
        },
        ActionRecord {
            at: time("2026-11-21T22:22:01Z"),
            act: 1,
            leak: "3f9a01c2d4e5".into(),
            unit: "deployer".into(),
            rule: "unclosed-log-handle".into(),
            action: ActionKind::Notify,
            mode: Mode::Enforce,
            outcome: Outcome::Verified,
            pids: Vec::new(),
            detail: "Logged.".into(),
        },
    ]
}

fn sources() -> Vec<SourceState> {
    let state = |source: &str, mechanism: &str, active, reason: &str| SourceState {
        source: source.into(),
        mechanism: mechanism.into(),
        active,
        standby: false,
        reason: reason.into(),
    };
    vec![
        state("census", "iter/task_file", true, ""),
        state("task_probes", "tp_btf", true, ""),
        state(
            "fd_probes",
            "none",
            false,
            "EPERM: CAP_PERFMON is missing; grant it with AmbientCapabilities=CAP_PERFMON",
        ),
    ]
}
