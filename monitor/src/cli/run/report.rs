//! The report as text and as JSON.

use std::fmt::Write;

use serde::Serialize;

use super::findings::{Finding, Report, What};
use crate::cli::failure::Failure;
use crate::text::printable;

/// Lines of what is only mentioned, at most.
const MENTIONED: usize = 10;

/// For people: a line for each finding.
pub(super) fn text(report: &Report) -> String {
    let mut out = String::new();
    let leaks = report.findings.iter().filter(|f| f.leak).count();
    let known = if report.known > 0 { format!(", {} known", report.known) } else { String::new() };
    // Writing into a String cannot fail.
    let of = if report.processes == 1 { "process" } else { "processes" };
    let _ = writeln!(out, "leakwatch: {leaks} found{known} in {} {of}", report.processes);
    for finding in report.findings.iter().filter(|f| f.leak) {
        let _ = writeln!(out, "  {}", printable(sentence(finding).as_bytes()));
    }
    let mentioned: Vec<&Finding> = report.findings.iter().filter(|f| !f.leak).collect();
    for finding in mentioned.iter().take(MENTIONED) {
        let _ = writeln!(out, "  not counted: {}", printable(sentence(finding).as_bytes()));
    }
    if let more @ 1.. = mentioned.len().saturating_sub(MENTIONED) {
        let _ = writeln!(out, "  not counted: {more} more");
    }
    for blind in &report.blind {
        let _ = writeln!(out, "  not seen: {}", printable(blind.as_bytes()));
    }
    out
}

/// One finding, for people.
pub(super) fn sentence(f: &Finding) -> String {
    let program = f.program.as_deref().unwrap_or("?");
    let path = f.path.as_deref().unwrap_or("?");
    match f.what {
        What::Descriptors => {
            let kind = f.kind.map_or("?", |k| k.as_str());
            let more = if f.processes > 1 {
                format!(" in the worst of {} processes", f.processes)
            } else {
                String::new()
            };
            format!("{} open at exit: {kind} {path} by {program}{more}", f.count)
        }
        What::Growing => {
            let kind = f.kind.map_or("?", |k| k.as_str());
            format!("{} open and ever more while it ran: {kind} {path} by {program}", f.count)
        }
        What::Process => {
            let pids: Vec<String> = f.pids.iter().map(ToString::to_string).collect();
            format!("{} left running: {program}, pid {}", f.count, pids.join(", "))
        }
        What::TemporaryFile if f.program.is_some() => {
            format!("temporary file left: {path} by {program}")
        }
        What::TemporaryFile => {
            format!("temporary file appeared: {path}, not seen open by the command")
        }
    }
}

/// JSON, for programs and for `--baseline`.
///
/// # Errors
/// It cannot be JSON, which cannot be.
pub(super) fn pretty(value: &impl Serialize) -> Result<String, Failure> {
    let mut text = serde_json::to_string_pretty(value).map_err(Failure::failed)?;
    text.push('\n');
    Ok(text)
}
