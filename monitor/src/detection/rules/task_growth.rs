//! `task-growth`: the async tasks of one function rise like a floor. Statistical.

use std::sync::Arc;

use crate::config::model::Detection;
use crate::detection::finding::Finding;
use crate::detection::opened::Opened;
use crate::detection::patience::Asked;
use crate::detection::rise;
use crate::detection::rules::leaves_out_unit;
use crate::detection::verdict::{Frame, Resource, Role, Rule};
use crate::ledger::Ledger;
use crate::ledger::process::Process;
use crate::source::model::TaskCount;
use crate::text;
use crate::time::Boottime;

const RULE: Rule = Rule::TaskGrowth;

/// The one runtime whose tasks can be counted.
const KIND: &str = "tokio";

/// Judges the tasks of each function in each unit.
pub fn judge(ledger: &Ledger, config: &Detection, _now: Boottime) -> Vec<Finding> {
    let tracks = ledger
        .processes()
        .filter(|p| !leaves_out_unit(ledger, RULE, p))
        .filter_map(|p| Some((p, p.tasks.as_ref().filter(|t| t.blind.is_none())?)))
        .flat_map(|(p, tasks)| tasks.kinds.iter().map(move |(f, c)| (p, Arc::clone(f), &c.track)));
    rise::grouped(tracks)
        .into_iter()
        .filter_map(|((_, _, function), tracks)| {
            // Memory ends before any number of tasks does.
            let found = rise::find(ledger, config, &Asked::of(config, &|_| None), &tracks)?;
            let owner = found.processes.first()?;
            let mut finding = Finding::of_processes(
                ledger,
                RULE,
                found.strength,
                Resource::Task,
                function.to_string(),
                owner,
                &found.processes,
            );
            let counts = found.processes.iter().filter_map(|p| count(p, &function));
            let all = counts.fold(TaskCount::default(), |all, c| TaskCount {
                alive: all.alive + c.alive,
                spawned: all.spawned + c.spawned,
                ended: all.ended + c.ended,
                file: all.file.or_else(|| c.file.clone()),
                line: all.line.or(c.line),
                ..all
            });
            KIND.clone_into(&mut finding.kind);
            finding.held = all.alive;
            // How old they are, nobody has written down: only their number.
            finding.oldest = None;
            finding.growth_per_hour = found.per_hour;
            let (whose, rose) = (found.whose(), found.told());
            finding.evidence = vec![
                format!("the lowest number of tasks of {function} in {whose} {rose}"),
                format!(
                    "since they are counted {} were spawned and {} ended: {} are alive",
                    all.spawned, all.ended, all.alive
                ),
            ];
            finding.evidence.extend(found.doubt);
            finding.opener = Opened::named(Frame {
                function: function.to_string(),
                file: all.file.as_deref().map(ToOwned::to_owned),
                line: all.line,
                module: owner.exe.as_ref().map(|exe| text::printable(exe.as_bytes())),
                role: Role::Opener,
            });
            Some(finding)
        })
        .collect()
}

