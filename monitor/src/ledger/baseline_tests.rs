use super::*;
use crate::attribution::unit::UnitKind;
use crate::detection::verdict::State;
use crate::ledger::testing::World;

const APP: (&str, UnitKind) = ("app.service", UnitKind::Service);
/// Four of the longest windows, of 16 times 30 s each, and one to begin with.
const REST: usize = 5 * 16 * 6 + 20;

fn build(n: i64) -> Option<ExeFile> {
    Some(ExeFile { size: 1_000_000, modified: 1_700_000_000 + n })
}

/// A life with so many connections, which rests and ends.
fn life(w: &mut World, connections: usize, build: Option<ExeFile>) {
    let p = begin(w, build);
    (0..connections).for_each(|_| _ = w.connect(p));
    w.looks(REST);
    w.exit(p);
    w.looks(2);
}

fn begin(w: &mut World, build: Option<ExeFile>) -> u32 {
    let p = w.spawn(APP, 1, "/usr/bin/app");
    w.process(p).exe_file = build;
    w.process(p).max_fds = Some(1024);
    p
}

fn usual(w: &World) -> Option<(u32, usize, bool)> {
    let usual = w.ledger.usual("app.service", "socket", "tcp")?;
    Some((usual.at, usual.lives, usual.other.is_some()))
}

/// Two more in every window, so many.
fn grow(w: &mut World, p: u32, connections: usize) {
    for _ in 0..connections {
        w.connect(p);
        w.looks(3);
    }
}

#[test]
fn a_pool_that_fills_as_in_earlier_lives_is_no_leak() {
    let mut w = World::new();
    life(&mut w, 20, None);
    let p = begin(&mut w, None);
    w.looks(20);
    assert_eq!(usual(&w), None, "one life is none to compare with");
    w.exit(p);
    w.looks(2);
    life(&mut w, 21, None);
    let p = begin(&mut w, None);
    w.looks(20);
    assert_eq!(usual(&w), Some((21, 2, false)));
    grow(&mut w, p, 24);
    assert!(!w.ever_confirmed(), "{:#?}", w.changes);
    let said = "2 earlier lives came to rest at 21: up to 24 it is as it was";
    assert!(w.only().evidence.iter().any(|e| e == said), "{:?}", w.only().evidence);
    // Past it, it is not.
    grow(&mut w, p, 3);
    let leak = w.only();
    assert_eq!(leak.state, State::Confirmed, "{leak:#?}");
    let said = "2 earlier lives came to rest at 21";
    assert!(leak.evidence.iter().any(|e| e == said), "{:?}", leak.evidence);
}

#[test]
fn a_leak_that_restarts_cut_off_anywhere_is_not_usual() {
    let mut w = World::new();
    [20, 40, 25].into_iter().for_each(|n| life(&mut w, n, None));
    let p = begin(&mut w, None);
    w.looks(20);
    assert_eq!(usual(&w), None);
    grow(&mut w, p, 14);
    assert_eq!(w.only().state, State::Confirmed);
}

#[test]
fn what_leaked_teaches_nothing() {
    let mut w = World::new();
    for _ in 0..2 {
        let p = begin(&mut w, None);
        w.looks(20);
        grow(&mut w, p, 12);
        assert_eq!(w.only().state, State::Confirmed);
        // It pauses for the night.
        w.looks(REST);
        w.exit(p);
        w.looks(2);
    }
    assert_eq!(w.ledger.take_learned(), []);
}

#[test]
fn what_a_life_taught_before_it_leaked_is_taken_back() {
    let mut w = World::new();
    let p = begin(&mut w, None);
    (0..10).for_each(|_| _ = w.connect(p));
    w.looks(REST);
    let learned = w.ledger.take_learned();
    assert_eq!(learned.len(), 1, "{learned:?}");
    grow(&mut w, p, 12);
    assert_eq!(w.only().state, State::Confirmed);
    assert_eq!(w.ledger.take_learned(), [(learned[0].0.clone(), None)]);
}

