//! One night's snapshot, shared by the tests of every exporter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

mod fleet;
mod hostile;
mod night;

pub(super) use fleet::fleet;
pub(super) use hostile::{HOSTILE, hostile};
pub(super) use night::night;

/// What the fixtures are made of, under the names the benchmark gives them too.
mod types {
    pub(super) use crate::attribution::unit::{Unit, UnitKind};
    pub(super) use crate::detection::verdict::{Leak, Resource, Rule, State};
    pub(super) use crate::export::snapshot::Snapshot;
    pub(super) use crate::ledger::view::{UnitView, WorstProcess};
    pub(super) use crate::source::model::{FdKind, Flow, Lifetimes, SourceFigures, UnitFlows};
}

/// A snapshot that knows nothing yet but its own time.
fn empty(at: jiff::Timestamp) -> types::Snapshot {
    types::Snapshot {
        at,
        started: at,
        units: Vec::new(),
        unplaced: None,
        leaks: Vec::new(),
        confirmed_total: BTreeMap::new(),
        actions: Vec::new(),
        actions_total: BTreeMap::new(),
        sources: Vec::new(),
        figures: types::SourceFigures::default(),
        corrections: BTreeMap::new(),
        reload_ok: true,
        interval: Duration::from_secs(5),
        whole_interval: Duration::from_secs(40),
    }
}

/// A small, healthy unit to start from.
fn plain(name: &str, at: jiff::Timestamp) -> types::UnitView {
    types::UnitView {
        unit: Arc::new(types::Unit {
            name: name.into(),
            kind: types::UnitKind::Service,
            cgroup: format!("/system.slice/{name}").into(),
        }),
        invocation: 1,
        since: at,
        open_fds: Some(BTreeMap::from([
            (types::FdKind::Regular, 4),
            (types::FdKind::Socket, 9),
            (types::FdKind::Epoll, 1),
        ])),
        open_fds_total: Some(14),
        denied_processes: 0,
        worst: Some(types::WorstProcess {
            pid: 812,
            comm: "worker".into(),
            open_fds: 14,
            max_fds: Some(1024),
        }),
        threads: 4,
        processes: 2,
        zombies: 0,
        orphans: 0,
        tasks: None,
        deleted_open_bytes: Some(0),
        tasks_max: None,
        systemd: None,
        flows: None,
        baselines: Vec::new(),
        history: vec![14; 20],
    }
}
