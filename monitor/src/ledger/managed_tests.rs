use std::sync::Arc;

use crate::attribution::unit::UnitKind;
use crate::config::model::{Config, UnitRule};
use crate::detection::verdict::State;
use crate::ledger::testing::{World, config};
use crate::source::model::{InvocationId, KernelStr, SystemdUnit};

const UNIT: (&str, UnitKind) = ("a.service", UnitKind::Service);

/// What systemd says of [`UNIT`] from now on.
fn says(w: &mut World, life: u128, main_pid: u32, active_state: &str) {
    let unit = SystemdUnit {
        id: UNIT.0.into(),
        invocation_id: Some(InvocationId(life)),
        main_pid: Some(main_pid),
        active_state: Some(active_state.into()),
        ..SystemdUnit::default()
    };
    w.systemd.insert(KernelStr::from("/system.slice/a.service"), Arc::new(unit));
}

fn life(w: &World) -> (u64, Option<u128>, Option<u32>) {
    let u = w.ledger.unit(UNIT.0).unwrap();
    (u.invocation, u.invocation_id.map(|id| id.0), u.main.map(|main| main.pid))
}

#[test]
fn a_restart_is_a_new_life_whether_the_bus_is_early_or_late() {
    for early in [true, false] {
        let mut w = World::new();
        let old = w.spawn(UNIT, 1, "/usr/bin/a");
        says(&mut w, 1, old, "active");
        w.looks(10);
        assert_eq!(life(&w), (1, Some(1), Some(old)));
        w.exit(old);
        if early {
            says(&mut w, 2, 0, "activating");
            w.look();
        }
        let new = w.spawn(UNIT, 1, "/usr/bin/a");
        let worker = w.spawn(UNIT, new, "/usr/bin/a worker");
        if !early {
            w.look();
            assert_eq!(life(&w).0, 1, "the word is yet to come");
        }
        says(&mut w, 2, new, "active");
        w.look();
        assert_eq!(life(&w), (2, Some(2), Some(new)), "early: {early}");
        for pid in [new, worker] {
            let id = w.process(pid).id;
            assert_eq!(w.ledger.process(&id).unwrap().invocation, 2, "early: {early}");
        }
        w.looks(20);
        assert_eq!((life(&w).0, w.changes.len()), (2, 0), "early: {early}");
    }
}

#[test]
fn what_the_old_life_left_behind_is_its_orphan() {
    let mut w = World::new();
    let old = w.spawn(UNIT, 1, "/usr/bin/a");
    let left = w.spawn(UNIT, old, "/usr/bin/helper");
    says(&mut w, 1, old, "active");
    w.looks(20);
    w.exit(old);
    let new = w.spawn(UNIT, 1, "/usr/bin/a");
    w.look();
    // The bus is late: nobody is called an orphan, least of all the new one.
    assert_eq!(w.ledger.orphans().count(), 0);
    says(&mut w, 2, new, "active");
    w.looks(10);
    let orphans: Vec<u32> = w.ledger.orphans().map(|o| o.process.id.pid).collect();
    assert_eq!(orphans, [left]);
    assert_eq!(w.only().state, State::Confirmed);
}

#[test]
fn the_main_process_is_the_one_systemd_names() {
    let mut w = World::new();
    // The launcher of a forking service is older, and goes.
    let launcher = w.spawn(UNIT, 1, "/usr/bin/launcher");
    let main = w.spawn(UNIT, launcher, "/usr/bin/a");
    says(&mut w, 1, main, "active");
    w.looks(20);
    w.exit(launcher);
    w.looks(20);
    assert_eq!((life(&w), w.changes.len()), ((1, Some(1), Some(main)), 0));
    // It hands over to another program, in the same life.
    let next = w.spawn(UNIT, main, "/usr/bin/b");
    says(&mut w, 1, next, "active");
    w.look();
    w.exit(main);
    w.looks(20);
    assert_eq!((life(&w), w.changes.len()), ((1, Some(1), Some(next)), 0));
}

#[test]
fn a_service_may_run_on_without_a_main_process() {
    for (state, want) in [("active", 0), ("failed", 1)] {
        let mut w = World::new();
        let main = w.spawn(UNIT, 1, "/usr/bin/a");
        let helper = w.spawn(UNIT, main, "/usr/bin/helper");
        says(&mut w, 1, main, "active");
        w.looks(20);
        w.exit(main);
        says(&mut w, 1, 0, state);
        w.looks(10);
        assert_eq!(w.open_leaks().len(), want, "{state}");
        assert_eq!(w.ledger.views()[0].orphans, want as u64, "{state} {helper}");
    }
}

#[test]
fn short_programs_of_one_start_are_one_life() {
    let mut w = World::new();
    for i in 0..3 {
        // ExecStartPre= one after the other; between two the unit is empty.
        let pid = w.spawn(UNIT, 1, &format!("/usr/bin/pre{i}"));
        says(&mut w, 1, 0, "activating");
        w.look();
        w.exit(pid);
        w.look();
    }
    let main = w.spawn(UNIT, 1, "/usr/bin/a");
    says(&mut w, 1, main, "active");
    w.look();
    assert_eq!(life(&w), (1, Some(1), Some(main)));
}

#[test]
fn without_the_bus_lives_are_inferred_and_none_is_counted_twice() {
    let mut w = World::new();
    let first = w.spawn(UNIT, 1, "/usr/bin/a");
    w.look();
    assert_eq!(life(&w), (1, None, Some(first)));
    says(&mut w, 1, first, "active");
    w.look();
    assert_eq!(life(&w), (1, Some(1), Some(first)));
    // It goes away and the service is restarted meanwhile.
    w.systemd.clear();
    w.look();
    assert_eq!(w.ledger.views()[0].systemd, None);
    w.exit(first);
    let second = w.spawn(UNIT, 1, "/usr/bin/a");
    w.look();
    assert_eq!(life(&w), (2, None, Some(second)));
    says(&mut w, 2, second, "active");
    w.look();
    assert_eq!(life(&w), (2, Some(2), Some(second)));
    // It goes and comes, and nothing else happens.
    w.systemd.clear();
    w.look();
    says(&mut w, 2, second, "active");
    w.look();
    assert_eq!(life(&w), (2, Some(2), Some(second)));
}

#[test]
fn a_rule_that_renames_a_service_lives_as_the_service_does() {
    let rule = UnitRule {
        name: "manager".into(),
        orphans: vec!["*runner*".into()],
        ..UnitRule::default()
    };
    let mut w = World::with(Config { units: vec![rule], ..config() });
    let unit = ("manager", UnitKind::Rule);
    let says = |w: &mut World, life, main_pid| {
        says(w, life, main_pid, "active");
        let said = w.systemd.pop_first().unwrap().1;
        w.systemd.insert(KernelStr::from("/system.slice/manager"), said);
    };
    let old = w.spawn(unit, 1, "/opt/manager");
    let workers: Vec<u32> =
        (0..5).map(|i| w.spawn(unit, old, &format!("/opt/runner {i}"))).collect();
    says(&mut w, 1, old);
    w.looks(3);
    w.exit_seen(old);
    // At once, as without systemd: the config says what must not outlive it.
    assert_eq!((w.only().state, w.only().held), (State::Confirmed, 5));
    let new = w.spawn(unit, 1, "/opt/manager");
    says(&mut w, 2, new);
    w.looks(3);
    let leak = w.only();
    let pids: Vec<u32> = w.docket.members(&leak.id).iter().map(|m| m.id.pid).collect();
    assert_eq!((pids, w.ledger.unit("manager").unwrap().invocation), (workers, 2));
}
