//! Keeps the number of cohorts of a unit within bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ledger::Ledger;
use crate::ledger::process::{NO_SLOT, Process};
use crate::ledger::template::directory;

/// Most templates of one directory that are told apart: with more, the names
/// say nothing, and a leak would hide among cohorts of one.
const PER_DIRECTORY: usize = 32;

/// Most cohorts of a unit.
const PER_UNIT: usize = 256;

impl Ledger {
    /// Merges the cohorts of a unit where they are too many.
    pub(super) fn collapse(&mut self, name: &Arc<str>) {
        loop {
            let mut all = BTreeSet::new();
            for p in self.processes.values().filter(|p| p.unit.name == *name) {
                all.extend(p.slots.keys().cloned());
            }
            let Some(state) = self.units.get_mut(name) else { return };
            let mut per_directory: BTreeMap<&str, usize> = BTreeMap::new();
            for (_, template) in &all {
                if let Some(dir) = directory(template) {
                    *per_directory.entry(dir).or_default() += 1;
                }
            }
            let crowded: Vec<Arc<str>> = per_directory
                .into_iter()
                .filter(|(dir, n)| *n > PER_DIRECTORY && !state.collapsed.contains(*dir))
                .map(|(dir, _)| dir.into())
                .collect();
            let full = state.collapsed.len() + crowded.len() > PER_UNIT;
            if state.collapse_level == 0 && !crowded.is_empty() && !full {
                state.collapsed.extend(crowded);
            } else if all.len() > PER_UNIT && state.collapse_level < 2 {
                state.collapse_level += 1;
                state.collapsed.clear();
            } else {
                return;
            }
            self.collapses += 1;
            self.rename_cohorts(name);
        }
    }

    fn rename_cohorts(&mut self, name: &Arc<str>) {
        let ids: Vec<_> =
            self.processes.values().filter(|p| p.unit.name == *name).map(|p| p.id).collect();
        for id in ids {
            let Some(mut p) = self.processes.remove(&id) else { continue };
            self.merge_cohorts(&mut p);
            self.processes.insert(id, p);
        }
    }

    /// Rebuilds the cohorts of a process under their new names. The floor of a
    /// union is at least the sum of the floors, so history stays sound.
    fn merge_cohorts(&mut self, p: &mut Process) {
        p.parts.clear();
        let old = std::mem::take(&mut p.cohorts);
        let slots = std::mem::take(&mut p.slots);
        p.free.clear();
        let mut moved = vec![NO_SLOT; old.len()];
        for ((kind, template), from) in slots {
            let state = self.units.get(&p.unit.name);
            let template = match state.and_then(|s| s.collapsed_to(&template)) {
                Some(new) => self.intern(&new),
                None => template,
            };
            let to = p.slot(kind, &template);
            moved[from as usize] = to;
            let (from, to) = (&old[from as usize], &mut p.cohorts[to as usize]);
            to.track.add(&from.track);
            to.lived.add(&from.lived);
        }
        let mut late = std::mem::take(&mut p.closed_late);
        late.rename(|template| {
            let new = self.units.get(&p.unit.name)?.collapsed_to(template)?;
            Some(self.intern(&new))
        });
        p.closed_late = late;
        for h in p.held.iter_mut().filter(|h| h.slot != NO_SLOT) {
            h.slot = moved[h.slot as usize];
        }
    }
}
