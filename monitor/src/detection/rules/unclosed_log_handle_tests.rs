//! Tests of `unclosed-log-handle`.

use super::*;
use crate::attribution::unit::UnitKind;
use crate::detection::verdict::State;
use crate::ledger::testing::World;

const DEPLOYER: (&str, UnitKind) = ("deployer", UnitKind::Rule);

/// Restarts an agent `n` times, as a deployer does; the last one lives on.
fn restarts(
    w: &mut World,
    parent: u32,
    n: usize,
    path: impl Fn(usize) -> String,
    closes: bool,
) -> u32 {
    let mut agent = 0;
    for i in 0..n {
        let fd = w.open(parent, &path(i));
        agent = w.spawn(DEPLOYER, parent, "/opt/agent --run");
        w.share(parent, fd, agent);
        if closes {
            w.close(parent, fd);
        }
        let own = w.fds(agent)[0].fd;
        for _ in 0..2 {
            w.write(agent, own);
            w.look();
        }
        if i + 1 < n {
            w.exit(agent);
        }
    }
    agent
}

#[test]
fn a_deployer_that_never_closes_is_confirmed_with_its_count() {
    for (path, exact) in [
        ((|_| "/var/log/a/agent.log".to_owned()) as fn(usize) -> String, true),
        (|i| format!("/srv/agent-{i}.jsonl"), true),
        (|_| "/var/log/a/agent.log".to_owned(), false),
    ] {
        let mut w = World::new();
        w.exact = exact;
        let parent = w.spawn(DEPLOYER, 1, "/usr/bin/python3 deployer.py");
        w.looks(3);
        let last = restarts(&mut w, parent, 20, path, false);
        let fd = w.fds(last)[0].fd;
        for _ in 0..8 {
            w.write(last, fd);
            w.look();
        }
        let leak = w.only();
        assert_eq!((leak.state, leak.held), (State::Confirmed, 19), "{:?}", leak.evidence);
        assert_eq!(leak.kind, "log");
        assert!(leak.evidence[0].contains("20 write handles on"), "{:?}", leak.evidence);
        assert!(
            leak.evidence[0].contains("one more at each of the last 20 restarts"),
            "{:?}",
            leak.evidence
        );
        let members = w.docket.members(&leak.id);
        assert_eq!(members.iter().map(|m| m.id.pid).collect::<Vec<_>>(), [parent]);
        w.exit(last);
        w.looks(8);
        assert_eq!(w.only().held, 20, "the last writer has gone too");
        // SIGHUP: all closed but a new one.
        w.fds(parent).clear();
        w.open(parent, "/var/log/a/agent.log");
        w.look();
        assert!(w.open_leaks().is_empty());
        assert_eq!(w.changes.last().unwrap().to, State::Resolved);
    }
}

#[test]
fn the_same_with_the_handle_closed_is_innocent() {
    let mut w = World::new();
    let parent = w.spawn(DEPLOYER, 1, "/usr/bin/python3 deployer.py");
    w.looks(3);
    restarts(&mut w, parent, 20, |i| format!("/srv/agent-{i}.log"), true);
    w.looks(60);
    assert_eq!(w.changes, []);
}

#[test]
fn living_writers_use_what_their_manager_holds() {
    let mut w = World::new();
    let parent = w.spawn(DEPLOYER, 1, "/usr/bin/python3 deployer.py");
    w.looks(3);
    for i in 0..20 {
        let fd = w.open(parent, &format!("/srv/agent-{i}.log"));
        let agent = w.spawn(DEPLOYER, parent, "/opt/agent --run");
        w.share(parent, fd, agent);
        w.looks(3);
    }
    w.looks(60);
    assert!(w.ask(judge).is_empty(), "{:?}", w.open_leaks());
}

#[test]
fn what_was_there_before_is_suspected_until_it_grows() {
    let mut w = World::new();
    let parent = w.spawn(DEPLOYER, 1, "/usr/bin/python3 deployer.py");
    // It was started some minutes before the agent.
    w.process(parent).id.start_ticks -= 50_000;
    for _ in 0..20 {
        w.open(parent, "/var/log/a/agent.log");
    }
    w.looks(30);
    let leak = w.only();
    assert_eq!((leak.state, leak.held), (State::Suspected, 19));
    assert!(leak.evidence[0].contains("growth has not been seen"), "{:?}", leak.evidence);
    w.open(parent, "/var/log/a/agent.log");
    w.looks(2);
    assert_eq!((w.only().state, w.only().held), (State::Confirmed, 20));
}

