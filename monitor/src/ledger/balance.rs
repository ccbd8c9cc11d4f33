//! What Little's law leaves over: how many are open beside those that come and go.
//!
//! In a window the mean number of what comes and goes is its arrival rate times its mean
//! life (L = λW: John Little, "A Proof for the Queuing Formula", Operations Research 9,
//! 1961), which is the sum of the lives that ended, divided by the length of the window.
//! What is open beside that, the *excess*, is a pool, or leaked: the load is not in it,
//! however it swings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::ledger::Ledger;
use crate::ledger::process::Process;
use crate::ledger::track::{End, Track, Window, windows_of};
use crate::source::model::{FdKind, Flow, Lifetimes, UnitFlows};

/// The share of lives that may last longer than a window. Past it what ends in a window
/// is not what came in it, and the law is none of one window.
const LONG: f64 = 0.05;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// Descriptors of a kind, as the probes know kinds.
    Fds(FdKind),
    /// Threads.
    Threads,
}

impl Subject {
    fn flow(self, flows: &UnitFlows) -> Option<&Flow> {
        match self {
            Self::Fds(kind) => flows.fds.get(&kind),
            Self::Threads => flows.threads.as_ref(),
        }
    }
}

/// The probes know a kind from its system call: whatever has a path is one kind.
pub(crate) fn as_probes_say(kind: FdKind) -> FdKind {
    match kind {
        FdKind::Log | FdKind::Directory | FdKind::Device => FdKind::Regular,
        other => other,
    }
}

/// A window in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// Open, on the mean of its censuses.
    pub open: f64,
    /// Of them those that come and go, by the law.
    pub passing: f64,
    /// Lives that ended.
    pub ended: u64,
}

/// The excess of one subject of a unit, window by window.
#[derive(Debug, Default)]
pub(crate) struct Balance {
    /// As floors and survivors.
    pub track: Track,
    /// The newest window.
    pub newest: Figures,
    /// Lives that ended in the windows that are remembered without a break.
    pub ended: u64,
    /// Of the present window: censuses, and the sum of what was open at each.
    seen: (u32, u64),
    /// The probes' counts when it began.
    before: Option<Flow>,
    in_a_row: u64,
}

impl Balance {
    /// A census saw so many; the present window has lasted for so long.
    fn see(&mut self, open: u64, flow: Option<&Flow>, lasted: Duration) {
        self.seen = (self.seen.0 + 1, self.seen.1 + open);
        let ended = |f: &Flow| f.lifetimes.sum_ns;
        let so_far = self.before.as_ref().zip(flow);
        let so_far = so_far.map_or(0, |(before, now)| ended(now).saturating_sub(ended(before)));
        self.track.count = whole(self.mean() - passing(so_far, lasted));
    }

    fn mean(&self) -> f64 {
        self.seen.1 as f64 / f64::from(self.seen.0.max(1))
    }

    /// Ends the window, where the probes have counted all through it; the lives that ended
    /// in it.
    fn turn(
        &mut self,
        flow: Option<&Flow>,
        window: &Window,
        lasted: Duration,
    ) -> Option<Lifetimes> {
        let ended = self.before.take().zip(flow).map(|(before, now)| {
            let mut ended = now.clone();
            ended.subtract(&before);
            ended.lifetimes
        });
        let quick = ended.as_ref().filter(|ended| is_quick(ended, window.length()));
        match quick.filter(|_| self.seen.0 > 0) {
            Some(ended) => self.close(ended, window, lasted),
            None => self.forget(),
        }
        self.seen = (0, 0);
        self.before = flow.cloned();
        ended
    }

    fn close(&mut self, ended: &Lifetimes, window: &Window, lasted: Duration) {
        self.in_a_row += 1;
        let passing = passing(ended.sum_ns, lasted);
        let number: u64 = ended.buckets.iter().sum();
        self.newest = Figures { open: self.mean(), passing, ended: number };
        self.ended += number;
        let excess = whole(self.newest.open - passing);
        self.track.count = excess;
        self.track.levels[0].present.floor = excess;
        let ends = std::array::from_fn(|level| match window.ends_with(level) {
            true if self.in_a_row >= windows_of(level) => End::Whole,
            true => End::Partly,
            false => End::No,
        });
        // They have no identity here: as many as there always were.
        let stay = std::array::from_fn(|level| self.track.levels[level].present.floor.min(excess));
        self.track.close(stay, ends, window.keep);
    }

    fn forget(&mut self) {
        (self.in_a_row, self.ended, self.newest) = (0, 0, Figures::default());
        self.track.forget();
        self.track.open();
    }
}

/// Those that come and go, on the mean of a window in which lives of so many nanoseconds
/// together ended.
fn passing(ended_ns: u64, lasted: Duration) -> f64 {
    ended_ns as f64 / (lasted.as_nanos() as f64).max(1.0)
}

fn whole(excess: f64) -> u32 {
    excess.round().clamp(0.0, f64::from(u32::MAX)) as u32
}

