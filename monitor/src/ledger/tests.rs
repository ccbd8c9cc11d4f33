//! What the ledger keeps over censuses.

use std::time::Duration;

use crate::attribution::unit::UnitKind;
use crate::config::model::UnitRule;
use crate::detection::verdict::Rule;
use crate::ledger::process::held_flags;
use crate::ledger::testing::{World, config};
use crate::source::model::{FdBirth, FdKind, FdTable, TaskEvent};
use crate::time::Boottime;

const APP: (&str, UnitKind) = ("app.service", UnitKind::Service);

fn world() -> (World, u32) {
    let mut w = World::new();
    let p = w.spawn(APP, 1, "/usr/bin/app");
    w.looks(2);
    (w, p)
}

fn birth(at: Boottime) -> Option<FdBirth> {
    Some(FdBirth { at, tid: 1, stack: None })
}

#[test]
fn an_entry_remembers_when_it_was_opened_and_moved() {
    let (mut w, p) = world();
    let fd = w.open(p, "/srv/a");
    w.look();
    let opened = w.now;
    w.looks(3);
    w.write(p, fd);
    w.look();
    let moved = w.now;
    w.looks(3);
    let h = &w.ledger.processes().next().unwrap().held[0];
    assert_eq!((h.opened, h.since, h.moved), (opened, opened, moved));
    assert!(h.is(held_flags::OPENED_KNOWN) && !h.is(held_flags::FIRST_LOOK));
}

#[test]
fn addresses_of_files_are_reused_by_the_kernel() {
    let (mut w, p) = world();
    let fd = w.open(p, "/srv/a");
    w.looks(3);
    // Same number and address, another inode.
    let f = w.fd(p, fd);
    f.inode += 1;
    f.path = "/srv/b".into();
    w.look();
    assert_eq!(w.ledger.processes().next().unwrap().held[0].since, w.now);
    w.looks(3);
    // Same file again, but the probe saw it open anew.
    w.fd(p, fd).birth = birth(w.now + Duration::from_secs(1));
    w.look();
    assert_eq!(w.ledger.processes().next().unwrap().held[0].since, w.now);
    w.look();
    assert!(w.ledger.processes().next().unwrap().held[0].since < w.now);
}

/// `/dev/null` is one inode, and a file's address is given out again at once.
#[test]
fn what_is_opened_again_at_an_address_is_young() {
    let (mut w, p) = world();
    w.flows = true;
    let (a, b) = (w.open(p, "/dev/null"), w.open(p, "/dev/null"));
    let opened = |w: &World| {
        let held = &w.ledger.processes().next().unwrap().held;
        held.iter().map(|h| (h.opened, h.since)).collect::<Vec<_>>()
    };
    for _ in 0..5 {
        // In the middle of the last census, after it had read this process.
        let early = w.now - Duration::from_millis(5);
        let late = w.now + Duration::from_secs(1);
        w.fd(p, a).birth = birth(early);
        w.fd(p, b).birth = birth(late);
        // Each has the address of the other now.
        let (at_a, at_b) = (w.fd(p, a).file, w.fd(p, b).file);
        (w.fd(p, a).file, w.fd(p, b).file) = (at_b, at_a);
        w.look();
        assert_eq!(opened(&w), [(early, w.now), (late, w.now)]);
        // And now its own again.
        let early = w.now - Duration::from_millis(5);
        w.fd(p, a).birth = birth(early);
        w.look();
        assert_eq!(opened(&w)[0], (early, w.now));
    }
    // What stays is as old as it was.
    let before = opened(&w);
    w.looks(3);
    assert_eq!(opened(&w), before);
    // A copy is as old as what it is a copy of, for as long as that is there.
    let copy = w.fd(p, b).file;
    let c = w.open(p, "/dev/null");
    w.fd(p, c).file = copy;
    w.born(p, c);
    w.look();
    assert_eq!((opened(&w)[2].0, opened(&w)[2].1), (before[1].0, w.now));
}

#[test]
fn a_birth_that_comes_after_the_census_is_of_what_was_being_opened() {
    let (mut w, p) = world();
    w.flows = true;
    w.looks(2);
    let fd = w.open(p, "/srv/a");
    w.look();
    let since = w.now;
    let born = w.now - Duration::from_millis(5);
    w.fd(p, fd).birth = birth(born);
    w.looks(2);
    let h = &w.ledger.processes().next().unwrap().held[0];
    assert_eq!((h.birth, h.opened, h.since), (birth(born), born, since));
}

