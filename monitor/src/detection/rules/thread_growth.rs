//! `thread-growth`: the threads of a process rise like a floor. Statistical.

use crate::config::model::Detection;
use crate::detection::finding::{Finding, Room, named};
use crate::detection::rise;
use crate::detection::rules::leaves_out_unit;
use crate::detection::verdict::{Resource, Rule};
use crate::ledger::Ledger;
use crate::text;
use crate::time::Boottime;

const RULE: Rule = Rule::ThreadGrowth;

/// Judges the threads of like-named processes of each unit.
pub fn judge(ledger: &Ledger, config: &Detection, _now: Boottime) -> Vec<Finding> {
    let tracks = ledger
        .processes()
        .filter(|p| !leaves_out_unit(ledger, RULE, p))
        .map(|p| (p, text::printable(p.comm.as_bytes()), &p.threads));
    rise::grouped(tracks)
        .into_iter()
        .filter_map(|((_, _, comm), tracks)| {
            let windows = config.windows.max(1) as usize;
            let found = rise::find(ledger, config, windows, &tracks)?;
            let owner = found.processes.first()?;
            let mut finding = Finding::of_processes(
                ledger,
                RULE,
                found.strength,
                Resource::Thread,
                comm,
                owner,
                &found.processes,
            );
            // Threads have no identity here: leaked is what came on top of the
            // fewest that the process was ever seen with.
            finding.held = found
                .processes
                .iter()
                .map(|p| u64::from(p.threads.count.saturating_sub(p.fewest_threads)))
                .sum();
            finding.growth_per_hour = found.per_hour;
            let unit = ledger.unit(&owner.unit.name);
            finding.room = unit.and_then(|u| u.tasks_max).map(|limit| Room {
                limit,
                used: ledger
                    .processes()
                    .filter(|p| p.alive() && p.unit.name == owner.unit.name)
                    .map(|p| u64::from(p.threads.count))
                    .sum(),
                share: 1.0,
            });
            let first = found.floors.first().copied().unwrap_or(0);
            let last = found.floors.last().copied().unwrap_or(0);
            let whose = match found.processes.as_slice() {
                [one] => named(one),
                many => format!("{} processes", many.len()),
            };
            finding.evidence = vec![format!(
                "the lowest number of threads of {whose} rose from {first} to {last} over {} windows of {}",
                found.floors.len().saturating_sub(1),
                text::duration(ledger.window().length()),
            )];
            Some(finding)
        })
        .collect()
}
