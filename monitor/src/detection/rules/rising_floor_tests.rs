//! Tests of `rising-floor`.

use std::sync::Arc;

use super::*;
use crate::attribution::unit::UnitKind;
use crate::detection::verdict::State;
use crate::ledger::testing::World;
use crate::source::model::{FdBirth, Frame, Opener, Role};

const APP: (&str, UnitKind) = ("app.service", UnitKind::Service);

fn app() -> (World, u32) {
    let mut w = World::new();
    let p = w.spawn(APP, 1, "/usr/bin/app");
    w.looks(20);
    (w, p)
}

#[test]
fn a_connection_per_operation_is_a_leak() {
    let (mut w, p) = app();
    for _ in 0..40 {
        w.open(p, "/srv/app/data.db");
        w.look();
    }
    let leak = w.only();
    assert_eq!(leak.state, State::Confirmed, "{leak:#?}");
    assert_eq!((&*leak.kind, &*leak.cohort), ("regular", "/srv/app/data.db"));
    assert!((leak.growth_per_hour - 720.0).abs() < 80.0, "{}", leak.growth_per_hour);
    let left = leak.exhausts_at.unwrap().duration_since(w.clock().wall).as_secs();
    assert!((4_000..6_000).contains(&left), "{left}");
    // It stops, and stays confirmed while what it took is held…
    w.looks(8);
    assert_eq!((w.only().state, w.only().held), (State::Confirmed, 40));
    // … until it gives back.
    w.fds(p).clear();
    w.look();
    assert!(w.open_leaks().is_empty());
}

#[test]
fn a_rise_that_stops_for_good_is_resolved() {
    let (mut w, p) = app();
    for _ in 0..40 {
        w.connect(p);
        w.look();
    }
    assert_eq!(w.only().state, State::Confirmed);
    w.looks(8 * 6);
    assert!(w.open_leaks().is_empty(), "{:#?}", w.open_leaks());
}

#[test]
fn a_slow_leak_spread_over_workers_is_seen_in_their_sum() {
    let (mut w, p) = app();
    let workers: Vec<u32> = (0..4).map(|_| w.spawn(APP, p, "/usr/bin/app --worker")).collect();
    w.looks(20);
    for i in 0..60 {
        // Each worker leaks every fourth window only.
        for _ in 0..2 {
            w.connect(workers[(i / 6) % 4]);
        }
        w.look();
    }
    assert!(w.ever_confirmed());
}

#[test]
fn innocents() {
    type Act = fn(&mut World, u32);
    let table: [(&str, Act); 9] = [
        ("a pool that fills to its cap", |w, p| {
            for i in 0..100 {
                if i < 20 {
                    w.connect(p);
                }
                w.look();
            }
        }),
        ("a burst", |w, p| {
            let fds: Vec<u32> = (0..500).map(|i| w.open(p, &format!("/srv/f{i}"))).collect();
            w.look();
            fds.into_iter().for_each(|fd| w.close(p, fd));
            w.looks(60);
        }),
        ("load that rises and falls", |w, p| {
            let mut open = std::collections::VecDeque::new();
            for i in 0..240_i32 {
                let target = 4 + (120 - (i - 120).abs()) as usize;
                // Connections live for a few looks each, whatever the load.
                for _ in 0..open.len() / 4 {
                    w.close(p, open.pop_front().unwrap());
                }
                while open.len() > target {
                    w.close(p, open.pop_front().unwrap());
                }
                while open.len() < target {
                    open.push_back(w.connect(p));
                }
                w.look();
            }
        }),
        ("long sessions that come a little faster than they go", |w, p| {
            let mut open = std::collections::VecDeque::new();
            for i in 0..300 {
                (0..3).for_each(|_| open.push_back(w.connect(p)));
                if i > 12 {
                    (0..2 + i % 2).for_each(|_| w.close(p, open.pop_front().unwrap()));
                }
                w.look();
            }
        }),
        ("more and more processes", |w, p| {
            for _ in 0..60 {
                let child = w.spawn(APP, p, "/usr/bin/app --worker");
                (0..3).for_each(|_| _ = w.connect(child));
                w.look();
            }
        }),
        ("a database that opens its files", |w, p| {
            w.process(p).max_fds = Some(65_536);
            for i in 0..1_000 {
                w.open(p, &format!("/var/lib/db/base/{i}/data"));
                if i % 25 == 0 {
                    w.look();
                }
            }
            w.looks(60);
        }),
        ("warm-up", |w, _| {
            let q = w.spawn(("other.service", UnitKind::Service), 1, "/usr/bin/other");
            for _ in 0..14 {
                w.connect(q);
                w.look();
            }
            w.looks(60);
        }),
        ("frequent restarts", |w, _| {
            for _ in 0..30 {
                let q = w.spawn(("flappy.service", UnitKind::Service), 1, "/usr/bin/flappy");
                for _ in 0..10 {
                    w.connect(q);
                    w.look();
                }
                w.exit(q);
                w.look();
            }
        }),
        ("a sawtooth", |w, p| {
            for i in 0..240 {
                w.connect(p);
                if i % 11 == 10 {
                    w.fds(p).clear();
                }
                w.look();
            }
        }),
    ];
    for (name, act) in table {
        let (mut w, p) = app();
        act(&mut w, p);
        let confirmed: Vec<_> = w.changes.iter().filter(|c| c.to == State::Confirmed).collect();
        assert!(confirmed.is_empty(), "{name}: {confirmed:#?}");
    }
}

