//! Whether floors rise, and whether they have stopped.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::model::Detection;
use crate::detection::finding::{Strength, named};
use crate::detection::growth;
use crate::detection::patience::Asked;
use crate::ledger::Ledger;
use crate::ledger::process::Process;
use crate::ledger::track::{LEVELS, Mark, Track, windows_of};
use crate::text;

/// Rises in a row that make a suspicion: about half of what confirms.
pub(crate) fn suspicion(config: &Detection) -> usize {
    (config.windows as usize).div_ceil(2).max(2).min(config.windows.max(1) as usize)
}

/// A rise of one or several tracks together.
#[derive(Debug)]
pub(crate) struct Rise<'a> {
    /// How sure.
    pub strength: Strength,
    /// Who takes part.
    pub processes: Vec<&'a Process>,
    /// Floors of the run, oldest first; in longer windows members open all through.
    pub counts: Vec<u32>,
    /// Survivors at its end.
    pub survivors: u32,
    /// How long each of its windows is.
    pub window: Duration,
    /// Members per hour, over all windows on record.
    pub per_hour: Option<f64>,
    /// Why it is not confirmed, in words.
    pub doubt: Option<String>,
}

impl Rise<'_> {
    /// Its first and last count.
    pub fn ends(&self) -> (u32, u32) {
        let first = self.counts.first().copied().unwrap_or(0);
        (first, self.counts.last().copied().unwrap_or(0))
    }

    /// Whose it is, in words.
    pub fn whose(&self) -> String {
        match self.processes.as_slice() {
            [one] => named(one),
            many => format!("{} processes", many.len()),
        }
    }

    /// "rose from 3 to 17 over 6 windows of 10 min".
    pub fn told(&self) -> String {
        let (first, last) = self.ends();
        let windows = self.counts.len().saturating_sub(1);
        format!(
            "rose from {first} to {last} over {windows} windows of {}",
            text::duration(self.window)
        )
    }
}

/// Looks for a rise among the tracks of one cohort, one per process.
///
/// Each process is judged by itself first: that is where a leak is, and a load
/// that comes as more processes is none. Where no single one rises in every
/// window, their sum may: a slow leak spread over workers. What grows by less than one
/// in a window is looked for in longer ones.
pub(crate) fn find<'a>(
    ledger: &Ledger,
    config: &Detection,
    asked: &Asked<'_>,
    tracks: &[(&'a Process, &'a Track)],
) -> Option<Rise<'a>> {
    let mut doubt = None;
    for level in 0..LEVELS {
        let long = asked.patience.map_or(0, |p| p.div_ceil(windows_of(level)) as usize);
        // The history ends somewhere: what has risen in all of it has risen for long.
        let long = long.min(ledger.window().keep - 1).max(asked.rises);
        let at = |rises, shape| {
            Candidate::at(level, rises, shape, config.min_held, tracks).map(|c| (rises, c))
        };
        // What does not rise in the newest windows does not in more of them.
        let slopes = [asked.rises, long].into_iter().map_while(|rises| at(rises, Shape::Slope));
        let flight = asked.rises * STAIRS;
        let flights = [flight, long.max(flight)].into_iter().filter(|_| level >= LANDING);
        let stairs = flights.filter_map(|rises| at(rises, Shape::Stairs));
        for (rises, found) in slopes.chain(stairs) {
            let whole = level + 1 == LEVELS && rises == long;
            let lasted = asked
                .patience
                .is_some_and(|patience| whole || rises as u64 * windows_of(level) >= patience);
            let against = found.lives().or_else(|| found.leads(asked));
            let against = against.or_else(|| asked.expects(count(tracks)));
            let small = || found.small(asked, ledger);
            let waits = !lasted && !asked.surpasses(count(tracks), config.min_held);
            match against.or_else(|| waits.then(small).flatten()) {
                None => return Some(found.rise(ledger, Strength::Confirms)),
                Some(why) => doubt = Some(why),
            }
        }
    }
    let half = config.min_held.div_ceil(2).max(2);
    let mut found = (0..LEVELS).filter_map(|level| {
        let rises = if level == 0 { suspicion(config) } else { asked.rises };
        let found = Candidate::at(level, rises, Shape::Slope, half, tracks);
        found.filter(|c| level == 0 || c.lives().is_none())
    });
    let suspected = found.next().map(|c| Rise { doubt, ..c.rise(ledger, Strength::Suspects) });
    suspected.or_else(|| (0..LEVELS).find_map(|level| sustained(ledger, config, level, tracks)))
}

