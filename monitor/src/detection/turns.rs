//! Who comes late, but comes: programs that see to what waits in turns, in batches, or when
//! they next need it. What they hold meanwhile looks like a leak.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::model::Detection;
use crate::detection::patience::{CACHE_SHARE, limited};
use crate::ledger::late::Late;
use crate::ledger::process::{Held, Process};
use crate::ledger::{DAY, Ledger};
use crate::text;

/// Who comes to what it has by the hour, or when it next needs it, has come to the first after
/// so many times `stale_after`: two hours…
pub(crate) const BY_THE_HOUR: u32 = 24;
/// …who has a handle for each of its workers, which are replaced in turn, or waits for its
/// children when a round of its work is done, after so many: four hours…
pub(crate) const BY_THE_ROUND: u32 = 48;
/// …who uses it for as long as a job or somebody's session takes, or waits for its children when
/// the whole job is done, after so many: eight hours…
pub(crate) const BY_THE_DAY: u32 = 96;
/// …unless there are so many times `min_held`.
const MANY: u64 = 4;

/// So many times `windows` windows are the present: two hours.
const LATELY: u32 = 4;
/// Where one was closed lately for so many that wait, the others will be.
const SHARE: usize = 8;
/// Where one was closed within a day for so many that wait, those are overdue that have waited
/// for longer…
const SHARE_OF_DAY: usize = 16;
/// …by so many times.
const OVERDUE: u32 = 2;

/// Nobody is going to come for these: the one that waits longest has waited for so long, or
/// they are `enough` to be sure.
pub(crate) fn past_turns(
    config: &Detection,
    turns: u32,
    longest: Duration,
    (count, enough): (u64, u64),
) -> bool {
    longest >= config.stale_after * turns || count >= enough
}

/// So many times that nobody came are enough, too, where each takes room on a disk.
pub(crate) fn many(config: &Detection) -> u64 {
    config.min_held * MANY
}

/// So many take a share of the limit that a number alone needs, too.
pub(crate) fn share_of(config: &Detection, limit: Option<u64>) -> u64 {
    part_of(config, config.min_share, limit)
}

/// So many take half of the limit, unless `min_share` is set: of what comes by the job, which may
/// be any number, and costs next to nothing while it waits.
pub(crate) fn half_of(config: &Detection, limit: Option<u64>) -> u64 {
    part_of(config, (config.min_share * CACHE_SHARE).min(1.0), limit)
}

fn part_of(config: &Detection, share: f64, limit: Option<u64>) -> u64 {
    ((share * limited(limit) as f64).ceil() as u64).max(many(config))
}

/// The lowest limit of these processes.
pub(crate) fn lowest_limit<'a>(members: impl Iterator<Item = &'a Process>) -> Option<u64> {
    members.filter_map(|p| p.max_fds).min()
}

/// What was closed, or waited for, in the end, of the cohorts that something waits in.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    lately: usize,
    in_a_day: usize,
    longest: Duration,
}

impl Turns {
    /// Of the members' cohorts.
    pub fn of_descriptors<'a>(
        ledger: &Ledger,
        config: &Detection,
        members: impl Iterator<Item = (&'a Process, &'a Held)>,
    ) -> Self {
        let cohorts: BTreeMap<(u32, u32), (&Process, &Held)> =
            members.map(|(p, h)| ((p.serial, h.slot), (p, h))).collect();
        let late = cohorts.into_values().flat_map(|(p, h)| {
            let template = p.cohorts.get(h.slot as usize).map(|c| &*c.template);
            let cohort = template.map(|template| (h.kind, template));
            p.closed_late
                .iter()
                .filter(move |late| late.cohort.as_ref().map(|(k, t)| (*k, &**t)) == cohort)
        });
        Self::of(ledger, config, late)
    }

    /// Of parents' children.
    pub fn of_children<'a>(
        ledger: &Ledger,
        config: &Detection,
        parents: impl Iterator<Item = &'a Process>,
    ) -> Self {
        Self::of(ledger, config, parents.flat_map(|p| p.reaped_late.iter()))
    }

    fn of<'a>(ledger: &Ledger, config: &Detection, all: impl Iterator<Item = &'a Late>) -> Self {
        let now = ledger.clock().boot;
        let (lately, day) = (lately(config), lately(config) * (DAY / LATELY));
        let mut turns = Self::default();
        for late in all.filter(|late| now.since(late.at) <= day) {
            turns.lately += usize::from(now.since(late.at) <= lately);
            turns.in_a_day += 1;
            turns.longest = turns.longest.max(late.waited);
        }
        turns
    }

    /// So many were closed lately that it can be expected of those that wait.
    pub fn comes(&self, waiting: usize) -> bool {
        self.lately > 0 && self.lately * SHARE >= waiting
    }

    /// Whether one that has waited for so long, of so many, has done so for longer than what
    /// is closed in the end.
    pub fn overdue(&self, waited: Duration, waiting: usize) -> bool {
        let known = self.in_a_day > 0 && self.in_a_day * SHARE_OF_DAY >= waiting;
        !known || waited > self.longest * OVERDUE
    }

    /// Why those that wait are no leak yet, in words; `closed` is what was done with others.
    pub fn told(&self, config: &Detection, waiting: usize, closed: &str) -> String {
        if self.comes(waiting) {
            return format!(
                "{} that had waited as long were {closed} in the last {}: the others may be, too",
                self.lately,
                text::duration(lately(config))
            );
        }
        format!(
            "{} that had waited, for up to {}, were {closed} in the last {}: only what has waited \
             twice as long is held against it",
            self.in_a_day,
            text::duration(self.longest),
            text::duration(lately(config) * (DAY / LATELY))
        )
    }
}

fn lately(config: &Detection) -> Duration {
    config.window * config.windows * LATELY
}
