//! What became of a verdict that nothing speaks for any more.

use std::sync::Arc;

use crate::detection::rise::{self, Tracks};
use crate::detection::verdict::Resource;
use crate::ledger::Ledger;
use crate::source::model::FdKind;
use crate::text;
use crate::time::ClockPair;

/// Windows in which the lowest count has stayed where it is before that is said.
const STAYED: usize = 3;

/// What was judged.
pub(super) struct Judged<'a> {
    /// Unit name.
    pub unit: &'a Arc<str>,
    /// In which of its lives.
    pub invocation: u64,
    /// What.
    pub resource: Resource,
    /// Kind of descriptor.
    pub kind: &'a str,
    /// What the members share.
    pub cohort: &'a str,
}

/// The last sentence of the evidence.
pub(super) fn reason(of: &Judged<'_>, ledger: &Ledger, now: ClockPair) -> String {
    let with = match of.resource {
        Resource::Fd | Resource::File => "its descriptors",
        Resource::Thread => "its threads",
        Resource::Process => "its processes",
        Resource::Task => "its tasks",
    };
    let Some(unit) = ledger.unit(of.unit) else {
        return format!("resolved: the last process of the unit has gone, and {with} with it");
    };
    if let Some(at) = unit.ended(of.invocation) {
        let at = at.to_wall(now).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        return format!("resolved: the invocation ended at {at}; {with} went with it");
    }
    let became = became(of, ledger)
        .unwrap_or_else(|| "what was held has been given back or grows no more".to_owned());
    let lived = text::duration(now.boot.since(unit.started));
    format!("resolved: {became}, {lived} into the invocation")
}

/// What the counts say, where there are enough of them.
fn became(of: &Judged<'_>, ledger: &Ledger) -> Option<String> {
    let tracks: Tracks<'_> = ledger
        .processes()
        .filter(|p| p.alive() && p.unit.name == *of.unit && p.invocation == of.invocation)
        .filter_map(|p| {
            let track = match of.resource {
                Resource::Thread if text::printable(p.comm.as_bytes()) == of.cohort => &p.threads,
                Resource::Task => &p.tasks.as_ref()?.kinds.get(of.cohort)?.track,
                Resource::Fd => {
                    let is = |k: FdKind, t: &str| k.as_str() == of.kind && t == of.cohort;
                    let (_, slot) = p.slots.iter().find(|((k, t), _)| is(*k, t))?;
                    &p.cohorts.get(*slot as usize)?.track
                }
                _ => return None,
            };
            Some((p, track))
        })
        .collect();
    let windows = tracks.iter().map(|(_, t)| t.marks().len()).min()?;
    let floors: Vec<u64> =
        rise::sum(&tracks, 0, windows).iter().map(|mark| u64::from(mark.floor)).collect();
    let now: u64 = tracks.iter().map(|(_, t)| u64::from(t.count)).sum();
    let (peak, last) = (*floors.iter().max()?, *floors.last()?);
    let level = |floor: &&u64| **floor * 20 >= last * 19 && **floor * 19 <= last * 20;
    let stayed = floors.iter().rev().take_while(level).count();
    if now * 2 <= peak {
        Some(format!("fell from {peak} to {now}: given back, or a load that has passed"))
    } else if stayed >= STAYED && last * 10 >= peak * 9 {
        Some(format!(
            "grew to {last} and has stayed there for {stayed} windows of {}: a pool, or a cache \
             that is full",
            text::duration(ledger.window().length())
        ))
    } else {
        None
    }
}
