//! What only the probes know: how much came and went, and how long it lived.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::iter;

use prometheus::proto::MetricFamily;

use super::family::{Family, weight};
use super::lifetimes::{Folded, fold};
use crate::export::rank;
use crate::export::snapshot::Snapshot;
use crate::source::model::{FdKind, Flow};

/// What the page may weigh in all, with 500 units of usual names: histograms get
/// what the other series leave of it. A histogram is thirteen lines, so some for
/// every unit would be most of the page.
const PAGE_BYTES: usize = (1 << 20) - (16 << 10);
/// Units under suspicion have theirs whatever the rest weighs, up to so many.
const SUSPECT_HISTOGRAMS: usize = 40;

/// A histogram that competes for a place on the page.
struct Entry<'a> {
    family: usize,
    suspect: bool,
    labels: Vec<(&'static str, &'a str)>,
    folded: Folded,
}

/// Chooses: units with an open verdict first, then those with the most
/// completed lifetimes, so that the choice is the same from scrape to scrape.
fn choose(mut entries: Vec<Entry>, room: usize) -> Vec<Entry> {
    entries.sort_by(|a, b| {
        let rank = |e: &Entry| (Reverse(e.suspect), Reverse(e.folded.count));
        rank(a).cmp(&rank(b)).then_with(|| (a.family, &a.labels).cmp(&(b.family, &b.labels)))
    });
    let (mut used, mut suspects) = (0, 0);
    entries.retain(|entry| {
        // Lines of about 60 bytes besides the values of the labels.
        let labels: usize = entry.labels.iter().map(|(_, value)| value.len() + 12).sum();
        used += (entry.folded.cumulative.len() + 3) * (70 + labels);
        suspects += usize::from(entry.suspect);
        used <= room || (entry.suspect && suspects <= SUSPECT_HISTOGRAMS)
    });
    entries.sort_by(|a, b| (a.family, &a.labels).cmp(&(b.family, &b.labels)));
    entries
}

/// Adds counters and lifetimes of the units whose flows are known. To be called
/// last, since what `out` holds already decides how many histograms have room.
pub(super) fn add(snapshot: &Snapshot, out: &mut Vec<MetricFamily>) {
    let suspects: BTreeSet<&str> =
        snapshot.leaks.iter().filter(|l| rank::is_open(l)).map(|l| &*l.unit).collect();

    let mut opened = Family::counter(
        "unit_fds_opened_total",
        "File descriptors acquired while the probes were attached.",
    );
    let mut closed = Family::counter(
        "unit_fds_closed_total",
        "File descriptors released while the probes were attached.",
    );
    let mut created = Family::counter("unit_threads_created_total", "Threads created.");
    let mut exited = Family::counter("unit_threads_exited_total", "Threads that ended.");
    let mut started = Family::counter("unit_processes_started_total", "Processes started.");
    let mut ended = Family::counter("unit_processes_exited_total", "Processes that ended.");
    let mut entries = Vec::new();

    let all = snapshot.flows();
    for (name, flows) in &all {
        let unit = ("unit", *name);
        let suspect = suspects.contains(*name);
        let mut enter = |family, kind: Option<FdKind>, flow: &Flow| {
            if let Some(folded) = fold(&flow.lifetimes) {
                let kind = kind.map(|kind| ("kind", kind.as_str()));
                let labels = iter::once(unit).chain(kind).collect();
                entries.push(Entry { family, suspect, labels, folded });
            }
        };
        for (kind, flow) in &flows.fds {
            // A kind that the unit never used would be noise on every page.
            if flow.opened == 0 && flow.closed == 0 {
                continue;
            }
            let labels = [unit, ("kind", kind.as_str())];
            opened.push(&labels, flow.opened as f64);
            closed.push(&labels, flow.closed as f64);
            enter(0, Some(*kind), flow);
        }
        if let Some(flow) = &flows.threads {
            created.push(&[unit], flow.opened as f64);
            exited.push(&[unit], flow.closed as f64);
            enter(1, None, flow);
        }
        if let Some(flow) = &flows.processes {
            started.push(&[unit], flow.opened as f64);
            ended.push(&[unit], flow.closed as f64);
            enter(2, None, flow);
        }
    }
    for family in [opened, closed, created, exited, started, ended] {
        family.finish(out);
    }
    let mut families = [
        Family::histogram(
            "unit_fd_lifetime_seconds",
            "How long closed file descriptors had been open.",
        ),
        Family::histogram("unit_thread_lifetime_seconds", "How long ended threads lived."),
        Family::histogram("unit_process_lifetime_seconds", "How long ended processes lived."),
    ];
    for entry in choose(entries, PAGE_BYTES.saturating_sub(weight(out))) {
        families[entry.family].push_histogram(&entry.labels, &entry.folded);
    }
    for family in families {
        family.finish(out);
    }
}