/// All of them now.
pub(crate) fn count(tracks: &[(&Process, &Track)]) -> u64 {
    tracks.iter().map(|(_, t)| u64::from(t.count)).sum()
}

/// What is counted at a level: the floor, and in longer windows those that are open all
/// through, for whoever stays so long is no swing of the load, which may hide a floor.
fn measure(level: usize) -> fn(&Mark) -> u32 {
    if level == 0 { |m| m.floor } else { |m| m.survivors }
}

/// What comes in batches stands between two of them: so many times as many windows are
/// looked at for it…
const STAIRS: usize = 2;
/// …of this level, and longer ones.
const LANDING: usize = 2;

/// How a run rises.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// In each window.
    Slope,
    /// In half of them, and falls in none.
    Stairs,
}

impl Shape {
    fn has(self, level: usize, run: &[Mark]) -> bool {
        match self {
            Self::Slope if level == 0 => rising(run),
            Self::Slope => climbs(run, measure(level)),
            Self::Stairs => steps(run, measure(level)),
        }
    }
}

/// A run that rises.
struct Candidate<'a> {
    level: usize,
    tracks: Tracks<'a>,
    run: Vec<Mark>,
}

impl<'a> Candidate<'a> {
    /// `rises` in a row in windows of a level, by `least` in all.
    fn at(
        level: usize,
        rises: usize,
        shape: Shape,
        least: u64,
        tracks: &[(&'a Process, &'a Track)],
    ) -> Option<Self> {
        let enough = |t: &Track| t.levels[level].marks.len() > rises && holds(t, level, rises);
        let enough: Tracks<'_> = tracks.iter().filter(|(_, t)| enough(t)).copied().collect();
        let last = |t: &Track| t.last(level, rises + 1).collect::<Vec<_>>();
        let growth = |run: &[Mark]| {
            if level == 0 { growth_of(run) } else { grown(run, measure(level)) }
        };
        let alone: Tracks<'_> =
            enough.iter().filter(|(_, t)| shape.has(level, &last(t))).copied().collect();
        let tracks = if alone.is_empty() {
            enough.into_iter().filter(|(_, t)| growth(&last(t)) > 0).collect()
        } else {
            alone
        };
        let run = sum(&tracks, level, rises + 1);
        let grows =
            shape.has(level, &run) && growth(&run) >= i64::try_from(least).unwrap_or(i64::MAX);
        // The newest floor is a window old: a pool that has filled since
        // then stands on it, a leak is above it.
        let stands = run.last().is_some_and(|m| count(&tracks) <= u64::from(m.floor));
        (grows && !stands).then_some(Self { level, tracks, run })
    }

    /// Old members that go as fast as new ones come are a population.
    fn lives(&self) -> Option<String> {
        let retired: u32 = self.run[1..].iter().map(|m| m.retired).sum();
        let grown = grown(&self.run, |m| m.survivors);
        (i64::from(retired) > grown).then(|| {
            format!("of old ones {retired} were closed meanwhile: they live long, and change")
        })
    }

    /// Where all of them come to in the end, if that is within the limit: by Little's law
    /// arrivals in a window, divided by the share of old members that is closed in one.
    /// Members of a leak are not closed, and it has no end; sessions that grow in number
    /// have.
    fn leads(&self, asked: &Asked<'_>) -> Option<String> {
        let run = sum(&self.tracks, self.level, usize::MAX);
        let all = |of: fn(&Mark) -> u32| run.iter().skip(1).map(|m| f64::from(of(m))).sum::<f64>();
        let (retired, exposed) = (all(|m| m.retired), all(|m| m.survivors));
        let came = grown(&run, |m| m.survivors).max(0) as f64 + retired;
        let windows = run.len().saturating_sub(1).max(1) as f64;
        let limit: u64 = self.tracks.iter().map(|(p, _)| asked.limit(p)).sum();
        let end = came / windows * exposed / retired;
        (retired > 0.0 && end <= limit as f64).then(|| {
            format!(
                "of old ones {retired} were closed meanwhile: at that rate there will be some {end:.0} in the end, of {limit} allowed"
            )
        })
    }

