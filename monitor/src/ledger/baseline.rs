//! Where cohorts came to rest in earlier lives of their unit: what is usual.
//!
//! A pool fills to the same number in every life; what leaks is cut off by the restart
//! wherever it happens to be. So a number is usual only once several lives came to rest
//! at about the same one. What is learned survives a restart of the agent, for the loop
//! keeps it in a store; and is kept by version of the program, so that a new one can be
//! compared with its last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ledger::Ledger;
use crate::ledger::invocation::UnitState;
use crate::ledger::process::Process;
use crate::ledger::track::{Mark, Track};
use crate::source::model::{BootId, ExeFile, KernelStr};
use crate::text;
use crate::time::Boottime;

/// Cohorts remembered, of all units. Each takes a few hundred bytes.
pub(crate) const MAX_COHORTS: usize = 16_384;

/// What no life has had for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(90 * 86_400);

/// Lives remembered of a version.
const LIVES: usize = 8;

/// The newest lives that must agree for their number to be usual; two at least.
const AGREE: usize = 3;

/// Smaller cohorts are not learned: nothing is ever said of them.
const LEAST: u32 = 2;

/// Of windows of this level, eighty minutes.
pub(crate) const LEVEL: usize = 2;

/// A cohort, or the threads of like-named processes, of a unit: as verdicts name them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CohortKey {
    /// Unit.
    pub unit: Arc<str>,
    /// Kind of descriptor, or `thread`.
    pub kind: Arc<str>,
    /// What the members share.
    pub cohort: Arc<str>,
}

/// What tells one version of a service from another: its main executable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Path, printable.
    pub exe: String,
    /// Bytes.
    pub size: u64,
    /// When it was last written to.
    pub modified: Timestamp,
}

impl Version {
    fn of(exe: &KernelStr, file: ExeFile) -> Option<Self> {
        let modified = Timestamp::from_second(file.modified).ok()?;
        Some(Self { exe: text::printable(exe.as_bytes()), size: file.size, modified })
    }
}

/// A life of a unit, beyond a restart of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Life of the machine.
    pub boot: BootId,
    /// When it began.
    pub began: Boottime,
}

/// Where a life came to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    /// Which life.
    pub life: Life,
    /// At how many: the highest number at which it did.
    pub at: u32,
}

/// Lives under one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Era {
    /// The version, where it could be seen.
    pub version: Option<Version>,
    /// When the first came to rest.
    pub since: Timestamp,
    /// When one was last seen at rest.
    pub until: Timestamp,
    /// The newest of them that came to rest, at most eight, newest last.
    pub rests: Vec<Rest>,
}

impl Era {
    /// The number that its newest lives agree on, without the present one, and how many
    /// of them came to rest.
    fn agreed(&self, present: Life) -> Option<(u32, usize)> {
        let rests: Vec<u32> =
            self.rests.iter().filter(|r| r.life != present).map(|r| r.at).collect();
        let newest = &rests[rests.len().saturating_sub(AGREE)..];
        let (least, most) = (newest.iter().min()?, newest.iter().max()?);
        (newest.len() >= 2 && *most <= about(*least)).then_some((*most, rests.len()))
    }
}

/// The most that is about so many: a tenth more, and one.
pub(crate) fn about(n: u32) -> u32 {
    n.saturating_add(n / 10).saturating_add(1)
}

/// What was learned of a cohort: by version, the present one last, and the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// At most two.
    pub eras: Vec<Era>,
}

/// What is usual for a cohort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Usual {
    /// Earlier lives came to rest at so many.
    pub at: u32,
    /// So many of them.
    pub lives: usize,
    /// Under another version than the present one: that.
    pub other: Option<Version>,
}

/// All that was learned.
#[derive(Debug, Default)]
pub(crate) struct Baselines {
    of: BTreeMap<CohortKey, Arc<Baseline>>,
    changed: BTreeSet<CohortKey>,
}

/// A baseline that has changed; `None` for one that is forgotten.
pub(crate) type Learned = (CohortKey, Option<Arc<Baseline>>);

impl Baselines {
    /// Of a unit, by kind and cohort.
    pub fn of_unit(&self, unit: &Arc<str>) -> impl Iterator<Item = (&CohortKey, &Arc<Baseline>)> {
        let none: Arc<str> = "".into();
        let first = CohortKey { unit: Arc::clone(unit), kind: none.clone(), cohort: none };
        let unit = Arc::clone(unit);
        self.of.range(first..).take_while(move |(key, _)| key.unit == unit)
    }

