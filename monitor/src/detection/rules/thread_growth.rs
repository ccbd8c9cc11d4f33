//! `thread-growth`: the threads of a process rise like a floor. Statistical.

use crate::config::model::Detection;
use crate::detection::finding::{Finding, Room};
use crate::detection::patience::Asked;
use crate::detection::rise;
use crate::detection::rules::leaves_out_unit;
use crate::detection::usage;
use crate::detection::verdict::{Resource, Rule};
use crate::ledger::Ledger;
use crate::ledger::process::Process;
use crate::text;
use crate::time::Boottime;

const RULE: Rule = Rule::ThreadGrowth;

/// Judges the threads of like-named processes of each unit.
pub fn judge(ledger: &Ledger, config: &Detection, _now: Boottime) -> Vec<Finding> {
    let tracks = ledger
        .processes()
        .filter(|p| !leaves_out_unit(ledger, RULE, p))
        .map(|p| (p, text::printable(p.comm.as_bytes()), &p.threads));
    rise::grouped(tracks)
        .into_iter()
        .filter_map(|((_, _, comm), tracks)| {
            let limit = |p: &Process| ledger.unit(&p.unit.name)?.tasks_max;
            let mut asked = Asked::of_threads(config, &limit);
            let mut found = rise::find(ledger, config, &asked, &tracks)?;
            let used = found.processes.iter().all(|p| usage::threads_accompany(ledger, config, p));
            if used {
                asked = asked.of_companions();
                found = rise::find(ledger, config, &asked, &tracks)?;
            }
            let usual = ledger.usual(&tracks.first()?.0.unit.name, "thread", &comm);
            if usual.is_some() {
                asked = asked.beside(usual);
                found = rise::find(ledger, config, &asked, &tracks)?;
            }
            let owner = found.processes.first()?;
            let mut finding = Finding::of_processes(
                ledger,
                RULE,
                found.strength,
                Resource::Thread,
                comm,
                owner,
                &found.processes,
            );
            // Threads have no identity here: leaked is what came on top of the
            // fewest that the process was ever seen with.
            finding.held = found
                .processes
                .iter()
                .map(|p| u64::from(p.threads.count.saturating_sub(p.fewest_threads)))
                .sum();
            finding.growth_per_hour = found.per_hour;
            finding.room = Room::of_tasks(ledger, &owner.unit.name);
            let (whose, rose) = (found.whose(), found.told());
            finding.evidence = vec![format!("the lowest number of threads of {whose} {rose}")];
            finding.evidence.extend(asked.beside_doubt(found.doubt.as_deref()));
            finding.evidence.extend(found.doubt);
            finding.evidence.extend(used.then(usage::told_of_threads));
            Some(finding)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::attribution::unit::UnitKind;
    use crate::detection::verdict::State;
    use crate::ledger::testing::World;

    fn app() -> (World, u32) {
        let mut w = World::new();
        let p = w.spawn(("app.service", UnitKind::Service), 1, "/usr/bin/app");
        w.looks(20);
        (w, p)
    }

    #[test]
    fn endless_threads_are_confirmed_and_counted() {
        let (mut w, p) = app();
        for _ in 0..40 {
            w.process(p).threads += 1;
            w.look();
        }
        let leak = w.only();
        assert_eq!(
            (leak.state, leak.resource, leak.held),
            (State::Confirmed, Resource::Thread, 40)
        );
        assert_eq!((&*leak.kind, &*leak.cohort), ("thread", "app"));
        assert!((leak.growth_per_hour - 720.0).abs() < 80.0);
        w.exit(p);
        w.look();
        assert!(w.open_leaks().is_empty());
        let resolved = &w.changes.last().unwrap().leak;
        assert!(resolved.evidence.last().unwrap().contains("the invocation ended at"));
    }

    #[test]
    fn a_pool_of_two_hundred_is_none() {
        let mut config = crate::ledger::testing::config();
        config.detection.min_share = 0.0625;
        let mut w = World::with(config);
        let p = w.spawn(("app.service", UnitKind::Service), 1, "/usr/bin/app");
        w.looks(20);
        for i in 0..240_u32 {
            w.process(p).threads = 1 + i;
            w.look();
            assert!(i > 200 || !w.ever_confirmed(), "{i}");
        }
        let leak = w.only();
        assert_eq!(leak.state, State::Confirmed, "{leak:#?}");
        let first = &w.changes.iter().find(|c| c.to == State::Confirmed).unwrap().leak;
        // What stays of them is one window old.
        assert!((201..=213).contains(&first.held), "{}", first.held);
    }

    /// A thread at each look, and a connection: that is used or not, or came long before.
    fn with_connections(used: bool, before: u32) -> World {
        let mut config = crate::ledger::testing::config();
        config.detection.min_share = 0.0625;
        let mut w = World::with(config);
        let p = w.spawn(("app.service", UnitKind::Service), 1, "/usr/bin/app");
        w.process(p).max_fds = Some(65_536);
        w.looks(20);
        let mut came = std::collections::VecDeque::new();
        for i in 0..before + 230 {
            if before == 0 || i < before {
                let fd = w.connect(p);
                w.fd(p, fd).position = 7;
            }
            if i >= before {
                came.push_back(i);
                w.process(p).threads += 1;
            }
            let windows = [6, 24, 96, 384];
            w.process(p).old_threads =
                Some(windows.map(|w| 1 + came.iter().filter(|t| **t + w <= i).count() as u32));
            w.look();
            if used {
                w.fds(p).iter_mut().for_each(|f| f.position += 9);
            }
        }
        w
    }

    #[test]
    fn a_thread_for_each_connection_in_use_is_none() {
        let threads = |w: &World| {
            let all = w.changes.iter().filter(|c| c.to == State::Confirmed);
            all.filter(|c| c.leak.resource == Resource::Thread).count()
        };
        let served = with_connections(true, 0);
        assert_eq!(threads(&served), 0, "{:#?}", served.changes);
        let leaks = served.open_leaks();
        let leak = leaks.iter().find(|l| l.resource == Resource::Thread).unwrap();
        let said = |e: &String| e.contains("it is a thread for each");
        assert!(leak.evidence.iter().any(said), "{:?}", leak.evidence);
        assert_eq!(threads(&with_connections(false, 0)), 1, "nobody uses the connections");
        assert_eq!(threads(&with_connections(true, 200)), 1, "the threads came without any");
    }

    /// The load swings by sixty, for longer than a verdict needs; the age of each is known.
    fn swinging(leak: bool) -> World {
        let (mut w, p) = app();
        let mut old = 1_u32;
        for i in 0..720_u32 {
            // One in a minute, which is two windows.
            old += u32::from(leak && i % 12 == 0);
            w.process(p).threads = old + (i % 150).abs_diff(75) * 4 / 5;
            w.process(p).old_threads = Some([old; 4]);
            w.look();
        }
        w
    }

    #[test]
    fn old_ones_are_told_from_the_load() {
        assert!(swinging(true).ever_confirmed());
        assert!(!swinging(false).ever_confirmed());
    }

    #[test]
    fn threads_that_live_long_and_end_are_none() {
        // So many are as old as a window; of those some end in each.
        let live = |ended: u64| {
            let (mut w, p) = app();
            w.flows = true;
            for i in 0..90_u32 {
                w.process(p).threads = 10 + i;
                w.process(p).old_threads = Some([5 + i, i, i / 4, i / 16]);
                w.threads_ended("app.service", ended, Duration::from_secs(60));
                w.look();
            }
            w
        };
        assert!(live(0).ever_confirmed());
        let sessions = live(2);
        assert!(!sessions.ever_confirmed(), "{:#?}", sessions.changes);
        let said = |e: &String| e.contains("were closed meanwhile: they live long, and change");
        assert!(sessions.only().evidence.iter().any(said), "{:#?}", sessions.only());
    }

    #[test]
    fn innocents() {
        type Threads = fn(usize) -> u32;
        let table: [(&str, Threads); 3] = [
            ("a pool that fills", |i| 1 + i.min(16) as u32),
            ("bursts", |i| if i % 12 == 11 { 200 } else { 4 }),
            ("load", |i| 4 + (60 - (i as i32 % 120 - 60).abs()) as u32 / 30),
        ];
        for (name, threads) in table {
            let (mut w, p) = app();
            for i in 0..150 {
                w.process(p).threads = threads(i);
                w.look();
            }
            assert!(!w.ever_confirmed(), "{name}");
        }
    }
}
