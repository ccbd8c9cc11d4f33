//! The ladder: what is denied is named, with the errno, the capability and what to
//! grant, and is never shown as 0.

use std::process::Command;
use std::time::Duration;

use leakwatch::detection::verdict::{Leak, Rule};
use leakwatch_tests::agent::{Agent, FAST, Plan, run_under};
use leakwatch_tests::component::{need_program, need_root};
use leakwatch_tests::install;
use leakwatch_tests::procfs;
use leakwatch_tests::started::{Started, program, python};
use leakwatch_tests::wait::wait_until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
/// CAP_SYS_ADMIN implies each of the others (`bpf_capable`, `perfmon_capable`).
const NO_BPF: &[&str] = &["setpriv", "--bounding-set=-bpf,-sys_admin"];
const NO_PERFMON: &[&str] = &["setpriv", "--bounding-set=-perfmon,-sys_admin"];
const NOBODY: &[&str] = &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// `tag` is a test's own, for other tests have victims too.
fn config(tag: &str) -> String {
    let fast = FAST.replace("[watch]", "[watch]\nprobes = \"always\"");
    let unit =
        |name: &str| format!("[[unit]]\nname = \"{name}\"\ncmdline = \"*--tag {tag}-{name}*\"\n");
    format!("{fast}{}{}{}", unit("victim"), unit("own"), unit("mixed"))
}

fn start(wrapper: &[&str], tag: &str) -> Option<Agent> {
    need_root()?;
    need_program("setpriv")?;
    Some(Plan::new(config(tag)).under(wrapper).start())
}

fn leaking_deployer(agent: &Agent, tag: &str, wrapper: &[&str]) -> Started {
    let log = agent.dir().join(format!("{tag}.log")).display().to_string();
    let deployer = python("deployer.py");
    let mut command = match wrapper {
        [] => Command::new(deployer.get_program()),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(deployer.get_program());
            command
        }
    };
    // Read as a whole, for another user may not reach into the source tree.
    let script = deployer.get_args().next().expect("the script");
    let copy = agent.dir().join("deployer.py");
    std::fs::copy(script, &copy).expect("room for a copy");
    command.arg(&copy).args(["--tag", tag, "--log", &log, "--pace", "400"]);
    Started::new(&mut command)
}

/// A pool of connections under `wrapper`, from where everybody may run it.
fn connections(agent: &Agent, wrapper: &[&str], tag: &str) -> Command {
    let copy = agent.dir().join("connections");
    if !copy.exists() {
        install::copy(program("connections").get_program(), &copy);
    }
    let mut command = match wrapper {
        [] => Command::new(&copy),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(&copy);
            command
        }
    };
    command.args(["--tag", tag]);
    command
}

/// What `doctor --json` says under the same privileges.
fn doctor(agent: &Agent, wrapper: &[&str], more: &[&str]) -> String {
    let output = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg(agent.binary())
        .arg("doctor")
        .arg("--config")
        .arg(agent.config())
        .args(more)
        .output()
        .expect("doctor starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The line of a mechanism in `doctor --json`.
fn line<'a>(report: &'a Value, source: &str, mechanism: &str) -> &'a Value {
    let all = report["sources"].as_array().expect("sources");
    let is = |s: &&Value| s["source"] == source && s["mechanism"] == mechanism;
    all.iter().find(is).unwrap_or_else(|| panic!("{source} by {mechanism}: {report}"))
}

