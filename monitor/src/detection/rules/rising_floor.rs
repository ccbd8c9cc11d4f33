//! `rising-floor`: the lowest count of a cohort rises window after window.
//! Statistical.

use std::collections::HashMap;

use crate::config::model::Detection;
use crate::detection::finding::{Finding, named};
use crate::detection::rise::{self, Rise, Tracks};
use crate::detection::verdict::Rule;
use crate::ledger::Ledger;
use crate::ledger::process::{Held, Process};
use crate::source::model::FdKind;
use crate::text;
use crate::time::Boottime;

const RULE: Rule = Rule::RisingFloor;

/// Files that are each open once look like the file cache of a database until
/// it is full; they need so many times the windows.
const CACHE_PATIENCE: usize = 2;

/// Judges every cohort.
pub fn judge(ledger: &Ledger, config: &Detection, _now: Boottime) -> Vec<Finding> {
    let tracks = ledger.processes().flat_map(|p| {
        p.slots.iter().filter_map(move |((kind, template), slot)| {
            Some((p, (*kind, &**template), &p.cohorts.get(*slot as usize)?.track))
        })
    });
    rise::grouped(tracks)
        .into_iter()
        .filter_map(|((_, _, (kind, template)), tracks)| {
            verdict(ledger, config, kind, template, &tracks)
        })
        .collect()
}

fn verdict(
    ledger: &Ledger,
    config: &Detection,
    kind: FdKind,
    template: &str,
    tracks: &Tracks<'_>,
) -> Option<Finding> {
    // Most cohorts have too little history or stand still: cheap to pass over.
    if tracks.iter().all(|(_, t)| t.marks.len() < 2 || t.count < 2) {
        return None;
    }
    let windows = config.windows.max(1) as usize;
    let mut found = rise::find(ledger, config, windows, tracks)?;
    let members = members(&found.processes, kind, template, ledger);
    if is_file(kind) && each_open_once(&members) {
        found = rise::find(ledger, config, windows * CACHE_PATIENCE, tracks)?;
    }
    let mut finding =
        Finding::of_descriptors(ledger, RULE, found.strength, template.to_owned(), &members)?;
    finding.growth_per_hour = found.per_hour;
    finding.evidence = vec![sentence(ledger, &found, kind, template)];
    Some(finding)
}

fn is_file(kind: FdKind) -> bool {
    matches!(kind, FdKind::Regular | FdKind::Log | FdKind::Directory)
}

/// Members that have been there for a whole window: what comes and goes with
/// the load is not leaked.
fn members<'a>(
    processes: &[&'a Process],
    kind: FdKind,
    template: &str,
    ledger: &Ledger,
) -> Vec<(&'a Process, &'a Held)> {
    let began = ledger.clock().boot - ledger.window().length();
    let mut members = Vec::new();
    for p in processes {
        let slot = p.slots.iter().find(|((k, t), _)| *k == kind && **t == *template);
        let Some((_, slot)) = slot else { continue };
        members.extend(
            p.held.iter().filter(|h| h.slot == *slot && h.since <= began).map(|h| (*p, h)),
        );
    }
    members
}

fn each_open_once(members: &[(&Process, &Held)]) -> bool {
    let mut files: HashMap<(u32, u32, u64), u32> = HashMap::new();
    for (p, h) in members {
        *files.entry((p.serial, h.device, h.inode)).or_default() += 1;
    }
    // A handful of repeats is chance; a leak repeats most of them.
    files.len() * 10 > members.len() * 9
}

fn sentence(ledger: &Ledger, found: &Rise<'_>, kind: FdKind, template: &str) -> String {
    let first = found.floors.first().copied().unwrap_or(0);
    let last = found.floors.last().copied().unwrap_or(0);
    let rises = found.floors.windows(2).filter(|w| w[1] > w[0]).count();
    let whose = match found.processes.as_slice() {
        [one] => named(one),
        many => format!("{} processes", many.len()),
    };
    let what = if kind.as_str() == template {
        kind.as_str().to_owned()
    } else {
        format!("{kind} {template}")
    };
    format!(
        "the lowest number of {what} open in {whose} rose from {first} to {last} in {rises} of the last {} windows of {}; {} of them were open all through the newest",
        found.floors.len().saturating_sub(1),
        text::duration(ledger.window().length()),
        found.survivors,
    )
}
