//! `/metrics`: Prometheus text, built from one snapshot.
//!
//! Nothing is registered and nothing is kept, so a unit that has gone leaves no
//! series behind. What is unknown is absent, never 0. No label holds a pid or
//! the path of a file.

mod agent;
mod family;
mod flows;
mod leaks;
mod lifetimes;
mod units;

use jiff::Timestamp;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, TextEncoder};

use super::snapshot::Snapshot;

/// The content type of what [`render`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Renders every metric in the Prometheus text format.
pub fn render(snapshot: &Snapshot) -> Vec<u8> {
    let mut families = of_snapshot(snapshot);
    agent::add_self(&mut families);
    encode(&families)
}

/// Renders what is known before the first snapshot: the agent itself.
pub fn render_without_snapshot() -> Vec<u8> {
    let mut families = Vec::new();
    agent::add_self(&mut families);
    encode(&families)
}

fn of_snapshot(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let mut families = Vec::with_capacity(40);
    units::add(&snapshot.units, &mut families);
    leaks::add(snapshot, &mut families);
    agent::add(snapshot, &mut families);
    flows::add(snapshot, &mut families);
    families
}

fn encode(families: &[MetricFamily]) -> Vec<u8> {
    let mut text = Vec::with_capacity(64 * 1024);
    // Writing to memory cannot fail, and `Family::finish` lets no family
    // through that the encoder refuses; what was written so far still counts.
    if let Err(error) = TextEncoder::new().encode(families, &mut text) {
        tracing::error!(%error, "metrics are incomplete");
    }
    text
}

fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1e3
}

#[cfg(test)]
mod tests;
