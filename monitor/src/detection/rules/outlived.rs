//! `outlived`: members that are open much longer than nearly all others of their kind
//! ever were, one more and one more, and none of them is closed. Statistical.
//!
//! It finds what a floor hides: one leaked of a thousand, in a unit whose count goes up
//! and down by hundreds.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use crate::config::model::Detection;
use crate::detection::finding::{Finding, Strength};
use crate::detection::patience::{CACHE_SHARE, CACHE_WINDOWS, limited, may_be_cache, patience};
use crate::detection::rules::leaves_out;
use crate::detection::survival::{Survival, longest};
use crate::detection::usage::Usage;
use crate::detection::verdict::Rule;
use crate::ledger::Ledger;
use crate::ledger::balance::as_probes_say;
use crate::ledger::parts::Part;
use crate::ledger::process::{Held, Process, held_flags};
use crate::ledger::track::Cohort;
use crate::source::model::{FdKind, Lifetimes};
use crate::text;
use crate::time::Boottime;

const RULE: Rule = Rule::Outlived;

/// Lifetimes that must have ended before anything is said of them.
const ENOUGH: u64 = 100;
/// What may live on where nearly all have ended. Past it, what lives long is no
/// exception, and is not old before all that were closed were younger.
const EXCEPTIONS: f64 = 0.05;
/// So many times as old as that is far from all others: buckets are powers of two.
const FAR: u32 = 8;
/// The mean life is not longer than that of the oldest of many, so of those that are older one
/// ends in such a time on the mean; none does in so many of them once in 20,000 times. Where few
/// were closed it may be longer: then patience is what guards.
const BEYOND: f64 = 10.0;
type Members<'a> = Vec<(&'a Process, &'a Held)>;

/// What is known of the lives of a kind.
struct Lives {
    /// Who is older has outlived them.
    old: Duration,
    /// So much older than that they are, all together, before it confirms.
    beyond: Duration,
    /// In words.
    known: String,
}

impl Lives {
    /// Of a cohort of a kind: those that were closed late in it are its measure, where nothing
    /// else is or some were closed that had outlived the others.
    fn of(
        ledger: &Ledger,
        config: &Detection,
        kind: (&Lifetimes, &Survival),
        members: &[(&Process, &Held)],
    ) -> Option<Self> {
        let (usual, oldest) = (Self::usual(config, kind.1), oldest_closed(ledger, members));
        match usual {
            Some(usual) if oldest.is_none_or(|oldest| oldest < usual.old) => Some(usual),
            Some(usual) => Some(Self::oldest(ledger, config, oldest?, members).unwrap_or(usual)),
            // Elsewhere in the unit some may have lived for longer. Of a cohort of which none
            // was closed nothing tells how old they get: it may be a pool.
            None => Self::oldest(ledger, config, oldest?.max(longest(kind.0)?), members),
        }
    }

    /// Far from the usual life; `None` where more than exceptions have no end yet.
    fn usual(config: &Detection, survival: &Survival) -> Option<Self> {
        let usual = survival.until(EXCEPTIONS)?;
        let known = format!(
            "{:.0} % of {} lifetimes of their kind ended within {}",
            (1.0 - EXCEPTIONS) * 100.0,
            survival.completed,
            text::duration(usual)
        );
        let old = (usual * FAR).max(config.window);
        Some(Self { old, beyond: Duration::ZERO, known })
    }

    /// Older than any that was closed in the last days, if it was watched for so long.
    fn oldest(
        ledger: &Ledger,
        config: &Detection,
        oldest: Duration,
        members: &[(&Process, &Held)],
    ) -> Option<Self> {
        let (now, attached) = (ledger.clock().boot, ledger.fd_probes()?);
        let since = members.iter().map(|(p, _)| attached.max(p.warm_from + config.warmup)).max()?;
        let watched = now.since(since).min(ledger.remembered());
        (oldest <= watched).then(|| Self {
            old: oldest.max(config.window) + config.window,
            beyond: oldest.max(config.window).mul_f64(BEYOND),
            known: format!(
                "the oldest that was closed in the last {} was {} old",
                text::duration(watched),
                text::duration(oldest)
            ),
        })
    }
}

/// How old the oldest of these cohorts was that was closed in the last days.
fn oldest_closed(ledger: &Ledger, members: &[(&Process, &Held)]) -> Option<Duration> {
    let lived = cohorts(members).into_values().map(|c| &c.lived);
    let now = ledger.clock().boot;
    lived.filter_map(|lived| lived.within(now, ledger.remembered())).max()
}

