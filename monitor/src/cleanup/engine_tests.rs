use std::cell::RefCell;

use jiff::Timestamp;

use super::*;
use crate::attribution::unit::UnitKind;
use crate::cleanup::process_tests::Running;
use crate::detection::verdict::Example;
use crate::source::model::BootId;

const MIN: u64 = 60;

fn at(seconds: u64) -> ClockPair {
    ClockPair {
        boot: Boottime(seconds * 1_000_000_000),
        wall: Timestamp::from_second(1_700_000_000 + seconds as i64).unwrap(),
    }
}

fn rule(action: ActionKind, mode: Mode) -> Cleanup {
    Cleanup {
        rule: Some("*".into()),
        unit: None,
        action,
        signal: Some(libc::SIGHUP),
        mode,
        cooldown: Duration::from_secs(10 * MIN),
        budget: 3,
        protect: Vec::new(),
        grace: Duration::from_millis(100),
        timeout: Duration::from_secs(30),
    }
}

fn leak(id: &str, unit: &str, rule: Rule, pids: &[u32]) -> Leak {
    let process = rule == Rule::Orphan;
    Leak {
        id: id.into(),
        unit: unit.into(),
        unit_kind: UnitKind::Service,
        resource: if process { Resource::Process } else { Resource::Fd },
        kind: if process { "process".into() } else { "log".into() },
        cohort: "/var/log/a-{n}.log".into(),
        rules: vec![rule],
        state: State::Confirmed,
        held: 12,
        growth_per_hour: 6.0,
        first_seen: Timestamp::UNIX_EPOCH,
        confirmed_at: Some(Timestamp::UNIX_EPOCH),
        oldest_age_seconds: 40.0,
        limit: None,
        exhausts_at: None,
        pinned_bytes: 0,
        confidence: 0.9,
        evidence: vec!["12 write handles".into()],
        opener: Vec::new(),
        opener_note: None,
        examples: pids
            .iter()
            .map(|pid| Example {
                pid: *pid,
                start_ticks: u64::from(*pid) * 10,
                comm: "x".into(),
                fd: None,
                path: String::new(),
                opened_at: None,
            })
            .collect(),
    }
}

fn target(pid: u32) -> Target {
    let id = ProcessId { boot: BootId(1), pid, start_ticks: u64::from(pid) * 10 };
    Target { id, cgroup: "/system.slice/a.service".into(), comm: "x".into() }
}

/// What the docket would say: every process of a verdict, here its examples.
fn of(leaks: &[Leak]) -> impl Fn(&str) -> Vec<Target> + use<> {
    let leaks = leaks.to_vec();
    move |id| {
        let leak = leaks.iter().find(|l| l.id == id).expect("a verdict of the table");
        leak.examples.iter().map(|e| target(e.pid)).collect()
    }
}

fn engine(rules: &[Cleanup]) -> Engine {
    Engine::new(rules, Audit::memory()).unwrap()
}

fn report(act: &Act, outcome: Outcome, pids: &[u32]) -> Report {
    let hit = pids.iter().map(|pid| target(*pid).id).collect();
    Report { act: act.number(), outcome, detail: "done".into(), hit }
}

fn outcomes(engine: &Engine) -> Vec<Outcome> {
    engine.records().iter().map(|r| r.outcome).collect()
}

#[test]
fn dry_run_says_so_once_per_cooldown_and_does_nothing() {
    for action in KINDS {
        let mut e = engine(&[rule(action, Mode::DryRun)]);
        let leaks = [leak("a", "a.service", Rule::Orphan, &[42])];
        for second in [0, 1, 10 * MIN - 1, 10 * MIN, 10 * MIN + 1] {
            assert!(e.consider(&leaks, &of(&leaks), at(second)).is_empty());
        }
        assert_eq!(outcomes(&e), [Outcome::WouldAct; 2], "{action:?}");
        let detail = &e.records()[0].detail;
        assert!(detail.starts_with("would "), "{detail}");
        assert_eq!(e.audit().lines().count(), 2);
        let key = ("a.service".into(), action, Mode::DryRun, Outcome::WouldAct);
        assert_eq!(e.totals()[&key], 2);
    }
}