/// The census goes by /proc, the rest is off, and `words` are in the reasons, in
/// what `doctor` prints as in its JSON.
fn is_census_only(agent: &Agent, wrapper: &[&str], words: &[&str]) {
    let report: Value = serde_json::from_str(&doctor(agent, wrapper, &["--json"])).expect("JSON");
    assert_eq!(line(&report, "census", "proc")["active"], true, "{report}");
    for denied in [
        line(&report, "census", "iter/task_file"),
        line(&report, "fd_probes", "tp_btf"),
        line(&report, "task_probes", "tp_btf"),
    ] {
        assert_eq!(denied["active"], false, "{denied}");
        let reason = denied["reason"].as_str().unwrap_or_default();
        for word in words.iter().chain(&["grant"]) {
            assert!(reason.contains(word), "{word:?} is to be said: {denied}");
        }
    }
    let text = doctor(agent, wrapper, &[]);
    for word in words.iter().chain(&["census", "fd_probes", "proc"]) {
        assert!(text.contains(word), "{word} is to be said:\n{text}");
    }

    let scrape = agent.metrics();
    let state = |source: &str, mechanism: &str| {
        scrape.one("leakwatch_source_state", &[("source", source), ("mechanism", mechanism)])
    };
    assert_eq!(state("census", "proc"), Some(1.0));
    let probing = scrape.all("leakwatch_source_state", &[("source", "fd_probes")]);
    assert!(probing.map(|s| s.value).all(|v| v == 0.0));
    let flows = scrape.sum("leakwatch_unit_fds_opened_total", &[]);
    assert_eq!(flows, None, "what nobody counted is absent");
}

fn a_leak_is_found(agent: &Agent, unit: &str, tag: &str, wrapper: &[&str]) {
    let mut deployer = leaking_deployer(agent, &format!("{tag}-{unit}"), wrapper);
    deployer.ready(LIMIT);
    let leak = wait_until("a leak found without BPF", LIMIT, || {
        agent.confirmed(unit).into_iter().find(|l| l.held == 20)
    });
    assert_eq!((leak.rules.contains(&Rule::UnclosedLogHandle), leak.kind.as_str()), (true, "log"));
    agent.census();
    let shown = agent.unit(unit).expect("it runs")["open_fds_total"].as_u64();
    let children = procfs::children_of(deployer.pid());
    let all =
        children.iter().chain([&deployer.pid()]).filter_map(|pid| procfs::open_fds(*pid)).sum();
    assert_eq!(shown, Some(all));

    // The states of sockets come from /proc, too; slowly, for a census by /proc of a
    // busy host takes seconds, and it is to see them go at three separate ones.
    let mut client = connections(agent, wrapper, &format!("{tag}-{unit}"));
    let mut client =
        Started::new(client.args(["--mode", "forget", "--count", "20", "--pace", "1000"]));
    client.ready(LIMIT);
    wait_until("connections whose peers have gone", LIMIT, || {
        let is = |l: &Leak| {
            l.rules.contains(&Rule::CloseWait) && l.held == 20 && l.cohort == "tcp to 127.0.0.1:{n}"
        };
        agent.confirmed(unit).into_iter().find(is)
    });
}

#[test]
fn without_cap_bpf_the_census_goes_by_proc_and_still_finds_leaks() {
    let Some(agent) = start(NO_BPF, "bpf") else { return };
    is_census_only(&agent, NO_BPF, &["EPERM", "CAP_BPF"]);
    a_leak_is_found(&agent, "victim", "bpf", &[]);
}

#[test]
fn without_cap_perfmon_the_census_goes_by_proc_and_still_finds_leaks() {
    let Some(agent) = start(NO_PERFMON, "perfmon") else { return };
    is_census_only(&agent, NO_PERFMON, &["EPERM", "CAP_PERFMON"]);
    a_leak_is_found(&agent, "victim", "perfmon", &[]);
}

