//! `unclosed-log-handle`: write handles of logs that nobody writes to any more,
//! kept while new ones are opened. Near-certain.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use crate::config::model::Detection;
use crate::detection::finding::{Finding, Strength, named};
use crate::detection::rules::leaves_out;
use crate::detection::turns::{BY_THE_DAY, BY_THE_ROUND, Turns, past_turns, share_of};
use crate::detection::verdict::Rule;
use crate::ledger::Ledger;
use crate::ledger::patterns::log_family;
use crate::ledger::process::{Held, Process, held_flags};
use crate::ledger::template;
use crate::source::model::FdKind;
use crate::text;
use crate::time::Boottime;

const RULE: Rule = Rule::UnclosedLogHandle;

/// Separate censuses at which the number grew: one is a start, two may be a
/// start and a reload, three is a habit.
const HABIT: usize = 3;

/// Sentences of as many processes are enough.
const MAX_SENTENCES: usize = 3;

/// The log handles of one process and one template.
struct Shelf<'a> {
    process: &'a Process,
    /// Oldest first, one per open file description.
    handles: Vec<&'a Held>,
    stale: Vec<&'a Held>,
    turns: Turns,
}

/// Judges every process.
pub fn judge(ledger: &Ledger, config: &Detection, _now: Boottime) -> Vec<Finding> {
    let mut processes: Vec<&Process> = ledger.processes().filter(|p| p.alive()).collect();
    // Parents first: what a child inherits is counted where it was opened.
    processes.sort_by_key(|p| (p.id.start_ticks, p.id));
    let by_serial: HashMap<u32, &Process> = processes.iter().map(|p| (p.serial, *p)).collect();
    let mut counted: HashSet<(u64, u64)> = HashSet::new();
    let mut cohorts: BTreeMap<(&str, u64, String), Vec<Shelf<'_>>> = BTreeMap::new();
    for p in processes {
        for (cohort, handles) in shelves(ledger, p) {
            let stale: Vec<_> = stale(config, &handles, p, &by_serial)
                .into_iter()
                .filter(|h| {
                    let shared = ledger.exact_files() && h.is(held_flags::SHARED);
                    !shared || counted.insert((h.file, h.inode))
                })
                .collect();
            let waiting = stale.iter().map(|h| (p, *h));
            let turns = Turns::of_descriptors(ledger, config, waiting);
            let key = (&*p.unit.name, p.invocation, cohort);
            cohorts.entry(key).or_default().push(Shelf { process: p, handles, stale, turns });
        }
    }
    cohorts
        .into_iter()
        .filter_map(|((_, _, cohort), shelves)| verdict(ledger, config, cohort, &shelves))
        .collect()
}