#[test]
fn only_confirmed_verdicts_and_the_first_rule_per_action() {
    let mut first = rule(ActionKind::Signal, Mode::Enforce);
    first.unit = Some("a.*".into());
    first.signal = Some(libc::SIGUSR1);
    let second = rule(ActionKind::Signal, Mode::Enforce);
    let notify = rule(ActionKind::Notify, Mode::Enforce);
    let mut e = engine(&[first, second, notify]);
    let mut leaks = vec![
        leak("a", "a.service", Rule::UnclosedLogHandle, &[42]),
        leak("b", "b.service", Rule::UnclosedLogHandle, &[43]),
    ];
    for state in [State::Suspected, State::Resolved] {
        leaks[0].state = state;
        assert!(e.consider(&leaks[..1], &of(&leaks[..1]), at(0)).is_empty());
    }
    leaks[0].state = State::Confirmed;
    let acts = e.consider(&leaks, &of(&leaks), at(0));
    let jobs: Vec<String> = acts
        .iter()
        .map(|a| match &a.job {
            Job::Notify(_) => "notify".into(),
            Job::Signal { signal, targets } => format!("{signal} {}", targets[0].id.pid),
            Job::KillOrphans { .. } => "kill".into(),
        })
        .collect();
    assert_eq!(jobs, ["notify", "10 42", "notify", "1 43"]);
}

#[test]
fn globs_choose_by_rule_and_unit() {
    for (by_rule, by_unit, applies) in [
        (Some("unclosed-*"), None, true),
        (Some("orphan"), None, false),
        (None, Some("a.*"), true),
        (None, Some("b.*"), false),
        (Some("unclosed-*"), Some("b.*"), false),
        (Some("unclosed-*"), Some("a.service"), true),
        (None, None, false),
    ] {
        let mut r = rule(ActionKind::Notify, Mode::Enforce);
        r.rule = by_rule.map(Into::into);
        r.unit = by_unit.map(Into::into);
        let leaks = [leak("a", "a.service", Rule::UnclosedLogHandle, &[42])];
        let acts = engine(&[r]).consider(&leaks, &of(&leaks), at(0));
        assert_eq!(acts.len() == 1, applies, "{by_rule:?} {by_unit:?}");
    }
    let mut bad = rule(ActionKind::Notify, Mode::Enforce);
    bad.protect = vec!["[".into()];
    assert!(Engine::new(std::slice::from_ref(&bad), Audit::memory()).is_err());
    let mut e = engine(&[rule(ActionKind::Notify, Mode::Enforce)]);
    assert!(e.reconfigure(&[bad]).is_err());
    assert_eq!(e.rules.len(), 1);
}

#[test]
fn protected_units_are_never_touched() {
    let mut r = rule(ActionKind::KillOrphans, Mode::Enforce);
    r.protect = vec!["x*".into(), "a.*".into()];
    // A rule further down that does not protect it must not get its turn.
    let mut e = engine(&[r, rule(ActionKind::KillOrphans, Mode::Enforce)]);
    let leaks = [leak("a", "a.service", Rule::Orphan, &[42])];
    for second in 0..100 {
        assert!(e.consider(&leaks, &of(&leaks), at(second)).is_empty());
    }
    assert_eq!(outcomes(&e), [Outcome::Refused]);
    assert!(e.records()[0].detail.contains("a.*"));
}

#[test]
fn cooldown_is_per_verdict_and_action() {
    let mut e = engine(&[rule(ActionKind::Signal, Mode::Enforce)]);
    let a = leak("a", "a.service", Rule::UnclosedLogHandle, &[42]);
    let b = leak("b", "a.service", Rule::UnclosedLogHandle, &[42]);
    let one = std::slice::from_ref(&a);
    let acts = e.consider(one, &of(one), at(0));
    e.finished(report(&acts[0], Outcome::Refused, &[]), at(1));
    assert!(e.consider(one, &of(one), at(10 * MIN - 1)).is_empty());
    assert_eq!(
        e.consider(&[a.clone(), b.clone()], &of(&[a.clone(), b.clone()]), at(10 * MIN - 1)).len(),
        1,
        "b"
    );
    assert_eq!(e.consider(one, &of(one), at(10 * MIN)).len(), 1);
    // Still under way: not again, however long it takes.
    let mut r = rule(ActionKind::Signal, Mode::Enforce);
    r.cooldown = Duration::ZERO;
    let mut e = engine(&[r]);
    let acts = e.consider(one, &of(one), at(0));
    assert!(e.consider(one, &of(one), at(5)).is_empty());
    e.finished(report(&acts[0], Outcome::Failed, &[]), at(6));
    assert_eq!(e.consider(one, &of(one), at(7)).len(), 1);
}

