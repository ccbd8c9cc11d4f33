//! What is learned of a unit survives the agent: kill -9, a restart, another life of the
//! unit, and a store that is damaged meanwhile.

use std::time::Duration;

use leakwatch_tests::agent::{Agent, Plan};
use leakwatch_tests::component::need_root;
use leakwatch_tests::started::{Started, program};
use leakwatch_tests::wait::wait_until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(90);

/// The longest windows take 16 of these, and two of them make a rest.
const CONFIG: &str = r#"
[watch]
census_interval = "100ms"
census_cpu_budget = 1.0
probes = "off"

[detection]
window = "400ms"
windows = 2
warmup = "100ms"

[[unit]]
name = "pool"
cmdline = "*--tag t-pool*"
"#;

fn pool() -> Started {
    let mut command = program("connections");
    Started::new(command.args(["--tag", "t-pool", "--count", "12", "--pace", "5"]))
}

/// Where the lives of the pool came to rest, as far as the agent knows; none while there
/// is no such unit.
fn rested(agent: &Agent) -> Option<Vec<u64>> {
    let Some(version) = learned(agent)? else { return Some(Vec::new()) };
    let rested = version["rested_at"].as_array().expect("a list");
    Some(rested.iter().filter_map(Value::as_u64).collect())
}

/// What it has learned of the pool's connections.
fn learned(agent: &Agent) -> Option<Option<Value>> {
    let unit = agent.unit("pool")?;
    let tcp = |b: &&Value| b["kind"] == "socket" && b["cohort"] == "tcp to 127.0.0.1:{n}";
    let of = unit["baselines"].as_array().expect("a list").iter().find(tcp).cloned();
    let versions = of.map_or(Vec::new(), |b| b["versions"].as_array().expect("a list").clone());
    assert!(versions.len() <= 1, "the program is the same: {versions:?}");
    let ours = |v: &Value| v["exe"].as_str().is_some_and(|exe| exe.ends_with("/connections"));
    assert!(versions.iter().all(ours), "{versions:?}");
    Some(versions.first().cloned())
}

#[test]
fn what_is_learned_survives_the_agent() {
    if need_root().is_none() {
        return;
    }
    let state = tempfile::TempDir::with_prefix("leakwatch-test-").expect("a directory");
    let start = || Plan::new(CONFIG).with_state_in(state.path()).start();
    let mut first = pool();
    first.ready(LIMIT);
    let mut agent = start();
    let at_rest = |agent: &Agent, lives: usize| {
        wait_until("the pool to rest", LIMIT, || {
            rested(agent).filter(|rests| *rests == vec![12; lives])
        });
    };
    at_rest(&agent, 1);
    // It is written by another thread; when the next is known, the first has been.
    let until = || learned(&agent).flatten().map(|version| version["until"].clone());
    let before = until();
    wait_until("more to be learned", LIMIT, || (until() != before).then_some(()));
    agent.signal(libc::SIGKILL);
    wait_until("its end", LIMIT, || agent.ended());

    let mut agent = start();
    let known = wait_until("the unit", LIMIT, || rested(&agent));
    assert_eq!(known, [12], "as soon as the unit is seen");
    first.kill();
    let mut second = pool();
    second.ready(LIMIT);
    at_rest(&agent, 2);
    let (status, _) = agent.stop();
    assert!(status.success());

    let store = state.path().join("baselines.redb");
    let whole = std::fs::read(&store).expect("the store is there");
    std::fs::write(&store, &whole[..whole.len() / 3]).expect("it is ours");
    let mut agent = start();
    let known = wait_until("the unit", LIMIT, || rested(&agent));
    assert_eq!(known, [0; 0], "{}", agent.log());
    assert!(agent.log().contains("it was set aside"), "{}", agent.log());
    let aside = state.path().join("baselines.redb.damaged");
    assert_eq!(std::fs::read(aside).expect("it is kept").len(), whole.len() / 3);
    at_rest(&agent, 1);
    assert!(agent.stop().0.success());
}
