//! What only the probes know: how much came and went, and how long it lived.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use prometheus::proto::MetricFamily;

use super::family::Family;
use super::lifetimes::{Folded, fold};
use crate::export::rank;
use crate::export::snapshot::Snapshot;
use crate::source::model::Flow;

/// Histogram series of one family. A histogram is thirteen lines, so 500 units
/// with a few kinds each would be most of the page: beyond this bound only the
/// counters tell of a unit. Units with an open verdict come first, then those
/// with the most completed lifetimes, so that the choice stays the same from
/// scrape to scrape.
const MAX_FD_HISTOGRAMS: usize = 160;
/// The same, for threads and for processes.
const MAX_TASK_HISTOGRAMS: usize = 64;

/// Histograms that compete for the places of a family.
#[derive(Default)]
struct Contest<'a>(Vec<(bool, Vec<(&'static str, &'a str)>, Folded)>);

impl<'a> Contest<'a> {
    fn enter(&mut self, suspect: bool, labels: &[(&'static str, &'a str)], flow: &Flow) {
        if let Some(folded) = fold(&flow.lifetimes) {
            self.0.push((suspect, labels.to_vec(), folded));
        }
    }

    fn settle(mut self, places: usize, mut family: Family, out: &mut Vec<MetricFamily>) {
        self.0.sort_by_key(|(suspect, _, folded)| (Reverse(*suspect), Reverse(folded.count)));
        self.0.truncate(places);
        self.0.sort_by(|a, b| a.1.cmp(&b.1));
        for (_, labels, folded) in &self.0 {
            family.push_histogram(labels, folded);
        }
        family.finish(out);
    }
}

/// Adds counters and lifetimes of the units whose flows are known.
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
    let mut fd_lives = Contest::default();
    let mut thread_lives = Contest::default();
    let mut process_lives = Contest::default();

    for view in &snapshot.units {
        let Some(flows) = &view.flows else { continue };
        let name = &*view.unit.name;
        let unit = ("unit", name);
        let suspect = suspects.contains(name);
        for (kind, flow) in &flows.fds {
            // A kind that the unit never used would be noise on every page.
            if flow.opened == 0 && flow.closed == 0 {
                continue;
            }
            let labels = [unit, ("kind", kind.as_str())];
            opened.push(&labels, flow.opened as f64);
            closed.push(&labels, flow.closed as f64);
            fd_lives.enter(suspect, &labels, flow);
        }
        if let Some(flow) = &flows.threads {
            created.push(&[unit], flow.opened as f64);
            exited.push(&[unit], flow.closed as f64);
            thread_lives.enter(suspect, &[unit], flow);
        }
        if let Some(flow) = &flows.processes {
            started.push(&[unit], flow.opened as f64);
            ended.push(&[unit], flow.closed as f64);
            process_lives.enter(suspect, &[unit], flow);
        }
    }
    for family in [opened, closed, created, exited, started, ended] {
        family.finish(out);
    }
    let fd = Family::histogram(
        "unit_fd_lifetime_seconds",
        "How long closed file descriptors had been open.",
    );
    let thread = Family::histogram("unit_thread_lifetime_seconds", "How long ended threads lived.");
    let process =
        Family::histogram("unit_process_lifetime_seconds", "How long ended processes lived.");
    fd_lives.settle(MAX_FD_HISTOGRAMS, fd, out);
    thread_lives.settle(MAX_TASK_HISTOGRAMS, thread, out);
    process_lives.settle(MAX_TASK_HISTOGRAMS, process, out);
}