    /// What stays takes too little of the limit yet.
    fn small(&self, asked: &Asked<'_>, ledger: &Ledger) -> Option<String> {
        let stays = |t: &Track| t.levels[self.level].marks.back().map_or(0, |m| m.survivors);
        let enough = |(p, t): &(&Process, &Track)| u64::from(stays(t)) >= asked.enough(p);
        if self.tracks.iter().any(enough) {
            return None;
        }
        let enough = self.tracks.iter().map(|(p, _)| asked.enough(p)).min()?;
        let mut doubt = format!("it may be a pool that fills: confirmed from {enough} on");
        if let Some(patience) = asked.patience {
            let long = ledger.window().length() * u32::try_from(patience).unwrap_or(u32::MAX);
            doubt.push_str(&format!(", or after {}", text::duration(long)));
        }
        Some(doubt)
    }

    fn rise(self, ledger: &Ledger, strength: Strength) -> Rise<'a> {
        rise(ledger, strength, self.level, &self.tracks, &self.run)
    }
}

/// A rise that has paused: kept until no floor has risen for `windows` windows (of longer
/// ones: in fewer than half of them) or half of the growth is gone.
fn sustained<'a>(
    ledger: &Ledger,
    config: &Detection,
    level: usize,
    tracks: &[(&'a Process, &'a Track)],
) -> Option<Rise<'a>> {
    let recent = config.windows as usize + 1;
    let least = if level == 0 { 1 } else { suspicion(config) };
    let still: Tracks<'_> = tracks
        .iter()
        .filter(|(_, t)| {
            let marks: Vec<_> = t.last(level, recent).collect();
            let of = measure(level);
            let rises = marks.windows(2).filter(|w| of(&w[1]) > of(&w[0])).count();
            rises >= least && holds(t, level, t.levels[level].marks.len())
        })
        .copied()
        .collect();
    if still.is_empty() {
        return None;
    }
    let run = sum(&still, level, recent);
    let least = i64::try_from(config.min_held.div_ceil(2)).unwrap_or(i64::MAX);
    (growth_of(&run) >= least).then(|| rise(ledger, Strength::Sustains, level, &still, &run))
}

fn rise<'a>(
    ledger: &Ledger,
    strength: Strength,
    level: usize,
    tracks: &[(&'a Process, &'a Track)],
    run: &[Mark],
) -> Rise<'a> {
    let ends = &ledger.window().ends;
    let longest = tracks.iter().map(|(_, t)| t.marks().len()).min().unwrap_or(0).min(ends.len());
    let points: Vec<(f64, f64)> = ends
        .iter()
        .skip(ends.len() - longest)
        .zip(sum(tracks, 0, longest))
        .map(|(at, mark)| (at.0 as f64 / 3.6e12, f64::from(mark.floor)))
        .collect();
    Rise {
        strength,
        processes: tracks.iter().map(|(p, _)| *p).collect(),
        counts: run.iter().map(measure(level)).collect(),
        survivors: run.last().map_or(0, |m| m.survivors),
        window: ledger.window().length() * windows_of(level) as u32,
        per_hour: growth::slope(&points),
        doubt: None,
    }
}

/// Floor and survivors rise in every window, and no plateau begins: the newest
/// rise is at least half of the mean one. A pool that reaches its cap within
/// the newest window would else be one rise too many.
pub(crate) fn rising(run: &[Mark]) -> bool {
    climbs(run, |m| m.floor) && run.windows(2).all(|w| w[1].survivors > w[0].survivors)
}

fn climbs(run: &[Mark], of: fn(&Mark) -> u32) -> bool {
    let steps = run.len() as i64 - 1;
    if steps < 1 {
        return false;
    }
    let up = run.windows(2).all(|w| of(&w[1]) > of(&w[0]));
    let newest = grown(&run[run.len() - 2..], of);
    up && newest * 2 * steps >= grown(run, of)
}

