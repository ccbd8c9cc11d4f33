//! The agent itself: its sources, what it lost, what it costs.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;

use super::family::Family;
use super::seconds;
use crate::export::snapshot::Snapshot;

/// Adds what the snapshot says of the agent.
pub(super) fn add(snapshot: &Snapshot, out: &mut Vec<MetricFamily>) {
    let figures = &snapshot.figures;

    let mut state = Family::gauge("source_state", "1 where a source of data works, else 0.");
    for source in &snapshot.sources {
        let labels = [("source", &*source.source), ("mechanism", &*source.mechanism)];
        state.push(&labels, f64::from(u8::from(source.active)));
    }
    let mut lost = Family::counter(
        "events_lost_total",
        "Annotations lost because a map or buffer was full; counts stay right without them.",
    );
    for (source, count) in &figures.lost {
        lost.push(&[("source", source)], *count as f64);
    }
    let mut corrections = Family::counter(
        "census_corrections_total",
        "Corrections that the census made to what the probes said, by cause.",
    );
    for (cause, count) in &snapshot.corrections {
        corrections.push(&[("cause", cause)], *count as f64);
    }
    let mut fds = Family::gauge("census_fds", "File descriptors that the last census counted.");
    fds.push(&[], figures.census_fds as f64);
    let mut duration = Family::gauge("census_duration_seconds", "Time the last census took.");
    duration.push(&[], figures.census_seconds);
    let mut timestamp =
        Family::gauge("census_timestamp_seconds", "When the last census ended, Unix time.");
    timestamp.push(&[], seconds(snapshot.at));
    let mut interval = Family::gauge(
        "census_interval_seconds",
        "Time between two censuses, as the budget allows.",
    );
    interval.push(&[], snapshot.interval.as_secs_f64());
    let mut whole = Family::gauge(
        "census_whole_interval_seconds",
        "Time between two censuses that read every descriptor; others count, and read what has moved.",
    );
    whole.push(&[], snapshot.whole_interval.as_secs_f64());
    let mut runtime = Family::counter(
        "probe_runtime_seconds_total",
        "Time spent in a BPF program, by the kernel's statistics or a sample of them.",
    );
    let mut runs = Family::counter(
        "probe_runs_total",
        "Runs of a BPF program, by the kernel's statistics or a sample of them.",
    );
    for (program, (spent, count)) in &figures.programs {
        runtime.push(&[("program", program)], *spent);
        runs.push(&[("program", program)], *count as f64);
    }
    let mut reload = Family::gauge(
        "config_last_reload_successful",
        "1 where the last load of the config worked, else 0.",
    );
    reload.push(&[], f64::from(u8::from(snapshot.reload_ok)));

    for family in [state, lost, corrections, fds, duration, timestamp, interval, whole] {
        family.finish(out);
    }
    for family in [runtime, runs, reload] {
        family.finish(out);
    }
}

/// Adds what is true of this binary and this process whatever the snapshot.
pub(super) fn add_self(out: &mut Vec<MetricFamily>) {
    let mut build = Family::gauge("build_info", "Version of the agent; always 1.");
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("revision", option_env!("LEAKWATCH_REVISION").unwrap_or("unknown")),
        ("rustversion", env!("LEAKWATCH_RUSTVERSION")),
    ];
    build.push(&labels, 1.0);
    build.finish(out);

    // A fresh collector per scrape: its counter then starts at zero and takes
    // in the whole total, and no state outlives the scrape.
    out.extend(prometheus::process_collector::ProcessCollector::for_self().collect());
}