fn count<'a>(p: &'a Process, function: &str) -> Option<&'a TaskCount> {
    Some(&p.tasks.as_ref()?.kinds.get(function)?.count)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::attribution::unit::UnitKind;
    use crate::detection::verdict::State;
    use crate::ledger::testing::World;
    use crate::source::model::ProcessTasks;

    const BEAT: &str = "app::Server::beat";

    fn app() -> (World, u32) {
        let mut w = World::new();
        let p = w.spawn(("app.service", UnitKind::Service), 1, "/usr/bin/app");
        w.async_tasks.insert(p, ProcessTasks::default());
        w.looks(20);
        (w, p)
    }

    fn tasks<'a>(w: &'a mut World, p: u32, function: &str) -> &'a mut TaskCount {
        w.async_tasks.get_mut(&p).unwrap().kinds.entry(Arc::from(function)).or_default()
    }

    fn spawn(w: &mut World, p: u32, function: &str) {
        let count = tasks(w, p, function);
        count.alive += 1;
        count.spawned += 1;
    }

    fn end(w: &mut World, p: u32, function: &str) {
        let count = tasks(w, p, function);
        count.alive -= 1;
        count.ended += 1;
    }

    #[test]
    fn tasks_that_never_end_are_confirmed_by_the_name_of_their_function() {
        let (mut w, p) = app();
        for _ in 0..40 {
            spawn(&mut w, p, BEAT);
            tasks(&mut w, p, BEAT).file = Some("src/server.rs".into());
            tasks(&mut w, p, BEAT).line = Some(7);
            for _ in 0..3 {
                spawn(&mut w, p, "app::answer");
                end(&mut w, p, "app::answer");
            }
            w.look();
        }
        let leak = w.only();
        assert_eq!((leak.state, leak.resource, leak.held), (State::Confirmed, Resource::Task, 40));
        assert_eq!((&*leak.kind, &*leak.cohort), ("tokio", BEAT));
        assert!(leak.evidence[0].contains("of app::Server::beat in app[100] rose from"));
        assert!(leak.evidence[1].contains("40 were spawned and 0 ended: 40 are alive"));
        assert_eq!((leak.limit, leak.exhausts_at), (None, None));
        let opener = &leak.opener[0];
        assert_eq!((&*opener.function, opener.role), (BEAT, Role::Opener));
        assert_eq!((opener.file.as_deref(), opener.line), (Some("src/server.rs"), Some(7)));
        w.exit(p);
        w.async_tasks.clear();
        w.look();
        assert!(w.open_leaks().is_empty());
        let resolved = &w.changes.last().unwrap().leak;
        assert!(resolved.evidence.last().unwrap().contains("its tasks went with it"));
    }

    #[test]
    fn a_rise_that_takes_little_is_suspected_first() {
        let mut config = crate::ledger::testing::config();
        config.detection.min_share = 0.0625;
        let mut w = World::with(config);
        let p = w.spawn(("app.service", UnitKind::Service), 1, "/usr/bin/app");
        w.async_tasks.insert(p, ProcessTasks::default());
        w.looks(20);
        for _ in 0..40 {
            spawn(&mut w, p, BEAT);
            w.look();
        }
        let leak = w.only();
        assert_eq!(leak.state, State::Suspected);
        assert!(leak.evidence.iter().any(|e| e.contains("confirmed from 64 on")), "{leak:#?}");
        for _ in 0..60 {
            spawn(&mut w, p, BEAT);
            w.look();
        }
        assert_eq!(w.only().state, State::Confirmed);
    }

    #[test]
    fn innocents() {
        type Alive = fn(u64) -> u64;
        let table: [(&str, Alive); 4] = [
            ("aborted with their server", |_| 1),
            ("a pool that fills", |i| 1 + i.min(16)),
            ("bursts", |i| if i % 12 == 11 { 200 } else { 4 }),
            ("load", |i| 4 + (60 - (i as i64 % 120 - 60).unsigned_abs()) / 30),
        ];
        for (name, alive) in table {
            let (mut w, p) = app();
            for i in 0..150 {
                let count = tasks(&mut w, p, BEAT);
                count.alive = alive(i);
                count.spawned += 200;
                count.ended = count.spawned - count.alive;
                w.look();
            }
            assert!(!w.ever_confirmed(), "{name}");
        }
    }

    #[test]
    fn those_of_before_the_probes_that_make_room_are_no_growth() {
        let (mut w, p) = app();
        for _ in 0..60 {
            spawn(&mut w, p, BEAT);
            tasks(&mut w, p, BEAT).unseen += 1;
            w.look();
        }
        assert!(w.changes.is_empty(), "{:#?}", w.changes);
    }

    #[test]
    fn what_is_told_at_once_when_the_probes_come_is_no_growth() {
        let mut w = World::new();
        let p = w.spawn(("app.service", UnitKind::Service), 1, "/usr/bin/app");
        w.looks(100);
        w.async_tasks.insert(p, ProcessTasks::default());
        for i in 0..100 {
            // The probes see each when it is polled next, some of them late.
            if i < 10 {
                spawn(&mut w, p, BEAT);
            }
            w.look();
        }
        assert!(w.changes.is_empty(), "{:#?}", w.changes);
    }

    #[test]
    fn where_they_cannot_be_counted_nothing_is_said() {
        let (mut w, p) = app();
        for _ in 0..60 {
            spawn(&mut w, p, BEAT);
            w.async_tasks.get_mut(&p).unwrap().blind = Some("it has no symbols".to_owned());
            w.look();
        }
        assert!(w.changes.is_empty());
    }
}
