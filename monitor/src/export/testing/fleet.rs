//! Many units at once: for size in the tests and for time in the benchmark,
//! which includes this file by its path; hence the types come from `super`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::types::*;

/// A snapshot of `n` units, all of them busy and all of them probed.
pub fn fleet(n: usize) -> Snapshot {
    let at: jiff::Timestamp = "2026-11-22T03:12:09Z".parse().expect("a time");
    Snapshot {
        at,
        started: at,
        units: (0..n).map(|i| unit(i, at)).collect(),
        unplaced: None,
        leaks: (0..n / 10).map(|i| leak(i, at)).collect(),
        confirmed_total: (0..n / 20)
            .map(|i| ((name(i), Resource::Fd, Rule::RisingFloor), 2))
            .collect(),
        actions: Vec::new(),
        actions_total: BTreeMap::new(),
        sources: Vec::new(),
        figures: SourceFigures::default(),
        corrections: BTreeMap::new(),
        reload_ok: true,
        interval: std::time::Duration::from_secs(5),
        whole_interval: std::time::Duration::from_secs(5),
    }
}

fn name(i: usize) -> Arc<str> {
    format!("payments-api-{i:04}.service").into()
}

fn unit(i: usize, at: jiff::Timestamp) -> UnitView {
    let i64 = i as u64;
    let flow = |scale: u64| Flow {
        opened: 1_000_003 * scale + i64,
        closed: 1_000_000 * scale,
        lifetimes: Lifetimes {
            sum_ns: 123_456_789_012 * scale,
            buckets: (0..36).map(|b| b * scale * 100).collect(),
        },
    };
    let kinds = [FdKind::Log, FdKind::Regular, FdKind::Socket, FdKind::Pipe, FdKind::Epoll];
    let probed = [FdKind::Regular, FdKind::Socket, FdKind::Other];
    UnitView {
        unit: Arc::new(Unit {
            name: name(i),
            kind: UnitKind::Service,
            cgroup: format!("/system.slice/payments-api-{i:04}.service").into(),
        }),
        invocation: 1,
        since: at,
        open_fds: Some(kinds.into_iter().map(|k| (k, 120 + i64)).collect()),
        open_fds_total: Some(600 + 5 * i64),
        denied_processes: 0,
        worst: Some(WorstProcess {
            pid: 4_000 + i as u32,
            comm: "python3".into(),
            open_fds: 300,
            max_fds: Some(1_048_576),
        }),
        threads: 64,
        processes: 8,
        zombies: 0,
        orphans: 0,
        tasks: None,
        deleted_open_bytes: Some(4096),
        tasks_max: Some(4915),
        systemd: None,
        flows: Some(UnitFlows {
            fds: probed.into_iter().map(|k| (k, flow(1 + i64 % 7))).collect(),
            threads: Some(flow(1)),
            processes: Some(flow(2)),
        }),
        baselines: Vec::new(),
        history: (0..120).map(|t| 500 + t * (i64 % 5)).collect(),
    }
}

fn leak(i: usize, at: jiff::Timestamp) -> Leak {
    Leak {
        id: format!("{i:012x}"),
        unit: name(i),
        unit_kind: UnitKind::Service,
        resource: Resource::Fd,
        kind: "log".into(),
        cohort: "/var/log/payments/worker-{n}.log".into(),
        rules: vec![Rule::UnclosedLogHandle, Rule::RisingFloor],
        state: State::Confirmed,
        held: 40,
        growth_per_hour: 6.0,
        first_seen: at,
        confirmed_at: Some(at),
        oldest_age_seconds: 7_200.0,
        limit: Some(1024),
        exhausts_at: Some(at),
        pinned_bytes: 0,
        confidence: 0.9,
        evidence: vec!["40 write handles on /var/log/payments".into()],
        opener: Vec::new(),
        opener_note: None,
        examples: Vec::new(),
    }
}
