//! How long one scrape of `/metrics` takes to render, and how large it is, at
//! 500 busy units: one JSON line. `cargo bench --bench scrape`

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use leakwatch::export::metrics::render;

mod types {
    pub(super) use leakwatch::attribution::unit::{Unit, UnitKind};
    pub(super) use leakwatch::detection::verdict::{Leak, Resource, Rule, State};
    pub(super) use leakwatch::export::snapshot::Snapshot;
    pub(super) use leakwatch::ledger::view::{UnitView, WorstProcess};
    pub(super) use leakwatch::source::model::{FdKind, Flow, Lifetimes, SourceFigures, UnitFlows};
}

#[path = "../src/export/testing/fleet.rs"]
mod fleet;

const UNITS: usize = 500;
const ROUNDS: usize = 300;

fn main() -> std::io::Result<()> {
    let snapshot = fleet::fleet(UNITS);
    let size = render(&snapshot).len();
    let mut seconds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            black_box(render(black_box(&snapshot)));
            began.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let quantile = |q: f64| seconds[((ROUNDS - 1) as f64 * q).round() as usize] * 1e3;
    let line = serde_json::json!({
        "bench": "scrape",
        "units": UNITS,
        "bytes": size,
        "p50_ms": quantile(0.5),
        "p99_ms": quantile(0.99),
    });
    writeln!(std::io::stdout().lock(), "{line}")
}