fn verdict(
    ledger: &Ledger,
    config: &Detection,
    cohort: String,
    shelves: &[Shelf<'_>],
) -> Option<Finding> {
    let mut judged: Vec<(Strength, &Shelf<'_>)> =
        shelves.iter().filter_map(|s| Some((s.strength(config)?, s))).collect();
    judged
        .sort_by_key(|(strength, s)| (std::cmp::Reverse((*strength, s.stale.len())), s.process.id));
    let strength = judged.first()?.0;
    let members: Vec<_> =
        judged.iter().flat_map(|(_, s)| s.stale.iter().map(|h| (s.process, *h))).collect();
    let mut finding = Finding::of_descriptors(ledger, RULE, strength, cohort, &members)?;
    finding.evidence =
        judged.iter().take(MAX_SENTENCES).map(|(_, s)| s.sentence(ledger.clock().boot)).collect();
    finding.withdraws = judged.iter().all(|(_, s)| s.lives(config));
    if finding.withdraws
        && let Some((_, s)) = judged.first()
    {
        finding.evidence.push(s.turns.told(config, s.stale.len(), "closed"));
    }
    let grown: Vec<_> = judged.iter().flat_map(|(_, s)| s.grown()).collect();
    if let Some(first) = grown.iter().map(|h| h.since).min() {
        let hours = ledger.clock().boot.since(first).as_secs_f64() / 3600.0;
        finding.growth_per_hour = (hours > 0.0).then_some((grown.len() as f64 - 1.0) / hours);
    }
    Some(finding)
}

/// Write handles on logs by template, oldest first, one per description.
fn shelves<'a>(ledger: &Ledger, p: &'a Process) -> BTreeMap<String, Vec<&'a Held>> {
    let mut shelves: BTreeMap<&str, Vec<&Held>> = BTreeMap::new();
    let mut unplaced: BTreeMap<String, Vec<&Held>> = BTreeMap::new();
    for h in &p.held {
        if h.kind != FdKind::Log || !h.is(held_flags::WRITABLE) || leaves_out(ledger, RULE, h) {
            continue;
        }
        match p.cohorts.get(h.slot as usize) {
            Some(c) => shelves.entry(&c.template).or_default().push(h),
            // Counted for no floor: it has no cohort of its own.
            None => unplaced
                .entry(template::of_path(log_family(h.path.as_bytes())))
                .or_default()
                .push(h),
        }
    }
    let mut shelves: BTreeMap<String, Vec<&Held>> =
        shelves.into_iter().map(|(t, held)| (t.to_owned(), held)).collect();
    for (t, held) in unplaced {
        shelves.entry(t).or_default().extend(held);
    }
    shelves.retain(|_, handles| {
        // Standard output and error on one description are one handle. From
        // /proc, sharing is a guess, so only that common case is merged.
        let mut seen = HashSet::new();
        handles.sort_by_key(|h| h.fd);
        handles.retain(|h| {
            let same = !seen.insert(h.file);
            !(same && (ledger.exact_files() || h.fd <= 2))
        });
        handles.sort_by_key(|h| (h.opened, h.fd));
        handles.len() >= 2
    });
    shelves
}

fn stale<'a>(
    config: &Detection,
    handles: &[&'a Held],
    p: &Process,
    by_serial: &HashMap<u32, &Process>,
) -> Vec<&'a Held> {
    let newest = handles.len().saturating_sub(1);
    handles
        .iter()
        .enumerate()
        .filter(|(i, h)| {
            let superseded = *i < newest || h.partner_gone.0 != 0;
            superseded && idle(p, h) >= config.stale_after && !has_writer(h, by_serial)
        })
        .map(|(_, h)| *h)
        .collect()
}

fn idle(p: &Process, h: &Held) -> Duration {
    p.seen_at().since(h.moved)
}

/// Another living process has it as its own log, not as one of many it
/// inherited: then it is in use, however quiet.
fn has_writer(h: &Held, by_serial: &HashMap<u32, &Process>) -> bool {
    if !h.is(held_flags::SHARED) {
        return false;
    }
    let Some(partner) = by_serial.get(&h.partner) else { return false };
    let logs =
        || partner.held.iter().filter(|q| q.kind == FdKind::Log && q.is(held_flags::WRITABLE));
    // Its own is where its output goes, or else the newest that it has.
    logs().any(|q| q.fd <= 2 && q.file == h.file)
        || logs().max_by_key(|q| (q.opened, q.fd)).is_some_and(|q| q.file == h.file)
}

