//! The results as tables: for the terminal, and for docs/kernels.md.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::kernel::Line;
use super::report::Outcome;
use super::suites::{self, Step};

const BEGIN: &str = "<!-- written by `cargo xtask vm --write-docs`: begin -->";
const BEGIN_FIGURES: &str = "<!-- written by `cargo xtask vm --bench --write-docs`: begin -->";
const END: &str = "<!-- end -->";

/// Which step passed where.
pub fn results(outcomes: &[(Line, Outcome)]) -> String {
    let mut out = format!("{:<8}{:<30}", "line", "kernel");
    let width = |step: &Step| step.name.len().max(7) + 2;
    let ran = |step: &&Step| outcomes.iter().any(|(_, o)| o.step(step.name).is_some());
    let steps: Vec<&Step> = suites::all().filter(ran).collect();
    for step in &steps {
        let _ = write!(out, "{:>1$}", step.name, width(step));
    }
    let _ = writeln!(out, "{:>9}", "total");
    for (line, outcome) in outcomes {
        let _ = write!(out, "{:<8}{:<30}", line.to_string(), outcome.release);
        for step in &steps {
            let cell = match outcome.step(step.name) {
                Some(result) if result.ok => format!("{:.1} s", result.seconds),
                Some(_) => "FAILED".to_owned(),
                None => "-".to_owned(),
            };
            let _ = write!(out, "{cell:>0$}", width(step));
        }
        let _ = writeln!(out, "{:>7.1} s", outcome.took.as_secs_f64());
    }
    out
}

/// The mechanism in use for a source, or why there is none.
fn mechanism(report: &Value, source: &str) -> String {
    let all = report["sources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of: Vec<&Value> = all.iter().filter(|s| s["source"] == source).collect();
    let active: Vec<&str> =
        of.iter().filter(|s| s["active"] == true).filter_map(|s| s["mechanism"].as_str()).collect();
    if active.is_empty() { "none".to_owned() } else { active.join(" + ") }
}

/// Sentences about what is not in use, without repetitions.
fn reasons(report: &Value) -> Vec<String> {
    let all = report["sources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut said: Vec<String> = Vec::new();
    for source in all.iter().filter(|s| s["active"] == false) {
        let text = |key: &str| source[key].as_str().unwrap_or_default();
        let reason = text("reason");
        if !reason.is_empty() {
            said.push(format!("{} by {}: {reason}", text("source"), text("mechanism")));
        }
    }
    said.dedup();
    said
}

/// The tables of the page.
fn page(outcomes: &[(Line, Outcome)]) -> String {
    let mut out = String::new();
    out += "| kernel | boots in, s | census | task probes | fd probes | suite | suite takes, s |\n";
    out += "|---|---|---|---|---|---|---|\n";
    for (_, outcome) in outcomes {
        let report = outcome.doctor().unwrap_or_default();
        let passed = outcome.steps.iter().filter(|step| step.ok).count();
        let suite = if outcome.passed() {
            format!("all {passed} pass")
        } else {
            let failed: Vec<&str> =
                outcome.steps.iter().filter(|s| !s.ok).map(|s| s.name.as_str()).collect();
            format!("**fails: {}**", failed.join(", "))
        };
        let seconds: f64 = outcome.steps.iter().map(|step| step.seconds).sum();
        let _ = writeln!(
            out,
            "| {} | {:.1} | {} | {} | {} | {suite} | {seconds:.0} |",
            outcome.release,
            outcome.up_seconds,
            mechanism(&report, "census"),
            mechanism(&report, "task_probes"),
            mechanism(&report, "fd_probes"),
        );
    }
    out +=
        "\nWhat is not used there or not to be had, in the agent's and the suites' own words:\n\n";
    for (_, outcome) in outcomes {
        let mut said = reasons(&outcome.doctor().unwrap_or_default());
        said.extend(outcome.refused());
        if said.is_empty() {
            said.push("nothing".into());
        }
        let _ = writeln!(out, "- **{}**: {}", outcome.release, said.join("; "));
    }
    out
}

/// Replaces the tables of the suite in a page.
///
/// # Errors
/// The page has no place for them.
pub fn write(file: &Path, outcomes: &[(Line, Outcome)]) -> Result<()> {
    replace(file, BEGIN, &page(outcomes))
}

/// Replaces the figures in a page.
///
/// # Errors
/// The page has no place for them.
pub fn write_figures(file: &Path, tables: &str) -> Result<()> {
    replace(file, BEGIN_FIGURES, tables)
}

fn replace(file: &Path, begin: &str, content: &str) -> Result<()> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let place = text.find(begin).and_then(|from| {
        let to = from + text[from..].find(END)?;
        Some((from, to))
    });
    let Some((from, to)) = place else {
        bail!("{} has no place for the tables: `{begin}` to `{END}`", file.display())
    };
    let text = format!("{}{begin}\n\n{}\n{}", &text[..from], content.trim(), &text[to..]);
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
