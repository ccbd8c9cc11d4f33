//! `zombie`: a living parent does not reap its children. Near-certain.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::model::Detection;
use crate::detection::finding::{Finding, Member, Strength, named};
use crate::detection::rules::leaves_out_unit;
use crate::detection::turns::{BY_THE_DAY, BY_THE_ROUND, Turns, half_of, past_turns};
use crate::detection::verdict::{Resource, Rule};
use crate::ledger::Ledger;
use crate::ledger::process::Process;
use crate::source::model::ProcessId;
use crate::text;
use crate::time::Boottime;

const RULE: Rule = Rule::Zombie;

/// Every child is a zombie for a moment; a parent that has not reaped for so
/// long is not about to.
const GRACE: Duration = Duration::from_secs(30);

/// Separate censuses that found children ended. Those that end together are often waited for
/// together, and that may be when the job is done.
const HABIT: usize = 3;

/// Where they ended at so many, they are no few batches of one job.
const STEADY: usize = 12;

/// Judges every parent.
pub fn judge(ledger: &Ledger, config: &Detection, now: Boottime) -> Vec<Finding> {
    let grace = GRACE.min(config.stale_after);
    let mut by_parent: BTreeMap<ProcessId, Vec<&Process>> = BTreeMap::new();
    for p in ledger.processes() {
        let Some(since) = p.zombie_since else { continue };
        if let Some(parent) = p.parent
            && p.zombie_looks >= 2
            && now.since(since) >= grace
        {
            by_parent.entry(parent).or_default().push(p);
        }
    }
    let mut cohorts: BTreeMap<_, Vec<(&Process, Vec<&Process>)>> = BTreeMap::new();
    for (parent, zombies) in by_parent {
        let Some(parent) = ledger.process(&parent) else { continue };
        // Without a living parent they are init's, which reaps.
        if !parent.alive() || leaves_out_unit(ledger, RULE, parent) {
            continue;
        }
        let comm = text::printable(parent.comm.as_bytes());
        let key = (parent.unit.name.clone(), parent.invocation, comm);
        cohorts.entry(key).or_default().push((parent, zombies));
    }
    cohorts
        .into_iter()
        .filter_map(|((_, _, comm), parents)| verdict(ledger, config, now, &comm, &parents))
        .collect()
}