#[test]
fn what_fork_copies_keeps_its_age() {
    let (mut w, p) = world();
    let fd = w.open(p, "/srv/a");
    w.look();
    let opened = w.now;
    w.looks(5);
    let child = w.spawn(APP, p, "/usr/bin/child");
    w.share(p, fd, child);
    w.look();
    let held = |w: &World, pid: u32| {
        let p = w.ledger.processes().find(|q| q.id.pid == pid).unwrap();
        let h = &p.held[0];
        (h.opened, h.is(held_flags::SHARED), h.partner_gone)
    };
    assert_eq!(held(&w, child), (opened, true, Boottime(0)));
    assert_eq!(held(&mut w, p), (opened, true, Boottime(0)));
    // Closed by a child that lives on: no writer has ended.
    let copy = w.fds(child)[0].fd;
    w.close(child, copy);
    w.look();
    assert_eq!(held(&mut w, p), (opened, false, Boottime(0)));
    w.share(p, fd, child);
    w.look();
    w.exit(child);
    w.look();
    assert_eq!(held(&mut w, p), (opened, false, w.now));
}

#[test]
fn corrections_are_counted_by_cause_and_once() {
    let (mut w, p) = world();
    w.flows = true;
    w.task_probes = true;
    w.looks(2);
    // A birth from long before a census that did not have the descriptor.
    let fd = w.open(p, "/srv/a");
    w.fd(p, fd).birth = birth(Boottime(5));
    // One that nobody saw.
    w.open(p, "/srv/b");
    // And one as it should be.
    let good = w.open(p, "/srv/c");
    w.fd(p, good).birth = birth(w.now + Duration::from_secs(1));
    w.looks(3);
    let h = &w.ledger.processes().next().unwrap().held;
    assert_eq!((h[0].birth, h[1].birth), (None, None));
    assert!(h[2].birth.is_some());
    // Its number now has another file, but the birth of the old one.
    w.fd(p, good).inode += 1;
    w.looks(3);
    // A child that came and went without an event.
    let child = w.spawn(APP, p, "/usr/bin/child");
    w.looks(3);
    w.exit(child);
    w.looks(3);
    let corrections: Vec<_> =
        w.ledger.corrections().iter().map(|(c, n)| (c.as_str(), *n)).collect();
    assert_eq!(
        corrections,
        [
            ("stale_birth", 1),
            ("unseen_close", 1),
            ("unseen_exit", 1),
            ("unseen_fork", 1),
            ("unseen_open", 1)
        ]
    );
}

#[test]
fn without_probes_nothing_is_to_be_corrected() {
    let (mut w, p) = world();
    w.open(p, "/srv/a");
    w.looks(2);
    w.exit(p);
    w.looks(3);
    assert!(w.ledger.corrections().values().all(|n| *n == 0));
}

#[test]
fn lives_are_counted_over_restarts() {
    let (mut w, mut p) = world();
    for life in 1..5 {
        assert_eq!(w.ledger.unit(APP.0).unwrap().invocation, life);
        w.exit(p);
        if life % 2 == 0 {
            w.looks(2);
            assert!(w.ledger.unit(APP.0).unwrap().over.is_some());
            assert_eq!(w.ledger.views()[0].processes, 0);
        }
        p = w.spawn(APP, 1, "/usr/bin/app");
        w.looks(2);
    }
}

#[test]
fn a_daemon_that_forks_twice_is_one_life() {
    let mut w = World::new();
    let first = w.spawn(APP, 1, "/usr/bin/app");
    w.look();
    let daemon = w.spawn(APP, first, "/usr/bin/app");
    let event = TaskEvent::Fork {
        at: w.now,
        parent: w.process(first).id,
        child: w.process(daemon).id,
        comm: "app".into(),
    };
    w.ledger.task(&event, None);
    w.exit(first);
    w.looks(20);
    let unit = w.ledger.unit(APP.0).unwrap();
    assert_eq!(unit.invocation, 1);
    assert_eq!(unit.main.map(|m| m.pid), Some(daemon));
    assert_eq!(w.changes, []);
}

