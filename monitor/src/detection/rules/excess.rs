//! `excess`: more are open than come and go by Little's law, and ever more.
//! Statistical.

use crate::config::model::Detection;
use crate::detection::finding::{Finding, Room, Strength};
use crate::detection::patience::{Asked, may_be_cache};
use crate::detection::rise::{self, Rise};
use crate::detection::rules::leaves_out_unit;
use crate::detection::usage::{self, Usage};
use crate::detection::verdict::{Resource, Rule};
use crate::ledger::Ledger;
use crate::ledger::balance::{Balance, Subject, as_probes_say};
use crate::ledger::invocation::UnitState;
use crate::ledger::process::{Held, Process};
use crate::source::model::FdKind;
use crate::text;
use crate::time::Boottime;

const RULE: Rule = Rule::Excess;

/// Lives that must have ended before a mean of them says anything; fewer are no load
/// that could hide a floor, and the other rules see all there is.
const ENOUGH: u64 = 100;

/// Judges what every unit has beside its load.
pub fn judge(ledger: &Ledger, config: &Detection, _now: Boottime) -> Vec<Finding> {
    let judged = ledger.units().flat_map(|unit| {
        unit.balances.iter().filter_map(|(subject, balance)| {
            // Most stand still: cheap to pass over.
            (balance.ended >= ENOUGH && held(balance) > 0).then_some(())?;
            match subject {
                Subject::Threads => threads(ledger, config, unit, balance),
                Subject::Fds(kind) => descriptors(ledger, config, unit, *kind, balance),
            }
        })
    });
    judged.collect()
}

fn members<'a>(ledger: &'a Ledger, unit: &'a UnitState) -> impl Iterator<Item = &'a Process> {
    ledger.processes().filter(|p| {
        p.alive()
            && p.unit.name == unit.unit.name
            && p.invocation == unit.invocation
            && !leaves_out_unit(ledger, RULE, p)
    })
}

fn threads(
    ledger: &Ledger,
    config: &Detection,
    unit: &UnitState,
    balance: &Balance,
) -> Option<Finding> {
    let owner = members(ledger, unit).max_by_key(|p| {
        (p.threads.count.saturating_sub(p.fewest_threads), std::cmp::Reverse(p.id))
    })?;
    let limit = |_: &Process| unit.tasks_max;
    let mut asked = Asked::of_threads(config, &limit);
    if usage::threads_accompany(ledger, config, owner) {
        asked = asked.of_companions();
    }
    let found = rise::find(ledger, config, &asked, &[(owner, &balance.track)])?;
    let comm = text::printable(owner.comm.as_bytes());
    let mut finding = Finding::of_processes(
        ledger,
        RULE,
        found.strength,
        Resource::Thread,
        comm,
        owner,
        &[owner],
    );
    finding.held = held(balance);
    finding.room = Room::of_tasks(ledger, &unit.unit.name);
    Some(told(finding, ledger, balance, found, "threads"))
}

fn descriptors(
    ledger: &Ledger,
    config: &Detection,
    unit: &UnitState,
    kind: FdKind,
    balance: &Balance,
) -> Option<Finding> {
    // The probes know the kind alone: it is the cohort that has most of what stays.
    let stays = |p: &Process, slot: u32| {
        let cohort = p.cohorts.get(slot as usize)?;
        cohort.track.marks().back().map(|m| m.survivors)
    };
    let (owner, (kind, template), slot) = members(ledger, unit)
        .flat_map(|p| p.slots.iter().map(move |(key, slot)| (p, key, *slot)))
        .filter(|(_, (k, _), _)| as_probes_say(*k) == kind)
        .max_by_key(|(p, _, slot)| (stays(p, *slot), std::cmp::Reverse((p.id, *slot))))?;
    let began = ledger.clock().boot - ledger.window().length();
    let old: Vec<(&Process, &Held)> = owner
        .held
        .iter()
        .filter(|h| h.slot == slot && h.since <= began)
        .map(|h| (owner, h))
        .collect();
    let usage = Usage::of(ledger, &old);
    let mut asked = Asked::of(config, &|p| p.max_fds);
    if usage.accompany() {
        asked = asked.of_companions();
    } else if usage.mostly() {
        asked = asked.of_cache();
    } else if may_be_cache(&old) {
        asked = asked.of_kept_files();
    }
    let mut found = rise::find(ledger, config, &asked, &[(owner, &balance.track)])?;
    // A load that does not close what it opens within the window is none of the law's.
    let grown = u64::from(*found.counts.last()?).saturating_sub(u64::from(found.counts[0]));
    if (old.len() as u64) * 2 < grown {
        found.strength = found.strength.min(Strength::Suspects);
    }
    let finding =
        Finding::of_descriptors(ledger, RULE, found.strength, (**template).to_owned(), &old)?;
    let mut finding = told(finding, ledger, balance, found, kind.as_str());
    finding.evidence.extend(usage.told());
    Some(finding)
}

/// What came on top since there was least, in the windows that are remembered.
fn held(balance: &Balance) -> u64 {
    let floors = || balance.track.marks().iter().map(|m| m.floor);
    let (least, last) = (floors().min().unwrap_or(0), floors().next_back().unwrap_or(0));
    u64::from(last - least)
}