#[test]
fn far_above_what_is_usual_needs_no_share_of_the_limit() {
    let mut config = crate::ledger::testing::config();
    config.detection.min_share = 0.0625;
    let mut w = World::with(config.clone());
    (0..2).for_each(|_| life(&mut w, 4, build(0)));
    let p = begin(&mut w, build(0));
    w.looks(20);
    grow(&mut w, p, 12);
    assert_eq!(w.only().state, State::Suspected, "{:#?}", w.only());
    // 13 are twice as many and five.
    grow(&mut w, p, 3);
    assert_eq!(w.only().state, State::Confirmed, "{:#?}", w.only());

    // Of a new version nobody knows how large its pool is.
    let mut w = World::with(config);
    (0..2).for_each(|_| life(&mut w, 4, build(0)));
    let p = begin(&mut w, build(1));
    w.looks(20);
    assert_eq!(usual(&w), Some((4, 2, true)));
    grow(&mut w, p, 20);
    assert_eq!(w.only().state, State::Suspected);
    let said =
        "2 lives of the version before (/usr/bin/app of 2023-11-14T22:13:20Z) came to rest at 4";
    assert!(w.only().evidence.iter().any(|e| e == said), "{:?}", w.only().evidence);
}

#[test]
fn versions_are_kept_apart_and_only_the_last_two() {
    let mut w = World::new();
    for (n, connections) in [(0, 5), (1, 6), (1, 6), (2, 9)] {
        life(&mut w, connections, build(n));
    }
    w.spawn(APP, 1, "/usr/bin/app");
    w.look();
    let view = w.ledger.views().into_iter().find(|v| &*v.unit.name == "app.service").unwrap();
    let (key, baseline) = &view.baselines[0];
    assert_eq!((&*key.kind, &*key.cohort), ("socket", "tcp"));
    let eras: Vec<_> = baseline
        .eras
        .iter()
        .map(|era| {
            let modified = era.version.as_ref().unwrap().modified.as_second();
            (modified - 1_700_000_000, era.rests.iter().map(|r| r.at).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(eras, [(1, vec![6, 6]), (2, vec![9])]);
}

#[test]
fn a_life_counts_once_though_the_agent_is_restarted() {
    let mut w = World::new();
    life(&mut w, 7, None);
    let p = begin(&mut w, None);
    (0..7).for_each(|_| _ = w.connect(p));
    w.looks(REST);
    let kept = |w: &mut World| {
        let learned = w.ledger.take_learned().into_iter();
        learned.map(|(key, b)| (key, (*b.unwrap()).clone())).collect::<Vec<_>>()
    };
    let first = kept(&mut w);
    // As it is written and read.
    let first: Vec<(CohortKey, Baseline)> =
        serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
    w.ledger = Ledger::new(&w.config).unwrap();
    w.ledger.remember(first);
    w.looks(REST);
    let again = kept(&mut w);
    assert_eq!(again[0].1.eras[0].rests.iter().map(|r| r.at).collect::<Vec<_>>(), [7, 7]);
    assert_eq!(usual(&w), None, "of the other life alone");
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut baselines = Baselines::default();
    let life = Life { boot: BootId(1), began: Boottime(1) };
    let at = |n: i64| Timestamp::from_second(1_000_000_000 + n).unwrap();
    let key = |n: i64| CohortKey {
        unit: format!("u{n}").into(),
        kind: "socket".into(),
        cohort: "tcp".into(),
    };
    let more = MAX_COHORTS as i64 + 10;
    for n in 0..more {
        baselines.learn(key(n), Rest { life, at: 5 }, None, at(n));
    }
    baselines.bound(at(more));
    assert_eq!(baselines.of.len(), MAX_COHORTS);
    assert!(!baselines.of.contains_key(&key(9)) && baselines.of.contains_key(&key(10)));
    // Nine lives of one: the newest eight.
    for n in 0..9 {
        let life = Life { began: Boottime(n), ..life };
        baselines.learn(key(50), Rest { life, at: n as u32 }, None, at(more));
    }
    assert_eq!(baselines.of[&key(50)].eras[0].rests.len(), LIVES);
    baselines.bound(at(more + 91 * 86_400));
    assert!(baselines.of.is_empty());
}
