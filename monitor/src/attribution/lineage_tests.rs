use super::*;
use crate::source::model::{BootId, FdTable};
use crate::time::Boottime;

fn id(pid: u32, start_ticks: u64) -> ProcessId {
    ProcessId { boot: BootId(1), pid, start_ticks }
}

/// A process that started at tick `pid`.
fn process(pid: u32, ppid: u32, cmdline: &str, cgroup: &str) -> ProcessSample {
    let exe = cmdline.split(' ').next().unwrap();
    ProcessSample {
        id: id(pid, u64::from(pid)),
        ppid,
        comm: exe.rsplit('/').next().unwrap().into(),
        exe: Some(exe.into()),
        exe_file: None,
        cmdline: cmdline.into(),
        uid: Some(0),
        cgroup: cgroup.into(),
        zombie: false,
        threads: 1,
        old_threads: None,
        max_fds: Some(1024),
        fds: FdTable::Denied,
    }
}

fn zombie(mut p: ProcessSample) -> ProcessSample {
    p.exe = None;
    p.cmdline = "".into();
    p.zombie = true;
    p.threads = 0;
    p
}

fn rule(name: &str, cmdline: &str) -> UnitRule {
    UnitRule { name: name.into(), cmdline: Some(cmdline.into()), ..UnitRule::default() }
}

fn names(attribution: &mut Attribution, processes: &[ProcessSample]) -> Vec<String> {
    attribution.observe(processes).iter().map(|u| u.name.to_string()).collect()
}

fn deployer() -> Attribution {
    Attribution::new(&[rule("deployer", "*runner.py*"), rule("late", "*runner*")]).unwrap()
}

const RUNNER: &str = "/usr/bin/python3 /opt/runner.py";

#[test]
fn the_order_is_rule_then_cgroup_then_executable() {
    let mut a = deployer();
    let processes = [
        process(1, 0, "/usr/lib/systemd/systemd", "/init.scope"),
        process(10, 1, RUNNER, "/system.slice/x.service"),
        process(11, 1, "/opt/runner2", "/"),
        process(12, 1, "/usr/sbin/nginx -g", "/system.slice/nginx.service/workers"),
        process(13, 1, "/usr/bin/redis-server *:1", "/"),
        process(14, 1, "/bin/x", "/jobs/7"),
    ];
    assert_eq!(
        names(&mut a, &processes),
        ["init.scope", "deployer", "late", "nginx.service", "exe:redis-server", "/jobs/7"]
    );
    let nginx = a.unit_of(&processes[3].id).unwrap();
    assert_eq!((nginx.kind, &*nginx.cgroup), (UnitKind::Service, "/system.slice/nginx.service"));
    let exe = a.unit_of(&processes[4].id).unwrap();
    assert_eq!((exe.kind, &*exe.cgroup), (UnitKind::Exe, ""));
}

#[test]
fn every_matcher_must_hold_and_what_is_hidden_does_not() {
    let base = process(10, 1, RUNNER, "/system.slice/d.service");
    let all = UnitRule {
        name: "all".into(),
        cgroup: Some("/system.slice/*.service".into()),
        exe: Some("/usr/bin/python3*".into()),
        cmdline: Some("*runner.py*".into()),
        user: Some("root".into()),
        ..UnitRule::default()
    };
    let change = |f: fn(&mut ProcessSample)| {
        let mut p = base.clone();
        f(&mut p);
        p
    };
    for (what, p, holds) in [
        ("all hold", base.clone(), true),
        ("cgroup", change(|p| p.cgroup = "/system.slice/d.service/sub".into()), false),
        ("exe", change(|p| p.exe = Some("/usr/bin/perl".into())), false),
        ("exe unreadable", change(|p| p.exe = None), false),
        ("cmdline", change(|p| p.cmdline = "/usr/bin/python3".into()), false),
        ("user", change(|p| p.uid = Some(4_000_000_123)), false),
        ("user unreadable", change(|p| p.uid = None), false),
    ] {
        let mut a = Attribution::new(std::slice::from_ref(&all)).unwrap();
        assert_eq!(names(&mut a, &[p])[0] == "all", holds, "{what}");
    }
    for (user, holds) in [("0", true), ("1", false), ("ro*", true), ("daemon", false)] {
        let by_user = UnitRule { name: "u".into(), user: Some(user.into()), ..UnitRule::default() };
        let mut a = Attribution::new(&[by_user]).unwrap();
        assert_eq!(names(&mut a, std::slice::from_ref(&base))[0] == "u", holds, "{user}");
    }
    let mut none =
        Attribution::new(&[UnitRule { name: "n".into(), ..UnitRule::default() }]).unwrap();
    assert_eq!(names(&mut none, &[base]), ["d.service"]);
}