#[test]
fn denied_is_not_zero() {
    let (mut w, p) = world();
    w.process(p).fds = FdTable::Denied;
    w.look();
    let view = &w.ledger.views()[0];
    assert_eq!((&view.open_fds, view.open_fds_total, view.deleted_open_bytes), (&None, None, None));
    assert_eq!((view.denied_processes, view.processes), (1, 1));
}

#[test]
fn a_sum_that_lacks_a_process_is_not_shown_as_the_whole() {
    let (mut w, p) = world();
    w.open(p, "/srv/a");
    let (counted, denied) = (w.spawn(APP, 1, "/usr/bin/app b"), w.spawn(APP, 1, "/usr/bin/app c"));
    w.look();
    assert!(w.ledger.views()[0].open_fds.is_some(), "an empty table is a whole one");

    w.process(counted).fds = FdTable::Count(7);
    w.look();
    let view = &w.ledger.views()[0];
    let total = w.fds(p).len() as u64 + 7;
    assert_eq!((&view.open_fds, view.deleted_open_bytes), (&None, None), "kinds of 7 are unknown");
    assert_eq!((view.open_fds_total, view.denied_processes), (Some(total), 0));

    w.process(denied).fds = FdTable::Denied;
    w.look();
    let view = &w.ledger.views()[0];
    assert_eq!((view.open_fds_total, view.denied_processes), (Some(total), 1), "{view:?}");
    let worst = view.worst.as_ref().map(|w| w.pid);
    assert_eq!((&view.open_fds, worst), (&None, Some(counted)));
}

/// A look in part says of most processes only that their numbers are the same.
#[test]
fn what_is_the_same_stands_and_is_not_taken_for_read() {
    let (mut w, p) = world();
    let other = w.spawn(APP, 1, "/usr/bin/app b");
    let (log, deleted) = (w.open(p, "/var/log/app.log"), w.open(p, "/tmp/x"));
    w.share(p, log, other);
    w.fd(p, deleted).nlink = 0;
    w.stacks.insert(7, vec![0x1000]);
    w.fd(p, log).birth = Some(FdBirth { at: w.now, stack: Some(7), tid: 1 });
    w.look();
    let shown = |w: &World| {
        let view = w.ledger.views().remove(0);
        (view.open_fds, view.open_fds_total, view.deleted_open_bytes, view.denied_processes)
    };
    let whole = shown(&w);
    let held = |w: &mut World, of: u32| {
        let id = w.process(of).id;
        let p = w.ledger.process(&id).unwrap();
        let h = p.held.iter().find(|h| h.fd == log).unwrap();
        (p.seen_at().since(h.moved), h.is(held_flags::SHARED), w.ledger.stack(h).is_some())
    };
    assert_eq!(held(&mut w, p), (Duration::ZERO, true, true));

    // It is written to meanwhile, which such looks do not see: nor do they say that it
    // has not been.
    w.same.extend([p, other]);
    w.stacks.clear();
    w.fd(p, log).position = 100;
    w.looks(20);
    assert_eq!(shown(&w), whole);
    assert_eq!(held(&mut w, p), (Duration::ZERO, true, true));

    // One that moves is read, and knows with whom it shares.
    w.same.remove(&other);
    w.open(other, "/srv/new");
    w.look();
    assert_eq!(shown(&w).1, whole.1.map(|n| n + 1));
    let id = w.process(other).id;
    let moved = w.ledger.process(&id).unwrap();
    assert!(moved.held[0].is(held_flags::SHARED), "{:?}", moved.held[0]);

    w.same.clear();
    w.look();
    assert_eq!(held(&mut w, p), (Duration::ZERO, true, false), "moved when it was read, it says");
}

#[test]
fn what_is_unknown_of_one_unit_is_unknown_of_the_others_sum() {
    let mut config = config();
    config.watch.max_units = 2;
    let mut w = World::with(config);
    for i in 0..3_usize {
        let p = w.spawn((&format!("u{i}"), UnitKind::Service), 1, "/usr/bin/app");
        (0..i).for_each(|k| _ = w.open(p, &format!("/srv/{k}")));
        if i == 1 {
            w.process(p).fds = FdTable::Count(1);
        }
    }
    w.look();
    let other = &w.ledger.views()[0];
    assert_eq!((&*other.unit.name, other.processes, other.open_fds_total), ("other", 2, Some(1)));
    assert_eq!((&other.open_fds, other.deleted_open_bytes), (&None, None));
}

