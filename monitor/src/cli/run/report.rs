//! The report as text and as JSON.

use std::fmt::Write;

use serde::Serialize;

use super::findings::{Finding, Report, Scope, What};
use crate::cli::failure::Failure;
use crate::export::terminal;
use crate::text::printable;

/// Lines of what is only mentioned, at most.
const MENTIONED: usize = 10;

/// Numbers of processes in a sentence, at most.
const PIDS: usize = 20;
/// Call sites in a sentence, at most.
const SITES: usize = 5;

/// For people: a line for each finding, broken where the terminal ends if there is one.
pub(super) fn text(report: &Report, width: Option<usize>) -> String {
    let lines = lines(report);
    match width {
        Some(width) => lines.iter().map(|line| broken(line, width)).collect(),
        None => lines.iter().fold(String::new(), |text, line| text + line + "\n"),
    }
}

/// A line in as many as it takes, the later ones further in.
fn broken(line: &str, width: usize) -> String {
    let words = line.trim_start_matches(' ');
    let first = line.len() - words.len();
    let rest = first + 2;
    let mut out = String::new();
    for (i, part) in terminal::wrap(words, width.saturating_sub(rest)).iter().enumerate() {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "{:indent$}{part}", "", indent = if i == 0 { first } else { rest });
    }
    out
}

fn lines(report: &Report) -> Vec<String> {
    let leaks = report.findings.iter().filter(|f| f.leak).count();
    let known = if report.known > 0 { format!(", {} known", report.known) } else { String::new() };
    let of = if report.processes == 1 { "process" } else { "processes" };
    let by = if report.scope == Scope::Cgroup { ", in a cgroup of their own" } else { "" };
    let by = if report.processes == 1 { by.replace("their", "its") } else { by.to_owned() };
    let mut lines =
        vec![format!("leakwatch: {leaks} found{known} in {} {of}{by}", report.processes)];
    let said = |text: &str| printable(text.as_bytes());
    for finding in report.findings.iter().filter(|f| f.leak) {
        lines.push(format!("  {}", said(&sentence(finding))));
    }
    let mentioned: Vec<&Finding> = report.findings.iter().filter(|f| !f.leak).collect();
    for finding in mentioned.iter().take(MENTIONED) {
        lines.push(format!("  not counted: {}", said(&sentence(finding))));
    }
    if let more @ 1.. = mentioned.len().saturating_sub(MENTIONED) {
        lines.push(format!("  not counted: {more} more"));
    }
    lines.extend(report.blind.iter().map(|blind| format!("  not seen: {}", said(blind))));
    lines
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
            let opened = sites(f, "opened");
            format!("{} open at exit: {kind} {path} by {program}{more}{opened}", f.count)
        }
        What::Growing => {
            let kind = f.kind.map_or("?", |k| k.as_str());
            let opened = sites(f, "opened");
            format!(
                "{} open and ever more while it ran: {kind} {path} by {program}{opened}",
                f.count
            )
        }
        What::Threads => {
            let more = if f.processes > 1 {
                format!(" in the worst of {} processes", f.processes)
            } else {
                String::new()
            };
            let names = f.names.join(", ");
            {
                let threads = if f.count == 1 { "thread" } else { "threads" };
                let of = format!("{program}{more}, called {names}{}", sites(f, "started"));
                format!("{} {threads} still running at exit: {of}", f.count)
            }
        }
        What::Process => {
            let pids: Vec<String> = f.pids.iter().take(PIDS).map(ToString::to_string).collect();
            let more = f.pids.len().saturating_sub(PIDS);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let (pids, started) = (pids.join(", "), sites(f, "started"));
            format!("{} left running: {program}, pid {pids}{more}{started}", f.count)
        }
        What::TemporaryFile if f.program.is_some() => {
            format!("temporary file left: {path} by {program}{}", sites(f, "opened"))
        }
        What::TemporaryFile => {
            format!("temporary file appeared: {path}, not seen open by the command")
        }
    }
}

/// `, opened in leak (main.rs:7)`
fn sites(f: &Finding, done: &str) -> String {
    match f.openers.as_slice() {
        [] => String::new(),
        [one] if one.count >= f.count => format!(", {done} in {}", one.words()),
        all => {
            let sites = all.iter().take(SITES).map(|s| format!("{} in {}", s.count, s.words()));
            let more = all.len().saturating_sub(SITES);
            let more = if more > 0 { format!(" and in {more} more places") } else { String::new() };
            format!(", {done} {}{more}", sites.collect::<Vec<_>>().join(", "))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_the_terminal_does() {
        let blind = vec!["x".repeat(30), "many words ".repeat(20)];
        let report = Report { blind, processes: 1, ..Report::default() };
        let narrow = text(&report, Some(40));
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
        assert_eq!(text(&report, None).lines().count(), 3);
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&narrow), words(&text(&report, None)));
    }
}
