//! The corpus, judged: a line for each case on standard error, the tables on standard
//! output. `--only generated|small|real|NAME`, where `small` is what the suite judges.
//!
//! Real programs need root, and as long as the slowest of them.

use std::io::Write;

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
        "small" => l.generated() && !l.large,
        only => only == folder || only == l.name,
    };
    let mut rows: Vec<Row> = Vec::new();
    for case in label::load("generated")?.into_iter().filter(|l| wanted(l, "generated")) {
        let trace = generate::trace(&case)?;
        let said = judge(&trace.bytes)?;
        rows.push(row(case, &said, Some(&trace.leaked)));
    }
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