impl<'a> Shelf<'a> {
    /// Handles that came while the agent watched.
    fn grown(&self) -> impl Iterator<Item = &&'a Held> {
        self.handles.iter().filter(|h| !h.is(held_flags::FIRST_LOOK))
    }

    /// Stale handles with a newer one on the very same log, or whose writer has
    /// gone: not merely one of many files with like names.
    fn repeats(&self) -> usize {
        let mut newest: HashMap<&[u8], (Boottime, u32)> = HashMap::new();
        for h in &self.handles {
            newest.insert(log_family(h.path.as_bytes()), (h.opened, h.fd));
        }
        self.stale
            .iter()
            .filter(|h| {
                let last = newest.get(log_family(h.path.as_bytes()));
                h.partner_gone.0 != 0 || last != Some(&(h.opened, h.fd))
            })
            .count()
    }

    fn times(&self) -> usize {
        self.grown().map(|h| h.since).collect::<BTreeSet<_>>().len()
    }

    fn strength(&self, config: &Detection) -> Option<Strength> {
        let min_held = usize::try_from(config.min_held).unwrap_or(usize::MAX);
        let (stale, times, grown) = (self.stale.len(), self.times(), self.grown().count());
        if stale < 2 || (times == 0 && stale < min_held) {
            return None;
        }
        let old = self.stale.iter().filter(|h| h.is(held_flags::FIRST_LOOK)).count();
        let same_log = self.repeats() >= min_held
            && ((times >= 2 && grown >= min_held) || (times >= 1 && old >= min_held));
        let habit = times >= HABIT || same_log;
        let confirmed = stale >= min_held && habit && self.forgotten(config) && !self.lives(config);
        Some(if confirmed { Strength::Confirms } else { Strength::Suspects })
    }

    /// Nobody is going to write to them, or close them. Their writers have gone, or it has
    /// been long: many a job or session has a handle of its own, if not a log.
    fn forgotten(&self, config: &Detection) -> bool {
        let min_held = usize::try_from(config.min_held).unwrap_or(usize::MAX);
        let gone = self.stale.iter().filter(|h| h.partner_gone.0 != 0).count();
        let turns = if self.repeats() >= min_held { BY_THE_ROUND } else { BY_THE_DAY };
        let longest = self.stale.iter().map(|h| idle(self.process, h)).max().unwrap_or_default();
        let count = (self.stale.len() as u64, share_of(config, self.process.max_fds));
        gone >= min_held || (self.goes_on(config) && past_turns(config, turns, longest, count))
    }

    /// A program that opens some at its start and no more does so on purpose, and a reload may
    /// open as many again, before those of the start are done with.
    fn goes_on(&self, config: &Detection) -> bool {
        let warm = self.process.warm_from + config.warmup;
        let later = self.handles.iter().filter(|h| h.opened >= warm);
        let (old, grown): (Vec<&&Held>, _) = later.partition(|h| h.is(held_flags::FIRST_LOOK));
        let times: BTreeSet<_> = grown.iter().map(|h| h.since).collect();
        times.len() >= if old.len() as u64 >= config.min_held { 1 } else { HABIT }
    }

    /// Each is for somebody who lives as long: a session, a job.
    fn lives(&self, config: &Detection) -> bool {
        let (waiting, min_held) = (self.stale.len(), config.min_held);
        let is_overdue = |h: &&&Held| self.turns.overdue(idle(self.process, h), waiting);
        let overdue = self.stale.iter().filter(is_overdue).count() as u64;
        self.turns.comes(waiting) || (waiting as u64 >= min_held && overdue < min_held)
    }

    fn sentence(&self, now: Boottime) -> String {
        let families: BTreeSet<&[u8]> =
            self.handles.iter().map(|h| log_family(h.path.as_bytes())).collect();
        let what = match families.first() {
            Some(one) if families.len() == 1 => text::printable(one),
            Some(one) => template::of_path(one),
            None => String::new(),
        };
        let idle = self.stale.iter().map(|h| idle(self.process, h)).min().unwrap_or(Duration::ZERO);
        let mut s = format!(
            "{} write handles on {what} in {}; {} have not moved for {}",
            self.handles.len(),
            named(self.process),
            self.stale.len(),
            text::duration(idle),
        );
        let writers = self.stale.iter().filter(|h| h.partner_gone.0 != 0).count();
        let (times, grown) = (self.times(), self.grown().count());
        if times == 0 {
            s.push_str("; all were open at the first look, growth has not been seen yet");
        } else if times == grown && writers > 0 {
            s.push_str(&format!("; one more at each of the last {times} restarts"));
        } else {
            let first = self.grown().map(|h| h.since).min().unwrap_or(now);
            s.push_str(&format!(
                "; {grown} of them came at {times} separate times in the last {}",
                text::duration(now.since(first))
            ));
        }
        if writers > 0 {
            s.push_str(&format!("; the processes that wrote to {writers} of them have exited"));
        }
        s
    }
}

#[cfg(test)]
#[path = "unclosed_log_handle_tests.rs"]
mod tests;