#[test]
fn innocents() {
    type Act = fn(&mut World, u32);
    let table: [(&str, Act); 6] = [
        ("seldom used handles of workers, replaced in turn, and more of them by day", |w, p| {
            let open = |w: &mut World, n| -> Vec<u32> {
                (0..n).map(|_| w.open(p, "/srv/logs/app.log")).collect()
            };
            let mut handles = std::collections::VecDeque::from(open(w, 12));
            let mut by_day = Vec::new();
            for i in 0..40 {
                w.looks(30);
                w.close(p, handles.pop_front().unwrap());
                handles.extend(open(w, 1));
                match i % 10 {
                    2 => by_day = open(w, 8),
                    8 => by_day.drain(..).for_each(|fd| w.close(p, fd)),
                    _ => {}
                }
            }
        }),
        ("a handle per thread, opened at once", |w, p| {
            (0..8).for_each(|_| _ = w.open(p, "/srv/logs/app.log"));
            w.looks(100);
        }),
        ("a log per site, opened at once", |w, p| {
            (0..200).for_each(|i| _ = w.open(p, &format!("/var/log/nginx/site-{i}.log")));
            w.looks(100);
        }),
        ("rotation done right", |w, p| {
            let mut fd = w.open(p, "/var/log/a.log");
            for i in 0..20 {
                w.rename("/var/log/a.log", &format!("/var/log/a.log.{}", 20 - i));
                w.close(p, fd);
                fd = w.open(p, "/var/log/a.log");
                w.looks(8);
            }
        }),
        ("a handle for each session, closed with it", |w, p| {
            let mut open = std::collections::VecDeque::new();
            for i in 0..80 {
                open.push_back(w.open(p, "/srv/logs/app.log"));
                if i >= 4 && (i % 4 != 0 || open.len() > 12) {
                    open.pop_front().into_iter().for_each(|fd| w.close(p, fd));
                }
                w.looks(2);
            }
        }),
        ("segments of a database", |w, p| {
            for i in 0..40 {
                w.open(p, &format!("/data/kafka/logs/topic-0/{i:020}.log"));
                w.looks(2);
            }
            w.looks(8);
        }),
    ];
    for (name, act) in table {
        let mut w = World::new();
        let p = w.spawn(("app.service", UnitKind::Service), 1, "/usr/bin/app");
        w.looks(3);
        act(&mut w, p);
        assert!(w.ask(judge).iter().all(|f| f.0 != Strength::Confirms), "{name}");
        let confirmed = w
            .changes
            .iter()
            .any(|c| c.to == State::Confirmed && c.leak.rules.contains(&Rule::UnclosedLogHandle));
        assert!(!confirmed, "{name}");
    }
}

/// So many handles on one log, and as many on logs of their own.
fn opened_one_by_one(late: usize) -> World {
    let mut w = World::new();
    w.looks(2);
    let p = w.spawn(DEPLOYER, 1, "/usr/bin/uwsgi");
    w.looks(late);
    for i in 0..6 {
        w.open(p, "/srv/logs/access.log");
        w.open(p, &format!("/srv/logs/worker-{i}.log"));
        w.look();
    }
    w.looks(700);
    w
}

#[test]
fn what_a_start_opens_and_nothing_after_it_is_on_purpose() {
    // It is still warming up.
    let start = opened_one_by_one(0);
    assert!(!start.ever_confirmed(), "{:#?}", start.changes);
    let later = opened_one_by_one(20);
    let confirmed = later.changes.iter().filter(|c| c.to == State::Confirmed);
    let cohorts: BTreeSet<_> = confirmed.map(|c| &*c.leak.cohort).collect();
    assert_eq!(
        cohorts.into_iter().collect::<Vec<_>>(),
        ["/srv/logs/access.log", "/srv/logs/worker-{n}.log"]
    );
}

#[test]
fn what_a_reload_opens_beside_those_of_the_start_is_on_purpose() {
    let reloads = |n: usize| {
        let mut w = World::new();
        // The agent starts with it, or before.
        w.looks(n % 2);
        let p = w.spawn(DEPLOYER, 1, "/usr/bin/httpd");
        for reload in 0..=n {
            // The start comes at several looks.
            for _ in 0..6 {
                w.open(p, "/srv/logs/access.log");
                w.looks(usize::from(reload == 0));
            }
            w.looks(250);
        }
        w.ever_confirmed()
    };
    assert_eq!([0, 1, 2, 3].map(reloads), [false, false, false, true]);
}

#[test]
fn logs_of_their_own_are_given_longer_than_handles_on_one() {
    let open = |own: bool, looks: usize| {
        let mut w = World::new();
        let p = w.spawn(DEPLOYER, 1, "/usr/bin/scheduler");
        w.looks(20);
        for i in 0..8 {
            let job = if own { i } else { 0 };
            w.open(p, &format!("/srv/logs/job-{job}.log"));
            w.look();
        }
        w.looks(looks);
        w.ever_confirmed()
    };
    // Four hours are 288 looks, and eight 576.
    assert_eq!([open(false, 270), open(false, 310)], [false, true]);
    assert_eq!([open(true, 310), open(true, 550), open(true, 590)], [false, false, true]);
}
