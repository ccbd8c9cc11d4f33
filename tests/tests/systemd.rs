//! Under a real systemd as PID 1, with the agent beside it: what `systemctl show`
//! says is what leakwatch says; and a bus that fails costs a warning.

use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use leakwatch::detection::verdict::Rule;
use leakwatch_tests::agent::{Agent, FAST, Plan, run_under};
use leakwatch_tests::component::need_root;
use leakwatch_tests::started::program_dir;
use leakwatch_tests::systemd::Machine;
use leakwatch_tests::wait::wait_until;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

fn bus_state(agent: &Agent) -> Option<f64> {
    let labels = [("source", "systemd"), ("mechanism", "dbus")];
    agent.metrics().one("leakwatch_source_state", &labels)
}

/// The unit once `holds` is true of it.
#[track_caller]
fn unit_with(agent: &Agent, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut last = None;
    let found = |last: &mut Option<Value>| {
        *last = agent.unit(name);
        last.clone().filter(&holds)
    };
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        if let Some(unit) = found(&mut last) {
            return unit;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{name} is never so that {what}: {last:?}\n{}", agent.log());
}

/// What the agent should say of a unit, by `systemctl show`.
fn shown(machine: &Machine, unit: &str) -> Value {
    let number = |property: &str| match machine.show(unit, property).as_str() {
        "" | "infinity" | "[not set]" => Value::Null,
        text => json!(text.parse::<u64>().expect("a number")),
    };
    let nonzero = |v: Value| if v == json!(0) { Value::Null } else { v };
    let invocation = Some(machine.show(unit, "InvocationID")).filter(|id| !id.is_empty());
    json!({
        "invocation_id": invocation,
        "active_state": machine.show(unit, "ActiveState"),
        "main_pid": nonzero(number("MainPID")),
        "restarts": number("NRestarts"),
        "limit_nofile": number("LimitNOFILE"),
        "limit_nofile_soft": number("LimitNOFILESoft"),
        "tasks_max": number("TasksMax"),
    })
}

fn said_of(unit: &Value) -> Value {
    let fields = [
        "invocation_id",
        "active_state",
        "main_pid",
        "restarts",
        "limit_nofile",
        "limit_nofile_soft",
        "tasks_max",
    ];
    fields
        .into_iter()
        .map(|f| (f.to_owned(), unit[f].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[test]
fn units_are_as_systemctl_shows_them() {
    let delegating = "[Service]\nDelegate=yes\nTasksMax=infinity\nExecStart=/bin/sh -c \
        'g=/sys/fs/cgroup/system.slice/delegating.service; mkdir $g/main $g/job; \
        echo $$$$ > $g/main/cgroup.procs; (echo 0 > $g/job/cgroup.procs; exec sleep 1h) & \
        exec sleep 1h'\n";
    let Some(machine) = Machine::boot(&[
        ("plain.service", "[Service]\nLimitNOFILE=777:4321\nTasksMax=77\nExecStart=sleep 1h\n"),
        ("of-template@.service", "[Service]\nExecStart=sleep 1h\n"),
        ("delegating.service", delegating),
        (
            "open-end.service",
            "[Service]\nLimitNOFILE=512\nExecStart=sleep 1h\nExecStart=\nExecStart=sleep 1h\n",
        ),
    ]) else {
        return;
    };
    let started = [
        "plain.service",
        "of-template@a\\x2db.service",
        "of-template@c.service",
        "delegating.service",
        "open-end.service",
    ];
    machine.run(&[&["systemctl", "start"], &started[..]].concat());
    // Nothing of PAM in it: the user's manager by hand, as its template starts it.
    machine.run(&["systemctl", "start", "user@0.service"]);
    machine.run(&[
        "env",
        "XDG_RUNTIME_DIR=/run/user/0",
        "systemd-run",
        "--user",
        "--quiet",
        "--unit=mine",
        "sleep",
        "1h",
    ]);
    machine.run(&[
        "sh",
        "-c",
        "systemd-run --scope --quiet --unit=transient -p TasksMax=55 sleep 1h >/dev/null 2>&1 &",
    ]);

    let agent = machine.agent(FAST);
    let others = ["transient.scope", "init.scope", "dbus.service"];
    for name in started.iter().chain(&others) {
        // Names are unique, so 404 means that it is not seen.
        // init.scope has never been started, so that it has no invocation.
        let unit = unit_with(&agent, name, "it is known", |u| u["active_state"].is_string());
        assert_eq!(said_of(&unit), shown(&machine, name), "{name}");
        assert_eq!((&unit["name"], &unit["invocation"]), (&json!(name), &json!(1)), "{name}");
    }
    let of = |name: &str, field: &str| agent.unit(name).expect("it was seen")[field].clone();
    assert_eq!(of("plain.service", "limit_nofile"), 4321);
    assert_eq!(of("plain.service", "limit_nofile_soft"), 777);
    assert_eq!(of("plain.service", "tasks_max"), 77);
    assert_eq!(of("transient.scope", "tasks_max"), 55);
    assert_eq!(of("transient.scope", "main_pid"), Value::Null);
    // What it sorts into cgroups below its own is its own.
    assert_eq!(of("delegating.service", "processes"), 2);
    assert_eq!(of("delegating.service", "tasks_max"), Value::Null);
    assert_eq!(of("delegating.service", "cgroup"), "/system.slice/delegating.service");
    // A user's manager has a bus of its own, which is not asked; and it is its own
    // unit within the system's, which is another one than the system's for it.
    for name in ["mine.service@0", "init.scope@0"] {
        let unit = unit_with(&agent, name, "it runs", |u| u["processes"].as_u64() > Some(0));
        assert_eq!((&unit["unit_kind"], &unit["invocation_id"]), (&json!("user"), &Value::Null));
    }

    assert_eq!(bus_state(&agent), Some(1.0));
    let binary = agent.binary().display().to_string();
    let report = machine.run(&[&binary, "doctor", "--json"]);
    assert_eq!(systemd_in(&report), (true, String::new()), "{report}");
}

#[test]
fn a_restarted_unit_keeps_its_series_and_gets_a_new_invocation() {
    let Some(machine) = Machine::boot(&[
        ("again.service", "[Service]\nRestart=always\nRestartSec=100ms\nExecStart=sleep 1h\n"),
        ("fails.service", "[Service]\nExecStart=sleep 1h\n"),
        ("forks.service", "[Service]\nType=forking\nExecStart=/bin/sh -c 'sleep 1h & sleep 0.5'\n"),
    ]) else {
        return;
    };
    machine.run(&["systemctl", "start", "again.service", "fails.service", "forks.service"]);
    let agent = machine.agent(FAST);
    let series = || {
        let labels = [("unit", "again.service")];
        assert_eq!(agent.metrics().all("leakwatch_unit_processes", &labels).count(), 1);
    };
    let known = |u: &Value| u["invocation_id"].is_string() && u["main_pid"].is_u64();
    let first = unit_with(&agent, "again.service", "it is known", known);
    assert_eq!((&first["invocation"], &first["restarts"]), (&json!(1), &json!(0)));
    let forks = unit_with(&agent, "forks.service", "it is known", known);
    assert_eq!(said_of(&forks), shown(&machine, "forks.service"));
    series();

    // It dies, and systemd restarts it.
    machine.run(&["systemctl", "kill", "-s", "KILL", "again.service"]);
    let other = |before: &Value| {
        let before = before["invocation_id"].clone();
        move |u: &Value| known(u) && u["invocation_id"] != before
    };
    let second = unit_with(&agent, "again.service", "it has another life", other(&first));
    assert_eq!((&second["invocation"], &second["restarts"]), (&json!(2), &json!(1)));
    assert_eq!(said_of(&second), shown(&machine, "again.service"));
    assert_ne!(second["main_pid"], first["main_pid"]);
    series();

    // Somebody restarts it.
    machine.run(&["systemctl", "restart", "again.service"]);
    let third = unit_with(&agent, "again.service", "it has a third life", other(&second));
    assert_eq!(third["invocation"], 3);
    agent.census();
    let later = agent.unit("again.service").expect("it runs");
    assert_eq!(
        (&later["invocation"], said_of(&later)),
        (&json!(3), shown(&machine, "again.service"))
    );
    series();

    // One fails for good: shown as that, without processes.
    machine.run(&["systemctl", "kill", "-s", "KILL", "fails.service"]);
    let failed = unit_with(&agent, "fails.service", "it failed", |u| u["active_state"] == "failed");
    assert_eq!((&failed["main_pid"], &failed["invocation"]), (&Value::Null, &json!(1)));
    unit_with(&agent, "fails.service", "it has no process", |u| u["processes"] == 0);
    assert!(agent.leaks().is_empty(), "{:?}", agent.leaks());
}

/// A shell line that becomes a logger which forgets twenty handles, or none, and then
/// rests. Nobody holds the other end of its lifeline: it does so itself.
fn logger(mode: &str, dir: &str) -> String {
    let program = program_dir().join("rotating-logger").display().to_string();
    format!(
        "mkdir -p {dir}; rm -f {dir}/line; mkfifo {dir}/line; exec 9<>{dir}/line; \
         exec {program} --mode {mode} --log {dir}/app.log --pace 600 --count 20 <&9 9<&-"
    )
}

#[test]
fn leaks_inside_are_confirmed_under_their_units_names() {
    let service =
        |mode: &str| format!("[Service]\nExecStart=/bin/sh -c '{}'\n", logger(mode, "/run/%p-%i"));
    let (leaks, innocent) = (service("until-hup"), service("reopen"));
    let units = [("leaky@.service", &*leaks), ("innocent@.service", &*innocent)];
    let Some(machine) = Machine::boot(&units) else { return };
    // One looks from within and has no BPF, the other from the host and has.
    let (inner, outer) = (machine.agent(FAST), Plan::new(FAST).start());
    let prefix = format!("{}/", machine.cgroup());
    machine.run(&["systemctl", "start", "leaky@one.service", "innocent@one.service"]);
    machine.run(&["systemctl", "start", "user@0.service"]);
    let user = ["env", "XDG_RUNTIME_DIR=/run/user/0", "systemd-run", "--user", "--quiet"];
    let run = |line: &[&str]| machine.run(&[&user[..], line].concat());
    run(&["--unit=hers", "sh", "-c", &logger("until-hup", "/run/hers")]);
    run(&["--unit=hers-too", "sh", "-c", &logger("reopen", "/run/hers-too")]);
    let scope = |name: &str, mode: &str| {
        let line = logger(mode, &format!("/run/{name}"));
        let unit = format!("--unit={name}");
        let line = ["systemd-run", "--scope", "--quiet", &unit, "sh", "-c", &line];
        machine.command(&line).stdout(Stdio::null()).spawn().expect("nsenter starts")
    };
    let mut scopes = [scope("passing", "until-hup"), scope("passing-too", "reopen")];

    let all = ["hers.service@0", "leaky@one.service", "passing.scope"];
    for (who, prefix) in [(&inner, ""), (&outer, &*prefix)] {
        let ours = |unit: &str| unit.starts_with(prefix);
        who.confirms(ours, &all.map(|name| (format!("{prefix}{name}"), 20)));
        for leak in who.confirmed(prefix) {
            assert!(leak.rules.contains(&Rule::UnclosedLogHandle), "{leak:?}");
        }
    }

    // The next life does not inherit it, and the verdict says what became of it.
    let of = |who: &Agent, prefix: &str| {
        who.confirmed(&format!("{prefix}leaky@")).first().map(|leak| leak.id.clone())
    };
    let ids = [of(&inner, ""), of(&outer, &prefix)].map(|id| id.expect("it was confirmed"));
    machine.run(&["systemctl", "restart", "leaky@one.service"]);
    for (who, id) in [&inner, &outer].into_iter().zip(ids) {
        wait_until("the verdict to be resolved", LIMIT, || {
            let over = who.json("/api/v1/leaks?state=resolved");
            over["leaks"].as_array()?.iter().any(|l| l["id"] == id.as_str()).then_some(())
        });
    }
    for (who, prefix) in [(&inner, ""), (&outer, &*prefix)] {
        // By now it may leak again.
        for leak in who.confirmed(prefix) {
            assert!(all.contains(&&*leak.unit.replacen(prefix, "", 1)), "{leak:?}");
        }
    }
    drop(machine);
    scopes.iter_mut().for_each(|scope| drop(scope.wait()));
}

#[test]
fn a_bus_that_goes_away_is_missed_once_and_taken_up_again() {
    let Some(machine) = Machine::boot(&[("steady.service", "[Service]\nExecStart=sleep 1h\n")])
    else {
        return;
    };
    machine.run(&["systemctl", "start", "steady.service"]);
    let agent = machine.agent(FAST);
    let known = |u: &Value| u["invocation_id"].is_string();
    let before = unit_with(&agent, "steady.service", "it is known", known);
    // systemctl has a way to systemd besides the bus.
    machine.run(&["systemctl", "stop", "dbus.socket", "dbus.service"]);
    let without =
        unit_with(&agent, "steady.service", "nothing is known", |u| u["main_pid"].is_null());
    assert_eq!((&without["invocation_id"], &without["invocation"]), (&Value::Null, &json!(1)));
    wait_until("the state to say so", LIMIT, || (bus_state(&agent) == Some(0.0)).then_some(()));
    machine.run(&["systemctl", "start", "dbus.socket", "dbus.service"]);
    let after = unit_with(&agent, "steady.service", "it is known again", known);
    assert_eq!((said_of(&after), &after["invocation"]), (said_of(&before), &json!(1)));
    assert_eq!(bus_state(&agent), Some(1.0));
    assert_eq!(warnings(&agent).len(), 1, "{:?}", warnings(&agent));
}

#[test]
fn a_bus_that_freezes_is_given_up_and_taken_up_again() {
    let sleeps = "[Service]\nExecStart=sleep 1h\n";
    let units = [("steady.service", sleeps), ("new.service", sleeps)];
    let Some(machine) = Machine::boot(&units) else { return };
    machine.run(&["systemctl", "start", "steady.service"]);
    let agent = machine.agent(FAST);
    let known = |u: &Value| u["invocation_id"].is_string();
    unit_with(&agent, "steady.service", "it is known", known);
    machine.run(&["systemctl", "kill", "-s", "STOP", "dbus.service"]);
    // Something to ask about; systemctl has a way to systemd besides the bus.
    machine.run(&["systemctl", "start", "new.service"]);
    let new = unit_with(&agent, "new.service", "it runs", |u| u["processes"] == 1);
    assert_eq!((&new["invocation_id"], &new["invocation"]), (&Value::Null, &json!(1)));
    wait_until("the bus to be given up", LIMIT, || (bus_state(&agent) == Some(0.0)).then_some(()));
    let said = warnings(&agent);
    assert!(said.len() == 1 && said[0].contains("did not answer"), "{said:?}");
    machine.run(&["systemctl", "kill", "-s", "CONT", "dbus.service"]);
    for name in ["steady.service", "new.service"] {
        let unit = unit_with(&agent, name, "it is known", known);
        assert_eq!((said_of(&unit), &unit["invocation"]), (shown(&machine, name), &json!(1)));
    }
    // The bus is well and systemd is not.
    machine.signal(libc::SIGSTOP);
    let report = machine.run(&[&agent.binary().display().to_string(), "doctor", "--json"]);
    machine.signal(libc::SIGCONT);
    let (active, why) = systemd_in(&report);
    assert!(!active && why.contains("did not answer"), "{report}");
    assert_eq!(warnings(&agent).len(), 1, "{:?}", warnings(&agent));
}

/// What `doctor --json` says of systemd: whether it answers, and why not.
#[track_caller]
fn systemd_in(report: &str) -> (bool, String) {
    let report: Value = serde_json::from_str(report).expect("JSON");
    let sources = report["sources"].as_array().cloned().unwrap_or_default();
    let source = sources.iter().find(|s| s["source"] == "systemd").expect("it is listed");
    (source["active"] == true, source["reason"].as_str().unwrap_or_default().to_owned())
}

/// What was warned of with regard to systemd.
fn warnings(agent: &Agent) -> Vec<String> {
    let by = |l: &str, module: &str| l.contains(&format!(" WARN {module}"));
    let about = |l: &&str| by(l, "leakwatch::source::systemd") || by(l, "zbus");
    agent.log().lines().filter(about).map(str::to_owned).collect()
}

#[test]
fn a_bus_that_never_answers_or_is_not_there_stalls_nothing() {
    let Some(()) = need_root() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let socket = dir.path().join("bus");
    // It listens: the kernel accepts, and nobody ever says a word.
    let _silent = UnixListener::bind(&socket).expect("a socket");
    let missing = dir.path().join("nothing");
    for (path, reason) in [(&socket, "did not answer"), (&missing, "cannot connect")] {
        let address = format!("DBUS_SYSTEM_BUS_ADDRESS=unix:path={}", path.display());
        let wrapper = ["env", &*address];
        let mut agent = Plan::new(FAST).under(&wrapper).start();
        // Censuses go on at their pace while the agent waits for the bus.
        let stamp = || agent.metrics().one("leakwatch_census_timestamp_seconds", &[]);
        let (begun, mut seen, mut last, mut longest) = (Instant::now(), 0, stamp(), 0.0_f64);
        let mut told = Instant::now();
        while begun.elapsed() < Duration::from_secs(8) {
            let now = stamp();
            if now != last {
                longest = longest.max(told.elapsed().as_secs_f64());
                (told, last, seen) = (Instant::now(), now, seen + 1);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(seen >= 8 && longest < 4.0, "{seen} censuses, {longest} s without one");
        wait_until("the bus to be given up", LIMIT, || {
            (!warnings(&agent).is_empty()).then_some(())
        });
        let said = warnings(&agent);
        assert!(said.len() == 1 && said[0].contains(reason), "{said:?}");
        assert_eq!(bus_state(&agent), Some(0.0));
        let page = agent.get("/").text().to_owned();
        assert!(page.contains(reason), "the page does not say why");
        let report = run_under(&wrapper, &["doctor", "--json"]);
        let (active, why) = systemd_in(&String::from_utf8_lossy(&report.stdout));
        assert!(!active && why.contains(reason), "{why}");
        let (status, took) = agent.stop();
        assert!(status.success() && took < Duration::from_secs(3), "{status} after {took:?}");
    }
    let wrapper = ["env", "DBUS_SYSTEM_BUS_ADDRESS=unixexec:path=/bin/false"];
    let report = run_under(&wrapper, &["doctor"]);
    let report = String::from_utf8_lossy(&report.stdout).replace(|c: char| c.is_whitespace(), " ");
    assert!(report.contains("is not of the form"), "{report}");
}