/// A service where a number alone must take a sixteenth of 1024: 64.
fn patient() -> (World, u32) {
    let mut config = crate::ledger::testing::config();
    config.detection.min_share = 0.0625;
    let mut w = World::with(config);
    let p = w.spawn(APP, 1, "/usr/bin/app");
    w.process(p).max_fds = Some(1024);
    w.looks(20);
    (w, p)
}

#[test]
fn what_may_be_a_pool_is_suspected_until_it_takes_a_share_of_the_limit() {
    let (mut w, p) = patient();
    for _ in 0..58 {
        w.connect(p);
        w.look();
    }
    let leak = w.only();
    assert_eq!(leak.state, State::Suspected, "{leak:#?}");
    let doubt = "it may be a pool that fills: confirmed from 64 on, or after 3.2 h";
    assert!(leak.evidence.iter().any(|e| e == doubt), "{:?}", leak.evidence);
    for _ in 0..24 {
        w.connect(p);
        w.look();
    }
    assert_eq!(w.only().state, State::Confirmed);
}

/// So many connections, one at each look; whether they are used from then on.
fn connections(n: u32, used: bool) -> World {
    let (mut w, p) = patient();
    for _ in 0..n {
        let fd = w.connect(p);
        w.look();
        // What greets the peer, and hears of it.
        w.fd(p, fd).position = 7;
        if used {
            w.fds(p).iter_mut().for_each(|f| f.position += 9);
        }
    }
    w
}

#[test]
fn connections_in_use_are_a_pool_until_they_take_half_of_the_limit() {
    let idle = connections(120, false);
    assert_eq!(idle.only().state, State::Confirmed, "{:#?}", idle.changes);
    let said = "no data has moved since their first 30 s";
    assert!(idle.only().evidence.iter().any(|e| e.contains(said)), "{:?}", idle.only());
    let used = connections(120, true);
    let leak = used.only();
    assert_eq!(leak.state, State::Suspected, "{leak:#?}");
    let doubt = |e: &String| e.contains("data moved on") && e.contains("in the last");
    assert!(leak.evidence.iter().any(doubt), "{:?}", leak.evidence);
    let many = connections(620, true);
    assert_eq!(many.only().state, State::Confirmed, "{:#?}", many.only());
}

#[test]
fn what_grows_for_very_long_needs_no_share() {
    let (mut w, p) = patient();
    // One in five minutes, for five hours.
    for i in 0..300 * 12 {
        if i % 60 == 0 {
            w.connect(p);
        }
        w.look();
    }
    let leak = w.only();
    assert_eq!(leak.state, State::Confirmed, "{leak:#?}");
    let first = &leak.evidence[0];
    assert!(first.contains("open all through a window rose"), "{first}");
    assert!(first.contains("windows of 32 min"), "{first}");
    let confirmed = w.changes.iter().find(|c| c.to == State::Confirmed).unwrap();
    assert!(confirmed.leak.held < 64, "{}", confirmed.leak.held);
}

#[test]
fn less_than_one_in_a_window_is_found_in_longer_ones() {
    let (mut w, p) = app();
    for i in 0..400 {
        // Requests hide the floor, and one in 50 s stays.
        let requests: Vec<u32> = (0..30 * ((i / 12) % 2)).map(|_| w.connect(p)).collect();
        if i % 10 == 0 {
            w.connect(p);
        }
        w.look();
        requests.into_iter().for_each(|fd| w.close(p, fd));
    }
    assert_eq!(w.only().state, State::Confirmed, "{:#?}", w.changes);
}

#[test]
fn sessions_that_lead_to_a_number_within_the_limit_are_no_leak() {
    let (mut w, p) = app();
    w.process(p).max_fds = Some(1024);
    let mut open = std::collections::VecDeque::new();
    for i in 0..60 {
        (0..3).for_each(|_| open.push_back(w.connect(p)));
        // From the first window on one of them ends at each look: fewer than come.
        if i > 6 {
            w.close(p, open.pop_front().unwrap());
        }
        w.look();
    }
    assert!(!w.ever_confirmed(), "{:#?}", w.changes);
    let said = |e: &String| e.contains("in the end, of 1024 allowed");
    assert!(w.only().evidence.iter().any(said), "{:?}", w.only().evidence);
}