/// Never falls, rises in half of the windows and in one of the newest two, and in their newer
/// half by no less than half of what it did in the older.
fn steps(run: &[Mark], of: fn(&Mark) -> u32) -> bool {
    let up: Vec<bool> = run.windows(2).map(|w| of(&w[1]) > of(&w[0])).collect();
    let falls = run.windows(2).any(|w| of(&w[1]) < of(&w[0]));
    let rises = up.iter().filter(|up| **up).count();
    let goes_on = up.iter().rev().take(2).any(|up| *up);
    let (older, newer) = run.split_at(run.len() / 2);
    let slows = grown(newer, of) * 2 < grown(older, of);
    !falls && goes_on && rises * 2 >= up.len() && !slows
}

fn grown(run: &[Mark], of: fn(&Mark) -> u32) -> i64 {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return 0 };
    i64::from(of(last)) - i64::from(of(first))
}

/// Growth of floors and of survivors, whichever is less.
fn growth_of(run: &[Mark]) -> i64 {
    grown(run, |m| m.floor).min(grown(run, |m| m.survivors))
}

/// What grew is still there: the count has not fallen back to below the middle
/// between the lowest and the highest floor of the run.
fn holds(track: &Track, level: usize, rises: usize) -> bool {
    let floors = || track.last(level, rises + 1).map(|m| u64::from(m.floor));
    let (low, high) = (floors().min().unwrap_or(0), floors().max().unwrap_or(0));
    u64::from(track.count) * 2 > low + high
}

/// The `n` newest windows of a level of several tracks, added up.
pub(crate) fn sum(tracks: &[(&Process, &Track)], level: usize, n: usize) -> Vec<Mark> {
    let n = tracks.iter().map(|(_, t)| t.levels[level].marks.len()).min().unwrap_or(0).min(n);
    let mut total = vec![Mark::default(); n];
    for (_, track) in tracks {
        total.iter_mut().zip(track.last(level, n)).for_each(|(sum, mark)| sum.add(&mark));
    }
    total
}

/// Tracks of one cohort, one per process.
pub(crate) type Tracks<'a> = Vec<(&'a Process, &'a Track)>;

/// Groups tracks by unit, life and `K`.
pub(crate) fn grouped<'a, K: Ord>(
    tracks: impl Iterator<Item = (&'a Process, K, &'a Track)>,
) -> BTreeMap<(&'a str, u64, K), Tracks<'a>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (p, key, track) in tracks.filter(|(p, ..)| p.alive()) {
        groups.entry((&*p.unit.name, p.invocation, key)).or_default().push((p, track));
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_steps() {
        let run = |survivors: &[u32]| {
            let mark = |s: &u32| Mark { survivors: *s, ..Mark::default() };
            steps(&survivors.iter().map(mark).collect::<Vec<_>>(), measure(1))
        };
        assert!(run(&[10, 20, 20, 30, 40, 40, 50]), "every other window");
        assert!(!run(&[10, 20, 19, 30, 40, 40, 50]), "given back");
        assert!(!run(&[10, 20, 20, 20, 20, 20, 30]), "a start, and another");
        assert!(!run(&[10, 20, 30, 40, 50, 50, 50]), "it has ended");
        assert!(!run(&[10, 30, 50, 60, 60, 60, 64]), "it fills");
    }

    #[test]
    fn runs_are_judged() {
        let run = |floors: &[u32], survivors: &[u32]| {
            let marks: Vec<_> = floors
                .iter()
                .zip(survivors)
                .map(|(f, s)| Mark { floor: *f, survivors: *s, ..Mark::default() })
                .collect();
            rising(&marks)
        };
        assert!(run(&[1, 3, 5, 7], &[1, 2, 4, 6]), "steady");
        assert!(run(&[1, 2, 4, 8], &[1, 2, 4, 8]), "faster");
        assert!(!run(&[1, 3, 3, 7], &[1, 2, 4, 6]), "a plateau within");
        assert!(!run(&[1, 3, 5, 7], &[1, 2, 2, 2]), "members turn over");
        assert!(!run(&[1, 40, 60, 62], &[1, 40, 60, 61]), "fills up");
        assert!(!run(&[0, 6, 12, 18, 20], &[0, 5, 11, 17, 20]), "reaches a cap");
        assert!(!run(&[1], &[1]), "too short");
    }
}
