//! `orphan`: a process outlives the main process that it belongs to.
//! Near-certain.

use std::collections::BTreeMap;

use crate::attribution::unit::UnitKind;
use crate::config::model::Detection;
use crate::detection::finding::{Finding, Strength, named};
use crate::detection::rules::leaves_out_unit;
use crate::detection::verdict::{Resource, Rule};
use crate::ledger::Ledger;
use crate::ledger::invocation::SETTLING;
use crate::ledger::orphans::Outlived;
use crate::text;
use crate::time::Boottime;

const RULE: Rule = Rule::Orphan;

/// Judges every process that lost its main process.
pub fn judge(ledger: &Ledger, config: &Detection, now: Boottime) -> Vec<Finding> {
    let mut cohorts: BTreeMap<_, Vec<(Strength, Outlived<'_>)>> = BTreeMap::new();
    for orphan in ledger.orphans() {
        let p = orphan.process;
        if leaves_out_unit(ledger, RULE, p) {
            continue;
        }
        let Some(strength) = strength(config, now, &orphan) else { continue };
        let comm = text::printable(p.comm.as_bytes());
        cohorts
            .entry((p.unit.name.clone(), p.invocation, comm))
            .or_default()
            .push((strength, orphan));
    }
    cohorts
        .into_iter()
        .filter_map(|((_, _, comm), orphans)| {
            let strength = orphans.iter().map(|(s, _)| *s).max()?;
            // Cleanup ends what a confirmed verdict lists: nothing less sure may
            // stand beside it.
            let orphans: Vec<_> =
                orphans.iter().filter(|(s, _)| *s == strength).map(|(_, o)| o).collect();
            let processes: Vec<_> = orphans.iter().map(|o| o.process).collect();
            let mut finding = Finding::of_processes(
                ledger,
                RULE,
                strength,
                Resource::Process,
                format!("orphans named {comm}"),
                processes.first()?,
                &processes,
            );
            finding.evidence = sentences(&orphans, now);
            Some(finding)
        })
        .collect()
}

fn strength(config: &Detection, now: Boottime, orphan: &Outlived<'_>) -> Option<Strength> {
    let p = orphan.process;
    let Some(main) = orphan.main else {
        // Nobody saw the manager: it may run elsewhere.
        return Some(Strength::Suspects);
    };
    if p.must_not_outlive {
        return Some(Strength::Confirms);
    }
    match p.unit.kind {
        // Daemons that fork twice are sorted out by then.
        UnitKind::Service | UnitKind::User if main.lived >= SETTLING => {
            let waited = now.since(orphan.since) >= config.stale_after;
            Some(if waited { Strength::Confirms } else { Strength::Suspects })
        }
        UnitKind::Rule => Some(Strength::Suspects),
        _ => None,
    }
}

fn sentences(orphans: &[&Outlived<'_>], now: Boottime) -> Vec<String> {
    let Some(first) = orphans.first() else { return Vec::new() };
    let n = orphans.len();
    let noun = if n == 1 { "process" } else { "processes" };
    let names: Vec<_> = orphans.iter().take(5).map(|o| named(o.process)).collect();
    let more = if n > 5 { ", …" } else { "" };
    let lost = match first.main {
        Some(main) => format!(
            "run on {} after the main process ended, which had lived for {}",
            text::duration(now.since(main.at)),
            text::duration(main.lived)
        ),
        None => "have no main process since the first look".to_owned(),
    };
    vec![format!("{n} {noun} of the unit ({}{more}) {lost}", names.join(", "))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Config, UnitRule};
    use crate::detection::verdict::State;
    use crate::ledger::testing::{World, config};

    const MANAGER: (&str, UnitKind) = ("manager", UnitKind::Rule);

    fn with_globs() -> Config {
        Config {
            units: vec![UnitRule {
                name: "manager".into(),
                orphans: vec!["*agent-runner*".into()],
                ..UnitRule::default()
            }],
            ..config()
        }
    }

    fn manager(w: &mut World) -> (u32, Vec<u32>) {
        let m = w.spawn(MANAGER, 1, "/opt/manager");
        let workers =
            (0..5).map(|i| w.spawn(MANAGER, m, &format!("/opt/agent-runner {i}"))).collect();
        (m, workers)
    }

    #[test]
    fn workers_of_a_killed_manager_are_confirmed_at_once() {
        for (seen, settled) in [(true, 2), (false, 2), (true, 20), (false, 20)] {
            let mut w = World::with(with_globs());
            let (m, workers) = manager(&mut w);
            let stranger = w.spawn(("other", UnitKind::Exe), 1, "/opt/agent-runner 9");
            w.looks(settled);
            assert_eq!(w.changes, []);
            if seen {
                w.exit_seen(m);
            } else {
                w.exit(m);
                w.look();
            }
            let leak = w.only();
            assert_eq!((leak.state, leak.held), (State::Confirmed, 5), "{seen} {settled}");
            let pids: Vec<_> = w.docket.members(&leak.id).iter().map(|m| m.id.pid).collect();
            assert_eq!(pids, workers);
            assert!(!pids.contains(&stranger));
            w.looks(3);
            assert_eq!(w.ledger.unit("manager").unwrap().invocation, 1);
            assert_eq!(w.ledger.views()[0].orphans, 5);
            workers.into_iter().for_each(|p| w.exit(p));
            w.look();
            assert!(w.open_leaks().is_empty());
        }
    }

    #[test]
    fn a_new_manager_does_not_adopt_the_old_ones_workers() {
        let mut w = World::with(with_globs());
        let (m, workers) = manager(&mut w);
        w.looks(3);
        w.exit(m);
        let (_, new) = manager(&mut w);
        w.looks(2);
        let leak = w.only();
        let pids: Vec<_> = w.docket.members(&leak.id).iter().map(|m| m.id.pid).collect();
        assert_eq!(pids, workers);
        assert!(new.iter().all(|p| !pids.contains(p)));
        assert_eq!(w.ledger.unit("manager").unwrap().invocation, 2);
    }

    #[test]
    fn workers_of_a_living_manager_are_nobodys_orphans() {
        // A launcher that the rule matches too, and goes.
        let mut w = World::with(with_globs());
        let launcher = w.spawn(MANAGER, 1, "/bin/sh -c manager");
        let m = w.spawn(MANAGER, launcher, "/opt/manager");
        let workers: Vec<u32> =
            (0..5).map(|i| w.spawn(MANAGER, m, &format!("/opt/agent-runner {i}"))).collect();
        w.looks(3);
        w.exit_seen(launcher);
        w.looks(10);
        assert_eq!(w.changes, []);
        // Then the manager itself.
        w.exit_seen(m);
        w.look();
        let leak = w.only();
        let pids: Vec<_> = w.docket.members(&leak.id).iter().map(|m| m.id.pid).collect();
        assert_eq!((leak.state, pids), (State::Confirmed, workers));
    }

    #[test]
    fn a_manager_that_hands_over_leaves_no_orphans() {
        for (unit, config) in
            [(MANAGER, with_globs()), (("a.service", UnitKind::Service), config())]
        {
            let mut w = World::with(config);
            let old = w.spawn(unit, 1, "/opt/manager");
            w.looks(40);
            let new = w.spawn(unit, old, "/opt/manager");
            for i in 0..5 {
                w.spawn(unit, new, &format!("/opt/agent-runner {i}"));
            }
            w.look();
            w.exit_seen(old);
            w.looks(20);
            assert_eq!(w.changes, [], "{unit:?}");
        }
    }

    #[test]
    fn a_worker_that_was_moved_to_another_service_is_its_now() {
        let mut w = World::with(with_globs());
        let (m, workers) = manager(&mut w);
        w.looks(3);
        w.moves(workers[0], ("other.service", UnitKind::Service));
        w.look();
        w.exit_seen(m);
        w.look();
        let leak = w.only();
        let pids: Vec<_> = w.docket.members(&leak.id).iter().map(|m| m.id.pid).collect();
        assert_eq!(pids, workers[1..]);
    }

    #[test]
    fn a_suspect_beside_a_confirmed_orphan_is_no_target() {
        let mut w = World::new();
        let unit = ("a.service", UnitKind::Service);
        let main = w.spawn(unit, 1, "/usr/bin/a");
        let old = w.spawn(unit, main, "/usr/bin/helper");
        w.looks(20);
        w.exit(main);
        w.looks(10);
        let leak = w.only();
        assert_eq!(leak.state, State::Confirmed);
        let young = w.spawn(unit, old, "/usr/bin/helper");
        w.look();
        w.exit(old);
        w.look();
        let targets = w.docket.members(&leak.id);
        assert!(targets.iter().all(|t| t.id.pid != young), "{targets:?}");
    }

    #[test]
    fn workers_that_come_and_go_are_one_invocation() {
        let mut w = World::with(with_globs());
        let (m, workers) = manager(&mut w);
        for p in workers {
            w.looks(2);
            w.exit(p);
            w.spawn(MANAGER, m, "/opt/agent-runner again");
        }
        w.looks(2);
        assert_eq!(w.changes, []);
        assert_eq!(w.ledger.unit("manager").unwrap().invocation, 1);
    }

    #[test]
    fn kinds_differ() {
        for (kind, lived, soon, late) in [
            (UnitKind::Service, 20, Some(State::Suspected), Some(State::Confirmed)),
            (UnitKind::User, 20, Some(State::Suspected), Some(State::Confirmed)),
            (UnitKind::Service, 2, None, None),
            (UnitKind::Rule, 20, Some(State::Suspected), Some(State::Suspected)),
            (UnitKind::Docker, 20, None, None),
            (UnitKind::Exe, 20, None, None),
            (UnitKind::Scope, 20, None, None),
        ] {
            let mut w = World::new();
            let unit = ("a.service", kind);
            let main = w.spawn(unit, 1, "/usr/bin/a");
            w.spawn(unit, main, "/usr/bin/helper");
            w.looks(lived);
            w.exit(main);
            w.look();
            let state = |w: &World| w.open_leaks().first().map(|l| l.state);
            assert_eq!(state(&w), soon, "{kind} soon");
            w.looks(10);
            assert_eq!(state(&w), late, "{kind} late");
        }
    }

    #[test]
    fn peers_are_not_orphans_of_each_other() {
        let mut w = World::new();
        let all: Vec<u32> = (0..4).map(|_| w.spawn(MANAGER, 1, "/opt/peer")).collect();
        w.looks(20);
        w.exit(all[0]);
        w.spawn(MANAGER, 1, "/opt/peer");
        w.looks(20);
        assert_eq!(w.changes, []);
        assert_eq!(w.ledger.unit("manager").unwrap().invocation, 1);
    }
}
