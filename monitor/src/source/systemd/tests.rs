use super::*;
use crate::source::model::{BootId, FdTable, ProcessId};

/// A handle without its thread.
fn handle(most: usize) -> (Systemd, watch::Receiver<Wanted>) {
    let (wanted, receiver) = watch::channel(Wanted::new());
    let shared = Arc::new(Shared::new());
    let searched = Instant::now();
    (Systemd { shared, wanted, idle: None, searched, seen: BTreeMap::new(), most }, receiver)
}

fn process(cgroup: &str) -> ProcessSample {
    ProcessSample {
        id: ProcessId { boot: BootId(1), pid: 7, start_ticks: 1 },
        ppid: 1,
        comm: "a".into(),
        exe: None,
        exe_file: None,
        cmdline: "a".into(),
        uid: None,
        cgroup: cgroup.into(),
        zombie: false,
        threads: 1,
        old_threads: None,
        max_fds: None,
        fds: FdTable::Denied,
    }
}

fn names(receiver: &watch::Receiver<Wanted>) -> Vec<String> {
    receiver.borrow().keys().map(ToString::to_string).collect()
}

#[test]
fn what_has_processes_is_asked_about_and_for_a_while_after() {
    let (mut systemd, mut wanted) = handle(500);
    let start = Instant::now();
    let (a, b) = (process("/system.slice/a.service/x"), process("/jobs/b.service"));
    systemd.tell(&[a.clone(), b], start);
    assert_eq!(
        *wanted.borrow_and_update(),
        [("a.service".into(), "/system.slice/a.service".into())].into()
    );
    systemd.tell(&[a], start + LINGER / 2);
    assert!(!wanted.has_changed().unwrap(), "the same again is no news");
    systemd.tell(&[], start + LINGER);
    assert_eq!(names(&wanted), ["a.service"]);
    systemd.tell(&[], start + LINGER * 2);
    assert!(names(&wanted).is_empty());
}

#[test]
fn they_are_bounded_and_those_here_come_first() {
    let (mut systemd, wanted) = handle(2);
    let start = Instant::now();
    let all = ["a", "b", "c"].map(|n| process(&format!("/system.slice/{n}.service")));
    systemd.tell(&all, start);
    assert_eq!(names(&wanted), ["a.service", "b.service"]);
    systemd.tell(&all[1..], start + Duration::from_secs(5));
    assert_eq!(names(&wanted), ["b.service", "c.service"]);
}

#[test]
fn a_zombie_asks_for_nothing_and_another_root_is_respected() {
    let (mut systemd, wanted) = handle(500);
    let zombie = ProcessSample { zombie: true, ..process("/system.slice/z.service") };
    systemd.shared.lock().root = b"/lab".to_vec();
    systemd.tell(
        &[zombie, process("/system.slice/a.service"), process("/lab/system.slice/b.service")],
        Instant::now(),
    );
    assert_eq!(names(&wanted), ["b.service"]);
}

#[test]
fn a_bus_that_fails_leaves_nothing_behind_and_says_why() {
    let (systemd, _wanted) = handle(500);
    assert!(systemd.state().standby && !systemd.state().active);
    systemd.shared.link(Link::Up);
    systemd.shared.lock().units.insert("/a".into(), Arc::new(SystemdUnit::default()));
    assert!(systemd.state().active && systemd.units().len() == 1);
    systemd.shared.link(Link::Down("gone".into()));
    let state = systemd.state();
    assert_eq!((state.active, state.standby, &*state.reason), (false, false, "gone"));
    assert!(systemd.units().is_empty());
    systemd.shared.link(Link::Absent("none here".into()));
    assert!(systemd.state().standby);
}

#[test]
fn settling_ends_with_the_first_word_or_in_time() {
    let (systemd, _wanted) = handle(500);
    let begun = Instant::now();
    systemd.settle(Duration::from_millis(20));
    assert!(begun.elapsed() >= Duration::from_millis(20));
    systemd.shared.link(Link::Up);
    systemd.settle(Duration::from_secs(60));
    assert!(begun.elapsed() < Duration::from_secs(30));
}
