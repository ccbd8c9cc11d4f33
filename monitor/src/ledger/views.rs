//! Draws up what the ledger shows of each unit.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::attribution::unit::{Unit, UnitKind};
use crate::ledger::Ledger;
use crate::ledger::process::{Process, Sight};
use crate::ledger::view::{UnitView, WorstProcess};
use crate::source::model::FdKind;
use crate::text;

/// How long a unit without processes is still shown, as zero.
const LINGER: std::time::Duration = std::time::Duration::from_secs(600);

impl Ledger {
    /// Every unit, by name; past the configured number the smallest are summed
    /// as `other`.
    pub fn views(&self) -> Vec<UnitView> {
        let mut views: BTreeMap<Arc<str>, UnitView> = self
            .units
            .values()
            .filter(|u| u.over.is_none() || self.clock.boot.since(u.last_seen) < LINGER)
            .map(|u| {
                let view = UnitView {
                    unit: Arc::clone(&u.unit),
                    invocation: u.invocation,
                    since: u.started.to_wall(self.clock),
                    // A unit without processes is known to hold nothing.
                    open_fds: Some(BTreeMap::new()),
                    open_fds_total: u.over.map(|_| 0),
                    denied_processes: 0,
                    worst: None,
                    threads: 0,
                    processes: 0,
                    zombies: 0,
                    orphans: 0,
                    deleted_open_bytes: Some(0),
                    tasks_max: u.tasks_max,
                    systemd: u.systemd.clone(),
                    tasks: self.tasks_of(&u.unit.name),
                    flows: u.flows.clone(),
                    baselines: (self.baselines.of_unit(&u.unit.name))
                        .map(|(key, baseline)| (key.clone(), Arc::clone(baseline)))
                        .collect(),
                    history: u.history.iter().copied().collect(),
                };
                (Arc::clone(&u.unit.name), view)
            })
            .collect();
        let mut deleted: BTreeMap<Arc<str>, BTreeSet<(u32, u64)>> = BTreeMap::new();
        for p in self.processes.values() {
            let owner = match p.zombie_since {
                // A zombie is its parent's: nobody else can reap it.
                Some(_) => {
                    p.parent.and_then(|q| self.processes.get(&q)).map_or(&p.unit, |q| &q.unit)
                }
                None => &p.unit,
            };
            let Some(view) = views.get_mut(&owner.name) else { continue };
            if p.zombie_since.is_some() {
                view.zombies += 1;
            } else if p.exited.is_none() {
                add_process(view, p, deleted.entry(Arc::clone(&owner.name)).or_default());
            }
        }
        for orphan in self.orphans() {
            if let Some(view) = views.get_mut(&orphan.process.unit.name) {
                view.orphans += 1;
            }
        }
        self.bound(views)
    }

    fn bound(&self, views: BTreeMap<Arc<str>, UnitView>) -> Vec<UnitView> {
        if views.len() <= self.max_units {
            return views.into_values().collect();
        }
        let mut by_size: Vec<UnitView> = views.into_values().collect();
        by_size.sort_by_key(|v| (Reverse((v.open_fds_total, v.processes)), v.unit.name.clone()));
        let rest = by_size.split_off(self.max_units.saturating_sub(1));
        if let Some(other) = rest.into_iter().reduce(sum) {
            let unit = Unit { name: "other".into(), kind: UnitKind::Cgroup, cgroup: "".into() };
            by_size.push(UnitView { unit: Arc::new(unit), ..other });
        }
        by_size.sort_by(|a, b| a.unit.name.cmp(&b.unit.name));
        by_size
    }
}

fn add_process(view: &mut UnitView, p: &Process, deleted: &mut BTreeSet<(u32, u64)>) {
    view.processes += 1;
    view.threads += u64::from(p.threads.count);
    let Some(open) = p.open_fds() else {
        view.denied_processes += 1;
        (view.open_fds, view.deleted_open_bytes) = (None, None);
        return;
    };
    *view.open_fds_total.get_or_insert(0) += open;
    if p.sight != Sight::Full {
        // Of a sum that lacks a part, nobody can say what it is the sum of.
        (view.open_fds, view.deleted_open_bytes) = (None, None);
    }
    if let (Some(kinds), Some(bytes)) = (&mut view.open_fds, &mut view.deleted_open_bytes) {
        for h in &p.held {
            *kinds.entry(h.kind).or_default() += 1;
            let on_disk = matches!(h.kind, FdKind::Log | FdKind::Regular);
            if h.deleted.0 != 0 && on_disk && deleted.insert((h.device, h.inode)) {
                *bytes += h.disk_bytes;
            }
        }
    }
    let worst = WorstProcess {
        pid: p.id.pid,
        comm: text::printable(p.comm.as_bytes()),
        open_fds: open,
        max_fds: p.max_fds,
    };
    if view.worst.as_ref().is_none_or(|w| nearness(&worst) > nearness(w)) {
        view.worst = Some(worst);
    }
}

/// Order of nearness to the limit; without one, of size.
fn nearness(w: &WorstProcess) -> (u64, u64) {
    let per_million = w.max_fds.map_or(0, |m| {
        u64::try_from(u128::from(w.open_fds) * 1_000_000 / u128::from(m.max(1))).unwrap_or(u64::MAX)
    });
    (per_million, w.open_fds)
}

fn sum(mut a: UnitView, b: UnitView) -> UnitView {
    a.baselines = Vec::new();
    fn add(a: Option<u64>, b: Option<u64>) -> Option<u64> {
        match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        }
    }
    a.open_fds = a.open_fds.zip(b.open_fds).map(|(mut kinds, more)| {
        for (kind, n) in more {
            *kinds.entry(kind).or_default() += n;
        }
        kinds
    });
    a.open_fds_total = add(a.open_fds_total, b.open_fds_total);
    a.denied_processes += b.denied_processes;
    a.threads += b.threads;
    a.processes += b.processes;
    a.zombies += b.zombies;
    a.orphans += b.orphans;
    a.deleted_open_bytes = a.deleted_open_bytes.zip(b.deleted_open_bytes).map(|(a, b)| a + b);
    a.since = a.since.min(b.since);
    a.worst = match (a.worst, b.worst) {
        (Some(a), Some(b)) => Some(if nearness(&b) > nearness(&a) { b } else { a }),
        (a, b) => a.or(b),
    };
    // Limits and invocations of several units do not add up to one.
    a.tasks_max = None;
    a.systemd = None;
    a.invocation = 1;
    a.tasks = match (a.tasks, b.tasks) {
        (Some(mut a), Some(b)) => {
            a.alive = add(a.alive, b.alive);
            a.spawned += b.spawned;
            a.ended += b.ended;
            // Functions of several units have nothing to do with each other.
            a.kinds.clear();
            a.blind = a.blind.or(b.blind);
            Some(a)
        }
        (a, b) => a.or(b),
    };
    a.flows = match (a.flows, b.flows) {
        (Some(mut a), Some(b)) => {
            a.add(&b);
            Some(a)
        }
        (a, b) => a.or(b),
    };
    let longest = a.history.len().max(b.history.len());
    let (skip_a, skip_b) = (longest - a.history.len(), longest - b.history.len());
    a.history = (0..longest)
        .map(|i| {
            let at = |h: &[u64], skip: usize| i.checked_sub(skip).map_or(0, |i| h[i]);
            at(&a.history, skip_a) + at(&b.history, skip_b)
        })
        .collect();
    a
}