    /// What a store has kept.
    pub fn remember(&mut self, kept: Vec<(CohortKey, Baseline)>) {
        self.of.extend(kept.into_iter().map(|(key, b)| (key, Arc::new(b))));
    }

    /// What has changed since this was last asked.
    pub fn take_changes(&mut self) -> Vec<Learned> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|key| (key.clone(), self.of.get(&key).cloned())).collect()
    }

    /// A life rests at so many.
    fn learn(&mut self, key: CohortKey, rest: Rest, version: Option<&Version>, now: Timestamp) {
        let baseline = Arc::make_mut(self.of.entry(key.clone()).or_default());
        let eras = &mut baseline.eras;
        // Where a version cannot be seen it is not another.
        let same = |era: &Era| version.is_none() || era.version.as_ref() == version;
        if !eras.last().is_some_and(same) {
            let version = version.cloned();
            eras.push(Era { version, since: now, until: now, rests: Vec::new() });
            let older = eras.len().saturating_sub(2);
            eras.drain(..older);
        }
        let Some(era) = eras.last_mut() else { return };
        era.until = now;
        match era.rests.iter_mut().find(|r| r.life == rest.life) {
            Some(known) => known.at = known.at.max(rest.at),
            None => era.rests.push(rest),
        }
        let older = era.rests.len().saturating_sub(LIVES);
        era.rests.drain(..older);
        self.changed.insert(key);
    }

    /// Takes back what a life has told: it was a leak.
    fn unlearn(&mut self, key: &CohortKey, life: Life) {
        let Some(baseline) = self.of.get_mut(key) else { return };
        if !baseline.eras.iter().any(|era| era.rests.iter().any(|r| r.life == life)) {
            return;
        }
        let eras = &mut Arc::make_mut(baseline).eras;
        eras.iter_mut().for_each(|era| era.rests.retain(|r| r.life != life));
        eras.retain(|era| !era.rests.is_empty());
        if eras.is_empty() {
            self.of.remove(key);
        }
        self.changed.insert(key.clone());
    }

    /// Keeps within bounds: what was not seen for longest goes first.
    fn bound(&mut self, now: Timestamp) {
        let until = |b: &Baseline| b.eras.last().map(|era| era.until);
        let seen = |b: &Baseline| {
            until(b).is_some_and(|at| now.duration_since(at).unsigned_abs() < FORGOTTEN)
        };
        let mut gone: Vec<CohortKey> =
            self.of.iter().filter(|(_, b)| !seen(b)).map(|(key, _)| key.clone()).collect();
        let over = (self.of.len() - gone.len()).saturating_sub(MAX_COHORTS);
        if over > 0 {
            let mut ages: Vec<_> = self.of.iter().map(|(key, b)| (until(b), key)).collect();
            ages.sort_unstable();
            gone.extend(ages.into_iter().take(over).map(|(_, key)| key.clone()));
        }
        for key in gone {
            self.of.remove(&key);
            self.changed.insert(key);
        }
    }

    fn usual(&self, key: &CohortKey, life: Life, version: Option<&Version>) -> Option<Usual> {
        let eras = &self.of.get(key)?.eras;
        let (era, (at, lives)) =
            eras.iter().rev().find_map(|era| Some((era, era.agreed(life)?)))?;
        let other = era.version.clone().filter(|v| version.is_some_and(|now| now != v));
        Some(Usual { at, lives, other })
    }
}

impl Ledger {
    /// What is usual for a cohort, by its earlier lives.
    pub(crate) fn usual(&self, unit: &str, kind: &str, cohort: &str) -> Option<Usual> {
        if self.baselines.of.is_empty() {
            return None;
        }
        let state = self.unit(unit)?;
        let (life, version) = self.life(state)?;
        let unit = Arc::clone(&state.unit.name);
        let key = CohortKey { unit, kind: kind.into(), cohort: cohort.into() };
        self.baselines.usual(&key, life, version.as_ref())
    }

    /// Takes what a store has kept.
    pub(crate) fn remember(&mut self, kept: Vec<(CohortKey, Baseline)>) {
        self.baselines.remember(kept);
    }