#[test]
fn the_budget_is_per_rule_and_hour_and_survives_a_reload() {
    let r = rule(ActionKind::Signal, Mode::Enforce);
    let mut e = engine(std::slice::from_ref(&r));
    let leaks: Vec<_> = (0..5)
        .map(|n| leak(&format!("l{n}"), "a.service", Rule::UnclosedLogHandle, &[42 + n]))
        .collect();
    assert_eq!(e.consider(&leaks, &of(&leaks), at(0)).len(), 3);
    assert_eq!(outcomes(&e), [Outcome::Refused; 2]);
    assert!(e.records()[0].detail.contains("budget of 3"));
    let mut other = r.clone();
    other.timeout = Duration::from_secs(31);
    e.reconfigure(&[rule(ActionKind::Notify, Mode::DryRun), other]).unwrap();
    assert!(e.consider(&leaks[3..], &of(&leaks[3..]), at(30 * MIN)).is_empty());
    // An hour later it goes on, though the refusal was said a moment ago.
    assert!(e.consider(&leaks[3..], &of(&leaks[3..]), at(60 * MIN - 1)).is_empty());
    assert_eq!(e.consider(&leaks[3..], &of(&leaks[3..]), at(60 * MIN)).len(), 2);
    let mut none = r;
    none.budget = 0;
    assert!(engine(&[none]).consider(&leaks, &of(&leaks), at(0)).is_empty());
}

#[test]
fn targets_are_every_process_of_the_verdict_once() {
    let asked = RefCell::new(Vec::new());
    let many: Vec<u32> = (42..60).collect();
    let members = |id: &str| {
        asked.borrow_mut().push(id.to_owned());
        many.iter().rev().chain([&42]).map(|pid| target(*pid)).collect()
    };
    let mut e = engine(&[rule(ActionKind::KillOrphans, Mode::Enforce)]);
    // The examples are ten at most, the targets are all.
    let leaks = [leak("a", "a.service", Rule::Orphan, &many[..10])];
    let acts = e.consider(&leaks, &members, at(0));
    let Job::KillOrphans { targets, .. } = &acts[0].job else { panic!() };
    assert_eq!(targets.iter().map(|t| t.id.pid).collect::<Vec<_>>(), many);
    assert_eq!(*asked.borrow(), ["a"]);
    assert!(e.consider(&[leak("b", "b", Rule::Orphan, &[7])], &|_| Vec::new(), at(0)).is_empty());
    assert!(e.records().is_empty(), "nobody there is nothing to record");
    for other in Rule::ALL.into_iter().filter(|r| *r != Rule::Orphan) {
        let mut l = leak("c", "c", other, &[42]);
        l.resource = Resource::Process;
        let l = [l];
        assert!(e.consider(&l, &of(&l), at(0)).is_empty(), "{other} kills nobody");
    }
    let mut r = rule(ActionKind::Signal, Mode::Enforce);
    r.signal = None;
    let mut e = engine(&[r]);
    assert!(e.consider(&leaks, &of(&leaks), at(0)).is_empty());
    assert_eq!(outcomes(&e), [Outcome::Refused]);
}

#[test]
fn a_signal_is_verified_by_what_is_held_later() {
    type Change = fn(&mut Vec<Leak>);
    let cases: [(Change, Option<Outcome>); 5] = [
        (|l| l[0].held = 11, Some(Outcome::Verified)),
        (|l| l[0].state = State::Resolved, Some(Outcome::Verified)),
        (Vec::clear, Some(Outcome::Verified)),
        (|_| {}, Some(Outcome::Ineffective)),
        (|l| l[0].held = 13, Some(Outcome::Ineffective)),
    ];
    for (change, want) in cases {
        let mut e = engine(&[rule(ActionKind::Signal, Mode::Enforce)]);
        let mut leaks = vec![leak("a", "a.service", Rule::UnclosedLogHandle, &[42])];
        let acts = e.consider(&leaks, &of(&leaks), at(0));
        e.verify(&leaks, at(0));
        e.finished(report(&acts[0], Outcome::Pending, &[42]), at(1));
        change(&mut leaks);
        e.verify(&leaks, at(1));
        assert_eq!(outcomes(&e), [Outcome::Pending], "this census is no later one");
        for second in [5, 10, 31, 36] {
            e.verify(&leaks, at(second));
        }
        assert_eq!(e.records().first().map(|r| r.outcome), want);
        assert_eq!(e.records().len(), 2);
        assert!(e.records().iter().all(|r| r.act == acts[0].number() && r.pids == [42]));
    }
}

