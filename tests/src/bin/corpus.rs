//! The corpus, judged: a line for each case on standard error, the tables on standard
//! output. `--only generated|main|small|real|servers|NAME`: `main` is what is not kept aside of the
//! generated ones, `small` what the suite judges of it.
//!
//! Real programs and servers need root, and as long as the slowest of them. `--keep DIR`
//! leaves their traces there, as `real.trace` and `servers.trace`, for `leakwatch replay`;
//! those of generated cases as `NAME.trace`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use leakwatch_tests::component::say;
use leakwatch_tests::corpus::judge::{METHODS, judge};
use leakwatch_tests::corpus::label::{self, Label};
use leakwatch_tests::corpus::report;
use leakwatch_tests::corpus::score::{Row, row};
use leakwatch_tests::corpus::{generate, real, server};
use leakwatch_tests::program::Flags;

fn main() -> Result<()> {
    let flags = Flags::of_this_process();
    let only = flags.get("only", "all".to_owned());
    let keep: Option<PathBuf> = flags.find("keep");
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
                    let row = judged(case, keep.as_deref());
                    done.lock().expect("no thread fails").push(row);
                }
            });
        }
    });
    for row in done.into_inner().expect("no thread fails") {
        rows.push(row?);
    }
    rows.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    for folder in ["real", "servers"] {
        let mut cases = label::load(folder)?;
        cases.retain(|l| wanted(l, folder));
        let keep = keep.as_ref().map(|dir| dir.join(folder).with_extension("trace"));
        rows.extend(recorded(cases, keep.as_deref())?);
    }
    for (label, outcomes) in &rows {
        for (method, outcome) in METHODS.iter().zip(outcomes) {
            say(format_args!("{}", report::sentence(label, method, outcome)));
        }
    }
    Ok(std::io::stdout().lock().write_all(report::tables(&rows).as_bytes())?)
}

/// Records them, and has the trace judged.
fn recorded(cases: Vec<Label>, keep: Option<&Path>) -> Result<Vec<Row>> {
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(program) = server::missing(&cases) {
        bail!("{program} is missing: `cargo xtask setup` installs it");
    }
    let trace = real::record(&cases)?;
    if let Some(file) = keep {
        fs::write(file, &trace).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let said = judge(&trace)?;
    if let Some(case) = cases.iter().find(|c| !said.seen.contains_key(&c.unit())) {
        bail!("{} was never seen", case.name);
    }
    Ok(cases.into_iter().map(|case| row(case, &said, None)).collect())
}

fn judged(case: &Label, keep: Option<&Path>) -> Result<Row> {
    let trace = generate::trace(case)?;
    if let Some(dir) = keep {
        let file = dir.join(&case.name).with_extension("trace");
        fs::write(&file, &trace.bytes)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(row(case.clone(), &judge(&trace.bytes)?, Some(&trace.leaked)))
}