/// Nearly all of them ended within a window.
fn is_quick(ended: &Lifetimes, window: Duration) -> bool {
    let all: u64 = ended.buckets.iter().sum();
    long_lived(ended, bucket(window)) as f64 <= all as f64 * LONG
}

/// How many may have lived for longer than that. The last bucket has no upper bound.
fn longer(ended: &Lifetimes, than: Duration) -> u32 {
    let last = ended.buckets.len().saturating_sub(1);
    u32::try_from(long_lived(ended, bucket(than).min(last))).unwrap_or(u32::MAX)
}

/// Those from this bucket on.
fn long_lived(ended: &Lifetimes, bucket: usize) -> u64 {
    ended.buckets.iter().skip(bucket).sum()
}

/// Which bucket such a life falls into: bucket i is below 2^i microseconds.
fn bucket(life: Duration) -> usize {
    let life = u64::try_from(life.as_micros()).unwrap_or(u64::MAX);
    (u64::BITS - life.leading_zeros()) as usize
}

impl Ledger {
    /// Brings the balances of all units up to date; `turned` says how long the window
    /// was that this census has ended.
    pub(super) fn weigh(&mut self, turned: Option<Duration>) {
        let mut open: BTreeMap<Arc<str>, BTreeMap<Subject, u64>> = BTreeMap::new();
        for p in self.processes.values().filter(|p| p.alive()) {
            let Some(flows) = self.units.get(&p.unit.name).and_then(|u| u.flows.as_ref()) else {
                continue;
            };
            count(p, !flows.fds.is_empty(), open.entry(Arc::clone(&p.unit.name)).or_default());
        }
        let (window, clock, warmup) = (&self.window, self.clock.boot, self.warmup);
        let lasted = turned.unwrap_or_else(|| clock.since(window.began()));
        let mut ended_threads = Vec::new();
        for (name, unit) in &mut self.units {
            let Some(flows) = &unit.flows else {
                unit.balances.clear();
                continue;
            };
            let open = open.remove(name).unwrap_or_default();
            for subject in open.keys() {
                unit.balances.entry(*subject).or_default();
            }
            for (subject, balance) in &mut unit.balances {
                let flow = subject.flow(flows);
                balance.see(open.get(subject).copied().unwrap_or(0), flow, lasted);
                if turned.is_some() {
                    let warm = clock.since(unit.started) >= warmup + lasted;
                    let ended = balance.turn(flow.filter(|_| warm), window, lasted);
                    if let (Subject::Threads, Some(ended)) = (subject, ended) {
                        ended_threads.push((Arc::clone(name), ended));
                    }
                }
            }
        }
        for (unit, ended) in &ended_threads {
            self.retire_threads(unit, ended);
        }
    }

    /// Notes the threads of a unit that have ended in the window just closed. Whose they were
    /// the probes do not say: they are taken for those of the process that has most.
    fn retire_threads(&mut self, unit: &str, ended: &Lifetimes) {
        let (window, processes) = (&self.window, self.processes.values_mut());
        let of_unit = processes.filter(|p| p.alive() && *p.unit.name == *unit);
        let Some(p) = of_unit.max_by_key(|p| p.threads.count) else { return };
        for (level, of) in p.threads.levels.iter_mut().enumerate() {
            let number = longer(ended, window.length() * windows_of(level) as u32);
            let closed = window.ended(level).then(|| of.marks.back_mut());
            // A longer window that was not seen whole has left no mark.
            let whole = p.in_a_row >= windows_of(level);
            let mark = closed.map_or(Some(&mut of.present), |mark| mark.filter(|_| whole));
            if let Some(mark) = mark {
                mark.retire(number, 0);
            }
        }
    }
}

fn count(p: &Process, fds: bool, open: &mut BTreeMap<Subject, u64>) {
    *open.entry(Subject::Threads).or_default() += u64::from(p.threads.count);
    if !fds {
        return;
    }
    for ((kind, _), slot) in &p.slots {
        let Some(cohort) = p.cohorts.get(*slot as usize) else { continue };
        let subject = Subject::Fds(as_probes_say(*kind));
        *open.entry(subject).or_default() += u64::from(cohort.track.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_of_a_window_s_own_bucket_may_be_longer_than_it() {
        let mut ended = Lifetimes::default();
        // 300 s are between 2^28 and 2^29 microseconds.
        let (window, own) = (Duration::from_secs(300), 29);
        ended.buckets[own - 1] = 95;
        assert!(is_quick(&ended, window));
        assert_eq!(longer(&ended, window), 0);
        ended.buckets[own] = 5;
        assert!(is_quick(&ended, window), "a twentieth may be");
        assert_eq!(longer(&ended, window), 5);
        ended.buckets[own] = 6;
        assert!(!is_quick(&ended, window));
        // What is longer than the histogram tells falls into its last bucket.
        *ended.buckets.last_mut().unwrap() = 3;
        assert_eq!(longer(&ended, Duration::from_secs(86_400)), 3);
        // A trace may say anything.
        ended.buckets.clear();
        assert_eq!(longer(&ended, window), 0);
    }
}
