//! `stacks = "sampled"`: the opener of what leaked before anybody suspected it.

use leakwatch::detection::verdict::Rule;
use leakwatch_tests::agent::{Agent, FAST, Plan};
use leakwatch_tests::component::need_root;
use leakwatch_tests::procfs;
use leakwatch_tests::started::{Started, program};
use leakwatch_tests::wait::{SOON, wait_until};

/// Of so many none is in the sample once in a million runs ((63/64)^880).
const HELD: u64 = 880;

/// An agent and a program that opens all it will ever leak at once, under it.
fn leaked_at_once(stacks: &str) -> (Agent, Started) {
    let config = format!(
        "{}[[unit]]\nname = \"~at-once\"\ncmdline = \"*--tag t-{stacks} *\"\n\
         [[ignore]]\nunit = \"[!~]*\"\n",
        FAST.replace("[watch]", &format!("[watch]\nprobes = \"always\"\nstacks = \"{stacks}\""))
    );
    let agent = Plan::new(config).start();
    let log = agent.dir().join("at-once.log").display().to_string();
    let count = HELD.to_string();
    let mut leaker = Started::new(
        program("rotating-logger")
            .args(["--tag", &format!("t-{stacks}"), "--mode", "hold", "--log", &log])
            .args(["--pace", "0", "--count", &count, "--wait", "1"]),
    );
    agent.census();
    leaker.tell("go");
    leaker.ready(3 * SOON);
    (agent, leaker)
}

#[test]
fn what_leaked_before_any_suspicion_has_its_opener() {
    if need_root().is_none() {
        return;
    }
    let (agent, leaker) = leaked_at_once("sampled");
    let leak = wait_until("all of it to be confirmed", 3 * SOON, || {
        agent.confirmed("~at-once").into_iter().find(|l| l.held == HELD)
    });
    assert!(leak.rules.contains(&Rule::DeletedFileHeld), "{leak:?}");
    let frame = leak.opener.first().unwrap_or_else(|| panic!("nobody opened it: {leak:?}"));
    assert!(procfs::code_of(leaker.pid(), frame).is_some(), "{frame:?} is no code of it");
    let said = [("source", "stacks"), ("mechanism", "bpf_get_stackid")];
    assert_eq!(agent.metrics().one("leakwatch_source_state", &said), Some(1.0));
}
