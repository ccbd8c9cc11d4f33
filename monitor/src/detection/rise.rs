//! Whether floors rise, and whether they have stopped.

use std::collections::BTreeMap;

use crate::config::model::Detection;
use crate::detection::finding::Strength;
use crate::detection::growth;
use crate::ledger::Ledger;
use crate::ledger::process::Process;
use crate::ledger::track::{Mark, Track};

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
    /// Floors of the run, oldest first.
    pub floors: Vec<u32>,
    /// Survivors at its end.
    pub survivors: u32,
    /// Members per hour, over all windows on record.
    pub per_hour: Option<f64>,
}

/// Looks for a rise among the tracks of one cohort, one per process. `confirm`
/// is the number of rises in a row that confirm.
///
/// Each process is judged by itself first: that is where a leak is, and a load
/// that comes as more processes is none. Where no single one rises in every
/// window, their sum may: a slow leak spread over workers.
pub(crate) fn find<'a>(
    ledger: &Ledger,
    config: &Detection,
    confirm: usize,
    tracks: &[(&'a Process, &'a Track)],
) -> Option<Rise<'a>> {
    let half = config.min_held.div_ceil(2).max(2);
    for (rises, least, strength) in [
        (confirm, config.min_held, Strength::Confirms),
        (suspicion(config), half, Strength::Suspects),
    ] {
        let enough: Vec<_> =
            tracks.iter().filter(|(_, t)| t.marks.len() > rises).copied().collect();
        let alone: Vec<_> = enough
            .iter()
            .filter(|(_, t)| rising(&t.last(rises + 1).collect::<Vec<_>>()) && holds(t, rises))
            .copied()
            .collect();
        let together = if alone.is_empty() {
            enough.into_iter().filter(|(_, t)| grew(t, rises) > 0 && holds(t, rises)).collect()
        } else {
            alone
        };
        if together.is_empty() {
            continue;
        }
        let run = sum(&together, rises + 1);
        if rising(&run) && growth_of(&run) >= i64::try_from(least).unwrap_or(i64::MAX) {
            // Old members that go as fast as new ones come are a population.
            let retired: u32 = run[1..].iter().map(|m| m.retired).sum();
            let lives = i64::from(retired) > growth_of(&run);
            // The newest floor is a window old: a pool that has filled since
            // then stands on it, a leak is above it.
            let level: u64 = together.iter().map(|(_, t)| u64::from(t.count)).sum();
            let stands = run.last().is_some_and(|m| level <= u64::from(m.floor));
            if (lives && strength == Strength::Confirms) || stands {
                continue;
            }
            return Some(rise(ledger, strength, &together, &run));
        }
    }
    sustained(ledger, config, tracks)
}

/// A rise that has paused: kept until no floor has risen for `windows` windows
/// or half of the growth is gone.
fn sustained<'a>(
    ledger: &Ledger,
    config: &Detection,
    tracks: &[(&'a Process, &'a Track)],
) -> Option<Rise<'a>> {
    let recent = config.windows as usize + 1;
    let still: Vec<_> = tracks
        .iter()
        .filter(|(_, t)| {
            let marks: Vec<_> = t.last(recent).collect();
            marks.windows(2).any(|w| w[1].floor > w[0].floor) && holds(t, t.marks.len())
        })
        .copied()
        .collect();
    if still.is_empty() {
        return None;
    }
    let run = sum(&still, recent);
    let least = i64::try_from(config.min_held.div_ceil(2)).unwrap_or(i64::MAX);
    (growth_of(&run) >= least).then(|| rise(ledger, Strength::Sustains, &still, &run))
}

fn rise<'a>(
    ledger: &Ledger,
    strength: Strength,
    tracks: &[(&'a Process, &'a Track)],
    run: &[Mark],
) -> Rise<'a> {
    let ends = &ledger.window().ends;
    let longest = tracks.iter().map(|(_, t)| t.marks.len()).min().unwrap_or(0).min(ends.len());
    let points: Vec<(f64, f64)> = ends
        .iter()
        .skip(ends.len() - longest)
        .zip(sum(tracks, longest))
        .map(|(at, mark)| (at.0 as f64 / 3.6e12, f64::from(mark.floor)))
        .collect();
    Rise {
        strength,
        processes: tracks.iter().map(|(p, _)| *p).collect(),
        floors: run.iter().map(|m| m.floor).collect(),
        survivors: run.last().map_or(0, |m| m.survivors),
        per_hour: growth::slope(&points),
    }
}

/// Floor and survivors rise in every window, and no plateau begins: the newest
/// rise is at least half of the mean one. A pool that reaches its cap within
/// the newest window would else be one rise too many.
pub(crate) fn rising(run: &[Mark]) -> bool {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return false };
    let steps = run.len() as i64 - 1;
    if steps < 1 {
        return false;
    }
    let up = run.windows(2).all(|w| w[1].floor > w[0].floor && w[1].survivors > w[0].survivors);
    let newest = i64::from(last.floor) - i64::from(run[run.len() - 2].floor);
    let all = i64::from(last.floor) - i64::from(first.floor);
    up && newest * 2 * steps >= all
}

/// Growth of floors and of survivors, whichever is less.
fn growth_of(run: &[Mark]) -> i64 {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return 0 };
    let floor = i64::from(last.floor) - i64::from(first.floor);
    floor.min(i64::from(last.survivors) - i64::from(first.survivors))
}

fn grew(track: &Track, rises: usize) -> i64 {
    growth_of(&track.last(rises + 1).collect::<Vec<_>>())
}

/// What grew is still there: the count has not fallen back to below the middle
/// between the lowest and the highest floor of the run.
fn holds(track: &Track, rises: usize) -> bool {
    let floors = || track.last(rises + 1).map(|m| u64::from(m.floor));
    let (low, high) = (floors().min().unwrap_or(0), floors().max().unwrap_or(0));
    u64::from(track.count) * 2 > low + high
}

/// The `n` newest windows of several tracks, added up.
pub(crate) fn sum(tracks: &[(&Process, &Track)], n: usize) -> Vec<Mark> {
    let n = tracks.iter().map(|(_, t)| t.marks.len()).min().unwrap_or(0).min(n);
    let mut total = vec![Mark::default(); n];
    for (_, track) in tracks {
        for (sum, mark) in total.iter_mut().zip(track.last(n)) {
            sum.floor += mark.floor;
            sum.survivors += mark.survivors;
            sum.retired += mark.retired;
        }
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
    fn runs_are_judged() {
        let run = |floors: &[u32], survivors: &[u32]| {
            let marks: Vec<_> = floors
                .iter()
                .zip(survivors)
                .map(|(f, s)| Mark { floor: *f, survivors: *s, retired: 0 })
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