    /// What a store is to keep.
    pub(crate) fn take_learned(&mut self) -> Vec<Learned> {
        self.baselines.take_changes()
    }

    /// The present life of a unit is no example for this cohort: it leaks.
    pub(crate) fn distrust(&mut self, key: &CohortKey) {
        let Some(state) = self.units.get_mut(&key.unit) else { return };
        if !state.distrusted.insert((Arc::clone(&key.kind), Arc::clone(&key.cohort))) {
            return;
        }
        if let Some((life, _)) = self.units.get(&key.unit).and_then(|u| self.life(u)) {
            self.baselines.unlearn(key, life);
        }
    }

    /// Learns where units rest, when the longest windows have ended.
    pub(super) fn learn(&mut self) {
        let mut rests: Vec<(CohortKey, u32)> = Vec::new();
        let mut tracks: BTreeMap<CohortKey, Vec<&Track>> = BTreeMap::new();
        // A group of like-named programs has no lives to compare.
        let present = |p: &&Process| {
            p.alive()
                && p.unit.kind.has_invocations()
                && self.unit(&p.unit.name).is_some_and(|u| u.invocation == p.invocation)
        };
        for p in self.processes.values().filter(present) {
            let key = |kind: &str, cohort: Arc<str>| CohortKey {
                unit: Arc::clone(&p.unit.name),
                kind: kind.into(),
                cohort,
            };
            let comm = text::printable(p.comm.as_bytes());
            tracks.entry(key("thread", comm.into())).or_default().push(&p.threads);
            for ((kind, template), slot) in &p.slots {
                let Some(cohort) = p.cohorts.get(*slot as usize) else { continue };
                let key = key(kind.as_str(), Arc::clone(template));
                tracks.entry(key).or_default().push(&cohort.track);
            }
        }
        for (key, tracks) in tracks {
            let distrusted = self.units.get(&key.unit).is_some_and(|u| {
                u.distrusted.contains(&(Arc::clone(&key.kind), Arc::clone(&key.cohort)))
            });
            if let Some(at) = rests_at(&tracks, self.windows as usize).filter(|_| !distrusted) {
                rests.push((key, at));
            }
        }
        let now = self.clock.wall;
        let mut lives = BTreeMap::new();
        for (key, at) in rests {
            let of = || self.units.get(&key.unit).and_then(|u| self.life(u));
            if let Some((life, version)) = lives.entry(Arc::clone(&key.unit)).or_insert_with(of) {
                let rest = Rest { life: *life, at };
                self.baselines.learn(key, rest, version.as_ref(), now);
            }
        }
        self.baselines.bound(now);
    }

    /// The present life of a unit, and what it runs: by its main process, else its oldest.
    fn life(&self, unit: &UnitState) -> Option<(Life, Option<Version>)> {
        let of_it = |p: &&Process| p.unit.name == unit.unit.name && p.invocation == unit.invocation;
        let oldest = || {
            let members = self.processes.values().filter(of_it);
            members.min_by_key(|p| (p.id.start_ticks, p.id.pid))
        };
        let main = unit.main.and_then(|id| self.processes.get(&id)).or_else(oldest)?;
        let version = main.exe.as_ref().zip(main.exe_file);
        let version = version.and_then(|(exe, file)| Version::of(exe, file));
        Some((Life { boot: main.id.boot, began: main.id.started() }, version))
    }
}

/// The number at which a cohort rests, where it does: through the newest of the longest
/// windows it is about the same, and its second half is no higher than its first.
fn rests_at(tracks: &[&Track], windows: usize) -> Option<u32> {
    let windows = windows.max(2);
    let mut sum = vec![Mark::default(); windows];
    for track in tracks {
        if track.levels[LEVEL].marks.len() >= windows {
            let last = track.last(LEVEL, windows);
            sum.iter_mut().zip(last).for_each(|(sum, mark)| sum.add(&mark));
        }
    }
    let floors: Vec<u32> = sum.iter().map(|m| m.floor).collect();
    let (first, second) = floors.split_at(windows / 2);
    let (least, most) = (*floors.iter().min()?, *floors.iter().max()?);
    let rises = second.iter().max() > first.iter().max();
    let about = u64::from(least) * 20 >= u64::from(most) * 19;
    (!rises && about && least >= LEAST).then_some(most)
}

#[cfg(test)]
#[path = "baseline_tests.rs"]
mod tests;
