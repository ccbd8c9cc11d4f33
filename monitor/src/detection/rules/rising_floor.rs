//! `rising-floor`: the lowest count of a cohort rises window after window.
//! Statistical.

use crate::config::model::Detection;
use crate::detection::finding::{Finding, Strength};
use crate::detection::patience::{Asked, may_be_cache};
use crate::detection::rise::{self, Rise, Tracks};
use crate::detection::usage::Usage;
use crate::detection::verdict::Rule;
use crate::ledger::Ledger;
use crate::ledger::parts::Part;
use crate::ledger::process::{Held, Process};
use crate::source::model::FdKind;
use crate::text;
use crate::time::Boottime;

const RULE: Rule = Rule::RisingFloor;

/// Judges every cohort, and the parts of those that are not confirmed as a whole.
pub fn judge(ledger: &Ledger, config: &Detection, _now: Boottime) -> Vec<Finding> {
    let tracks = ledger.processes().flat_map(|p| {
        p.slots.iter().filter_map(move |((kind, template), slot)| {
            Some((p, (*kind, &**template), &p.cohorts.get(*slot as usize)?.track))
        })
    });
    let parts = ledger.processes().flat_map(|p| {
        p.slots.iter().flat_map(move |((kind, template), slot)| {
            p.parts.of(*slot).map(move |(part, track)| (p, (*kind, &**template, part), track))
        })
    });
    let parts = rise::grouped(parts);
    rise::grouped(tracks)
        .into_iter()
        .filter_map(|((unit, life, (kind, template)), tracks)| {
            let whole = Cohort { kind, template, part: None };
            let found = whole.judge(ledger, config, &tracks, &tracks);
            if found.as_ref().is_some_and(|f| f.strength == Strength::Confirms) {
                return found;
            }
            let first = (unit, life, (kind, template, &Part::Unused));
            parts
                .range(first..)
                .take_while(|((u, l, (k, t, _)), _)| {
                    (*u, *l, *k, *t) == (unit, life, kind, template)
                })
                .filter_map(|((.., (_, _, part)), of)| {
                    Cohort { part: Some(part), ..whole }.judge(ledger, config, of, &tracks)
                })
                .fold(found, Finding::stronger)
        })
        .collect()
}

/// What is judged.
#[derive(Clone, Copy)]
struct Cohort<'a> {
    kind: FdKind,
    template: &'a str,
    part: Option<&'a Part>,
}

impl Cohort<'_> {
    /// By its tracks, and those of the cohort that it may be a part of.
    fn judge(
        &self,
        ledger: &Ledger,
        config: &Detection,
        tracks: &Tracks<'_>,
        whole: &Tracks<'_>,
    ) -> Option<Finding> {
        // Most cohorts have too little history or stand still: cheap to pass over.
        if tracks.iter().all(|(_, t)| t.marks().len() < 2 || t.count < 2) {
            return None;
        }
        let mut asked = Asked::of(config, &|p| p.max_fds);
        let mut found = rise::find(ledger, config, &asked, tracks)?;
        let members = self.members(&found.processes, ledger);
        let usage = Usage::of(ledger, &members);
        if usage.accompany() {
            asked = asked.of_companions();
            found = rise::find(ledger, config, &asked, tracks)?;
        } else if may_be_cache(&members) || usage.mostly() {
            asked = asked.of_cache();
            found = rise::find(ledger, config, &asked, tracks)?;
        }
        // Seldom needed, and not for nothing.
        let usual = ledger.usual(&tracks.first()?.0.unit.name, self.kind.as_str(), self.template);
        if usual.is_some() {
            asked = asked.beside(usual);
            if self.part.is_some() && asked.expects(rise::count(whole)).is_some() {
                return None;
            }
            found = rise::find(ledger, config, &asked, tracks)?;
        }
        let cohort = self.template.to_owned();
        let mut finding = Finding::of_descriptors(ledger, RULE, found.strength, cohort, &members)?;
        finding.growth_per_hour = found.per_hour;
        finding.evidence = vec![self.sentence(ledger, &found)];
        finding.evidence.extend(asked.beside_doubt(found.doubt.as_deref()));
        finding.evidence.extend(found.doubt);
        finding.evidence.extend(usage.told());
        Some(finding)
    }

    /// Members that have been there for a whole window: what comes and goes with
    /// the load is not leaked.
    fn members<'a>(
        &self,
        processes: &[&'a Process],
        ledger: &Ledger,
    ) -> Vec<(&'a Process, &'a Held)> {
        let began = ledger.clock().boot - ledger.window().length();
        let mut members = Vec::new();
        for p in processes {
            let slot = p.slots.iter().find(|((k, t), _)| *k == self.kind && **t == *self.template);
            let Some((_, slot)) = slot else { continue };
            let old = p.held.iter().filter(|h| h.slot == *slot && h.since <= began);
            members.extend(old.filter(|h| self.has(ledger, p, h)).map(|h| (*p, h)));
        }
        members
    }

    fn has(&self, ledger: &Ledger, p: &Process, h: &Held) -> bool {
        let (by, lately) = (ledger.opened_by(p, h), ledger.window().lately());
        self.part.is_none_or(|part| part.has(h, by, p.seen_at(), lately))
    }

    fn sentence(&self, ledger: &Ledger, found: &Rise<'_>) -> String {
        let (first, last) = found.ends();
        let rises = found.counts.windows(2).filter(|w| w[1] > w[0]).count();
        let windows = found.counts.len().saturating_sub(1);
        let (length, whose) = (text::duration(found.window), found.whose());
        let (kind, template) = (self.kind, self.template);
        let what = if kind.as_str() == template {
            kind.as_str().to_owned()
        } else {
            format!("{kind} {template}")
        };
        let rose = format!(
            "rose from {first} to {last} in {rises} of the last {windows} windows of {length}"
        );
        let which = match self.part {
            None if found.window > ledger.window().length() => {
                "that were open all through a window".to_owned()
            }
            None => {
                let survivors = found.survivors;
                return format!(
                    "the lowest number of {what} open in {whose} {rose}; {survivors} of them were open all through the newest"
                );
            }
            Some(Part::Unused) => "that were open all through a window without being used".into(),
            Some(Part::OpenedBy(function)) => {
                format!("that {function} opened, and that were open all through a window,")
            }
        };
        format!("the number of {what} in {whose} {which} {rose}")
    }
}

#[cfg(test)]
#[path = "rising_floor_tests.rs"]
mod tests;