#[test]
fn a_kill_is_verified_by_the_absence_of_the_killed() {
    let mut e = engine(&[rule(ActionKind::KillOrphans, Mode::Enforce)]);
    let leaks = [leak("a", "a.service", Rule::Orphan, &[42, 43])];
    let acts = e.consider(&leaks, &of(&leaks), at(0));
    e.finished(report(&acts[0], Outcome::Pending, &[42, 43]), at(1));
    // One look that began before the kill, long after the timeout.
    e.verify(&leaks, at(100));
    assert_eq!(outcomes(&e), [Outcome::Pending]);
    // Others have come; that is another matter.
    e.verify(&[leak("a", "a.service", Rule::Orphan, &[50])], at(105));
    assert_eq!(outcomes(&e), [Outcome::Verified, Outcome::Pending]);
}

#[test]
fn what_failed_is_not_checked_and_what_is_lost_is_said() {
    for outcome in [Outcome::Failed, Outcome::Refused, Outcome::Verified] {
        let mut e = engine(&[rule(ActionKind::Signal, Mode::Enforce)]);
        let leaks = [leak("a", "a.service", Rule::UnclosedLogHandle, &[42])];
        let acts = e.consider(&leaks, &of(&leaks), at(0));
        e.finished(report(&acts[0], outcome, &[]), at(1));
        e.finished(report(&acts[0], outcome, &[]), at(1));
        e.verify(&[], at(500));
        assert_eq!(outcomes(&e), [outcome]);
    }
    let mut e = engine(&[rule(ActionKind::Signal, Mode::Enforce)]);
    let leaks = [leak("a", "a.service", Rule::UnclosedLogHandle, &[42])];
    let acts = e.consider(&leaks, &of(&leaks), at(0));
    e.verify(&leaks, at(60));
    assert!(e.records().is_empty());
    e.verify(&leaks, at(61));
    assert_eq!(outcomes(&e), [Outcome::Failed]);
    e.finished(report(&acts[0], Outcome::Pending, &[42]), at(62));
    assert_eq!(outcomes(&e), [Outcome::Failed], "too late");
}

#[test]
fn books_are_bounded_and_newest_first() {
    let mut r = rule(ActionKind::Notify, Mode::DryRun);
    r.cooldown = Duration::from_secs(MIN);
    let mut e = engine(&[r]);
    for n in 0..12_000_u64 {
        let leaks = [leak(&format!("{n}"), &format!("u{n}"), Rule::Zombie, &[42])];
        e.consider(&leaks, &of(&leaks), at(n));
    }
    let records = e.records();
    assert_eq!((records.len(), &*records[0].leak), (RECORDS, "11999"));
    assert!(e.totals().len() <= TOTALS + 8);
    assert_eq!(e.totals().values().sum::<u64>(), 12_000);
    assert!(e.history.len() <= MIN as usize + 1);
}

#[test]
fn orphans_live_under_dry_run_and_end_under_enforce() {
    let mut workers: Vec<_> = (0..5).map(|_| Running::sleep()).collect();
    let mut stranger = Running::sleep();
    let targets: Vec<_> = workers.iter().map(Running::target).collect();
    let mut verdict = leak("a", "a.service", Rule::Orphan, &[0; 5]);
    for (example, target) in verdict.examples.iter_mut().zip(&targets) {
        (example.pid, example.start_ticks) = (target.id.pid, target.id.start_ticks);
    }
    let members = |_: &str| targets.clone();
    let leaks = [verdict];

    let mut e = engine(&[rule(ActionKind::KillOrphans, Mode::DryRun)]);
    assert!(e.consider(&leaks, &members, at(0)).is_empty());
    assert_eq!(e.records()[0].pids.len(), 5);
    assert!(workers.iter_mut().all(Running::lives));

    e.reconfigure(&[rule(ActionKind::KillOrphans, Mode::Enforce)]).unwrap();
    let mut acts = e.consider(&leaks, &members, at(1));
    e.finished(acts.remove(0).perform(), at(2));
    e.verify(&[], at(7));
    assert_eq!(outcomes(&e), [Outcome::Verified, Outcome::Pending, Outcome::WouldAct]);
    for worker in &mut workers {
        assert_eq!(worker.ended_by(), Some(libc::SIGTERM));
    }
    assert!(stranger.lives());
}