fn told(
    mut finding: Finding,
    ledger: &Ledger,
    balance: &Balance,
    found: Rise<'_>,
    what: &str,
) -> Finding {
    let figures = balance.newest;
    finding.growth_per_hour = found.per_hour;
    finding.evidence = vec![format!(
        "{:.0} {what} are open where {:.0} come and go by Little's law ({} lives ended in the \
         last {}); what is beside them {}",
        figures.open,
        figures.passing,
        figures.ended,
        text::duration(ledger.window().length()),
        found.told(),
    )];
    finding.evidence.extend(found.doubt);
    finding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::unit::UnitKind;
    use crate::detection::verdict::State;
    use crate::ledger::testing::{INTERVAL, World};

    const APP: (&str, UnitKind) = ("app.service", UnitKind::Service);

    /// A warm service with four threads, whose task probes count.
    fn app() -> (World, u32) {
        let mut w = World::new();
        w.flows = true;
        w.threads_ended("app.service", 1, INTERVAL);
        let p = w.spawn(APP, 1, "/usr/bin/app");
        w.process(p).threads = 4;
        w.looks(20);
        (w, p)
    }

    /// So many threads run all through an interval, beside those that stay.
    fn load(w: &mut World, p: u32, threads: u32) {
        w.process(p).threads += threads;
        w.look();
        w.process(p).threads -= threads;
        w.threads_ended("app.service", threads.into(), INTERVAL);
    }

    /// High and low for a window each.
    fn swing(i: usize) -> u32 {
        10 + 40 * ((i / 6) % 2) as u32
    }

    #[test]
    fn a_thread_that_stays_is_found_while_the_load_falls() {
        let (mut w, p) = app();
        (0..60).for_each(|_| load(&mut w, p, 60));
        for i in 0..120 {
            if i % 6 == 0 {
                w.process(p).threads += 2;
            }
            load(&mut w, p, 60 - i as u32 / 2);
        }
        let leak = w.only();
        assert_eq!((leak.state, leak.resource), (State::Confirmed, Resource::Thread), "{leak:#?}");
        assert_eq!((&*leak.rules, leak.held), (&[RULE][..], 26), "no floor rises here: {leak:#?}");
        assert_eq!((&*leak.kind, &*leak.cohort), ("thread", "app"));
        assert!((leak.growth_per_hour - 240.0).abs() < 30.0, "{}", leak.growth_per_hour);
        let said = |e: &String| e.contains("come and go by Little's law");
        assert!(leak.evidence.iter().any(said), "{:?}", leak.evidence);
        // The probes go, and with them what they knew.
        w.flows = false;
        w.looks(2);
        assert!(w.open_leaks().is_empty(), "{:#?}", w.open_leaks());
    }

    #[test]
    fn a_descriptor_that_stays_is_its_cohorts() {
        let (mut w, p) = app();
        for i in 0..240 {
            if i % 6 == 0 {
                (0..2).for_each(|_| _ = w.open(p, "/srv/app/data.db"));
            }
            let open: Vec<u32> = (0..swing(i)).map(|_| w.open(p, "/srv/app/page")).collect();
            w.look();
            for fd in open {
                w.close(p, fd);
                w.ended("app.service", FdKind::Regular, 23);
            }
            w.fds_lived("app.service", FdKind::Regular, INTERVAL * swing(i));
        }
        let found = w.ask(judge);
        assert_eq!(found, [(Strength::Confirms, 78)], "all but the newest two");
        let leak = w.only();
        assert_eq!((leak.state, &*leak.cohort), (State::Confirmed, "/srv/app/data.db"));
        assert!(leak.rules.contains(&RULE), "{:?}", leak.rules);
    }

    #[test]
    fn innocents() {
        type Act = fn(&mut World, u32);
        let table: [(&str, Act); 6] = [
            ("a load that swings", |w, p| (0..200).for_each(|i| load(w, p, swing(i)))),
            ("a load that grows", |w, p| (0..200).for_each(|i| load(w, p, 4 + i as u32))),
            ("a pool that fills at once", |w, p| {
                for i in 0..120 {
                    if i == 30 {
                        w.process(p).threads += 16;
                    }
                    load(w, p, swing(i));
                }
            }),
            ("a pool that fills with the load and stays", |w, p| {
                let mut pool = 0;
                for i in 0..200 {
                    let wanted = swing(i).min(24);
                    w.process(p).threads += wanted.saturating_sub(pool);
                    pool = pool.max(wanted);
                    load(w, p, swing(i) / 8);
                }
            }),
            ("jobs that take longer than a window", |w, p| {
                let mut running = std::collections::VecDeque::new();
                for i in 0..200 {
                    w.process(p).threads += 2;
                    running.push_back(i);
                    // Each takes 12 looks at first, and up to 40 later.
                    while running.front().is_some_and(|began| i - began > 12 + i / 6) {
                        running.pop_front();
                        w.process(p).threads -= 2;
                        w.threads_ended("app.service", 2, INTERVAL * (12 + i / 6) as u32);
                    }
                    w.look();
                }
            }),
            ("too few lives to speak of", |w, p| {
                for i in 0..60 {
                    if i % 6 == 0 {
                        w.process(p).threads += 1;
                    }
                    load(w, p, u32::from(i % 2 == 0));
                }
            }),
        ];
        for (name, act) in table {
            let (mut w, p) = app();
            act(&mut w, p);
            let by_this = w.changes.iter().find(|c| c.leak.rules.contains(&RULE));
            assert_eq!(by_this, None, "{name}");
        }
    }

    #[test]
    fn a_new_life_begins_with_nothing() {
        let (mut w, p) = app();
        for i in 0..60 {
            load(&mut w, p, swing(i));
        }
        let ended = |w: &World| {
            let unit = w.ledger.unit("app.service").unwrap();
            unit.balances.get(&Subject::Threads).map_or(0, |b| b.ended)
        };
        assert!(ended(&w) > ENOUGH);
        w.exit(p);
        w.looks(2);
        w.spawn(APP, 1, "/usr/bin/app");
        w.looks(2);
        assert_eq!(ended(&w), 0);
    }
}
