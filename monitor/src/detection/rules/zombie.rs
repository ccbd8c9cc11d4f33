//! `zombie`: a living parent does not reap its children. Near-certain.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::model::Detection;
use crate::detection::finding::{Finding, Member, Strength, named};
use crate::detection::rules::leaves_out_unit;
use crate::detection::turns::past_turns;
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
    // Some parents reap in batches, so their oldest must be truly old.
    let confirmed = parents.iter().any(|(_, zombies)| {
        let (longest, count) = (zombies.iter().map(|z| age(z)).max(), zombies.len() as u64);
        count >= config.min_held
            && longest.is_some_and(|l| l >= config.stale_after && past_turns(config, l, count))
    });
    let strength = if confirmed { Strength::Confirms } else { Strength::Suspects };
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

    #[test]
    fn a_parent_that_does_not_reap_is_confirmed() {
        let mut w = World::new();
        let p = w.spawn(APP, 1, "/usr/bin/app");
        let all = zombies(&mut w, p, 7);
        w.looks(2);
        assert!(w.open_leaks().is_empty(), "every child is a zombie for a moment");
        w.looks(6);
        assert_eq!(w.only().state, State::Suspected, "some parents reap in batches");
        w.looks(18);
        let leak = w.only();
        assert_eq!(
            (leak.state, leak.held, leak.resource),
            (State::Confirmed, 7, Resource::Process)
        );
        assert_eq!(leak.examples.len(), 7);
        assert_eq!(
            leak.evidence,
            ["7 ended children of app[100] not reaped, the oldest for 2 min"]
        );
        let members = w.docket.members(&leak.id);
        assert_eq!(members.iter().map(|m| m.id.pid).collect::<Vec<_>>(), [p]);
        assert_eq!(w.ledger.views()[0].zombies, 7);
        all.into_iter().for_each(|z| w.exit(z));
        w.look();
        assert!(w.open_leaks().is_empty());
    }

    #[test]
    fn many_are_not_waited_for() {
        let mut w = World::new();
        let p = w.spawn(APP, 1, "/usr/bin/app");
        zombies(&mut w, p, 20);
        w.looks(8);
        assert_eq!((w.only().state, w.only().held), (State::Confirmed, 20));
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