#[test]
fn children_follow_their_parents_rule_but_for_a_service_of_their_own() {
    let mut a = deployer();
    let processes = [
        // Pids wrap: children may come first.
        process(15, 14, "/bin/grandchild", "/"),
        process(14, 10, "/bin/child", "/"),
        process(10, 1, RUNNER, "/"),
        process(16, 10, "/bin/moved", "/system.slice/other.service"),
        process(17, 16, "/bin/below", "/system.slice/other.service"),
        process(18, 10, "/bin/sorted", "/agents/18"),
        process(19, 10, "/bin/boxed", &format!("/docker/{}", "ab".repeat(32))),
    ];
    assert_eq!(
        names(&mut a, &processes),
        [
            "deployer",
            "deployer",
            "deployer",
            "other.service",
            "other.service",
            "deployer",
            "docker:abababababab"
        ]
    );
}

#[test]
fn a_service_of_the_parent_is_no_service_of_ones_own() {
    let mut a = deployer();
    let processes = [
        process(10, 1, RUNNER, "/system.slice/d.service"),
        process(11, 10, "/bin/a", "/system.slice/d.service"),
        process(12, 10, "/bin/a", "/system.slice/d.service/agents"),
        process(13, 10, "/bin/a", "/user.slice/user-0.slice/session-1.scope"),
    ];
    assert_eq!(names(&mut a, &processes), ["deployer", "deployer", "deployer", "session-1.scope"]);
}

#[test]
fn orphans_keep_their_unit_and_reused_pids_do_not_get_it() {
    let mut a = deployer();
    let init = process(1, 0, "/sbin/init", "/init.scope");
    let child = process(11, 10, "/bin/agent", "/");
    names(&mut a, &[init.clone(), process(10, 1, RUNNER, "/"), child.clone()]);
    let mut orphan = child.clone();
    orphan.ppid = 1;
    for _ in 0..5 {
        assert_eq!(names(&mut a, &[init.clone(), orphan.clone()])[1], "deployer");
    }
    // Its own children are the unit's too.
    let late = process(12, 11, "/bin/late", "/");
    assert_eq!(names(&mut a, &[init.clone(), orphan.clone(), late])[2], "deployer");
    // Moved to a service of its own, it leaves for good.
    let mut moved = orphan.clone();
    moved.cgroup = "/system.slice/agent.service".into();
    assert_eq!(names(&mut a, &[init.clone(), moved])[1], "agent.service");
    assert_eq!(names(&mut a, &[init.clone(), orphan])[1], "exe:agent");
    let mut other = process(11, 1, "/bin/other", "/");
    other.id.start_ticks = 999;
    assert_eq!(names(&mut a, &[init, other])[1], "exe:other");
}

#[test]
fn who_adopts_passes_nothing_on() {
    let mut a = deployer();
    let stranger = process(20, 15, "/bin/stranger", "/");
    let subreaper = process(10, 1, RUNNER, "/");
    names(&mut a, &[subreaper.clone(), process(15, 1, "/bin/shell", "/"), stranger.clone()]);
    let mut adopted = stranger;
    adopted.ppid = 10;
    assert_eq!(names(&mut a, &[subreaper.clone(), adopted]), ["deployer", "exe:stranger"]);
    // A pid that is younger than its child is not the parent.
    let mut child = process(30, 40, "/bin/child", "/");
    child.id.start_ticks = 5;
    assert_eq!(names(&mut a, &[process(40, 1, RUNNER, "/"), child])[1], "exe:child");
}

#[test]
fn a_parent_that_becomes_a_member_takes_its_children_along() {
    let mut a = deployer();
    let child = process(11, 10, "/bin/child", "/");
    let shell = process(10, 1, "/bin/sh start.sh", "/");
    assert_eq!(names(&mut a, &[shell, child.clone()]), ["exe:sh", "exe:child"]);
    assert_eq!(names(&mut a, &[process(10, 1, RUNNER, "/"), child]), ["deployer", "deployer"]);
}

#[test]
fn zombies_keep_what_is_last_known() {
    let mut a = deployer();
    let service = process(20, 1, "/usr/sbin/x", "/system.slice/x.service");
    let runner = process(10, 1, RUNNER, "/");
    names(&mut a, &[runner.clone(), service.clone()]);
    let mut gone = zombie(service);
    gone.cgroup = "/".into();
    let unknown = zombie(process(21, 10, "/bin/quick", "/"));
    let stray = zombie(process(22, 1, "/bin/stray", "/"));
    assert_eq!(
        names(&mut a, &[zombie(runner), gone, unknown, stray]),
        ["deployer", "x.service", "deployer", "exe:stray"]
    );
}

