//! What every unit holds.

use prometheus::proto::MetricFamily;

use super::family::Family;
use crate::ledger::view::UnitView;

/// Adds the `unit_*` gauges.
pub(super) fn add(units: &[UnitView], out: &mut Vec<MetricFamily>) {
    let mut info = Family::gauge("unit_info", "A unit, its kind and its cgroup; always 1.");
    let mut open =
        Family::gauge("unit_open_fds", "Open file descriptors of the unit by kind, by the census.");
    let mut worst_open = Family::gauge(
        "unit_worst_process_open_fds",
        "Open file descriptors of the process of the unit that is nearest to its limit.",
    );
    let mut worst_max = Family::gauge(
        "unit_worst_process_max_fds",
        "Soft RLIMIT_NOFILE of the process of the unit that is nearest to its limit.",
    );
    let mut threads = Family::gauge("unit_threads", "Threads of the unit.");
    let mut processes = Family::gauge("unit_processes", "Living processes of the unit.");
    let mut zombies =
        Family::gauge("unit_zombies", "Processes of the unit that ended and were not reaped.");
    let mut orphans =
        Family::gauge("unit_orphans", "Processes of the unit that outlived their invocation.");
    let mut deleted = Family::gauge(
        "unit_deleted_open_bytes",
        "Disk space that deleted files keep because the unit holds them open.",
    );
    let mut tasks = Family::gauge(
        "unit_async_tasks",
        "Async tasks of the unit that have begun and not ended, while they are counted.",
    );
    let mut spawned = Family::counter(
        "unit_async_tasks_spawned_total",
        "Async tasks of the unit that began while they were counted.",
    );
    let mut ended = Family::counter(
        "unit_async_tasks_ended_total",
        "Async tasks of the unit that were seen to begin, and ended.",
    );
    for view in units {
        let unit = ("unit", &*view.unit.name);
        let kind = ("unit_kind", view.unit.kind.as_str());
        info.push(&[unit, kind, ("cgroup", &view.unit.cgroup)], 1.0);
        for (kind, count) in view.open_fds.iter().flatten() {
            open.push(&[unit, ("kind", kind.as_str())], *count as f64);
        }
        let worst = view.worst.as_ref();
        worst_open.push_known(&[unit], worst.map(|w| w.open_fds));
        worst_max.push_known(&[unit], worst.and_then(|w| w.max_fds));
        threads.push(&[unit], view.threads as f64);
        processes.push(&[unit], view.processes as f64);
        zombies.push(&[unit], view.zombies as f64);
        orphans.push(&[unit], view.orphans as f64);
        deleted.push_known(&[unit], view.deleted_open_bytes);
        let counted = view.tasks.as_ref().filter(|t| t.alive.is_some());
        tasks.push_known(&[unit], counted.and_then(|t| t.alive));
        spawned.push_known(&[unit], counted.map(|t| t.spawned));
        ended.push_known(&[unit], counted.map(|t| t.ended));
    }
    for family in [
        info, open, worst_open, worst_max, threads, processes, zombies, orphans, deleted, tasks,
        spawned, ended,
    ] {
        family.finish(out);
    }
}
