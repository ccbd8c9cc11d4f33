//! What leakwatch does about leaks, with real processes.

use std::time::{Duration, Instant};

use leakwatch::detection::verdict::State;
use leakwatch_tests::agent::{Agent, FAST, Plan};
use leakwatch_tests::component::need_root;
use leakwatch_tests::procfs::{alive, open_fds};
use leakwatch_tests::started::{Started, program};
use leakwatch_tests::wait::{stays, wait_until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn actions(agent: &Agent) -> Vec<Value> {
    agent.json("/api/v1/actions")["actions"].as_array().cloned().unwrap_or_default()
}

fn outcome(agent: &Agent, wanted: &str) -> Option<Value> {
    actions(agent).into_iter().find(|a| a["outcome"] == wanted)
}

/// `tag` is a test's own, for another test's agent would act on its logger.
fn logger_config(tag: &str, mode: &str) -> String {
    format!(
        "{FAST}
[[unit]]
name = \"logger\"
cmdline = \"*--tag t-{tag} *\"
[[cleanup]]
rule = \"unclosed-log-handle\"
unit = \"logger\"
do = \"signal\"
signal = \"SIGHUP\"
{mode}
"
    )
}

fn leaking_logger(agent: &Agent, tag: &str) -> Started {
    let log = agent.dir().join("logger.log").display().to_string();
    let arguments = ["--mode", "until-hup", "--log", &log, "--count", "1000", "--pace", "300"];
    Started::new(program("rotating-logger").args(["--tag", &format!("t-{tag}")]).args(arguments))
}

#[test]
fn a_logger_that_reopens_on_sighup_is_signalled_and_the_leak_is_gone() {
    if need_root().is_none() {
        return;
    }
    let agent = Plan::new(logger_config("helped", "mode = \"enforce\"")).start();
    let mut logger = leaking_logger(&agent, "helped");
    logger.hear("clean", LIMIT);
    let done = wait_until("the act to be verified", LIMIT, || outcome(&agent, "verified"));
    assert_eq!((&done["unit"], &done["action"]), (&"logger".into(), &"signal".into()), "{done}");
    assert_eq!((&done["rule"], &done["mode"]), (&"unclosed-log-handle".into(), &"enforce".into()));
    assert_eq!(done["pids"], serde_json::json!([logger.pid()]), "{done}");
    let leak = wait_until("the verdict to be resolved", LIMIT, || {
        agent
            .leaks()
            .into_iter()
            .find(|l| done["leak"] == l.id.as_str() && l.state == State::Resolved)
    });
    assert!(!leak.evidence.is_empty());
    // Standard streams and the log.
    wait_until("the stale handles to be closed", LIMIT, || {
        (open_fds(logger.pid()) == Some(4)).then_some(())
    });

    let labels = [("unit", "logger"), ("action", "signal"), ("outcome", "verified")];
    assert_eq!(agent.metrics().sum("leakwatch_actions_total", &labels), Some(1.0));
    let audit = audit_lines(&agent);
    let both: Vec<_> = audit.iter().filter(|l| l["act"] == done["act"]).collect();
    assert_eq!(both.len(), 2, "one act, before and after its check: {audit:#?}");
    assert_eq!(both[1]["outcome"], "verified");
    assert_eq!(logger.ended(), None);
}

/// Every line of the audit log, which is the one file of JSON lines in the state directory.
fn audit_lines(agent: &Agent) -> Vec<Value> {
    let files = std::fs::read_dir(agent.state_dir()).expect("the state directory");
    let text: String = files
        .flatten()
        .filter(|f| f.file_name().to_string_lossy().contains("audit"))
        .map(|f| std::fs::read_to_string(f.path()).expect("the audit log is text"))
        .collect();
    text.lines().map(|l| serde_json::from_str(l).expect("one JSON document per line")).collect()
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    if need_root().is_none() {
        return;
    }
    // No mode: a dry run is what one gets unasked.
    let agent = Plan::new(logger_config("dry", "")).start();
    let mut logger = leaking_logger(&agent, "dry");
    let would = wait_until("the act to be described", LIMIT, || outcome(&agent, "would-act"));
    assert_eq!(
        (&would["action"], &would["mode"]),
        (&"signal".into(), &"dry-run".into()),
        "{would}"
    );
    let before = open_fds(logger.pid());
    stays(Duration::from_secs(4), || match logger.heard() {
        Some(line) if line.starts_with("clean") => Err(line),
        _ => Ok(()),
    })
    .expect("nobody sent a signal");
    assert!(open_fds(logger.pid()) > before, "it goes on leaking");
    // The cooldown of ten minutes has begun, so it is said once.
    assert_eq!(actions(&agent).len(), 1, "{:#?}", actions(&agent));
}

#[test]
fn protected_units_are_left_alone() {
    if need_root().is_none() {
        return;
    }
    let agent =
        Plan::new(logger_config("protected", "mode = \"enforce\"\nprotect = [\"log*\"]")).start();
    let mut logger = leaking_logger(&agent, "protected");
    wait_until("a confirmed leak", LIMIT, || (!agent.confirmed("logger").is_empty()).then_some(()));
    stays(Duration::from_secs(3), || match logger.heard() {
        Some(line) if line.starts_with("clean") => Err(line),
        _ => Ok(()),
    })
    .expect("a protected unit gets no signal");
    assert!(actions(&agent).iter().all(|a| a["outcome"] == "refused"), "{:#?}", actions(&agent));
}

#[test]
fn an_act_that_does_not_help_is_called_so_and_the_budget_ends_it() {
    if need_root().is_none() {
        return;
    }
    // A signal that does nothing to the logger, every second, three times per hour.
    let limits = "mode = \"enforce\"\ncooldown = \"1s\"\nbudget = 3\ntimeout = \"1500ms\"";
    let config = logger_config("deaf", limits).replace("SIGHUP", "SIGCONT");
    let agent = Plan::new(config).start();
    let mut logger = leaking_logger(&agent, "deaf");
    let helpless =
        wait_until("the act to be called ineffective", LIMIT, || outcome(&agent, "ineffective"));
    assert!(helpless["detail"].as_str().is_some_and(|d| !d.is_empty()), "{helpless}");

    let sent = || {
        let all = actions(&agent);
        let done = all
            .iter()
            .filter(|a| !["refused", "would-act"].contains(&a["outcome"].as_str().unwrap_or("")));
        let acts: std::collections::BTreeSet<_> = done.map(|a| a["act"].as_u64()).collect();
        acts.len()
    };
    wait_until("the budget to be spent", LIMIT, || (sent() == 3).then_some(()));
    stays(Duration::from_secs(5), || if sent() == 3 { Ok(()) } else { Err(actions(&agent)) })
        .expect("three acts per hour and no more");
    assert_eq!(logger.ended(), None);
    let labels = [("unit", "logger"), ("action", "signal"), ("outcome", "ineffective")];
    assert_eq!(agent.metrics().sum("leakwatch_actions_total", &labels), Some(3.0));
}

/// A manager with five workers, one of them deaf to SIGTERM, and a stranger: the
/// same program with the same arguments, of another parent.
struct Crew {
    manager: Started,
    workers: Vec<u32>,
    stranger: Started,
}

impl Crew {
    fn start(agent: &Agent, tag: &str) -> Self {
        let arguments = ["--id", "1", "--of", tag, "--stubborn", "0"];
        let mut stranger = Started::new(program("agent-runner").args(arguments));
        stranger.hear("worker", LIMIT);
        let mut manager = Started::new(program("manager").args(["--tag", tag]));
        let workers =
            (0..5).map(|_| manager.hear("worker", LIMIT).parse().expect("worker PID")).collect();
        // The agent must have seen whose they are.
        agent.census();
        Self { manager, workers, stranger }
    }

    fn living(&self) -> usize {
        self.workers.iter().filter(|pid| alive(**pid)).count()
    }
}

fn crew_config(tag: &str, mode: &str) -> String {
    format!(
        "{FAST}
[[unit]]
name = \"crew\"
cmdline = \"*/manager --tag {tag}*\"
orphans = [\"*agent-runner*\"]
[[cleanup]]
rule = \"orphan\"
unit = \"crew\"
do = \"kill-orphans\"
{mode}
"
    )
}

#[test]
fn orphans_are_gone_within_a_second_and_a_stranger_is_not() {
    if need_root().is_none() {
        return;
    }
    let agent = Plan::new(crew_config("t-enforced-crew", "mode = \"enforce\"")).start();
    let mut crew = Crew::start(&agent, "t-enforced-crew");
    crew.manager.kill();
    let killed = Instant::now();
    let took = wait_until("five workers to be gone", LIMIT, || {
        (crew.living() == 0).then(|| killed.elapsed())
    });
    assert!(took < Duration::from_secs(1), "it took {took:?}\n{}", agent.log());
    let done = wait_until("the act to be verified", LIMIT, || outcome(&agent, "verified"));
    let mut pids: Vec<u32> = serde_json::from_value(done["pids"].clone()).expect("a list of pids");
    let mut workers = crew.workers.clone();
    pids.sort_unstable();
    workers.sort_unstable();
    assert_eq!(pids, workers, "{done}");
    stays(Duration::from_secs(2), || if alive(crew.stranger.pid()) { Ok(()) } else { Err(()) })
        .expect("the stranger of the same name lives");
}

#[test]
fn a_dry_run_kills_nobody() {
    if need_root().is_none() {
        return;
    }
    let agent = Plan::new(crew_config("t-dry-crew", "mode = \"dry-run\"")).start();
    let mut crew = Crew::start(&agent, "t-dry-crew");
    crew.manager.kill();
    let would = wait_until("the act to be described", LIMIT, || outcome(&agent, "would-act"));
    assert_eq!(would["pids"].as_array().map(Vec::len), Some(5), "{would}");
    let all = || if crew.living() == 5 && alive(crew.stranger.pid()) { Ok(()) } else { Err(()) };
    stays(Duration::from_secs(3), all).expect("everybody lives");
}
