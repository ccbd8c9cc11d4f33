//! The corpus, judged: a line for each case on standard error, the tables on standard
//! output. `--only generated|main|small|real|NAME`: `main` is what is not kept aside, `small` what
//! the suite judges of it.
//!
//! Real programs need root, and as long as the slowest of them.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, bail};
use leakwatch_tests::component::say;
use leakwatch_tests::corpus::judge::{METHODS, judge};
use leakwatch_tests::corpus::label::{self, Label};
use leakwatch_tests::corpus::report;
use leakwatch_tests::corpus::score::{Row, row};
use leakwatch_tests::corpus::{generate, real};
use leakwatch_tests::program::Flags;

fn main() -> Result<()> {
    let only = Flags::of_this_process().get("only", "all".to_owned());
    let wanted = |l: &Label, folder: &str| match only.as_str() {
        "all" => true,
        "small" => l.generated() && !l.large && !l.held_out,
        "main" => l.generated() && !l.held_out,
        only => only == folder || only == l.name,
    };
    let mut rows: Vec<Row> = Vec::new();
    let mut cases = label::load("generated")?;
    cases.retain(|l| wanted(l, "generated"));
    // The large ones first, so that no thread is left alone with one.
    cases.sort_by_key(|l| !l.large);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let row = judged(case);
                    done.lock().expect("no thread fails").push(row);
                }
            });
        }
    });
    for row in done.into_inner().expect("no thread fails") {
        rows.push(row?);
    }
    rows.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    let cases: Vec<Label> =
        label::load("real")?.into_iter().filter(|l| wanted(l, "real")).collect();
    if !cases.is_empty() {
        let said = judge(&real::record(&cases)?)?;
        for case in cases {
            if !said.seen.contains_key(&case.unit()) {
                bail!("{} was never seen", case.name);
            }
            rows.push(row(case, &said, None));
        }
    }
    for (label, outcomes) in &rows {
        for (method, outcome) in METHODS.iter().zip(outcomes) {
            say(format_args!("{}", report::sentence(label, method, outcome)));
        }
    }
    Ok(std::io::stdout().lock().write_all(report::tables(&rows).as_bytes())?)
}

fn judged(case: &Label) -> Result<Row> {
    let trace = generate::trace(case)?;
    Ok(row(case.clone(), &judge(&trace.bytes)?, Some(&trace.leaked)))
}