fn verdict(
    ledger: &Ledger,
    config: &Detection,
    now: Boottime,
    comm: &str,
    parents: &[(&Process, Vec<&Process>)],
) -> Option<Finding> {
    let age = |z: &Process| z.zombie_since.map_or(Duration::ZERO, |at| now.since(at));
    let turns = Turns::of_children(ledger, config, parents.iter().map(|(p, _)| *p));
    // Some parents wait for their children when they next start one, or when the job is done.
    let ripe = |parent: &Process, zombies: &[&Process]| {
        let longest = zombies.iter().map(|z| age(z)).max().unwrap_or_default();
        let count = zombies.len() as u64;
        let limit = ledger.unit(&parent.unit.name).and_then(|u| u.tasks_max);
        let times: BTreeSet<_> = zombies.iter().filter_map(|z| z.zombie_since).collect();
        let late = if times.len() >= STEADY { BY_THE_ROUND } else { BY_THE_DAY };
        count >= config.min_held
            && times.len() >= HABIT
            && longest >= config.stale_after
            && past_turns(config, late, longest, (count, half_of(config, limit)))
    };
    let in_turn = |zombies: &[&Process]| {
        let is_overdue = |z: &&&Process| turns.overdue(age(z), zombies.len());
        let overdue = zombies.iter().filter(is_overdue).count() as u64;
        turns.comes(zombies.len()) || overdue < config.min_held
    };
    let ripe: Vec<_> = parents.iter().filter(|(parent, zombies)| ripe(parent, zombies)).collect();
    let lives = ripe.iter().all(|(_, zombies)| in_turn(zombies));
    let strength = if lives { Strength::Suspects } else { Strength::Confirms };
    let all: Vec<&Process> = parents.iter().flat_map(|(_, z)| z.iter().copied()).collect();
    let (owner, _) = parents.first()?;
    let cohort = format!("zombies of {comm}");
    let mut finding =
        Finding::of_processes(ledger, RULE, strength, Resource::Process, cohort, owner, &all);
    // Who can do something about it is the parent.
    finding.members = parents.iter().map(|(p, _)| Member::of(p)).collect();
    finding.oldest = all.iter().filter_map(|z| z.zombie_since).min();
    finding.evidence = parents
        .iter()
        .take(3)
        .map(|(p, zombies)| {
            let oldest = zombies.iter().map(|z| age(z)).max().unwrap_or_default();
            format!(
                "{} ended {} of {} not reaped, the oldest for {}",
                zombies.len(),
                if zombies.len() == 1 { "child" } else { "children" },
                named(p),
                text::duration(oldest),
            )
        })
        .collect();
    finding.withdraws = lives && !ripe.is_empty();
    if finding.withdraws {
        finding.evidence.push(turns.told(config, all.len(), "reaped"));
    }
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::unit::UnitKind;
    use crate::detection::verdict::State;
    use crate::ledger::testing::World;
    use crate::source::model::FdTable;

    const APP: (&str, UnitKind) = ("app.service", UnitKind::Service);

    fn zombies(w: &mut World, parent: u32, n: usize) -> Vec<u32> {
        (0..n)
            .map(|_| {
                let z = w.spawn(APP, parent, "/usr/bin/job");
                let p = w.process(z);
                p.zombie = true;
                p.threads = 0;
                p.fds = FdTable::Full(Vec::new());
                z
            })
            .collect()
    }

    /// They end at three looks.
    fn zombies_in_turn(w: &mut World, parent: u32, n: usize) -> Vec<u32> {
        let few = |n: usize, w: &mut World| {
            let all = zombies(w, parent, n);
            w.look();
            all
        };
        [few(1, w), few(1, w), zombies(w, parent, n - 2)].concat()
    }

    #[test]
    fn a_parent_that_does_not_reap_is_confirmed() {
        let mut w = World::new();
        let p = w.spawn(APP, 1, "/usr/bin/app");
        let all = zombies_in_turn(&mut w, p, 7);
        w.looks(2);
        assert!(w.open_leaks().is_empty(), "every child is a zombie for a moment");
        w.looks(6);
        assert_eq!(w.only().state, State::Suspected, "some parents reap in batches");
        w.looks(558);
        assert_eq!(w.only().state, State::Suspected, "some of them when the job is done");
        w.looks(10);
        let leak = w.only();
        assert_eq!(
            (leak.state, leak.held, leak.resource),
            (State::Confirmed, 7, Resource::Process)
        );
        assert_eq!(leak.examples.len(), 7);
        assert_eq!(
            leak.evidence,
            ["7 ended children of app[100] not reaped, the oldest for 48 min"]
        );
        let members = w.docket.members(&leak.id);
        assert_eq!(members.iter().map(|m| m.id.pid).collect::<Vec<_>>(), [p]);
        assert_eq!(w.ledger.views()[0].zombies, 7);
        all.into_iter().for_each(|z| w.exit(z));
        w.look();
        assert!(w.open_leaks().is_empty());
    }

    #[test]
    fn what_ends_at_many_times_is_no_job_of_a_few_batches() {
        let ended = |times: usize, looks: usize| {
            let mut w = World::new();
            let p = w.spawn(APP, 1, "/usr/bin/app");
            for _ in 0..times {
                zombies(&mut w, p, 1);
                w.look();
            }
            w.looks(looks);
            w.ever_confirmed()
        };
        // Four hours are 288 looks, and eight 576.
        assert_eq!([ended(12, 270), ended(12, 300)], [false, true]);
        assert_eq!([ended(11, 550), ended(11, 590)], [false, true]);
    }

    #[test]
    fn many_are_not_waited_for() {
        let mut w = World::new();
        let p = w.spawn(APP, 1, "/usr/bin/app");
        zombies_in_turn(&mut w, p, 20);
        w.looks(8);
        assert_eq!((w.only().state, w.only().held), (State::Confirmed, 20));
        // But batches of a job, of which there may be half of what the unit may have.
        let mut config = crate::ledger::testing::config();
        config.detection.min_share = 0.0625;
        for (n, state) in [(511, State::Suspected), (512, State::Confirmed)] {
            let mut w = World::with(config.clone());
            let p = w.spawn(APP, 1, "/usr/bin/app");
            zombies_in_turn(&mut w, p, n);
            w.looks(8);
            assert_eq!((w.only().state, w.only().held), (state, n as u64));
        }
    }

    #[test]
    fn children_that_ended_together_are_waited_for_together() {
        let mut w = World::new();
        let p = w.spawn(APP, 1, "/usr/bin/app");
        zombies(&mut w, p, 200);
        w.looks(800);
        assert_eq!((w.only().state, w.only().held), (State::Suspected, 200));
        // Two more times, and it is a habit.
        zombies(&mut w, p, 1);
        w.looks(8);
        assert_eq!(w.only().state, State::Suspected);
        zombies(&mut w, p, 1);
        w.looks(8);
        assert_eq!((w.only().state, w.only().held), (State::Confirmed, 202));
    }

    #[test]
    fn who_reaps_by_the_hour_is_expected_to() {
        let mut w = World::new();
        let p = w.spawn(APP, 1, "/usr/bin/app");
        for n in [7, 25, 25] {
            let all = zombies_in_turn(&mut w, p, n);
            w.looks(118);
            all.into_iter().for_each(|z| w.exit(z));
            w.looks(2);
        }
        assert!(!w.ever_confirmed(), "{:#?}", w.changes);
        // Those that it never comes for are overdue once they have waited twice as long.
        zombies_in_turn(&mut w, p, 25);
        w.looks(88);
        assert_eq!(
            w.only().evidence[1],
            "25 that had waited as long were reaped in the last 8 min: the others may be, too"
        );
        w.looks(140);
        assert_eq!(w.only().state, State::Suspected);
        assert_eq!(
            w.only().evidence[1],
            "57 that had waited, for up to 10 min, were reaped in the last 96 min: only what has \
             waited twice as long is held against it"
        );
        w.looks(20);
        assert_eq!(w.only().state, State::Confirmed, "{:#?}", w.only());
    }

    #[test]
    fn few_or_passing_zombies_are_not_confirmed() {
        let mut w = World::new();
        let p = w.spawn(APP, 1, "/usr/bin/app");
        zombies(&mut w, p, 2);
        w.looks(40);
        assert_eq!((w.only().state, w.only().held), (State::Suspected, 2));
        let mut w = World::new();
        let p = w.spawn(APP, 1, "/usr/bin/app");
        for _ in 0..20 {
            let all = zombies(&mut w, p, 50);
            w.looks(4);
            all.into_iter().for_each(|z| w.exit(z));
        }
        assert_eq!(w.changes, []);
    }
}
