//! `leakwatch explain`: one verdict, all of it.

use std::time::Duration;

use jiff::Timestamp;

use super::line::{clip, clip_middle, left, right, wrap};
use super::{MIN_WIDTH, advice};
use crate::detection::verdict::{Example, Frame, Leak, Role};
use crate::export::count::grouped;
use crate::export::stack;
use crate::text;

/// One verdict with its evidence, opener, examples and what to do next. No line
/// is longer than `width` characters, of which there are at least 60.
pub fn explain(leak: &Leak, width: usize) -> String {
    let width = width.max(MIN_WIDTH);
    let mut lines = Vec::new();
    let title = format!("{}: {} {} verdict {}", leak.unit, leak.state, leak.resource, leak.id);
    lines.extend(wrap(&title, width));
    lines.push(String::new());
    facts(&mut lines, leak, width);

    list(&mut lines, "Evidence", &leak.evidence, width);
    opener(&mut lines, leak, width);
    examples(&mut lines, &leak.examples, width);
    list(&mut lines, "What to do next", &advice::next(leak), width);

    let mut text = String::new();
    for line in lines {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn facts(lines: &mut Vec<String>, leak: &Leak, width: usize) {
    const LABEL: usize = 12;
    let mut fact = |label: &str, value: &str| {
        for (i, line) in wrap(value, width - LABEL - 2).into_iter().enumerate() {
            lines.push(format!("  {}{line}", left(if i == 0 { label } else { "" }, LABEL)));
        }
    };
    let rules: Vec<&str> = leak.rules.iter().map(|rule| rule.as_str()).collect();
    fact("unit kind", leak.unit_kind.as_str());
    fact("kind", &leak.kind);
    fact("cohort", &leak.cohort);
    fact("rules", &rules.join(", "));
    fact("confidence", &format!("{:.0} %", leak.confidence * 100.0));
    match leak.limit {
        Some(limit) => fact("held", &format!("{} of {}", grouped(leak.held), grouped(limit))),
        None => fact("held", &grouped(leak.held)),
    }
    fact("growth", &format!("{:+.1} per hour", leak.growth_per_hour));
    fact("first seen", &stamp(leak.first_seen));
    if let Some(at) = leak.confirmed_at {
        fact("confirmed", &stamp(at));
    }
    if leak.oldest_age_seconds > 0.0 {
        let age = Duration::try_from_secs_f64(leak.oldest_age_seconds).unwrap_or(Duration::MAX);
        fact("oldest", &text::duration(age));
    }
    if let Some(at) = leak.exhausts_at {
        fact("limit hit", &stamp(at));
    }
    if leak.pinned_bytes > 0 {
        fact("disk pinned", &text::bytes(leak.pinned_bytes).to_string());
    }
}

fn list(lines: &mut Vec<String>, heading: &str, sentences: &[String], width: usize) {
    if sentences.is_empty() {
        return;
    }
    lines.extend([String::new(), heading.to_owned()]);
    for sentence in sentences {
        for (i, line) in wrap(sentence, width - 4).into_iter().enumerate() {
            lines.push(format!("{}{line}", if i == 0 { "  - " } else { "    " }));
        }
    }
}

fn opener(lines: &mut Vec<String>, leak: &Leak, width: usize) {
    if leak.opener.is_empty() && leak.opener_note.is_none() {
        return;
    }
    lines.extend([String::new(), "Opened by, innermost first".to_owned()]);
    for row in stack::rows(&leak.opener) {
        match row {
            stack::Row::Frame(f) => frame(lines, f, width),
            stack::Row::Folded(count, modules) => {
                let text = format!("… {}", stack::folded(count, &modules));
                lines.push(format!("    {}", clip(&text, width - 4)));
            }
        }
    }
    for line in leak.opener_note.iter().flat_map(|note| wrap(note, width - 4)) {
        lines.push(format!("    {line}"));
    }
}

/// On one line, or the place on a line of its own: its end says the most.
fn frame(lines: &mut Vec<String>, frame: &Frame, width: usize) {
    let mark = if frame.role == Role::Opener { '>' } else { ' ' };
    let place = stack::place(frame);
    let at = if frame.file.is_some() { "at" } else { "in" };
    let place = place.map(|p| format!("{at} {}", text::printable(p.as_bytes())));
    let name = text::printable(frame.function.as_bytes());
    let both = name.chars().count() + place.as_ref().map_or(0, |p| 1 + p.chars().count());
    if both <= width - 4 {
        lines.push(format!("  {mark} {name} {}", place.unwrap_or_default()));
        return;
    }
    lines.push(format!("  {mark} {}", clip(&name, width - 4)));
    lines.extend(place.map(|p| format!("      {}", clip_middle(&p, width - 6))));
}

fn examples(lines: &mut Vec<String>, examples: &[Example], width: usize) {
    const PROCESS: usize = 20;
    const FD: usize = 6;
    const OPENED: usize = 20;
    if examples.is_empty() {
        return;
    }
    lines.extend([String::new(), "Examples, oldest first".to_owned()]);
    let room = width - 2 - PROCESS - FD - OPENED - 3;
    let row = |process: &str, fd: &str, opened: &str, path: &str| {
        format!(
            "  {} {} {} {}",
            left(process, PROCESS),
            right(fd, FD),
            left(opened, OPENED),
            clip_middle(path, room)
        )
    };
    lines.push(row("PROCESS", "FD", "OPENED (UTC)", "PATH"));
    for example in examples {
        let opened = example.opened_at.map_or_else(
            || "before first look".to_owned(),
            |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        );
        let fd = example.fd.map_or_else(|| "-".to_owned(), |fd| fd.to_string());
        // The pid must survive a long name.
        let pid = format!("[{}]", example.pid);
        let process = format!("{}{pid}", clip(&example.comm, PROCESS - pid.len()));
        lines.push(row(&process, &fd, &opened, &example.path));
    }
}

fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