#[test]
fn task_events_carry_the_line_of_descent() {
    let mut a = deployer();
    names(&mut a, &[process(10, 1, RUNNER, "/")]);
    let at = Boottime(0);
    let comm = KernelStr::from("x");
    let fork = |parent, child| TaskEvent::Fork { at, parent, child, comm: comm.clone() };
    let (runner, middle, worker) = (id(10, 10), id(11, 11), id(12, 12));
    let exit = TaskEvent::Exit { at, id: middle, status: 0 };
    assert_eq!(&*a.task(&fork(runner, middle)).unwrap().name, "deployer");
    assert_eq!(&*a.task(&fork(middle, worker)).unwrap().name, "deployer");
    assert_eq!(&*a.task(&exit).unwrap().name, "deployer");
    assert!(a.task(&fork(id(77, 77), id(78, 78))).is_none());
    assert!(a.task(&TaskEvent::Exec { at, id: id(78, 78), comm: comm.clone() }).is_none());
    // Both its ancestors died before any census saw it.
    assert_eq!(names(&mut a, &[process(12, 1, "/bin/worker", "/")]), ["deployer"]);
    assert_eq!(&*a.task(&exit).unwrap().name, "deployer", "gone for one census");
    names(&mut a, &[process(12, 1, "/bin/worker", "/")]);
    assert!(a.task(&exit).is_none(), "gone for two");
}

#[test]
fn memory_is_bounded() {
    let mut a = deployer();
    let runner = process(10, 1, RUNNER, "/");
    names(&mut a, std::slice::from_ref(&runner));
    for n in 0..100_000 {
        let event = TaskEvent::Fork {
            at: Boottime(0),
            parent: runner.id,
            child: id(100_000 + n, 5_000),
            comm: "x".into(),
        };
        assert!(a.task(&event).is_some());
    }
    assert!(a.known.len() <= MAX_UNSEEN + 1);
    for n in 0..100 {
        let p = process(1000 + n, 1, &format!("/bin/p{n}"), &format!("/jobs/{n}"));
        names(&mut a, &[runner.clone(), p]);
    }
    assert!(a.known.len() <= 4 && a.by_cgroup.len() <= 2 && a.by_name.len() <= 6);
}

#[test]
fn chains_may_be_deep_and_circles_end() {
    let mut a = deployer();
    let mut processes: Vec<_> =
        (11..50_000).rev().map(|n| process(n, n - 1, "/bin/link", "/")).collect();
    processes.push(process(10, 1, RUNNER, "/"));
    assert!(a.observe(&processes).iter().all(|u| &*u.name == "deployer"));
    let (mut x, mut y) =
        (process(70_000, 70_001, "/bin/x", "/"), process(70_001, 70_000, "/bin/y", "/"));
    (x.id.start_ticks, y.id.start_ticks) = (1, 1);
    assert_eq!(names(&mut a, &[x, y]), ["exe:x", "exe:y"]);
}

#[test]
fn a_reload_keeps_members_of_unchanged_rules_only() {
    let (kept, changed) = (rule("kept", "*runner.py*"), rule("changed", "*agent.py*"));
    let mut a = Attribution::new(&[kept.clone(), changed]).unwrap();
    let orphans = [process(11, 10, "/bin/a", "/"), process(21, 20, "/bin/b", "/")];
    let mut all = orphans.to_vec();
    all.push(process(10, 1, RUNNER, "/"));
    all.push(process(20, 1, "/bin/agent.py", "/"));
    assert_eq!(names(&mut a, &all), ["kept", "changed", "kept", "changed"]);
    assert!(a.reconfigure(&[rule("bad", "[")]).is_err());
    assert_eq!(names(&mut a, &orphans), ["kept", "changed"]);
    a.reconfigure(&[kept, rule("changed", "*nothing*")]).unwrap();
    assert_eq!(names(&mut a, &orphans), ["kept", "exe:b"]);
}

#[test]
fn hostile_names_stay_apart_and_printable() {
    let mut a = Attribution::new(&[]).unwrap();
    let mut processes: Vec<_> = (0..3).map(|n| process(10 + n, 1, "/bin/x", "/")).collect();
    processes[0].exe = Some(KernelStr::from(&b"/tmp/a\xff"[..]));
    processes[1].exe = Some(KernelStr::from(&b"/tmp/a\xfe"[..]));
    processes[2].exe = None;
    processes[2].comm = KernelStr::from(&b"\x1b[2J\n"[..]);
    let names = names(&mut a, &processes);
    assert_ne!(names[0], names[1]);
    assert!(names.iter().all(|n| !n.chars().any(char::is_control)), "{names:?}");
}

#[test]
fn a_name_is_one_unit() {
    let mut a = Attribution::new(&[rule("x.service", "*runner.py*")]).unwrap();
    let units = a.observe(&[
        process(10, 1, RUNNER, "/"),
        process(11, 1, "/bin/x", "/system.slice/x.service"),
    ]);
    assert!(Arc::ptr_eq(&units[0], &units[1]));
}