#[test]
fn views_sum_the_smallest_units() {
    let mut config = config();
    config.watch.max_units = 3;
    let mut w = World::with(config);
    for i in 0..6_usize {
        let p = w.spawn((&format!("u{i}"), UnitKind::Service), 1, "/usr/bin/app");
        (0..i).for_each(|k| _ = w.open(p, &format!("/srv/{k}")));
    }
    w.look();
    let views = w.ledger.views();
    let names: Vec<_> = views.iter().map(|v| (&*v.unit.name, v.open_fds_total)).collect();
    assert_eq!(names, [("other", Some(6)), ("u4", Some(4)), ("u5", Some(5))]);
    assert_eq!(views[0].processes, 4);
}

#[test]
fn cohorts_stay_bounded() {
    let (mut w, p) = world();
    for i in 0..40_u32 {
        // Letters, so that no template takes them together.
        let name = |n: u32| char::from(b'a' + (n % 26) as u8);
        w.open(p, &format!("/srv/many/{}{}", name(i / 26), name(i)));
    }
    w.open(p, "/srv/one/file");
    w.look();
    let cohorts: Vec<_> =
        w.ledger.processes().next().unwrap().slots.keys().map(|(_, t)| t.to_string()).collect();
    assert_eq!(cohorts, ["/srv/many/{*}", "/srv/one/file"]);
    assert_eq!(w.ledger.collapses(), 1);
    let letter = |n: u32| char::from(b'a' + (n % 26) as u8);
    for i in 0..300_u32 {
        w.open(p, &format!("/srv/{}{}/x", letter(i / 26), letter(i)));
    }
    w.look();
    let p = w.ledger.processes().next().unwrap();
    assert!(p.slots.len() <= 256, "{}", p.slots.len());
    let counted: u32 = p.slots.values().map(|s| p.cohorts[*s as usize].track.count).sum();
    assert_eq!(counted as usize, p.held.len());
}

#[test]
fn a_reload_takes_new_log_patterns_to_open_files() {
    let (mut w, p) = world();
    w.open(p, "/srv/journal.txt");
    w.look();
    let kind = |w: &World| w.ledger.processes().next().unwrap().held[0].kind;
    assert_eq!(kind(&w), FdKind::Regular);
    w.config.units.push(UnitRule {
        name: APP.0.into(),
        logs: vec!["/srv/*.txt".into()],
        ..UnitRule::default()
    });
    w.ledger.reconfigure(&w.config.clone()).unwrap();
    w.look();
    assert_eq!(kind(&w), FdKind::Log);
    w.config.units[0].logs = vec!["[".into()];
    assert!(w.ledger.reconfigure(&w.config.clone()).is_err());
}

#[test]
fn a_hundred_thousand_descriptors_are_counted_and_accuse_nobody() {
    let (mut w, _) = world();
    for i in 0..100 {
        let p = w.spawn((&format!("u{i}.service"), UnitKind::Service), 1, "/usr/bin/app");
        let fd = w.open(p, "/srv/data/file");
        let one = w.fd(p, fd).clone();
        *w.fds(p) = (0..1_000_u32)
            .map(|n| {
                let path = format!("/srv/data/{}/file-{n}", n % 20);
                let mut f = one.clone();
                f.fd = n;
                f.file = u64::from(p) << 32 | u64::from(n);
                f.inode = f.file;
                f.path = path.as_str().into();
                f
            })
            .collect();
    }
    for _ in 0..3 {
        let (obs, units) = w.observe();
        w.ledger.census(obs, &units);
        let at = w.clock();
        w.docket.judge(&w.ledger, &w.config, at);
    }
    let views = w.ledger.views();
    let total: u64 = views.iter().filter_map(|v| v.open_fds_total).sum();
    assert_eq!((views.len(), total), (101, 100_000));
    // A thousand of 1,024 is no leak, but close to the limit.
    assert!(w.docket.leaks().iter().all(|l| l.rules == [Rule::Headroom]));
}