fn cohorts<'a>(members: &[(&'a Process, &Held)]) -> BTreeMap<(u32, u32), &'a Cohort> {
    let cohort =
        |(p, h): &(&'a Process, &Held)| Some(((p.serial, h.slot), p.cohorts.get(h.slot as usize)?));
    members.iter().filter_map(cohort).collect()
}

/// Judges every cohort of a unit whose lifetimes the probes know.
pub fn judge(ledger: &Ledger, config: &Detection, now: Boottime) -> Vec<Finding> {
    let Some(attached) = ledger.fd_probes() else { return Vec::new() };
    let mut kinds: BTreeMap<_, BTreeMap<(FdKind, &str), Members<'_>>> = BTreeMap::new();
    let mut seen = HashSet::new();
    for p in ledger.processes().filter(|p| p.alive()) {
        let warm = p.warm_from + config.warmup;
        for h in &p.held {
            // Only what the probes saw opened has a lifetime that they will see end.
            if h.birth.is_none() || h.opened < attached || !h.is(held_flags::OPENED_KNOWN) {
                continue;
            }
            if h.opened < warm || leaves_out(ledger, RULE, h) {
                continue;
            }
            let Some(cohort) = p.cohorts.get(h.slot as usize) else { continue };
            if ledger.exact_files() && !seen.insert((&*p.unit.name, h.file)) {
                continue;
            }
            let unit = (&*p.unit.name, p.invocation, as_probes_say(h.kind));
            let cohort = (h.kind, &*cohort.template);
            kinds.entry(unit).or_default().entry(cohort).or_default().push((p, h));
        }
    }
    let mut findings = Vec::new();
    for ((unit, _, kind), cohorts) in kinds {
        let ended = ledger.unit(unit).and_then(|u| u.lifetimes(kind));
        let Some(ended) = ended else { continue };
        let ages = cohorts.values().flatten().map(|(_, h)| now.since(h.opened));
        let survival = Survival::estimate(&ended, ages);
        if survival.completed < ENOUGH {
            continue;
        }
        for ((_, template), members) in cohorts {
            let lives = Lives::of(ledger, config, (&ended, &survival), &members);
            let Some(lives) = lives else { continue };
            let judged = |of: &Members<'_>| verdict(ledger, config, template, of, &lives);
            let whole = judged(&members);
            if whole.as_ref().is_some_and(|f| f.strength == Strength::Confirms) {
                findings.extend(whole);
                continue;
            }
            // What nobody uses may be few beside those that are used.
            let unused = unused(ledger, &members);
            let part = Some(unused).filter(|part| part.len() < members.len());
            let part = part.and_then(|part| judged(&part));
            findings.extend(part.into_iter().fold(whole, Finding::stronger));
        }
    }
    findings
}

fn unused<'a>(ledger: &Ledger, members: &[(&'a Process, &'a Held)]) -> Members<'a> {
    let lately = ledger.window().lately();
    let unused = |(p, h): &&(&Process, &Held)| Part::Unused.has(h, None, p.seen_at(), lately);
    members.iter().filter(unused).copied().collect()
}

fn verdict(
    ledger: &Ledger,
    config: &Detection,
    template: &str,
    members: &[(&Process, &Held)],
    lives: &Lives,
) -> Option<Finding> {
    let old = lives.old;
    let outlived: Members<'_> =
        members.iter().copied().filter(|(p, h)| p.seen_at().since(h.opened) >= old).collect();
    let held = outlived.len() as u64;
    if held < config.min_held.div_ceil(2) {
        return None;
    }
    // Those of a pool, or of a start, came together; a leak goes on.
    let window = (config.window.as_nanos() as u64).max(1);
    let came: BTreeSet<u64> = outlived.iter().map(|(_, h)| h.opened.0 / window).collect();
    let windows = u64::from(config.windows.max(1));
    let closed = closed_when_old(&outlived, old);
    let none_closed = oldest_closed(ledger, &outlived).is_none_or(|oldest| oldest < old);
    let beyond: Duration =
        outlived.iter().map(|(p, h)| p.seen_at().since(h.opened).saturating_sub(old)).sum();
    let enough = held >= config.min_held && beyond >= lives.beyond;
    // A cache of files keeps them for good, too, while it fills, and so does a pool.
    let usage = Usage::of(ledger, &outlived);
    let (habit, share) = if may_be_cache(&outlived) || usage.mostly() || usage.accompany() {
        (windows * CACHE_WINDOWS as u64, CACHE_SHARE)
    } else {
        (windows, 1.0)
    };
    let weighs =
        takes(config, &outlived, share) || (!usage.accompany() && lasts(config, &outlived));
    let strength = match came.len() as u64 {
        n if n >= habit && none_closed && enough && weighs => Strength::Confirms,
        // Long sessions end some day, and each that does is one against it.
        n if n >= windows.div_ceil(2) && closed * 10 <= held => Strength::Suspects,
        _ if closed * 2 <= held => Strength::Sustains,
        _ => return None,
    };
    let mut finding =
        Finding::of_descriptors(ledger, RULE, strength, template.to_owned(), &outlived)?;
    let youngest = outlived.iter().map(|(p, h)| p.seen_at().since(h.opened)).min()?;
    finding.evidence = vec![format!(
        "{held} opened in {} windows of {} are still open after {} and more, where {}; {closed} so old were closed",
        came.len(),
        text::duration(config.window),
        text::duration(youngest),
        lives.known,
    )];
    finding.evidence.extend(usage.told());
    Some(finding)
}

