//! `leakwatch status`: what leaks, then what there is.

use std::cmp::Reverse;

use super::MIN_WIDTH;
use super::line::{clip, clip_middle, left, right};
use crate::detection::verdict::{Leak, State};
use crate::export::api::{LeaksDoc, UnitDoc, UnitsDoc};
use crate::export::count::grouped;
use crate::export::rank;

/// Where the permission to look is missing.
const UNSEEN: &str = "?";

/// How many verdicts that are over are shown.
const MAX_OVER: usize = 5;

/// The overview: open verdicts, worst first, the units, then what is over. No line is longer than
/// `width` characters, of which there are at least 60.
pub fn status(units: &UnitsDoc, leaks: &LeaksDoc, width: usize) -> String {
    let width = width.max(MIN_WIDTH);
    let mut sorted: Vec<&Leak> = leaks.leaks.iter().collect();
    sorted.sort_by(|a, b| rank::worst_first(a, b));
    let mut lines = vec![clip(&headline(&sorted), width), String::new()];
    for leak in sorted.iter().filter(|leak| rank::is_open(leak)) {
        verdict(&mut lines, leak, width);
    }
    table(&mut lines, units, &sorted, width);
    over(&mut lines, &sorted, width);
    let mut text = String::new();
    for line in lines {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn headline(leaks: &[&Leak]) -> String {
    let count = |state: State| leaks.iter().filter(|l| l.state == state).count();
    let [confirmed, suspected, resolved] =
        [State::Confirmed, State::Suspected, State::Resolved].map(count);
    if confirmed + suspected + resolved == 0 {
        return "Nothing leaks, as far as can be seen.".to_owned();
    }
    format!("Verdicts: {confirmed} confirmed, {suspected} suspected, {resolved} resolved")
}

fn verdict(lines: &mut Vec<String>, leak: &Leak, width: usize) {
    let rules: Vec<&str> = leak.rules.iter().map(|rule| rule.as_str()).collect();
    lines.push(head(leak, &leak.state.as_str().to_uppercase(), width));

    let rules = format!("  {}", rules.join(", "));
    let cohort = format!("{} {}", leak.kind, leak.cohort);
    if rules.chars().count() + 2 + cohort.chars().count() <= width {
        lines.push(clip(&format!("{rules}  {cohort}"), width));
    } else {
        lines.push(clip(&rules, width));
        lines.push(format!("  {}", clip_middle(&cohort, width - 2)));
    }

    let mut facts = match leak.limit {
        Some(limit) => format!("  {} of {}", grouped(leak.held), grouped(limit)),
        None => format!("  {} held", grouped(leak.held)),
    };
    facts.push_str(&format!(", {:+.1} per hour", leak.growth_per_hour));
    if let Some(at) = leak.exhausts_at {
        facts.push_str(&format!(", limit hit at {}", at.strftime("%Y-%m-%d %H:%M UTC")));
    }
    lines.push(clip(&facts, width));
    if let Some(sentence) = leak.evidence.first() {
        lines.push(clip(&format!("  {sentence}"), width));
    }
    lines.push(String::new());
}

/// A title with the verdict's id at the right.
fn head(leak: &Leak, state: &str, width: usize) -> String {
    let id = clip(&leak.id, 12);
    let room = width - id.chars().count() - 2;
    format!("{}  {id}", left(&format!("{state}  {}", leak.unit), room))
}

/// The newest that are over, and why they are: in lower case, after all else, for
/// nobody has to do anything about them.
fn over(lines: &mut Vec<String>, leaks: &[&Leak], width: usize) {
    let over: Vec<&&Leak> = leaks.iter().filter(|leak| !rank::is_open(leak)).collect();
    for leak in over.iter().take(MAX_OVER) {
        lines.extend([String::new(), head(leak, leak.state.as_str(), width)]);
        lines.push(format!(
            "  {}",
            clip_middle(&format!("{} {}", leak.kind, leak.cohort), width - 2)
        ));
        if let Some(reason) = leak.evidence.last() {
            let reason = reason.strip_prefix("resolved: ").unwrap_or(reason);
            lines.push(format!("  {}", clip(reason, width - 2)));
        }
    }
    if over.len() > MAX_OVER {
        let more = over.len() - MAX_OVER;
        let hint = format!("{more} more are over; `leakwatch status --json` lists them");
        lines.extend([String::new(), clip(&hint, width)]);
    }
}

fn table(lines: &mut Vec<String>, doc: &UnitsDoc, leaks: &[&Leak], width: usize) {
    /// Columns after the name: heading and width, a space before each.
    const COLUMNS: [(&str, usize); 6] =
        [("FDS", 7), ("WORST/MAX", 15), ("THR", 6), ("PROC", 5), ("ZOMB", 4), ("ORPH", 4)];
    let fixed: usize = COLUMNS.iter().map(|(_, w)| w + 1).sum();
    let room = width - fixed;
    let row = |name: &str, cells: [String; 6]| {
        let mut line = left(name, room);
        for (cell, (_, width)) in cells.iter().zip(COLUMNS) {
            line.push(' ');
            line.push_str(&right(cell, width));
        }
        line
    };

    let has_open = |unit: &UnitDoc| leaks.iter().any(|l| rank::is_open(l) && *l.unit == *unit.name);
    let mut units: Vec<&UnitDoc> = doc.units.iter().collect();
    units.sort_by_key(|u| (Reverse(has_open(u)), Reverse(u.open_fds_total), &u.name));

    lines.push(row("UNIT", COLUMNS.map(|(heading, _)| heading.to_owned())));
    let (mut unseen, mut lacking) = (false, false);
    for unit in units {
        let known = |n: Option<u64>| n.map_or_else(|| UNSEEN.to_owned(), |n| n.to_string());
        // A unit that is gone has no worst process; that is not blindness.
        let nobody = if unit.processes == 0 { "-" } else { UNSEEN };
        let worst = unit.worst_process.as_ref().map_or_else(
            || nobody.to_owned(),
            |w| format!("{}/{}", w.open_fds, w.max_fds.map_or("-".to_owned(), |m| m.to_string())),
        );
        unseen |=
            unit.processes > 0 && (unit.open_fds_total.is_none() || unit.worst_process.is_none());
        // At least so many: of some of its processes not even the number is told.
        let part = unit.denied_processes > 0 && unit.open_fds_total.is_some();
        lacking |= part;
        let cells = [
            known(unit.open_fds_total) + if part { "+" } else { "" },
            worst,
            unit.threads.to_string(),
            unit.processes.to_string(),
            unit.zombies.to_string(),
            unit.orphans.to_string(),
        ];
        lines.push(row(&unit.name, cells));
    }
    let what = match (unseen, lacking) {
        (true, true) => "? cannot be seen, + not all of it",
        (true, false) => "? cannot be seen",
        (false, true) => "+ not all of it can be seen",
        (false, false) => return,
    };
    let hint = format!("{what}; `leakwatch doctor` says why and what to grant");
    lines.extend([String::new(), clip(&hint, width)]);
}
