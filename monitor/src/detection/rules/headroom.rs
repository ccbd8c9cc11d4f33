//! `headroom`: a process is near its descriptor limit, or a cgroup near its
//! task limit. A warning, not a leak.

use std::collections::BTreeMap;

use crate::config::model::Detection;
use crate::detection::finding::{Finding, Room, Strength, named};
use crate::detection::growth;
use crate::detection::rules::leaves_out_unit;
use crate::detection::verdict::{Resource, Rule};
use crate::ledger::Ledger;
use crate::ledger::process::Process;
use crate::ledger::track::Track;
use crate::source::model::KernelStr;
use crate::text;
use crate::time::Boottime;

const RULE: Rule = Rule::Headroom;

/// Percent of a limit, and what it does to the verdict. The lowest keeps one
/// open, so that a count that wavers around 80 % does not flap.
const STEPS: [(u64, Strength); 3] =
    [(90, Strength::Confirms), (80, Strength::Suspects), (75, Strength::Sustains)];

/// Sandboxes set tiny limits on purpose, so that nothing more can be opened.
const SMALLEST_LIMIT: u64 = 64;

/// Judges every process and every cgroup with a limit.
pub fn judge(ledger: &Ledger, _config: &Detection, _now: Boottime) -> Vec<Finding> {
    let mut findings = descriptors(ledger);
    findings.extend(tasks(ledger));
    findings
}

fn step(used: u64, limit: u64) -> Option<Strength> {
    // Above the limit it was lowered after the fact, which is no accident.
    let meant = limit < SMALLEST_LIMIT || used > limit;
    STEPS
        .iter()
        .find(|(percent, _)| !meant && used.saturating_mul(100) >= limit.saturating_mul(*percent))
        .map(|(_, strength)| *strength)
}

fn descriptors(ledger: &Ledger) -> Vec<Finding> {
    let mut worst: BTreeMap<_, (u64, u64, &Process, Strength)> = BTreeMap::new();
    for p in ledger.processes().filter(|p| p.alive()) {
        let (Some(limit), Some(used)) = (p.max_fds, p.open_fds()) else { continue };
        let Some(strength) = step(used, limit) else { continue };
        if leaves_out_unit(ledger, RULE, p) {
            continue;
        }
        let key = (p.unit.name.clone(), p.invocation, text::printable(p.comm.as_bytes()));
        let share = used.saturating_mul(1000) / limit.max(1);
        let entry = worst.entry(key).or_insert((share, limit, p, strength));
        if share > entry.0 {
            *entry = (share, limit, p, strength);
        }
    }
    worst
        .into_iter()
        .map(|((_, _, comm), (_, limit, p, strength))| {
            let used = p.open_fds().unwrap_or(0);
            let what = format!("open files of {}", named(p));
            finding(
                ledger,
                strength,
                Resource::Fd,
                comm,
                p,
                &Use { used, limit, what, per_hour: per_hour(ledger, &p.total) },
            )
        })
        .collect()
}

fn tasks(ledger: &Ledger) -> Vec<Finding> {
    let mut by_cgroup: BTreeMap<&KernelStr, (u64, &Process)> = BTreeMap::new();
    for p in ledger.processes().filter(|p| p.alive()) {
        let entry = by_cgroup.entry(&p.cgroup).or_insert((0, p));
        entry.0 += u64::from(p.threads.count);
        // The one with most threads stands for the cgroup.
        if p.threads.count > entry.1.threads.count {
            entry.1 = p;
        }
    }
    by_cgroup
        .into_iter()
        .filter_map(|(cgroup, (used, p))| {
            let limit = ledger.pids_max(cgroup)?;
            let strength = step(used, limit)?;
            if leaves_out_unit(ledger, RULE, p) {
                return None;
            }
            let cohort = text::printable(cgroup.as_bytes());
            let what = format!("tasks in cgroup {cohort}");
            let per_hour = per_hour(ledger, &p.threads);
            Some(finding(
                ledger,
                strength,
                Resource::Thread,
                cohort,
                p,
                &Use { used, limit, what, per_hour },
            ))
        })
        .collect()
}

struct Use {
    used: u64,
    limit: u64,
    what: String,
    per_hour: Option<f64>,
}

fn finding(
    ledger: &Ledger,
    strength: Strength,
    resource: Resource,
    cohort: String,
    p: &Process,
    u: &Use,
) -> Finding {
    let mut f = Finding::of_processes(ledger, RULE, strength, resource, cohort, p, &[p]);
    f.kind = "limit".to_owned();
    f.held = u.used;
    f.room = Some(Room { limit: u.limit, used: u.used, share: 1.0 });
    f.growth_per_hour = u.per_hour;
    let left = u.limit - u.used;
    let ahead = match u.per_hour {
        Some(g) if g > 0.0 => {
            let hours = (left as f64 / g).min(1e6);
            let time = std::time::Duration::from_secs_f64(hours * 3600.0);
            format!("at {g:.1} more per hour the rest lasts {}", text::duration(time))
        }
        _ => "not growing at present".to_owned(),
    };
    f.evidence = vec![format!(
        "{} {} of {} allowed ({:.0} %); {ahead}",
        u.used,
        u.what,
        u.limit,
        u.used as f64 * 100.0 / u.limit.max(1) as f64
    )];
    f
}

fn per_hour(ledger: &Ledger, track: &Track) -> Option<f64> {
    let ends = &ledger.window().ends;
    let n = track.marks().len().min(ends.len());
    let points: Vec<_> = ends
        .iter()
        .skip(ends.len() - n)
        .zip(track.last(0, n))
        .map(|(at, m)| (at.0 as f64 / 3.6e12, f64::from(m.floor)))
        .collect();
    growth::slope(&points)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::unit::UnitKind;
    use crate::detection::verdict::State;
    use crate::ledger::testing::World;
    use crate::source::model::FdTable;

    #[test]
    fn nearness_to_a_limit() {
        for (used, limit, want) in [
            (700, 1024, None),
            (770, 1024, Some(Strength::Sustains)),
            (820, 1024, Some(Strength::Suspects)),
            (930, 1024, Some(Strength::Confirms)),
            (1024, 1024, Some(Strength::Confirms)),
            (1025, 1024, None),
            (16, 16, None),
            (0, 0, None),
            (u64::MAX, u64::MAX, Some(Strength::Confirms)),
        ] {
            assert_eq!(step(used, limit), want, "{used} of {limit}");
        }
    }

    #[test]
    fn a_process_near_its_limit_is_warned_of_without_flapping() {
        let mut w = World::new();
        let p = w.spawn(("app.service", UnitKind::Service), 1, "/usr/bin/app");
        for (used, want) in [
            (700, None),
            (830, Some(State::Suspected)),
            (800, Some(State::Suspected)),
            (930, Some(State::Confirmed)),
            (830, Some(State::Confirmed)),
            (700, None),
        ] {
            w.process(p).fds = FdTable::Count(used);
            w.look();
            assert_eq!(w.open_leaks().first().map(|l| l.state), want, "{used}");
        }
        assert!(w.docket.suspects().is_empty());
        let resolved = &w.changes.last().unwrap().leak;
        assert_eq!((&*resolved.kind, resolved.limit), ("limit", Some(1024)));
    }
}