#[test]
fn ignored_members_are_left_out() {
    let mut config = crate::ledger::testing::config();
    config.ignore.push(crate::config::model::Ignore {
        unit: Some("app*".into()),
        path: Some("/srv/app/**".into()),
        rule: None,
    });
    let mut w = World::with(config);
    let p = w.spawn(APP, 1, "/usr/bin/app");
    w.looks(20);
    for _ in 0..40 {
        w.open(p, "/srv/app/data.db");
        w.look();
    }
    assert_eq!(w.changes, []);
}

#[test]
fn a_count_without_detail_keeps_what_was_known() {
    let (mut w, p) = app();
    for _ in 0..40 {
        w.connect(p);
        w.look();
    }
    assert!(w.ask(judge).iter().any(|f| f.0 == Strength::Confirms));
    w.process(p).fds = crate::source::model::FdTable::Count(40);
    w.look();
    assert_eq!(w.only().state, State::Confirmed);
}

/// Beside so many connections that are used.
fn beside_used(n: u32, forgotten: u32, wakes: bool) -> World {
    let (mut w, p) = patient();
    let used: Vec<u32> = (0..n).map(|_| w.connect(p)).collect();
    let mut left = std::collections::VecDeque::new();
    for i in 0..forgotten * 2 {
        if i % 2 == 0 {
            left.push_back(w.connect(p));
        }
        w.look();
        for fd in used.iter().chain(left.back()) {
            w.fd(p, *fd).position += 9;
        }
        // Or all of them are used in turn, seldom.
        if wakes && i % 40 == 39 {
            left.iter().for_each(|fd| w.fd(p, *fd).position += 9);
        }
    }
    w
}

#[test]
fn what_is_unused_is_told_from_what_is_used() {
    let w = beside_used(200, 120, false);
    let leak = w.only();
    assert_eq!(leak.state, State::Confirmed, "{leak:#?}");
    assert!((100..=120).contains(&leak.held), "those that are used are none of it: {leak:#?}");
    assert!(leak.evidence[0].contains("open all through a window without being used"));
    assert!(leak.examples.iter().all(|e| e.fd >= Some(203)), "{:?}", leak.examples);
    let quiet = beside_used(200, 0, false);
    assert!(!quiet.ever_confirmed(), "{:#?}", quiet.changes);
    let turns = beside_used(200, 120, true);
    assert!(!turns.ever_confirmed(), "{:#?}", turns.changes);
}

/// Opens one of the same kind, as this function.
fn opened_by(w: &mut World, p: u32, stack: u32) -> u32 {
    let fd = w.open(p, "/srv/app/data.db");
    w.fd(p, fd).birth = Some(FdBirth { at: w.now, tid: p, stack: Some(stack) });
    fd
}

/// A pool that is replaced hides what another function leaks of the same file.
fn two_functions(leaks: bool) -> World {
    let (mut w, p) = app();
    for (stack, function) in [(1, "pool::fill"), (2, "export::run")] {
        let process = w.process(p).id;
        let role = Role::Opener;
        let frames = vec![Frame { function: function.into(), role, ..Frame::raw(4096) }];
        w.stacks.insert(stack, vec![4096]);
        w.openers.push(Arc::new(Opener { process, stack, frames, note: None }));
    }
    let mut pool: std::collections::VecDeque<u32> =
        (0..30).map(|_| opened_by(&mut w, p, 1)).collect();
    for i in 0..200_u32 {
        pool.push_back(opened_by(&mut w, p, 1));
        let oldest = pool.pop_front().unwrap();
        w.close(p, oldest);
        if leaks && i % 3 == 0 && i > 60 {
            opened_by(&mut w, p, 2);
        }
        w.look();
    }
    w
}

#[test]
fn what_one_function_leaks_is_told_from_the_pool_of_another() {
    let w = two_functions(true);
    let leak = w.only();
    assert_eq!(leak.state, State::Confirmed, "{leak:#?}");
    assert!(leak.evidence[0].contains("that export::run opened"), "{:?}", leak.evidence);
    assert!((40..=46).contains(&leak.held), "{leak:#?}");
    assert_eq!(leak.opener[0].function, "export::run");
    let innocent = two_functions(false);
    assert!(!innocent.ever_confirmed(), "{:#?}", innocent.changes);
}

#[test]
fn what_was_not_read_again_is_not_taken_for_unused() {
    let (mut w, p) = patient();
    let other = w.spawn(APP, p, "/usr/bin/app --other");
    (0..120).for_each(|_| _ = w.connect(p));
    w.looks(4);
    w.fds(p).iter_mut().for_each(|f| f.position += 9);
    w.look();
    w.same.insert(p);
    for _ in 0..60 {
        w.connect(other);
        w.look();
    }
    let parts = |w: &World| {
        let p = w.ledger.processes().find(|q| q.id.pid == p).unwrap();
        p.slots.values().flat_map(|slot| p.parts.of(*slot)).count()
    };
    assert_eq!(parts(&w), 0);
    w.same.clear();
    w.looks(12);
    assert_eq!(parts(&w), 1, "nothing has moved since");
}