/// Some process has enough of its limit.
fn takes(config: &Detection, outlived: &[(&Process, &Held)], share: f64) -> bool {
    let mut by_process: BTreeMap<_, (&Process, u64)> = BTreeMap::new();
    for (p, _) in outlived {
        by_process.entry(p.serial).or_insert((p, 0)).1 += 1;
    }
    let enough = (config.min_share * share).min(1.0);
    by_process.values().any(|(p, n)| *n as f64 >= enough * limited(p.max_fds) as f64)
}

/// From the first to the last it took long enough.
fn lasts(config: &Detection, outlived: &[(&Process, &Held)]) -> bool {
    let opened = || outlived.iter().map(|(_, h)| h.opened);
    let (first, last) = (opened().min(), opened().max());
    let span = first.zip(last).map_or(Duration::ZERO, |(first, last)| last.since(first));
    span >= config.window.mul_f64(patience(config) as f64)
}

/// Members of these cohorts, at most, that were closed so old in the windows that are
/// remembered.
fn closed_when_old(members: &[(&Process, &Held)], old: Duration) -> u64 {
    let marks = cohorts(members).into_values().flat_map(|c| {
        let level = &c.track.levels[0];
        level.marks.iter().chain([&level.present])
    });
    let old = old.as_millis();
    marks.filter(|m| u128::from(m.oldest_retired) >= old).map(|m| u64::from(m.retired)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::unit::UnitKind;
    use crate::detection::verdict::State;
    use crate::ledger::testing::World;

    const APP: (&str, UnitKind) = ("app.service", UnitKind::Service);

    /// A warm service, whose probes are attached.
    fn app() -> (World, u32) {
        let mut w = World::new();
        w.flows = true;
        w.ended("app.service", FdKind::Socket, 20);
        let p = w.spawn(APP, 1, "/usr/bin/app");
        w.looks(20);
        (w, p)
    }

    fn connect(w: &mut World, p: u32) -> u32 {
        let fd = w.connect(p);
        w.born(p, fd);
        fd
    }

    /// Requests come and go all the while, and their number swings so that no floor
    /// rises; `more` happens at each of so many looks.
    fn busy(w: &mut World, p: u32, looks: usize, mut more: impl FnMut(&mut World, usize)) {
        for i in 0..looks {
            let requests = 10 + 40 * ((i / 6) % 2);
            let open: Vec<u32> = (0..requests).map(|_| connect(w, p)).collect();
            more(w, i);
            w.look();
            for fd in open {
                w.close(p, fd);
                // Half a second each.
                w.ended("app.service", FdKind::Socket, 20);
            }
        }
    }

    #[test]
    fn one_of_hundreds_is_found_where_no_floor_rises() {
        let (mut w, p) = app();
        busy(&mut w, p, 60, |w, i| {
            if i % 6 == 0 {
                connect(w, p);
            }
        });
        let leak = w.only();
        assert_eq!(leak.state, State::Confirmed, "{leak:#?}");
        assert_eq!((&*leak.kind, &*leak.cohort), ("socket", "tcp"));
        assert!(leak.rules.contains(&RULE), "{leak:#?}");
        let by_floor = w.ask(super::super::rising_floor::judge);
        assert!(by_floor.iter().all(|(s, _)| *s < Strength::Confirms), "{by_floor:?}");
        assert_eq!(leak.held, 10, "all, for the last one has just become a window old");
        assert!(leak.evidence.iter().any(|e| e.contains("95 %")), "{:?}", leak.evidence);
    }

    #[test]
    fn requests_that_last_more_than_a_window_do_not_hide_it() {
        let (mut w, p) = app();
        let mut requests = std::collections::VecDeque::new();
        for i in 0..180 {
            if i % 6 == 0 {
                connect(&mut w, p);
            }
            // Ten looks each, where six are a window.
            (0..8).for_each(|_| requests.push_back(connect(&mut w, p)));
            while requests.len() > 80 {
                w.close(p, requests.pop_front().unwrap());
                w.ended("app.service", FdKind::Socket, 26);
            }
            w.look();
        }
        // Eight times as old as a minute are those of the first six minutes.
        assert!(w.ask(judge).iter().any(|(s, _)| *s == Strength::Confirms));
        let said = |e: &String| e.ends_with("0 so old were closed");
        assert!(w.only().evidence.iter().any(said), "{:?}", w.only().evidence);
    }

    #[test]
    fn one_of_ten_is_found_where_sessions_are_long() {
        let (mut w, p) = app();
        let mut sessions = std::collections::VecDeque::new();
        for i in 0..260 {
            if i % 5 == 0 {
                connect(&mut w, p);
            }
            // Two at each look, for ten minutes: after them hardly a bucket is left.
            (0..2).for_each(|_| sessions.push_back(connect(&mut w, p)));
            while sessions.len() > 240 {
                w.close(p, sessions.pop_front().unwrap());
                w.ended("app.service", FdKind::Socket, 30);
            }
            w.look();
            let confirms = w.ask(judge).iter().any(|(s, _)| *s == Strength::Confirms);
            // A window (6 looks) older than the sessions were 22 by then, by 108, 103, 98… looks:
            // ten sessions long, all together.
            assert_eq!(confirms, i >= 234, "{i}");
        }
        let said = |e: &String| e.contains("was 10 min old");
        assert!(w.only().evidence.iter().any(said), "{:?}", w.only().evidence);
    }

    #[test]
    fn innocents() {
        type Act = fn(&mut World, u32);
        let table: [(&str, Act); 6] = [
            ("files whose addresses are given out again", |w, p| {
                let mut held = Vec::new();
                busy(w, p, 100, |w, i| {
                    if i % 5 == 0 {
                        held.push(connect(w, p));
                    }
                    // Every time some of them have been closed and opened again.
                    for (_, fd) in
                        held.iter().enumerate().filter(|(n, _)| (n + i).is_multiple_of(3))
                    {
                        w.born(p, *fd);
                        w.ended("app.service", FdKind::Socket, 20);
                    }
                });
            }),
            ("a pool that is filled once", |w, p| {
                let mut filled = 0;
                busy(w, p, 80, |w, _| {
                    while filled < 20 {
                        connect(w, p);
                        filled += 1;
                    }
                });
            }),
            ("sessions that end after some minutes", |w, p| {
                let mut sessions = std::collections::VecDeque::new();
                busy(w, p, 120, |w, i| {
                    if i % 3 == 0 {
                        sessions.push_back(connect(w, p));
                    }
                    if sessions.len() > 8 {
                        w.close(p, sessions.pop_front().unwrap());
                        w.ended("app.service", FdKind::Socket, 27);
                    }
                });
            }),
            ("what was opened before the probes came", |w, p| {
                (0..20).for_each(|_| _ = w.connect(p));
                busy(w, p, 60, |_, _| ());
            }),
            ("long lives are nothing special", |w, p| {
                w.ended_often("app.service", FdKind::Socket, 34, 200);
                busy(w, p, 60, |w, i| {
                    if i % 12 == 0 {
                        connect(w, p);
                    }
                });
            }),
            ("too few lifetimes have ended to say anything", |w, p| {
                for _ in 0..8 {
                    connect(w, p);
                    w.looks(6);
                }
            }),
        ];
        for (name, act) in table {
            let (mut w, p) = app();
            act(&mut w, p);
            let confirmed: Vec<_> =
                w.changes.iter().filter(|c| c.to == State::Confirmed).map(|c| &c.leak).collect();
            let by_this = confirmed.iter().any(|l| l.rules.contains(&RULE));
            assert!(!by_this, "{name}: {confirmed:#?}");
            assert!(w.ask(judge).iter().all(|(s, _)| *s < Strength::Confirms), "{name}");
        }
    }

    #[test]
    fn the_next_life_is_judged_by_its_own_lifetimes() {
        let (mut w, p) = app();
        busy(&mut w, p, 60, |_, _| ());
        assert!(w.ledger.unit("app.service").unwrap().lifetimes(FdKind::Socket).is_some());
        w.exit(p);
        w.looks(2);
        w.spawn(APP, 1, "/usr/bin/app");
        w.looks(2);
        let unit = w.ledger.unit("app.service").unwrap();
        let ended: u64 = unit.lifetimes(FdKind::Socket).unwrap().buckets.iter().sum();
        assert_eq!((unit.invocation, ended), (2, 0));
    }
}
