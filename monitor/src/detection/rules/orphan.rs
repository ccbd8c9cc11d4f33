//! `orphan`: a process outlives the main process that it belongs to.
//! Near-certain.

use std::collections::BTreeMap;

use crate::attribution::unit::UnitKind;
use crate::config::model::Detection;
use crate::detection::finding::{Finding, Strength, named};
use crate::detection::rules::leaves_out_unit;
use crate::detection::verdict::{Resource, Rule};
use crate::ledger::Ledger;
use crate::ledger::invocation::SETTLING;
use crate::ledger::orphans::Outlived;
use crate::text;
use crate::time::Boottime;

const RULE: Rule = Rule::Orphan;

/// Judges every process that lost its main process.
pub fn judge(ledger: &Ledger, config: &Detection, now: Boottime) -> Vec<Finding> {
    let mut cohorts: BTreeMap<_, Vec<(Strength, Outlived<'_>)>> = BTreeMap::new();
    for orphan in ledger.orphans() {
        let p = orphan.process;
        if leaves_out_unit(ledger, RULE, p) {
            continue;
        }
        let Some(strength) = strength(config, now, &orphan) else { continue };
        let comm = text::printable(p.comm.as_bytes());
        cohorts
            .entry((p.unit.name.clone(), p.invocation, comm))
            .or_default()
            .push((strength, orphan));
    }
    cohorts
        .into_iter()
        .filter_map(|((_, _, comm), orphans)| {
            let strength = orphans.iter().map(|(s, _)| *s).max()?;
            // Cleanup ends what a confirmed verdict lists: nothing less sure may
            // stand beside it.
            let orphans: Vec<_> =
                orphans.iter().filter(|(s, _)| *s == strength).map(|(_, o)| o).collect();
            let processes: Vec<_> = orphans.iter().map(|o| o.process).collect();
            let mut finding = Finding::of_processes(
                ledger,
                RULE,
                strength,
                Resource::Process,
                format!("orphans named {comm}"),
                processes.first()?,
                &processes,
            );
            finding.evidence = sentences(&orphans, now);
            Some(finding)
        })
        .collect()
}

fn strength(config: &Detection, now: Boottime, orphan: &Outlived<'_>) -> Option<Strength> {
    let p = orphan.process;
    let Some(main) = orphan.main else {
        // Nobody saw the manager: it may run elsewhere.
        return Some(Strength::Suspects);
    };
    if p.must_not_outlive {
        return Some(Strength::Confirms);
    }
    match p.unit.kind {
        // Daemons that fork twice are sorted out by then.
        UnitKind::Service | UnitKind::User if main.lived >= SETTLING => {
            let waited = now.since(orphan.since) >= config.stale_after;
            Some(if waited { Strength::Confirms } else { Strength::Suspects })
        }
        UnitKind::Rule => Some(Strength::Suspects),
        _ => None,
    }
}

fn sentences(orphans: &[&Outlived<'_>], now: Boottime) -> Vec<String> {
    let Some(first) = orphans.first() else { return Vec::new() };
    let n = orphans.len();
    let noun = if n == 1 { "process" } else { "processes" };
    let names: Vec<_> = orphans.iter().take(5).map(|o| named(o.process)).collect();
    let more = if n > 5 { ", …" } else { "" };
    let lost = match first.main {
        Some(main) => format!(
            "run on {} after the main process ended, which had lived for {}",
            text::duration(now.since(main.at)),
            text::duration(main.lived)
        ),
        None => "have no main process since the first look".to_owned(),
    };
    vec![format!("{n} {noun} of the unit ({}{more}) {lost}", names.join(", "))]
}