/// There the kernel's programs and /proc disagree about when, or with which number, a
/// process began, so nothing that joins the two may be used.
#[test]
fn in_another_time_or_pid_namespace_the_census_goes_by_proc() {
    if need_root().is_none() || need_program("unshare").is_none() {
        return;
    }
    let time: &[&str] = &["unshare", "--time", "--boottime", "86400", "--fork"];
    let pid: &[&str] = &["unshare", "--pid", "--mount-proc", "--fork"];
    for (wrapper, word) in [(time, "time namespace"), (pid, "pid namespace")] {
        let output = run_under(wrapper, &["doctor", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(report["processes_denied"], 0, "{word}: {report}");
        assert!(report["processes_full"].as_u64() > Some(0), "{word}: {report}");
        assert_eq!(line(&report, "census", "proc")["active"], true, "{word}: {report}");
        for (source, mechanism) in [("census", "iter/task_file"), ("task_probes", "tp_btf")] {
            let state = line(&report, source, mechanism);
            assert_eq!(state["active"], false, "{word}: {state}");
            assert!(state["reason"].as_str().is_some_and(|r| r.contains(word)), "{state}");
        }
    }
}

#[test]
fn as_nobody_own_processes_are_watched_and_others_are_absent_not_zero() {
    let Some(agent) = start(NOBODY, "nobody") else { return };
    is_census_only(&agent, NOBODY, &["EPERM", "CAP_BPF", "CAP_PERFMON"]);
    let mut victim = Started::new(program("connections").args(["--tag", "nobody-victim"]));
    victim.ready(LIMIT);
    a_leak_is_found(&agent, "own", "nobody", NOBODY);

    let unit = agent.unit("victim").expect("that it runs is no secret");
    assert_eq!(unit["processes"], 1);
    assert_eq!(unit["open_fds"], Value::Null, "kinds are denied: {unit}");
    // The number alone is no secret since Linux 6.2; where it is, it is absent.
    let (total, denied) = (unit["open_fds_total"].as_u64(), unit["denied_processes"].as_u64());
    let truth = procfs::open_fds(victim.pid());
    assert!([(truth, Some(0)), (None, Some(1))].contains(&(total, denied)), "{unit}");
    let scrape = agent.metrics();
    for name in ["leakwatch_unit_open_fds", "leakwatch_unit_deleted_open_bytes"] {
        assert_eq!(scrape.sum(name, &[("unit", "victim")]), None, "{name} is denied, not 0");
    }
    // Nor is a part shown as the whole: one of these two can be read.
    let mixed = [&[][..], NOBODY].map(|wrapper| {
        let mut started = Started::new(&mut connections(&agent, wrapper, "nobody-mixed"));
        started.ready(LIMIT);
        started
    });
    agent.census();
    let unit = agent.unit("mixed").expect("both run");
    assert_eq!((&unit["processes"], &unit["open_fds"]), (&2.into(), &Value::Null), "{unit}");
    let own = procfs::open_fds(mixed[1].pid()).expect("it runs");
    let both = procfs::open_fds(mixed[0].pid()).map(|other| own + other);
    let (total, denied) = (unit["open_fds_total"].as_u64(), unit["denied_processes"].as_u64());
    assert!([(both, Some(0)), (Some(own), Some(1))].contains(&(total, denied)), "{unit}");
    let kinds = agent.metrics().sum("leakwatch_unit_open_fds", &[("unit", "mixed")]);
    assert_eq!(kinds, None, "a sum of what may be read is not the unit's");

    let worst = scrape.one("leakwatch_unit_worst_process_open_fds", &[("unit", "victim")]);
    assert!(worst != Some(0.0));
    assert_eq!(scrape.sum("leakwatch_unit_threads", &[("unit", "victim")]), Some(2.0));
    // The page says so too.
    let page = agent.get("/");
    assert!(page.text().contains("CAP_"), "the page names what is missing");
    assert_eq!(agent.get("/-/healthy").status, 200, "seeing little is no illness");
}

#[test]
fn as_root_everything_is_seen_by_the_iterator() {
    if need_root().is_none() {
        return;
    }
    let agent = Plan::new(config("root")).start();
    let scrape = agent.metrics();
    let state = |source: &str| {
        let labels = [("source", source)];
        let mut found = scrape.all("leakwatch_source_state", &labels).filter(|s| s.value == 1.0);
        found.next().map(|s| s.labels["mechanism"].clone())
    };
    assert_eq!(state("census").as_deref(), Some("iter/task_file"), "{}", agent.log());
    // Which of the two is the kernel's choice; the accuracy suite tells them apart.
    let fds = state("fd_probes");
    assert!(matches!(fds.as_deref(), Some("fentry" | "tp_btf")), "{fds:?}\n{}", agent.log());
    assert_eq!(state("task_probes").as_deref(), Some("tp_btf"), "{}", agent.log());
}
